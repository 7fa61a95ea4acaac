//! A ledger that is damaged is set aside, never deleted; a new one takes its place, with every session that can still be read whole.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::open::{MODE, beside, prepare};
use super::place::{SUFFIXES, next_aside, remove, set_aside, sync_directory};
use super::{report, rows, stored_session};
use crate::units::ChargingId;

/// Settings that tell of a damaged ledger bear this name and its number.
const SETTING: &str = "damaged-";

/// What a session is made of, in an order in which each row finds what it refers to.
const SESSION_TABLES: [&str; 5] = ["total", "grant_last", "checkpoint", "container", "message"];

/// What became of the sessions of a damaged ledger.
#[derive(Debug, Default)]
struct Salvage {
    sessions: usize,
    /// Which could not be taken over, and what is known of each.
    lost: Vec<String>,
    /// Set when not even the list of sessions could be read to its end.
    list_is_cut: bool,
}

/// Makes a new ledger with what can be salvaged of the damaged one at `path`, sets that aside, and puts the new one in its place.
/// Nobody may have it open. Until the new one is complete nothing is moved.
pub(super) fn replace(path: &Path, cause: &anyhow::Error) -> Result<Connection> {
    let (number, aside) = next_aside(path, "damaged")?;
    let fresh = beside(path, ".new");
    for suffix in SUFFIXES {
        remove(&beside(&fresh, suffix))?;
    }
    let connection = prepare(Connection::open(&fresh)?, &fresh)?;
    let report = describe(&aside, cause, &salvage(&connection, path)?);
    tracing::error!("{report}");
    connection.execute(
        "INSERT OR REPLACE INTO setting (key, value) VALUES (?1, ?2)",
        [&format!("{SETTING}{number}"), &report],
    )?;
    // Closing folds the log in: one file, complete, takes the place.
    connection.close().map_err(|(_, error)| error)?;
    fs::set_permissions(&fresh, Permissions::from_mode(MODE))?;
    set_aside(path, &aside)?;
    fs::rename(&fresh, path).with_context(|| format!("renaming {} to {}", fresh.display(), path.display()))?;
    sync_directory(path)?;
    prepare(Connection::open(path)?, path)
}

/// What is to be said of damaged ledgers for as long as they lie beside the one at `path`: to move one away is to have seen it.
pub(super) fn notices(db: &Connection, path: &Path) -> Result<Vec<String>> {
    let mut statement = db.prepare_cached("SELECT key, value FROM setting WHERE key LIKE 'damaged-%' ORDER BY key")?;
    let all = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    let mut notices = Vec::new();
    for notice in all {
        let (key, text) = notice?;
        if beside(path, &format!(".{key}")).exists() {
            notices.push(text);
        }
    }
    Ok(notices)
}

/// Takes over what can be read. Whatever goes wrong with one session is that session's loss alone.
fn salvage(db: &Connection, damaged: &Path) -> Result<Salvage> {
    let mut salvage = Salvage::default();
    // They guard the order in which rows come to be.
    let triggers = drop_triggers(db)?;
    // What is set aside stays as it was found: its log is read, and not folded in.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    if let Err(error) = try_salvage(db, damaged, &mut salvage) {
        tracing::error!("the damaged ledger can be read no further: {error:#}");
        salvage.list_is_cut = true;
    }
    // It may not be attached; then there is nothing to detach.
    let _ = db.execute_batch("DETACH damaged");
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    db.execute_batch(&triggers)?;
    Ok(salvage)
}

fn try_salvage(db: &Connection, damaged: &Path, salvage: &mut Salvage) -> Result<()> {
    // A file without a page is no database; SQLite would make one of it.
    ensure!(fs::metadata(damaged)?.len() > 0, "there is nothing in it");
    db.execute("ATTACH ?1 AS damaged", [damaged.to_str().context("the ledger's path is not UTF-8")?])?;
    let version = db.pragma_query_value(Some("damaged"), "user_version", |row| row.get::<_, u32>(0));
    // An orderly ledger of an older version does not have all of them.
    for (table, since) in [("setting", 1), ("history", 1), ("aborted", 2), ("carried", 4)] {
        let is_older = version.as_ref().is_ok_and(|version| (1..since).contains(version));
        salvage.list_is_cut |= !is_older && copy_rows(db, table).unwrap_or(true);
    }
    let (sessions, is_cut) = session_names(db)?;
    salvage.list_is_cut |= is_cut;
    for session in sessions {
        match take_over(db, session) {
            Ok(()) => salvage.sessions += 1,
            Err(error) => salvage.lost.push(describe_lost(db, session, &error)),
        }
    }
    Ok(())
}

/// The names of all sessions that can be read, in the order of their opening, and whether there are some that cannot.
fn session_names(db: &Connection) -> Result<(Vec<ChargingId>, bool)> {
    let mut found = BTreeSet::new();
    let mut is_cut = false;
    for order in ["ASC", "DESC"] {
        let sql = format!("SELECT opening, charging_id FROM damaged.session ORDER BY opening {order}");
        let mut statement = db.prepare(&sql)?;
        let mut rows = statement.query([])?;
        loop {
            match rows.next() {
                Ok(Some(row)) => drop(found.insert((row.get::<_, i64>(0)?, row.get::<_, ChargingId>(1)?))),
                Ok(None) => break,
                Err(_) => {
                    is_cut = true;
                    break;
                }
            }
        }
    }
    Ok((found.into_iter().map(|(_, session)| session).collect(), is_cut))
}

