//! The ledger's account for people: each session, what was granted, and where every octet of it is now. Read over a connection of its own.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use serde::{Deserialize, Serialize};

use super::open::{BUSY_TIME, identify, newest};
use super::report;
use super::rows;
use super::types::{SetAside, Usage, Verdict};
use super::words::Wall;
use crate::units::{ChargingId, Octets, UsedUnit};

/// Version of the document's meaning. Members may be added within a version.
const SCHEMA: u32 = 1;
/// Open sessions, closed sessions, and messages set aside that are told of at the most; of others there is the number alone.
const MOST: usize = 100;
/// Closed sessions that are told of, the last ones.
const CLOSED: u32 = 10;

/// What the ledger holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Accounts {
    /// Version of the document's meaning.
    pub schema: u32,
    /// The ledger's file.
    pub ledger: String,
    /// Sessions that are not closed.
    pub open_sessions: usize,
    /// Sessions that are: everything of them is acknowledged or set aside.
    pub closed_sessions: u32,
    /// Octets by which the books of the open sessions do not close; must be 0.
    pub drift_octets: u64,
    /// Octets that may have passed after the last record before counters were lost, over all sessions.
    pub uncertain_octets: u64,
    /// The open sessions, oldest first, a hundred at the most; then the last closed ones, newest first.
    pub sessions: Vec<SessionAccount>,
    /// Messages the server refused for good or that are in doubt, oldest first, a hundred at the most.
    pub set_aside: Vec<SetAsideAccount>,
}

/// One session: `closed` = `acknowledged` + `in_message` + `waiting` + `set_aside`, else there is a drift.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct SessionAccount {
    /// Its charging id.
    pub charging_id: u32,
    /// Who pays.
    pub subscriber: String,
    /// The server's name for it.
    pub session_ref: Option<String>,
    /// `open`, `closing` (the last reading is to be reported), `orphaned` (lost by the server), `closed`.
    pub state: String,
    /// When it was opened, RFC 3339.
    pub opened_at: String,
    /// When it was closed, RFC 3339.
    pub closed_at: Option<String>,
    /// Grants received.
    pub grants: u32,
    /// Octets granted in all of them together; what was not used of one is in the next one again.
    pub granted_octets: u64,
    /// Session octets at which the gate shuts by the last grant.
    pub ceiling_octets: Option<u64>,
    /// Octets of the last grant.
    pub last_grant_octets: Option<u64>,
    /// The server's judgement with the last grant.
    pub last_result: Option<String>,
    /// What comes with the last units, when these are.
    pub final_unit: Option<String>,
    /// In containers, ever.
    pub closed: Amount,
    /// Of `closed`: acknowledged by the server.
    pub acknowledged: Amount,
    /// Of `closed`: in the sealed message that waits for its answer.
    pub in_message: Amount,
    /// That message.
    pub message: Option<MessageAccount>,
    /// Of `closed`: in no message yet.
    pub waiting: Amount,
    /// Containers that hold what is waiting.
    pub waiting_containers: usize,
    /// Of `closed`: in messages refused for good or in doubt.
    pub set_aside: Amount,
    /// Recorded after the last container: in the interval that is open.
    pub interval: Amount,
    /// Octets by which this does not close; must be 0.
    pub drift_octets: u64,
    /// Octets that may have passed after the last record, where the counters were lost.
    pub uncertain_octets: Option<u64>,
}

/// Octets by direction, in and outside the quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Amount {
    /// Octets of the quota, uplink.
    pub uplink_octets: u64,
    /// Octets of the quota, downlink.
    pub downlink_octets: u64,
    /// Octets outside the quota (throttled), both directions.
    pub offline_octets: u64,
}

impl Amount {
    /// All of it.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.uplink_octets.saturating_add(self.downlink_octets).saturating_add(self.offline_octets)
    }
}

impl From<Usage> for Amount {
    fn from(usage: Usage) -> Self {
        Self {
            uplink_octets: usage.online.uplink.get(),
            downlink_octets: usage.online.downlink.get(),
            offline_octets: usage.offline.total().get(),
        }
    }
}

/// A sealed message that waits for its answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct MessageAccount {
    /// Its number in the session.
    pub number: u32,
    /// `create`, `update`, `release`, or `event`.
    pub operation: String,
    /// Containers in it.
    pub containers: u32,
    /// When it was sealed, RFC 3339.
    pub sealed_at: String,
}

/// A message that is not sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct SetAsideAccount {
    /// The session.
    pub charging_id: u32,
    /// Its number in the session.
    pub number: u32,
    /// Who would pay.
    pub subscriber: String,
    /// `refused` by the server for good, or `in doubt`: it may have been taken by a server that would charge it again.
    pub verdict: String,
    /// Why.
    pub cause: String,
    /// The usage it reports.
    pub usage: Amount,
    /// When it was set aside, RFC 3339.
    pub set_aside_at: String,
}

/// The account of the ledger at `path`, whether an agent has it open or not. Nothing is written.
pub fn account(path: &Path) -> Result<Accounts> {
    // SQLite says no more than that it cannot; the system says why.
    std::fs::File::open(path).with_context(|| format!("the ledger {} cannot be read", path.display()))?;
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db =
        Connection::open_with_flags(path, flags).with_context(|| format!("opening the ledger {}", path.display()))?;
    db.busy_timeout(BUSY_TIME)?;
    let found = identify(&db).with_context(|| format!("the ledger {} cannot be used", path.display()))?;
    ensure!(
        found == newest(),
        "the ledger {} is of schema version {found}, and this program reads version {}: let `weir run` bring it up to date first",
        path.display(),
        newest()
    );
    // All of it as it was at one moment.
    db.execute_batch("BEGIN")?;
    read(&db, path).with_context(|| format!("reading the ledger {}", path.display()))
}

