//! What the doctor has to say of one thing: which check, how it stands, why that matters, and what to type.

use serde::{Serialize, Serializer};

/// Version of [`Report`]; it changes when a member changes its meaning or goes. New checks do not change it.
pub const SCHEMA: u32 = 1;

/// What is looked at. The order is that of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// The configuration file is right.
    ConfigValid,
    /// Configuration, key and claim code are nobody else's to read.
    ConfigRights,
    /// BPF programs can count and compare in one step.
    KernelAtomics,
    /// Where the kernel lets a meter be attached.
    KernelHooks,
    /// BPF programs run as machine code.
    KernelJit,
    /// No module of a vendor forwards past the kernel.
    KernelModules,
    /// Pins can be made.
    PinsBpffs,
    /// Every pin belongs to a meter at work.
    PinsLeft,
    /// The agent runs and answers.
    AgentRunning,
    /// What the agent itself complains of.
    AgentBooks,
    /// The configured link exists and is up.
    LinkPresent,
    /// The link can be metered by what it is made of.
    LinkStack,
    /// One meter sits at both hooks.
    LinkMeter,
    /// Nobody runs before the meter.
    LinkAhead,
    /// No XDP program takes packets before the hooks.
    LinkXdp,
    /// No hardware forwards past the hooks.
    LinkOffload,
    /// The interface's own counters agree with the meter's.
    LinkCounters,
    /// The default route leads out of a metered link.
    RouteMetered,
    /// The wall clock is synchronised.
    ClockSynced,
    /// The server's clock agrees.
    ClockServer,
    /// The ledger survives a reboot.
    StatePersistent,
    /// The ledger can be written.
    StateWritable,
    /// There is room for the ledger.
    StateSpace,
    /// The server's name has an address.
    ServerName,
    /// The server answers over this way.
    ServerReached,
    /// The connection to the server can be trusted.
    ServerTls,
    /// The server knows the device.
    ServerToken,
}

impl Check {
    /// Every check, in the order of the report.
    pub const ALL: [Self; 27] = [
        Self::ConfigValid,
        Self::ConfigRights,
        Self::KernelAtomics,
        Self::KernelHooks,
        Self::KernelJit,
        Self::KernelModules,
        Self::PinsBpffs,
        Self::PinsLeft,
        Self::AgentRunning,
        Self::AgentBooks,
        Self::LinkPresent,
        Self::LinkStack,
        Self::LinkMeter,
        Self::LinkAhead,
        Self::LinkXdp,
        Self::LinkOffload,
        Self::LinkCounters,
        Self::RouteMetered,
        Self::ClockSynced,
        Self::ClockServer,
        Self::StatePersistent,
        Self::StateWritable,
        Self::StateSpace,
        Self::ServerName,
        Self::ServerReached,
        Self::ServerTls,
        Self::ServerToken,
    ];

    /// Its name in JSON and in the manual, which never changes.
    #[must_use]
    pub const fn id(self) -> &'static str {
        match self {
            Self::ConfigValid => "config.valid",
            Self::ConfigRights => "config.rights",
            Self::KernelAtomics => "kernel.atomics",
            Self::KernelHooks => "kernel.hooks",
            Self::KernelJit => "kernel.jit",
            Self::KernelModules => "kernel.modules",
            Self::PinsBpffs => "pins.bpffs",
            Self::PinsLeft => "pins.left",
            Self::AgentRunning => "agent.running",
            Self::AgentBooks => "agent.books",
            Self::LinkPresent => "link.present",
            Self::LinkStack => "link.stack",
            Self::LinkMeter => "link.meter",
            Self::LinkAhead => "link.ahead",
            Self::LinkXdp => "link.xdp",
            Self::LinkOffload => "link.offload",
            Self::LinkCounters => "link.counters",
            Self::RouteMetered => "route.metered",
            Self::ClockSynced => "clock.synced",
            Self::ClockServer => "clock.server",
            Self::StatePersistent => "state.persistent",
            Self::StateWritable => "state.writable",
            Self::StateSpace => "state.space",
            Self::ServerName => "server.name",
            Self::ServerReached => "server.reached",
            Self::ServerTls => "server.tls",
            Self::ServerToken => "server.token",
        }
    }

    /// Why it is looked at.
    #[must_use]
    pub const fn why(self) -> &'static str {
        match self {
            Self::ConfigValid => "without a right configuration the agent does not start, and nothing is metered",
            Self::ConfigRights => "whoever can read the device's key or claim code can buy and report in its name",
            Self::KernelAtomics => "without them packets of several processors pass the ceiling together",
            Self::KernelHooks => "the meter sits there; without hooks nothing is counted and nothing is stopped",
            Self::KernelJit => "interpreted programs cost several times as much a packet, and a fast link slows down",
            Self::KernelModules => "what such a module forwards by itself passes neither the meter nor the gate",
            Self::PinsBpffs => "pins let counters and gates outlive the agent; without them a crash loses octets",
            Self::PinsLeft => "what is pinned and not attached counts nothing, and may hold usage not yet reported",
            Self::AgentRunning => "without the agent nothing is bought, reported or settled",
            Self::AgentBooks => "what is wrong in the books is money: usage lost, in doubt, or charged by nobody",
            Self::LinkPresent => "a link that is not there under its name carries nothing, or carries it unmetered",
            Self::LinkStack => "on stacked links an octet would be counted twice or not at all",
            Self::LinkMeter => "no meter counts nothing; two count every packet twice",
            Self::LinkAhead => "what others accept or drop before the meter is not counted",
            Self::LinkXdp => "XDP runs before the hooks: what it sends back or redirects is not counted",
            Self::LinkOffload => "what the hardware forwards by itself passes neither the meter nor the gate",
            Self::LinkCounters => {
                "octets that the interface has carried and the meter has not seen are charged by nobody"
            }
            Self::RouteMetered => "traffic that leaves by another link is neither counted nor stopped",
            Self::ClockSynced => {
                "hours and days of the history are labelled by this clock, and certificates held against it"
            }
            Self::ClockServer => "log-ins are dated: a server whose clock differs by more than a minute refuses them",
            Self::StatePersistent => "a reboot loses what was used and not yet acknowledged",
            Self::StateWritable => "nothing is granted beyond what can be recorded",
            Self::StateSpace => "when the disk is full nothing more is granted until there is room again",
            Self::ServerName => "without an address no server can be asked for units",
            Self::ServerReached => "a way that leads to the server is what units are bought over",
            Self::ServerTls => "token and usage go over this connection, and grants come back over it",
            Self::ServerToken => "a server that does not know the device grants nothing",
        }
    }
}

