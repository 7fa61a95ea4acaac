//! UDP: paced datagrams one way, with or without segmentation offload.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Socket, Type};

use super::{Extras, Flow, Pace, Shared, TICK, is_timeout};
use crate::clock::Deadline;
use crate::netns::Namespace;
use crate::sockets::set_option;

/// Received datagrams may wait in so many octets until their thread has the CPU.
const BUFFER: i32 = 16 << 20;

/// No datagram is on its way any more when none has come for so long.
const QUIET: Duration = Duration::from_millis(200);

/// A stream of datagrams.
#[derive(Debug, Clone, Copy)]
pub struct Datagrams {
    /// Octets of payload in each, 1 to 1472 for one frame at MTU 1500; above the MTU IP cuts it into fragments.
    pub payload: u16,
    /// How many; none means until it is stopped.
    pub count: Option<u64>,
    /// Octets of payload per second.
    pub rate: u64,
    /// How many datagrams one call hands to the kernel as one super-packet (`UDP_SEGMENT`), 1 to 64; 1 means plainly.
    pub segments: u16,
    /// What else is in each packet's headers.
    pub extras: Extras,
    /// After this time it fails.
    pub limit: Duration,
}

impl Datagrams {
    /// So many of this size, at 10 MB/s, within a minute.
    #[must_use]
    pub const fn of(count: u64, payload: u16) -> Self {
        Self {
            payload,
            count: Some(count),
            rate: 10_000_000,
            segments: 1,
            extras: Extras::None,
            limit: Duration::from_mins(1),
        }
    }

    /// Until it is stopped, for at most ten minutes.
    #[must_use]
    pub const fn endless(rate: u64, payload: u16) -> Self {
        Self { payload, count: None, rate, segments: 1, extras: Extras::None, limit: Duration::from_mins(10) }
    }

    /// The same, handed over so many at a time.
    #[must_use]
    pub const fn with_segments(self, segments: u16) -> Self {
        Self { segments, ..self }
    }
}

/// Sends datagrams from `from` to the address `to.1` in `to.0`, where they are received and counted.
pub fn udp(from: &Namespace, to: (&Namespace, IpAddr), datagrams: Datagrams) -> Result<Flow> {
    ensure!((1..=64).contains(&datagrams.segments), "segments: 1 to 64, not {}", datagrams.segments);
    ensure!(datagrams.payload > 0, "a datagram without payload cannot be counted by octets");
    let domain = Domain::for_address(SocketAddr::new(to.1, 0));
    let receiver = to.0.socket(domain, Type::DGRAM)?;
    receiver.bind(&SocketAddr::new(to.1, 0).into()).with_context(|| format!("bind {}", to.1))?;
    set_option(&receiver, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &BUFFER)?;
    receiver.set_read_timeout(Some(TICK))?;
    let target = receiver.local_addr()?.as_socket().context("an IP address")?;
    let sender = sender(from, domain, datagrams)?;
    let shared = Shared::new(datagrams.limit);
    shared.serving.store(true, Ordering::SeqCst);
    let (ours, theirs) = (Arc::clone(&shared), Arc::clone(&shared));
    Flow::start("udp", &shared, move || {
        let all_sent = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&all_sent);
        let receiving = std::thread::spawn(move || receive(&receiver.into(), &theirs, &told));
        let sent = send(&sender.into(), target, datagrams, &ours);
        all_sent.store(true, Ordering::SeqCst);
        let outcome = receiving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        ours.serving.store(false, Ordering::SeqCst);
        sent.with_context(|| format!("{datagrams:?} to {target}"))?;
        outcome.with_context(|| format!("{datagrams:?} at {target}"))
    })
}

/// Sends datagrams from `from` to an address at which nobody is meant to receive: what the path carries is then not a matter of who works
/// at its end. (They do not count as delivered.)
pub fn flood(from: &Namespace, target: SocketAddr, datagrams: Datagrams) -> Result<Flow> {
    let sender = sender(from, Domain::for_address(target), datagrams)?;
    let shared = Shared::new(datagrams.limit);
    let ours = Arc::clone(&shared);
    Flow::start("flood", &shared, move || {
        send(&sender.into(), target, datagrams, &ours).with_context(|| format!("{datagrams:?} to {target}"))
    })
}

fn sender(from: &Namespace, domain: Domain, datagrams: Datagrams) -> Result<Socket> {
    let sender = from.socket(domain, Type::DGRAM)?;
    sender.set_write_timeout(Some(TICK))?;
    datagrams.extras.set(&sender)?;
    if datagrams.segments > 1 {
        set_option(&sender, libc::SOL_UDP, libc::UDP_SEGMENT, &i32::from(datagrams.payload))?;
    }
    Ok(sender)
}

fn send(socket: &UdpSocket, target: SocketAddr, datagrams: Datagrams, shared: &Shared) -> Result<()> {
    let payload = usize::from(datagrams.payload);
    let train = vec![0xa5; payload * usize::from(datagrams.segments)];
    let pace = Pace::new(Some(datagrams.rate))?;
    let (mut tried, mut left) = (0, datagrams.count.unwrap_or(u64::MAX));
    while left > 0 && !shared.stopped() {
        shared.in_time()?;
        if !pace.due(tried) {
            continue;
        }
        let number = left.min(u64::from(datagrams.segments));
        let size = usize::try_from(number)? * payload;
        match socket.send_to(&train[..size], target) {
            Ok(_) => {
                shared.progress.sent.fetch_add(size as u64, Ordering::SeqCst);
                shared.progress.datagrams_sent.fetch_add(number, Ordering::SeqCst);
            }
            Err(error) if is_refusal(&error) => drop(shared.progress.refused.fetch_add(number, Ordering::SeqCst)),
            Err(error) if is_timeout(&error) => continue,
            Err(error) => return Err(error).context("send"),
        }
        tried += size as u64;
        left -= number;
    }
    Ok(())
}

/// What a sender hears where the network refuses: a shut gate is no failure of the flow.
fn is_refusal(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionRefused
            | ErrorKind::PermissionDenied
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
    ) || error.raw_os_error() == Some(libc::ENOBUFS)
}

/// Counts until all was sent and the last datagram has come, or nothing comes any more.
fn receive(socket: &UdpSocket, shared: &Shared, all_sent: &AtomicBool) -> Result<()> {
    let mut datagram = vec![0; 65_536];
    let mut quiet: Option<Deadline> = None;
    loop {
        let over = all_sent.load(Ordering::SeqCst);
        let progress = &shared.progress;
        let complete =
            progress.datagrams_delivered.load(Ordering::SeqCst) == progress.datagrams_sent.load(Ordering::SeqCst);
        if over && (complete || quiet.is_some_and(Deadline::passed)) {
            return Ok(());
        }
        match socket.recv(&mut datagram) {
            Ok(size) => {
                progress.delivered.fetch_add(size as u64, Ordering::SeqCst);
                progress.datagrams_delivered.fetch_add(1, Ordering::SeqCst);
                quiet = None;
            }
            Err(error) if is_timeout(&error) => quiet = quiet.or_else(|| Some(Deadline::after(QUIET))),
            Err(error) => return Err(error).context("receive"),
        }
    }
}
