//! How far the run has come: one line that is written over on a terminal, now and then a plain line elsewhere.

use std::io::{IsTerminal as _, Write as _, stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::tally::Tally;
use crate::cleanup;
use crate::clock::Deadline;
use crate::words::about;

/// Between two lines on a terminal, and elsewhere.
const LIVE: Duration = Duration::from_millis(250);
const PLAIN: Duration = Duration::from_secs(10);

/// Where progress is shown.
pub(super) struct Progress {
    live: bool,
    next: Deadline,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self { live: stdout().is_terminal(), next: Deadline::after(Duration::ZERO) }
    }

    /// Shows where the run stands, when it is time to.
    pub(super) fn show(&mut self, left: Duration, tally: &Tally, last: &str) {
        if !self.next.passed() {
            return;
        }
        self.next = Deadline::after(if self.live { LIVE } else { PLAIN });
        let line = line(left, tally, last);
        if self.live {
            // Cut to what fits any terminal, and written over what was there.
            let line: String = line.chars().take(79).collect();
            write(&format!("\r{line:<79}"));
        } else {
            write(&format!("{line}\n"));
        }
    }

    /// Takes the line away.
    pub(super) fn end(&self) {
        if self.live {
            write(&format!("\r{:79}\r", ""));
        }
    }
}

fn line(left: Duration, tally: &Tally, last: &str) -> String {
    let seconds = left.as_secs();
    format!(
        "{}:{:02} left  {:>3} kills  {} passed  {last}",
        seconds / 60,
        seconds % 60,
        tally.kills(),
        about(tally.passed)
    )
}

/// Lines for the reader.
pub(super) fn say(text: &str) {
    write(&format!("{text}\n"));
}

/// Whether this process was told to end.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From an interrupt on nothing is said any more, while everything is being removed.
pub(super) fn heed_interrupts() {
    cleanup::before_interrupt_exit(|| INTERRUPTED.store(true, Ordering::SeqCst));
}

/// Once told to end, stays here until the end: what went wrong since then is the interrupt's doing.
pub(super) fn stay_if_interrupted() {
    while INTERRUPTED.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// To standard output, at once. A reader that went away (`| head`) is no error of the run.
fn write(text: &str) {
    if INTERRUPTED.load(Ordering::SeqCst) {
        return;
    }
    let _ = stdout().write_all(text.as_bytes());
    let _ = stdout().flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_time_left_kills_octets_and_the_last_blow() {
        let tally = Tally { agent_kills: 3, server_kills: 2, passed: 5 << 20, ..Tally::default() };
        let line = line(Duration::from_secs(65), &tally, "link down");
        assert_eq!(line, "1:05 left    5 kills  5.00 MiB passed  link down");
    }
}
