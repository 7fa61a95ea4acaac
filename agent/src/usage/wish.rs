//! What somebody wants to see of the usage, as it is asked for on a command line or in a query.

use std::fmt;

use jiff::civil::{Date, DateTime};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Calendar, Span};
use crate::ledger::Granularity;

/// Spans in one answer at most: a week of five minutes, or thirteen years of days.
const MOST_SPANS: usize = 5000;

/// What the spans are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Five minutes.
    FiveMinutes,
    /// Hours of the clock on the wall.
    Hour,
    /// Days.
    Day,
    /// Calendar months.
    Month,
    /// Billing periods.
    Period,
    /// The days with the most usage.
    Top,
}

impl By {
    const ALL: [Self; 6] = [Self::FiveMinutes, Self::Hour, Self::Day, Self::Month, Self::Period, Self::Top];

    /// The word of a query.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::FiveMinutes => "5min",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::Period => "period",
            Self::Top => "top",
        }
    }

    /// What the ledger is asked for.
    pub(super) const fn granularity(self) -> Granularity {
        match self {
            Self::FiveMinutes => Granularity::FiveMinutes,
            Self::Hour => Granularity::Hour,
            Self::Day | Self::Period | Self::Top => Granularity::Day,
            Self::Month => Granularity::Month,
        }
    }

    /// How many are shown when nobody says since when.
    const fn usual(self) -> usize {
        match self {
            Self::FiveMinutes | Self::Hour => 24,
            Self::Day => 30,
            Self::Month | Self::Period => 12,
            Self::Top => MOST_SPANS,
        }
    }

    pub(super) fn span_of(self, calendar: &Calendar, at: Timestamp) -> Span {
        match self {
            Self::FiveMinutes => calendar.five_minutes(at),
            Self::Hour => calendar.hour(at),
            Self::Day | Self::Top => calendar.day(calendar.date(at)),
            Self::Month => calendar.month(calendar.date(at)),
            Self::Period => calendar.period(calendar.date(at)),
        }
    }

    /// The span of a roll-up that begins at `start`; those of days and months bear their date and not an instant.
    pub(super) fn span_of_roll_up(self, calendar: &Calendar, start: Start) -> Span {
        match (self, start) {
            (_, Start::At(at)) => self.span_of(calendar, at),
            (Self::FiveMinutes | Self::Hour | Self::Day | Self::Top, Start::On(date)) => calendar.day(date),
            (Self::Month, Start::On(date)) => calendar.month(date),
            (Self::Period, Start::On(date)) => calendar.period(date),
        }
    }
}

/// When a roll-up begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    At(Timestamp),
    On(Date),
}

/// A question for usage: the words of a query.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// `5min`, `hour`, `day`, `month`, `period` or `top`; `None` = `day`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// A time within the first span: `2026-11`, `2026-11-28`, `2026-11-28T10:00` or RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub begin: Option<String>,
    /// A time within the last span.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// Only the SIMs that this link has carried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// Only this SIM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sim: Option<String>,
}

/// Why a question cannot be answered: what is wrong with it, and what would be right.
#[derive(Debug)]
pub struct Refusal(pub String);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Refusal {}

impl Wish {
    /// What the spans are to be.
    pub fn by(&self) -> Result<By, Refusal> {
        let Some(word) = &self.by else { return Ok(By::Day) };
        By::ALL.into_iter().find(|by| by.word() == word).ok_or_else(|| {
            let words = By::ALL.map(By::word).join(", ");
            Refusal(format!("by: {word:?} is not one of {words}"))
        })
    }

    /// The spans to be shown, the oldest first. `first` is when anything was metered for the first time.
    pub(super) fn spans(&self, calendar: &Calendar, first: Timestamp, now: Timestamp) -> Result<Vec<Span>, Refusal> {
        let by = self.by()?;
        let begin = self.begin.as_deref().map(|text| time("begin", text, calendar)).transpose()?;
        let end = self.end.as_deref().map(|text| time("end", text, calendar)).transpose()?;
        if let (Some(begin), Some(end)) = (begin, end)
            && end < begin
        {
            return Err(Refusal("end: lies before begin".to_owned()));
        }
        if begin.is_some_and(|begin| begin > now) {
            return Err(Refusal(format!("begin: lies in the future; it is {}", calendar.told(now))));
        }
        let most = if begin.is_some() { MOST_SPANS } else { by.usual() };
        // Of what lies before the first record nothing is known: it is not shown as nothing, unless somebody asks for it.
        let from = begin.unwrap_or(first);
        let mut span = by.span_of(calendar, end.map_or(now, |end| end.min(now)));
        let mut spans = vec![span];
        while span.begin > from && spans.len() < most {
            let before = span.begin.saturating_sub(SignedDuration::from_secs(1)).unwrap_or(Timestamp::MIN);
            span = by.span_of(calendar, before);
            spans.push(span);
        }
        if begin.is_some() && span.begin > from {
            return Err(Refusal(format!(
                "begin: more than {MOST_SPANS} spans until end: ask for longer ones, or for fewer"
            )));
        }
        spans.reverse();
        Ok(spans)
    }
}

/// A time as people write it.
fn time(key: &str, text: &str, calendar: &Calendar) -> Result<Timestamp, Refusal> {
    let is_month = text.len() == 7 && text.bytes().filter(|octet| *octet == b'-').count() == 1;
    let whole = if is_month { format!("{text}-01") } else { text.to_owned() };
    let local = |at: DateTime| at.to_zoned(calendar.zone().clone()).ok().map(|at| at.timestamp());
    let at = whole.parse::<Timestamp>().ok().or_else(|| whole.parse::<DateTime>().ok().and_then(local));
    at.ok_or_else(|| {
        Refusal(format!(
            "{key}: {text:?} is not a time: write 2026-11, 2026-11-28, 2026-11-28T10:00 or 2026-11-28T10:00:00Z"
        ))
    })
}
