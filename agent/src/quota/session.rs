//! One credit session: from the first request for units to the acknowledged release.

mod doubt;
mod drive;
mod foresight;
mod seal;
mod slice;

use std::collections::VecDeque;
use std::time::Duration;

use self::doubt::Doubt;
use self::foresight::Foresight;
use self::slice::Slice;
use super::jitter::Jitter;
use super::outbox::Outbox;
use super::{
    Answer, Command, Exceptions, FailureHandling, FinalUnitAction, Grant, GrantedUnit, MAX_CONTAINERS, MessageKey,
    Operation, Outcome, Reading, Record, Repetition, ResultCode, SessionOpening, StoredSession, Terms, Trigger,
};
use crate::units::{
    BootInstant, ChargingId, InvocationSequenceNumber, LocalSequenceNumber, Octets, SessionRef, UsedUnit,
};

/// After the gate is shut, packets that passed it may still be on their way to the counters for this long.
const SETTLE: Duration = Duration::from_millis(50);
/// A link that was exhausted stays so for at least this long, so that it does not flap.
const LEAST_DWELL: Duration = Duration::from_secs(5);
/// An exhausted session asks again after this long at first …
const POLL_FIRST: Duration = Duration::from_mins(1);
/// … and after this long at last.
const POLL_LAST: Duration = Duration::from_mins(15);
/// A grant is renewed this long before its validity time ends.
const VALIDITY_MARGIN: Duration = Duration::from_secs(10);
/// After an answer that brought no room, the session asks again after this long.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// After answers that bring next to nothing, one after the other, it waits twice as long each time, up to this.
const ASK_AGAIN_LAST: Duration = Duration::from_mins(1);
/// A grant below this is next to nothing, where more was asked for.
const LITTLE: Octets = Octets::new(64 << 10);
/// A validity time below this is next to nothing.
const BRIEF: Duration = Duration::from_secs(4);
/// A link that idles keeps its units at least this long: else every packet would open and return a session.
const HOLDING_LEAST: Duration = Duration::from_secs(10);
/// The smallest threshold: one packet.
const PACKET: Octets = Octets::new(1500);
/// More than the kernel hands over in one piece: a super-packet of 64 KiB, and the headers of all its segments. What is refused below this
/// room was too large for it.
const LARGEST_PACKET: Octets = Octets::new(128 << 10);

/// A credit session and everything known of it.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a session, not the states of one machine")]
pub(super) struct Session {
    pub(super) opening: SessionOpening,
    pub(super) terms: Terms,
    session_ref: Option<SessionRef>,
    /// Cumulative readings of the epoch.
    passed: UsedUnit,
    throttled: UsedUnit,
    refused: Octets,
    /// False once no further reading belongs to this session.
    live: bool,
    /// The server has lost the session: what is left goes as one-time events.
    orphan: bool,
    /// Session totals of all closed containers.
    closed: UsedUnit,
    closed_throttled: UsedUnit,
    /// Quota octets in sealed messages.
    reported: Octets,
    next_container: LocalSequenceNumber,
    next_message: InvocationSequenceNumber,
    /// Quota octets of what is closed and not yet sealed, oldest first; the last one's number is the one before `next_container`.
    pending: VecDeque<Octets>,
    outbox: Option<Outbox>,
    doubt: Doubt,
    grant: Option<Grant>,
    /// What the server last said about the end of its units: that holds until it says something else of it, through the least dwell
    /// after a top-up as well.
    last_words: (FinalUnitAction, Exceptions),
    grace: Option<(Octets, BootInstant)>,
    grace_over: bool,
    /// Grace that earlier sessions of this subscriber have used since the server was last heard, and when it ends.
    grace_spent: (Octets, Option<BootInstant>),
    failure_handling: Option<FailureHandling>,
    closing: Option<Closing>,
    exhausted: Option<Exhausted>,
    reauthorise: bool,
    /// Set when a packet was refused although the grant was not used up: it did not fit.
    refused_lately: bool,
    /// Until the reading that follows a raised gate: what was refused before that did not fit under the lower one.
    raised: bool,
    /// Answers in a row that brought next to nothing.
    scanty: u32,
    ask_not_before: BootInstant,
    renew_not_before: BootInstant,
    interval_since: BootInstant,
    first_usage: Option<BootInstant>,
    last_usage: BootInstant,
    last_reading: BootInstant,
    foresight: Foresight,
    checkpoint: (UsedUnit, UsedUnit),
    checkpoint_at: BootInstant,
    slice: Slice,
}

