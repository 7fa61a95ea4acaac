//! The quota core and the ledger together: every octet that passed is recorded once, whatever is answered and whenever we die.

use std::time::Duration;

use fastrand::Rng;

use super::{boot, bytes, label};
use crate::clock::Moment;
use crate::ledger::{Granularity, Ledger, Scope, Usage};
use crate::quota::{
    Answer, Command, Event, FailureHandling, GateMode, GateSetting, GrantedUnit, MessageKey, OfflineGrace, Outcome,
    Quota, Reading, Record, ResultCode, Terms, Usable, WhenUsedUp,
};
use crate::units::{BootInstant, Epoch, Generation, OctetRate, Octets, SessionRef, SubscriberIdentifier, UsedUnit};

/// The server's moods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    /// Answers everything well.
    Kind,
    /// Does not always answer.
    Distant,
    /// Also loses sessions and refuses messages.
    Hostile,
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
}

fn terms() -> Terms {
    Terms {
        chunk: Octets::new(1 << 20),
        report_interval: Duration::from_mins(1),
        checkpoint_interval: Duration::from_secs(5),
        max_unrecorded: None,
        failure_handling: FailureHandling::Continue,
        offline_grace: OfflineGrace { octets: Octets::new(1 << 19), duration: Duration::from_mins(5) },
        when_used_up: WhenUsedUp::Throttle(OctetRate::per_second(8000)),
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
        };
        world.become_usable();
        world
    }

    fn become_usable(&mut self) {
        let usable = Usable {
            subscriber: SubscriberIdentifier::new("imsi-001010000000001"),
            epoch: self.epoch.clone(),
            terms: terms(),
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
        self.ledger
            .commit(batch, &moment, &mut bytes)
            .unwrap_or_else(|error| panic!("seed {seed}: {error:#}\n{batch:#?}"));
    }

    /// Traffic up to the ceiling, and some beyond it that is throttled.
    fn traffic(&mut self) {
        let ceiling = self.gate.map_or(0, |gate| gate.ceiling.get());
        let room = ceiling.saturating_sub(self.reading.passed.total().get());
        let octets = self.rng.u64(0..=room.min(1 << 19));
        let uplink = self.rng.u64(0..=octets);
        self.reading.passed = self.reading.passed.saturating_add(UsedUnit::new(uplink, octets - uplink));
        let polices = self.gate.is_some_and(|gate| matches!(gate.mode, GateMode::Throttle(_)));
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
        let outcome = match self.rng.u8(0..12) {
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
        self.sent.clear();
        self.ledger.attempts.clear();
        let stored = self.ledger.restore().expect("restores");
        let meter = (self.epoch.clone(), self.reading);
        self.quota = Quota::restore(stored, &terms(), Some(&meter), self.rng.u64(..), self.now);
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
        self.server = Server::Kind;
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
