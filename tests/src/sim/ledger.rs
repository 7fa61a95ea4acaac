//! A model of the ledger: takes batches whole, refuses what the real one's constraints refuse, forgets nothing that the oracle needs.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use agent::quota::{
    Container, MAX_CONTAINERS, Message, MessageKey, QuotaManagement, Record, SessionOpening, StoredSession,
};
use agent::units::{ChargingId, Epoch, LocalSequenceNumber, Octets, SubscriberIdentifier, UsedUnit};

use super::Broken;
use super::chance::Chance;

/// Names one container for ever.
pub(super) type ContainerKey = (ChargingId, LocalSequenceNumber);

/// The exact octets of a sealed message, as far as this world has any.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) key: MessageKey,
    pub(super) message: Message,
    pub(super) containers: Vec<Container>,
    pub(super) subscriber: SubscriberIdentifier,
}

/// What became of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// In the ledger: it still has to reach the server.
    Kept,
    /// The server has acknowledged it, out of the books with this number.
    Acknowledged(u32),
    /// The server refused its message for good.
    SetAside,
    /// Its message may have been taken, and is not sent again.
    InDoubt,
}

/// A closed container, remembered for the oracle also when the ledger has let go of it.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) container: Container,
    pub(super) subscriber: SubscriberIdentifier,
    pub(super) whereabouts: Whereabouts,
}

/// How far the counters of an epoch are written down: `passed`, `throttled`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Position {
    pub(super) passed: UsedUnit,
    pub(super) throttled: UsedUnit,
    /// Where its last session ended, if that was its last record.
    ended: Option<(UsedUnit, UsedUnit)>,
    /// In containers: quota octets, others.
    pub(super) contained: (u64, u64),
    /// What people were told may have passed and be in none.
    pub(super) uncertain: u64,
    opened: bool,
}

/// The ledger.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    sessions: BTreeMap<ChargingId, StoredSession>,
    sealed: BTreeMap<MessageKey, Rc<Sealed>>,
    /// Every container there ever was.
    pub(super) containers: BTreeMap<ContainerKey, Closed>,
    pub(super) positions: Vec<(Epoch, Position)>,
    /// Every session that was given up as lost, or may be open at the server.
    pub(super) orphaned: BTreeSet<ChargingId>,
    names: BTreeSet<ChargingId>,
    /// Whose sessions stay ended by order of the server.
    pub(super) aborted: BTreeSet<SubscriberIdentifier>,
    /// Octets that may be debited beyond what was bought, by who pays: graces, and what was left in doubt. The server may grant that
    /// again before a late copy of it is booked.
    pub(super) beyond: BTreeMap<SubscriberIdentifier, u64>,
    /// The number of the server's books that the answer in hand came out of.
    pub(super) answering_books: u32,
}

impl Ledger {
    /// One transaction.
    pub(super) fn commit(&mut self, batch: &[Record]) -> Result<(), Broken> {
        batch.iter().try_for_each(|record| self.apply(record))
    }

