//! The command line of `weir-server`.

use anyhow::{Context as _, bail};
use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::clock::Clock;
use crate::server::{Authentication, Database, Enrolment, FaultSwitches, Options, Repetition, TlsFiles};
use crate::units::Seconds;

/// The reference charging server of weir.
///
/// Prints `listening on http(s)://ADDRESS` when it is ready, stops gracefully on SIGTERM and SIGINT, logs to standard error
/// (`RUST_LOG` sets the level).
#[derive(Debug, Parser)]
#[command(name = "weir-server", version)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches of a command line")]
pub struct Args {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Database file, made when it is not there; `:memory:` keeps nothing.
    #[arg(long, default_value = "weir-server.db")]
    database: String,
    /// File whose first line is the admin token.
    #[arg(long, conflicts_with = "admin_token", required_unless_present = "admin_token")]
    admin_token_file: Option<PathBuf>,
    /// The admin token itself; other users of the machine can see it in the process list.
    #[arg(long)]
    admin_token: Option<String>,
    /// Certificate chain (PEM); with it and --tls-key the server speaks TLS only.
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key (PEM).
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Let devices register without a claim code.
    #[arg(long)]
    open_registration: bool,
    /// Accept charging messages without a bearer token (agents with static onboarding).
    #[arg(long)]
    no_auth: bool,
    /// Open /admin/v1/faults: for tests and demonstrations only.
    #[arg(long)]
    allow_faults: bool,
    /// Charge whatever comes, also what comes again: plays a foreign server without rule 1 of docs/protocol.md. For tests only.
    #[arg(long)]
    no_dedup: bool,
    /// Write each charging exchange to this directory, one JSON file each.
    #[arg(long)]
    record: Option<PathBuf>,
    /// Validity of a grant in seconds, where the plan says nothing else.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    validity: u32,
    /// Life of an access token in seconds.
    #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    token_lifetime: u32,
}

impl Args {
    /// Reads the files that the command line names.
    pub fn into_options(self) -> anyhow::Result<Options> {
        let admin_token = match (&self.admin_token, &self.admin_token_file) {
            (Some(token), _) => token.clone(),
            (None, Some(path)) => std::fs::read_to_string(path)
                .with_context(|| format!("reading the admin token from {}", path.display()))?
                .lines()
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned(),
            (None, None) => String::new(),
        };
        if admin_token.is_empty() {
            bail!("the admin token is empty");
        }
        Ok(Options {
            listen: self.listen,
            database: if self.database == ":memory:" { Database::Memory } else { Database::File(self.database.into()) },
            admin_token,
            tls: self.tls_cert.zip(self.tls_key).map(|(certificates, key)| TlsFiles { certificates, key }),
            enrolment: if self.open_registration { Enrolment::Open } else { Enrolment::ClaimCode },
            authentication: if self.no_auth { Authentication::Optional } else { Authentication::Required },
            faults: if self.allow_faults { FaultSwitches::Allowed } else { FaultSwitches::Refused },
            repetition: if self.no_dedup { Repetition::Charged } else { Repetition::Recognised },
            record: self.record,
            validity: Seconds(self.validity),
            token_lifetime: Seconds(self.token_lifetime),
            clock: Clock::default(),
        })
    }
}
