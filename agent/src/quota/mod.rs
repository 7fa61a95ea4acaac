//! The credit-control client of one link: pure, no I/O, time is an argument. Events in, commands out.
//!
//! The order of the command queue is the order of durability: every [`Command::Record`] is committed before the command
//! after it is carried out, so usage is recorded before it is sent and a grant before the gate opens.

mod event;
mod filter;
mod jitter;
mod message;
mod outbox;
mod portal;
mod session;
mod terms;
#[cfg(test)]
mod tests;
mod turns;
mod used_up;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

pub use event::{Command, Event, Next, Overview, Renewal, Route, State};
pub use filter::{FilterAction, FilterDirection, FilterEnd, FilterError, FilterRule, MOST_FILTERS, rule, rules};
pub use message::{
    Answer, Container, Exceptions, FailureHandling, FinalUnitAction, Grant, GrantedUnit, Message, MessageKey,
    Operation, Outcome, QuotaManagement, Record, ResultCode, SessionOpening, StoredSession, Trigger,
};
pub use portal::{Portal, PortalHost};
pub use terms::{
    GateMode, GateSetting, LocalFilters, OfflineGrace, Reading, Refusals, Repetition, Terms, Usable, WhenUsedUp,
};
pub use used_up::UsedUp;

use crate::units::{BootInstant, ChargingId, Epoch, OctetRate, Octets, SubscriberIdentifier, UsedUnit};
use jitter::Jitter;
use session::{Fate, Session};

/// Containers in one message at most.
pub const MAX_CONTAINERS: usize = 50;
/// The meter of a link with traffic is read at least this often.
const READ_BUSY: Duration = Duration::from_secs(1);
/// The meter of an idle link is read at least this often.
const READ_IDLE: Duration = Duration::from_secs(5);
/// Readings are never closer than this.
const READ_LEAST: Duration = Duration::from_millis(20);
/// The reserve for control traffic is renewed this often.
const RESERVE_PERIOD: Duration = Duration::from_hours(1);
/// So many sessions of a subscriber may wait for the server to hear of them; after that no new one is opened. A link that comes and
/// goes while the server is away would pile them up.
const MOST_UNHEARD: usize = 3;
/// After a refusal for good, a new session is tried after this long; after one more, twice as long …
const REOPEN: Duration = Duration::from_mins(1);
/// … and so on, up to this.
const REOPEN_LAST: Duration = Duration::from_mins(15);
/// The same after a create that was left in doubt: the server may be back already.
const REOPEN_DOUBTED: Duration = Duration::from_secs(4);
/// The operator may have more asked for this often: an order a second would be a storm at the server.
const RENEW_LEAST: Duration = Duration::from_secs(10);

/// The credit-control client of one link.
#[derive(Clone, Debug)]
pub struct Quota {
    /// Those that act: the one in use, and past ones whose turn it is to drain.
    sessions: Vec<Session>,
    /// Past sessions that wait for their turn.
    waiting: VecDeque<Session>,
    usable: Option<Usable>,
    /// The epoch of the meter that is attached.
    meter: Option<Epoch>,
    control_reserve: Octets,
    /// The meter as last read, and when.
    reading: Option<(Reading, BootInstant)>,
    queue: VecDeque<Command>,
    gate: Option<GateSetting>,
    jitter: Jitter,
    /// Control octets at which the present reserve period began, and when.
    reserve: Option<(Octets, BootInstant)>,
    read_at: BootInstant,
    /// For the next session, while the event that brought it is taken.
    name: Option<ChargingId>,
    /// The session was returned for idleness (refused octets then): open again when something is refused.
    resting: Option<Octets>,
    /// Whose sessions were ended by order of the server.
    aborted: BTreeSet<SubscriberIdentifier>,
    reopen_at: Option<BootInstant>,
    /// Sessions in a row that came to nothing.
    in_vain: u32,
    /// What sessions of a subscriber had used of the grace that ended in doubt, and when it ends; until the server answers.
    doubted_grace: Option<(SubscriberIdentifier, Octets, BootInstant)>,
    settling: bool,
    /// When the operator last had more asked for.
    renewed_at: Option<BootInstant>,
}

