//! The world under torture, and what keeps it going between two blows: whoever died is started again when it is time to.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use fastrand::Rng;
use nix::sys::signal::Signal;

use super::plan::{METERED, SMALL, Setting};
use super::tally::Tally;
use super::traffic::Traffic;
use super::wire::Wire;
use crate::clock::{Deadline, now, pause};
use crate::eventually::eventually;
use crate::offload::Switch;
use crate::scenario::{Plot, RECORDED, World, iccid};
use crate::topology::{Layout, Medium};

/// How long anything may take that is bound to happen, on a machine that is busy with other things.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// A world at rest says the same twice, so long after each other.
const REST: Duration = Duration::from_millis(60);

/// How long an agent may take to settle at a stop, by its configuration. What is left then, the next one does.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(3);

/// Octets that the disk under the ledger has room for, and where it is.
pub(super) const DISK: usize = 32 << 20;
const DISK_NAME: &str = "state";

/// The ledger, within the world's directory.
pub(super) const LEDGER: &str = "state/ledger.db";

/// What the agent is doing.
#[derive(Debug, Clone, Copy)]
pub(super) enum AgentState {
    Dead,
    Runs,
    /// Stopped by a signal, and does not know it.
    Suspended,
    /// Was asked to end, and has until then.
    Ending(Deadline),
}

/// What an agent does when it is asked to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    /// Leaves meters, gates and sessions to the next one.
    Keeps,
    /// Settles.
    Settles,
}

/// What is to be set right again, or comes after a blow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mend {
    StartAgent,
    KillAgent,
    ResumeAgent,
    StartServer,
    EmptyDisk,
    RaiseLink(usize),
    Reauthorise(usize),
}

/// Everything that takes part.
pub(super) struct Stage {
    pub(super) traffic: Option<Traffic>,
    pub(super) wires: Vec<Wire>,
    pub(super) world: World,
    pub(super) setting: Setting,
    pub(super) tally: Tally,
    pub(super) agent: AgentState,
    /// Whether the agent was ordered to die at a point of its work.
    doomed: bool,
    /// Which metered links are up.
    pub(super) up: [bool; METERED],
    /// The uplink with the best default route.
    pub(super) preferred: usize,
    /// Octets bought for the small package.
    pub(super) bought: u64,
    /// Draws what is no blow of its own: how an agent is started, and when it dies while it starts.
    pub(super) random: Rng,
    server: SocketAddr,
    due: BTreeMap<(Instant, u64), Mend>,
    number: u64,
    pub(super) last: &'static str,
    journal: File,
    begin: Instant,
}

impl Stage {
    /// Builds everything, and waits until the agent meters both links.
    pub(super) fn build(setting: Setting, random: Rng, limit: Duration) -> Result<Self> {
        let mut world = World::build(&plot(&setting))?;
        // A file system of its own: so that it can be full.
        world.workdir.mount_memory(DISK_NAME, DISK as u64)?;
        for end in [&world.topology.client, &world.topology.internet, &world.topology.gateway] {
            // A link with GRO holds 256 packets for a gateway that is busy. A burst must be shorter, after a pause, or where the server
            // answers the agent without measure: what the queue has no room for was captured and is never metered.
            end.sysctl("ipv4/tcp_rmem", "4096 32768 65536")?;
        }
        let server = world.server.as_ref().context("a server")?.address;
        let wires = (0..METERED).map(|link| Wire::open(&world, link, server)).collect::<Result<Vec<_>>>()?;
        let journal = world.workdir.path().join("journal.log");
        let mut stage = Self {
            traffic: None,
            wires,
            bought: setting.packages[SMALL]["totalVolume"].as_u64().context("octets of the small package")?,
            journal: File::create(&journal).with_context(|| format!("make {}", journal.display()))?,
            world,
            setting,
            tally: Tally::default(),
            agent: AgentState::Dead,
            doomed: false,
            up: [true; METERED],
            preferred: 0,
            random,
            server,
            due: BTreeMap::new(),
            number: 0,
            last: "",
            begin: now(),
        };
        stage.start_agent()?;
        for link in 0..METERED {
            stage.is_metered(link)?;
        }
        stage.traffic = Some(Traffic::start(&stage.world, METERED, limit)?);
        Ok(stage)
    }

