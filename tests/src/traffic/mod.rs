//! Real traffic without foreign tools: TCP and UDP flows that can be watched, stopped, and asked what they carried.

mod tcp;
mod udp;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

pub use self::tcp::{TcpServer, Transfer};
pub use self::udp::{Datagrams, flood, udp};
use crate::clock::{Deadline, now, pause};
use crate::eventually::eventually;
use crate::sockets::set_option;

/// How long a socket call may block before the flow looks whether it shall stop.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// How long the two ends may take to end after they were told to.
const ENDING: Duration = Duration::from_secs(5);

/// What a sender puts into each packet beside the usual headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Extras {
    /// Nothing.
    #[default]
    None,
    /// IPv4: 8 octets of options. IPv6: 8 octets each of hop-by-hop and of destination options.
    Options,
}

impl Extras {
    fn set(self, socket: &socket2::Socket) -> Result<()> {
        const NO_OPERATION: [u8; 8] = [1; 8];
        /// The kernel puts the next header in front; `PadN` over the six octets that are left.
        const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];
        if self == Self::None {
            return Ok(());
        }
        if socket.domain()? == socket2::Domain::IPV4 {
            return set_option(socket, libc::SOL_IP, libc::IP_OPTIONS, &NO_OPERATION);
        }
        set_option(socket, libc::SOL_IPV6, libc::IPV6_HOPOPTS, &PADDING)?;
        set_option(socket, libc::SOL_IPV6, libc::IPV6_DSTOPTS, &PADDING)
    }
}

/// What a flow has carried. Octets are the application's: no header counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// Octets handed to the kernel at the sending end.
    pub sent: u64,
    /// Octets taken from the kernel at the receiving end.
    pub delivered: u64,
    /// Datagrams handed to the kernel (UDP only).
    pub datagrams_sent: u64,
    /// Datagrams taken from the kernel (UDP only).
    pub datagrams_delivered: u64,
    /// Sends that the kernel refused (UDP only): no route, no buffer, administratively prohibited.
    pub refused: u64,
}

/// The figures of a running flow.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    sent: AtomicU64,
    delivered: AtomicU64,
    datagrams_sent: AtomicU64,
    datagrams_delivered: AtomicU64,
    refused: AtomicU64,
}

impl Progress {
    fn report(&self) -> Report {
        let read = |figure: &AtomicU64| figure.load(Ordering::SeqCst);
        Report {
            sent: read(&self.sent),
            delivered: read(&self.delivered),
            datagrams_sent: read(&self.datagrams_sent),
            datagrams_delivered: read(&self.datagrams_delivered),
            refused: read(&self.refused),
        }
    }
}

/// What both ends of a flow share.
#[derive(Debug)]
pub(crate) struct Shared {
    progress: Progress,
    stop: AtomicBool,
    /// Whether the far end still works for this flow.
    serving: AtomicBool,
    /// After this everything ends, whatever was forgotten.
    limit: Deadline,
}

impl Shared {
    fn new(limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            progress: Progress::default(),
            stop: AtomicBool::new(false),
            serving: AtomicBool::new(false),
            limit: Deadline::after(limit),
        })
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Fails when the flow has had its time.
    fn in_time(&self) -> Result<()> {
        ensure!(!self.limit.passed(), "the flow took longer than it may: {:?}", self.progress.report());
        Ok(())
    }
}

/// A running flow; dropping it stops it.
#[derive(Debug)]
pub struct Flow {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Flow {
    fn start(name: &str, shared: &Arc<Shared>, work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<Self> {
        let thread = std::thread::Builder::new().name(name.into()).spawn(work).context("thread of a flow")?;
        Ok(Self { shared: Arc::clone(shared), thread: Some(thread) })
    }

    /// What it has carried so far.
    #[must_use]
    pub fn so_far(&self) -> Report {
        self.shared.progress.report()
    }

    /// Whether it has ended by itself: all sent, or failed.
    #[must_use]
    pub fn finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until it has carried `octets` more than now, or fails after `limit`.
    pub fn carries(&self, octets: u64, limit: Duration) -> Result<()> {
        let goal = self.so_far().delivered + octets;
        eventually(&format!("{octets} octets to be delivered"), limit, || {
            let report = self.so_far();
            ensure!(report.delivered >= goal, "{report:?}");
            Ok(())
        })
    }

    /// Waits until nothing was delivered for `silence`, or fails after `limit`: the gate is shut.
    pub fn stalls(&self, silence: Duration, limit: Duration) -> Result<Report> {
        let mut last = self.so_far();
        let mut since = Deadline::after(silence);
        eventually("the flow to stall", limit, || {
            let report = self.so_far();
            if report.delivered != last.delivered {
                last = report;
                since = Deadline::after(silence);
            }
            ensure!(since.passed(), "{report:?}");
            Ok(report)
        })
    }

    /// Waits for the end of a flow that has one.
    pub fn join(mut self) -> Result<Report> {
        self.finish()?;
        Ok(self.so_far())
    }

    /// Ends it and waits until both ends have; a broken connection is no error now.
    pub fn stop(mut self) -> Result<Report> {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.finish()?;
        Ok(self.so_far())
    }

    fn finish(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let ended = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        if ended.is_err() && !self.shared.stopped() {
            return ended;
        }
        eventually("the far end of the flow to end", ENDING, || {
            ensure!(!self.shared.serving.load(Ordering::SeqCst), "it still serves");
            Ok(())
        })
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = self.finish();
    }
}

/// Keeps a sender at a rate.
struct Pace {
    begin: std::time::Instant,
    octets_per_second: Option<u64>,
}

impl Pace {
    fn new(octets_per_second: Option<u64>) -> Result<Self> {
        if octets_per_second == Some(0) {
            bail!("a rate of nothing never ends");
        }
        Ok(Self { begin: now(), octets_per_second })
    }

    /// Waits until `sent` octets may have been sent, for at most one tick at a time; answers whether it is time.
    fn due(&self, sent: u64) -> bool {
        let Some(rate) = self.octets_per_second else { return true };
        #[expect(clippy::cast_precision_loss, reason = "a pace is no account")]
        let due = self.begin + Duration::from_secs_f64(sent as f64 / rate as f64);
        let wait = due.saturating_duration_since(now());
        pause(wait.min(TICK));
        wait <= TICK
    }
}

/// Whether a socket call has only run out of its time.
fn is_timeout(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}
