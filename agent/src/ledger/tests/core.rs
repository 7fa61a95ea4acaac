//! The quota core and the ledger together: every octet that passed is recorded once, whatever is answered and whenever we die.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;

use super::{boot, bytes, label};
use crate::clock::Moment;
use crate::ledger::{Granularity, Ledger, Scope, Usage, Verdict};
use crate::quota::{
    Answer, Command, Event, FailureHandling, GateMode, GateSetting, GrantedUnit, LocalFilters, MessageKey,
    OfflineGrace, Outcome, Quota, Reading, Record, Repetition, ResultCode, Terms, Usable, WhenUsedUp,
};
use crate::units::{
    BootInstant, ChargingId, Epoch, Generation, LocalSequenceNumber, OctetRate, Octets, SessionRef,
    SubscriberIdentifier, UsedUnit,
};

/// The server's moods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// Answers everything well.
    Kind,
    /// Does not always answer.
    Distant,
    /// Also loses sessions and refuses messages.
    Hostile,
    /// Does not always answer, and charges whatever comes again.
    Foreign,
}

impl Server {
    const fn repetition(self) -> Repetition {
        match self {
            Self::Kind | Self::Distant | Self::Hostile => Repetition::Recognised,
            Self::Foreign => Repetition::Charged,
        }
    }
}

/// A link, a core, a ledger, and a server with moods.
struct World {
    rng: Rng,
    seed: u64,
    now: BootInstant,
    epoch: Epoch,
    reading: Reading,
    gate: Option<GateSetting>,
    quota: Quota,
    ledger: Ledger,
    /// Attempts that nobody has answered yet.
    sent: Vec<(MessageKey, u32)>,
    server: Server,
    terms: Terms,
    /// The containers of each sealed message and their octets.
    sealed: BTreeMap<MessageKey, Vec<(LocalSequenceNumber, u64)>>,
    closed: BTreeMap<(ChargingId, LocalSequenceNumber), u64>,
    /// What the server has charged.
    charged: BTreeSet<(ChargingId, LocalSequenceNumber)>,
}

fn terms(server: Server) -> Terms {
    Terms {
        repetition: server.repetition(),
        chunk: Octets::new(1 << 20),
        largest_chunk: Octets::new(1 << 20),
        report_interval: Duration::from_mins(1),
        checkpoint_interval: Duration::from_secs(5),
        max_unrecorded: None,
        failure_handling: FailureHandling::Continue,
        offline_grace: OfflineGrace { octets: Octets::new(1 << 19), duration: Duration::from_mins(5) },
        when_used_up: WhenUsedUp::Throttle(OctetRate::per_second(8000)),
        filters: LocalFilters::default(),
        control_reserve: Octets::new(1 << 20),
    }
}

impl World {
    fn new(seed: u64, server: Server) -> Self {
        let now = BootInstant::from_nanos(1_000_000_000);
        let mut world = Self {
            rng: Rng::with_seed(seed),
            seed,
            now,
            epoch: Epoch { boot: boot(), generation: Generation::new(1) },
            reading: Reading::default(),
            gate: None,
            quota: Quota::new(seed, now),
            ledger: super::in_memory(),
            sent: Vec::new(),
            server,
            terms: terms(server),
            sealed: BTreeMap::new(),
            closed: BTreeMap::new(),
            charged: BTreeSet::new(),
        };
        world.become_usable();
        world
    }

    fn become_usable(&mut self) {
        let usable = Usable {
            subscriber: SubscriberIdentifier::new("imsi-001010000000001"),
            epoch: self.epoch.clone(),
            terms: self.terms.clone(),
            reading: self.reading,
        };
        self.tell(Event::Usable(usable));
    }

    fn tell(&mut self, event: Event) {
        self.quota.handle_event(event, self.now);
        self.carry_out();
    }

