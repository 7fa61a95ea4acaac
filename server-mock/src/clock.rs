//! The only reader of clocks: wall time from the system, or a hand that a test moves.

use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::units::Seconds;

/// A moment of wall time: milliseconds since 1970, UTC. Written as RFC 3339 with three decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(i64);

/// Where `now` comes from.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

/// Moves the clock it was made with.
#[derive(Clone, Debug)]
pub struct Hand(Arc<AtomicI64>);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// A clock that stands still at the present moment until its hand moves it.
    #[must_use]
    pub fn manual() -> (Self, Hand) {
        let moment = Arc::new(AtomicI64::new(system().0));
        (Self(Source::Manual(Arc::clone(&moment))), Hand(moment))
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Moment {
        match &self.0 {
            Source::System => system(),
            Source::Manual(moment) => Moment(moment.load(Ordering::SeqCst)),
        }
    }
}

impl Hand {
    /// Moves the clock forward.
    pub fn advance(&self, by: Seconds) {
        self.0.fetch_add(i64::from(by.0) * 1000, Ordering::SeqCst);
    }
}

impl Moment {
    /// From milliseconds since 1970.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// So many seconds later.
    #[must_use]
    pub fn plus(self, seconds: Seconds) -> Self {
        Self(self.0.saturating_add(i64::from(seconds.0) * 1000))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(timestamp) => write!(f, "{timestamp:.3}"),
            Err(_) => f.write_str("9999-12-31T23:59:59.999Z"),
        }
    }
}

impl Serialize for Moment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
fn system() -> Moment {
    Moment(jiff::Timestamp::now().as_millisecond())
}