impl Quota {
    /// A client with no past. `seed` spreads retries.
    #[must_use]
    pub fn new(seed: u64, now: BootInstant) -> Self {
        Self {
            sessions: Vec::new(),
            waiting: VecDeque::new(),
            usable: None,
            meter: None,
            control_reserve: Octets::ZERO,
            reading: None,
            queue: VecDeque::new(),
            gate: None,
            jitter: Jitter::new(seed),
            reserve: None,
            read_at: now,
            name: None,
            resting: None,
            aborted: BTreeSet::new(),
            reopen_at: None,
            in_vain: 0,
            doubted_grace: None,
            settling: false,
            renewed_at: None,
        }
    }

    /// Takes up the sessions that the ledger remembers. `meter` is what the pinned maps say, if they are there: sessions of
    /// that epoch go on to the octet; of any other, the last recorded reading is billed. The gate stays as pinned until
    /// the link is reported usable or gone.
    #[must_use]
    pub fn restore(
        stored: Vec<StoredSession>,
        terms: &Terms,
        meter: Option<&(Epoch, Reading)>,
        seed: u64,
        now: BootInstant,
    ) -> Self {
        let mut quota = Self::new(seed, now);
        let mut out = Vec::new();
        let mut awaited = VecDeque::new();
        for session in stored {
            let reading = meter.filter(|(epoch, _)| *epoch == session.opening.epoch).map(|(_, reading)| *reading);
            let session = Session::restore(session, terms.clone(), reading, now, &mut out);
            if session.is_live() {
                quota.sessions.push(session);
            } else if session.is_awaited() {
                awaited.push_back(session);
            } else {
                quota.waiting.push_back(session);
            }
        }
        awaited.append(&mut quota.waiting);
        quota.waiting = awaited;
        quota.queue.extend(out);
        if let Some((epoch, reading)) = meter {
            // In hand from the start: whoever closes a session now has to shut its gate first.
            quota.meter = Some(epoch.clone());
            quota.control_reserve = terms.control_reserve;
            quota.take_reading(*reading, now);
        }
        quota
    }

    /// The same, under the orders to abort that the ledger remembers.
    #[must_use]
    pub fn with_aborted(mut self, aborted: impl IntoIterator<Item = SubscriberIdentifier>) -> Self {
        self.aborted.extend(aborted);
        self
    }

    /// Takes an event; the commands it calls for are queued.
    pub fn handle_event(&mut self, event: Event, now: BootInstant) {
        match event {
            Event::Metered { epoch, reading, control_reserve } => self.attach(epoch, reading, control_reserve, now),
            Event::Usable(usable) => self.become_usable(usable, now),
            Event::Gone => {
                self.usable = None;
                self.resting = None;
                self.close_all(Trigger::Final, now);
            }
            Event::MeterLost => self.put_meter_down(|session, out| session.lose_meter(now, out)),
            Event::MeterRetired => self.put_meter_down(|session, out| session.freeze(now, out)),
            Event::Reading(reading) => self.take_reading(reading, now),
            Event::Hint => self.queue.push_back(Command::Read),
            Event::Answer { key, attempt, outcome } => self.take_answer(key, attempt, outcome, now),
            Event::Named(name) => self.name = Some(name),
            Event::Reauthorise(subscriber) => self.reauthorise(subscriber, now),
            Event::Abort(subscriber) => self.abort(subscriber, now),
            Event::Renew => self.renew(now),
            Event::RouteUp => self.hurry(now),
            Event::Pause => {
                let mut out = Vec::new();
                self.sessions.iter_mut().for_each(|session| session.pause(now, &mut out));
                self.queue.extend(out);
                return;
            }
            Event::Settle => {
                self.settling = true;
                // There may be little time: what waits for its next attempt makes it now.
                self.hurry(now);
                self.close_all(Trigger::Final, now);
            }
        }
        self.drive(now);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: BootInstant) {
        if self.reads_at().is_some_and(|at| now >= at) {
            self.queue.push_back(Command::Read);
            self.read_at = now.plus(READ_BUSY);
        }
        self.drive(now);
    }

