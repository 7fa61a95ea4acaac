//! Scripts of links under a sustained flow: more is asked for early enough and for long enough, and no more often than it must be.

use std::collections::VecDeque;
use std::time::Duration;

use super::hand::{Hand, answered, gate, granted, sealed_maybe, terms};
use crate::quota::{Command, Event, GateSetting, Reading, Terms};
use crate::units::{BootInstant, Octets, UsedUnit};

const CHUNK: u64 = 8 << 20;
const LARGEST: u64 = 1 << 30;
/// 1 Gbit/s.
const FAST: u64 = 125_000_000;
const PACKET: u64 = 1500;
/// Time goes by in such steps.
const STEP: u64 = 5;

/// A link with a flow that never waits, and a server that takes its time and grants no more than it likes.
struct Stream {
    hand: Hand,
    delay: Duration,
    most: u64,
    passed: u64,
    refused: u64,
    gate: Option<GateSetting>,
    /// Whether the kernel has hinted at a refusal since the gate was written.
    hinted: bool,
    /// When the answers come, and what was asked for.
    under_way: VecDeque<(BootInstant, u64)>,
    /// What was asked for, each time.
    asked: Vec<u64>,
    /// How often the gate was written.
    gates: usize,
}

impl Stream {
    fn new(delay: Duration, most: u64) -> Self {
        let mut stream = Self {
            hand: Hand::new(),
            delay,
            most,
            passed: 0,
            refused: 0,
            gate: None,
            hinted: false,
            under_way: VecDeque::new(),
            asked: Vec::new(),
            gates: 0,
        };
        let terms = Terms { chunk: Octets::new(CHUNK), largest_chunk: Octets::new(LARGEST), ..terms() };
        let commands = stream.hand.usable(terms);
        stream.take(&commands);
        stream
    }

    /// So many octets a second want to pass for so long. Answers with what did, and what was refused.
    fn flow(&mut self, rate: u64, length: Duration) -> (u64, u64) {
        let before = (self.passed, self.refused);
        let end = self.hand.now.plus(length);
        while self.hand.now < end {
            self.offer(rate * STEP / 1000);
            let commands = self.hand.wait(STEP);
            self.take(&commands);
            while self.under_way.front().is_some_and(|(at, _)| *at <= self.hand.now) {
                let (_, asked) = self.under_way.pop_front().expect("one is due");
                let commands = self.hand.answer(answered(granted(asked.min(self.most))));
                self.take(&commands);
            }
        }
        (self.passed - before.0, self.refused - before.1)
    }

    /// What the kernel does, with its hints.
    fn offer(&mut self, octets: u64) {
        let (ceiling, threshold) =
            self.gate.as_ref().map_or((0, None), |gate| (gate.ceiling.get(), gate.threshold.map(Octets::get)));
        let fits = (ceiling.saturating_sub(self.passed) / PACKET * PACKET).min(octets);
        let crosses = threshold.is_some_and(|at| self.passed < at && self.passed + fits >= at);
        self.passed += fits;
        self.refused += octets - fits;
        self.hand.reading = Reading {
            passed: UsedUnit::new(self.passed, 0),
            refused: UsedUnit::new(self.refused, 0),
            ..Reading::default()
        };
        let first_refusal = fits < octets && !std::mem::replace(&mut self.hinted, fits < octets);
        if crosses || first_refusal {
            let commands = self.hand.tell(Event::Hint);
            self.take(&commands);
        }
    }

    fn take(&mut self, commands: &[Command]) {
        self.gates += commands.iter().filter(|command| matches!(command, Command::SetGate(_))).count();
        if let Some(setting) = gate(commands) {
            self.gate = Some(setting);
            self.hinted = false;
        }
        if let Some(asked) = sealed_maybe(commands).and_then(|message| message.requested) {
            self.asked.push(asked.get());
            self.under_way.push_back((self.hand.now.plus(self.delay), asked.get()));
        }
    }
}

#[test]
fn a_sustained_flow_is_refused_nothing_once_its_rate_is_known() {
    for millis in [0, 20, 200, 1_000, 3_000] {
        for rate in [FAST / 100, FAST, FAST * 10 / 8] {
            let mut stream = Stream::new(Duration::from_millis(millis), u64::MAX);
            stream.flow(rate, Duration::from_secs(5 + 10 * millis / 1000));
            let (messages, gates) = (stream.asked.len(), stream.gates);
            let (passed, refused) = stream.flow(rate, Duration::from_secs(20));
            assert_eq!((passed, refused), (rate * 20, 0), "{rate} octets a second, {millis} ms: {:?}", stream.asked);
            // Two seconds' worth at a time, of which the last half at most is the threshold's.
            let (messages, gates) = (stream.asked.len() - messages, stream.gates - gates);
            assert!(messages <= 22, "{messages} messages in twenty seconds");
            assert!(gates <= messages * 3, "the gate was written {gates} times for {messages} grants");
        }
    }
}

