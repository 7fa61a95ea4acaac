//! The world of one schedule: links, SIMs, kernel, ledger, server, network, and the agent while it lives.

use std::time::Duration;

use agent::quota::{Outcome, Quota, Terms};
use agent::units::{BootInstant, SubscriberIdentifier};

use super::chance::{index, mix};
use super::draw::Sight;
use super::kernel::{End, Kernel, MeterId};
use super::ledger::Ledger;
use super::network::Network;
use super::schedule::{Package, Setup};
use super::server::Server;
use super::tally::Tally;

/// A link and what is in its slot.
#[derive(Debug)]
pub(super) struct Link {
    /// The SIM, by its place in the setup.
    pub(super) sim: Option<usize>,
    /// Whether it is in use.
    pub(super) up: bool,
    /// The meter that is pinned for it.
    pub(super) pinned: Option<MeterId>,
    /// The pinned meter counts for this link; false from the moment the link was made anew until a loader is done.
    pub(super) metered: bool,
}

/// What the loop has for one link, and one more for sessions of past epochs.
#[derive(Debug)]
pub(super) struct Station {
    pub(super) quota: Quota,
    /// The meter in hand.
    pub(super) meter: Option<MeterId>,
    /// A loader is at work.
    pub(super) pending: bool,
    /// The SIM that the core was told to use, and the number of its terms.
    pub(super) in_use: Option<(usize, u64)>,
    /// It asked for a name while another core owed a report for its SIM.
    pub(super) is_kept_waiting: bool,
}

impl Station {
    pub(super) const fn new(quota: Quota, meter: Option<MeterId>, pending: bool) -> Self {
        Self { quota, meter, pending, in_use: None, is_kept_waiting: false }
    }
}

/// The agent while it lives.
#[derive(Debug)]
pub(super) struct Agent {
    /// One for each link, then one for past sessions.
    pub(super) stations: Vec<Station>,
    pub(super) settling: bool,
}

/// Everything there is.
pub(super) struct World {
    pub(super) setup: Setup,
    /// Time since boot.
    pub(super) now: BootInstant,
    /// Time in all, over boots.
    pub(super) past: Duration,
    pub(super) kernel: Kernel,
    pub(super) links: Vec<Link>,
    pub(super) ledger: Ledger,
    pub(super) server: Server,
    pub(super) network: Network,
    pub(super) agent: Option<Agent>,
    /// What the reply in hand says.
    pub(super) said: Outcome,
    /// How often the terms of each SIM have changed.
    pub(super) plans: Vec<u64>,
    /// How often the agent has started.
    pub(super) lives: u64,
    /// Crash points until the agent dies.
    pub(super) crash_in: Option<u64>,
    /// Commits until one fails.
    pub(super) full_in: Option<u64>,
    /// How often cores were made.
    pub(super) cores: u64,
    /// Everything works from here on.
    pub(super) quiet: bool,
    pub(super) tally: Tally,
    /// What happened, line by line, when somebody wants to read it.
    pub(super) trace: Option<Vec<String>>,
}

/// After a boot, the agent starts no earlier than this.
pub(super) const BOOTED: Duration = Duration::from_secs(20);

impl World {
    pub(super) fn new(setup: Setup) -> Self {
        let mut server = Server::new(setup.seed, setup.repetition);
        for (sim, package) in setup.sims.iter().enumerate() {
            server.buy(&subscriber(sim), package.bought);
        }
        let links = (0..setup.links).map(|link| Link { sim: Some(link), up: true, pinned: None, metered: false });
        Self {
            now: BootInstant::default().plus(BOOTED),
            past: Duration::ZERO,
            kernel: Kernel::default(),
            links: links.collect(),
            ledger: Ledger::default(),
            server,
            network: Network::new(),
            agent: None,
            said: Outcome::ContextNotFound,
            plans: vec![0; setup.sims.len()],
            lives: 0,
            crash_in: None,
            full_in: None,
            cores: 0,
            quiet: false,
            tally: Tally::default(),
            trace: None,
            setup,
        }
    }

    /// What can be seen of it by whoever draws the next step.
    pub(super) fn sight(&self) -> Sight {
        let agent = self.agent.as_ref();
        Sight {
            alive: agent.is_some(),
            settling: agent.is_some_and(|agent| agent.settling),
            unattached: agent.is_some_and(|agent| agent.stations.iter().any(|station| station.pending)),
            requests: self.network.requests.len(),
            replies: self.network.replies.len(),
        }
    }

    /// The server's time: it knows nothing of the device's boots.
    pub(super) fn time(&self) -> Duration {
        self.past + self.now.since(BootInstant::default())
    }

    pub(super) fn link_index(&self, number: u64) -> usize {
        index(number, self.links.len())
    }

    pub(super) fn package(&self, sim: usize) -> Package {
        self.setup.sims[sim]
    }

    /// The terms of a SIM as they are now.
    pub(super) fn terms(&self, sim: usize) -> Terms {
        self.package(sim).terms(self.setup.repetition, self.lives + self.plans[sim])
    }

    /// A seed that no other core has.
    pub(super) const fn seed(&self, station: u64) -> u64 {
        mix(self.setup.seed, mix(self.cores, station))
    }

    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now:?}  {}", line()));
        }
    }

    /// The maps of that meter are gone. What the agent was told it may still write down, if it lives on.
    pub(super) fn lose_meter(&mut self, id: MeterId) {
        let alive = self.agent.is_some();
        let position = self.ledger.position(&self.kernel.meters[id].epoch);
        let meter = &mut self.kernel.meters[id];
        if meter.end.is_some() {
            return;
        }
        let beyond = |passed: agent::units::UsedUnit, throttled: agent::units::UsedUnit| {
            let (at, at_throttled) = (meter.reading.passed.total().get(), meter.reading.throttled.total().get());
            (at.saturating_sub(passed.total().get()), at_throttled.saturating_sub(throttled.total().get()))
        };
        let at_most = beyond(position.passed, position.throttled);
        let at_least = if alive { beyond(meter.told.passed, meter.told.throttled) } else { at_most };
        meter.end = Some(End { at_least, at_most });
    }

    /// The agent is no more, and with it all that it had not committed. Pinned meters go on; one that only the agent still held does not.
    pub(super) fn die(&mut self) {
        let Some(agent) = self.agent.take() else { return };
        (self.crash_in, self.full_in) = (None, None);
        self.network.hang_up();
        for id in agent.stations.iter().filter_map(|station| station.meter) {
            if self.links.iter().all(|link| link.pinned != Some(id)) {
                self.lose_meter(id);
            }
        }
    }
}

/// Who pays for the SIM at that place of the setup.
pub(super) fn subscriber(sim: usize) -> SubscriberIdentifier {
    SubscriberIdentifier::new(format!("imsi-00101000000000{sim}"))
}
