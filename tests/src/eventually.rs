//! Waiting for a condition, bounded, with a failure that says what was awaited and why it did not come.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::clock::{Deadline, pause};

/// Between two looks: short beside everything that is waited for here.
const STEP: Duration = Duration::from_millis(5);

/// Calls `attempt` until it succeeds or `limit` has passed, then fails with the last error and with `what` was awaited.
pub fn eventually<T>(what: &str, limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Deadline::after(limit);
    loop {
        let late = deadline.passed();
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if late => {
                return Err(error).with_context(|| format!("waited {limit:?} in vain for: {what}"));
            }
            Err(_) => pause(STEP),
        }
    }
}
