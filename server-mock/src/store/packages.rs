//! Packages: so many octets for one SIM and rating group, on the terms they were bought on.

use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde::Serialize;

use super::ledger::{self, Entry, EntryKind};
use super::reservations;
use crate::admin::terms::{OfflineGrace, Terms};
use crate::clock::Moment;
use crate::problem::Problem;
use crate::units::{Octets, RatingGroup, Seconds};

/// A package that is in force, or was until its time was over.
#[derive(Clone, Debug)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) subscriber: String,
    pub(crate) rating_group: RatingGroup,
    pub(crate) terms: Terms,
    pub(crate) total: Octets,
    pub(crate) used: Octets,
    pub(crate) offline: Octets,
    pub(crate) valid_until: Option<Moment>,
}

/// A package as its device sees it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PlanEntry {
    subscriber_identifier: String,
    rating_group: RatingGroup,
    package_id: String,
    total_volume: Octets,
    used_volume: Octets,
    reserved_volume: Octets,
    remaining_volume: Octets,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<Moment>,
    report_interval: Seconds,
    chunk: Octets,
    final_unit_action: String,
    when_used_up: String,
    throttle_rate: u64,
    failure_handling: String,
    offline_grace: OfflineGrace,
}

/// A package as whoever runs the server sees it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AdminEntry {
    #[serde(flatten)]
    plan: PlanEntry,
    balance: i64,
    overdrawn_volume: Octets,
    offline_volume: Octets,
}

impl Package {
    /// What can be granted of it, beside what others hold. Nothing once its time is over.
    pub(crate) fn left(&self, held_by_others: Octets, now: Moment) -> Octets {
        if self.is_over(now) { Octets(0) } else { self.total.minus(self.used).minus(held_by_others) }
    }

    pub(crate) fn is_over(&self, now: Moment) -> bool {
        self.valid_until.is_some_and(|end| end <= now)
    }

    pub(crate) fn plan_entry(&self, tx: &Transaction<'_>) -> rusqlite::Result<PlanEntry> {
        let reserved_volume = reservations::held_by_others(tx, (&self.subscriber, self.rating_group), None)?;
        Ok(PlanEntry {
            subscriber_identifier: self.subscriber.clone(),
            rating_group: self.rating_group,
            package_id: self.id.clone(),
            total_volume: self.total,
            used_volume: self.used,
            reserved_volume,
            remaining_volume: self.total.minus(self.used),
            valid_until: self.valid_until,
            report_interval: self.terms.report_interval,
            chunk: self.terms.chunk,
            final_unit_action: self.terms.final_unit_action.clone(),
            when_used_up: self.terms.when_used_up.clone(),
            throttle_rate: self.terms.throttle_rate,
            failure_handling: self.terms.failure_handling.clone(),
            offline_grace: self.terms.offline_grace,
        })
    }

    pub(crate) fn admin_entry(&self, tx: &Transaction<'_>) -> rusqlite::Result<AdminEntry> {
        let (total, used) = (i64::try_from(self.total.0), i64::try_from(self.used.0));
        Ok(AdminEntry {
            plan: self.plan_entry(tx)?,
            // Both come out of SQLite integers, so neither is out of range.
            balance: total.unwrap_or(i64::MAX).saturating_sub(used.unwrap_or(i64::MAX)),
            overdrawn_volume: self.used.minus(self.total),
            offline_volume: self.offline,
        })
    }
}

/// The package that a subscriber's usage is debited from.
pub(crate) fn current(
    tx: &Transaction<'_>,
    subscriber: &str,
    rating_group: RatingGroup,
) -> Result<Option<Package>, Problem> {
    let found = tx
        .prepare_cached(
            "SELECT id, subscriber, rating_group, terms, total, used, offline, valid_until FROM packages
             WHERE subscriber = ?1 AND rating_group = ?2 AND is_current",
        )?
        .query_row(params![subscriber, rating_group], raw)
        .optional()?;
    found.map(parse).transpose()
}