impl Serialize for Check {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

/// How it stands, the better first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Verdict {
    /// As it should be.
    #[serde(rename = "ok")]
    Ok,
    /// It could not be looked at, or there was nothing to look at.
    #[serde(rename = "not checked")]
    NotChecked,
    /// It works, and may cost octets or money one day.
    #[serde(rename = "warning")]
    Warning,
    /// Octets pass uncounted, or nothing passes, now or at the next occasion.
    #[serde(rename = "problem")]
    Problem,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub check: Check,
    /// Of which link, file or way; `None` where there is only one.
    pub subject: Option<String>,
    /// How it stands.
    pub verdict: Verdict,
    /// What was found, one sentence without its stop.
    pub what: String,
    /// What to do; `None` when nothing has to be done.
    pub fix: Option<String>,
}

impl Finding {
    /// All is well.
    #[must_use]
    pub fn ok(check: Check, what: impl Into<String>) -> Self {
        Self { check, subject: None, verdict: Verdict::Ok, what: what.into(), fix: None }
    }

    /// It could not be looked at; `fix` says how it could be.
    #[must_use]
    pub fn not_checked(check: Check, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::NotChecked, fix: Some(fix.into()), ..Self::ok(check, what) }
    }

    /// It works for now.
    #[must_use]
    pub fn warning(check: Check, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, fix: Some(fix.into()), ..Self::ok(check, what) }
    }

    /// It does not.
    #[must_use]
    pub fn problem(check: Check, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Problem, fix: Some(fix.into()), ..Self::ok(check, what) }
    }

    /// The same of this link, file or way.
    #[must_use]
    pub fn of(self, subject: impl Into<String>) -> Self {
        Self { subject: Some(subject.into()), ..self }
    }
}

/// All that was found, in the order of [`Check`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The device, where the configuration could be read.
    pub device: Option<String>,
    /// When, RFC 3339, by the clock of this machine.
    pub at: String,
    /// What.
    pub findings: Vec<Finding>,
}

impl Report {
    /// The worst of all.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok)
    }

    /// How many stand so.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }

    /// The exit status of the command: 0 when there is nothing to do, 1 with warnings, 2 with problems.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self.verdict() {
            Verdict::Ok | Verdict::NotChecked => 0,
            Verdict::Warning => 1,
            Verdict::Problem => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_check_has_a_name_of_its_own_and_says_why_in_one_line() {
        let ids: BTreeSet<&str> = Check::ALL.iter().map(|check| check.id()).collect();
        assert_eq!(ids.len(), Check::ALL.len());
        assert!(Check::ALL.is_sorted(), "the list is in the order of the report");
        for check in Check::ALL {
            assert!(check.id().bytes().all(|c| c.is_ascii_lowercase() || c == b'.'), "{}", check.id());
            assert!(check.why().len() <= 100 && !check.why().ends_with('.'), "{}", check.why());
        }
    }

    #[test]
    fn the_manual_tells_of_every_check() {
        let manual = include_str!("../../../docs/operations.md");
        for check in Check::ALL {
            assert!(manual.contains(&format!("`{}`", check.id())), "docs/operations.md says nothing of {}", check.id());
        }
    }

    #[test]
    fn the_exit_status_is_that_of_the_worst_finding() {
        let report = |findings| Report { device: None, at: String::new(), findings };
        let ok = Finding::ok(Check::KernelJit, "compiled");
        let blind = Finding::not_checked(Check::KernelJit, "no right", "sudo");
        let warning = Finding::warning(Check::KernelJit, "interpreted", "a sysctl");
        let problem = Finding::problem(Check::KernelAtomics, "too old", "a kernel");
        assert_eq!(report(vec![]).exit_status(), 0);
        assert_eq!(report(vec![ok.clone(), blind.clone()]).exit_status(), 0);
        assert_eq!(report(vec![ok.clone(), warning.clone(), blind]).exit_status(), 1);
        assert_eq!(report(vec![problem, ok, warning]).exit_status(), 2);
    }
}
