//! A model of the charging server: it keeps its first answers (or charges what comes again), and can lose sessions or all of its latest books.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use agent::quota::{
    Answer, Container, Exceptions, FailureHandling, FinalUnitAction, GrantedUnit, MessageKey, Operation, Outcome,
    QuotaManagement, Repetition, ResultCode,
};
use agent::units::{ChargingId, Octets, SessionRef, SubscriberIdentifier};

use super::Broken;
use super::chance::{Chance, mix};
use super::ledger::{ContainerKey, Sealed};

/// What was bought for one SIM, and what became of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Account {
    pub(super) bought: u64,
    pub(super) debited: u64,
    pub(super) offline: u64,
}

/// Octets set aside for an open session.
#[derive(Clone, Debug)]
struct Hold {
    subscriber: SubscriberIdentifier,
    octets: u64,
    /// At twice the validity, in the server's time.
    expires: Option<Duration>,
}

/// All that the server has written down.
#[derive(Clone, Debug, Default)]
struct Books {
    accounts: BTreeMap<SubscriberIdentifier, Account>,
    answers: BTreeMap<MessageKey, (Rc<Sealed>, Answer)>,
    /// How often each container was booked.
    booked: BTreeMap<ContainerKey, u32>,
    sessions: BTreeMap<ChargingId, Hold>,
}

/// The charging server.
#[derive(Debug)]
pub(super) struct Server {
    seed: u64,
    repetition: Repetition,
    /// Whether it grants what is asked for, if that is left; else next to nothing now and then.
    pub(super) generous: bool,
    books: Books,
    backup: Option<Books>,
    /// How often older books took the place of newer ones.
    pub(super) generation: u32,
    /// Octets that may be used beyond what was bought, because holds were forgotten, ended or taken back before the usage was told.
    pub(super) allowance: BTreeMap<SubscriberIdentifier, u64>,
}

impl Server {
    pub(super) fn new(seed: u64, repetition: Repetition) -> Self {
        Self {
            seed,
            repetition,
            generous: false,
            books: Books::default(),
            backup: None,
            generation: 0,
            allowance: BTreeMap::new(),
        }
    }

    pub(super) fn buy(&mut self, subscriber: &SubscriberIdentifier, octets: u64) {
        self.books.accounts.entry(subscriber.clone()).or_default().bought += octets;
    }

    pub(super) fn accounts(&self) -> impl Iterator<Item = (&SubscriberIdentifier, &Account)> {
        self.books.accounts.iter()
    }

    pub(super) fn account(&self, subscriber: &SubscriberIdentifier) -> Account {
        self.books.accounts.get(subscriber).copied().unwrap_or_default()
    }

    pub(super) fn has_booked(&self, key: ContainerKey) -> bool {
        self.books.booked.contains_key(&key)
    }

    pub(super) fn open_sessions(&self) -> impl Iterator<Item = ChargingId> {
        self.books.sessions.keys().copied()
    }

    /// Forgets its sessions, but not what it has booked.
    pub(super) fn forget_sessions(&mut self) {
        self.allow_for_holds();
        self.books.sessions.clear();
    }

    pub(super) fn back_up(&mut self) {
        self.backup = Some(self.books.clone());
    }

    /// The books are those of the last backup: sessions, answers, debits and purchases since then are forgotten. What must hold is
    /// said in `invariants`.
    pub(super) fn restore_backup(&mut self) {
        let Some(backup) = self.backup.clone() else { return };
        self.allow_for_holds();
        for (subscriber, account) in &self.books.accounts {
            // What was debited since, and not yet acknowledged, is told again, and may have been granted again by then.
            let before = backup.accounts.get(subscriber).map_or(0, |account| account.debited);
            *self.allowance.entry(subscriber.clone()).or_default() += account.debited.saturating_sub(before);
        }
        self.books = backup;
        self.allow_for_holds();
        self.generation += 1;
    }

    /// Whatever is held at this moment may be used and also granted to somebody else.
    fn allow_for_holds(&mut self) {
        for hold in self.books.sessions.values() {
            *self.allowance.entry(hold.subscriber.clone()).or_default() += hold.octets;
        }
    }

    /// Ends reservations at twice their validity.
    fn expire(&mut self, time: Duration) {
        let over = |hold: &&mut Hold| hold.octets > 0 && hold.expires.is_some_and(|expires| time >= expires);
        for hold in self.books.sessions.values_mut().filter(over) {
            *self.allowance.entry(hold.subscriber.clone()).or_default() += hold.octets;
            hold.octets = 0;
        }
    }

    /// A definite no, unless the message was answered before. Nothing is booked.
    pub(super) fn refuse(&self, sealed: &Sealed) -> Outcome {
        match self.books.answers.get(&sealed.key) {
            Some((_, first)) => Outcome::Answered(first.clone()),
            None => Outcome::Rejected { status: 403, cause: "END_USER_REQUEST_DENIED".to_owned() },
        }
    }

