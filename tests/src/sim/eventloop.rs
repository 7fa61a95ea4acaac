//! The agent's loop as it is: tells the cores what happened, carries out what they command in that order, and can die between any two.

use std::time::Duration;

use agent::quota::{Command, Event, Quota, Reading, Record, Route, StoredSession, Usable};
use agent::units::BootInstant;

use super::Broken;
use super::chance::Chance;
use super::kernel::MeterId;
use super::network::Attempt;
use super::tally::{kind_of, trigger};
use super::world::{Agent, Station, World, subscriber};

/// Commands at one instant: more is a storm.
const COMMANDS: u32 = 2_000;
/// Timers at one instant: a timer that is still due after so many calls stays due for ever.
const ROUNDS: u32 = 3;

/// Why the agent does not go on.
pub(super) enum Halt {
    /// It died.
    Died,
    /// A commit failed for want of storage: its cores are ahead of the ledger.
    Suspended,
    /// It broke an invariant.
    Broken(Broken),
}

impl From<Broken> for Halt {
    fn from(broken: Broken) -> Self {
        Self::Broken(broken)
    }
}

impl World {
    /// The agent starts: the ledger and the pinned meters are all it has. A loader is at work for every link.
    pub(super) fn start(&mut self) -> Result<(), Halt> {
        if self.agent.is_some() {
            self.die();
        }
        self.lives += 1;
        self.cores += 1;
        let mut stored = self.ledger.restore();
        let mut stations = Vec::new();
        for link in 0..self.links.len() {
            let meter = self.links[link].pinned;
            let quota = self.restore(link, meter, &mut stored);
            stations.push(Station::new(quota, meter, true));
        }
        let past = self.restore(self.links.len(), None, &mut stored);
        stations.push(Station::new(past, None, false));
        self.agent = Some(Agent { stations, settling: false });
        (0..=self.links.len()).try_for_each(|station| self.carry_out(station))
    }

    /// The ledger could not be written, and can be again: every core is made anew from it and from the meter in hand, as by a
    /// restart. Only what is under way still comes to something.
    pub(super) fn begin_anew(&mut self) -> Result<(), Halt> {
        if self.agent.as_ref().is_none_or(|agent| agent.settling) {
            return Err(Halt::Died);
        }
        self.cores += 1;
        self.now = self.now.plus(Duration::from_secs(1));
        let mut stored = self.ledger.restore();
        for station in 0..=self.links.len() {
            let meter = self.station(station).and_then(|of| of.meter);
            let meter = meter.filter(|id| self.kernel.meters[*id].end.is_none());
            let quota = self.restore(station, meter, &mut stored);
            if let Some(of) = self.station(station) {
                (of.quota, of.meter, of.in_use) = (quota, meter, None);
            }
        }
        (0..=self.links.len()).try_for_each(|station| self.carry_out(station))?;
        (0..self.links.len()).try_for_each(|link| self.tell_metered(link))?;
        (0..self.links.len()).try_for_each(|link| self.use_link(link))
    }

    /// The core of one station takes up the sessions that its meter counts for; the last station takes the rest.
    fn restore(&mut self, station: usize, meter: Option<MeterId>, stored: &mut Vec<StoredSession>) -> Quota {
        let meter = meter.map(|id| (self.kernel.meters[id].epoch.clone(), self.read_meter(id)));
        let is_past = station == self.links.len();
        let counts = |session: &StoredSession| meter.as_ref().is_some_and(|(epoch, _)| *epoch == session.opening.epoch);
        let belongs = |session: &StoredSession| is_past || counts(session);
        let (own, others) = std::mem::take(stored).into_iter().partition(belongs);
        *stored = others;
        let sim = self.links.get(station).and_then(|link| link.sim).unwrap_or(0);
        let seed = self.seed(u64::try_from(station).unwrap_or(0));
        let terms = self.terms(sim);
        Quota::restore(own, &terms, meter.as_ref(), seed, self.now).with_aborted(self.ledger.aborted.clone())
    }

    /// Reads a meter for the core.
    fn read_meter(&mut self, id: MeterId) -> Reading {
        let meter = &mut self.kernel.meters[id];
        meter.told = meter.reading;
        meter.reading
    }

    fn station(&mut self, station: usize) -> Option<&mut Station> {
        self.agent.as_mut().map(|agent| &mut agent.stations[station])
    }

    /// Tells a core what happened and carries out what it answers.
    pub(super) fn tell(&mut self, station: usize, event: Event) -> Result<(), Halt> {
        self.note(|| format!("  station {station}: {event:?}"));
        let now = self.now;
        let Some(of) = self.station(station) else { return Ok(()) };
        of.quota.handle_event(event, now);
        self.carry_out(station)
    }

    /// Tells every core.
    pub(super) fn tell_all(&mut self, event: &Event) -> Result<(), Halt> {
        (0..=self.links.len()).try_for_each(|station| self.tell(station, event.clone()))
    }