    /// The kind of the blow that fell last.
    pub(super) const fn last_blow(&self) -> &'static str {
        self.last
    }

    /// Writes down what happens, with the second it happens at.
    pub(super) fn note(&mut self, what: &str) {
        // A journal that cannot be written is missed only after a failure.
        let _ = writeln!(self.journal, "{:9.3} {what}", self.begin.elapsed_by(now()));
    }

    /// So long from now this is to be done.
    pub(super) fn later(&mut self, after: Duration, mend: Mend) {
        self.number += 1;
        self.due.insert((now() + after, self.number), mend);
    }

    /// Takes back what was to be mended later.
    pub(super) fn forget(&mut self, what: &Mend) {
        self.due.retain(|_, mend| mend != what);
    }

    /// Lets the world go on for so long.
    pub(super) fn go_on_for(&mut self, length: Duration) -> Result<()> {
        let end = Deadline::after(length);
        loop {
            self.tick()?;
            if end.passed() {
                return Ok(());
            }
            pause(end.remaining().min(Duration::from_millis(20)));
        }
    }

    /// Does what is due, and looks at everybody.
    pub(super) fn tick(&mut self) -> Result<()> {
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= now()) {
            let mend = entry.remove();
            self.note(&format!("{mend:?}"));
            self.mend(mend).with_context(|| format!("{mend:?}"))?;
        }
        self.look_at_agent()?;
        if let Some(server) = &mut self.world.server {
            let ended = server.actor.exited()?;
            ensure!(ended.is_none(), "the server has ended by itself: {ended:?}");
        }
        if let Some(traffic) = &mut self.traffic {
            traffic.mend(&self.world);
        }
        self.look_at_wires()
    }

    fn look_at_wires(&mut self) -> Result<()> {
        let mut passed = 0;
        for wire in &mut self.wires {
            wire.look(&self.world);
            passed += wire.passed()?;
        }
        self.tally.saw(passed);
        Ok(())
    }

    fn mend(&mut self, mend: Mend) -> Result<()> {
        match mend {
            Mend::StartAgent => self.start_agent(),
            Mend::KillAgent => self.kill_agent(),
            Mend::ResumeAgent => self.resume_agent(),
            Mend::StartServer => self.start_server(),
            Mend::EmptyDisk => match fs::remove_file(self.filler()) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("empty the disk"),
                Ok(()) | Err(_) => Ok(()),
            },
            Mend::RaiseLink(link) => self.raise(link),
            Mend::Reauthorise(sim) => self.command("REAUTHORISE", sim),
        }
    }

    /// Does at once everything that is still to be set right.
    pub(super) fn mend_all(&mut self) -> Result<()> {
        for mend in std::mem::take(&mut self.due).into_values().filter(|mend| *mend != Mend::KillAgent) {
            self.note(&format!("{mend:?}"));
            self.mend(mend).with_context(|| format!("{mend:?}"))?;
        }
        Ok(())
    }

    /// Starts the agent, unless it is there. By chance it is one that keeps its sessions when it is asked to end.
    pub(super) fn start_agent(&mut self) -> Result<()> {
        let ends = if self.random.bool() { Ends::Keeps } else { Ends::Settles };
        self.start_agent_that(ends, None)
    }

    /// Starts an agent that does this when it is asked to end, unless there is one; it may be ordered to die at a point before that.
    pub(super) fn start_agent_that(&mut self, ends: Ends, dies_at: Option<&str>) -> Result<()> {
        if matches!(self.agent, AgentState::Dead) {
            let keep: &[&str] = match ends {
                Ends::Keeps => &["--keep"],
                Ends::Settles => &[],
            };
            let drills: Vec<_> = dies_at.map(|point| ("WEIR_DRILL_DIE_AT", point)).into_iter().collect();
            self.world.start_agent_with(&[&RECORDED, keep].concat(), &drills)?;
            self.tally.agent_starts += 1;
            self.agent = AgentState::Runs;
            self.doomed = dies_at.is_some();
        }
        Ok(())
    }

    /// What fills the disk under the ledger.
    pub(super) fn filler(&self) -> PathBuf {
        self.world.workdir.path().join(DISK_NAME).join("filler")
    }

    /// Kills the agent, whatever it does.
    pub(super) fn kill_agent(&mut self) -> Result<()> {
        if matches!(self.agent, AgentState::Dead) {
            return Ok(());
        }
        self.look_at_agent()?;
        if self.world.agent.is_some() {
            self.world.kill_agent()?;
            self.tally.agent_kills += 1;
        }
        self.agent = AgentState::Dead;
        Ok(())
    }

    /// Has an agent that stands still go on.
    pub(super) fn resume_agent(&mut self) -> Result<()> {
        if let (AgentState::Suspended, Some(agent)) = (self.agent, &mut self.world.agent) {
            agent.actor.signal(Signal::SIGCONT)?;
            self.agent = AgentState::Runs;
        }
        Ok(())
    }

    /// Notices an agent that has ended: as it was asked to, or it fails the run.
    fn look_at_agent(&mut self) -> Result<()> {
        let Some(agent) = &mut self.world.agent else { return Ok(()) };
        match (agent.actor.exited()?, self.agent) {
            (None, AgentState::Ending(until)) if until.passed() => bail!("the agent was asked to end and does not"),
            (None, _) => Ok(()),
            // A signal that comes before the agent listens for it ends it as it would any program: like a kill.
            (Some(status), AgentState::Ending(_)) if status.success() || status.signal() == Some(libc::SIGTERM) => {
                self.world.agent = None;
                self.agent = AgentState::Dead;
                Ok(())
            }
            (Some(status), AgentState::Runs | AgentState::Ending(_))
                if self.doomed && status.signal() == Some(libc::SIGKILL) =>
            {
                self.world.agent = None;
                self.agent = AgentState::Dead;
                self.tally.agent_kills += 1;
                self.later(Duration::ZERO, Mend::StartAgent);
                Ok(())
            }
            (Some(status), state) => bail!("the agent has ended by itself ({status}, {state:?})"),
        }
    }

    /// Asks the agent to end.
    pub(super) fn stop_agent(&mut self) -> Result<()> {
        if let (AgentState::Runs, Some(agent)) = (self.agent, &mut self.world.agent) {
            agent.actor.signal(Signal::SIGTERM)?;
            self.agent = AgentState::Ending(Deadline::after(SHUTDOWN_WAIT + PATIENCE));
        }
        Ok(())
    }

    /// Waits until the agent has ended as it was asked to.
    pub(super) fn agent_ends(&mut self) -> Result<()> {
        while matches!(self.agent, AgentState::Ending(_)) {
            self.look_at_agent()?;
            pause(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Has an agent running that is not about to end, nor doomed to die.
    pub(super) fn bring_agent_up(&mut self) -> Result<()> {
        self.resume_agent()?;
        self.agent_ends()?;
        if self.doomed {
            self.kill_agent()?;
        }
        self.start_agent()
    }

    /// Waits until the agent is in charge: one that has just been started does not hear what it is asked.
    pub(super) fn agent_answers(&self) -> Result<()> {
        eventually("the agent to answer", PATIENCE, || self.world.status().map(drop))
    }

    pub(super) fn kill_server(&mut self) -> Result<()> {
        if self.world.server.is_some() {
            self.world.kill_server()?;
            self.tally.server_kills += 1;
        }
        Ok(())
    }

    /// Starts the server, unless it is there.
    pub(super) fn start_server(&mut self) -> Result<()> {
        if self.world.server.is_none() {
            self.world.restart_server(self.server)?;
        }
        Ok(())
    }

    /// Waits until a meter sits on a link as it is now.
    pub(super) fn is_metered(&mut self, link: usize) -> Result<()> {
        let (wire, world) = (&self.wires[link], &self.world);
        eventually(&format!("wan{link} to be metered"), PATIENCE, || wire.is_metered(world))?;
        self.look_at_wires()
    }

    /// Stops every packet, waits until those under way have arrived, and holds wire and kernel against each other: at such a moment
    /// links can be changed, and nothing that the meter has counted is lost before the far end.
    pub(super) fn freeze(&mut self) -> Result<()> {
        self.world.topology.freeze()?;
        self.audit()
    }

    /// Lets packets go again.
    pub(super) fn thaw(&self) -> Result<()> {
        self.world.topology.thaw()
    }

    /// At rest, wire and kernel must agree on every link.
    pub(super) fn audit(&mut self) -> Result<()> {
        eventually("wire and kernel to rest and to agree", PATIENCE, || {
            let before = self.counted()?;
            pause(REST);
            self.look_at_wires()?;
            ensure!(before == self.counted()?, "still counting");
            self.wires.iter().try_for_each(|wire| wire.agrees(&self.world))
        })?;
        self.tally.audits += 1;
        Ok(())
    }

    fn counted(&self) -> Result<Vec<agent_common::Counters>> {
        self.wires.iter().map(Wire::counted).collect()
    }

    /// Sets a link up that is down, with the default route if it is the one to have it.
    pub(super) fn raise(&mut self, link: usize) -> Result<()> {
        if !self.up[link] {
            self.freeze()?;
            self.world.topology.set_up(link)?;
            self.thaw()?;
            self.world.topology.route(link)?;
            if self.preferred == link {
                self.world.topology.prefer(link)?;
            }
            self.up[link] = true;
        }
        Ok(())
    }
}

/// Seconds between two instants, for the journal.
trait Elapsed {
    fn elapsed_by(self, later: Instant) -> f32;
}

impl Elapsed for Instant {
    fn elapsed_by(self, later: Instant) -> f32 {
        later.saturating_duration_since(self).as_secs_f32()
    }
}

/// Two metered links, and one way out that nobody meters.
fn plot(setting: &Setting) -> Plot {
    let [first, second] = setting.media;
    let gro = if setting.gro { Switch::On } else { Switch::Off };
    let layout = Layout { uplinks: vec![first, second, Medium::Veth], gro, ..Layout::default() };
    let mut plot = Plot::of(setting.packages[0].clone()).over(layout);
    plot.packages.clone_from(&setting.packages);
    plot.transport = setting.transport;
    plot.ledger = LEDGER.into();
    // A server that answers for ever is not listened to for longer.
    plot.server = "answer_timeout = \"5s\"\n".into();
    // The first slot takes the SIM that the server gives it, so that the server can give it another.
    plot.links = vec!["name = \"wan0\"".into(), format!("name = \"wan1\"\niccid = \"{}\"", iccid(SMALL))];
    plot.agent(&format!(
        "shutdown_wait = \"{}s\"\nfollow_default_route = {}",
        SHUTDOWN_WAIT.as_secs(),
        setting.follows_default_route
    ))
}
