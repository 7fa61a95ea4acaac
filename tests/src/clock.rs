//! The harness's only reader of the monotonic clock, and its only sleeper.

use std::time::{Duration, Instant};

/// The moment it is now.
#[must_use]
pub fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this module is the harness's clock")]
    Instant::now()
}

/// A moment after which waiting is a failure.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline that lies `limit` after now.
    #[must_use]
    pub fn after(limit: Duration) -> Self {
        Self(now() + limit)
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

/// Sleeps: for the polling in `eventually` and the pacing of senders, for nothing else.
pub(crate) fn pause(length: Duration) {
    std::thread::sleep(length);
}