fn read(db: &Connection, path: &Path) -> Result<Accounts> {
    let audits = report::audit(db)?;
    let mut sessions = Vec::new();
    for audit in audits.iter().take(MOST) {
        sessions.push(session(db, audit.session)?);
    }
    let mut closed = db.prepare(
        "SELECT charging_id FROM session WHERE closed_wall IS NOT NULL ORDER BY closed_wall DESC, opening DESC LIMIT ?1",
    )?;
    let closed: Vec<ChargingId> = closed.query_map([CLOSED], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    for name in closed {
        sessions.push(session(db, name)?);
    }
    let count = "SELECT count(*) FROM session WHERE closed_wall IS NOT NULL";
    Ok(Accounts {
        schema: SCHEMA,
        ledger: path.display().to_string(),
        open_sessions: audits.len(),
        closed_sessions: db.query_row(count, [], |row| row.get(0))?,
        drift_octets: audits.iter().map(|audit| audit.drift().get()).sum(),
        uncertain_octets: report::uncertain(db)?.get(),
        sessions,
        set_aside: report::set_aside(db)?.iter().take(MOST).map(set_aside).collect(),
    })
}

fn session(db: &Connection, name: ChargingId) -> Result<SessionAccount> {
    let row = rows::session(db, name)?;
    let (opening, is_closed, is_closing) = (row.opening.clone(), row.is_closed, row.closing.is_some());
    let (orphaned, uncertain) = (row.orphaned, row.uncertain);
    let audit = report::audit_session(db, row)?;
    let state = match (is_closed, orphaned, is_closing) {
        (true, _, _) => "closed",
        (false, true, _) => "orphaned",
        (false, false, true) => "closing",
        (false, false, false) => "open",
    };
    let recorded = rows::checkpoint(db, name)?.map(|last| {
        let since = |now: UsedUnit, base: UsedUnit| now.since(base).unwrap_or_default();
        Usage {
            online: since(last.passed, opening.base.saturating_add(audit.closed.online)),
            offline: since(last.throttled, opening.base_throttled.saturating_add(audit.closed.offline)),
        }
    });
    let grant = "SELECT ceiling, octets, result, final_unit FROM grant_last WHERE charging_id = ?1";
    let grant = db.prepare_cached(grant)?.query_row([name], |row| {
        Ok((row.get::<_, Octets>(0)?.get(), row.get::<_, Octets>(1)?.get(), row.get(2)?, row.get(3)?))
    });
    let (ceiling, octets, result, final_unit) = match grant.optional()? {
        Some((ceiling, octets, result, final_unit)) => (Some(ceiling), Some(octets), Some(result), final_unit),
        None => (None, None, None, None),
    };
    let closed_at = "SELECT closed_wall FROM session WHERE charging_id = ?1";
    let closed_at: Option<Wall> = db.prepare_cached(closed_at)?.query_row([name], |row| row.get(0))?;
    Ok(SessionAccount {
        charging_id: name.get(),
        subscriber: audit.subscriber.to_string(),
        session_ref: audit.session_ref.as_ref().map(ToString::to_string),
        state: state.to_owned(),
        opened_at: audit.opened_at.wall.to_string(),
        closed_at: closed_at.map(|at| at.0.to_string()),
        grants: audit.grants,
        granted_octets: audit.granted.get(),
        ceiling_octets: ceiling,
        last_grant_octets: octets,
        last_result: result,
        final_unit,
        closed: audit.closed.into(),
        acknowledged: audit.acknowledged.into(),
        in_message: audit.outstanding.into(),
        message: message(db, name)?,
        waiting: audit.pending.into(),
        waiting_containers: audit.pending_containers,
        set_aside: audit.set_aside.into(),
        interval: recorded.unwrap_or_default().into(),
        drift_octets: audit.drift().get(),
        uncertain_octets: uncertain.map(Octets::get),
    })
}

fn message(db: &Connection, session: ChargingId) -> Result<Option<MessageAccount>> {
    let sql = "SELECT number, operation, containers, sealed_wall FROM message \
        WHERE charging_id = ?1 AND state = 'outstanding'";
    let found = db.prepare_cached(sql)?.query_row([session], |row| {
        Ok(MessageAccount {
            number: row.get(0)?,
            operation: row.get(1)?,
            containers: row.get(2)?,
            sealed_at: row.get::<_, Wall>(3)?.0.to_string(),
        })
    });
    Ok(found.optional()?)
}

fn set_aside(message: &SetAside) -> SetAsideAccount {
    SetAsideAccount {
        charging_id: message.key.session.get(),
        number: message.key.number.get(),
        subscriber: message.subscriber.to_string(),
        verdict: match message.verdict {
            Verdict::Refused => "refused",
            Verdict::InDoubt => "in doubt",
        }
        .to_owned(),
        cause: message.cause.clone(),
        usage: message.usage.into(),
        set_aside_at: message.set_aside_at.wall.to_string(),
    }
}
