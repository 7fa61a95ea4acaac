//! The rows of sessions, containers and messages as values.

use anyhow::{Context, Result};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::types::{LabelledContainer, Usage};
use super::words::{label, span, used};
use crate::clock::Label;
use crate::quota::{Container, FailureHandling, Grant, Message, MessageKey, SessionOpening, Trigger};
use crate::units::{
    BootInstant, ChargingId, Epoch, InvocationSequenceNumber, LocalSequenceNumber, Octets, SessionRef,
    SubscriberIdentifier, UsedUnit,
};

const SESSION: &str = "charging_id, orphaned, subscriber, boot, generation, base_uplink, base_downlink, \
    base_throttled_uplink, base_throttled_downlink, opened_at, opened_wall, opened_synced, session_ref, closing, \
    next_container, next_unsealed, next_message, last_acknowledged, reported, accounted_wall, accounted_synced, \
    grace_ceiling, grace_until, grants, granted, closed_wall IS NOT NULL, settled, failure_handling, highest_ceiling, \
     slice, uncertain";

const CONTAINER: &str = "number, uplink, downlink, quota_management, trigger_type, first_usage, last_usage, closed_at, \
    first_wall, first_synced, last_wall, last_synced, closed_wall, closed_synced";

/// A session as it is stored.
pub(super) struct SessionRow {
    pub(super) opening: SessionOpening,
    pub(super) opened_at: Label,
    pub(super) session_ref: Option<SessionRef>,
    pub(super) closing: Option<Trigger>,
    pub(super) settled: bool,
    pub(super) orphaned: bool,
    pub(super) next_container: LocalSequenceNumber,
    /// The oldest container that is in no message.
    pub(super) next_unsealed: LocalSequenceNumber,
    pub(super) next_message: InvocationSequenceNumber,
    pub(super) last_acknowledged: Option<InvocationSequenceNumber>,
    pub(super) reported: Octets,
    /// How far usage is accounted for: the opening, then the end of the last container.
    pub(super) accounted: Label,
    /// What the server asked for last to be done without an answer.
    pub(super) failure_handling: Option<FailureHandling>,
    pub(super) grace: Option<(Octets, BootInstant)>,
    pub(super) grants: u32,
    pub(super) granted: Octets,
    pub(super) is_closed: bool,
    /// Session octets at which the gate shut at the highest; zero in a session of schema version 1.
    pub(super) highest_ceiling: Octets,
    pub(super) slice: Option<Octets>,
    pub(super) uncertain: Option<Octets>,
}

fn session_row(row: &Row<'_>) -> rusqlite::Result<SessionRow> {
    Ok(SessionRow {
        opening: SessionOpening {
            session: row.get(0)?,
            subscriber: row.get(2)?,
            epoch: Epoch { boot: row.get(3)?, generation: row.get(4)? },
            base: used(row, 5)?,
            base_throttled: used(row, 7)?,
            opened_at: row.get(9)?,
        },
        opened_at: label(row, 10)?,
        session_ref: row.get(12)?,
        closing: row.get(13)?,
        settled: row.get(26)?,
        orphaned: row.get(1)?,
        next_container: row.get(14)?,
        next_unsealed: row.get(15)?,
        next_message: row.get(16)?,
        last_acknowledged: row.get(17)?,
        reported: row.get(18)?,
        accounted: label(row, 19)?,
        failure_handling: row.get(27)?,
        grace: row.get::<_, Option<_>>(21)?.zip(row.get(22)?),
        grants: row.get(23)?,
        granted: row.get(24)?,
        is_closed: row.get(25)?,
        highest_ceiling: row.get(28)?,
        slice: row.get(29)?,
        uncertain: row.get(30)?,
    })
}

/// The session of that name, open or closed.
pub(super) fn session(db: &Connection, session: ChargingId) -> Result<SessionRow> {
    let sql = format!("SELECT {SESSION} FROM session WHERE charging_id = ?1");
    let row = db.prepare_cached(&sql)?.query_row([session], session_row).optional()?;
    row.with_context(|| format!("session {session} is not in the ledger"))
}

/// All open sessions, in the order of their opening.
pub(super) fn open_sessions(db: &Connection) -> Result<Vec<SessionRow>> {
    let sql = format!("SELECT {SESSION} FROM session WHERE closed_wall IS NULL ORDER BY opening");
    Ok(db.prepare_cached(&sql)?.query_map([], session_row)?.collect::<rusqlite::Result<_>>()?)
}