    /// Records that follow each other are one commit, made before the next command is carried out.
    fn carry_out(&mut self, station: usize) -> Result<(), Halt> {
        let mut batch: Vec<Record> = Vec::new();
        for count in 0.. {
            hold!(count < COMMANDS, "no storm of commands at one instant", "station {station}");
            let Some(of) = self.station(station) else { return Ok(()) };
            let command = of.quota.poll_command();
            if let Some(command) = &command {
                self.note(|| format!("  station {station}: -> {command:?}"));
            }
            if let Some(Command::Record(record)) = command {
                batch.push(record);
                continue;
            }
            self.commit(&mut batch)?;
            let Some(command) = command else { break };
            self.obey(station, &command)?;
        }
        Ok(())
    }

    /// One transaction. The agent may die before it and after it.
    fn commit(&mut self, batch: &mut Vec<Record>) -> Result<(), Halt> {
        let Some(last) = batch.last() else { return Ok(()) };
        let kind = kind_of(last);
        self.crash_point("before the commit of", kind)?;
        match &mut self.full_in {
            Some(0) => {
                self.full_in = None;
                self.note(|| format!("the disk is full at the commit of {kind}"));
                self.tally.count_crash("disk full at the commit of", kind);
                return Err(Halt::Suspended);
            }
            Some(commits) => *commits -= 1,
            None => {}
        }
        for record in batch.iter() {
            self.tally.count("records", kind_of(record));
            if let Record::ContainerClosed { container, .. } = record {
                self.tally.count("triggers", trigger(container.trigger));
            }
        }
        self.ledger.commit(batch)?;
        self.check_commit(batch)?;
        batch.clear();
        self.crash_point("after the commit of", kind)
    }

    fn obey(&mut self, station: usize, command: &Command) -> Result<(), Halt> {
        match command {
            Command::Record(_) => Ok(()),
            &Command::Send { key, attempt, route } => {
                let sealed = self.ledger.outstanding(key)?;
                self.tally.count("operations", super::tally::operation(sealed.message.operation));
                // Without another link, a detour is the way that there is.
                let route = if self.links.len() > 1 { route } else { Route::Routed };
                self.network.send(sealed, Attempt { station, number: attempt }, route);
                self.crash_point("after", "a message is sent")
            }
            Command::SetGate(gate) => {
                let Some(id) = self.station(station).and_then(|of| of.meter) else { return Err(Halt::Died) };
                let recorded = self.ledger.highest_ceiling(&self.kernel.meters[id].epoch);
                hold!(
                    gate.ceiling <= recorded,
                    "the gate opens no further than what is recorded",
                    "{gate:?}, recorded: {recorded}"
                );
                if self.kernel.meters[id].end.is_some() {
                    // A gate that cannot be written is an error that ends the agent.
                    return Err(Halt::Died);
                }
                self.kernel.meters[id].set(gate.clone(), recorded);
                self.crash_point("after", "a gate is set")
            }
            Command::DrawName => {
                let is_owed = self.is_owed_elsewhere(station);
                if let Some(of) = self.station(station) {
                    of.is_kept_waiting = is_owed;
                }
                if is_owed {
                    return Ok(());
                }
                let name = self.ledger.fresh_name(&mut Chance::new(self.seed(u64::MAX)));
                let now = self.now;
                if let Some(of) = self.station(station) {
                    of.quota.handle_event(Event::Named(name), now);
                }
                Ok(())
            }
            Command::Read => {
                let event = self.reading_of(station).map_or(Event::MeterLost, Event::Reading);
                let now = self.now;
                if let Some(of) = self.station(station) {
                    of.quota.handle_event(event, now);
                }
                self.crash_point("after", "a meter is read")
            }
        }
    }

    /// Names the sessions that had to wait for what other cores owed.
    pub(super) fn name_those_kept_waiting(&mut self) -> Result<(), Halt> {
        for station in 0..=self.links.len() {
            let is_kept_waiting = self.station(station).is_some_and(|of| of.is_kept_waiting);
            if is_kept_waiting && !self.is_owed_elsewhere(station) {
                self.obey(station, &Command::DrawName)?;
                self.carry_out(station)?;
            }
        }
        Ok(())
    }

    fn is_owed_elsewhere(&self, index: usize) -> bool {
        let stations = self.agent.iter().flat_map(|agent| &agent.stations);
        let Some((sim, _)) = stations.clone().nth(index).and_then(|of| of.in_use) else { return false };
        let mut others = stations.enumerate().filter(|(other, _)| *other != index);
        others.any(|(_, other)| other.quota.owes(&subscriber(sim)))
    }

    /// What the meter of a station says, if it can be read.
    pub(super) fn reading_of(&mut self, station: usize) -> Option<Reading> {
        let id = self.station(station)?.meter?;
        if self.kernel.meters[id].end.is_some() { None } else { Some(self.read_meter(id)) }
    }

