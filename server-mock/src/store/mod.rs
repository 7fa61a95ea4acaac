//! The books: one SQLite connection, one transaction for each piece of work.

pub(crate) mod bindings;
pub(crate) mod commands;
pub(crate) mod ledger;
pub(crate) mod packages;
pub(crate) mod reservations;

use anyhow::Context as _;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::{Clock, Moment};
use crate::problem::Problem;
use crate::server::Database;

const SCHEMA_VERSION: u32 = 1;
const SCHEMA: &str = include_str!("schema.sql");

/// The books. Work is done one piece at a time, in the order in which it came.
#[derive(Clone)]
pub(crate) struct Store {
    connection: Arc<Mutex<Connection>>,
    database: Database,
    clock: Clock,
}

impl Store {
    pub(crate) fn open(database: Database, clock: Clock) -> anyhow::Result<Self> {
        let connection = Arc::new(Mutex::new(connect(&database)?));
        Ok(Self { connection, database, clock })
    }

    /// Does a piece of work in one transaction: all of it holds, durably, or none of it.
    ///
    /// Reservations that are over end first, so whatever the work reads is as of `now`.
    pub(crate) async fn run<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: FnOnce(&Transaction<'_>, Moment) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<rusqlite::Error> + Send + 'static,
    {
        let (connection, clock) = (Arc::clone(&self.connection), self.clock.clone());
        blocking(move || {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let now = clock.now();
            reservations::expire(&transaction, now)?;
            // An error drops the transaction, and that rolls it back.
            let done = work(&transaction, now)?;
            transaction.commit()?;
            Ok(done)
        })
        .await
    }

    /// Closes the database and opens it again, as a restart would.
    pub(crate) async fn reopen(&self) -> Result<(), Problem> {
        let (connection, database) = (Arc::clone(&self.connection), self.database.clone());
        blocking(move || {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            *connection = connect(&database).map_err(|error| Problem::failure(format!("{error:#}")))?;
            Ok(())
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Cancelled: the runtime is going down, and nobody waits for this any more.
            Err(_) => std::future::pending().await,
        },
    }
}

fn connect(database: &Database) -> anyhow::Result<Connection> {
    let (connection, name) = match database {
        Database::Memory => (Connection::open_in_memory(), ":memory:".to_owned()),
        Database::File(path) => (Connection::open(path), path.display().to_string()),
    };
    let connection = connection.with_context(|| format!("opening the database {name}"))?;
    prepare(&connection).with_context(|| format!("preparing the database {name}"))?;
    Ok(connection)
}

fn prepare(connection: &Connection) -> anyhow::Result<()> {
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    // More than a charging message uses: with fewer places each container has its statements parsed anew.
    connection.set_prepared_statement_cache_capacity(128);
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    match version {
        0 => connection.execute_batch(&format!("BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"))?,
        SCHEMA_VERSION => {}
        other => anyhow::bail!("schema version {other} is not {SCHEMA_VERSION}, the one this server knows"),
    }
    Ok(())
}
