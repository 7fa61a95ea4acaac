//! The ledger: what was used, sealed, granted and acknowledged, in one `SQLite` file that survives a power cut.
//!
//! Everything the quota core records is committed here, a batch in one transaction (write-ahead log, `synchronous=FULL`), before
//! the next command is carried out. The schema itself refuses what must never happen: a sealed message or a closed container
//! that changes, one that is deleted without an acknowledgement, a gap in the numbers, a second message in flight.
//!
//! The interface is synchronous: a commit is one append to the log and one sync, a few milliseconds on flash.

mod account;
mod anew;
mod apply;
mod damage;
mod history;
mod open;
mod place;
mod reader;
mod report;
mod rows;
mod trouble;
mod types;
mod words;

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use jiff::tz::TimeZone;
use nix::fcntl::Flock;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

pub use self::account::{Accounts, Amount, MessageAccount, SessionAccount, SetAsideAccount, account};
use self::apply::Batch;
pub(crate) use self::history::floor;
pub use self::open::is_within_reach;
use self::place::Place;
pub use self::place::is_persistent;
pub use self::reader::{Oldest, Reader};
use self::rows::{Account, SessionRow};
use self::trouble::Damage;
pub use self::trouble::Trouble;
pub use self::types::{
    Buffered, Committed, Granularity, LabelledContainer, Scope, SealRequest, SealedMessage, SessionAudit, SetAside,
    Usage, UsageBucket, Verdict,
};
use crate::clock::Moment;
use crate::drill;
use crate::quota::{MessageKey, Record, StoredSession};
use crate::units::{BootId, ChargingId, Epoch, LocalSequenceNumber, Octets, SubscriberIdentifier};

/// The open ledger. There is one per file: a lock beside it keeps a second agent away.
#[derive(Debug)]
pub struct Ledger {
    db: Connection,
    boot: BootId,
    /// Where the days and months of the history are told.
    zone: TimeZone,
    /// Attempts of the messages that were sealed in this run; any other stored message may have been sent before.
    attempts: HashMap<MessageKey, u32>,
    /// `None` for a ledger in memory.
    place: Option<Place>,
    /// The file at the ledger's place is closed and has to be opened (again, or anew) before anything can be written.
    is_shut: bool,
    /// Held for as long as the ledger is open; behind `db`, so that it is let go last.
    lock: Option<Flock<File>>,
}

/// The schema version of the ledgers that this agent writes.
#[must_use]
pub const fn schema_version() -> usize {
    open::newest()
}

impl Ledger {
    /// Opens the ledger at `path` and creates it (mode 0600) when it is missing; `:memory:` keeps it in memory. `boot` is the
    /// boot we live in: labels of sessions of an earlier boot are taken from what was recorded then.
    ///
    /// Refused with a word on what to do: a missing or read-only directory, a ledger that another agent holds, a file that is
    /// no ledger, a schema newer than this agent.
    pub fn open(path: impl AsRef<Path>, boot: BootId) -> Result<Self> {
        let opened = open::open(path.as_ref())?;
        Ok(Self {
            db: opened.connection,
            boot,
            zone: TimeZone::UTC,
            attempts: HashMap::new(),
            place: opened.place,
            is_shut: false,
            lock: opened.lock,
        })
    }

    /// Writes a batch in one transaction: all of it, or (on any error, `seal`'s included) nothing.
    ///
    /// `moment` turns the records' instants into labels. `seal` is called for each sealed message, inside the transaction, and
    /// makes its exact bytes; it must not send them.
    pub fn commit(
        &mut self,
        records: &[Record],
        moment: &Moment,
        seal: &mut dyn FnMut(&SealRequest) -> Result<Vec<u8>>,
    ) -> Result<Committed> {
        if records.is_empty() {
            return Ok(Committed::default());
        }
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut batch = Batch {
            db: &transaction,
            boot: &self.boot,
            zone: &self.zone,
            moment,
            committed: Committed::default(),
            sealed: Vec::new(),
        };
        for record in records {
            batch.apply(record, seal).with_context(|| format!("the ledger cannot take {}", subject(record)))?;
        }
        let Batch { committed, sealed, .. } = batch;
        transaction.commit().context("the ledger cannot commit")?;
        drill::sync();
        self.keep_place()?;
        // In this order: what is sealed in the batch that voids an older message of its session is new.
        self.forget_settled(records);
        self.attempts.extend(sealed.into_iter().map(|key| (key, 0)));
        Ok(committed)
    }

