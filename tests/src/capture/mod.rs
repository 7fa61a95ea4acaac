//! The oracle: counts the IP octets of every real frame that crosses an interface, and refuses to answer when it may be wrong.

mod frame;
mod ring;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

pub use self::frame::{LinkLayer, Packet};
use self::frame::{Parsed, parse};
use self::ring::{Frame, Ring};
use crate::clock::Deadline;
use crate::eventually::eventually;
use crate::netns::Namespace;
use crate::{Count, Direction};

/// An interface is quiet when it was silent so long: longer than TCP may put off an acknowledgement or its first retransmission (200 ms).
const QUIET: Duration = Duration::from_millis(300);

/// How long the last packets may take before `stop` fails.
const PATIENCE: Duration = Duration::from_secs(10);

/// One look at the ring.
const TICK: Duration = Duration::from_millis(10);

/// Which end of the uplink is listened at; it says what is uplink there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The gateway's interface: it sends uplink.
    Near,
    /// The modem's other side: it receives uplink. Here real frames are seen, also where the gateway merges or cuts.
    Far,
}

/// The kind of traffic a packet is counted under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(pub &'static str);

impl Class {
    /// What the client does: billed.
    pub const PAYLOAD: Self = Self("payload");
    /// What agent and charging server say to each other.
    pub const CONTROL: Self = Self("control");
    /// Neighbour discovery and multicast listener reports.
    pub const NEIGHBOUR: Self = Self("neighbour");
}

/// Says to which class a packet belongs.
pub struct Classifier(Box<dyn Fn(&Packet) -> Class + Send>);

impl Classifier {
    /// Any rule.
    pub fn new(rule: impl Fn(&Packet) -> Class + Send + 'static) -> Self {
        Self(Box::new(rule))
    }

    /// Neighbour talk apart, packets from or to one of `servers` control, the rest payload.
    #[must_use]
    pub fn control(servers: &[SocketAddr]) -> Self {
        let servers = servers.to_vec();
        Self::new(move |packet| match packet {
            packet if packet.is_neighbour_talk() => Class::NEIGHBOUR,
            packet if servers.contains(&packet.source) || servers.contains(&packet.destination) => Class::CONTROL,
            _ => Class::PAYLOAD,
        })
    }
}

impl Default for Classifier {
    fn default() -> Self {
        Self::control(&[])
    }
}

/// What has crossed the interface. Octets are L3 octets, by each packet's own header.
#[derive(Debug, Clone, Default)]
pub struct Totals {
    classes: BTreeMap<(Class, Direction), Count>,
    /// IP packets that were parts of a packet; they are in their classes too.
    pub fragments: Count,
    /// Frames that were not IP, with their link headers.
    pub not_ip: Count,
    /// Frames longer than the MTU allows: not segmented, so their headers were counted once only.
    pub super_packets: u64,
    /// Frames that say IP and do not hold what their header promises.
    pub malformed: u64,
    /// Frames that the ring had no room for.
    pub dropped: u64,
}

impl Totals {
    /// The packets of one class in one direction.
    #[must_use]
    pub fn of(&self, class: Class, direction: Direction) -> Count {
        self.classes.get(&(class, direction)).copied().unwrap_or_default()
    }

    /// What the client sent or received.
    #[must_use]
    pub fn payload(&self, direction: Direction) -> Count {
        self.of(Class::PAYLOAD, direction)
    }

    /// What agent and server said to each other.
    #[must_use]
    pub fn control(&self, direction: Direction) -> Count {
        self.of(Class::CONTROL, direction)
    }

    /// All IP packets in one direction, whatever their class.
    #[must_use]
    pub fn ip(&self, direction: Direction) -> Count {
        self.classes.iter().filter(|((_, way), _)| *way == direction).map(|(_, count)| *count).sum()
    }

    /// Fails when these figures are no oracle: something was lost, unsegmented or unreadable.
    pub fn trustworthy(&self) -> Result<()> {
        ensure!(self.dropped == 0, "the capture lost {} frames", self.dropped);
        ensure!(
            self.super_packets == 0,
            "the capture saw {} super-packets: segmentation is left to the device at the sending end",
            self.super_packets
        );
        ensure!(self.malformed == 0, "the capture saw {} malformed frames", self.malformed);
        Ok(())
    }
}

impl std::ops::AddAssign<&Totals> for Totals {
    /// What two captures have seen, one after the other or of two interfaces.
    fn add_assign(&mut self, other: &Self) {
        for (key, count) in &other.classes {
            let sum = self.classes.entry(*key).or_default();
            *sum = *sum + *count;
        }
        self.fragments = self.fragments + other.fragments;
        self.not_ip = self.not_ip + other.not_ip;
        self.super_packets += other.super_packets;
        self.malformed += other.malformed;
        self.dropped += other.dropped;
    }
}