/// Whose sessions stay ended by order of the server.
pub(super) fn aborted(db: &Connection) -> Result<Vec<SubscriberIdentifier>> {
    let mut statement = db.prepare_cached("SELECT subscriber FROM aborted ORDER BY subscriber")?;
    Ok(statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
}

fn container_row(row: &Row<'_>) -> rusqlite::Result<LabelledContainer> {
    Ok(LabelledContainer {
        container: Container {
            number: row.get(0)?,
            used: used(row, 1)?,
            quota_management: row.get(3)?,
            trigger: row.get(4)?,
            first_usage: row.get(5)?,
            last_usage: row.get(6)?,
            closed_at: row.get(7)?,
        },
        first_usage: label(row, 8)?,
        last_usage: label(row, 10)?,
        closed_at: label(row, 12)?,
    })
}

/// Containers of a session with numbers in `from .. to`, oldest first.
pub(super) fn containers(
    db: &Connection,
    session: ChargingId,
    from: LocalSequenceNumber,
    to: LocalSequenceNumber,
) -> Result<Vec<LabelledContainer>> {
    let sql = format!(
        "SELECT {CONTAINER} FROM container WHERE charging_id = ?1 AND number >= ?2 AND number < ?3 ORDER BY number"
    );
    let mut statement = db.prepare_cached(&sql)?;
    Ok(statement.query_map(params![session, from, to], container_row)?.collect::<rusqlite::Result<_>>()?)
}

/// Quota octets of the containers of a session with numbers in `from .. to`, oldest first.
pub(super) fn quota_octets(
    db: &Connection,
    session: ChargingId,
    from: LocalSequenceNumber,
    to: LocalSequenceNumber,
) -> Result<Vec<Octets>> {
    let sql = "SELECT CASE quota_management WHEN 'online' THEN uplink + downlink ELSE 0 END FROM container \
        WHERE charging_id = ?1 AND number >= ?2 AND number < ?3 ORDER BY number";
    // Of one size from the start: a backlog may hold a million of them.
    let mut octets = Vec::with_capacity(usize::try_from(to.get().saturating_sub(from.get()))?.min(1 << 20));
    let mut statement = db.prepare_cached(sql)?;
    for row in statement.query_map(params![session, from, to], |row| row.get(0))? {
        octets.push(row?);
    }
    Ok(octets)
}

/// How many containers of a session with numbers in `from .. to` are stored.
pub(super) fn count(
    db: &Connection,
    session: ChargingId,
    from: LocalSequenceNumber,
    to: LocalSequenceNumber,
) -> Result<u32> {
    let sql = "SELECT count(*) FROM container WHERE charging_id = ?1 AND number >= ?2 AND number < ?3";
    Ok(db.prepare_cached(sql)?.query_row(params![session, from, to], |row| row.get(0))?)
}

/// The sum of the containers of a session with numbers in `from .. to`.
pub(super) fn sum(
    db: &Connection,
    session: ChargingId,
    from: LocalSequenceNumber,
    to: LocalSequenceNumber,
) -> Result<Usage> {
    let sql = "SELECT coalesce(sum(uplink) FILTER (WHERE quota_management = 'online'), 0), \
        coalesce(sum(downlink) FILTER (WHERE quota_management = 'online'), 0), \
        coalesce(sum(uplink) FILTER (WHERE quota_management = 'offline'), 0), \
        coalesce(sum(downlink) FILTER (WHERE quota_management = 'offline'), 0) \
        FROM container WHERE charging_id = ?1 AND number >= ?2 AND number < ?3";
    Ok(db.prepare_cached(sql)?.query_row(params![session, from, to], |row| usage(row, 0))?)
}

/// When the usage of a container began.
pub(super) fn first_usage(db: &Connection, session: ChargingId, number: LocalSequenceNumber) -> Result<Option<Label>> {
    let sql = "SELECT first_wall, first_synced FROM container WHERE charging_id = ?1 AND number = ?2";
    Ok(db.prepare_cached(sql)?.query_row(params![session, number], |row| label(row, 0)).optional()?)
}

/// What became of a sealed message that is still stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageState {
    Outstanding,
    SetAside,
}

/// A sealed message but for its bytes.
pub(super) struct MessageRow {
    pub(super) message: Message,
    pub(super) first_container: LocalSequenceNumber,
    /// The number behind its last container.
    pub(super) end_container: LocalSequenceNumber,
    pub(super) state: MessageState,
    /// Whether no attempt so far was taken, for certain.
    pub(super) not_taken: bool,
}

const MESSAGE: &str = "number, operation, requested, first_container, first_container + containers, trigger_type, reported, sealed_at, state = 'outstanding', not_taken";

