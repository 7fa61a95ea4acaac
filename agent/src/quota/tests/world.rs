//! A model of what the agent has on its own machine: the kernel's meter and gate, and the ledger with the constraints of the real one.

use std::collections::{BTreeMap, BTreeSet};

use crate::quota::{
    Container, GateMode, GateSetting, Message, MessageKey, QuotaManagement, Reading, Record, SessionOpening,
    StoredSession,
};
use crate::units::{BootInstant, ChargingId, Epoch, LocalSequenceNumber, Octets, SubscriberIdentifier, UsedUnit};

/// The kernel's meter and gate.
#[derive(Default)]
pub(super) struct Kernel {
    pub(super) reading: Reading,
    gate: Option<GateSetting>,
    /// Of the meters before this one: quota octets, throttled octets.
    past: (u64, u64),
}

impl Kernel {
    pub(super) fn set(&mut self, gate: GateSetting) {
        self.gate = Some(gate);
    }

    /// A new meter, with a shut gate, takes the place of the one before.
    pub(super) fn replace(&mut self) {
        *self = Self { past: (self.passed(), self.throttled()), ..Self::default() };
    }

    /// Quota octets of all meters.
    pub(super) fn passed(&self) -> u64 {
        self.past.0 + self.reading.passed.total().get()
    }

    /// Throttled octets of all meters.
    pub(super) fn throttled(&self) -> u64 {
        self.past.1 + self.reading.throttled.total().get()
    }

    /// A packet of `octets` arrives.
    pub(super) fn offer(&mut self, octets: u64, uplink: bool, now: BootInstant) {
        let one = if uplink { UsedUnit::new(octets, 0) } else { UsedUnit::new(0, octets) };
        let open = self.gate.is_some_and(|gate| {
            self.reading.passed.total().get() + octets <= gate.ceiling.get()
                && gate.deadline.is_none_or(|deadline| now < deadline)
        });
        let throttles = matches!(self.gate, Some(GateSetting { mode: GateMode::Throttle(_), .. }));
        let counter = match (open, throttles) {
            (true, _) => &mut self.reading.passed,
            (false, true) => &mut self.reading.throttled,
            (false, false) => &mut self.reading.refused,
        };
        *counter = counter.saturating_add(one);
    }
}

/// The ledger: takes batches whole, checks what the real one's constraints check.
#[derive(Default)]
pub(super) struct Ledger {
    sessions: BTreeMap<ChargingId, StoredSession>,
    containers: BTreeMap<(ChargingId, LocalSequenceNumber), Container>,
    sealed: BTreeMap<MessageKey, Message>,
    subscribers: BTreeMap<ChargingId, SubscriberIdentifier>,
    pub(super) aborted: BTreeSet<SubscriberIdentifier>,
    /// Where the last session of the epoch ended: `passed`, `throttled`.
    ended: Option<(Epoch, UsedUnit, UsedUnit)>,
    /// What was told to be uncertain, over all sessions.
    pub(super) uncertain: u64,
}

impl Ledger {
    pub(super) fn commit(&mut self, batch: &mut Vec<Record>) {
        for record in batch.drain(..) {
            self.apply(record);
        }
    }

    /// A name that no session ever bore, out of those drawn.
    pub(super) fn fresh_name(&self, mut draw: impl FnMut() -> u32) -> ChargingId {
        loop {
            let name = ChargingId::new(draw());
            if !self.subscribers.contains_key(&name) {
                return name;
            }
        }
    }

    pub(super) fn restore(&self) -> Vec<StoredSession> {
        self.sessions.values().cloned().collect()
    }

    /// The sealed message, its containers, and who pays; also of a session that is closed: an old attempt may still be under way.
    pub(super) fn message(&self, key: MessageKey) -> (Message, Vec<Container>, SubscriberIdentifier) {
        let message = self.sealed.get(&key).expect("only what is sealed is sent").clone();
        let containers =
            message.containers.iter().map(|number| self.containers[&(key.session, *number)].clone()).collect();
        (message, containers, self.subscribers[&key.session].clone())
    }