    /// A moment at which the agent could die.
    fn crash_point(&mut self, when: &'static str, what: &'static str) -> Result<(), Halt> {
        match &mut self.crash_in {
            Some(0) => {
                self.note(|| format!("the agent dies {when} {what}"));
                self.tally.count_crash(when, what);
                Err(Halt::Died)
            }
            Some(points) => {
                *points -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// A loader is done with a link: its last meter is read once more, then the new one is taken in hand.
    pub(super) fn attach(&mut self, link: usize) -> Result<(), Halt> {
        let Some(before) = self.station(link).filter(|station| station.pending).map(|station| station.meter) else {
            return Ok(());
        };
        if !self.links[link].metered || self.links[link].pinned.is_none() {
            let id = self.kernel.load();
            self.links[link].pinned = Some(id);
            self.links[link].metered = true;
            self.crash_point("after", "a meter is loaded")?;
        }
        if before.is_some() {
            let last = self.reading_of(link).map_or(Event::MeterLost, Event::Reading);
            self.tell(link, last)?;
        }
        let id = self.links[link].pinned;
        let gone = before.filter(|before| Some(*before) != id);
        // Some make way for another meter, and some are taken off before there is one: with a link that has another's name now.
        if gone.is_some_and(|gone| gone.is_multiple_of(2) && self.kernel.meters[gone].end.is_none()) {
            self.tell(link, Event::MeterRetired)?;
        }
        if let Some(station) = self.station(link) {
            (station.meter, station.pending) = (id, false);
        }
        if let Some(gone) = gone {
            self.lose_meter(gone);
        }
        self.tell_metered(link)?;
        if let Some(end) = gone.and_then(|gone| self.kernel.meters[gone].end.as_mut()) {
            // The agent has lived to write down all that it was told.
            end.at_most = end.at_least;
        }
        self.use_link(link)
    }

    /// Tells the core which meter it has.
    fn tell_metered(&mut self, link: usize) -> Result<(), Halt> {
        let Some(id) = self.station(link).and_then(|station| station.meter) else { return Ok(()) };
        let (epoch, reading) = (self.kernel.meters[id].epoch.clone(), self.read_meter(id));
        let control_reserve = self.terms(0).control_reserve;
        self.tell(link, Event::Metered { epoch, reading, control_reserve })
    }

    /// Tells the core when the link comes into use, goes out of use, or has another SIM.
    pub(super) fn use_link(&mut self, link: usize) -> Result<(), Halt> {
        let sim = self.links[link].sim.filter(|_| self.links[link].up);
        let plan = sim.map_or(0, |sim| self.plans[sim]);
        let Some(station) = self.station(link).filter(|station| !station.pending) else { return Ok(()) };
        let before = station.in_use;
        let Some(sim) = sim else {
            if before.is_some() || station.quota.needs_meter() {
                station.in_use = None;
                return self.tell(link, Event::Gone);
            }
            return Ok(());
        };
        let terms = (sim, plan);
        if before == Some(terms) {
            return Ok(());
        }
        let Some(id) = station.meter else { return Ok(()) };
        let Some(reading) = self.reading_of(link) else { return Ok(()) };
        if let Some(station) = self.station(link) {
            station.in_use = Some(terms);
        }
        let (epoch, terms) = (self.kernel.meters[id].epoch.clone(), self.terms(sim));
        self.tell(link, Event::Usable(Usable { subscriber: subscriber(sim), epoch, terms, reading }))?;
        if before.is_none() { self.tell_all(&Event::RouteUp) } else { Ok(()) }
    }

    /// The agent stops but for its sessions: last readings are committed.
    pub(super) fn keep(&mut self) -> Result<(), Halt> {
        for station in 0..=self.links.len() {
            if let Some(reading) = self.reading_of(station) {
                self.tell(station, Event::Reading(reading))?;
            }
        }
        self.tell_all(&Event::Pause)?;
        Err(Halt::Died)
    }

    /// When a core next wants to be called.
    pub(super) fn next_timer(&self) -> Option<BootInstant> {
        self.agent.as_ref()?.stations.iter().filter_map(|station| station.quota.poll_timeout()).min()
    }

    /// Calls every core that has something due. Nothing stays due.
    pub(super) fn tick(&mut self) -> Result<(), Halt> {
        self.name_those_kept_waiting()?;
        for station in 0..=self.links.len() {
            for round in 0.. {
                let now = self.now;
                let Some(of) = self.station(station) else { return Ok(()) };
                if of.quota.poll_timeout().is_none_or(|at| at > now) {
                    break;
                }
                hold!(round < ROUNDS, "no timer stays due", "station {station}: {:?}", of.quota);
                of.quota.handle_timeout(now);
                self.carry_out(station)?;
            }
        }
        Ok(())
    }

    /// Lets the agent work for so long.
    pub(super) fn work(&mut self, span: Duration) -> Result<(), Halt> {
        let end = self.now.plus(span);
        while let Some(at) = self.next_timer().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.tick()?;
        }
        self.now = end;
        Ok(())
    }
}