/// Copies as many rows of a table as can be read from either end; true when that is not all.
fn copy_rows(db: &Connection, table: &str) -> Result<bool> {
    let columns = columns(db, table)?;
    let marks = vec!["?"; columns.len()].join(", ");
    let columns = columns.join(", ");
    let mut insert = db.prepare(&format!("INSERT OR IGNORE INTO main.{table} ({columns}) VALUES ({marks})"))?;
    let mut is_cut = false;
    for order in ["ASC", "DESC"] {
        let mut statement = db.prepare(&format!("SELECT {columns} FROM damaged.{table} ORDER BY 1 {order}"))?;
        let count = statement.column_count();
        let mut rows = statement.query([])?;
        while !is_cut || order == "DESC" {
            let Ok(next) = rows.next() else {
                is_cut = true;
                break;
            };
            let Some(row) = next else { break };
            let values = (0..count).map(|at| row.get::<_, Value>(at)).collect::<rusqlite::Result<Vec<_>>>()?;
            insert.execute(params_from_iter(values))?;
        }
    }
    Ok(is_cut)
}

/// The columns that both the damaged and the new table have: the damaged one may be of an earlier version.
fn columns(db: &Connection, table: &str) -> Result<Vec<String>> {
    let sql = "SELECT name FROM pragma_table_info(?1, 'damaged') WHERE name IN \
        (SELECT name FROM pragma_table_info(?1, 'main'))";
    let names = db.prepare(sql)?.query_map([table], |row| row.get(0))?.collect::<rusqlite::Result<Vec<_>>>()?;
    ensure!(!names.is_empty(), "the table {table} is not there");
    Ok(names)
}

/// Copies one session with all its rows, if they are whole: the numbers without a gap, the books closing.
fn take_over(db: &Connection, session: ChargingId) -> Result<()> {
    db.execute_batch("SAVEPOINT session")?;
    let taken = copy_session(db, session).and_then(|()| is_whole(db, session));
    if taken.is_err() {
        db.execute_batch("ROLLBACK TO session")?;
    }
    db.execute_batch("RELEASE session")?;
    taken
}

fn copy_session(db: &Connection, session: ChargingId) -> Result<()> {
    for table in std::iter::once("session").chain(SESSION_TABLES) {
        let columns = columns(db, table)?.join(", ");
        let sql = format!(
            "INSERT INTO main.{table} ({columns}) SELECT {columns} FROM damaged.{table} WHERE charging_id = ?1 ORDER BY 1"
        );
        db.execute(&sql, [session]).with_context(|| format!("its rows in {table}"))?;
    }
    Ok(())
}

fn is_whole(db: &Connection, session: ChargingId) -> Result<()> {
    let row = rows::session(db, session)?;
    let drift = report::audit_session(db, rows::session(db, session)?)?.drift();
    ensure!(drift.is_zero(), "its books do not close by {drift} octets");
    stored_session(db, row).map(drop)
}

/// Takes the triggers away, and answers with the words that make them anew.
fn drop_triggers(db: &Connection) -> Result<String> {
    let mut statement = db.prepare("SELECT name, sql FROM main.sqlite_schema WHERE type = 'trigger' ORDER BY rowid")?;
    let triggers: Vec<(String, String)> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
    for (name, _) in &triggers {
        db.execute_batch(&format!("DROP TRIGGER main.{name}"))?;
    }
    Ok(triggers.into_iter().map(|(_, sql)| sql + ";\n").collect())
}

/// What is still known of a session that could not be taken over.
fn describe_lost(db: &Connection, session: ChargingId, error: &anyhow::Error) -> String {
    let sql = "SELECT subscriber, \
        coalesce((SELECT uplink + downlink FROM damaged.total WHERE charging_id = ?1 AND account = 'closed'), 0) - \
        coalesce((SELECT uplink + downlink FROM damaged.total WHERE charging_id = ?1 AND account = 'acknowledged'), 0) \
        FROM damaged.session WHERE charging_id = ?1";
    let known = db.query_row(sql, [session], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)));
    match known {
        Ok((subscriber, octets)) => {
            format!("session {session} of {subscriber} with {octets} octets not acknowledged ({error:#})")
        }
        Err(_) => format!("session {session} ({error:#})"),
    }
}

fn describe(aside: &Path, cause: &anyhow::Error, salvage: &Salvage) -> String {
    let mut text = format!(
        "the ledger was found damaged ({cause:#}) and is set aside as {}; {} sessions were taken over whole",
        aside.display(),
        salvage.sessions
    );
    if !salvage.lost.is_empty() {
        text.push_str("; LOST TO THE RECORD: ");
        text.push_str(&salvage.lost.join(", "));
    }
    if salvage.list_is_cut {
        text.push_str("; LOST TO THE RECORD: whatever could not be read at all");
    }
    text.push_str("; the meters go on counting. Move the file away once you have seen this");
    text
}
