//! Looks at kernel, agent and server all the time, shows what it sees, and answers what it has seen.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use agent::datapath::Datapath;
use agent::local::{self, LinkStatus};
use agent_common::Counters;
use anyhow::{Context as _, Result};

use super::books::{self, Package};
use super::screen::Screen;
use crate::clock::{now, pause};
use crate::http::Client;

/// Between two looks at kernel and agent.
const LOOK: Duration = Duration::from_millis(200);

/// The rate shown is that of this long.
const RATE_OVER: Duration = Duration::from_secs(1);

/// The server is asked at every so many looks.
const SERVER_EVERY: u32 = 3;

/// What was seen last, all of it for people to look at and for the acts to wait on.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    /// Since the demo began.
    pub(super) elapsed: Duration,
    /// Which act it is.
    pub(super) act: String,
    /// The link as the agent tells of it; none while no agent answers.
    pub(super) link: Option<LinkStatus>,
    /// Octets of the session at which the gate shuts, as the agent said last.
    pub(super) ceiling: u64,
    /// The kernel's counters, read by the demo itself; none before they exist.
    pub(super) kernel: Option<Counters>,
    /// Octets that passed per second, by the kernel, over the last second.
    pub(super) rate: u64,
    /// The package as the server has it; none before it is bought.
    pub(super) package: Option<Package>,
    /// The longest time between two looks at which the kernel had passed more, since it was last set to zero: no standstill was longer.
    pub(super) longest_pause: Duration,
}

impl Figures {
    /// The agent's word for the session's state.
    pub(super) fn state(&self) -> &str {
        self.link.as_ref().map_or("no agent", |link| link.state.as_str())
    }

    /// Grants of the session, by the agent.
    pub(super) fn grants(&self) -> u32 {
        self.link.as_ref().map_or(0, |link| link.grants)
    }

    /// Octets that passed under the ceiling, both directions.
    pub(super) fn passed(&self) -> u64 {
        self.kernel.map_or(0, |counters| counters.uplink.passed.octets + counters.downlink.passed.octets)
    }

    /// Octets that met a shut gate, both directions.
    pub(super) fn refused(&self) -> u64 {
        self.kernel.map_or(0, |counters| counters.uplink.refused.octets + counters.downlink.refused.octets)
    }

    /// Octets that passed a shut gate by the allow-list, both directions.
    pub(super) fn control(&self) -> u64 {
        self.kernel.map_or(0, |counters| counters.uplink.control.octets + counters.downlink.control.octets)
    }
}

/// Where to look.
#[derive(Debug, Clone)]
pub(super) struct Places {
    pub(super) pin_root: PathBuf,
    pub(super) link: String,
    pub(super) socket: PathBuf,
    pub(super) server: Client,
    pub(super) subscriber: String,
}

/// The thread that looks; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Observer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    figures: Mutex<Figures>,
    stop: AtomicBool,
}

impl Shared {
    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer {
    /// Begins to look, and to show.
    pub(super) fn start(places: Places, screen: &Screen, begin: Instant) -> Result<Self> {
        let shared = Arc::new(Shared { figures: Mutex::default(), stop: AtomicBool::new(false) });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
        let (theirs, screen) = (Arc::clone(&shared), screen.clone());
        let mut looking = Looking { places, runtime, datapath: None, passed: vec![(begin, 0)], moved: begin };
        let work = move || {
            for round in 0.. {
                if theirs.stop.load(Ordering::SeqCst) {
                    return;
                }
                looking.look(&theirs, begin, round);
                let figures = theirs.figures().clone();
                screen.show(&figures);
                pause(LOOK);
            }
        };
        let thread = std::thread::Builder::new().name("observer".into()).spawn(work).context("observer")?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What was seen last.
    pub(super) fn figures(&self) -> Figures {
        self.shared.figures().clone()
    }

    /// Says which act it is from now on.
    pub(super) fn begin_act(&self, act: &str) {
        act.clone_into(&mut self.shared.figures().act);
    }

    /// From now on the longest pause is measured anew.
    pub(super) fn forget_pauses(&self) {
        self.shared.figures().longest_pause = Duration::ZERO;
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Looking {
    places: Places,
    runtime: tokio::runtime::Runtime,
    /// Opened once: the maps are the same ones over every start of the agent.
    datapath: Option<Datapath>,
    /// Readings of the last second.
    passed: Vec<(Instant, u64)>,
    /// When the counter was last seen to move.
    moved: Instant,
}

impl Looking {
    /// One look at everything. What does not answer (yet) is shown as absent and is no error: the acts say what must be there.
    fn look(&mut self, shared: &Shared, begin: Instant, round: u32) {
        let link = self.runtime.block_on(local::fetch(&self.places.socket)).ok().and_then(|status| {
            let wanted = &self.places.link;
            status.links.into_iter().find(|link| link.link == *wanted)
        });
        let asked = round.is_multiple_of(SERVER_EVERY);
        let package = asked.then(|| books::package(&self.places.server, &self.places.subscriber).ok()).flatten();
        if self.datapath.is_none() {
            self.datapath = Datapath::open(&self.places.pin_root, &self.places.link).ok();
        }
        let kernel = self.datapath.as_ref().and_then(|datapath| datapath.read().ok());
        let mut figures = shared.figures();
        figures.elapsed = now() - begin;
        figures.ceiling = link.as_ref().map_or(figures.ceiling, |link| link.ceiling_octets);
        figures.link = link;
        figures.kernel = kernel;
        figures.package = package.or(figures.package);
        let passed = figures.passed();
        let pause = now() - self.moved;
        figures.rate = self.rate(passed);
        figures.longest_pause = figures.longest_pause.max(pause);
    }

    /// Octets a second, by the oldest reading of the last second and this one.
    fn rate(&mut self, passed: u64) -> u64 {
        let at = now();
        if self.passed.last().is_none_or(|(_, before)| *before != passed) {
            self.moved = at;
        }
        self.passed.push((at, passed));
        let old = self.passed.iter().rposition(|(then, _)| at - *then >= RATE_OVER).unwrap_or(0);
        self.passed.drain(..old);
        let Some((then, before)) = self.passed.first() else { return 0 };
        let millis = u64::try_from((at - *then).as_millis()).unwrap_or(u64::MAX).max(1);
        passed.saturating_sub(*before) * 1000 / millis
    }
}