#[derive(Clone, Copy, Debug)]
struct Closing {
    trigger: Trigger,
    /// When the last reading may be taken; `None` once it was (or cannot be).
    settles_at: Option<BootInstant>,
}

#[derive(Clone, Copy, Debug)]
struct Exhausted {
    since: BootInstant,
    /// The ceiling that was reached: only a larger one opens the gate.
    ceiling: Octets,
    told: bool,
    polls: u32,
    poll_at: BootInstant,
}

/// What became of a session after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It goes on.
    Lives,
    /// Everything is acknowledged or set aside.
    Ended,
    /// The server refused a message for good. What is not in it still has to reach the server.
    Refused,
    /// A create was left in doubt: the session is given up.
    Doubted,
}

impl Session {
    /// Opens a session and asks for its first units.
    pub(super) fn open(opening: SessionOpening, terms: Terms, reading: Reading, out: &mut Vec<Command>) -> Self {
        let now = opening.opened_at;
        out.push(Command::Record(Record::SessionOpened(opening.clone())));
        let mut session = Self::empty(opening, terms, now);
        session.refused = reading.refused.total();
        session.slice = Slice::begun(session.id(), session.terms.max_unrecorded, out);
        let request = session.request();
        session.seal(Operation::Create, Some(request), None, now, out);
        session
    }

    /// Takes up what the ledger remembers. `reading` is the meter of the session's own epoch, when that epoch still lives.
    pub(super) fn restore(
        stored: StoredSession,
        terms: Terms,
        reading: Option<Reading>,
        now: BootInstant,
        out: &mut Vec<Command>,
    ) -> Self {
        let StoredSession { opening, .. } = stored;
        let base = opening.base;
        let mut session = Self::empty(opening, terms, now);
        session.closed = stored.closed;
        session.closed_throttled = stored.closed_throttled;
        // Without the meter, the last recorded reading is billed; what may be missing is not guessed.
        let (passed, throttled) = stored.checkpoint.unwrap_or((base, session.opening.base_throttled));
        session.passed = larger(passed, base.saturating_add(stored.closed));
        session.throttled = larger(throttled, session.opening.base_throttled.saturating_add(stored.closed_throttled));
        session.checkpoint = (session.passed, session.throttled);
        session.orphan = stored.orphaned;
        session.live = reading.is_some() && !stored.settled;
        session.refused = reading.map_or(Octets::ZERO, |reading| reading.refused.total());
        session.session_ref = stored.session_ref;
        session.reported = stored.reported;
        session.next_container = stored.next_container;
        session.next_message = stored.next_message;
        session.pending = stored.pending.into();
        session.outbox = stored.outstanding.map(|message| match (session.terms.repetition, stored.not_taken) {
            (Repetition::Charged, false) => Outbox::doubtful(message, now),
            (Repetition::Charged, true) | (Repetition::Recognised, _) => Outbox::restored(message, now),
        });
        if let Some((action, grant)) = stored.grant.as_ref().and_then(|grant| Some((grant.final_unit?, grant))) {
            session.last_words = (action, grant.exceptions.clone());
        }
        session.grant = stored.grant;
        session.failure_handling = stored.failure_handling;
        session.grace = stored.grace;
        session.slice = Slice::restored(stored.highest_ceiling, stored.slice);
        session.closing =
            stored.closing.map(|trigger| Closing { trigger, settles_at: session.live.then(|| now.plus(SETTLE)) });
        if !session.live && !stored.settled {
            session.closing = Some(Closing { trigger: Trigger::AbnormalRelease, settles_at: None });
            if stored.uncertain.is_none() {
                session.tell_uncertain_rest(out);
            }
        }
        session
    }

