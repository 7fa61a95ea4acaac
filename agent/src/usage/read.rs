//! Reads the usage out of a ledger: the agent's own, or that of an agent that does not run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::Calendar;
use super::document::{SCHEMA, SimOfUsage, UsageDocument};
use super::tally::Tally;
use super::wish::{Refusal, Wish};
use crate::clock::Label;
use crate::ledger::{Granularity, Oldest, Reader};
use crate::onboarding::Plan;
use crate::units::{Octets, SubscriberIdentifier};

/// Setting of the ledger that holds the plan.
pub(crate) const PLAN: &str = "plan";

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The agent whose ledger it is.
    Agent,
    /// Somebody else, because no agent is running.
    File,
}

/// Answers a question out of the ledger at `path`. A question that cannot be answered is a [`Refusal`].
pub fn read(path: &Path, calendar: &Calendar, wish: &Wish, (source, now): (Source, Label)) -> Result<UsageDocument> {
    let by = wish.by()?;
    let reader = match source {
        Source::Agent => Reader::open(path)?,
        Source::File => Reader::open_at_rest(path)?,
    };
    let known = Known::of(&reader)?;
    let wanted = known.wanted(wish)?;
    let first = first(reader.oldest()?, calendar).map_or(now.wall, |first| first.min(now.wall));
    let spans = wish.spans(calendar, first, now.wall)?;
    let mut tally = Tally::new(calendar, (by, spans), wanted.clone(), (first, now.wall));
    reader.each_acknowledged(Granularity::Day, |bucket| tally.rolled_up(Granularity::Day, bucket))?;
    if by.granularity() != Granularity::Day {
        reader.each_acknowledged(by.granularity(), |bucket| tally.rolled_up(by.granularity(), bucket))?;
    }
    reader.each_waiting(|bucket| tally.waiting(bucket))?;
    for (subscriber, usage) in reader.open_intervals()? {
        tally.open(subscriber, usage, now.synced);
    }
    let (spans, total, running) = tally.into_spans();
    Ok(UsageDocument {
        schema: SCHEMA,
        at: calendar.told(now.wall),
        clock_synced: now.synced,
        source: match source {
            Source::Agent => "agent".to_owned(),
            Source::File => "file".to_owned(),
        },
        time_zone: calendar.name().to_owned(),
        time_zone_note: calendar.note().map(str::to_owned),
        billing_day: calendar.billing_day().get(),
        by: by.word().to_owned(),
        sims: known.sims(wanted.as_ref(), calendar),
        spans,
        total,
        running,
    })
}

/// When anything was metered for the first time: by the hour, as far as hours are kept.
fn first(oldest: Oldest, calendar: &Calendar) -> Option<Timestamp> {
    let day = oldest.day.map(|day| calendar.day(day.to_zoned(TimeZone::UTC).date()));
    let rolled_up = match (day, oldest.hour) {
        (Some(day), Some(hour)) if day.holds(hour) => Some(hour),
        (Some(day), _) => Some(day.begin),
        (None, hour) => hour,
    };
    rolled_up.into_iter().chain(oldest.waiting).min()
}

/// Which SIMs there are, in which links they have been, and what was bought for them.
struct Known {
    subscribers: BTreeSet<SubscriberIdentifier>,
    links: BTreeMap<String, BTreeSet<SubscriberIdentifier>>,
    plan: Plan,
}

impl Known {
    fn of(reader: &Reader) -> Result<Self> {
        let mut links = BTreeMap::<_, BTreeSet<_>>::new();
        for (link, subscriber) in reader.carried()? {
            links.entry(link).or_default().insert(subscriber);
        }
        let plan = reader.setting(PLAN)?.map(|plan| serde_json::from_str(&plan)).transpose();
        let plan = plan.context("reading the plan kept in the ledger")?.unwrap_or_default();
        Ok(Self { subscribers: reader.subscribers()?.into_iter().collect(), links, plan })
    }

    /// Whose usage is asked for; `None` = everybody's.
    fn wanted(&self, wish: &Wish) -> Result<Option<BTreeSet<SubscriberIdentifier>>, Refusal> {
        let mut wanted = None;
        if let Some(link) = &wish.link {
            let refusal = || unknown("link", link, self.links.keys().map(String::as_str));
            wanted = Some(self.links.get(link).ok_or_else(refusal)?.clone());
        }
        if let Some(sim) = &wish.sim {
            let sim = SubscriberIdentifier::new(sim);
            if !self.subscribers.contains(&sim) {
                return Err(unknown("sim", sim.as_str(), self.subscribers.iter().map(SubscriberIdentifier::as_str)));
            }
            if let (Some(link), Some(carried)) = (&wish.link, &wanted)
                && !carried.contains(&sim)
            {
                return Err(Refusal(format!("sim: {link} has not carried {sim}")));
            }
            wanted = Some(BTreeSet::from([sim]));
        }
        Ok(wanted)
    }

    fn sims(&self, wanted: Option<&BTreeSet<SubscriberIdentifier>>, calendar: &Calendar) -> Vec<SimOfUsage> {
        let counted = self.subscribers.iter().filter(|subscriber| wanted.is_none_or(|them| them.contains(*subscriber)));
        let sim = |subscriber: &SubscriberIdentifier| {
            let links = self.links.iter().filter(|(_, carried)| carried.contains(subscriber));
            let packages = || self.plan.packages.iter().filter(|package| package.subscriber == *subscriber);
            let bought = packages().map(|package| package.total).reduce(Octets::saturating_add);
            SimOfUsage {
                subscriber: subscriber.to_string(),
                links: links.map(|(link, _)| link.clone()).collect(),
                package_octets: bought.map(Octets::get),
                package_valid_until: packages()
                    .filter_map(|package| package.valid_until)
                    .min()
                    .map(|at| calendar.told(at)),
            }
        };
        counted.map(sim).collect()
    }
}

/// An error that names what there is.
fn unknown<'a>(key: &str, written: &str, known: impl Iterator<Item = &'a str>) -> Refusal {
    let known: Vec<_> = known.collect();
    let known = if known.is_empty() { "there is none yet".to_owned() } else { known.join(", ") };
    Refusal(format!("{key}: nothing is recorded of {written:?}; known are: {known}"))
}
