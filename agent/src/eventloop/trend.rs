//! How fast a package goes.

use std::time::Duration;

use crate::units::{BootInstant, Octets};

/// What was seen so long ago counts half as much as what is seen now.
const MEMORY: Duration = Duration::from_mins(10);
/// A shorter look says nothing of how fast a package goes.
const LEAST_LOOK: Duration = Duration::from_secs(30);

/// How many octets a second pass, over some minutes: each look weighs as long as it took, and less as it grows old.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trend {
    last: Option<(BootInstant, Octets)>,
    octets: u128,
    millis: u128,
    /// How long was looked at in all.
    seen: Duration,
}

impl Trend {
    /// The cumulative counter at an instant. One that goes back is another counter.
    pub(super) fn note(&mut self, passed: Octets, now: BootInstant) {
        let Some((since, before)) = self.last.replace((now, passed)) else { return };
        let Some(moved) = passed.get().checked_sub(before.get()) else { return };
        let span = now.since(since);
        self.seen = self.seen.saturating_add(span);
        let (memory, span) = (MEMORY.as_millis(), span.as_millis());
        let kept = |value: u128| value * memory / (memory + span);
        self.octets = kept(self.octets) + u128::from(moved);
        self.millis = kept(self.millis) + span;
    }

    /// Octets a second; `None` until enough was seen.
    pub(super) fn rate(&self) -> Option<u64> {
        let rate = (self.octets * 1000).checked_div(self.millis)?;
        (self.seen >= LEAST_LOOK).then(|| u64::try_from(rate).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> BootInstant {
        BootInstant::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn a_steady_flow_has_its_rate_and_too_short_a_look_has_none() {
        let mut trend = Trend::default();
        for second in 0..=3_600 {
            trend.note(Octets::new(second * 1_000), at(second));
            assert_eq!(trend.rate().is_some(), second >= 30, "{second}");
        }
        assert_eq!(trend.rate(), Some(1_000));
    }

    #[test]
    fn what_was_long_ago_counts_less_and_less() {
        let mut trend = Trend::default();
        trend.note(Octets::ZERO, at(0));
        for second in 1..=600 {
            trend.note(Octets::new(second * 1_000_000), at(second));
        }
        let mut before = trend.rate().unwrap();
        for minute in 11..=60 {
            trend.note(Octets::new(600_000_000), at(minute * 60));
            let rate = trend.rate().unwrap();
            assert!(rate < before, "{rate} after {before}");
            before = rate;
        }
        assert!(before < 30_000, "{before}");
    }

    #[test]
    fn a_counter_that_begins_anew_is_no_flood() {
        let mut trend = Trend::default();
        trend.note(Octets::new(u64::MAX), at(0));
        trend.note(Octets::new(500), at(60));
        trend.note(Octets::new(60_500), at(120));
        assert_eq!(trend.rate(), Some(1_000));
    }
}
