//! What a running span will come to: nothing is said before enough of it has passed.

use jiff::{SignedDuration, Timestamp};

use super::{By, Span};

/// How much of a span has to be seen before its end can be guessed. A month without a whole day and night in it tells nothing of the
/// month, and two of them tell little; an hour is over before anybody has read of it.
const fn least(by: By) -> Option<SignedDuration> {
    match by {
        By::FiveMinutes | By::Hour => None,
        By::Day | By::Top => Some(SignedDuration::from_hours(3)),
        By::Month | By::Period => Some(SignedDuration::from_hours(48)),
    }
}

/// What `used` octets will have become at the end of `span`, at the pace since its begin, or since `first`, when anything was metered
/// for the first time.
pub(super) fn estimate(by: By, used: u64, span: Span, first: Timestamp, now: Timestamp) -> Option<u64> {
    if !span.holds(now) {
        return None;
    }
    let seen = now.duration_since(span.begin.max(first));
    if seen < least(by)? {
        return None;
    }
    let (seen, left) = (seconds(seen), seconds(span.end.duration_since(now)));
    let more = u128::from(used) * u128::from(left) / u128::from(seen.max(1));
    Some(u64::try_from(u128::from(used) + more).unwrap_or(u64::MAX))
}

fn seconds(span: SignedDuration) -> u64 {
    span.as_secs().unsigned_abs()
}