    /// All sessions that are not closed, in the order of their opening, exactly as the records told them.
    pub fn restore(&self) -> Result<Vec<StoredSession>> {
        rows::open_sessions(&self.db)?.into_iter().map(|row| stored_session(&self.db, row)).collect()
    }

    /// Whose sessions stay ended by order of the server.
    pub fn aborted(&self) -> Result<Vec<SubscriberIdentifier>> {
        rows::aborted(&self.db)
    }

    /// A sealed message, exactly as it is to be sent; `None` when it is not stored, or set aside.
    pub fn message(&self, key: MessageKey) -> Result<Option<SealedMessage>> {
        let attempts = self.attempts.get(&key).copied();
        let sql = "SELECT operation, subscriber, session_ref, body FROM message JOIN session USING (charging_id) \
            WHERE charging_id = ?1 AND number = ?2 AND state = 'outstanding'";
        let mut statement = self.db.prepare_cached(sql)?;
        let message = statement.query_row(params![key.session, key.number], |row| {
            Ok(SealedMessage {
                key,
                operation: row.get(0)?,
                subscriber: row.get(1)?,
                session_ref: row.get(2)?,
                body: row.get(3)?,
                attempts: attempts.unwrap_or(0),
                retransmission: attempts != Some(0),
            })
        });
        Ok(message.optional()?)
    }

    /// Counts an attempt to send a message, before its first byte leaves, and answers how many this run has made.
    ///
    /// This costs no commit. The server has to be told of a retransmission, and after a crash nobody knows whether the message
    /// had left; so only a message sealed in this very run, and never attempted in it, goes out as a first transmission.
    pub fn count_attempt(&mut self, key: MessageKey) -> Result<u32> {
        ensure!(
            rows::message(&self.db, key)?.is_some(),
            "message {} of session {} is not in the ledger: it cannot be sent",
            key.number,
            key.session
        );
        // A message of an earlier run starts at one attempt of this run: it is a retransmission all the same.
        let attempts = self.attempts.entry(key).or_insert(0);
        *attempts = attempts.saturating_add(1);
        Ok(*attempts)
    }

    /// A name that no session in this ledger ever bore, out of those that `draw` offers. It stays free until a session of that
    /// name is committed.
    pub fn fresh_name(&self, draw: &mut dyn FnMut() -> u32) -> Result<ChargingId> {
        loop {
            let name = ChargingId::new(draw());
            if !self.knows(name)? {
                return Ok(name);
            }
        }
    }

    /// True when a session of that name was ever opened.
    pub fn knows(&self, session: ChargingId) -> Result<bool> {
        Ok(self.db.prepare_cached("SELECT 1 FROM session WHERE charging_id = ?1")?.exists([session])?)
    }

    /// True when any session was ever opened in that epoch: its meter is ours.
    pub fn knows_epoch(&self, epoch: &Epoch) -> Result<bool> {
        let sql = "SELECT 1 FROM session WHERE boot = ?1 AND generation = ?2";
        Ok(self.db.prepare_cached(sql)?.exists(params![epoch.boot, epoch.generation])?)
    }

    /// The books of each open session.
    pub fn audit(&self) -> Result<Vec<SessionAudit>> {
        report::audit(&self.db)
    }

    /// Grants that a session has received.
    pub fn grants(&self, session: ChargingId) -> Result<u32> {
        Ok(rows::session(&self.db, session)?.grants)
    }

