//! What can be wrong with the storage under the ledger, told from an error: most of it passes, damage does not.

use std::fmt;
use std::io::ErrorKind;

use rusqlite::ErrorCode;
use thiserror::Error;

/// Why the ledger cannot be written (or, at the worst, read).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// No space is left, or no quota of the file system.
    Full,
    /// The file system is mounted read-only.
    ReadOnly,
    /// Another process holds the database locked.
    Locked,
    /// The storage fails to read, write or sync.
    Failing,
    /// What is stored contradicts itself or is no database.
    Damaged,
    /// It was there before, and cannot be found or opened now: its file system is unmounted, perhaps to be mended.
    Away,
}

/// A ledger that was there before is not within reach; a new one in its place would know nothing of what is under way.
#[derive(Debug, Error)]
#[error(
    "the ledger {path} is waited for: mount its file system, or put the file back (where it is lost for good, restart weir: it begins a new one)"
)]
pub(super) struct OutOfReach {
    pub(super) path: String,
    pub(super) source: anyhow::Error,
}

/// The ledger was found damaged in a way that `SQLite` itself does not see.
#[derive(Debug, Error)]
#[error("the ledger is damaged: {0}")]
pub(super) struct Damage(pub(super) String);

impl Trouble {
    /// What an error says of the storage; `None` when it is about something else.
    #[must_use]
    pub fn of(error: &anyhow::Error) -> Option<Self> {
        error.chain().find_map(|cause| {
            if cause.is::<Damage>() {
                return Some(Self::Damaged);
            }
            if cause.is::<OutOfReach>() {
                return Some(Self::Away);
            }
            if let Some(error) = cause.downcast_ref::<rusqlite::Error>() {
                return of_sqlite(error);
            }
            match cause.downcast_ref::<std::io::Error>()?.kind() {
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some(Self::Full),
                ErrorKind::ReadOnlyFilesystem => Some(Self::ReadOnly),
                _ => None,
            }
        })
    }
}

fn of_sqlite(error: &rusqlite::Error) -> Option<Trouble> {
    match error {
        // Our own words are right: a table that they name is gone.
        rusqlite::Error::SqliteFailure(_, Some(message)) if message.starts_with("no such ") => Some(Trouble::Damaged),
        rusqlite::Error::SqliteFailure(..) => match error.sqlite_error_code()? {
            ErrorCode::DiskFull => Some(Trouble::Full),
            ErrorCode::ReadOnly => Some(Trouble::ReadOnly),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => Some(Trouble::Locked),
            ErrorCode::SystemIoFailure | ErrorCode::CannotOpen => Some(Trouble::Failing),
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Some(Trouble::Damaged),
            _ => None,
        },
        // What was written by this agent is not what is read.
        rusqlite::Error::SqlInputError { .. }
        | rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..) => Some(Trouble::Damaged),
        _ => None,
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "no space left",
            Self::ReadOnly => "its file system is read-only",
            Self::Locked => "another process holds it locked",
            Self::Failing => "its storage fails",
            Self::Damaged => "it is damaged",
            Self::Away => "it is out of reach",
        })
    }
}
