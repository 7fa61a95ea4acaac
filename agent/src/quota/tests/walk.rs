//! A seeded random walk: traffic, time, lost and late answers, crashes between any two commands, top-ups, SIM switches, lost sessions,
//! power cuts; at the end every octet that passed has been debited exactly once, and none was over what was bought.

use std::time::Duration;

use super::hand::{at, epoch, sim, terms};
use super::server::Server;
use super::world::{Kernel, Ledger};
use crate::quota::jitter::Jitter;
use crate::quota::{
    Command, Event, FailureHandling, MessageKey, OfflineGrace, Outcome, Quota, Record, Terms, Usable, WhenUsedUp,
};
use crate::units::{BootInstant, OctetRate, Octets};

const SEEDS: u64 = 2_000;
const STEPS: u64 = 300;
/// Settling has to be done within this span of quiet, virtual time.
const SETTLES_WITHIN: Duration = Duration::from_hours(2);

/// A link that was stopped by whatever it was carries traffic again within this span, once there are units and a network.
const COMES_BACK_WITHIN: Duration = Duration::from_mins(7);

struct Attempt {
    key: MessageKey,
    attempt: u32,
    /// Crashes of the agent cut its connections: an answer to an earlier life reaches nobody.
    life: u32,
}

struct World {
    chance: Jitter,
    now: BootInstant,
    quota: Quota,
    kernel: Kernel,
    ledger: Ledger,
    server: Server,
    under_way: Vec<Attempt>,
    life: u32,
    sim: u32,
    in_use: bool,
    /// Which meter the link has.
    generation: u32,
    handling: FailureHandling,
    slice: Option<Octets>,
    /// What went with meters before it was recorded: quota octets, throttled octets.
    lost: (u64, u64),
    /// A network and an agent that do what they should.
    quiet: bool,
}

/// The agent died before it had done all that the core wanted.
struct Crash;

impl World {
    fn new(seed: u64) -> Self {
        let mut server = Server::new(seed);
        server.buy(sim(1), 3_000_000);
        server.buy(sim(2), 500_000);
        Self {
            chance: Jitter::new(seed),
            now: at(1_000),
            quota: Quota::new(seed, at(1_000)),
            kernel: Kernel::default(),
            ledger: Ledger::default(),
            server,
            under_way: Vec::new(),
            life: 0,
            sim: 1,
            in_use: true,
            generation: 1,
            handling: match seed % 3 {
                0 => FailureHandling::Continue,
                1 => FailureHandling::Terminate,
                _ => FailureHandling::RetryAndTerminate,
            },
            slice: (seed % 5 < 2).then_some(Octets::new(15_000)),
            lost: (0, 0),
            quiet: false,
        }
    }

    fn terms(&self) -> Terms {
        let throttled = self.sim == 2;
        Terms {
            chunk: Octets::new(200_000),
            max_unrecorded: self.slice,
            failure_handling: self.handling,
            offline_grace: OfflineGrace { octets: Octets::new(20_000), duration: Duration::from_secs(90) },
            when_used_up: if throttled {
                WhenUsedUp::Throttle(OctetRate::per_second(1_000))
            } else {
                WhenUsedUp::Block
            },
            ..terms()
        }
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.chance.next().is_multiple_of(n)
    }

    fn usable(&self) -> Event {
        Event::Usable(Usable {
            subscriber: sim(self.sim),
            epoch: epoch(self.generation),
            terms: self.terms(),
            reading: self.kernel.reading,
        })
    }

    fn tell(&mut self, event: Event) {
        self.quota.handle_event(event, self.now);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        if self.try_carry_out().is_err() {
            self.restart();
        }
    }

    /// As the loop does it: records that follow each other are one commit. Before and after each there may be a crash.
    fn try_carry_out(&mut self) -> Result<(), Crash> {
        let mut batch: Vec<Record> = Vec::new();
        for count in 0.. {
            assert!(count < 500, "a storm of commands at one instant");
            let command = self.quota.poll_command();
            if let Some(Command::Record(record)) = command {
                batch.push(record);
                continue;
            }
            self.crash_maybe()?;
            self.ledger.commit(&mut batch);
            self.crash_maybe()?;
            match command {
                None => return Ok(()),
                Some(Command::Record(_)) => unreachable!("taken above"),
                Some(Command::Send { key, attempt, .. }) => {
                    self.under_way.push(Attempt { key, attempt, life: self.life });
                }
                Some(Command::SetGate(gate)) => {
                    let recorded = self.ledger.highest_ceiling(&epoch(self.generation));
                    assert!(gate.ceiling <= recorded, "a gate beyond what is recorded: {gate:?}");
                    self.kernel.set(gate);
                }
                Some(Command::DrawName) => {
                    // Few enough to come again, if the ledger were not asked.
                    let name = self.ledger.fresh_name(|| u32::try_from(self.chance.next() % 1_000).unwrap_or(0));
                    self.quota.handle_event(Event::Named(name), self.now);
                }
                Some(Command::Read) => self.quota.handle_event(Event::Reading(self.kernel.reading), self.now),
            }
        }
        Ok(())
    }

