//! The harness's only reader of the monotonic clock, and its only sleeper.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::time::{ClockId, clock_gettime};

/// The moment it is now.
#[must_use]
pub fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this module is the harness's clock")]
    Instant::now()
}

/// The processor time that this thread has had. What others do on the machine hardly shows in it.
pub fn thread_time() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("reading CLOCK_THREAD_CPUTIME_ID")?.into())
}

/// A moment after which waiting is a failure.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline that lies `limit` after now; on a slow machine so many times as far as `$WEIR_TEST_PATIENCE` says.
    #[must_use]
    pub fn after(limit: Duration) -> Self {
        Self(now() + limit * patience())
    }

    /// Whether it is too late.
    #[must_use]
    pub fn passed(self) -> bool {
        now() >= self.0
    }

    /// How long there is still; zero when it has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(now())
    }
}

/// How many times longer than elsewhere things may take here: 1 unless the environment says otherwise.
fn patience() -> u32 {
    static PATIENCE: LazyLock<u32> = LazyLock::new(|| {
        let said = std::env::var("WEIR_TEST_PATIENCE").ok();
        said.and_then(|text| text.parse().ok()).filter(|times| *times > 0).unwrap_or(1)
    });
    *PATIENCE
}

/// Sleeps: for the polling in `eventually` and the pacing of senders, for nothing else.
pub(crate) fn pause(length: Duration) {
    std::thread::sleep(length);
}