    fn empty(opening: SessionOpening, terms: Terms, now: BootInstant) -> Self {
        Self {
            passed: opening.base,
            throttled: opening.base_throttled,
            checkpoint: (opening.base, opening.base_throttled),
            live: true,
            orphan: false,
            opening,
            terms,
            session_ref: None,
            refused: Octets::ZERO,
            closed: UsedUnit::ZERO,
            closed_throttled: UsedUnit::ZERO,
            reported: Octets::ZERO,
            next_container: LocalSequenceNumber::new(1),
            next_message: InvocationSequenceNumber::new(0),
            pending: VecDeque::new(),
            outbox: None,
            doubt: Doubt::default(),
            grant: None,
            last_words: (FinalUnitAction::Terminate, Exceptions::default()),
            grace: None,
            grace_over: false,
            grace_spent: (Octets::ZERO, None),
            failure_handling: None,
            closing: None,
            exhausted: None,
            reauthorise: false,
            refused_lately: false,
            raised: false,
            scanty: 0,
            ask_not_before: now,
            renew_not_before: now,
            interval_since: now,
            first_usage: None,
            last_usage: now,
            last_reading: now,
            foresight: Foresight::new(now),
            checkpoint_at: now,
            slice: Slice::default(),
        }
    }

    pub(super) const fn id(&self) -> ChargingId {
        self.opening.session
    }

    /// The message that waits for its answer, and its attempt.
    #[cfg(test)]
    pub(super) fn outbox_key(&self) -> Option<(MessageKey, u32)> {
        let outbox = self.outbox.as_ref()?;
        Some((MessageKey { session: self.id(), number: outbox.message.number }, outbox.attempt()))
    }

    /// True when the next session of this SIM may not be opened before this one is done: what it has to report may be part of what
    /// would be granted, or it is only being returned because the link idled.
    pub(super) fn is_awaited(&self) -> bool {
        self.orphan || self.idled_out().is_some()
    }

    /// True for one that the server has lost.
    pub(super) const fn is_orphan(&self) -> bool {
        self.orphan
    }

    /// True while its message has been tried more than once or twice and is not being tried at this moment.
    pub(super) fn is_stuck(&self) -> bool {
        self.outbox.as_ref().is_some_and(Outbox::is_stuck)
    }

    /// For how long a message has waited for its answer; zero without one.
    pub(super) fn waits_for_answer(&self, now: BootInstant) -> Duration {
        self.outbox.as_ref().map_or(Duration::ZERO, |outbox| now.since(outbox.message.sealed_at))
    }

    /// Containers that the server has not acknowledged.
    pub(super) fn backlog(&self) -> usize {
        self.pending.len() + self.outbox.as_ref().map_or(0, |outbox| outbox.message.containers.len())
    }

    /// True when the last reading is taken and the server has not answered so much as the first message.
    pub(super) const fn is_unheard(&self) -> bool {
        !self.live && self.session_ref.is_none()
    }

    /// Octets used beyond what was granted, and when the grace for that ends; `None` when it has none.
    pub(super) fn grace_used(&self) -> Option<(Octets, BootInstant)> {
        let (_, until) = self.grace?;
        let granted = self.grant.as_ref().map_or(Octets::ZERO, |grant| grant.ceiling);
        Some((self.used().total().saturating_sub(granted), until))
    }

    /// What the grace of a subscriber has come to in the sessions before this one: it is one grace, until the server answers.
    pub(super) const fn shares_grace(&mut self, spent: (Octets, Option<BootInstant>)) {
        self.grace_spent = spent;
    }

    /// Something of this subscriber's has come back to the package: an exhausted session need not wait for its poll.
    pub(super) fn ask_if_exhausted(&mut self) {
        self.reauthorise |= self.live && self.exhausted.is_some();
    }

    /// True while the meter's readings belong to this session.
    pub(super) const fn is_live(&self) -> bool {
        self.live
    }

    /// The octets refused so far, when this session is being returned because the link idled.
    pub(super) fn idled_out(&self) -> Option<Octets> {
        self.closing.filter(|closing| closing.trigger == Trigger::Qht).map(|_| self.refused)
    }

    /// Quota octets of this session so far.
    pub(super) fn used(&self) -> UsedUnit {
        self.passed.since(self.opening.base).unwrap_or_default()
    }

    pub(super) const fn grant(&self) -> Option<&Grant> {
        self.grant.as_ref()
    }

    pub(super) fn unreported(&self) -> Octets {
        self.used().total().saturating_sub(self.reported)
    }

