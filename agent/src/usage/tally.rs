//! Adds up what the ledger tells, by spans of the operator's calendar.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::document::{Running, SimUsage, SpanUsage, Sums};
use super::estimate::estimate;
use super::wish::{By, Start};
use super::{Calendar, Span};
use crate::ledger::{Granularity, Usage, UsageBucket};
use crate::units::SubscriberIdentifier;

/// So many days are shown of those with the most.
const TOP: usize = 10;

type BySim = BTreeMap<SubscriberIdentifier, Sums>;

/// What is added up so far.
pub(super) struct Tally<'a> {
    calendar: &'a Calendar,
    by: By,
    now: Timestamp,
    /// When anything was metered for the first time.
    first: Timestamp,
    /// Whose usage counts; `None` = everybody's.
    wanted: Option<BTreeSet<SubscriberIdentifier>>,
    spans: BTreeMap<Span, BySim>,
    running: [(By, Span, BySim); 3],
}

impl<'a> Tally<'a> {
    /// Nothing yet, in `spans`.
    pub(super) fn new(
        calendar: &'a Calendar,
        (by, spans): (By, Vec<Span>),
        wanted: Option<BTreeSet<SubscriberIdentifier>>,
        (first, now): (Timestamp, Timestamp),
    ) -> Self {
        let running = |by: By| (by, by.span_of(calendar, now), BySim::new());
        Self {
            calendar,
            by,
            now,
            first,
            wanted,
            spans: spans.into_iter().map(|span| (span, BySim::new())).collect(),
            running: [running(By::Day), running(By::Month), running(By::Period)],
        }
    }

    /// Adds a roll-up of that granularity.
    pub(super) fn rolled_up(&mut self, granularity: Granularity, bucket: UsageBucket) {
        let sums = Sums::acknowledged(bucket.usage, bucket.synced);
        let start = match granularity {
            Granularity::FiveMinutes | Granularity::Hour => Start::At(bucket.start),
            Granularity::Day | Granularity::Month => Start::On(bucket.start.to_zoned(TimeZone::UTC).date()),
        };
        if !self.counts(&bucket.subscriber) {
            return;
        }
        if granularity == Granularity::Day {
            for (by, span, sims) in &mut self.running {
                if by.span_of_roll_up(self.calendar, start) == *span {
                    sims.entry(bucket.subscriber.clone()).or_default().add(sums);
                }
            }
        }
        if granularity == self.by.granularity() {
            let span = self.by.span_of_roll_up(self.calendar, start);
            self.add(span, bucket.subscriber, sums);
        }
    }

    /// Adds what waits in containers that were closed in the five minutes from `start`.
    pub(super) fn waiting(&mut self, bucket: UsageBucket) {
        self.add_at(bucket.start, bucket.subscriber, Sums::waiting(bucket.usage, bucket.synced));
    }

    /// Adds what is in no container yet: if it were closed now, it would be in this moment's spans.
    pub(super) fn open(&mut self, subscriber: SubscriberIdentifier, usage: Usage, synced: bool) {
        self.add_at(self.now, subscriber, Sums::waiting(usage, synced));
    }

    fn add_at(&mut self, at: Timestamp, subscriber: SubscriberIdentifier, sums: Sums) {
        if sums.total() == 0 || !self.counts(&subscriber) {
            return;
        }
        for (_, _, sims) in self.running.iter_mut().filter(|(_, span, _)| span.holds(at)) {
            sims.entry(subscriber.clone()).or_default().add(sums);
        }
        self.add(self.by.span_of(self.calendar, at), subscriber, sums);
    }

    fn add(&mut self, span: Span, subscriber: SubscriberIdentifier, sums: Sums) {
        if let Some(sims) = self.spans.get_mut(&span) {
            sims.entry(subscriber).or_default().add(sums);
        }
    }

    fn counts(&self, subscriber: &SubscriberIdentifier) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.contains(subscriber))
    }

    /// The spans as they are shown, what all of them come to, and those that are running.
    pub(super) fn into_spans(self) -> (Vec<SpanUsage>, Sums, Running) {
        let told = |by: By, span: Span, sims: &BySim| self.told(by, span, sims);
        let mut spans: Vec<_> = self.spans.iter().map(|(span, sims)| told(self.by, *span, sims)).collect();
        if self.by == By::Top {
            spans.retain(|span| span.sums.total() > 0);
            // Of equal days the later one first.
            spans.sort_by(|one, other| (other.sums.total(), &other.begin).cmp(&(one.sums.total(), &one.begin)));
            spans.truncate(TOP);
        }
        let mut total = Sums::default();
        for span in &spans {
            total.add(span.sums);
        }
        let [day, month, period] = &self.running;
        let running = |(by, span, sims): &(By, Span, BySim)| told(*by, *span, sims);
        (spans, total, Running { day: running(day), month: running(month), period: running(period) })
    }

    fn told(&self, by: By, span: Span, sims: &BySim) -> SpanUsage {
        let estimate = |sums: &Sums| estimate(by, sums.total(), span, self.first, self.now);
        let mut all = Sums::default();
        for sums in sims.values() {
            all.add(*sums);
        }
        let sim = |(subscriber, sums): (&SubscriberIdentifier, &Sums)| SimUsage {
            subscriber: subscriber.to_string(),
            sums: *sums,
            estimate_octets: estimate(sums),
        };
        SpanUsage {
            begin: self.calendar.told(span.begin),
            end: self.calendar.told(span.end),
            running: span.holds(self.now),
            sums: all,
            estimate_octets: estimate(&all),
            sims: sims.iter().map(sim).collect(),
        }
    }
}