    /// Quota octets of a subscriber that the server has acknowledged, over all sessions ever.
    pub fn acknowledged_of(&self, subscriber: &SubscriberIdentifier) -> Result<Octets> {
        report::acknowledged_of(&self.db, subscriber)
    }

    /// Quota octets of a subscriber that are acknowledged, or in closed containers of open sessions.
    pub fn recorded_of(&self, subscriber: &SubscriberIdentifier) -> Result<Octets> {
        report::recorded_of(&self.db, subscriber)
    }

    /// Quota octets in the closed containers of a session.
    pub fn closed_of(&self, session: ChargingId) -> Result<Octets> {
        Ok(rows::total(&self.db, session, Account::Closed)?.online.total())
    }

    /// Usage that is recorded but neither acknowledged nor set aside.
    pub fn buffered(&self) -> Result<Buffered> {
        report::buffered(&self.db)
    }

    /// Octets that may have passed after the last record of their session, over all sessions ever: their counters were lost.
    pub fn uncertain(&self) -> Result<Octets> {
        report::uncertain(&self.db)
    }

    /// The messages that were refused for good or are in doubt, oldest first.
    pub fn set_aside(&self) -> Result<Vec<SetAside>> {
        report::set_aside(&self.db)
    }

    /// Tells the days and months of the history in that zone from now on; what was added before stays where it is. At first it is UTC.
    pub fn keep_days_in(&mut self, zone: TimeZone) {
        self.zone = zone;
    }

    /// Notes that a link carries a SIM, durably; costs nothing when that is known.
    pub fn note_carried(&mut self, link: &str, subscriber: &SubscriberIdentifier) -> Result<()> {
        let pair = params![link, subscriber];
        if self.db.prepare_cached("SELECT 1 FROM carried WHERE link = ?1 AND subscriber = ?2")?.exists(pair)? {
            return Ok(());
        }
        self.db
            .prepare_cached("INSERT INTO carried (link, subscriber) VALUES (?1, ?2)")?
            .execute(pair)
            .with_context(|| format!("noting that {link} carries {subscriber}"))?;
        self.keep_place()
    }

    /// Usage by the span in which its container was closed, by subscriber and time.
    pub fn usage_history(&self, granularity: Granularity, scope: Scope) -> Result<Vec<UsageBucket>> {
        history::usage(&self.db, granularity, scope, &self.zone)
    }

    /// A setting as it was stored.
    pub fn setting(&self, key: &str) -> Result<Option<String>> {
        let mut statement = self.db.prepare_cached("SELECT value FROM setting WHERE key = ?1")?;
        Ok(statement.query_row([key], |row| row.get(0)).optional()?)
    }

    /// Stores a setting, durably.
    pub fn set_setting(&mut self, key: &str, value: &str) -> Result<()> {
        self.db
            .prepare_cached("INSERT OR REPLACE INTO setting (key, value) VALUES (?1, ?2)")?
            .execute([key, value])
            .with_context(|| format!("storing the setting {key}"))?;
        self.keep_place()
    }

    /// Drops the attempt counts of messages that are settled.
    fn forget_settled(&mut self, records: &[Record]) {
        for record in records {
            match record {
                Record::MessageAcknowledged { key, .. }
                | Record::MessageSetAside { key, .. }
                | Record::MessageInDoubt { key, .. } => {
                    self.attempts.remove(key);
                }
                Record::Orphaned { session } => self.attempts.retain(|key, _| key.session != *session),
                Record::SessionOpened(_)
                | Record::ContainerClosed { .. }
                | Record::MessageSealed { .. }
                | Record::MessageNotTaken { .. }
                | Record::MessageAttempted { .. }
                | Record::GraceOpened { .. }
                | Record::SessionClosing { .. }
                | Record::SessionSettled { .. }
                | Record::Aborted { .. }
                | Record::Reauthorised { .. }
                | Record::SessionClosed { .. }
                | Record::Checkpoint { .. }
                | Record::SliceSet { .. }
                | Record::RestUncertain { .. } => {}
            }
        }
    }
}