    /// When the first octet was seen that is in no container yet.
    pub(super) const fn open_since(&self) -> Option<BootInstant> {
        self.first_usage
    }

    /// True once nothing more is asked for: the session is being returned.
    pub(super) const fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// True while a message is under way: not while one waits to be sent again.
    pub(super) fn awaits_answer(&self) -> bool {
        self.outbox.as_ref().is_some_and(|outbox| outbox.resumes_at().is_none())
    }

    /// Takes a reading of the meter. False when the counters went back: the epoch is over without our having been told.
    pub(super) fn read(&mut self, reading: &Reading, now: BootInstant) -> bool {
        let (Some(passed), Some(throttled)) =
            (reading.passed.since(self.passed), reading.throttled.since(self.throttled))
        else {
            return false;
        };
        let moved = passed.total().saturating_add(throttled.total());
        if !moved.is_zero() {
            self.first_usage.get_or_insert(now);
            self.last_usage = now;
        }
        self.passed = reading.passed;
        self.throttled = reading.throttled;
        let refused = reading.refused.total();
        let since_raised = !std::mem::take(&mut self.raised);
        self.refused_lately = self.is_refused_by_the_grant(refused > self.refused && since_raised);
        self.refused = refused;
        self.last_reading = now;
        self.foresight.read(moved, now);
        if self.may_seal() {
            self.foresight.look_ahead();
        }
        true
    }

    /// The meter cannot be read any more, or counts anew: what passed since the last reading is not known.
    pub(super) fn lose_meter(&mut self, now: BootInstant, out: &mut Vec<Command>) {
        if self.live {
            self.tell_uncertain_rest(out);
            self.freeze(now, out);
        }
    }

    /// No further reading belongs to this session: its epoch is over. What was read last is recorded with that.
    pub(super) fn freeze(&mut self, now: BootInstant, out: &mut Vec<Command>) {
        if self.live {
            self.begin_closing(Trigger::AbnormalRelease, None, out);
            self.close_interval(Trigger::AbnormalRelease, now, out);
            self.end_readings(out);
        }
    }

    /// Shuts the gate for this session and lets it run out: last reading, release.
    pub(super) fn close(&mut self, trigger: Trigger, now: BootInstant, out: &mut Vec<Command>) {
        if self.closing.is_none() {
            let settles_at = self.live.then(|| now.plus(SETTLE));
            self.begin_closing(trigger, settles_at, out);
        }
    }

    /// From now on whatever the meter counts is another session's, over a restart as well.
    fn end_readings(&mut self, out: &mut Vec<Command>) {
        self.live = false;
        out.push(Command::Record(Record::SessionSettled { session: self.id() }));
    }

    fn begin_closing(&mut self, trigger: Trigger, settles_at: Option<BootInstant>, out: &mut Vec<Command>) {
        match &mut self.closing {
            Some(closing) => closing.settles_at = settles_at,
            None => {
                self.closing = Some(Closing { trigger, settles_at });
                out.push(Command::Record(Record::SessionClosing { session: self.id(), trigger }));
            }
        }
    }

    /// The server or the operator wants this session to ask again.
    pub(super) fn reauthorise(&mut self, now: BootInstant) {
        self.reauthorise = true;
        self.hurry(now);
    }

    /// A waiting retry need not wait any longer.
    pub(super) fn hurry(&mut self, now: BootInstant) {
        self.doubt.hold_until = None;
        if let Some(outbox) = &mut self.outbox {
            outbox.hurry(now);
        }
    }

