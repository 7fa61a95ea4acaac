//! Reading the ledger of an agent that runs, or does not, over a connection of one's own: nothing is written, nobody is kept waiting.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use super::history;
use super::open::{self, BUSY_TIME, beside};
use super::rows::{self, Account};
use super::types::{Granularity, Usage, UsageBucket};
use super::words::Wall;
use crate::units::SubscriberIdentifier;

/// The ledger as it was at one moment: a commit in between is not seen.
#[derive(Debug)]
pub struct Reader {
    db: Connection,
}

impl Reader {
    /// Opens the ledger at `path`, which an agent has open, for reading alone.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, "mode=ro")
    }

    /// Opens the ledger at `path` for reading alone, where no agent runs.
    pub fn open_at_rest(path: &Path) -> Result<Self> {
        let log = std::fs::metadata(beside(path, "-wal")).map_or(0, |log| log.len());
        // Without a log it is whole. Taken for unchangeable it is read without making a log and an index beside it, for which one may have
        // no right, and which would be another user's than the agent's.
        Self::open_with(path, if log == 0 { "mode=ro&immutable=1" } else { "mode=ro" })
    }

    fn open_with(path: &Path, mode: &str) -> Result<Self> {
        // SQLite says no more than that it cannot; the system says why.
        std::fs::File::open(path).with_context(|| format!("the ledger {} cannot be read", path.display()))?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        let db = Connection::open_with_flags(format!("file:{}?{mode}", in_uri(path)), flags)
            .with_context(|| format!("opening the ledger {}", path.display()))?;
        db.busy_timeout(BUSY_TIME)?;
        let found = open::identify(&db).with_context(|| format!("the ledger {} cannot be used", path.display()))?;
        ensure!(
            found == open::newest(),
            "the ledger {} is of schema version {found}, and this program reads version {}: let `weir run` bring it up to date first",
            path.display(),
            open::newest()
        );
        db.execute_batch("BEGIN")?;
        Ok(Self { db })
    }

    /// Visits every roll-up of acknowledged usage.
    pub fn each_acknowledged(&self, granularity: Granularity, visit: impl FnMut(UsageBucket)) -> Result<()> {
        history::each_acknowledged(&self.db, granularity, visit)
    }

    /// Visits what is in containers that nobody has acknowledged, by the five minutes (UTC) in which they were closed.
    pub fn each_waiting(&self, visit: impl FnMut(UsageBucket)) -> Result<()> {
        history::each_waiting(&self.db, visit)
    }

    /// What was counted, by the last checkpoint, after the last container of each open session.
    pub fn open_intervals(&self) -> Result<Vec<(SubscriberIdentifier, Usage)>> {
        let mut open = Vec::new();
        for row in rows::open_sessions(&self.db)? {
            let session = row.opening.session;
            let Some(last) = rows::checkpoint(&self.db, session)? else { continue };
            let closed = rows::total(&self.db, session, Account::Closed)?;
            // Where a container was closed after the last checkpoint, nothing is open.
            let online = last.passed.since(row.opening.base.saturating_add(closed.online)).unwrap_or_default();
            let offline =
                last.throttled.since(row.opening.base_throttled.saturating_add(closed.offline)).unwrap_or_default();
            open.push((row.opening.subscriber, Usage { online, offline }));
        }
        Ok(open)
    }

    /// The start of the oldest hour and of the oldest day that are kept, and when the oldest container was begun that still waits.
    pub fn oldest(&self) -> Result<Oldest> {
        let first = |granularity: Granularity| -> Result<Option<Timestamp>> {
            let sql = "SELECT min(start) FROM history WHERE granularity = ?1";
            let start = self.db.prepare_cached(sql)?.query_row([granularity], |row| row.get::<_, Option<Wall>>(0))?;
            Ok(start.map(|start| start.0))
        };
        let sql = "SELECT min(first_wall) FROM container";
        let waiting = self.db.prepare_cached(sql)?.query_row([], |row| row.get::<_, Option<Wall>>(0))?;
        Ok(Oldest {
            hour: first(Granularity::Hour)?,
            day: first(Granularity::Day)?,
            waiting: waiting.map(|first| first.0),
        })
    }

    /// Each link and a SIM that it has carried.
    pub fn carried(&self) -> Result<Vec<(String, SubscriberIdentifier)>> {
        let mut statement = self.db.prepare_cached("SELECT link, subscriber FROM carried ORDER BY link, subscriber")?;
        Ok(statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?)
    }

    /// Every SIM that there is anything of.
    pub fn subscribers(&self) -> Result<Vec<SubscriberIdentifier>> {
        let sql =
            "SELECT subscriber FROM history UNION SELECT subscriber FROM session UNION SELECT subscriber FROM carried";
        Ok(self.db.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
    }

    /// A setting as it was stored.
    pub fn setting(&self, key: &str) -> Result<Option<String>> {
        let mut statement = self.db.prepare_cached("SELECT value FROM setting WHERE key = ?1")?;
        Ok(statement.query_row([key], |row| row.get(0)).optional()?)
    }
}

/// Where the history begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Oldest {
    /// Start of the oldest hour kept.
    pub hour: Option<Timestamp>,
    /// The oldest date kept, as its midnight in UTC.
    pub day: Option<Timestamp>,
    /// When the usage of the oldest container began that is not acknowledged.
    pub waiting: Option<Timestamp>,
}

/// A path as a URI has it.
fn in_uri(path: &Path) -> String {
    let mut uri = String::new();
    for octet in path.as_os_str().as_encoded_bytes() {
        match octet {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*octet)),
            other => {
                // Writing to a string cannot fail.
                let _ = write!(uri, "%{other:02X}");
            }
        }
    }
    uri
}
