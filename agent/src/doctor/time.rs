//! The wall clock: whether it is synchronised, and what the server says of the time.

use jiff::{SignedDuration, Timestamp};

use super::finding::{Check, Finding};
use crate::clock::Label;

/// `Date` has whole seconds, and an answer takes its time.
const SLACK: SignedDuration = SignedDuration::from_secs(5);
/// A server refuses log-ins that are dated further off than this (docs/protocol.md).
const SKEW_MAX: SignedDuration = SignedDuration::from_secs(60);

pub(super) fn synced(ours: Label) -> Finding {
    let check = Check::ClockSynced;
    if ours.synced {
        return Finding::ok(check, "the clock is synchronised");
    }
    let what = format!("the kernel does not hold the clock for synchronised; it says {}", ours.wall);
    let fix = "let NTP run: timedatectl set-ntp true, or chrony. weir takes the server's time meanwhile";
    Finding::warning(check, what, fix)
}

/// `theirs` is what the server would say at the moment of `ours`; `None` when it has not said anything.
pub(super) fn skew(ours: Label, theirs: Option<Timestamp>) -> Finding {
    let check = Check::ClockServer;
    let Some(theirs) = theirs else {
        return Finding::not_checked(check, "the server has not told the time", "see server.reached");
    };
    let skew = theirs.duration_since(ours.wall);
    if skew.abs() <= SLACK {
        return Finding::ok(check, "the server's clock agrees with this one");
    }
    let seconds = skew.abs().as_secs();
    let which = if skew.is_positive() { "ahead of" } else { "behind" };
    let what = format!("the server's clock is {seconds} s {which} this one ({theirs} there, {} here)", ours.wall);
    let fix = "set whichever is wrong: compare with another clock (chronyc tracking, timedatectl)";
    match (ours.synced, skew.abs() > SKEW_MAX) {
        // Otherwise weir takes the server's time.
        (true, true) => Finding::problem(check, what, fix),
        (true, false) | (false, _) => Finding::warning(check, what, fix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Verdict;

    #[test]
    fn a_clock_that_differs_is_a_problem_only_where_it_is_trusted() {
        let ours = |synced| Label { wall: Timestamp::from_second(1_790_000_000).unwrap(), synced };
        assert_eq!([synced(ours(true)).verdict, synced(ours(false)).verdict], [Verdict::Ok, Verdict::Warning]);
        let judged = |synced, seconds: i64| {
            skew(ours(synced), Some(Timestamp::from_second(1_790_000_000 + seconds).unwrap())).verdict
        };
        assert_eq!([judged(true, 3), judged(true, -3), judged(false, 0)], [Verdict::Ok; 3]);
        assert_eq!([judged(true, 30), judged(true, -30), judged(false, 900_000)], [Verdict::Warning; 3]);
        assert_eq!([judged(true, 61), judged(true, -90_000)], [Verdict::Problem; 2]);
        assert_eq!(skew(ours(true), None).verdict, Verdict::NotChecked);
        let told = skew(ours(true), Some(Timestamp::from_second(1_789_999_900).unwrap())).what;
        assert!(told.starts_with("the server's clock is 100 s behind this one"), "{told}");
    }
}