    /// Takes the outcome of an attempt. A late answer to the outstanding message counts; any other is nobody's.
    pub(super) fn answered(
        &mut self,
        key: MessageKey,
        attempt: u32,
        outcome: Outcome,
        now: BootInstant,
        jitter: &mut Jitter,
        out: &mut Vec<Command>,
    ) -> Fate {
        let Some(outbox) = self.outbox.as_mut().filter(|outbox| outbox.message.number == key.number) else {
            return Fate::Lives;
        };
        match outcome {
            Outcome::Answered(answer) => self.acknowledged(key, answer, now, out),
            Outcome::NotTaken { retry_after, reason: _ } => {
                if attempt == outbox.attempt() {
                    outbox.back_off(retry_after, now, jitter);
                    self.note_not_taken(key, out);
                }
                Fate::Lives
            }
            Outcome::Unanswered { retry_after, reason } => match self.terms.repetition {
                Repetition::Recognised => {
                    if attempt == outbox.attempt() {
                        outbox.back_off(retry_after, now, jitter);
                    }
                    Fate::Lives
                }
                Repetition::Charged => {
                    self.hold_back(retry_after, now, jitter);
                    self.put_in_doubt(reason, now, out)
                }
            },
            Outcome::ContextNotFound if !self.orphan => {
                self.become_orphan(now, out);
                Fate::Lives
            }
            Outcome::ContextNotFound => self.set_aside(key, "the server takes no one-time event".to_owned(), now, out),
            Outcome::Rejected { status: _, cause } => self.set_aside(key, cause, now, out),
        }
    }

    fn set_aside(&mut self, key: MessageKey, cause: String, now: BootInstant, out: &mut Vec<Command>) -> Fate {
        self.outbox = None;
        out.push(Command::Record(Record::MessageSetAside { key, cause }));
        self.become_orphan(now, out);
        Fate::Refused
    }

    fn acknowledged(&mut self, key: MessageKey, answer: Answer, now: BootInstant, out: &mut Vec<Command>) -> Fate {
        let Some(outbox) = self.outbox.take() else { return Fate::Lives };
        self.doubt = Doubt::default();
        if outbox.attempt() == 1 {
            self.foresight.answered(now.since(outbox.message.sealed_at));
        }
        let message = outbox.message;
        if answer.session_ref.is_some() {
            self.session_ref.clone_from(&answer.session_ref);
        }
        if answer.failure_handling.is_some() {
            self.failure_handling = answer.failure_handling;
        }
        let granted = match (answer.granted, message.requested, message.operation) {
            (Some(granted), _, Operation::Create | Operation::Update) => Some(granted),
            // Asked and not told: nothing was granted.
            (None, Some(_), Operation::Create | Operation::Update) => Some(GrantedUnit::none()),
            (_, _, Operation::Release | Operation::Event) | (None, None, Operation::Create | Operation::Update) => None,
        };
        let grant = granted.map(|granted| self.make_grant(&granted, message.reported, now));
        out.push(Command::Record(Record::MessageAcknowledged {
            key,
            session_ref: answer.session_ref,
            grant: grant.clone(),
            failure_handling: answer.failure_handling,
        }));
        if let Some(grant) = grant {
            self.apply(grant, message.requested, now);
        }
        let over = match message.operation {
            Operation::Release => true,
            Operation::Event => self.pending.is_empty(),
            Operation::Create | Operation::Update => false,
        };
        if over {
            out.push(Command::Record(Record::SessionClosed { session: self.id() }));
            return Fate::Ended;
        }
        Fate::Lives
    }

    fn make_grant(&self, granted: &GrantedUnit, reported: Octets, now: BootInstant) -> Grant {
        let half = granted.octets.scaled(1, 2);
        let own = granted.octets.scaled(1, 5).max(self.foresight.needed()).max(PACKET).min(half);
        let mut grant = Grant {
            ceiling: reported.saturating_add(granted.octets),
            octets: granted.octets,
            threshold: granted.volume_quota_threshold.map_or(own, |theirs| theirs.min(half)),
            valid_until: granted.validity_time.map(|validity| now.plus(validity)),
            holding: granted.quota_holding_time.map(|holding| holding.max(HOLDING_LEAST)),
            final_unit: granted.final_unit,
            exceptions: granted.exceptions.clone(),
            result: granted.result,
        };
        if grant.final_unit.is_none() && brings_nothing(&grant) {
            // Nothing more, and not a word of what becomes of the link: what was said last holds, over a restart as well.
            let (action, exceptions) = self.last_words.clone();
            (grant.final_unit, grant.exceptions) = (Some(action), exceptions);
        }
        grant
    }

