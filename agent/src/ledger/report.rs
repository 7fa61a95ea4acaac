//! The ledger's books as `status` shows them.

use anyhow::Result;
use rusqlite::Connection;

use super::rows::{self, Account, SessionRow};
use super::types::{Buffered, SessionAudit, SetAside, Usage, Verdict};
use super::words::label;
use crate::clock::Label;
use crate::quota::MessageKey;
use crate::units::{ChargingId, LocalSequenceNumber, Octets, SubscriberIdentifier};

/// The books of each open session. Every container is added up anew: with a long backlog that takes its time.
pub(super) fn audit(db: &Connection) -> Result<Vec<SessionAudit>> {
    rows::open_sessions(db)?.into_iter().map(|row| audit_session(db, row)).collect()
}

pub(super) fn audit_session(db: &Connection, row: SessionRow) -> Result<SessionAudit> {
    let session = row.opening.session;
    let outstanding = rows::outstanding(db, session)?;
    let mut oldest = row.next_unsealed;
    let mut in_message = Usage::ZERO;
    if let Some(message) = &outstanding {
        in_message = rows::sum(db, session, message.first_container, message.end_container)?;
        oldest = message.first_container;
    }
    Ok(SessionAudit {
        session,
        closed: rows::total(db, session, Account::Closed)?,
        acknowledged: rows::total(db, session, Account::Acknowledged)?,
        pending: rows::sum(db, session, row.next_unsealed, row.next_container)?,
        pending_containers: usize::try_from(row.next_container.get() - row.next_unsealed.get())?,
        outstanding: in_message,
        set_aside: set_aside_of(db, session)?,
        oldest_unreported: rows::first_usage(db, session, oldest)?,
        subscriber: row.opening.subscriber,
        session_ref: row.session_ref,
        opened_at: row.opened_at,
        closing: row.closing,
        orphaned: row.orphaned,
        reported: row.reported,
        grants: row.grants,
        granted: row.granted,
    })
}

/// Usage that is recorded but neither acknowledged nor set aside, from the running totals.
pub(super) fn buffered(db: &Connection) -> Result<Buffered> {
    // A session with anything left is open: closing it with less is refused.
    let mut waiting = Buffered::default();
    let mut oldest: Option<Label> = None;
    let sql = "SELECT s.charging_id, coalesce(m.first_container, s.next_unsealed), \
        s.next_container - s.next_unsealed + coalesce(m.containers, 0) \
        FROM session s LEFT JOIN message m ON m.charging_id = s.charging_id AND m.state = 'outstanding' \
        WHERE s.closed_wall IS NULL ORDER BY s.opening";
    let mut statement = db.prepare_cached(sql)?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let (session, first): (ChargingId, LocalSequenceNumber) = (row.get(0)?, row.get(1)?);
        let containers = usize::try_from(row.get::<_, u32>(2)?)?;
        if containers == 0 {
            continue;
        }
        let settled = rows::total(db, session, Account::Acknowledged)?.saturating_add(set_aside_of(db, session)?);
        let octets = rows::total(db, session, Account::Closed)?.total().saturating_sub(settled.total());
        waiting.containers += containers;
        waiting.octets = waiting.octets.saturating_add(octets);
        let first = rows::first_usage(db, session, first)?;
        oldest = oldest.into_iter().chain(first).min_by_key(|label| label.wall);
    }
    Ok(Buffered { oldest, ..waiting })
}

/// Quota octets of a subscriber that the server has acknowledged: the months of its history hold them all.
pub(super) fn acknowledged_of(db: &Connection, subscriber: &SubscriberIdentifier) -> Result<Octets> {
    let sql = "SELECT coalesce(sum(uplink + downlink), 0) FROM history WHERE granularity = 'month' AND subscriber = ?1";
    Ok(db.prepare_cached(sql)?.query_row([subscriber], |row| row.get(0))?)
}

/// The same, and what is closed and not acknowledged in its open sessions.
pub(super) fn recorded_of(db: &Connection, subscriber: &SubscriberIdentifier) -> Result<Octets> {
    let sql = "SELECT coalesce(sum(CASE account WHEN 'closed' THEN uplink + downlink ELSE -(uplink + downlink) END), 0) \
        FROM total JOIN session USING (charging_id) WHERE subscriber = ?1 AND closed_wall IS NULL";
    let waiting: Octets = db.prepare_cached(sql)?.query_row([subscriber], |row| row.get(0))?;
    Ok(acknowledged_of(db, subscriber)?.saturating_add(waiting))
}

/// What the messages of a session hold that the server refused for good, or that are in doubt.
fn set_aside_of(db: &Connection, session: ChargingId) -> Result<Usage> {
    let sql = "SELECT first_container, first_container + containers FROM message \
        WHERE charging_id = ?1 AND state = 'set aside'";
    let mut statement = db.prepare_cached(sql)?;
    let ranges = statement.query_map([session], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let mut sum = Usage::ZERO;
    for range in ranges {
        let (from, to) = range?;
        sum = sum.saturating_add(rows::sum(db, session, from, to)?);
    }
    Ok(sum)
}

/// What may have passed after the last record, over all sessions ever.
pub(super) fn uncertain(db: &Connection) -> Result<Octets> {
    let mut statement = db.prepare_cached("SELECT uncertain FROM session WHERE uncertain IS NOT NULL")?;
    let each = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<Octets>>>()?;
    Ok(each.into_iter().fold(Octets::ZERO, Octets::saturating_add))
}

/// The messages that were refused for good or are in doubt, oldest first.
pub(super) fn set_aside(db: &Connection) -> Result<Vec<SetAside>> {
    let mut statement = db.prepare_cached(
        "SELECT charging_id, message.number, operation, subscriber, cause, sealed_wall, sealed_synced, set_aside_wall, \
         set_aside_synced, first_container, first_container + containers, in_doubt \
         FROM message JOIN session USING (charging_id) WHERE state = 'set aside' ORDER BY session.opening, message.number",
    )?;
    let read = statement.query_map([], |row| {
        let message = SetAside {
            key: MessageKey { session: row.get(0)?, number: row.get(1)? },
            operation: row.get(2)?,
            subscriber: row.get(3)?,
            verdict: if row.get(11)? { Verdict::InDoubt } else { Verdict::Refused },
            cause: row.get(4)?,
            usage: Usage::ZERO,
            sealed_at: label(row, 5)?,
            set_aside_at: label(row, 7)?,
        };
        Ok((message, row.get(9)?, row.get(10)?))
    })?;
    let read: Vec<(SetAside, LocalSequenceNumber, LocalSequenceNumber)> = read.collect::<rusqlite::Result<_>>()?;
    read.into_iter()
        .map(|(message, from, to)| {
            let usage = rows::sum(db, message.key.session, from, to)?;
            Ok(SetAside { usage, ..message })
        })
        .collect()
}
