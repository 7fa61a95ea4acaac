//! Roll-ups of acknowledged usage by five minutes, hour, day and month: what stays when sealed messages are gone.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use rusqlite::types::{ToSql, ToSqlOutput};
use rusqlite::{Connection, Row, params};

use super::rows;
use super::types::{Granularity, LabelledContainer, Scope, Usage, UsageBucket};
use super::words::Wall;
use crate::units::SubscriberIdentifier;

const ALL: [Granularity; 4] = [Granularity::FiveMinutes, Granularity::Hour, Granularity::Day, Granularity::Month];

const FIVE_MINUTES: i64 = 300;
const HOUR: i64 = 3600;

/// So many of the newest spans in which anything passed are kept; `None` = all. Counted, not dated: a clock that is a year ahead for a
/// minute costs one of them, and not all that was there.
const fn kept(granularity: Granularity) -> Option<u32> {
    match granularity {
        Granularity::FiveMinutes => Some(2 * 24 * 12),
        Granularity::Hour => Some(60 * 24),
        Granularity::Day => Some(2 * 365),
        Granularity::Month => None,
    }
}

impl ToSql for Granularity {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::FiveMinutes => "5min",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
        .into())
    }
}

/// Start of the span that `wall` lies in, by the clock on a wall in `zone`; see [`UsageBucket::start`].
fn start_of(granularity: Granularity, wall: Timestamp, zone: &TimeZone) -> Result<Timestamp> {
    let date = || wall.to_zoned(zone.clone()).date();
    match granularity {
        Granularity::FiveMinutes => Ok(floor(wall, zone, FIVE_MINUTES)),
        Granularity::Hour => Ok(floor(wall, zone, HOUR)),
        Granularity::Day => named(date()),
        Granularity::Month => named(date().first_of_month()),
    }
}

/// The last moment at which a clock in that zone showed a multiple of so many seconds.
pub(crate) fn floor(at: Timestamp, zone: &TimeZone, seconds: i64) -> Timestamp {
    let offset = i64::from(zone.to_offset(at).seconds());
    let shown = at.as_microsecond().div_euclid(1_000_000) + offset;
    Timestamp::from_second(shown - shown.rem_euclid(seconds) - offset).unwrap_or(at)
}

/// A date as it is stored.
fn named(date: Date) -> Result<Timestamp> {
    Ok(date.to_zoned(TimeZone::UTC)?.timestamp())
}

/// Adds acknowledged containers to their spans: one write a span, however many containers fall into it.
pub(super) fn add(
    db: &Connection,
    subscriber: &SubscriberIdentifier,
    containers: &[LabelledContainer],
    zone: &TimeZone,
) -> Result<()> {
    for granularity in ALL {
        let mut spans = BTreeMap::new();
        for labelled in containers {
            let start = start_of(granularity, labelled.closed_at.wall, zone)?;
            let (usage, synced) = spans.entry(start).or_insert((Usage::ZERO, true));
            *usage = usage.saturating_add(Usage::of(&labelled.container));
            *synced &= labelled.closed_at.synced;
        }
        let mut is_new = false;
        for (start, (usage, synced)) in spans {
            is_new |= add_span(db, granularity, &UsageBucket { subscriber: subscriber.clone(), start, usage, synced })?;
        }
        if let (true, Some(kept)) = (is_new, kept(granularity)) {
            forget_old(db, granularity, kept)?;
        }
    }
    Ok(())
}

