//! Tests of the recording: what is written can be read, what was done is done again, and where it is not, that is said.

mod recorder;
mod replaying;
mod samples;
mod spelling;

use std::path::{Path, PathBuf};

use super::{BOUND, Birth, Core, Recorder};
use crate::quota::{Command, Event, Outcome, Usable};
use crate::units::{BootId, ChargingId};
use samples::{answered, at, epoch, granted, reading, sim, terms};

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("weir.jsonl");
    (directory, path)
}

fn record(path: &Path) -> Recorder {
    Recorder::open(path, BootId::new("boot-1"), at(1), BOUND).expect("opens")
}

fn birth(label: &str) -> Birth {
    Birth {
        label: label.to_owned(),
        at: at(2),
        seed: 9,
        terms: terms(),
        meter: None,
        aborted: Vec::new(),
        sessions: Vec::new(),
    }
}

/// A link, as the loop holds it: gives its core what it asks for, and answers every message well.
struct Hand {
    core: Core,
    /// In milliseconds since boot.
    now: u64,
    passed: u64,
    name: u32,
}

impl Hand {
    fn begin(recorder: &Recorder, label: &str) -> Self {
        Self { core: Core::begin(birth(label), recorder), now: 10, passed: 0, name: 100 }
    }

    fn tell(&mut self, event: Event) {
        self.core.handle_event(event, at(self.now));
        self.take_all();
    }

    fn take_all(&mut self) {
        while let Some(command) = self.core.poll_command() {
            match command {
                Command::Record(_) | Command::SetGate(_) => {}
                Command::Send { key, attempt, route: _ } => {
                    let outcome: Outcome = answered(Some(granted(1_000_000)));
                    self.now += 1;
                    self.core.handle_event(Event::Answer { key, attempt, outcome }, at(self.now));
                }
                Command::DrawName => {
                    self.name += 1;
                    self.core.handle_event(Event::Named(ChargingId::new(self.name)), at(self.now));
                }
                Command::Read => self.core.handle_event(Event::Reading(reading(self.passed)), at(self.now)),
            }
        }
    }

    fn use_link(&mut self) {
        let usable = Usable { subscriber: sim(), epoch: epoch(), terms: terms(), reading: reading(self.passed) };
        self.tell(Event::Usable(usable));
    }

    fn pass(&mut self, octets: u64) {
        self.now += 500;
        self.passed += octets;
        self.tell(Event::Reading(reading(self.passed)));
        self.now += 5_000;
        self.core.handle_timeout(at(self.now));
        self.take_all();
    }
}

/// A life with traffic on one link.
fn live(path: &Path) {
    let recorder = record(path);
    let mut hand = Hand::begin(&recorder, "wan0");
    hand.use_link();
    for octets in [300_000, 450_000, 123_456, 700_000] {
        hand.pass(octets);
    }
    hand.tell(Event::Settle);
    hand.pass(7);
}