    fn crash_maybe(&mut self) -> Result<(), Crash> {
        if !self.quiet && self.one_in(60) { Err(Crash) } else { Ok(()) }
    }

    /// The agent comes back: the ledger and the pinned meter are all it has.
    fn restart(&mut self) {
        self.life += 1;
        self.now = self.now.plus(Duration::from_millis(self.chance.next() % 3_000));
        let meter = (epoch(self.generation), self.kernel.reading);
        let seed = self.chance.next();
        self.quota = Quota::restore(self.ledger.restore(), &self.terms(), Some(&meter), seed, self.now)
            .with_aborted(self.ledger.aborted.clone());
        self.offer_traffic();
        let control_reserve = self.terms().control_reserve;
        self.tell(Event::Metered { epoch: epoch(self.generation), reading: self.kernel.reading, control_reserve });
        let event = if self.in_use { self.usable() } else { Event::Gone };
        self.tell(event);
    }

    /// The power goes, and the meter with all that was not committed of it.
    fn lose_power(&mut self) {
        let (passed, throttled) = self.ledger.unrecorded(&self.kernel.reading, &epoch(self.generation));
        let uncertain = self.ledger.uncertain;
        self.lost = (self.lost.0 + passed, self.lost.1 + throttled);
        self.generation += 1;
        self.kernel.replace();
        self.restart();
        assert!(self.ledger.uncertain >= uncertain + passed, "{passed} octets are lost, and nobody was told");
    }

    fn offer_traffic(&mut self) {
        for _ in 0..self.chance.next() % 12 {
            let octets = 40 + self.chance.next() % 9_000;
            let uplink = self.one_in(2);
            self.kernel.offer(octets, uplink, self.now);
        }
    }

    /// Lets time pass up to the core's next timer, or a little.
    fn pass_time(&mut self) {
        let little = Duration::from_millis(1 + self.chance.next() % 4_000);
        let later = self.now.plus(little);
        let due = self.quota.poll_timeout().unwrap_or(later);
        self.now = if self.one_in(3) { later } else { due.max(self.now) };
        self.quota.handle_timeout(self.now);
        self.carry_out();
        if let Some(next) = self.quota.poll_timeout() {
            assert!(next > self.now || self.quiet_tick(), "a timer that stays due: {:?}", self.quota);
        }
    }

    /// One more call at the same instant must be enough to have nothing due.
    fn quiet_tick(&mut self) -> bool {
        self.quota.handle_timeout(self.now);
        self.carry_out();
        self.quota.poll_timeout().is_none_or(|next| next > self.now)
    }

    /// Something happens to an attempt that is under way.
    fn deliver(&mut self) {
        if self.under_way.is_empty() {
            return;
        }
        let index = usize::try_from(self.chance.next()).unwrap_or(0) % self.under_way.len();
        let late = !self.quiet && self.one_in(4);
        let Attempt { key, attempt, life } = self.under_way[index];
        if !late {
            self.under_way.swap_remove(index);
        }
        let lost_request = !self.quiet && self.one_in(5);
        let lost_answer = !self.quiet && self.one_in(5);
        let outcome = if lost_request {
            Outcome::Unanswered { retry_after: None, reason: "lost".to_owned() }
        } else {
            let outcome = self.server.take(key, &self.ledger);
            if lost_answer {
                Outcome::Unanswered { retry_after: None, reason: "answer lost".to_owned() }
            } else {
                outcome
            }
        };
        if life == self.life {
            self.tell(Event::Answer { key, attempt, outcome });
        }
    }

    /// Delivers what is under way and what the answers call for: that has an end, or it is a storm.
    fn deliver_all(&mut self) {
        for count in 0.. {
            if self.under_way.is_empty() {
                return;
            }
            assert!(count < 500, "a storm of messages at one instant: {:?}", self.quota);
            self.deliver();
        }
    }

    fn step(&mut self) {
        match self.chance.next() % 20 {
            0..=5 => self.offer_traffic(),
            6..=10 => self.pass_time(),
            11..=15 => self.deliver(),
            16 => self.tell(Event::Hint),
            17 => self.step_of_the_agent(),
            18 => self.step_of_the_link(),
            _ => {
                self.offer_traffic();
                self.tell(Event::Hint);
            }
        }
        self.ledger.check_against(&self.kernel.reading, &epoch(self.generation));
        // On a grace, and on units granted anew for a session that was lost, more is used than was bought.
        let exact = !self.server.forgetful && self.handling != FailureHandling::Continue;
        for (who, account) in &self.server.accounts {
            assert!(!exact || account.debited <= account.bought, "{who} is overdrawn: {account:?}");
        }
    }