    /// Epoch octets up to which the gate may be open: what the ledger holds of the session that the meter counts for.
    pub(super) fn highest_ceiling(&self, epoch: &Epoch) -> Octets {
        let of = |session: &StoredSession| {
            let grant = session.grant.as_ref().map_or(Octets::ZERO, |grant| grant.ceiling);
            let grace = session.grace.map_or(Octets::ZERO, |(ceiling, _)| ceiling);
            let base = session.opening.base;
            let recorded =
                larger(session.checkpoint.unwrap_or_default().0, base.saturating_add(session.closed)).total();
            let slice_end = session.slice.map_or(Octets::MAX, |slice| recorded.saturating_add(slice));
            base.total().saturating_add(grant.max(grace)).min(slice_end)
        };
        let counted = |session: &&StoredSession| session.opening.epoch == *epoch && session.closing.is_none();
        self.sessions.values().filter(counted).map(of).max().unwrap_or_default()
    }

    /// What has passed and been throttled in this epoch and is not in the ledger: with the meter it would be lost.
    pub(super) fn unrecorded(&self, reading: &Reading, epoch: &Epoch) -> (u64, u64) {
        let counted = |session: &&StoredSession| session.opening.epoch == *epoch && !session.settled;
        let Some(session) = self.sessions.values().find(counted) else { return (0, 0) };
        let opening = &session.opening;
        let (passed, throttled) = session.checkpoint.unwrap_or_default();
        let passed = larger(passed, opening.base.saturating_add(session.closed));
        let throttled = larger(throttled, opening.base_throttled.saturating_add(session.closed_throttled));
        let apart = |now: UsedUnit, then: UsedUnit| now.total().get() - then.total().get();
        (apart(reading.passed, passed), apart(reading.throttled, throttled))
    }

    /// Sealed and open intervals join: nothing is in a container that the meter has not counted.
    pub(super) fn check_against(&self, reading: &Reading, epoch: &Epoch) {
        for session in self.sessions.values().filter(|session| session.opening.epoch == *epoch) {
            let opening = &session.opening;
            let closed = opening.base.saturating_add(session.closed);
            let closed_throttled = opening.base_throttled.saturating_add(session.closed_throttled);
            assert!(reading.passed.since(closed).is_some(), "more in containers than passed: {session:?}");
            assert!(reading.throttled.since(closed_throttled).is_some(), "more than was throttled: {session:?}");
        }
    }

    fn check_opening(&self, opening: &SessionOpening) {
        let same_epoch = |session: &&StoredSession| session.opening.epoch == opening.epoch;
        assert!(self.sessions.values().filter(same_epoch).all(|session| session.settled), "one session a meter");
        if let Some((epoch, passed, throttled)) = &self.ended
            && *epoch == opening.epoch
        {
            assert_eq!((&opening.base, &opening.base_throttled), (passed, throttled), "sessions join");
        }
    }

