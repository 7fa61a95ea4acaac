//! Roll-ups of acknowledged usage by hour, day and month (UTC): what stays when sealed messages are gone.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use rusqlite::types::{ToSql, ToSqlOutput};
use rusqlite::{Connection, params};

use super::rows;
use super::types::{Granularity, LabelledContainer, Scope, Usage, UsageBucket};
use super::words::Wall;
use crate::units::SubscriberIdentifier;

const ALL: [Granularity; 3] = [Granularity::Hour, Granularity::Day, Granularity::Month];

impl ToSql for Granularity {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
        .into())
    }
}

/// Start of the span that `wall` lies in.
fn start_of(granularity: Granularity, wall: Timestamp) -> Result<Timestamp> {
    let floor = |seconds: i64| {
        let second = wall.as_microsecond().div_euclid(1_000_000);
        Ok(Timestamp::from_second(second - second.rem_euclid(seconds))?)
    };
    match granularity {
        Granularity::Hour => floor(3600),
        Granularity::Day => floor(86_400),
        Granularity::Month => {
            let day = wall.to_zoned(TimeZone::UTC).date().first_of_month();
            Ok(day.to_zoned(TimeZone::UTC)?.timestamp())
        }
    }
}

/// Adds acknowledged containers to their hours, days and months: one write a span, however many containers fall into it.
pub(super) fn add(db: &Connection, subscriber: &SubscriberIdentifier, containers: &[LabelledContainer]) -> Result<()> {
    for granularity in ALL {
        let mut spans = BTreeMap::new();
        for labelled in containers {
            let start = start_of(granularity, labelled.closed_at.wall)?;
            let (usage, synced) = spans.entry(start).or_insert((Usage::ZERO, true));
            *usage = usage.saturating_add(Usage::of(&labelled.container));
            *synced &= labelled.closed_at.synced;
        }
        for (start, (usage, synced)) in spans {
            add_span(db, granularity, &UsageBucket { subscriber: subscriber.clone(), start, usage, synced })?;
        }
    }
    Ok(())
}

fn add_span(db: &Connection, granularity: Granularity, bucket: &UsageBucket) -> Result<()> {
    let Usage { online, offline } = bucket.usage;
    let mut statement = db.prepare_cached(
        "INSERT INTO history (granularity, subscriber, start, uplink, downlink, offline_uplink, offline_downlink, synced) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT DO UPDATE SET \
         uplink = uplink + excluded.uplink, downlink = downlink + excluded.downlink, \
         offline_uplink = offline_uplink + excluded.offline_uplink, \
         offline_downlink = offline_downlink + excluded.offline_downlink, synced = min(synced, excluded.synced)",
    )?;
    statement.execute(params![
        granularity,
        bucket.subscriber,
        Wall(bucket.start),
        online.uplink,
        online.downlink,
        offline.uplink,
        offline.downlink,
        bucket.synced,
    ])?;
    Ok(())
}

/// The roll-ups of all subscribers, by subscriber and time.
pub(super) fn usage(db: &Connection, granularity: Granularity, scope: Scope) -> Result<Vec<UsageBucket>> {
    let mut buckets = BTreeMap::new();
    let mut add = |bucket: UsageBucket| {
        let entry = buckets.entry((bucket.subscriber, bucket.start)).or_insert((Usage::ZERO, true));
        *entry = (entry.0.saturating_add(bucket.usage), entry.1 && bucket.synced);
    };
    acknowledged(db, granularity)?.into_iter().for_each(&mut add);
    match scope {
        Scope::Acknowledged => {}
        Scope::Recorded => {
            rows::each_container(db, |subscriber, labelled| {
                let start = start_of(granularity, labelled.closed_at.wall)?;
                let usage = Usage::of(&labelled.container);
                add(UsageBucket { subscriber, start, usage, synced: labelled.closed_at.synced });
                Ok(())
            })?;
        }
    }
    let bucket = |((subscriber, start), (usage, synced))| UsageBucket { subscriber, start, usage, synced };
    Ok(buckets.into_iter().map(bucket).collect())
}

fn acknowledged(db: &Connection, granularity: Granularity) -> Result<Vec<UsageBucket>> {
    let mut statement = db.prepare_cached(
        "SELECT subscriber, start, uplink, downlink, offline_uplink, offline_downlink, synced FROM history \
         WHERE granularity = ?1",
    )?;
    let buckets = statement.query_map([granularity], |row| {
        let start = row.get::<_, Wall>(1)?.0;
        Ok(UsageBucket { subscriber: row.get(0)?, start, usage: rows::usage(row, 2)?, synced: row.get(6)? })
    })?;
    Ok(buckets.collect::<rusqlite::Result<_>>()?)
}