fn message_row(row: &Row<'_>) -> rusqlite::Result<MessageRow> {
    let (first, end): (LocalSequenceNumber, LocalSequenceNumber) = (row.get(3)?, row.get(4)?);
    Ok(MessageRow {
        message: Message {
            number: row.get(0)?,
            operation: row.get(1)?,
            requested: row.get(2)?,
            containers: (first.get()..end.get()).map(LocalSequenceNumber::new).collect(),
            trigger: row.get(5)?,
            reported: row.get(6)?,
            sealed_at: row.get(7)?,
        },
        first_container: first,
        end_container: end,
        state: if row.get(8)? { MessageState::Outstanding } else { MessageState::SetAside },
        not_taken: row.get(9)?,
    })
}

fn one_message(db: &Connection, filter: &str, params: &[&dyn ToSql]) -> Result<Option<MessageRow>> {
    let sql = format!("SELECT {MESSAGE} FROM message WHERE {filter}");
    Ok(db.prepare_cached(&sql)?.query_row(params, message_row).optional()?)
}

/// The stored message of that name.
pub(super) fn message(db: &Connection, key: MessageKey) -> Result<Option<MessageRow>> {
    one_message(db, "charging_id = ?1 AND number = ?2", &[&key.session, &key.number])
}

/// The message of that session that waits for its answer.
pub(super) fn outstanding(db: &Connection, session: ChargingId) -> Result<Option<MessageRow>> {
    one_message(db, "charging_id = ?1 AND state = 'outstanding'", &[&session])
}

/// A running total of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// Every container ever closed.
    Closed,
    /// Acknowledged by the server.
    Acknowledged,
}

impl Account {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Acknowledged => "acknowledged",
        }
    }
}

/// The usage in four columns from `at`.
pub(super) fn usage(row: &Row<'_>, at: usize) -> rusqlite::Result<Usage> {
    Ok(Usage { online: used(row, at)?, offline: used(row, at + 2)? })
}

/// A running total; nothing when there is none yet.
pub(super) fn total(db: &Connection, session: ChargingId, account: Account) -> Result<Usage> {
    let sql =
        "SELECT uplink, downlink, offline_uplink, offline_downlink FROM total WHERE charging_id = ?1 AND account = ?2";
    let total = db.prepare_cached(sql)?.query_row(params![session, account.name()], |row| usage(row, 0)).optional()?;
    Ok(total.unwrap_or_default())
}

/// The last grant of a session.
pub(super) fn grant(db: &Connection, session: ChargingId) -> Result<Option<Grant>> {
    let sql = "SELECT ceiling, octets, threshold, valid_until, holding, final_unit, result, exceptions FROM grant_last WHERE charging_id = ?1";
    let read = |row: &Row<'_>| {
        Ok(Grant {
            ceiling: row.get(0)?,
            octets: row.get(1)?,
            threshold: row.get(2)?,
            valid_until: row.get(3)?,
            holding: row.get::<_, Option<_>>(4)?.map(span),
            final_unit: row.get(5)?,
            result: row.get(6)?,
            exceptions: row.get(7)?,
        })
    };
    Ok(db.prepare_cached(sql)?.query_row([session], read).optional()?)
}

/// A cumulative reading of a session's epoch.
pub(super) struct CheckpointRow {
    pub(super) passed: UsedUnit,
    pub(super) throttled: UsedUnit,
    pub(super) read_at: Label,
}

/// The last checkpoint of a session.
pub(super) fn checkpoint(db: &Connection, session: ChargingId) -> Result<Option<CheckpointRow>> {
    let sql = "SELECT passed_uplink, passed_downlink, throttled_uplink, throttled_downlink, read_wall, read_synced \
        FROM checkpoint WHERE charging_id = ?1";
    let read =
        |row: &Row<'_>| Ok(CheckpointRow { passed: used(row, 0)?, throttled: used(row, 2)?, read_at: label(row, 4)? });
    Ok(db.prepare_cached(sql)?.query_row([session], read).optional()?)
}

/// Every container that is still stored, with who pays for it: one at a time, there may be a million.
pub(super) fn each_container(
    db: &Connection,
    mut visit: impl FnMut(SubscriberIdentifier, LabelledContainer) -> Result<()>,
) -> Result<()> {
    let sql = format!(
        "SELECT {CONTAINER}, (SELECT subscriber FROM session s WHERE s.charging_id = container.charging_id) FROM container"
    );
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        visit(row.get(14)?, container_row(row)?)?;
    }
    Ok(())
}