#[test]
fn the_rate_of_a_far_link_is_known_after_some_answers() {
    let mut stream = Stream::new(Duration::from_millis(200), u64::MAX);
    stream.flow(FAST, Duration::from_millis(1_500));
    let (_, refused) = stream.flow(FAST, Duration::from_secs(10));
    assert_eq!(refused, 0, "{:?}", stream.asked);
}

#[test]
fn a_flow_that_doubles_its_rate_is_refused_nothing() {
    let mut stream = Stream::new(Duration::from_millis(200), u64::MAX);
    stream.flow(FAST / 2, Duration::from_secs(10));
    let (_, refused) = stream.flow(FAST, Duration::from_secs(10));
    assert_eq!(refused, 0, "{:?}", stream.asked);
}

#[test]
fn a_slow_link_asks_for_the_usual_chunk() {
    let mut stream = Stream::new(Duration::from_millis(200), u64::MAX);
    stream.flow(100_000, Duration::from_mins(10));
    assert!(stream.asked.len() >= 6 && stream.asked.iter().all(|asked| *asked == CHUNK), "{:?}", stream.asked);
}

#[test]
fn what_a_burst_called_for_is_not_asked_for_when_it_is_over() {
    let mut stream = Stream::new(Duration::from_millis(20), u64::MAX);
    stream.flow(FAST, Duration::from_secs(10));
    assert!(stream.asked.iter().any(|asked| *asked > FAST), "{:?}", stream.asked);
    // The report of the next interval gives it back.
    stream.flow(0, Duration::from_mins(2));
    assert_eq!(stream.asked.last(), Some(&CHUNK));
}

#[test]
fn no_more_is_asked_for_than_the_largest_chunk_however_fast_the_link() {
    let mut stream = Stream::new(Duration::from_millis(20), u64::MAX);
    stream.flow(FAST * 100, Duration::from_secs(10));
    assert!(stream.asked.iter().all(|asked| (CHUNK..=LARGEST).contains(asked)), "{:?}", stream.asked);
    assert!(stream.asked.contains(&LARGEST), "{:?}", stream.asked);
}

#[test]
fn a_server_that_grants_less_than_the_link_needs_is_asked_at_every_answer_and_no_more_often() {
    let delay = Duration::from_millis(200);
    let mut stream = Stream::new(delay, CHUNK);
    let (passed, _) = stream.flow(FAST, Duration::from_secs(20));
    // One chunk for each time to an answer, less half a chunk that was left when it was asked for the next.
    assert!(passed >= 100 * CHUNK / 2, "{passed} octets for {} messages", stream.asked.len());
    assert!(stream.asked.len() <= 101, "{} messages in twenty seconds", stream.asked.len());
    assert!(stream.asked.iter().skip(2).all(|asked| *asked <= 2 * CHUNK), "{:?}", stream.asked);
}

#[test]
fn while_the_server_is_away_the_meter_of_a_trickle_is_not_read_all_the_time() {
    let mut stream = Stream::new(Duration::ZERO, u64::MAX);
    stream.flow(20_000_000, Duration::from_secs(10));
    stream.delay = Duration::from_hours(1);
    stream.flow(20_000_000, Duration::from_secs(2));
    let mut readings = 0;
    for step in 1..=60_000 / STEP {
        stream.hand.reading.passed.uplink = Octets::new(stream.passed + step);
        stream.hand.now = stream.hand.now.plus(Duration::from_millis(STEP));
        while stream.hand.quota.poll_timeout().is_some_and(|due| due <= stream.hand.now) {
            stream.hand.quota.handle_timeout(stream.hand.now);
            while let Some(command) = stream.hand.quota.poll_command() {
                if command == Command::Read {
                    readings += 1;
                    stream.hand.quota.handle_event(Event::Reading(stream.hand.reading), stream.hand.now);
                }
            }
        }
    }
    assert!((50..=150).contains(&readings), "{readings} readings in a minute");
}
