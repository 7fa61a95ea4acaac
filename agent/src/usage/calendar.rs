//! The operator's calendar: the time zone that days are told by, and the day on which a billing period begins.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan as _};

use crate::ledger::floor;

/// Where a small box without a database of time zones keeps its rule (`OpenWrt`).
const RULE_FILE: &str = "/etc/TZ";

const HOUR: i64 = 3600;
const FIVE_MINUTES: i64 = 300;

/// Day of the month on which a billing period begins: 1 ..= 31; in a shorter month its last day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BillingDay(i8);

impl BillingDay {
    /// The first: a period is a calendar month.
    pub const FIRST: Self = Self(1);

    /// `None` out of 1 ..= 31.
    #[must_use]
    pub fn new(day: i8) -> Option<Self> {
        (1..=31).contains(&day).then_some(Self(day))
    }

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> i8 {
        self.0
    }

    /// The day on which the period that `date` lies in begins.
    fn period_of(self, date: Date) -> Date {
        let begin = self.in_month_of(date);
        if begin <= date { begin } else { self.in_month_of(date.first_of_month().saturating_sub(1.day())) }
    }

    /// The day on which the period after the one that begins on `begin` does.
    fn next(self, begin: Date) -> Date {
        self.in_month_of(begin.last_of_month().saturating_add(1.day()))
    }

    fn in_month_of(self, date: Date) -> Date {
        let day = self.0.min(date.days_in_month());
        date.first_of_month().saturating_add(i64::from(day - 1).days())
    }
}

/// A span of time: `begin` belongs to it, `end` to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Its first instant.
    pub begin: Timestamp,
    /// The first instant after it.
    pub end: Timestamp,
}

impl Span {
    /// Whether that instant lies in it.
    #[must_use]
    pub fn holds(&self, at: Timestamp) -> bool {
        self.begin <= at && at < self.end
    }
}

/// A time zone, and when billing periods begin.
#[derive(Clone, Debug)]
pub struct Calendar {
    zone: TimeZone,
    name: String,
    billing_day: BillingDay,
    /// Why the zone is not the one that was asked for.
    note: Option<String>,
}

impl Calendar {
    /// UTC, and periods that are calendar months.
    #[must_use]
    pub fn utc() -> Self {
        Self { zone: TimeZone::UTC, name: "UTC".to_owned(), billing_day: BillingDay::FIRST, note: None }
    }

    /// The calendar of a zone that is known by name (`Europe/Berlin`) or by rule (`CET-1CEST,M3.5.0,M10.5.0/3`); without either, the
    /// system's. Where the system does not know the zone it is UTC, and [`Calendar::note`] says so: for what days are called nothing
    /// else has to wait.
    #[must_use]
    pub fn of(asked: Option<&str>, billing_day: BillingDay) -> Self {
        let found = match asked {
            Some(zone) => named(zone).map(|found| (found, zone.to_owned())),
            None => system(),
        };
        match (found, asked) {
            (Some((zone, name)), _) => Self { zone, name, billing_day, note: None },
            (None, Some(asked)) => Self {
                billing_day,
                note: Some(format!(
                    "the time zone {asked} is not known here: days are those of UTC; install tzdata, or write the zone as a rule \
                     (CET-1CEST,M3.5.0,M10.5.0/3)"
                )),
                ..Self::utc()
            },
            (None, None) => Self {
                billing_day,
                note: Some(
                    "the system's time zone is not known: days are those of UTC; set it, or usage.time_zone".to_owned(),
                ),
                ..Self::utc()
            },
        }
    }

    /// The zone's name, or its rule.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The zone.
    #[must_use]
    pub const fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// When billing periods begin.
    #[must_use]
    pub const fn billing_day(&self) -> BillingDay {
        self.billing_day
    }

    /// Why the zone is not the one that was asked for, in words, and what to do about it.
    #[must_use]
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// The instant in this zone's time, RFC 3339 with its offset.
    #[must_use]
    pub fn told(&self, at: Timestamp) -> String {
        at.to_zoned(self.zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }

    /// The date that it was at that instant.
    #[must_use]
    pub fn date(&self, at: Timestamp) -> Date {
        at.to_zoned(self.zone.clone()).date()
    }

    pub(super) fn five_minutes(&self, at: Timestamp) -> Span {
        self.even(at, FIVE_MINUTES)
    }

    pub(super) fn hour(&self, at: Timestamp) -> Span {
        self.even(at, HOUR)
    }

    pub(super) fn day(&self, date: Date) -> Span {
        Span { begin: self.midnight(date), end: self.midnight(date.saturating_add(1.day())) }
    }

    pub(super) fn month(&self, date: Date) -> Span {
        let end = date.last_of_month().saturating_add(1.day());
        Span { begin: self.midnight(date.first_of_month()), end: self.midnight(end) }
    }

    pub(super) fn period(&self, date: Date) -> Span {
        let begin = self.billing_day.period_of(date);
        Span { begin: self.midnight(begin), end: self.midnight(self.billing_day.next(begin)) }
    }

    /// The first instant of a date. Where the clocks go forward at midnight it is the one after.
    fn midnight(&self, date: Date) -> Timestamp {
        date.to_zoned(self.zone.clone()).map_or_else(|_| end_of_time(date), |midnight| midnight.timestamp())
    }

    /// The span of so many seconds by the clock on the wall.
    fn even(&self, at: Timestamp, seconds: i64) -> Span {
        let begin = floor(at, &self.zone, seconds);
        let after = begin.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
        // Where clocks were moved by less than an hour, the next one begins within this one.
        let end = floor(after, &self.zone, seconds);
        Span { begin, end: if end > at { end } else { after } }
    }
}

/// Dates at the ends of the calendar have no midnight in every zone.
fn end_of_time(date: Date) -> Timestamp {
    if date.year() < 0 { Timestamp::MIN } else { Timestamp::MAX }
}

fn named(zone: &str) -> Option<TimeZone> {
    TimeZone::get(zone).or_else(|_| TimeZone::posix(zone)).ok()
}

fn system() -> Option<(TimeZone, String)> {
    if let Ok(zone) = TimeZone::try_system() {
        let name = zone.iana_name().unwrap_or("local time").to_owned();
        return Some((zone, name));
    }
    let rule = std::fs::read_to_string(RULE_FILE).ok()?;
    Some((named(rule.trim())?, rule.trim().to_owned()))
}
