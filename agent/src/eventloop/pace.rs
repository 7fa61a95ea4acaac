//! How fast a long poll may go round when its answers come at once: a server that does not hold the question must not make the agent spin.

use std::time::Duration;

/// An answer that took this long was waited for.
const WAITED: Duration = Duration::from_secs(5);
/// Quick answers with something new in them that are followed by the next question at once: a top-up, a new plan, a switch.
const FREE: u32 = 4;
/// The first pause, and the longest: as long as a server holds a question.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LAST: Duration = Duration::from_secs(30);

/// Counts answers that came too quickly.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Quick answers in a row.
    quick: u32,
}

/// Whether an answer told anything that was not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    News,
    Nothing,
}

impl Pace {
    /// How long to wait before the next question, after an answer that took so long.
    pub(super) fn pause(&mut self, took: Duration, told: Told) -> Duration {
        if took >= WAITED {
            self.quick = 0;
            return Duration::ZERO;
        }
        self.quick = match told {
            Told::News => self.quick.saturating_add(1),
            // Nothing new, and not waited for either: there is no excuse.
            Told::Nothing => self.quick.max(FREE).saturating_add(1),
        };
        match self.quick.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(doublings) => (PAUSE_FIRST * 2_u32.pow(doublings.min(5))).min(PAUSE_LAST),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Duration = Duration::from_millis(1);

    /// Answers in the first minute and in the hour after it.
    fn answers(told: Told) -> (u32, u32) {
        let (mut pace, mut now) = (Pace::default(), Duration::ZERO);
        let (mut first, mut later) = (0, 0);
        while now < Duration::from_mins(61) {
            *if now < Duration::from_mins(1) { &mut first } else { &mut later } += 1;
            now += AT_ONCE + pace.pause(AT_ONCE, told);
        }
        (first, later)
    }

    #[test]
    fn a_server_that_does_not_hold_the_question_is_asked_a_handful_of_times_a_minute() {
        let (first, later) = answers(Told::Nothing);
        assert!(first <= 7 && later <= 121, "{first}, then {later} in an hour");
        let (first, later) = answers(Told::News);
        assert!(first <= 12 && later <= 121, "{first}, then {later} in an hour");
    }

    #[test]
    fn a_few_commands_one_after_the_other_are_heard_at_once() {
        let mut pace = Pace::default();
        for _ in 0..FREE {
            assert_eq!(pace.pause(AT_ONCE, Told::News), Duration::ZERO);
        }
        assert_eq!(pace.pause(AT_ONCE, Told::News), PAUSE_FIRST);
    }

    #[test]
    fn a_question_that_was_held_sets_it_right_again() {
        let mut pace = Pace::default();
        for _ in 0..10 {
            pace.pause(AT_ONCE, Told::Nothing);
        }
        assert_eq!(pace.pause(Duration::from_secs(30), Told::Nothing), Duration::ZERO);
        assert_eq!(pace.pause(AT_ONCE, Told::News), Duration::ZERO);
    }
}
