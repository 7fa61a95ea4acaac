//! The configuration file: read whole, checked whole, and told what is wrong by file, line, key and allowed range.

mod checks;
mod reader;
mod values;

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;
use serde::Serialize;
use uuid::Uuid;

use crate::quota::{FailureHandling, OfflineGrace, Repetition, WhenUsedUp};
use crate::units::{Octets, RatingGroup, SubscriberIdentifier};
use crate::usage::BillingDay;

use checks::Checked;
pub(crate) use checks::{CHUNK, GRACE, GRACE_OCTETS, RATE, REPORT};
use reader::{Problem, Section, Source};

/// How often used units are reported when neither the file nor the plan says so.
pub const DEFAULT_REPORT_INTERVAL: Duration = Duration::from_mins(1);
/// Octets to ask for at a time when neither the file nor the plan says so.
pub const DEFAULT_CHUNK: Octets = Octets::new(10 << 20);
/// Octets asked for at a time at the most, when the configuration does not say: eight seconds of 1 Gbit/s.
pub const DEFAULT_LARGEST_CHUNK: Octets = Octets::new(1 << 30);

/// Everything the file says, with defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Who the agent is.
    pub device: Device,
    /// Where the charging server is.
    pub server: Server,
    /// Path of the SQLite ledger.
    pub ledger: PathBuf,
    /// Directory in bpffs under which maps and programs are pinned.
    pub pin_root: PathBuf,
    /// How the agent runs.
    pub agent: Agent,
    /// Where the page and the API are served over TCP; `None` = nowhere, only the unix socket is.
    pub api: Option<Api>,
    /// Where hosts behind the gateway ask whether they are captive (RFC 8908), one address and port; `None` = nowhere.
    pub captive_portal: Option<SocketAddr>,
    /// Filter rules by name, as they are written (`[[filter]]`); at most 16 names.
    pub filters: BTreeMap<String, Vec<String>>,
    /// How usage is shown.
    pub usage: Usage,
    /// The metered links; at least one.
    pub links: Vec<Link>,
}

/// `[device]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name at the server: 1 to 64 of letters, digits, `.`, `_`, `-`.
    pub id: String,
    /// Serial number, 1 to 128 characters. Default: the id.
    pub serial: String,
    /// Model, 1 to 128 characters. Default: `generic`.
    pub model: String,
    /// The device's Ed25519 key (PKCS#8 PEM, mode 0600), made on first start.
    pub key_file: PathBuf,
    /// Holds the one-time claim code; read at registration.
    pub claim_code_file: Option<PathBuf>,
    /// `nFName` on the wire. Default: a version 5 UUID of the device id.
    pub nf_instance_id: Uuid,
}

/// `[server]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Scheme, host, port and, if any, the path before `/nchf-convergedcharging`.
    pub url: Url,
    /// Where subscriber and package come from.
    pub onboarding: OnboardingMode,
    /// PEM file of the only authorities trusted for TLS; `None` = those of the platform.
    pub tls_ca: Option<PathBuf>,
    /// How long a connection may take to be made. 100 ms ..= 60 s.
    pub connect_timeout: Duration,
    /// How long one attempt may take from the first octet to the last of its answer. 1 s ..= 10 min.
    pub answer_timeout: Duration,
    /// Names, or patterns with `*`, of the links over which to try when the routed way fails, in this order; others come after. At most 16.
    pub ways: Vec<String>,
    /// Whether the server recognises a message that comes again (`deduplicates`).
    pub repetition: Repetition,
}

/// Where subscriber and package come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnboardingMode {
    /// From the server's `/onboarding/v1`.
    Server,
    /// From the file: any charging server of the standard will do.
    Static,
}

/// `[agent]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Unix socket on which `weir status` asks.
    pub socket: PathBuf,
    /// How often used units are reported; `None` = as the plan says, else [`DEFAULT_REPORT_INTERVAL`].
    pub report_interval: Option<Duration>,
    /// How often the counters are recorded at least. 1 s ..= 1 h.
    pub checkpoint_interval: Duration,
    /// Octets that may pass before they are recorded: what a power cut can cost. 64 KiB ..= 1 TiB; `None` = up to the grant's ceiling.
    pub max_unrecorded: Option<Octets>,
    /// How long settling may take at a stop. 0 ..= 10 min.
    pub shutdown_wait: Duration,
    /// Only the link with the best default route is in use.
    pub follow_default_route: bool,
    /// Resolvers that stay reachable through a shut gate; `None` = those of `/etc/resolv.conf`.
    pub resolvers: Option<Vec<IpAddr>>,
    /// Control octets (charging, DNS) that pass a shut gate in an hour.
    pub control_reserve: Octets,
}

/// `[usage]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The time zone in which hours, days and months are told: a name or a rule; `None` = the system's.
    pub time_zone: Option<String>,
    /// Day of the month on which a billing period begins. 1 ..= 31; in a shorter month its last day.
    pub billing_day: BillingDay,
}