    /// Carries out what is queued: records that follow each other in one batch, before the command behind them.
    fn carry_out(&mut self) {
        let mut batch: Vec<Record> = Vec::new();
        while let Some(command) = self.quota.poll_command() {
            if let Command::Record(record) = command {
                batch.push(record);
                continue;
            }
            self.commit(&std::mem::take(&mut batch));
            match command {
                Command::Send { key, attempt, route: _ } => {
                    let message = self.ledger.message(key).expect("reads").expect("sealed before it is sent");
                    assert_eq!(message.retransmission, attempt > 1, "seed {}: {key:?}", self.seed);
                    self.ledger.count_attempt(key).expect("counts");
                    self.sent.push((key, attempt));
                }
                Command::SetGate(gate) => self.gate = Some(gate),
                Command::Read => self.quota.handle_event(Event::Reading(self.reading), self.now),
                Command::DrawName => {
                    let name = self.ledger.fresh_name(&mut || self.rng.u32(0..500)).expect("reads");
                    self.quota.handle_event(Event::Named(name), self.now);
                }
                Command::Record(_) => unreachable!("taken above"),
            }
        }
        self.commit(&batch);
    }

    fn commit(&mut self, batch: &[Record]) {
        let seconds = i64::try_from(self.now.as_nanos() / 1_000_000_000).expect("in range");
        let moment = Moment { boot: self.now, label: label(seconds) };
        let seed = self.seed;
        self.watch(batch);
        self.ledger
            .commit(batch, &moment, &mut bytes)
            .unwrap_or_else(|error| panic!("seed {seed}: {error:#}\n{batch:#?}"));
    }

    /// What the server will find in the messages.
    fn watch(&mut self, batch: &[Record]) {
        for record in batch {
            if let Record::ContainerClosed { session, container } = record {
                self.closed.insert((*session, container.number), container.used.total().get());
            }
            if let Record::MessageSealed { session, message } = record {
                let octets = |number: &LocalSequenceNumber| (*number, self.closed[&(*session, *number)]);
                let containers = message.containers.iter().map(octets).collect();
                self.sealed.insert(MessageKey { session: *session, number: message.number }, containers);
            }
        }
    }

    /// The server takes a message. One that charges what comes again must never get a container twice.
    fn charge(&mut self, key: MessageKey) {
        for (number, _) in &self.sealed[&key] {
            let is_new = self.charged.insert((key.session, *number));
            assert!(is_new || self.server != Server::Foreign, "seed {}: {key:?} is charged twice", self.seed);
        }
    }

    /// Traffic up to the ceiling, and some beyond it that is throttled.
    fn traffic(&mut self) {
        let ceiling = self.gate.as_ref().map_or(0, |gate| gate.ceiling.get());
        let room = ceiling.saturating_sub(self.reading.passed.total().get());
        let octets = self.rng.u64(0..=room.min(1 << 19));
        let uplink = self.rng.u64(0..=octets);
        self.reading.passed = self.reading.passed.saturating_add(UsedUnit::new(uplink, octets - uplink));
        let polices =
            self.gate.as_ref().is_some_and(|gate| matches!(gate.mode, GateMode::Throttle(_) | GateMode::Restrict(_)));
        if room == 0 && polices {
            let throttled = UsedUnit::new(self.rng.u64(0..2000), self.rng.u64(0..2000));
            self.reading.throttled = self.reading.throttled.saturating_add(throttled);
        }
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now.plus(span);
        self.quota.handle_timeout(self.now);
        self.carry_out();
    }

    fn answer(&mut self) {
        if self.sent.is_empty() {
            return;
        }
        let (key, attempt) = self.sent.swap_remove(self.rng.usize(0..self.sent.len()));
        let mood = self.rng.u8(0..12);
        if self.server == Server::Foreign && (mood == 0 || mood > 3) {
            self.charge(key);
        }
        let outcome = match mood {
            2 | 3 if self.server == Server::Foreign => {
                Outcome::NotTaken { retry_after: None, reason: "503".to_owned() }
            }
            0..=1 if self.server != Server::Kind => {
                Outcome::Unanswered { retry_after: None, reason: "timed out".to_owned() }
            }
            2 if self.server == Server::Hostile => Outcome::ContextNotFound,
            3 if self.server == Server::Hostile => Outcome::Rejected { status: 400, cause: "INVALID".to_owned() },
            mood => {
                let result = if mood == 4 { ResultCode::QuotaLimitReached } else { ResultCode::Success };
                let octets = if mood == 4 { Octets::ZERO } else { Octets::new(1 << 20) };
                let granted = GrantedUnit { result, octets, ..GrantedUnit::none() };
                let session_ref = Some(SessionRef::new("ref"));
                Outcome::Answered(Answer { session_ref, granted: Some(granted), failure_handling: None })
            }
        };
        self.tell(Event::Answer { key, attempt, outcome });
    }