    fn session(&mut self, id: ChargingId) -> &mut StoredSession {
        self.sessions.get_mut(&id).expect("a record is of an open session")
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::SessionOpened(opening) => {
                let id = opening.session;
                assert!(!self.aborted.contains(&opening.subscriber), "the order to abort stands");
                self.check_opening(&opening);
                let before = self.subscribers.insert(id, opening.subscriber.clone());
                assert!(before.is_none(), "a name is used once");
                let session = StoredSession::opened(opening);
                assert!(self.sessions.insert(id, session).is_none());
            }
            Record::ContainerClosed { session: id, container } => {
                assert!(container.used.total().get() < 1 << 31 && !container.used.is_zero());
                let session = self.session(id);
                assert_eq!(container.number, session.next_container, "containers are numbered without a gap");
                session.next_container = container.number.next().expect("a number");
                match container.quota_management {
                    QuotaManagement::Online => session.closed = session.closed.saturating_add(container.used),
                    QuotaManagement::Offline => {
                        session.closed_throttled = session.closed_throttled.saturating_add(container.used);
                    }
                }
                session.pending.push(container.quota_octets());
                self.containers.insert((id, container.number), container);
            }
            Record::MessageSealed { session: id, message } => {
                let session = self.session(id);
                assert!(session.outstanding.is_none(), "one message at a time");
                assert_eq!(message.number, session.next_message);
                session.next_message = message.number.next().expect("a number");
                let first = session.next_container.get() - u32::try_from(session.pending.len()).expect("a few");
                assert!((first..).map(LocalSequenceNumber::new).zip(&message.containers).all(|(turn, is)| turn == *is));
                let carried = session.pending.drain(..message.containers.len());
                let sum = carried.fold(Octets::ZERO, Octets::saturating_add);
                session.reported = session.reported.saturating_add(sum);
                assert!(session.orphaned || session.reported == message.reported, "reported is the sum of containers");
                session.outstanding = Some(message.clone());
                let key = MessageKey { session: id, number: message.number };
                assert!(self.sealed.insert(key, message).is_none(), "a sealed message never changes");
            }
            Record::MessageAcknowledged { key, session_ref, grant, failure_handling } => {
                let session = self.session(key.session);
                let message = session.outstanding.take().expect("something waits for an answer");
                assert_eq!(message.number, key.number, "that very number is acknowledged");
                session.session_ref = session_ref.or(session.session_ref.take());
                session.failure_handling = failure_handling.or(session.failure_handling);
                if let Some(granted) = &grant {
                    session.highest_ceiling = session.highest_ceiling.max(granted.ceiling);
                    session.grant = grant;
                    session.grace = None;
                }
            }
            Record::MessageSetAside { key, .. } => {
                let message = self.session(key.session).outstanding.take().expect("something waits for an answer");
                assert!(message.containers.is_empty(), "this server refuses nothing that reports usage");
            }
            Record::MessageInDoubt { .. } | Record::MessageNotTaken { .. } | Record::MessageAttempted { .. } => {
                unreachable!("this server recognises what comes again")
            }
            Record::Orphaned { session: id } => {
                let void = self.session(id).outstanding.take();
                let back: Vec<_> = void
                    .iter()
                    .flat_map(|message| &message.containers)
                    .map(|number| self.containers[&(id, *number)].quota_octets())
                    .collect();
                let session = self.session(id);
                session.orphaned = true;
                session.pending.splice(0..0, back);
            }
            Record::GraceOpened { session, ceiling, until } => {
                let session = self.session(session);
                session.highest_ceiling = session.highest_ceiling.max(ceiling);
                session.grace = Some((ceiling, until));
            }
            Record::SessionClosing { session, trigger } => self.session(session).closing = Some(trigger),
            Record::SessionSettled { session: id } => {
                let session = self.session(id);
                session.settled = true;
                let passed = session.opening.base.saturating_add(session.closed);
                let throttled = session.opening.base_throttled.saturating_add(session.closed_throttled);
                self.ended = Some((session.opening.epoch.clone(), passed, throttled));
            }
            Record::Aborted { subscriber } => drop(self.aborted.insert(subscriber)),
            Record::Reauthorised { subscriber } => drop(self.aborted.remove(&subscriber)),
            Record::SessionClosed { session } => {
                let gone = self.sessions.remove(&session).expect("an open session is closed");
                assert!(gone.pending.is_empty() && gone.outstanding.is_none(), "nothing unacknowledged is let go");
            }
            Record::Checkpoint { session, passed, throttled, .. } => {
                self.session(session).checkpoint = Some((passed, throttled));
            }
            Record::SliceSet { session, slice } => self.session(session).slice = slice,
            Record::RestUncertain { session, octets } => {
                let session = self.session(session);
                assert!(session.slice.is_none_or(|slice| octets <= slice), "no more than a slice: {session:?}");
                assert!(session.uncertain.replace(octets).is_none(), "what is uncertain is told once");
                self.uncertain += octets.get();
            }
        }
    }
}

/// The larger of two cumulative readings, by direction.
fn larger(one: UsedUnit, other: UsedUnit) -> UsedUnit {
    UsedUnit { uplink: one.uplink.max(other.uplink), downlink: one.downlink.max(other.downlink) }
}
