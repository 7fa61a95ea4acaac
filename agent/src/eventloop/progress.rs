//! How far a long backlog has come: a line in the log now and then, and figures for the status.

use std::time::Duration;

use crate::units::BootInstant;

/// Fewer containers than these are no backlog worth a word.
const LONG: usize = 1000;

/// The log is told this often at most.
const SAY: Duration = Duration::from_secs(5);

/// The draining of a backlog: of all sessions together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Draining {
    /// Containers that were there, and came since.
    pub(super) total: usize,
    /// Containers that are still to be acknowledged.
    pub(super) left: usize,
    /// Seconds until all are, at the present rate; `None` while nothing moves.
    pub(super) seconds_left: Option<u64>,
    said_at: BootInstant,
    left_then: usize,
}

/// Watches the backlog.
#[derive(Debug, Default)]
pub(super) struct Progress(Option<Draining>);

impl Progress {
    /// The draining under way, if the backlog is a long one.
    pub(super) const fn draining(&self) -> Option<Draining> {
        self.0
    }

    /// Takes note of how many containers are left, and answers with a line for the log when there is something to say.
    pub(super) fn note(&mut self, left: usize, now: BootInstant) -> Option<String> {
        let Some(draining) = &mut self.0 else {
            if left < LONG {
                return None;
            }
            self.0 = Some(Draining { total: left, left, seconds_left: None, said_at: now, left_then: left });
            return Some(format!("draining: {} containers are to be acknowledged", grouped(left)));
        };
        draining.total += left.saturating_sub(draining.left);
        draining.left = left;
        if left == 0 {
            let total = draining.total;
            self.0 = None;
            return Some(format!("drained: all {} containers are acknowledged", grouped(total)));
        }
        let elapsed = now.since(draining.said_at);
        if elapsed < SAY {
            return None;
        }
        let done = draining.left_then.saturating_sub(left);
        draining.said_at = now;
        draining.left_then = left;
        if done == 0 {
            draining.seconds_left = None;
            return None;
        }
        let millis = elapsed.as_millis() * (left as u128) / (done as u128);
        let seconds = u64::try_from(millis / 1000).unwrap_or(u64::MAX);
        draining.seconds_left = Some(seconds);
        let acknowledged = draining.total.saturating_sub(left);
        Some(format!(
            "draining: {} of {} containers acknowledged, about {seconds} s left",
            grouped(acknowledged),
            grouped(draining.total)
        ))
    }
}

/// A number as people read it: 412,350.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_backlog_is_told_of_now_and_then_until_it_is_drained() {
        let at = |seconds: u64| BootInstant::from_nanos(seconds * 1_000_000_000);
        let mut progress = Progress::default();
        assert_eq!(progress.note(LONG - 1, at(0)), None, "not worth a word");
        let begun = progress.note(1_000_000, at(0));
        assert_eq!(begun.as_deref(), Some("draining: 1,000,000 containers are to be acknowledged"));
        assert_eq!(progress.note(900_000, at(4)), None, "too soon");
        // Ten came meanwhile.
        assert_eq!(progress.note(900_010, at(4)), None);
        let said = progress.note(800_000, at(5));
        assert_eq!(said.as_deref(), Some("draining: 200,010 of 1,000,010 containers acknowledged, about 20 s left"));
        assert_eq!(progress.note(800_000, at(10)), None, "nothing has moved");
        assert_eq!(progress.draining().and_then(|draining| draining.seconds_left), None);
        let over = progress.note(0, at(11));
        assert_eq!(over.as_deref(), Some("drained: all 1,000,010 containers are acknowledged"));
        assert_eq!(progress.draining(), None);
    }
}
