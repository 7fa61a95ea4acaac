//! The ledger's books as `status` shows them.

use anyhow::Result;
use rusqlite::Connection;

use super::rows::{self, Account, SessionRow};
use super::types::{Buffered, LabelledContainer, SessionAudit, SetAside, Usage};
use super::words::label;
use crate::clock::Label;
use crate::quota::MessageKey;
use crate::units::{ChargingId, LocalSequenceNumber};

/// The books of each open session.
pub(super) fn audit(db: &Connection) -> Result<Vec<SessionAudit>> {
    rows::open_sessions(db)?.into_iter().map(|row| audit_session(db, row)).collect()
}

fn audit_session(db: &Connection, row: SessionRow) -> Result<SessionAudit> {
    let session = row.opening.session;
    let pending = rows::containers(db, session, row.next_unsealed, row.next_container)?;
    let outstanding = outstanding(db, session)?;
    Ok(SessionAudit {
        session,
        subscriber: row.opening.subscriber,
        session_ref: row.session_ref,
        opened_at: row.opened_at,
        closing: row.closing,
        orphaned: row.orphaned,
        closed: rows::total(db, session, Account::Closed)?,
        reported: row.reported,
        acknowledged: rows::total(db, session, Account::Acknowledged)?,
        pending: sum(&pending),
        pending_containers: pending.len(),
        outstanding: sum(&outstanding),
        set_aside: in_doubt(db)?
            .into_iter()
            .filter(|message| message.key.session == session)
            .map(|message| message.usage)
            .collect(),
        oldest_unreported: oldest(outstanding.iter().chain(&pending)),
        grants: row.grants,
        granted: row.granted,
    })
}

/// Usage that is recorded but neither acknowledged nor set aside.
pub(super) fn buffered(db: &Connection) -> Result<Buffered> {
    // A session with anything left is open: closing it with less is refused.
    let mut waiting = Vec::new();
    for row in rows::open_sessions(db)? {
        waiting.extend(outstanding(db, row.opening.session)?);
        waiting.extend(rows::containers(db, row.opening.session, row.next_unsealed, row.next_container)?);
    }
    Ok(Buffered { containers: waiting.len(), octets: sum(&waiting).total(), oldest: oldest(&waiting) })
}

/// The messages that the server refused for good, oldest first.
pub(super) fn in_doubt(db: &Connection) -> Result<Vec<SetAside>> {
    let mut statement = db.prepare_cached(
        "SELECT charging_id, message.number, operation, subscriber, cause, sealed_wall, sealed_synced, set_aside_wall, \
         set_aside_synced, first_container, first_container + containers \
         FROM message JOIN session USING (charging_id) WHERE state = 'set aside' ORDER BY session.opening, message.number",
    )?;
    let read = statement.query_map([], |row| {
        let message = SetAside {
            key: MessageKey { session: row.get(0)?, number: row.get(1)? },
            operation: row.get(2)?,
            subscriber: row.get(3)?,
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
            let usage = sum(&rows::containers(db, message.key.session, from, to)?);
            Ok(SetAside { usage, ..message })
        })
        .collect()
}

/// The containers of the message that waits for its answer.
fn outstanding(db: &Connection, session: ChargingId) -> Result<Vec<LabelledContainer>> {
    match rows::outstanding(db, session)? {
        Some(message) => rows::containers(db, session, message.first_container, message.end_container),
        None => Ok(Vec::new()),
    }
}

fn sum(containers: &[LabelledContainer]) -> Usage {
    containers.iter().map(|labelled| &labelled.container).collect()
}

fn oldest<'a>(containers: impl IntoIterator<Item = &'a LabelledContainer>) -> Option<Label> {
    containers.into_iter().map(|labelled| labelled.first_usage).min_by_key(|label| label.wall)
}