/// Adds to a span; true when there was no row of it.
fn add_span(db: &Connection, granularity: Granularity, bucket: &UsageBucket) -> Result<bool> {
    let Usage { online, offline } = bucket.usage;
    let values = params![
        granularity,
        bucket.subscriber,
        Wall(bucket.start),
        online.uplink,
        online.downlink,
        offline.uplink,
        offline.downlink,
        bucket.synced,
    ];
    let added = db
        .prepare_cached(
            "UPDATE history SET uplink = uplink + ?4, downlink = downlink + ?5, offline_uplink = offline_uplink + ?6, \
             offline_downlink = offline_downlink + ?7, synced = min(synced, ?8) \
             WHERE granularity = ?1 AND subscriber = ?2 AND start = ?3",
        )?
        .execute(values)?;
    if added == 0 {
        db.prepare_cached(
            "INSERT INTO history (granularity, subscriber, start, uplink, downlink, offline_uplink, offline_downlink, synced) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(values)?;
    }
    Ok(added == 0)
}

/// Deletes what is older than the newest `kept` spans.
fn forget_old(db: &Connection, granularity: Granularity, kept: u32) -> Result<()> {
    db.prepare_cached(
        "DELETE FROM history WHERE granularity = ?1 AND start < (SELECT start FROM \
         (SELECT DISTINCT start FROM history WHERE granularity = ?1 ORDER BY start DESC LIMIT 1 OFFSET ?2))",
    )?
    .execute(params![granularity, kept - 1])?;
    Ok(())
}

/// The roll-ups of all subscribers, by subscriber and time.
pub(super) fn usage(
    db: &Connection,
    granularity: Granularity,
    scope: Scope,
    zone: &TimeZone,
) -> Result<Vec<UsageBucket>> {
    let mut buckets = BTreeMap::new();
    let mut add = |bucket: UsageBucket| {
        let entry = buckets.entry((bucket.subscriber, bucket.start)).or_insert((Usage::ZERO, true));
        *entry = (entry.0.saturating_add(bucket.usage), entry.1 && bucket.synced);
    };
    each_acknowledged(db, granularity, &mut add)?;
    match scope {
        Scope::Acknowledged => {}
        Scope::Recorded => {
            rows::each_container(db, |subscriber, labelled| {
                let start = start_of(granularity, labelled.closed_at.wall, zone)?;
                let usage = Usage::of(&labelled.container);
                add(UsageBucket { subscriber, start, usage, synced: labelled.closed_at.synced });
                Ok(())
            })?;
        }
    }
    let bucket = |((subscriber, start), (usage, synced))| UsageBucket { subscriber, start, usage, synced };
    Ok(buckets.into_iter().map(bucket).collect())
}

/// Subscriber, start, four sums and whether the clock was synchronised, in this order.
fn bucket(row: &Row<'_>) -> rusqlite::Result<UsageBucket> {
    Ok(UsageBucket {
        subscriber: row.get(0)?,
        start: row.get::<_, Wall>(1)?.0,
        usage: rows::usage(row, 2)?,
        synced: row.get(6)?,
    })
}

/// Every roll-up of acknowledged usage.
pub(super) fn each_acknowledged(
    db: &Connection,
    granularity: Granularity,
    mut visit: impl FnMut(UsageBucket),
) -> Result<()> {
    let mut statement = db.prepare_cached(
        "SELECT subscriber, start, uplink, downlink, offline_uplink, offline_downlink, synced FROM history \
         WHERE granularity = ?1",
    )?;
    let mut found = statement.query([granularity])?;
    while let Some(row) = found.next()? {
        visit(bucket(row)?);
    }
    Ok(())
}

/// What is stored in containers, by the five minutes in which they were closed: neither acknowledged nor rolled up.
pub(super) fn each_waiting(db: &Connection, mut visit: impl FnMut(UsageBucket)) -> Result<()> {
    let mut statement = db.prepare_cached(
        "SELECT subscriber, container.closed_wall / 300000000 * 300000000 AS start, \
         coalesce(sum(uplink) FILTER (WHERE quota_management = 'online'), 0), \
         coalesce(sum(downlink) FILTER (WHERE quota_management = 'online'), 0), \
         coalesce(sum(uplink) FILTER (WHERE quota_management = 'offline'), 0), \
         coalesce(sum(downlink) FILTER (WHERE quota_management = 'offline'), 0), min(container.closed_synced) \
         FROM container JOIN session USING (charging_id) GROUP BY 1, 2",
    )?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        visit(bucket(row)?);
    }
    Ok(())
}
