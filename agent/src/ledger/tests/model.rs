//! What the records say, held in plain values: the ledger must agree with it after every batch.

use std::collections::{BTreeMap, BTreeSet};

use crate::ledger::{Granularity, Ledger, Scope, Usage};
use crate::quota::{Container, Message, Record, SessionOpening, StoredSession};
use crate::units::{ChargingId, Octets, SubscriberIdentifier};

#[derive(Clone, Debug)]
pub(super) struct ModelSession {
    pub(super) stored: StoredSession,
    pub(super) is_open: bool,
    /// The containers that are in no message.
    pub(super) pending: Vec<Container>,
    /// The containers of the outstanding message.
    pub(super) sealed: Vec<Container>,
    acknowledged: Usage,
    set_aside: Usage,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    /// In the order of opening.
    pub(super) sessions: Vec<ModelSession>,
    pub(super) aborted: BTreeSet<SubscriberIdentifier>,
}

impl Model {
    pub(super) fn get(&mut self, session: ChargingId) -> &mut ModelSession {
        self.sessions.iter_mut().find(|is| is.stored.opening.session == session).expect("a known session")
    }

    pub(super) fn apply_all(&mut self, records: &[Record]) {
        for record in records {
            self.apply(record);
        }
    }

    fn apply(&mut self, record: &Record) {
        match record {
            Record::SessionOpened(opening) => self.sessions.push(ModelSession::new(opening.clone())),
            Record::ContainerClosed { session, container } => self.get(*session).close(container.clone()),
            Record::MessageSealed { session, message } => self.get(*session).seal(message),
            Record::MessageAcknowledged { key, session_ref, grant, failure_handling } => {
                let session = self.get(key.session);
                let usage = session.settle();
                session.acknowledged = session.acknowledged.saturating_add(usage);
                let stored = &mut session.stored;
                stored.session_ref = session_ref.clone().or(stored.session_ref.take());
                stored.failure_handling = failure_handling.or(stored.failure_handling);
                if let Some(granted) = grant {
                    stored.highest_ceiling = stored.highest_ceiling.max(granted.ceiling);
                    stored.grant.clone_from(grant);
                    stored.grace = None;
                }
            }
            Record::MessageSetAside { key, .. } | Record::MessageInDoubt { key, .. } => {
                let session = self.get(key.session);
                let usage = session.settle();
                session.set_aside = session.set_aside.saturating_add(usage);
            }
            Record::MessageNotTaken { key } => self.get(key.session).stored.not_taken = true,
            Record::MessageAttempted { key } => self.get(key.session).stored.not_taken = false,
            Record::Orphaned { session } => {
                let lost = self.get(*session);
                lost.stored.orphaned = true;
                lost.stored.outstanding = None;
                lost.stored.not_taken = false;
                lost.pending.splice(0..0, lost.sealed.drain(..));
            }
            Record::GraceOpened { session, ceiling, until } => {
                let stored = &mut self.get(*session).stored;
                stored.highest_ceiling = stored.highest_ceiling.max(*ceiling);
                stored.grace = Some((*ceiling, *until));
            }
            Record::SessionClosing { session, trigger } => self.get(*session).stored.closing = Some(*trigger),
            Record::SessionSettled { session } => self.get(*session).stored.settled = true,
            Record::Aborted { subscriber } => drop(self.aborted.insert(subscriber.clone())),
            Record::Reauthorised { subscriber } => drop(self.aborted.remove(subscriber)),
            Record::SessionClosed { session } => self.get(*session).is_open = false,
            Record::Checkpoint { session, passed, throttled, .. } => {
                self.get(*session).stored.checkpoint = Some((*passed, *throttled));
            }
            Record::SliceSet { session, slice } => self.get(*session).stored.slice = *slice,
            Record::RestUncertain { session, octets } => self.get(*session).stored.uncertain = Some(*octets),
        }
    }

    pub(super) fn open(&self) -> Vec<StoredSession> {
        let open = self.sessions.iter().filter(|session| session.is_open);
        open.map(|session| StoredSession {
            pending: session.pending.iter().map(Container::quota_octets).collect(),
            ..session.stored.clone()
        })
        .collect()
    }