/// A running capture; dropping it ends it without an answer.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
    what: String,
}

#[derive(Debug, Default)]
struct Shared {
    totals: Mutex<Totals>,
    stop: AtomicBool,
}

impl Shared {
    fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Capture {
    /// Listens on `interface`; from the return on every frame is seen.
    pub fn start(namespace: &Namespace, interface: &str, end: End, classifier: Classifier) -> Result<Self> {
        let what = format!("capture on {interface} in {}", namespace.name());
        let ring = Ring::open(namespace, interface).with_context(|| what.clone())?;
        let mut counter = Counter { layer: ring.link_layer()?, mtu: ring.mtu()?, end, classifier };
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("capture".into())
            .spawn(move || capture(ring, &mut counter, &theirs))
            .with_context(|| what.clone())?;
        Ok(Self { shared, thread: Some(thread), what })
    }

    /// What was seen so far, some milliseconds behind the wire.
    #[must_use]
    pub fn so_far(&self) -> Totals {
        self.shared.totals().clone()
    }

    /// Waits until nothing has crossed the interface for a while, and answers what was seen.
    pub fn quiet(&self) -> Result<Totals> {
        self.quiet_for(QUIET)
    }

    /// As `quiet`, with another measure of silence.
    pub fn quiet_for(&self, silence: Duration) -> Result<Totals> {
        let seen = |totals: &Totals| (totals.ip(Direction::Uplink), totals.ip(Direction::Downlink), totals.not_ip);
        let mut last = seen(&self.so_far());
        let mut since = Deadline::after(silence);
        eventually(&format!("{} to be quiet", self.what), PATIENCE, || {
            let totals = self.so_far();
            if seen(&totals) != last {
                last = seen(&totals);
                since = Deadline::after(silence);
            }
            ensure!(since.passed(), "still counting: {last:?}");
            Ok(totals)
        })
    }

    /// Waits until the interface is quiet, ends, and answers; fails when the figures are no oracle.
    pub fn stop(self) -> Result<Totals> {
        let what = self.what.clone();
        let totals = self.end()?;
        totals.trustworthy().context(what)?;
        Ok(totals)
    }

    /// As `stop`, but answers whatever was seen: for a test of the capture itself, or a best guess.
    pub fn end(mut self) -> Result<Totals> {
        self.shared.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().context("a capture ends once")?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).with_context(|| self.what.clone())?;
        Ok(self.so_far())
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.shared.stop.store(true, Ordering::SeqCst);
            let _ = thread.join();
        }
    }
}

/// Turns frames into totals.
struct Counter {
    layer: LinkLayer,
    mtu: usize,
    end: End,
    classifier: Classifier,
}

impl Counter {
    fn count(&self, frame: &Frame<'_>, totals: &mut Totals) {
        let direction = match (self.end, frame.outgoing) {
            (End::Near, true) | (End::Far, false) => Direction::Uplink,
            (End::Near, false) | (End::Far, true) => Direction::Downlink,
        };
        match parse(self.layer, direction, frame.data, frame.wire) {
            Parsed::Ip(packet, link) => {
                let class = (self.classifier.0)(&packet);
                totals.classes.entry((class, direction)).or_default().add(packet.octets);
                if packet.fragment {
                    totals.fragments.add(packet.octets);
                }
                totals.super_packets += u64::from(frame.wire > self.mtu + link);
            }
            Parsed::NotIp => totals.not_ip.add(frame.wire as u64),
            Parsed::Malformed if frame.wire > self.mtu + 22 => totals.super_packets += 1,
            Parsed::Malformed => totals.malformed += 1,
        }
    }
}

fn capture(mut ring: Ring, counter: &mut Counter, shared: &Shared) -> Result<()> {
    let mut last_look: Option<(Deadline, Deadline)> = None;
    loop {
        let stopping = shared.stop.load(Ordering::SeqCst);
        let frames = ring.drain(TICK, |frame| counter.count(frame, &mut shared.totals()))?;
        if stopping {
            let (end, quiet) = last_look.get_or_insert_with(|| (Deadline::after(PATIENCE), Deadline::after(QUIET)));
            if frames > 0 {
                *quiet = Deadline::after(QUIET);
            }
            if quiet.passed() {
                break;
            }
            if end.passed() {
                bail!("traffic went on for {PATIENCE:?} after the capture was to stop");
            }
        }
    }
    shared.totals().dropped += ring.dropped()?;
    Ok(())
}
