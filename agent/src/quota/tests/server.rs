//! A model of the charging server: it does its work once, keeps its first answers, and now and then forgets its sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::world::Ledger;
use crate::quota::jitter::Jitter;
use crate::quota::{
    Answer, Container, FinalUnitAction, GrantedUnit, MessageKey, Operation, Outcome, QuotaManagement, ResultCode,
};
use crate::units::{ChargingId, LocalSequenceNumber, Octets, SessionRef, SubscriberIdentifier};

/// What was bought for one SIM, and what became of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    pub(super) bought: u64,
    pub(super) debited: u64,
    pub(super) offline: u64,
}

/// The charging server: first answers are kept, containers are booked once.
pub(super) struct Server {
    chance: Jitter,
    pub(super) accounts: BTreeMap<SubscriberIdentifier, Account>,
    answers: BTreeMap<MessageKey, Outcome>,
    booked: BTreeSet<(ChargingId, LocalSequenceNumber)>,
    /// Having lost a session, it may grant again what that session has used and not yet told.
    pub(super) forgetful: bool,
    /// Open sessions and what each holds.
    held: BTreeMap<ChargingId, (SubscriberIdentifier, u64)>,
}

impl Server {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            chance: Jitter::new(!seed),
            accounts: BTreeMap::new(),
            answers: BTreeMap::new(),
            booked: BTreeSet::new(),
            forgetful: false,
            held: BTreeMap::new(),
        }
    }

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
        if containers.is_empty() && message.operation == Operation::Create && self.chance.next().is_multiple_of(12) {
            let refused = Outcome::Rejected { status: 403, cause: "END_USER_REQUEST_DENIED".to_owned() };
            self.answers.insert(key, refused.clone());
            return refused;
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
        let validity = [None, Some(Duration::from_secs(30)), Some(Duration::from_mins(5))];
        let threshold = [None, None, Some(Octets::new(octets / 4)), Some(Octets::new(octets))];
        GrantedUnit {
            result: if octets == 0 { ResultCode::QuotaLimitReached } else { ResultCode::Success },
            octets: Octets::new(octets),
            volume_quota_threshold: self.any(threshold),
            validity_time: self.any(validity).filter(|_| octets > 0),
            quota_holding_time: self.any([None, None, Some(Duration::from_mins(2))]),
            // Some servers say that units are the last, some let it come to a refusal.
            final_unit: self.any([None, Some(FinalUnitAction::Terminate)]).filter(|_| octets == left),
        }
    }

    fn any<T: Copy, const N: usize>(&mut self, of: [T; N]) -> T {
        of[usize::try_from(self.chance.next()).unwrap_or(0) % N]
    }
}