/// The packages of one subscriber, or of all.
pub(crate) fn list(tx: &Transaction<'_>, subscriber: Option<&str>) -> Result<Vec<Package>, Problem> {
    let found = tx
        .prepare_cached(
            "SELECT id, subscriber, rating_group, terms, total, used, offline, valid_until FROM packages
             WHERE (?1 IS NULL OR subscriber = ?1) AND is_current ORDER BY subscriber, rating_group",
        )?
        .query_map([subscriber], raw)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    found.into_iter().map(parse).collect()
}

/// Makes a package; one whose time is over makes room for it.
pub(crate) fn buy(tx: &Transaction<'_>, now: Moment, subscriber: &str, terms: Terms) -> Result<Package, Problem> {
    if let Some(package) = current(tx, subscriber, terms.rating_group)? {
        if !package.is_over(now) {
            let detail = format!("{subscriber} has a package for rating group {}: top it up", terms.rating_group);
            return Err(Problem::conflict("PACKAGE_EXISTS", detail));
        }
        tx.execute("UPDATE packages SET is_current = 0 WHERE id = ?1", [&package.id])?;
    }
    let package = Package {
        id: uuid::Uuid::new_v4().to_string(),
        subscriber: subscriber.to_owned(),
        rating_group: terms.rating_group,
        total: terms.total_volume,
        used: Octets(0),
        offline: Octets(0),
        valid_until: terms.valid_for.map(|seconds| now.plus(seconds)),
        terms,
    };
    tx.execute(
        "INSERT INTO packages (id, subscriber, rating_group, terms, total, valid_until) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            package.id,
            package.subscriber,
            package.rating_group,
            serde_json::to_string(&package.terms)?,
            package.total,
            package.valid_until.map(Moment::millis)
        ],
    )?;
    added(tx, now, EntryKind::Purchase, &package, package.total)?;
    Ok(package)
}

/// Adds octets to a package.
pub(crate) fn top_up(
    tx: &Transaction<'_>,
    now: Moment,
    (subscriber, rating_group): (&str, RatingGroup),
    octets: Octets,
) -> Result<Package, Problem> {
    let Some(mut package) = current(tx, subscriber, rating_group)? else {
        let detail = format!("{subscriber} has no package for rating group {rating_group}");
        return Err(Problem::not_found("PACKAGE_NOT_FOUND", detail));
    };
    package.total = package.total.plus(octets);
    tx.execute("UPDATE packages SET total = ?2 WHERE id = ?1", params![package.id, package.total])?;
    added(tx, now, EntryKind::TopUp, &package, octets)?;
    Ok(package)
}

/// Debits usage, also beyond what the package holds, and books what passed outside the quota.
pub(crate) fn book(
    tx: &Transaction<'_>,
    (subscriber, rating_group): (&str, RatingGroup),
    debited: Octets,
    offline: Octets,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "UPDATE packages SET used = used + ?3, offline = offline + ?4
         WHERE subscriber = ?1 AND rating_group = ?2 AND is_current",
    )?
    .execute(params![subscriber, rating_group, debited, offline])?;
    Ok(())
}

fn added(tx: &Transaction<'_>, now: Moment, kind: EntryKind, package: &Package, total: Octets) -> rusqlite::Result<()> {
    let (subscriber, rating_group) = (package.subscriber.as_str(), package.rating_group);
    let entry = Entry {
        kind,
        subscriber,
        rating_group,
        origin: None,
        local_sequence_number: None,
        total,
        uplink: None,
        downlink: None,
    };
    ledger::write(tx, now, &entry)
}

fn raw(row: &Row<'_>) -> rusqlite::Result<(Package, String)> {
    let package = Package {
        id: row.get(0)?,
        subscriber: row.get(1)?,
        rating_group: row.get(2)?,
        terms: Terms::default(),
        total: row.get(4)?,
        used: row.get(5)?,
        offline: row.get(6)?,
        valid_until: row.get::<_, Option<i64>>(7)?.map(Moment::from_millis),
    };
    Ok((package, row.get(3)?))
}

fn parse((package, terms): (Package, String)) -> Result<Package, Problem> {
    Ok(Package { terms: serde_json::from_str(&terms)?, ..package })
}