    pub(super) fn restore(&self) -> Vec<StoredSession> {
        self.sessions.values().cloned().collect()
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = &StoredSession> {
        self.sessions.values()
    }

    /// The message, which must wait for its answer: nothing else may be sent.
    pub(super) fn outstanding(&self, key: MessageKey) -> Result<Rc<Sealed>, Broken> {
        let session = self.sessions.get(&key.session);
        let waits = session.and_then(|session| session.outstanding.as_ref()).is_some_and(|m| m.number == key.number);
        hold!(waits, "only a sealed message that waits for its answer is sent", "{key:?}");
        let may_be_taken = session.is_some_and(|session| !session.not_taken);
        hold!(may_be_taken, "before a message leaves, it counts as possibly taken", "{key:?}");
        self.message(key)
    }

    /// The sealed message, also of a session that is closed.
    pub(super) fn message(&self, key: MessageKey) -> Result<Rc<Sealed>, Broken> {
        self.sealed.get(&key).cloned().ok_or_else(|| Broken::new("only what is sealed is named", format!("{key:?}")))
    }

    /// A name that no session ever bore. There are few enough of them that the same would be drawn again if nobody looked.
    pub(super) fn fresh_name(&self, chance: &mut Chance) -> ChargingId {
        loop {
            let name = ChargingId::new(u32::try_from(chance.between(0, 999)).unwrap_or(0));
            if !self.names.contains(&name) || self.names.len() > 999 {
                return name;
            }
        }
    }

    /// Epoch octets up to which the gate may be open: what is recorded of the session that the meter counts for, and no further
    /// than its slice beyond what is committed.
    pub(super) fn highest_ceiling(&self, epoch: &Epoch) -> Octets {
        let of = |session: &StoredSession| {
            let grant = session.grant.as_ref().map_or(Octets::ZERO, |grant| grant.ceiling);
            let grace = session.grace.map_or(Octets::ZERO, |(ceiling, _)| ceiling);
            let committed = larger(session.checkpoint.unwrap_or_default().0, end_of(session).0).total();
            let slice_end = session.slice.map_or(Octets::MAX, |slice| committed.saturating_add(slice));
            session.opening.base.total().saturating_add(grant.max(grace)).min(slice_end)
        };
        let counted = |session: &&StoredSession| session.opening.epoch == *epoch && session.closing.is_none();
        self.sessions.values().filter(counted).map(of).max().unwrap_or_default()
    }

    pub(super) fn position(&self, epoch: &Epoch) -> Position {
        self.positions.iter().find(|(of, _)| of == epoch).map(|(_, position)| *position).unwrap_or_default()
    }

    fn position_mut(&mut self, epoch: &Epoch) -> &mut Position {
        let at = self.positions.iter().position(|(of, _)| of == epoch).unwrap_or_else(|| {
            self.positions.push((epoch.clone(), Position::default()));
            self.positions.len() - 1
        });
        &mut self.positions[at].1
    }

    fn session(&mut self, id: ChargingId) -> Result<&mut StoredSession, Broken> {
        self.sessions.get_mut(&id).ok_or_else(|| Broken::new("a record is of an open session", format!("{id}")))
    }

    fn apply(&mut self, record: &Record) -> Result<(), Broken> {
        match record {
            Record::SessionOpened(opening) => self.open(opening),
            Record::ContainerClosed { session, container } => self.close_container(*session, container),
            Record::MessageSealed { session, message } => self.seal(*session, message),
            Record::MessageAcknowledged { key, session_ref, grant, failure_handling } => {
                let books = self.answering_books;
                self.let_go(*key, Whereabouts::Acknowledged(books))?;
                let session = self.session(key.session)?;
                session.session_ref = session_ref.clone().or(session.session_ref.take());
                session.failure_handling = failure_handling.or(session.failure_handling);
                if let Some(granted) = grant {
                    session.highest_ceiling = session.highest_ceiling.max(granted.ceiling);
                    session.grant.clone_from(grant);
                    session.grace = None;
                }
                Ok(())
            }
            Record::MessageSetAside { key, .. } => self.let_go(*key, Whereabouts::SetAside),
            Record::MessageInDoubt { key, .. } => {
                // Whether it was released, or opened, nobody knows.
                self.orphaned.insert(key.session);
                let sealed = self.message(*key)?;
                let octets: u64 = sealed.containers.iter().map(|container| container.quota_octets().get()).sum();
                *self.beyond.entry(sealed.subscriber.clone()).or_default() += octets;
                self.let_go(*key, Whereabouts::InDoubt)
            }
            Record::MessageNotTaken { key } => self.mark(*key, true),
            Record::MessageAttempted { key } => self.mark(*key, false),
            Record::Orphaned { session } => self.orphan(*session),
            Record::GraceOpened { session, ceiling, until } => {
                let session = self.session(*session)?;
                let granted = session.grant.as_ref().map_or(Octets::ZERO, |grant| grant.ceiling);
                let beyond = ceiling.saturating_sub(granted).get();
                session.grace = Some((*ceiling, *until));
                session.highest_ceiling = session.highest_ceiling.max(*ceiling);
                let subscriber = session.opening.subscriber.clone();
                *self.beyond.entry(subscriber).or_default() += beyond;
                Ok(())
            }
            Record::SessionClosing { session, trigger } => {
                self.session(*session)?.closing = Some(*trigger);
                Ok(())
            }
            Record::SessionSettled { session } => self.settle(*session),
            Record::SessionClosed { session } => {
                let gone = self.session(*session)?;
                let empty = gone.pending.is_empty() && gone.outstanding.is_none();
                hold!(empty, "nothing unacknowledged is let go", "{gone:?}");
                self.sessions.remove(session);
                Ok(())
            }
            Record::Checkpoint { session, passed, throttled, .. } => self.checkpoint(*session, *passed, *throttled),
            Record::Aborted { subscriber } => {
                self.aborted.insert(subscriber.clone());
                Ok(())
            }
            Record::Reauthorised { subscriber } => {
                self.aborted.remove(subscriber);
                Ok(())
            }
            Record::SliceSet { session, slice } => {
                self.session(*session)?.slice = *slice;
                Ok(())
            }
            Record::RestUncertain { session, octets } => self.tell_uncertain(*session, *octets),
        }
    }

    fn open(&mut self, opening: &SessionOpening) -> Result<(), Broken> {
        let of_epoch = |session: &&StoredSession| session.opening.epoch == opening.epoch;
        let settled = self.sessions.values().filter(of_epoch).all(|session| session.settled);
        hold!(settled, "a meter counts for one session at a time", "{opening:?}");
        hold!(self.names.insert(opening.session), "a name is used once", "{opening:?}");
        let ordered = self.aborted.contains(&opening.subscriber);
        hold!(!ordered, "nothing is opened while an order to abort stands", "{opening:?}");
        let is_lost = |session: &StoredSession| session.orphaned && session.opening.subscriber == opening.subscriber;
        let lost = self.sessions.values().find(|session| is_lost(session));
        hold!(
            lost.is_none(),
            "nothing is opened before what the server has lost of the SIM is booked",
            "{opening:?}, {lost:?}"
        );
        let position = self.position_mut(&opening.epoch);
        let begins = if position.opened { position.ended } else { Some((UsedUnit::ZERO, UsedUnit::ZERO)) };
        let joins = begins == Some((opening.base, opening.base_throttled));
        hold!(joins, "sessions join: one begins where the one before has ended", "{opening:?}, not {begins:?}");
        position.opened = true;
        position.ended = None;
        self.sessions.insert(opening.session, StoredSession::opened(opening.clone()));
        Ok(())
    }

    fn close_container(&mut self, id: ChargingId, container: &Container) -> Result<(), Broken> {
        let octets = container.used.total().get();
        hold!(octets > 0 && octets < 1 << 31, "a container is neither empty nor 2^31 octets long", "{container:?}");
        let session = self.session(id)?;
        let in_turn = container.number == session.next_container;
        hold!(in_turn, "containers are numbered without a gap", "{container:?} in {session:?}");
        session.next_container = next(container.number.next())?;
        let adds = match container.quota_management {
            QuotaManagement::Online => {
                session.closed = session.closed.saturating_add(container.used);
                (octets, 0)
            }
            QuotaManagement::Offline => {
                session.closed_throttled = session.closed_throttled.saturating_add(container.used);
                (0, octets)
            }
        };
        session.pending.push(container.quota_octets());
        let opening = session.opening.clone();
        let (passed, throttled) = end_of(session);
        self.reach(&opening.epoch, passed, throttled);
        let position = self.position_mut(&opening.epoch);
        position.contained = (position.contained.0 + adds.0, position.contained.1 + adds.1);
        let (subscriber, whereabouts) = (opening.subscriber, Whereabouts::Kept);
        self.containers
            .insert((id, container.number), Closed { container: container.clone(), subscriber, whereabouts });
        Ok(())
    }

    fn seal(&mut self, id: ChargingId, message: &Message) -> Result<(), Broken> {
        let key = MessageKey { session: id, number: message.number };
        hold!(!self.sealed.contains_key(&key), "a sealed message never changes", "{message:?}");
        let session = self.session(id)?;
        hold!(session.outstanding.is_none(), "one message of a session is under way at a time", "{session:?}");
        let in_turn = message.number == session.next_message;
        hold!(in_turn, "messages are numbered without a gap", "{message:?} in {session:?}");
        session.next_message = next(message.number.next())?;
        let count = message.containers.len();
        let unsealed = u32::try_from(session.pending.len()).unwrap_or(u32::MAX);
        let oldest = (session.next_container.get().saturating_sub(unsealed)..).map(LocalSequenceNumber::new);
        let carries = count <= MAX_CONTAINERS
            && count <= session.pending.len()
            && oldest.take(count).eq(message.containers.iter().copied());
        hold!(carries, "a message carries the oldest containers", "{message:?} of {session:?}");
        let sum = session.pending.drain(..count).fold(Octets::ZERO, Octets::saturating_add);
        session.reported = session.reported.saturating_add(sum);
        let exact = session.orphaned || session.reported == message.reported;
        hold!(exact, "what is reported is the sum of containers", "{message:?}: {}", session.reported);
        session.outstanding = Some(message.clone());
        session.not_taken = false;
        let subscriber = session.opening.subscriber.clone();
        let named = message.containers.iter().filter_map(|number| self.containers.get(&(id, *number)));
        let containers = named.map(|closed| closed.container.clone()).collect();
        self.sealed.insert(key, Rc::new(Sealed { key, message: message.clone(), containers, subscriber }));
        Ok(())
    }

    /// The message that waits for an answer has come to an end.
    fn let_go(&mut self, key: MessageKey, whereabouts: Whereabouts) -> Result<(), Broken> {
        let outstanding = self.session(key.session)?.outstanding.take();
        let is_that = outstanding.as_ref().is_some_and(|message| message.number == key.number);
        hold!(is_that, "that very number is acknowledged", "{key:?}, not {outstanding:?}");
        for number in outstanding.iter().flat_map(|message| &message.containers) {
            if let Some(closed) = self.containers.get_mut(&(key.session, *number)) {
                closed.whereabouts = whereabouts;
            }
        }
        Ok(())
    }

    /// Whether the message that waits was certainly not taken yet.
    fn mark(&mut self, key: MessageKey, not_taken: bool) -> Result<(), Broken> {
        let session = self.session(key.session)?;
        let is_that = session.outstanding.as_ref().is_some_and(|message| message.number == key.number);
        hold!(is_that, "what is noted of a message is of the one that waits", "{key:?} in {session:?}");
        session.not_taken = not_taken;
        Ok(())
    }

    fn orphan(&mut self, id: ChargingId) -> Result<(), Broken> {
        let void = self.session(id)?.outstanding.take();
        let numbers = void.iter().flat_map(|message| &message.containers);
        let back: Vec<Octets> =
            numbers.filter_map(|number| Some(self.containers.get(&(id, *number))?.container.quota_octets())).collect();
        let session = self.session(id)?;
        session.orphaned = true;
        session.pending.splice(0..0, back);
        self.orphaned.insert(id);
        Ok(())
    }

    fn settle(&mut self, id: ChargingId) -> Result<(), Broken> {
        let session = self.session(id)?;
        session.settled = true;
        let (epoch, end) = (session.opening.epoch.clone(), end_of(session));
        self.position_mut(&epoch).ended = Some(end);
        Ok(())
    }

    fn checkpoint(&mut self, id: ChargingId, passed: UsedUnit, throttled: UsedUnit) -> Result<(), Broken> {
        let session = self.session(id)?;
        let before = session.checkpoint.unwrap_or((session.opening.base, session.opening.base_throttled));
        let goes_on = passed.since(before.0).is_some() && throttled.since(before.1).is_some();
        hold!(goes_on, "a counter only goes up within its epoch", "{passed:?}, {throttled:?} after {before:?}");
        session.checkpoint = Some((passed, throttled));
        let epoch = session.opening.epoch.clone();
        self.reach(&epoch, passed, throttled);
        Ok(())
    }

    /// People are told what may be missing: once for a session, and no more than its slice.
    fn tell_uncertain(&mut self, id: ChargingId, octets: Octets) -> Result<(), Broken> {
        let session = self.session(id)?;
        let within = session.slice.is_none_or(|slice| octets <= slice);
        hold!(within, "no more than a slice is uncertain", "{octets} of {session:?}");
        let before = session.uncertain.replace(octets);
        hold!(before.is_none(), "what is uncertain is told once", "{octets} of {session:?}");
        let epoch = session.opening.epoch.clone();
        self.position_mut(&epoch).uncertain += octets.get();
        Ok(())
    }

    /// The counters of that epoch are written down up to here.
    fn reach(&mut self, epoch: &Epoch, passed: UsedUnit, throttled: UsedUnit) {
        let position = self.position_mut(epoch);
        position.passed = larger(position.passed, passed);
        position.throttled = larger(position.throttled, throttled);
    }
}

/// Where the last container of a session ends.
pub(super) fn end_of(session: &StoredSession) -> (UsedUnit, UsedUnit) {
    let opening = &session.opening;
    (opening.base.saturating_add(session.closed), opening.base_throttled.saturating_add(session.closed_throttled))
}

fn next<T>(number: Option<T>) -> Result<T, Broken> {
    number.ok_or_else(|| Broken::new("numbers do not come to an end", String::new()))
}

fn larger(one: UsedUnit, other: UsedUnit) -> UsedUnit {
    UsedUnit { uplink: one.uplink.max(other.uplink), downlink: one.downlink.max(other.downlink) }
}