    /// Takes a message: the first time it does the work, after that it says again what it said.
    pub(super) fn take(&mut self, sealed: &Rc<Sealed>, time: Duration) -> Result<Outcome, Broken> {
        self.expire(time);
        if let Some((body, first)) = self.books.answers.get(&sealed.key) {
            hold!(body == sealed, "a number stands for one message for ever", "{sealed:?}, before {body:?}");
            return Ok(Outcome::Answered(first.clone()));
        }
        let session = sealed.key.session;
        let known = self.books.sessions.contains_key(&session);
        let operation = sealed.message.operation;
        if !known && matches!(operation, Operation::Update | Operation::Release) {
            return Ok(Outcome::ContextNotFound);
        }
        for container in &sealed.containers {
            self.book(session, &sealed.subscriber, container)?;
        }
        let mut chance = Chance::new(mix(self.seed, mix(u64::from(session.get()), u64::from(sealed.key.number.get()))));
        let answer = Answer {
            session_ref: (operation == Operation::Create).then(|| SessionRef::new(session.to_string())),
            granted: match operation {
                Operation::Create | Operation::Update => {
                    let asked = sealed.message.requested;
                    asked.map(|asked| self.grant((session, &sealed.subscriber), asked, &mut chance, time))
                }
                Operation::Release | Operation::Event => None,
            },
            failure_handling: chance.one_in(16).then(|| chance.pick(&HANDLINGS)),
        };
        if operation == Operation::Release {
            self.books.sessions.remove(&session);
        }
        if self.repetition == Repetition::Recognised {
            self.books.answers.insert(sealed.key, (Rc::clone(sealed), answer.clone()));
        }
        Ok(Outcome::Answered(answer))
    }

    fn book(
        &mut self,
        session: ChargingId,
        subscriber: &SubscriberIdentifier,
        container: &Container,
    ) -> Result<(), Broken> {
        let times = self.books.booked.entry((session, container.number)).or_default();
        if *times > 0 && self.repetition == Repetition::Recognised {
            return Ok(());
        }
        *times += 1;
        hold!(*times == 1, "nothing is charged twice", "{container:?} of session {session}");
        let octets = container.used.total().get();
        let account = self.books.accounts.entry(subscriber.clone()).or_default();
        match container.quota_management {
            QuotaManagement::Online => {
                account.debited += octets;
                if let Some(hold) = self.books.sessions.get_mut(&session) {
                    hold.octets = hold.octets.saturating_sub(octets);
                }
            }
            QuotaManagement::Offline => account.offline += octets,
        }
        Ok(())
    }

    fn grant(
        &mut self,
        (session, subscriber): (ChargingId, &SubscriberIdentifier),
        asked: Octets,
        chance: &mut Chance,
        time: Duration,
    ) -> GrantedUnit {
        let others = self.books.sessions.iter().filter(|(id, hold)| **id != session && hold.subscriber == *subscriber);
        let held: u64 = others.map(|(_, hold)| hold.octets).sum();
        let account = self.account(subscriber);
        let left = account.bought.saturating_sub(account.debited).saturating_sub(held);
        // Some grant next to nothing, or for next to no time.
        let most = if chance.one_in(20) && !self.generous { chance.pick(&[1, 1_000, 20_000]) } else { u64::MAX };
        let octets = asked.get().min(left).min(most);
        let validity = [None, Some(Duration::from_secs(30)), Some(Duration::from_mins(5))];
        let brief = (chance.one_in(20) && !self.generous).then_some(Duration::from_secs(1));
        let validity = brief.or(chance.pick(&validity)).filter(|_| octets > 0);
        let expires = validity.map(|validity| time + validity * 2);
        let now_held = Hold { subscriber: subscriber.clone(), octets, expires };
        if let Some(before) = self.books.sessions.insert(session, now_held) {
            // What is taken back may be used already, and not yet told.
            *self.allowance.entry(subscriber.clone()).or_default() += before.octets.saturating_sub(octets);
        }
        let threshold = [None, None, Some(Octets::new(octets / 4)), Some(Octets::new(octets))];
        GrantedUnit {
            result: if octets == 0 { ResultCode::QuotaLimitReached } else { ResultCode::Success },
            octets: Octets::new(octets),
            volume_quota_threshold: chance.pick(&threshold),
            validity_time: validity,
            quota_holding_time: chance.pick(&[None, None, Some(Duration::from_mins(2))]),
            // Some servers say that units are the last, some let it come to a refusal.
            final_unit: chance.pick(&ENDINGS).filter(|_| octets == left),
            exceptions: Exceptions { rules: RULES.map(str::to_owned).into(), ..Exceptions::default() },
        }
    }
}

/// What may come with the last units, if anything does.
const ENDINGS: [Option<FinalUnitAction>; 4] =
    [None, Some(FinalUnitAction::Terminate), Some(FinalUnitAction::RestrictAccess), Some(FinalUnitAction::Redirect)];
/// What is permitted then.
const RULES: [&str; 2] = ["permit in ip from any to any", "permit out ip from any to any"];

/// The failure handlings there are, for whoever draws one.
pub(super) const HANDLINGS: [FailureHandling; 3] =
    [FailureHandling::Terminate, FailureHandling::Continue, FailureHandling::RetryAndTerminate];
