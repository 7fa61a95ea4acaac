//! What a scenario starts from: the links, the SIMs with their packages, and what the two programs are told.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

use crate::alone::WITHOUT_TCX;
use crate::bpffs::Workdir;
use crate::topology::{HOST_V4, Layout};

/// A name of the server's that is in its certificate beside its address; only who writes it into a file of hosts can look it up.
pub const SERVER_NAME: &str = "charging.scene";

/// The server's admin token.
pub(super) const ADMIN: &str = "admin-of-the-scenario";

/// The beginning of a scenario. Every SIM has a package; the links take the first SIMs, the others are free.
#[derive(Debug, Clone)]
pub struct Plot {
    /// The topology.
    pub layout: Layout,
    /// One SIM for each: the members of its purchase (docs/protocol.md section 4), the subscriber apart.
    pub packages: Vec<Value>,
    /// The lines of each `[[link]]`; empty means one for each uplink, `wan0` with the first SIM, `wan1` with the second.
    pub links: Vec<String>,
    /// The path of the ledger, within the directory of the scenario.
    pub ledger: String,
    /// More lines of `[agent]`.
    pub agent: String,
    /// Lines of `[api]`; empty means that the section is left out.
    pub api: String,
    /// More sections, whole.
    pub sections: String,
    /// More lines of `[server]`.
    pub server: String,
    /// More arguments of the server.
    pub server_args: Vec<String>,
    /// How agent and server talk.
    pub transport: Transport,
    /// The server's address: of the host that is reached over whichever uplink the gateway prefers.
    pub host: IpAddr,
    /// Orders in the environment of every agent: drills, as `agent::drill` tells them.
    pub drills: Vec<(&'static str, &'static str)>,
}

/// How agent and server talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Plain HTTP.
    Plain,
    /// TLS, with an authority made for this scenario alone.
    Tls,
}

impl Plot {
    /// The default topology and one SIM with this package.
    #[must_use]
    pub fn of(package: Value) -> Self {
        Self {
            layout: Layout::default(),
            packages: vec![package],
            links: Vec::new(),
            ledger: "ledger.db".into(),
            agent: String::new(),
            api: String::new(),
            sections: String::new(),
            server: String::new(),
            server_args: Vec::new(),
            transport: Transport::Plain,
            host: HOST_V4,
            drills: Vec::new(),
        }
    }

    /// The same over this topology.
    #[must_use]
    pub fn over(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// The same with these lines under `[agent]`.
    #[must_use]
    pub fn agent(self, lines: &str) -> Self {
        Self { agent: lines.into(), ..self }
    }

    /// The same with these lines under `[api]`.
    #[must_use]
    pub fn api(self, lines: &str) -> Self {
        Self { api: lines.into(), ..self }
    }

    /// The same with this section.
    #[must_use]
    pub fn section(self, text: &str) -> Self {
        Self { sections: text.into(), ..self }
    }

    /// The same with agents that attach as on a kernel without TCX: by filters of clsact.
    #[must_use]
    pub fn by_clsact(mut self) -> Self {
        self.drills.push(WITHOUT_TCX);
        self
    }

    /// The same with one more SIM that has this package.
    #[must_use]
    pub fn and(mut self, package: Value) -> Self {
        self.packages.push(package);
        self
    }

    pub(super) fn config(&self, url: &str, workdir: &Workdir) -> String {
        let mut text = format!(
            "[device]\nid = \"gw-1\"\nkey_file = \"device.pem\"\n\n[server]\nurl = \"{url}\"\nallow_plaintext = true\n{}\n\n\
             [ledger]\npath = \"{}\"\n\n[datapath]\npin_root = \"{}\"\n\n\
             [agent]\nsocket = \"weir.sock\"\ncheckpoint_interval = \"1s\"\n{}\n\n{}\n",
            self.server,
            self.ledger,
            pin_root(workdir).display(),
            self.agent,
            self.sections,
        );
        if !self.api.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n[api]\n{}\n", self.api);
        }
        let lines = if self.links.is_empty() { self.default_links() } else { self.links.clone() };
        for lines in lines {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n[[link]]\n{lines}\n");
        }
        text
    }

    fn default_links(&self) -> Vec<String> {
        let line = |index| format!("name = \"wan{index}\"\niccid = \"{}\"", iccid(index));
        (0..self.layout.uplinks.len()).map(line).collect()
    }
}

/// A package of so many octets, with nothing else said.
#[must_use]
pub fn package(octets: u64) -> Value {
    json!({ "totalVolume": octets })
}

/// A package of so many octets, granted in chunks of so many.
#[must_use]
pub fn chunked(octets: u64, chunk: u64) -> Value {
    json!({ "totalVolume": octets, "chunk": chunk })
}

/// The subscriber of the SIM with this index.
#[must_use]
pub fn subscriber(sim: usize) -> String {
    format!("imsi-00101000000000{sim}")
}

/// The number of the SIM with this index.
#[must_use]
pub fn iccid(sim: usize) -> String {
    format!("890010000000000000{sim}")
}

/// Where the agent's pins are.
pub(super) fn pin_root(workdir: &Workdir) -> std::path::PathBuf {
    workdir.bpf().join("weir")
}

/// An authority of the scenario's own and a server certificate for `address`, all PEM.
pub(super) struct Certificates {
    pub(super) authority: String,
    pub(super) certificate: String,
    pub(super) key: String,
}

impl Certificates {
    /// Good for ever.
    pub(super) fn make(address: &str) -> Result<Self> {
        Self::signed(&rcgen::CertificateParams::new(vec![address.to_owned(), SERVER_NAME.to_owned()])?)
    }

    /// Good for so long from now.
    pub(super) fn good_for(address: &str, length: Duration) -> Result<Self> {
        let mut params = rcgen::CertificateParams::new(vec![address.to_owned()])?;
        let now: Duration = clock_gettime(ClockId::CLOCK_REALTIME).context("reading CLOCK_REALTIME")?.into();
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + now + length;
        Self::signed(&params)
    }

    fn signed(certificate: &rcgen::CertificateParams) -> Result<Self> {
        let mut params = rcgen::CertificateParams::new(Vec::new())?;
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "authority of one scenario");
        let authority_key = rcgen::KeyPair::generate()?;
        let authority = params.self_signed(&authority_key)?.pem();
        let issuer = rcgen::Issuer::new(params, authority_key);
        let key = rcgen::KeyPair::generate()?;
        let certificate = certificate.signed_by(&key, &issuer)?;
        Ok(Self { authority, certificate: certificate.pem(), key: key.serialize_pem() })
    }
}