/// `[api]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// Address and port.
    pub listen: SocketAddr,
    /// Holds the token that has to be said; always there unless `listen` is a loopback address.
    pub token_file: Option<PathBuf>,
    /// Names by which it may be asked, besides plain addresses and `localhost`. At most 16.
    pub hosts: Vec<String>,
}

/// One `[[link]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface name, or a pattern with `*`.
    pub name: String,
    /// Modem slot. Default: the name.
    pub slot: String,
    /// IMEI of the modem: 14 to 16 digits.
    pub imei: Option<String>,
    /// ICCID of the SIM: 18 to 22 digits.
    pub iccid: Option<String>,
    /// What to charge for; `None` = the first one of the binding.
    pub rating_group: Option<RatingGroup>,
    /// Octets to ask for at a time; `None` = as the plan says, else [`DEFAULT_CHUNK`].
    pub chunk: Option<Octets>,
    /// Octets to ask for at a time on a link that would use up a chunk within moments. Not below a `chunk` of the same link.
    pub largest_chunk: Octets,
    /// Who pays; always there with static onboarding, never otherwise.
    pub subscriber: Option<SubscriberIdentifier>,
    /// Access point name; `None` = that of the binding, or `internet` with static onboarding.
    pub apn: Option<String>,
    /// What to do when the package is used up; `None` = as plan and server say, else block.
    pub when_used_up: Option<WhenUsedUp>,
    /// The filter that is followed where the server restricts and does not say to what, and with [`WhenUsedUp::Restrict`].
    pub restrict_to: Option<String>,
    /// What to do without an answer; `None` = as plan and server say, else retry and terminate.
    pub failure_handling: Option<FailureHandling>,
    /// How far to go on without the server; `None` = as the plan says, else not at all.
    pub offline_grace: Option<OfflineGrace>,
}

impl Link {
    /// True when this entry is for the interface: its name, or a pattern that fits it.
    #[must_use]
    pub fn matches(&self, interface: &str) -> bool {
        fits(&self.name, interface)
    }

    /// True for a pattern.
    #[must_use]
    pub fn is_pattern(&self) -> bool {
        self.name.contains('*')
    }
}

/// Everything that is wrong with a configuration file, one line each: `weir.toml:12: link[0].chunk: …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    file: PathBuf,
    /// Each by itself, in the order of the lines.
    pub faults: Vec<Fault>,
    /// Why the file could not be read; `None` when it could.
    pub unread: Option<ErrorKind>,
}

/// One thing that is wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The line, from 1; `None` when it is the file as a whole.
    pub line: Option<usize>,
    /// Key path and what is wrong.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        let line = |fault: &Fault| match fault.line {
            Some(line) => format!("{file}:{line}: {}", fault.message),
            None => format!("{file}: {}", fault.message),
        };
        self.faults.iter().map(line).collect::<Vec<_>>().join("\n").fmt(f)
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads and checks a file. Nothing but the file itself is looked at.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let todo = match error.kind() {
                ErrorKind::NotFound => {
                    "; name another (--config FILE), or write it: weir.sample.toml explains every key"
                }
                ErrorKind::PermissionDenied => {
                    "; ask by sudo, or join its group (usermod -aG weir NAME) and log in anew"
                }
                _ => "",
            };
            let fault = Fault { line: None, message: format!("cannot be read: {error}{todo}") };
            ConfigError { file: path.to_owned(), faults: vec![fault], unread: Some(error.kind()) }
        })?;
        Self::parse(&text, path)
    }

    /// True when a `[[link]]` is for this interface.
    #[must_use]
    pub fn names(&self, interface: &str) -> bool {
        self.links.iter().any(|link| link.matches(interface))
    }

    /// Checks a text that was read from `path`; relative paths in it start from the directory of `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let source = Source::new(text);
        let found = toml::de::DeTable::parse(text);
        let config = match &found {
            Ok(table) => checks::config(&Section::root(&source, table.get_ref()), base_of(path)),
            Err(error) => {
                let offset = error.span().map_or(0, |span| span.start);
                source.problem(offset, error.message().replace('\n', ", "));
                Checked::Wrong
            }
        };
        let problems = source.into_problems();
        match config {
            Checked::Right(config) if problems.is_empty() => Ok(*config),
            Checked::Right(_) | Checked::Wrong => Err(ConfigError {
                file: path.to_owned(),
                faults: problems
                    .into_iter()
                    .map(|Problem { line, message }| Fault { line: Some(line), message })
                    .collect(),
                unread: None,
            }),
        }
    }
}

/// The directory relative paths start from.
fn base_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// Whether a pattern, in which `*` stands for any letters or none, fits a text.
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => text.strip_prefix(head).is_some_and(|rest| {
            let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            ends.into_iter().any(|at| fits(tail, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests;
