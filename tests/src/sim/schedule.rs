//! The world that a seed stands for: links, SIMs, packages, and what kinds of trouble strike it.

use std::time::Duration;

use agent::quota::{FailureHandling, LocalFilters, OfflineGrace, Repetition, Terms, WhenUsedUp};
use agent::units::{OctetRate, Octets};

use super::chance::{Chance, mix};
use super::network::Ways;
use super::server::HANDLINGS;

/// Octets of the largest packet: a super-packet of 64 KiB.
pub(super) const LARGEST: u64 = 64 << 10;

/// The largest chunk, in chunks.
const LARGEST_CHUNK: u64 = 8;

/// The world that a seed stands for, before anything happens in it.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The seed.
    pub seed: u64,
    /// Links, each with a slot for a SIM.
    pub links: usize,
    /// SIMs, each with a package; the first ones are in the slots.
    pub sims: Vec<Package>,
    /// What the server does with a message that comes again.
    pub repetition: Repetition,
    /// What is struck, and how often.
    pub moods: Moods,
    /// Which ways work when everything else does again.
    pub ways_in_the_end: Ways,
    /// Whether the links have to carry traffic again before everything is settled.
    pub comes_back: bool,
}

/// What was bought for a SIM, and its terms.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// Octets.
    pub bought: u64,
    /// Octets asked for at a time.
    pub chunk: u64,
    /// Octets of a packet at most.
    pub packet: u64,
    /// Without an answer.
    pub failure_handling: FailureHandling,
    /// Used up.
    pub when_used_up: WhenUsedUp,
    /// How far the gate is open beyond what is committed.
    pub slice: Slice,
}

/// Whether the gate is open no further than so many octets beyond what is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    /// It is open up to the ceiling.
    None,
    /// It is not.
    Of(u64),
    /// It is so in every second life of the agent, and with every second change of its terms.
    Sometimes(u64),
}

/// How often each kind of trouble strikes, once in so many draws; zero = never in this schedule. Leaving some out lets the others go far.
#[derive(Clone, Copy, Debug)]
pub struct Moods {
    pub(super) crash: u64,
    pub(super) loss: u64,
    pub(super) disorder: u64,
    pub(super) links: u64,
    pub(super) server: u64,
    pub(super) power: u64,
    pub(super) operator: u64,
}

impl Setup {
    /// The world of that seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::new(mix(seed, 1));
        let links = index_between(&mut chance, 1, 3);
        let spare = index_between(&mut chance, 0, 1);
        let sims = (0..links + spare).map(|_| Package::draw(&mut chance)).collect();
        Self {
            seed,
            links,
            sims,
            repetition: chance.pick(&[Repetition::Recognised, Repetition::Recognised, Repetition::Charged]),
            moods: Moods {
                crash: chance.pick(&[0, 40, 20, 8]),
                loss: chance.pick(&[0, 8, 4, 2]),
                disorder: chance.pick(&[0, 4, 2]),
                links: chance.pick(&[0, 40, 12]),
                server: chance.pick(&[0, 80, 25]),
                power: chance.pick(&[0, 0, 150, 60]),
                operator: chance.pick(&[0, 60, 20]),
            },
            // A detour needs another link.
            ways_in_the_end: chance.pick(&[Ways::All, Ways::Routed, Ways::Detours][..if links > 1 { 3 } else { 1 }]),
            comes_back: chance.one_in(2),
        }
    }
}

impl Package {
    fn draw(chance: &mut Chance) -> Self {
        let huge = chance.one_in(12);
        let (bought, chunk, packet) = if huge {
            (40 << 30, 10 << 30, LARGEST)
        } else {
            (chance.pick(&[500_000, 3_000_000]), chance.pick(&[50_000, 200_000, 1_000_000]), 9_040)
        };
        let throttle = WhenUsedUp::Throttle(OctetRate::per_second(1_000));
        Self {
            bought,
            chunk,
            packet,
            failure_handling: chance.pick(&HANDLINGS),
            when_used_up: chance.pick(&[WhenUsedUp::AsTold, throttle]),
            slice: chance.pick(&[Slice::None, Slice::None, Slice::Of(packet * 2), Slice::Sometimes(packet * 2)]),
        }
    }

    /// Octets asked for at a time at the most.
    pub(super) const fn largest_chunk(&self) -> Octets {
        Octets::new(self.chunk * LARGEST_CHUNK)
    }

    /// The terms as the core is told them in the agent's nth life, or after as many changes.
    pub(super) fn terms(&self, repetition: Repetition, life: u64) -> Terms {
        let slice = match self.slice {
            Slice::Of(octets) => Some(octets),
            Slice::Sometimes(octets) => life.is_multiple_of(2).then_some(octets),
            Slice::None => None,
        };
        Terms {
            repetition,
            max_unrecorded: slice.map(Octets::new),
            chunk: Octets::new(self.chunk),
            largest_chunk: self.largest_chunk(),
            report_interval: Duration::from_mins(1),
            checkpoint_interval: Duration::from_secs(5),
            failure_handling: self.failure_handling,
            offline_grace: OfflineGrace { octets: Octets::new(self.chunk / 10), duration: Duration::from_secs(90) },
            when_used_up: self.when_used_up,
            filters: LocalFilters::default(),
            control_reserve: Octets::new(100_000),
        }
    }
}

fn index_between(chance: &mut Chance, low: u64, high: u64) -> usize {
    usize::try_from(chance.between(low, high)).unwrap_or(0)
}
