//! Every processor at one gate at once, trial after trial, and what has become of the octets.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use agent_common::{Counters, Gate, LINK_ETHERNET};
use anyhow::{Context as _, Result, ensure};

use crate::packet::{IPV4, UDP, UPLINK_V4, ethernet, udp, v4};
use crate::testrun::{Programs, pin_to, processors};

/// Programs, and one sender for each processor that hammers them.
#[derive(Debug)]
pub struct Trials {
    programs: Programs,
    senders: Vec<Sender>,
    /// Packets that each sends in a trial.
    times: u32,
}

/// What one thread sends, and through which program.
#[derive(Debug)]
struct Sender {
    processor: usize,
    program: &'static str,
    packet: Vec<u8>,
    octets: u64,
}

/// What has become of the packets of one trial.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    /// How far the gate was open before, in octets.
    pub room: u64,
    /// Octets that were let through.
    pub passed: u64,
    /// Octets that were not.
    pub refused: u64,
    /// The same in packets.
    pub refused_packets: u64,
}

/// How programs measure a frame, and by which names they are called: in turn, sender by sender.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    /// The programs' names.
    pub names: [&'static str; 2],
    /// Octets in front of what they count.
    pub uncounted: usize,
}

/// Both programs of the meter.
pub const METER: Way = Way { names: ["weir_uplink", "weir_downlink"], uncounted: 14 };

impl Trials {
    /// A sender on each processor, two at least; they have payloads of these octets, in turn.
    pub fn new(programs: Programs, way: Way, payloads: [usize; 2], times: u32) -> Result<Self> {
        let processors = processors()?;
        let sender = |index: usize| {
            let packet = ethernet(IPV4, &v4(UPLINK_V4, UDP, &udp(1, 2, payloads[index % 2])));
            let octets = (packet.len() - way.uncounted) as u64;
            Sender { processor: processors[index % processors.len()], program: way.names[index % 2], packet, octets }
        };
        let senders = (0..processors.len().max(2)).map(sender).collect();
        Ok(Self { programs, senders, times })
    }

    /// Octets that all of them send in a trial.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.senders.iter().map(|sender| sender.octets * u64::from(self.times)).sum()
    }

    /// Octets of one packet of each, together: more can never be under way.
    #[must_use]
    pub fn under_way(&self) -> u64 {
        self.senders.iter().map(|sender| sender.octets).sum()
    }

    /// How many there are.
    #[must_use]
    pub fn senders(&self) -> u64 {
        self.senders.len() as u64
    }

    /// Opens the gate for `room` octets more than have passed, lets everybody loose at it, and answers what came of it. An error if
    /// more passed, if a packet was not counted exactly once, or if the word of the gate is not what passed.
    pub fn play(&mut self, room: u64) -> Result<Trial> {
        let (before, word) = (counted(&self.programs.counters()?), self.programs.word()?.gate);
        ensure!(word == before.passed, "the word holds {word} octets and {} have passed", before.passed);
        let gate = Gate { ceiling: word + room, link_type: LINK_ETHERNET, generation: 1, ..Gate::default() };
        self.programs.set_gate(&gate)?;
        self.let_loose()?;
        let (after, word) = (counted(&self.programs.counters()?), self.programs.word()?.gate);
        let trial = Trial {
            room,
            passed: after.passed - before.passed,
            refused: after.refused - before.refused,
            refused_packets: after.refused_packets - before.refused_packets,
        };
        ensure!(trial.passed <= room, "{} octets over the ceiling: {trial:?}", trial.passed - room);
        ensure!(trial.passed + trial.refused == self.sent(), "{} octets were sent: {trial:?}", self.sent());
        ensure!(word == after.passed, "the word holds {word} octets and {} have passed: {trial:?}", after.passed);
        Ok(trial)
    }

    fn let_loose(&self) -> Result<()> {
        let ready = AtomicUsize::new(0);
        let send = |sender: &Sender| -> Result<()> {
            pin_to(sender.processor)?;
            ready.fetch_add(1, Ordering::SeqCst);
            // A barrier would wake them one after the other, and what they do takes microseconds.
            while ready.load(Ordering::SeqCst) < self.senders.len() {
                spin_loop();
                if self.senders.iter().filter(|other| other.processor == sender.processor).count() > 1 {
                    thread::yield_now();
                }
            }
            self.programs.run(sender.program, &sender.packet, self.times).map(drop)
        };
        thread::scope(|scope| {
            let threads: Vec<_> = self.senders.iter().map(|sender| scope.spawn(|| send(sender))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().ok().context("a sender panicked")?)
        })
    }
}

/// Both directions together; what a trial is the difference of.
struct Sums {
    passed: u64,
    refused: u64,
    refused_packets: u64,
}

fn counted(Counters { uplink, downlink, .. }: &Counters) -> Sums {
    Sums {
        passed: uplink.passed.octets + downlink.passed.octets,
        refused: uplink.refused.octets + downlink.refused.octets,
        refused_packets: uplink.refused.packets + downlink.refused.packets,
    }
}
