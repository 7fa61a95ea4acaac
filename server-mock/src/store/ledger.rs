//! Ledger entries: what was debited, granted and given back, in the order in which it happened.

use rusqlite::{OptionalExtension as _, Transaction, named_params, params};
use serde::Serialize;

use crate::clock::Moment;
use crate::units::{ChargingId, LocalSequenceNumber, Octets, RatingGroup};

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    Debit,
    Offline,
    Duplicate,
    Grant,
    Release,
    Expire,
    Purchase,
    TopUp,
}

impl EntryKind {
    pub(crate) const ALL: [Self; 8] = [
        Self::Debit,
        Self::Offline,
        Self::Duplicate,
        Self::Grant,
        Self::Release,
        Self::Expire,
        Self::Purchase,
        Self::TopUp,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Debit => "debit",
            Self::Offline => "offline",
            Self::Duplicate => "duplicate",
            Self::Grant => "grant",
            Self::Release => "release",
            Self::Expire => "expire",
            Self::Purchase => "purchase",
            Self::TopUp => "top-up",
        }
    }
}

/// An entry to be written.
#[derive(Clone, Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) kind: EntryKind,
    pub(crate) subscriber: &'a str,
    pub(crate) rating_group: RatingGroup,
    pub(crate) origin: Option<Origin<'a>>,
    pub(crate) local_sequence_number: Option<LocalSequenceNumber>,
    pub(crate) total: Octets,
    pub(crate) uplink: Option<Octets>,
    pub(crate) downlink: Option<Octets>,
}

/// The session, or the one-time event, that an entry comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    pub(crate) nf_name: &'a str,
    pub(crate) charging_id: ChargingId,
    /// None for a one-time event.
    pub(crate) session: Option<&'a str>,
}

/// An entry as it is shown.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    id: i64,
    at: Moment,
    kind: String,
    subscriber_identifier: String,
    rating_group: RatingGroup,
    package_id: Option<String>,
    #[serde(rename = "nFName")]
    nf_name: Option<String>,
    charging_id: Option<ChargingId>,
    #[serde(rename = "ref")]
    session: Option<String>,
    local_sequence_number: Option<LocalSequenceNumber>,
    total_volume: Option<Octets>,
    uplink_volume: Option<Octets>,
    downlink_volume: Option<Octets>,
    balance: Option<i64>,
}

/// Which entries to show.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    pub(crate) subscriber: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) after: i64,
    pub(crate) limit: u32,
}

/// Sums of one subscriber.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Sums {
    subscriber_identifier: String,
    debited_volume: Octets,
    debited_uplink_volume: Octets,
    debited_downlink_volume: Octets,
    offline_volume: Octets,
    debits: i64,
    duplicates: i64,
}

/// The package that entries are about, and its balance: kept in step by whoever books several in a row.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    package: String,
    balance: i64,
}

impl Standing {
    /// As of now; None where there is no package.
    pub(crate) fn of(
        tx: &Transaction<'_>,
        subscriber: &str,
        rating_group: RatingGroup,
    ) -> rusqlite::Result<Option<Self>> {
        tx.prepare_cached(
            "SELECT id, total - used FROM packages WHERE subscriber = ?1 AND rating_group = ?2 AND is_current",
        )?
        .query_row(params![subscriber, rating_group], |row| Ok(Self { package: row.get(0)?, balance: row.get(1)? }))
        .optional()
    }

    /// After so many octets more were debited.
    pub(crate) fn debit(&mut self, octets: Octets) {
        self.balance = self.balance.saturating_sub(i64::try_from(octets.0).unwrap_or(i64::MAX));
    }
}

/// Writes an entry; its package and balance are those of this moment, so write it after what it tells of.
pub(crate) fn write(tx: &Transaction<'_>, now: Moment, entry: &Entry<'_>) -> rusqlite::Result<()> {
    let standing = Standing::of(tx, entry.subscriber, entry.rating_group)?;
    write_with(tx, now, entry, standing.as_ref())
}

