//! A model of everything around the core: the kernel's gate, the ledger, a charging server that does its work once, and a network that does not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::hand::epoch;
use crate::quota::{
    Answer, Container, FinalUnitAction, GateMode, GateSetting, GrantedUnit, Message, MessageKey, Operation, Outcome,
    QuotaManagement, Reading, Record, ResultCode, StoredSession,
};
use crate::units::{BootInstant, ChargingId, LocalSequenceNumber, Octets, SessionRef, SubscriberIdentifier, UsedUnit};

/// The kernel's meter and gate.
#[derive(Default)]
pub(super) struct Kernel {
    pub(super) reading: Reading,
    gate: Option<GateSetting>,
}

impl Kernel {
    pub(super) fn set(&mut self, gate: GateSetting) {
        self.gate = Some(gate);
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
}

impl Ledger {
    pub(super) fn commit(&mut self, batch: &mut Vec<Record>) {
        for record in batch.drain(..) {
            self.apply(record);
        }
    }

    pub(super) fn restore(&self) -> Vec<StoredSession> {
        self.sessions.values().cloned().collect()
    }

    /// The sealed message, its containers, and who pays; also of a session that is closed: an old attempt may still be under way.
    fn message(&self, key: MessageKey) -> (Message, Vec<Container>, SubscriberIdentifier) {
        let message = self.sealed.get(&key).expect("only what is sealed is sent").clone();
        let containers =
            message.containers.iter().map(|number| self.containers[&(key.session, *number)].clone()).collect();
        (message, containers, self.subscribers[&key.session].clone())
    }

    fn session(&mut self, id: ChargingId) -> &mut StoredSession {
        self.sessions.get_mut(&id).expect("a record is of an open session")
    }

    fn apply(&mut self, record: Record) {
        match record {
            Record::SessionOpened(opening) => {
                let id = opening.session;
                self.subscribers.insert(id, opening.subscriber.clone());
                let session = StoredSession::opened(opening);
                assert!(self.sessions.insert(id, session).is_none(), "a name is used once");
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
                session.pending.push(container.clone());
                self.containers.insert((id, container.number), container);
            }
            Record::MessageSealed { session: id, message } => {
                let session = self.session(id);
                assert!(session.outstanding.is_none(), "one message at a time");
                assert_eq!(message.number, session.next_message);
                session.next_message = message.number.next().expect("a number");
                let carried: Vec<_> = session.pending.drain(..message.containers.len()).collect();
                assert!(carried.iter().map(|container| container.number).eq(message.containers.iter().copied()));
                let online = carried.iter().filter(|c| c.quota_management == QuotaManagement::Online);
                let sum = online.fold(Octets::ZERO, |sum, container| sum.saturating_add(container.used.total()));
                session.reported = session.reported.saturating_add(sum);
                assert!(session.orphaned || session.reported == message.reported, "reported is the sum of containers");
                session.outstanding = Some(message.clone());
                let key = MessageKey { session: id, number: message.number };
                assert!(self.sealed.insert(key, message).is_none(), "a sealed message never changes");
            }
            Record::MessageAcknowledged { key, session_ref, grant } => {
                let session = self.session(key.session);
                let message = session.outstanding.take().expect("something waits for an answer");
                assert_eq!(message.number, key.number, "that very number is acknowledged");
                session.session_ref = session_ref.or(session.session_ref.take());
                if grant.is_some() {
                    session.grant = grant;
                    session.grace = None;
                }
            }
            Record::MessageSetAside { key, .. } => {
                let message = self.session(key.session).outstanding.take().expect("something waits for an answer");
                assert!(message.containers.is_empty(), "this server refuses nothing that reports usage");
            }
            Record::Orphaned { session: id } => {
                let void = self.session(id).outstanding.take();
                let back: Vec<_> = void
                    .iter()
                    .flat_map(|message| &message.containers)
                    .map(|number| self.containers[&(id, *number)].clone())
                    .collect();
                let session = self.session(id);
                session.orphaned = true;
                session.pending.splice(0..0, back);
            }
            Record::GraceOpened { session, ceiling, until } => self.session(session).grace = Some((ceiling, until)),
            Record::SessionClosing { session, trigger } => self.session(session).closing = Some(trigger),
            Record::SessionSettled { session } => self.session(session).settled = true,
            Record::SessionClosed { session } => {
                let gone = self.sessions.remove(&session).expect("an open session is closed");
                assert!(gone.pending.is_empty() && gone.outstanding.is_none(), "nothing unacknowledged is let go");
            }
            Record::Checkpoint { session, passed, throttled, .. } => {
                self.session(session).checkpoint = Some((passed, throttled));
            }
        }
    }
}

/// What was bought for one SIM, and what became of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    pub(super) bought: u64,
    pub(super) debited: u64,
    pub(super) offline: u64,
}