    /// The next command, in the order of durability.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.queue.pop_front()
    }

    /// When [`Quota::handle_timeout`] wants to be called. What is due stays due until it was.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<BootInstant> {
        let sessions = self.sessions.iter().filter_map(Session::timeout);
        // Whoever waits while there is a free place is due at once.
        let free = (self.free_places() > 0).then_some(BootInstant::from_nanos(0));
        sessions.chain(self.reads_at()).chain(self.reopen_at).chain(free).min()
    }

    /// True when nothing is left to be acknowledged.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.sessions.is_empty() && self.waiting.is_empty()
    }

    /// True while a session's last reading has not been taken: its meter must not be taken away.
    #[must_use]
    pub fn needs_meter(&self) -> bool {
        self.sessions.iter().any(Session::is_live)
    }

    /// What there is to see.
    #[must_use]
    pub fn overview(&self, now: BootInstant) -> Overview {
        let current = self.sessions.iter().find(|session| session.is_live()).or_else(|| self.sessions.last());
        let idle = if self.reopen_at.is_some() { State::Exhausted } else { State::Idle };
        Overview {
            state: current.map_or(idle, |session| session.state(now)),
            session: current.map(Session::id),
            used: current.map_or(UsedUnit::ZERO, Session::used),
            unreported: current.map_or(Octets::ZERO, Session::unreported),
            grant: current.and_then(|session| session.grant().cloned()),
            remaining: current.map_or(Octets::ZERO, Session::remaining),
            rate: current.map_or(OctetRate::default(), Session::rate),
            draining: (self.sessions.len() + self.waiting.len()).saturating_sub(1),
            used_up: current.and_then(Session::used_up),
            at_the_end: current.and_then(Session::at_the_end),
            aborted: self.is_aborted(),
            open_since: current.and_then(Session::open_since),
            next: current.map_or_else(|| self.reopen_at.map_or(Next::Nothing, Next::Reopen), Session::next),
        }
    }

    /// What would come of [`Event::Renew`] now.
    #[must_use]
    pub fn renewal(&self, now: BootInstant) -> Renewal {
        let live = self.sessions.iter().find(|session| session.is_live());
        let soonest = self.renewed_at.map(|at| at.plus(RENEW_LEAST)).filter(|soonest| now < *soonest);
        match (soonest, live) {
            _ if self.usable.is_none() || self.meter.is_none() || self.settling => Renewal::NotInUse,
            _ if self.is_aborted() => Renewal::Aborted,
            (Some(soonest), _) => Renewal::TooSoon(soonest),
            (None, Some(session)) if session.is_closing() => Renewal::NoSession,
            (None, Some(session)) if session.awaits_answer() => Renewal::AfterAnswer,
            (None, Some(_)) => Renewal::Asks,
            (None, None) if self.reopen_at.is_some() => Renewal::Asks,
            (None, None) => Renewal::NoSession,
        }
    }

    /// Does by order of the operator what would be done later: never what the server forbids, and not often.
    fn renew(&mut self, now: BootInstant) {
        match self.renewal(now) {
            Renewal::Asks | Renewal::AfterAnswer => {}
            Renewal::TooSoon(_) | Renewal::NotInUse | Renewal::Aborted | Renewal::NoSession => return,
        }
        self.renewed_at = Some(now);
        self.reopen_at = None;
        self.sessions.iter_mut().filter(|session| session.is_live()).for_each(|session| session.reauthorise(now));
        self.hurry(now);
    }

    fn is_aborted(&self) -> bool {
        self.usable.as_ref().is_some_and(|usable| self.aborted.contains(&usable.subscriber))
    }

    /// When the meter is to be read next: often while a session lives or waits for traffic, else only for the reserve.
    fn reads_at(&self) -> Option<BootInstant> {
        if self.needs_meter() || self.resting.is_some() {
            return Some(self.read_at);
        }
        let (_, since) = self.reserve.filter(|_| self.meter.is_some())?;
        Some(since.plus(RESERVE_PERIOD).max(self.read_at))
    }

    /// Takes a meter in hand: of a new epoch, neither its gate nor its reserve is known yet.
    fn attach(&mut self, epoch: Epoch, reading: Reading, control_reserve: Octets, now: BootInstant) {
        self.control_reserve = control_reserve;
        let mut out = Vec::new();
        for session in self.sessions.iter_mut().filter(|session| session.opening.epoch != epoch) {
            session.freeze(now, &mut out);
        }
        self.queue.extend(out);
        if self.meter.as_ref() != Some(&epoch) {
            self.meter = Some(epoch);
            self.gate = None;
            self.reserve = None;
            self.resting = None;
        }
        self.take_reading(reading, now);
    }

    fn put_meter_down(&mut self, end: impl FnMut(&mut Session, &mut Vec<Command>)) {
        self.resting = None;
        self.reserve = None;
        self.meter = None;
        self.each(end);
    }

    fn become_usable(&mut self, usable: Usable, now: BootInstant) {
        if self.usable.as_ref().is_none_or(|before| before.subscriber != usable.subscriber) {
            self.resting = None;
            self.reopen_at = None;
            self.in_vain = 0;
        }
        self.attach(usable.epoch.clone(), usable.reading, usable.terms.control_reserve, now);
        let mut out = Vec::new();
        // A crash may have come between the order to abort and the core whose session was meant.
        let aborted = self.aborted.contains(&usable.subscriber);
        for session in self.sessions.iter_mut().filter(|session| session.is_live()) {
            if session.opening.subscriber == usable.subscriber && !aborted {
                session.terms = usable.terms.clone();
            } else {
                session.close(Trigger::Final, now, &mut out);
            }
        }
        self.queue.extend(out);
        self.usable = Some(usable);
    }

    /// The order is recorded before it is followed: what happened in between is done again after a crash.
    fn abort(&mut self, subscriber: SubscriberIdentifier, now: BootInstant) {
        let mut out = Vec::new();
        if !self.aborted.contains(&subscriber) {
            out.push(Command::Record(Record::Aborted { subscriber: subscriber.clone() }));
        }
        let live = self.sessions.iter_mut().filter(|session| session.is_live());
        live.filter(|session| session.opening.subscriber == subscriber)
            .for_each(|session| session.close(Trigger::Final, now, &mut out));
        self.queue.extend(out);
        self.aborted.insert(subscriber);
    }

    fn reauthorise(&mut self, subscriber: SubscriberIdentifier, now: BootInstant) {
        if self.usable.as_ref().is_some_and(|usable| usable.subscriber == subscriber) {
            self.reopen_at = None;
            self.in_vain = 0;
        }
        let sessions = self.sessions.iter_mut().filter(|session| session.opening.subscriber == subscriber);
        sessions.for_each(|session| session.reauthorise(now));
        if self.aborted.remove(&subscriber) {
            self.queue.push_back(Command::Record(Record::Reauthorised { subscriber }));
        }
    }

    fn take_reading(&mut self, reading: Reading, now: BootInstant) {
        let moved = self.reading.is_none_or(|(before, _)| before.passed != reading.passed);
        // A gate that has just been raised is about to be used.
        let is_busy = moved || self.sessions.iter().any(|session| session.is_live() && session.is_raised());
        self.reading = Some((reading, now));
        let mut out = Vec::new();
        for session in self.sessions.iter_mut().filter(|session| session.is_live()) {
            if !session.read(&reading, now) {
                session.lose_meter(now, &mut out);
            }
        }
        self.queue.extend(out);
        if self.resting.is_some_and(|refused| reading.refused.total() > refused) {
            self.resting = None;
        }
        let period_over = |since: BootInstant| now >= since.plus(RESERVE_PERIOD);
        if self.reserve.is_none_or(|(_, since)| period_over(since)) {
            self.reserve = Some((reading.control.total(), now));
        }
        self.read_at = now.plus(if is_busy { self.busy_pause(now) } else { READ_IDLE });
    }

    /// How long the meter of a busy link may go unread: until the threshold, or half the slice, is reached at the present rate, a
    /// second at most.
    fn busy_pause(&self, now: BootInstant) -> Duration {
        let Some(session) = self.sessions.iter().find(|session| session.is_live()) else { return READ_BUSY };
        let rate = u128::from(session.rate().get().max(1));
        let pause = |room: Octets| {
            let millis = u128::from(room.get()) * 1000 / rate;
            Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
        };
        // While an answer is awaited a reading only tells the rate: the longer it takes, the less often.
        let asking = session.until_asking().map(|room| pause(room).max(session.waits_for_answer(now) / 8));
        let slice = session.slice_room().map(pause);
        asking.into_iter().chain(slice).min().unwrap_or(READ_BUSY).clamp(READ_LEAST, READ_BUSY)
    }

    fn take_answer(&mut self, key: MessageKey, attempt: u32, outcome: Outcome, now: BootInstant) {
        let is_answered = |session: &Session| session.id() == key.session;
        if !self.sessions.iter().any(is_answered) {
            self.call_up_answered(is_answered);
        }
        let Some(index) = self.sessions.iter().position(is_answered) else { return };
        let answers = matches!(outcome, Outcome::Answered(_));
        let mut out = Vec::new();
        if matches!(outcome, Outcome::Answered(_)) {
            self.in_vain = 0;
            self.doubted_grace = None;
        }
        let fate = self.sessions[index].answered(key, attempt, outcome, now, &mut self.jitter, &mut out);
        self.queue.extend(out);
        self.meet_fate(index, fate, now);
        if answers {
            self.make_room();
        }
    }

    /// Drives every session whose turn it is, the one in use first, opens one where one is due, and sets the gate.
    fn drive(&mut self, now: BootInstant) {
        self.drive_those(Session::is_live, now);
        self.drive_those(|session| !session.is_live(), now);
        while self.call_up() {
            self.drive_those(|session| !session.is_live(), now);
        }
        self.send_back();
        self.open_if_due(now);
        self.set_gate(now);
    }

    fn drive_those(&mut self, which: impl Fn(&Session) -> bool, now: BootInstant) {
        let mut index = 0;
        while index < self.sessions.len() {
            if !which(&self.sessions[index]) {
                index += 1;
                continue;
            }
            let mut out = Vec::new();
            if self.sessions[index].is_live() {
                let spent = self.grace_spent(index);
                self.sessions[index].shares_grace(spent);
            }
            let fate = self.sessions[index].drive(now, &mut self.jitter, &mut out);
            self.queue.extend(out);
            self.meet_fate(index, fate, now);
            index += usize::from(fate != Fate::Ended);
        }
    }

    /// What the other sessions of its subscriber have used of the grace: another session is not another grace.
    fn grace_spent(&self, index: usize) -> (Octets, Option<BootInstant>) {
        let subscriber = &self.sessions[index].opening.subscriber;
        let others = self.sessions.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, session)| session);
        let graces = others.chain(&self.waiting).filter_map(|other| Some((other, other.grace_used()?)));
        let own = graces.filter(|(other, _)| other.opening.subscriber == *subscriber).map(|(_, grace)| grace);
        let doubted = self.doubted_grace.iter().filter(|(whose, ..)| whose == subscriber);
        own.chain(doubted.map(|(_, octets, until)| (*octets, *until))).fold(
            (Octets::ZERO, None),
            |(spent, ends), (octets, until)| {
                (spent.saturating_add(octets), Some(ends.map_or(until, |ends: BootInstant| ends.min(until))))
            },
        )
    }

    fn meet_fate(&mut self, index: usize, fate: Fate, now: BootInstant) {
        match fate {
            Fate::Lives => {}
            Fate::Ended => {
                self.rest_if_idle(index);
                self.keep_doubted_grace(index);
                let ended = self.sessions.remove(index);
                let same = |session: &&mut Session| session.opening.subscriber == ended.opening.subscriber;
                self.sessions.iter_mut().filter(same).for_each(Session::ask_if_exhausted);
            }
            Fate::Refused => self.reopen_later(REOPEN, now),
            Fate::Doubted => self.reopen_later(REOPEN_DOUBTED, now),
        }
    }

    /// A session that ends in doubt ends without an answer: the grace it had is still the same for the next one.
    fn keep_doubted_grace(&mut self, index: usize) {
        let ended = &self.sessions[index];
        let Some((octets, until)) = ended.grace_used().filter(|_| ended.is_in_doubt()) else { return };
        let subscriber = ended.opening.subscriber.clone();
        let before = self.doubted_grace.take().filter(|(whose, ..)| *whose == subscriber);
        self.doubted_grace = Some(match before {
            Some((_, spent, ends)) => (subscriber, spent.saturating_add(octets), ends.min(until)),
            None => (subscriber, octets, until),
        });
    }

    /// Waits with the next session, longer each time.
    fn reopen_later(&mut self, first: Duration, now: BootInstant) {
        let bound = (first * 2_u32.pow(self.in_vain.min(8))).min(REOPEN_LAST);
        self.in_vain = self.in_vain.saturating_add(1);
        self.reopen_at = Some(now.plus(self.jitter.between(bound / 2, bound)));
    }

    /// A session that was returned because the link idled: the next one of that SIM and meter waits for traffic.
    fn rest_if_idle(&mut self, index: usize) {
        let ended = &self.sessions[index];
        let same_sim = self.usable.as_ref().is_some_and(|usable| usable.subscriber == ended.opening.subscriber);
        if same_sim && self.meter.as_ref() == Some(&ended.opening.epoch) {
            self.resting = ended.idled_out().or(self.resting);
        }
    }

    fn open_if_due(&mut self, now: BootInstant) {
        // A name that is of no use now is let go: until a session of that name is recorded, another core may be given it.
        let name = self.name.take();
        if self.reopen_at.is_some_and(|at| now >= at) {
            self.reopen_at = None;
        }
        // Without a meter there is nothing to grant units to.
        let (Some(usable), Some(epoch), Some((reading, _))) = (self.usable.clone(), self.meter.clone(), self.reading)
        else {
            return;
        };
        // Of its own; with what other cores owe it is given no name.
        let past = || {
            let all = self.sessions.iter().chain(&self.waiting);
            all.filter(|session| session.opening.subscriber == usable.subscriber)
        };
        // With a long backlog these are many: they are looked at only when no session is in use.
        let busy = self.needs_meter()
            || past().any(Session::is_awaited)
            || past().filter(|session| session.is_unheard()).count() >= MOST_UNHEARD;
        let aborted = self.aborted.contains(&usable.subscriber);
        if busy || self.settling || aborted || self.resting.is_some() || self.reopen_at.is_some() {
            return;
        }
        let Some(name) = name else {
            if !self.queue.contains(&Command::DrawName) {
                self.queue.push_back(Command::DrawName);
            }
            return;
        };
        let opening = SessionOpening {
            session: name,
            subscriber: usable.subscriber,
            epoch,
            base: reading.passed,
            base_throttled: reading.throttled,
            opened_at: now,
        };
        let mut out = Vec::new();
        self.sessions.push(Session::open(opening, usable.terms, reading, &mut out));
        self.queue.extend(out);
    }

    /// Asks for the gate that the facts call for, when it is not the one that is set.
    fn set_gate(&mut self, now: BootInstant) {
        let (Some((control, _)), Some(_)) = (self.reserve, &self.meter) else { return };
        let control_ceiling = control.saturating_add(self.control_reserve);
        let live = self.sessions.iter().find(|session| session.is_live());
        let base = live.map_or(Octets::ZERO, |session| session.opening.base.total());
        let wanted = live.and_then(Session::wanted_gate);
        let refusals = self.refusals(live, now);
        let setting = wanted.map_or(
            GateSetting {
                ceiling: Octets::ZERO,
                deadline: None,
                threshold: None,
                control_ceiling,
                mode: GateMode::Block,
                refusals,
            },
            |gate| GateSetting {
                ceiling: base.saturating_add(gate.ceiling),
                deadline: gate.deadline,
                threshold: gate.threshold.map(|threshold| base.saturating_add(threshold)),
                control_ceiling,
                mode: gate.mode,
                refusals,
            },
        );
        let raised = setting.ceiling > self.gate.as_ref().map_or(Octets::ZERO, |before| before.ceiling);
        if self.gate.as_ref() != Some(&setting) {
            self.gate = Some(setting.clone());
            self.queue.push_back(Command::SetGate(setting));
        }
        let live = self.sessions.iter_mut().find(|session| session.is_live());
        if live.is_some_and(|session| session.gate_is_set(raised)) {
            self.queue.push_back(Command::Read);
        }
    }

    /// Senders hear of refusals where only a top-up, an order or a server that is out of reach can open the gate.
    fn refusals(&self, live: Option<&Session>, now: BootInstant) -> Refusals {
        let is_aborted = || self.usable.as_ref().is_some_and(|usable| self.aborted.contains(&usable.subscriber));
        let waits_long = match live.map(|session| session.state(now)) {
            Some(State::Exhausted | State::Offline) => true,
            Some(
                State::Idle
                | State::Requesting
                | State::Active
                | State::Renewing
                | State::Final
                | State::Returning
                | State::Draining,
            ) => false,
            None => is_aborted() || self.reopen_at.is_some(),
        };
        if waits_long { Refusals::Told } else { Refusals::Silent }
    }

    fn hurry(&mut self, now: BootInstant) {
        let all = self.sessions.iter_mut().chain(&mut self.waiting);
        all.for_each(|session| session.hurry(now));
    }

    fn close_all(&mut self, trigger: Trigger, now: BootInstant) {
        self.each(|session, out| session.close(trigger, now, out));
    }

    fn each(&mut self, mut act: impl FnMut(&mut Session, &mut Vec<Command>)) {
        let mut out = Vec::new();
        for session in self.sessions.iter_mut().filter(|session| session.is_live()) {
            act(session, &mut out);
        }
        self.queue.extend(out);
    }
}