/// Writes an entry with the package and balance that the caller knows.
pub(crate) fn write_with(
    tx: &Transaction<'_>,
    now: Moment,
    entry: &Entry<'_>,
    standing: Option<&Standing>,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO ledger (at, kind, subscriber, rating_group, nf_name, charging_id, ref, local_sequence_number,
                             total, uplink, downlink, package_id, balance)
         VALUES (:at, :kind, :subscriber, :rating_group, :nf_name, :charging_id, :ref, :local, :total, :uplink, :downlink,
                 :package, :balance)",
    )?
    .execute(named_params! {
        ":at": now.millis(), ":kind": entry.kind.name(), ":subscriber": entry.subscriber,
        ":rating_group": entry.rating_group,
        ":nf_name": entry.origin.map(|origin| origin.nf_name),
        ":charging_id": entry.origin.map(|origin| origin.charging_id),
        ":ref": entry.origin.and_then(|origin| origin.session),
        ":local": entry.local_sequence_number,
        ":total": entry.total, ":uplink": entry.uplink, ":downlink": entry.downlink,
        ":package": standing.map(|standing| standing.package.as_str()),
        ":balance": standing.map(|standing| standing.balance),
    })?;
    Ok(())
}

/// Entries by rising number.
pub(crate) fn list(tx: &Transaction<'_>, filter: &Filter) -> rusqlite::Result<Vec<Shown>> {
    tx.prepare(
        "SELECT id, at, kind, subscriber, rating_group, package_id, nf_name, charging_id, ref, local_sequence_number,
                total, uplink, downlink, balance
         FROM ledger
         WHERE (:subscriber IS NULL OR subscriber = :subscriber) AND (:kind IS NULL OR kind = :kind) AND id > :after
         ORDER BY id LIMIT :limit",
    )?
    .query_map(
        named_params! {
            ":subscriber": filter.subscriber, ":kind": filter.kind, ":after": filter.after, ":limit": filter.limit,
        },
        |row| {
            Ok(Shown {
                id: row.get(0)?,
                at: Moment::from_millis(row.get(1)?),
                kind: row.get(2)?,
                subscriber_identifier: row.get(3)?,
                rating_group: row.get(4)?,
                package_id: row.get(5)?,
                nf_name: row.get(6)?,
                charging_id: row.get(7)?,
                session: row.get(8)?,
                local_sequence_number: row.get(9)?,
                total_volume: row.get(10)?,
                uplink_volume: row.get(11)?,
                downlink_volume: row.get(12)?,
                balance: row.get(13)?,
            })
        },
    )?
    .collect()
}

/// The sums of each subscriber of the SIM pool, from the entries alone.
pub(crate) fn sums(tx: &Transaction<'_>) -> rusqlite::Result<Vec<Sums>> {
    tx.prepare(
        "SELECT s.subscriber,
                coalesce(sum(l.total) FILTER (WHERE l.kind = 'debit'), 0),
                coalesce(sum(l.uplink) FILTER (WHERE l.kind = 'debit'), 0),
                coalesce(sum(l.downlink) FILTER (WHERE l.kind = 'debit'), 0),
                coalesce(sum(l.total) FILTER (WHERE l.kind = 'offline'), 0),
                count(*) FILTER (WHERE l.kind = 'debit'),
                count(*) FILTER (WHERE l.kind = 'duplicate')
         FROM sims s LEFT JOIN ledger l ON l.subscriber = s.subscriber
         GROUP BY s.subscriber ORDER BY s.subscriber",
    )?
    .query_map([], |row| {
        Ok(Sums {
            subscriber_identifier: row.get(0)?,
            debited_volume: row.get(1)?,
            debited_uplink_volume: row.get(2)?,
            debited_downlink_volume: row.get(3)?,
            offline_volume: row.get(4)?,
            debits: row.get(5)?,
            duplicates: row.get(6)?,
        })
    })?
    .collect()
}