/// A session as the core takes it up: an error unless it is whole.
fn stored_session(db: &Connection, row: SessionRow) -> Result<StoredSession> {
    let session = row.opening.session;
    let grant = rows::grant(db, session)?;
    // The last grant and grace count as well: a session of schema version 1 has nothing else.
    let ceilings = grant.as_ref().map(|grant| grant.ceiling).into_iter().chain(row.grace.map(|(ceiling, _)| ceiling));
    let highest_ceiling = ceilings.fold(row.highest_ceiling, Octets::max);
    let closed = rows::total(db, session, Account::Closed)?;
    let pending = rows::quota_octets(db, session, row.next_unsealed, row.next_container)?;
    are_all_there(session, (row.next_unsealed, row.next_container), u32::try_from(pending.len())?)?;
    let outstanding = rows::outstanding(db, session)?;
    if let Some(message) = &outstanding {
        let (from, to) = (message.first_container, message.end_container);
        are_all_there(session, (from, to), rows::count(db, session, from, to)?)?;
    }
    Ok(StoredSession {
        opening: row.opening,
        session_ref: row.session_ref,
        closing: row.closing,
        settled: row.settled,
        orphaned: row.orphaned,
        closed: closed.online,
        closed_throttled: closed.offline,
        reported: row.reported,
        next_container: row.next_container,
        next_message: row.next_message,
        pending,
        not_taken: outstanding.as_ref().is_some_and(|row| row.not_taken),
        outstanding: outstanding.map(|row| row.message),
        grant,
        failure_handling: row.failure_handling,
        grace: row.grace,
        checkpoint: rows::checkpoint(db, session)?.map(|row| (row.passed, row.throttled)),
        highest_ceiling,
        slice: row.slice,
        uncertain: row.uncertain,
    })
}

/// None of the containers `from .. to` is missing when so many are there: a number is used once.
fn are_all_there(
    session: ChargingId,
    (from, to): (LocalSequenceNumber, LocalSequenceNumber),
    found: u32,
) -> Result<()> {
    let expected = to.get().saturating_sub(from.get());
    if found == expected {
        return Ok(());
    }
    bail!(Damage(format!("of session {session} {expected} containers from {from} are expected, {found} are there")))
}

/// What a record is about, for errors.
fn subject(record: &Record) -> String {
    let of = |key: &MessageKey| format!("message {} of session {}", key.number, key.session);
    match record {
        Record::SessionOpened(opening) => format!("the opening of session {}", opening.session),
        Record::ContainerClosed { session, container } => {
            format!("container {} of session {session}", container.number)
        }
        Record::MessageSealed { session, message } => format!("message {} of session {session}", message.number),
        Record::MessageAcknowledged { key, .. } => format!("the acknowledgement of {}", of(key)),
        Record::MessageSetAside { key, .. } => format!("the setting aside of {}", of(key)),
        Record::MessageInDoubt { key, .. } => format!("the doubt about {}", of(key)),
        Record::MessageNotTaken { key } | Record::MessageAttempted { key } => format!("an attempt of {}", of(key)),
        Record::Orphaned { session } => format!("the loss of session {session}"),
        Record::GraceOpened { session, .. } => format!("the grace of session {session}"),
        Record::SessionClosing { session, .. } => format!("the closing of session {session}"),
        Record::SessionSettled { session } => format!("the last reading of session {session}"),
        Record::Aborted { subscriber } => format!("the order to abort the sessions of {subscriber}"),
        Record::Reauthorised { subscriber } => format!("the end of the order to abort the sessions of {subscriber}"),
        Record::SessionClosed { session } => format!("the end of session {session}"),
        Record::Checkpoint { session, .. } => format!("a checkpoint of session {session}"),
        Record::SliceSet { session, .. } => format!("the slice of session {session}"),
        Record::RestUncertain { session, .. } => format!("what is uncertain of session {session}"),
    }
}

#[cfg(test)]
mod tests;
