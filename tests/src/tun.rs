//! A raw-IP link out of two TUN devices and the thread that carries every packet between them, counting, at once or later.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::clock::now;
use crate::netns::Namespace;
use crate::offload::{Switch, interface_request};
use crate::{Count, Direction};

/// How long the pump waits for a packet before it looks whether it shall stop.
const TICK: Duration = Duration::from_millis(20);

/// More than the longest IP packet.
const PACKET: usize = 65_536;

/// Carries packets between a TUN device in the gateway and one in the internet until it is dropped.
#[derive(Debug)]
pub struct Pump {
    carried: Arc<Carried>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
    /// The gateway's device once more, for what is asked of it beside packets.
    near: File,
}

#[derive(Debug, Default)]
struct Carried {
    uplink: Counter,
    downlink: Counter,
}

#[derive(Debug, Default)]
struct Counter {
    packets: AtomicU64,
    octets: AtomicU64,
}

impl Pump {
    /// Makes the TUN device `near.1` in `near.0` and `far.1` in `far.0` (both raw IP, link type 65534) and joins them. With `gro` the
    /// near one merges what it receives.
    pub fn join(near: (&Namespace, &str), far: (&Namespace, &str), gro: Switch) -> Result<Self> {
        Self::between(open(near.0, near.1, gro)?, open(far.0, far.1, Switch::Off)?, Duration::ZERO)
    }

    /// The same, without merging, with so much time between the two: every packet is on its way for that long, either way, and none is
    /// lost.
    pub fn join_at_a_distance(near: (&Namespace, &str), far: (&Namespace, &str), distance: Duration) -> Result<Self> {
        Self::between(open(near.0, near.1, Switch::Off)?, open(far.0, far.1, Switch::Off)?, distance)
    }

    fn between(mut near: File, mut far: File, distance: Duration) -> Result<Self> {
        let asked = near.try_clone().context("the device once more")?;
        let (carried, stop) = (Arc::new(Carried::default()), Arc::new(AtomicBool::new(false)));
        let (counts, stopped) = (Arc::clone(&carried), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("pump".into())
            .spawn(move || pump(&mut near, &mut far, distance, &counts, &stopped))?;
        Ok(Self { carried, stop, thread: Some(thread), near: asked })
    }

    /// Has the gateway's device, which must be down, say that it is of another type (`ARPHRD_ETHER`, say) from now on. Its packets
    /// stay what they are.
    pub fn set_link_type(&self, kind: u16) -> Result<()> {
        // SAFETY: TUNSETLINK takes a plain number.
        let answer = unsafe { libc::ioctl(self.near.as_raw_fd(), libc::TUNSETLINK, libc::c_ulong::from(kind)) };
        ensure!(answer == 0, "set the type of the TUN device: {}", std::io::Error::last_os_error());
        Ok(())
    }

    /// IP octets (L3) and packets carried so far in this direction.
    #[must_use]
    pub fn carried(&self, direction: Direction) -> Count {
        let counter = match direction {
            Direction::Uplink => &self.carried.uplink,
            Direction::Downlink => &self.carried.downlink,
        };
        Count { packets: counter.packets.load(Ordering::SeqCst), octets: counter.octets.load(Ordering::SeqCst) }
    }

    /// Fails when the pump has given up, with its reason.
    pub fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().context("the pump runs once")?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn open(namespace: &Namespace, name: &str, gro: Switch) -> Result<File> {
    namespace.run_in(|| -> Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .context("open /dev/net/tun")?;
        let mut request = interface_request(name)?;
        let napi = if gro == Switch::On { libc::IFF_NAPI } else { 0 };
        request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI | napi)?;
        // SAFETY: TUNSETIFF reads and writes one ifreq, which lives on this stack.
        let answer = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        ensure!(answer == 0, "make TUN device {name}: {}", std::io::Error::last_os_error());
        Ok(file)
    })?
}

fn pump(near: &mut File, far: &mut File, distance: Duration, carried: &Carried, stop: &AtomicBool) -> Result<()> {
    let mut packet = vec![0; PACKET];
    let (mut uplink, mut downlink) = (OnTheWay::new(distance), OnTheWay::new(distance));
    while !stop.load(Ordering::SeqCst) {
        let mut ready = [PollFd::new(near.as_fd(), PollFlags::POLLIN), PollFd::new(far.as_fd(), PollFlags::POLLIN)];
        let wait = [&uplink, &downlink].into_iter().filter_map(OnTheWay::wait).fold(TICK, Duration::min);
        match ppoll(&mut ready, Some(TimeSpec::from_duration(wait)), None) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error).context("poll the TUN devices"),
        }
        uplink.take_in(near, &mut packet, &carried.uplink).context("uplink")?;
        downlink.take_in(far, &mut packet, &carried.downlink).context("downlink")?;
        uplink.hand_over(far).context("uplink")?;
        downlink.hand_over(near).context("downlink")?;
    }
    Ok(())
}

/// The packets of one direction that have left one end and not reached the other.
struct OnTheWay {
    distance: Duration,
    /// When each arrives.
    packets: VecDeque<(Instant, Vec<u8>)>,
}

impl OnTheWay {
    const fn new(distance: Duration) -> Self {
        Self { distance, packets: VecDeque::new() }
    }

    /// How long until the first arrives.
    fn wait(&self) -> Option<Duration> {
        self.packets.front().map(|(arrives, _)| arrives.saturating_duration_since(now()))
    }

    /// Takes what is there, at most a handful, so that the other direction has its turn.
    fn take_in(&mut self, from: &mut File, packet: &mut [u8], counter: &Counter) -> Result<()> {
        for _ in 0..64 {
            let length = match from.read(packet) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // The device is down: nothing to carry for now.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(()),
                Err(error) => return Err(error).context("read from TUN"),
            };
            counter.packets.fetch_add(1, Ordering::SeqCst);
            counter.octets.fetch_add(length as u64, Ordering::SeqCst);
            self.packets.push_back((now() + self.distance, packet[..length].to_vec()));
        }
        Ok(())
    }

    /// Hands over what has arrived.
    fn hand_over(&mut self, to: &mut File) -> Result<()> {
        while self.packets.front().is_some_and(|(arrives, _)| *arrives <= now()) {
            let Some((_, packet)) = self.packets.pop_front() else { break };
            match to.write(&packet) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::EIO) => {}
                Err(error) => return Err(error).context("write to TUN"),
            }
        }
        Ok(())
    }
}
