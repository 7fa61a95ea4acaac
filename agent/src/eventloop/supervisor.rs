//! Whoever looks after this process, systemd as a rule: the signals by which it says to stop, and what it is told (`sd_notify`).

use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use anyhow::{Context, Result};
use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::station::Attachment;
use super::{Agent, OnStop};
use crate::clock::boot_now;
use crate::units::BootInstant;

/// Between two looks at whether there is something new to say.
const AGAIN: Duration = Duration::from_secs(1);
/// Before it is ready it asks for so much time, again and again: a loader on a slow gateway takes what it takes.
const STARTING: Duration = Duration::from_mins(1);

/// The supervisor of this process.
#[derive(Debug)]
pub(super) struct Supervisor {
    terminate: Signal,
    interrupt: Signal,
    keep: Signal,
    on_stop: OnStop,
    /// Where somebody listens, if anybody does. The loop never waits for them: what they have no room for is not said.
    ear: Option<UnixDatagram>,
    /// Half of the time after which it takes a silent process for stuck; `None` = it does not watch.
    beat: Option<Duration>,
    beat_at: BootInstant,
    say_at: BootInstant,
    ready: bool,
    said: String,
}

impl Supervisor {
    /// Listens for signals, and finds out in the environment who listens to us. `on_stop` is what SIGTERM and SIGINT mean.
    pub(super) fn new(on_stop: OnStop) -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("listening for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("listening for SIGINT")?,
            keep: signal(SignalKind::user_defined1()).context("listening for SIGUSR1")?,
            on_stop,
            ear: ear().unwrap_or_else(|error| {
                tracing::warn!("the service manager at NOTIFY_SOCKET cannot be reached: {error}");
                None
            }),
            beat: sd_notify::watchdog_enabled().map(|limit| limit / 2),
            beat_at: BootInstant::from_nanos(0),
            say_at: BootInstant::from_nanos(0),
            ready: false,
            said: String::new(),
        })
    }

    /// Waits until it says to stop, and answers how: SIGUSR1 always means to keep everything.
    pub(super) async fn wait(&mut self) -> OnStop {
        tokio::select! {
            _ = self.terminate.recv() => self.on_stop,
            _ = self.interrupt.recv() => self.on_stop,
            _ = self.keep.recv() => OnStop::Keep,
        }
    }

    /// The longest that the loop may sleep.
    pub(super) fn patience(&self) -> Duration {
        self.beat.unwrap_or(Duration::MAX)
    }

    /// Says that the loop turns, when that is due. The loop wakes up often enough by itself; this makes no timer of its own.
    pub(super) fn beat(&mut self, now: BootInstant) {
        if let Some(beat) = self.beat
            && now >= self.beat_at
        {
            self.beat_at = now.plus(beat);
            self.say(&[NotifyState::Watchdog]);
        }
    }

    /// Whether it may be told something new now.
    pub(super) fn may_hear(&self, now: BootInstant) -> bool {
        self.ear.is_some() && now >= self.say_at
    }

    /// Tells how things stand, in words, if that is news; and once that the start is over.
    pub(super) fn hear(&mut self, now: BootInstant, start: Start, words: &str) {
        if !self.may_hear(now) {
            return;
        }
        self.say_at = now.plus(AGAIN);
        let mut news = Vec::new();
        if !self.ready {
            self.ready = start == Start::Over;
            news.push(if self.ready { NotifyState::Ready } else { NotifyState::ExtendTimeoutUsec(micros(STARTING)) });
        }
        if self.said != words {
            words.clone_into(&mut self.said);
            news.push(NotifyState::Status(words));
        }
        self.say(&news);
    }

    /// Tells that the process stops, how, and how long that may take.
    pub(super) fn hear_of_stop(&self, words: &str, wait: Duration) {
        let wait = micros(wait.saturating_add(AGAIN));
        self.say(&[NotifyState::Stopping, NotifyState::Status(words), NotifyState::ExtendTimeoutUsec(wait)]);
    }

    fn say(&self, news: &[NotifyState<'_>]) {
        let Some(ear) = self.ear.as_ref().filter(|_| !news.is_empty()) else { return };
        let text = news.iter().fold(String::new(), |mut text, news| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{news}");
            text
        });
        if let Err(error) = ear.send(text.as_bytes()) {
            tracing::debug!("the service manager did not hear {text:?}: {error}");
        }
    }
}

/// Whether the agent is still starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// A link that is there is not metered yet.
    Begun,
    /// Every link that is there is metered, or it is known why not.
    Over,
}

impl Agent {
    /// Tells the supervisor how things stand, and that the loop turns.
    pub(super) fn report_to(&self, supervisor: &mut Supervisor) -> Result<()> {
        let now = boot_now()?;
        supervisor.beat(now);
        if supervisor.may_hear(now) {
            let pending = self.stations.iter().any(|station| matches!(station.attachment, Attachment::Pending(_)));
            supervisor.hear(now, if pending { Start::Begun } else { Start::Over }, &self.in_words(now));
        }
        Ok(())
    }
}

/// A socket to whoever listens (`sd_notify`, man page 3): a path, or an abstract name after `@`. The library's own call would wait for them.
fn ear() -> io::Result<Option<UnixDatagram>> {
    let Some(place) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(None) };
    let ear = UnixDatagram::unbound()?;
    ear.set_nonblocking(true)?;
    match place.as_bytes().strip_prefix(b"@") {
        Some(name) => ear.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        None => ear.connect(&place)?,
    }
    Ok(Some(ear))
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