    /// kill -9: the kernel goes on, the ledger holds what was committed.
    fn die(&mut self) {
        self.traffic();
        for (key, _) in std::mem::take(&mut self.sent) {
            // What was on its way may arrive.
            if self.server == Server::Foreign && self.rng.bool() {
                self.charge(key);
            }
        }
        self.ledger.attempts.clear();
        let stored = self.ledger.restore().expect("restores");
        let meter = (self.epoch.clone(), self.reading);
        self.quota = Quota::restore(stored, &self.terms, Some(&meter), self.rng.u64(..), self.now);
        self.carry_out();
        self.become_usable();
    }

    fn recorded(&self) -> Usage {
        let buckets = self.ledger.usage_history(Granularity::Day, Scope::Recorded).expect("a history");
        buckets.into_iter().map(|bucket| bucket.usage).collect()
    }

    fn assert_books_close(&self) {
        for audit in self.ledger.audit().expect("audits") {
            assert_eq!(audit.drift(), Octets::ZERO, "seed {}: {audit:?}", self.seed);
        }
        let recorded = self.recorded();
        let passed = self.reading.passed;
        assert!(passed.since(recorded.online).is_some(), "seed {}: {recorded:?} of {passed:?}", self.seed);
    }

    /// Settles with a kind server and compares to the octet.
    fn settle(&mut self) {
        if self.server != Server::Foreign {
            self.server = Server::Kind;
        }
        self.tell(Event::Settle);
        for _ in 0..2000 {
            if self.quota.is_settled() {
                break;
            }
            self.pass(Duration::from_secs(1));
            self.tell(Event::Reading(self.reading));
            self.answer();
        }
        assert!(self.quota.is_settled(), "seed {}", self.seed);
        assert_eq!(self.ledger.restore().expect("restores"), [], "seed {}", self.seed);
    }

    /// A random life of so many steps.
    fn live(&mut self, steps: usize) {
        for _ in 0..steps {
            match self.rng.u8(0..10) {
                0..=3 => self.traffic(),
                4..=5 => self.answer(),
                6 if self.rng.bool() => self.die(),
                7 => self.tell(Event::Reading(self.reading)),
                _ => {
                    let span = Duration::from_millis(self.rng.u64(0..20_000));
                    self.pass(span);
                }
            }
            self.assert_books_close();
        }
    }
}

/// Twenty-one lives, and whether their books are right to the octet when all is settled.
fn live_and_compare(server: Server) {
    for seed in (1..=20).chain([fastrand::u64(..)]) {
        println!("seed {seed}");
        let mut world = World::new(seed, server);
        world.live(150);
        world.settle();
        let expected = Usage { online: world.reading.passed, offline: world.reading.throttled };
        assert_eq!(world.recorded(), expected, "seed {seed}: recorded, against what passed");
    }
}

#[test]
fn every_octet_is_recorded_once_whenever_the_agent_dies() {
    live_and_compare(Server::Distant);
}

#[test]
fn every_octet_is_recorded_once_when_the_server_loses_sessions_and_refuses_messages() {
    live_and_compare(Server::Hostile);
}

#[test]
fn a_server_that_charges_what_comes_again_charges_no_octet_twice_and_the_rest_is_in_doubt() {
    let mut doubtful = 0;
    for seed in (1..=20).chain([fastrand::u64(..)]) {
        println!("seed {seed}");
        let mut world = World::new(seed, Server::Foreign);
        world.live(150);
        world.settle();
        let charged: u64 = world.charged.iter().map(|name| world.closed[name]).sum();
        let aside = world.ledger.set_aside().expect("lists");
        assert!(aside.iter().all(|message| message.verdict == Verdict::InDoubt), "seed {seed}: {aside:?}");
        let not_charged = aside.iter().flat_map(|message| {
            let containers = world.sealed[&message.key].iter();
            containers.filter(|(number, _)| !world.charged.contains(&(message.key.session, *number)))
        });
        let not_charged: u64 = not_charged.map(|(_, octets)| octets).sum();
        let passed = world.reading.passed.total().saturating_add(world.reading.throttled.total());
        assert_eq!(charged + not_charged, passed.get(), "seed {seed}: charged, and in doubt but not charged");
        doubtful += aside.len();
    }
    assert!(doubtful > 20, "{doubtful} messages in doubt: too few to show anything");
}