/// The charging server: first answers are kept, containers are booked once.
#[derive(Default)]
pub(super) struct Server {
    pub(super) accounts: BTreeMap<SubscriberIdentifier, Account>,
    answers: BTreeMap<MessageKey, Outcome>,
    booked: BTreeSet<(ChargingId, LocalSequenceNumber)>,
    /// Having lost a session, it may grant again what that session has used and not yet told.
    pub(super) forgetful: bool,
    /// Open sessions and what each holds.
    held: BTreeMap<ChargingId, (SubscriberIdentifier, u64)>,
}

impl Server {
    pub(super) fn buy(&mut self, subscriber: SubscriberIdentifier, octets: u64) {
        self.accounts.entry(subscriber).or_default().bought += octets;
    }

    /// Forgets its sessions, but not what it has booked.
    pub(super) fn lose_sessions(&mut self) {
        self.held.clear();
        self.forgetful = true;
    }

    pub(super) fn take(&mut self, key: MessageKey, ledger: &Ledger) -> Outcome {
        if let Some(first) = self.answers.get(&key) {
            return first.clone();
        }
        let (message, containers, subscriber) = ledger.message(key);
        let known = self.held.contains_key(&key.session);
        if !known && matches!(message.operation, Operation::Update | Operation::Release) {
            return Outcome::ContextNotFound;
        }
        for container in containers {
            self.book(key.session, &subscriber, &container);
        }
        let answer = Answer {
            session_ref: (message.operation == Operation::Create).then(|| SessionRef::new(key.session.to_string())),
            granted: match message.operation {
                Operation::Create | Operation::Update => {
                    message.requested.map(|asked| self.grant(key.session, &subscriber, asked))
                }
                Operation::Release | Operation::Event => None,
            },
            failure_handling: None,
        };
        if message.operation == Operation::Release {
            self.held.remove(&key.session);
        }
        let outcome = Outcome::Answered(answer);
        self.answers.insert(key, outcome.clone());
        outcome
    }

    fn book(&mut self, session: ChargingId, subscriber: &SubscriberIdentifier, container: &Container) {
        if !self.booked.insert((session, container.number)) {
            return;
        }
        let octets = container.used.total().get();
        let account = self.accounts.entry(subscriber.clone()).or_default();
        match container.quota_management {
            QuotaManagement::Online => account.debited += octets,
            QuotaManagement::Offline => account.offline += octets,
        }
        if let (QuotaManagement::Online, Some((_, held))) = (container.quota_management, self.held.get_mut(&session)) {
            *held = held.saturating_sub(octets);
        }
    }

    fn grant(&mut self, session: ChargingId, subscriber: &SubscriberIdentifier, asked: Octets) -> GrantedUnit {
        let others: u64 =
            self.held.iter().filter(|(id, (who, _))| **id != session && who == subscriber).map(|(_, (_, n))| n).sum();
        let account = self.accounts.entry(subscriber.clone()).or_default();
        let left = account.bought.saturating_sub(account.debited).saturating_sub(others);
        let octets = asked.get().min(left);
        self.held.insert(session, (subscriber.clone(), octets));
        GrantedUnit {
            result: if octets == 0 { ResultCode::QuotaLimitReached } else { ResultCode::Success },
            octets: Octets::new(octets),
            volume_quota_threshold: None,
            validity_time: (octets > 0).then_some(Duration::from_mins(5)),
            quota_holding_time: octets.is_multiple_of(3).then_some(Duration::from_mins(2)),
            final_unit: (octets == left).then_some(FinalUnitAction::Terminate),
        }
    }
}

/// The meter's epoch in this world: it lives as long as the world.
pub(super) fn the_epoch() -> crate::units::Epoch {
    epoch(1)
}