    fn step_of_the_agent(&mut self) {
        match self.chance.next() % 12 {
            0 => {
                self.top_up(100_000);
            }
            1 => {
                self.slice = self.slice.xor(Some(Octets::new(15_000)));
                self.restart();
            }
            2 => {
                self.tell(Event::Pause);
                self.restart();
            }
            3 => self.tell(Event::Abort(sim(self.sim))),
            4 | 5 => self.tell(Event::Reauthorise(sim(self.sim))),
            6 => self.lose_power(),
            _ => self.tell(Event::RouteUp),
        }
    }

    fn step_of_the_link(&mut self) {
        match self.chance.next() % 12 {
            0 | 1 => {
                self.sim = 3 - self.sim;
                let event = self.usable();
                if self.in_use {
                    self.tell(event);
                }
            }
            2 | 3 => {
                self.in_use = !self.in_use;
                let event = if self.in_use { self.usable() } else { Event::Gone };
                self.tell(event);
            }
            4 => self.server.lose_sessions(),
            5 => self.replace_meter(),
            _ => {}
        }
    }

    /// As the loop does it: what the old meter says last, then the new one. What was not committed of a meter that is no more cannot be
    /// known, so nothing crashes here.
    fn replace_meter(&mut self) {
        let crashes = !std::mem::replace(&mut self.quiet, true);
        self.tell(Event::Reading(self.kernel.reading));
        self.generation += 1;
        self.kernel.replace();
        let control_reserve = self.terms().control_reserve;
        self.tell(Event::Metered { epoch: epoch(self.generation), reading: self.kernel.reading, control_reserve });
        self.quiet = !crashes;
    }

    fn top_up(&mut self, octets: u64) {
        self.server.buy(sim(self.sim), octets);
        self.tell(Event::Reauthorise(sim(self.sim)));
    }

    /// Whatever has happened: with a network that works and units to be had, the link carries traffic again before long.
    fn comes_back(&mut self) {
        self.quiet = true;
        self.in_use = true;
        let event = self.usable();
        self.tell(event);
        self.tell(Event::RouteUp);
        self.top_up(50_000_000);
        let (before, deadline) = (self.kernel.passed(), self.now.plus(COMES_BACK_WITHIN));
        while self.kernel.passed() == before {
            assert!(self.now < deadline, "nothing passes: {:?} {:?}", self.quota, self.server.accounts);
            self.deliver_all();
            self.kernel.offer(1_400, true, self.now);
            let soon = self.now.plus(Duration::from_millis(100));
            self.now = self.quota.poll_timeout().unwrap_or(soon).clamp(self.now, soon);
            self.quota.handle_timeout(self.now);
            self.carry_out();
        }
    }

    /// With a network that works, everything comes to an end, and the figures are equal.
    fn settle(&mut self) {
        self.quiet = true;
        let deadline = self.now.plus(SETTLES_WITHIN);
        self.tell(Event::Settle);
        while !self.quota.is_settled() {
            assert!(self.now < deadline, "not settled in {SETTLES_WITHIN:?}: {:?}", self.quota);
            self.deliver_all();
            if let Some(due) = self.quota.poll_timeout() {
                self.now = due.max(self.now);
                self.quota.handle_timeout(self.now);
                self.carry_out();
            } else {
                assert!(self.quota.is_settled(), "nothing is due, and nothing is settled: {:?}", self.quota);
            }
        }
        let passed = self.kernel.passed();
        let throttled = self.kernel.throttled();
        let debited: u64 = self.server.accounts.values().map(|account| account.debited).sum();
        let offline: u64 = self.server.accounts.values().map(|account| account.offline).sum();
        let (lost, lost_throttled) = self.lost;
        assert_eq!(debited + lost, passed, "every octet that passed is debited once, but for what no record knows of");
        assert_eq!(offline + lost_throttled, throttled, "every throttled octet is told once, but for the same");
        assert!(self.ledger.restore().is_empty(), "the ledger has nothing left to settle");
    }
}

fn walk(seed: u64) {
    let mut world = World::new(seed);
    let first = world.usable();
    world.tell(first);
    for _ in 0..STEPS {
        world.step();
    }
    if seed.is_multiple_of(2) {
        world.comes_back();
    }
    world.settle();
}

#[test]
fn a_random_walk_debits_every_octet_once_and_none_beyond_the_package() {
    // WEIR_SEED=n walks that one, WEIR_SEEDS=n walks so many.
    let number = |name| std::env::var(name).ok().map(|text: String| text.parse::<u64>().expect("a number"));
    let seeds = match number("WEIR_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WEIR_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        if let Err(panic) = std::panic::catch_unwind(|| walk(seed)) {
            eprintln!("WEIR_SEED={seed} replays this");
            std::panic::resume_unwind(panic);
        }
    }
}