    /// The ledger tells the same story: sessions, books, buffer, history.
    pub(super) fn assert_agrees(&self, ledger: &Ledger, hint: &str) {
        assert_eq!(ledger.restore().expect("restores"), self.open(), "{hint}: restored sessions");
        assert_eq!(ledger.aborted().expect("lists"), Vec::from_iter(self.aborted.clone()), "{hint}: orders to abort");
        let audit: BTreeMap<_, _> =
            ledger.audit().expect("audits").into_iter().map(|audit| (audit.session, audit)).collect();
        for session in self.sessions.iter().filter(|session| session.is_open) {
            let audit = &audit[&session.stored.opening.session];
            assert_eq!(audit.drift(), Octets::ZERO, "{hint}: {audit:?}");
            assert_eq!(audit.closed.online, session.stored.closed, "{hint}");
            assert_eq!(audit.closed.offline, session.stored.closed_throttled, "{hint}");
            assert_eq!(audit.acknowledged, session.acknowledged, "{hint}");
            assert_eq!(audit.set_aside, session.set_aside, "{hint}");
            assert_eq!(audit.orphaned, session.stored.orphaned, "{hint}");
            assert_eq!(audit.outstanding, session.sealed.iter().collect(), "{hint}");
            assert_eq!(audit.pending, session.pending.iter().collect(), "{hint}");
        }
        self.assert_sums_agree(ledger, hint);
    }

    fn assert_sums_agree(&self, ledger: &Ledger, hint: &str) {
        let acknowledged: Usage = self.sessions.iter().map(|session| session.acknowledged).collect();
        let waiting: Usage = self.sessions.iter().map(ModelSession::waiting).collect();
        let set_aside: Usage = self.sessions.iter().map(|session| session.set_aside).collect();
        let in_doubt: Usage = ledger.set_aside().expect("lists").into_iter().map(|message| message.usage).collect();
        assert_eq!(in_doubt, set_aside, "{hint}: in doubt");
        let uncertain = self.sessions.iter().filter_map(|session| session.stored.uncertain);
        assert_eq!(ledger.uncertain().expect("sums"), uncertain.fold(Octets::ZERO, Octets::saturating_add), "{hint}");
        assert_eq!(ledger.buffered().expect("sums").octets, waiting.total(), "{hint}: buffered");
        for granularity in [Granularity::FiveMinutes, Granularity::Hour, Granularity::Day, Granularity::Month] {
            let history = |scope| {
                let buckets = ledger.usage_history(granularity, scope).expect("a history");
                buckets.into_iter().map(|bucket| bucket.usage).collect::<Usage>()
            };
            assert_eq!(history(Scope::Acknowledged), acknowledged, "{hint}: {granularity:?}");
            let recorded = acknowledged.saturating_add(waiting).saturating_add(set_aside);
            assert_eq!(history(Scope::Recorded), recorded, "{hint}: {granularity:?}");
        }
    }
}

impl ModelSession {
    fn new(opening: SessionOpening) -> Self {
        Self {
            stored: StoredSession::opened(opening),
            is_open: true,
            pending: Vec::new(),
            sealed: Vec::new(),
            acknowledged: Usage::ZERO,
            set_aside: Usage::ZERO,
        }
    }

    fn close(&mut self, container: Container) {
        let usage = Usage::of(&container);
        self.stored.closed = self.stored.closed.saturating_add(usage.online);
        self.stored.closed_throttled = self.stored.closed_throttled.saturating_add(usage.offline);
        self.stored.next_container = container.number.next().expect("a next number");
        self.pending.push(container);
    }

    fn seal(&mut self, message: &Message) {
        self.sealed = self.pending.drain(..message.containers.len()).collect();
        self.stored.reported = message.reported;
        self.stored.next_message = message.number.next().expect("a next number");
        self.stored.outstanding = Some(message.clone());
    }

    fn settle(&mut self) -> Usage {
        self.stored.outstanding = None;
        self.stored.not_taken = false;
        std::mem::take(&mut self.sealed).iter().collect()
    }

    fn waiting(&self) -> Usage {
        self.sealed.iter().chain(&self.pending).collect()
    }
}