    fn apply(&mut self, grant: Grant, requested: Option<Octets>, now: BootInstant) {
        self.grace = None;
        if brings_nothing(&grant) {
            match &mut self.exhausted {
                // What was left of the last units is taken back: from here on, whatever is granted is more.
                Some(exhausted) => exhausted.ceiling = exhausted.ceiling.min(grant.ceiling),
                None => self.exhausted = Some(Exhausted::new(grant.ceiling, true, now)),
            }
        }
        // A grant that leaves nothing above the threshold, or is smaller than the packet that waits, would be asked for again at
        // once, round after round.
        let too_small = self.refused_lately && grant.octets < LARGEST_PACKET;
        let remaining = grant.ceiling.saturating_sub(self.used().total());
        self.foresight.granted(&grant, requested);
        // On a link that is faster than what the server grants at a time, much of it is used before the answer: as long as that goes
        // on, asking at once is no storm.
        let since_asked = self.used().total().saturating_sub(grant.ceiling.saturating_sub(grant.octets));
        let is_in_use = !remaining.is_zero() && since_asked >= grant.octets.scaled(1, 4);
        let leaves_room = (remaining > self.foresight.threshold(&grant) || is_in_use) && !too_small;
        let brief = grant.valid_until.is_some_and(|until| until.since(now) < BRIEF);
        let little = requested.is_some_and(|requested| grant.octets < requested.min(LITTLE));
        let pause = self.pause_after(little || brief);
        self.ask_not_before = if leaves_room { now.plus(pause) } else { now.plus(pause.max(ASK_AGAIN)) };
        if self.grant.as_ref().is_none_or(|before| grant.ceiling > before.ceiling) {
            // It was refused under the ceiling before.
            self.refused_lately = false;
        }
        if let Some(action) = grant.final_unit {
            self.last_words = (action, grant.exceptions.clone());
        }
        self.slice.reach(grant.ceiling);
        let validity = grant.valid_until.map_or(Duration::ZERO, |until| until.since(now));
        self.renew_not_before = now.plus(pause.max(validity / 2));
        self.grant = Some(grant);
    }

    /// How long not to ask after an answer: not at all, or longer each time that next to nothing was granted, in octets or in time.
    fn pause_after(&mut self, is_scanty: bool) -> Duration {
        if !is_scanty {
            self.scanty = 0;
            return Duration::ZERO;
        }
        self.scanty = self.scanty.saturating_add(1);
        // Once, it is the end of a package: that is used, and told, at once.
        match self.scanty {
            1 => Duration::ZERO,
            more => (ASK_AGAIN * 2_u32.pow((more - 2).min(6))).min(ASK_AGAIN_LAST),
        }
    }

    /// The server does not know the session: everything it has not acknowledged goes as one-time events.
    fn become_orphan(&mut self, now: BootInstant, out: &mut Vec<Command>) {
        if self.orphan {
            return;
        }
        self.orphan = true;
        // What the void message had reported no longer matters: an orphan gets no grant that could start from there.
        let void = self.outbox.take().map(|outbox| outbox.message.containers).unwrap_or_default();
        for _ in void {
            self.pending.push_front(Octets::ZERO);
        }
        out.push(Command::Record(Record::Orphaned { session: self.id() }));
        self.close(Trigger::AbnormalRelease, now, out);
    }
}

impl Exhausted {
    fn new(ceiling: Octets, told: bool, now: BootInstant) -> Self {
        Self { since: now, ceiling, told, polls: 0, poll_at: now.plus(POLL_FIRST) }
    }

    /// The next poll, a jittered and doubling span away.
    fn polled(&mut self, now: BootInstant, jitter: &mut Jitter) {
        self.told = true;
        let bound = (POLL_FIRST * 2_u32.pow(self.polls.min(4) + 1)).min(POLL_LAST);
        self.poll_at = now.plus(jitter.between(bound / 2, bound));
        self.polls = self.polls.saturating_add(1);
    }
}

/// The package is used up, or the server refuses.
fn brings_nothing(grant: &Grant) -> bool {
    grant.octets.is_zero() || grant.result != ResultCode::Success
}

fn send_command(session: ChargingId, outbox: &Outbox) -> Command {
    Command::Send {
        key: MessageKey { session, number: outbox.message.number },
        attempt: outbox.attempt(),
        route: outbox.route(),
    }
}

/// The larger of two cumulative readings, by direction.
fn larger(one: UsedUnit, other: UsedUnit) -> UsedUnit {
    UsedUnit { uplink: one.uplink.max(other.uplink), downlink: one.downlink.max(other.downlink) }
}
