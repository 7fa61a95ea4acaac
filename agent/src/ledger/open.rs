//! Opening: the directory, the lock against a second agent, `SQLite`'s settings, migrations.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use rusqlite::Connection;

/// Marks the file as weir's ("weir" in ASCII).
const APPLICATION_ID: i32 = 0x7765_6972;

/// Each schema version's step from the one before; `user_version` counts the steps taken.
const MIGRATIONS: [&str; 2] = [include_str!("schema-1.sql"), include_str!("schema-2.sql")];

/// Pages of 4 KiB that the write-ahead log may grow to before it is folded into the database.
///
/// Commits are appended to the log, and a few pages (session, checkpoint, message) are written again by every commit; the
/// database gets each of them once for a whole log. At 4 MiB that is about one database write for 250 commits.
const CHECKPOINT_PAGES: u32 = 1000;

/// Owner reads and writes, nobody else: the ledger holds who pays and what was used.
const MODE: u32 = 0o600;

/// A connection, and the lock that keeps a second agent away (none for `:memory:`).
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) lock: Option<Flock<File>>,
}

/// Opens the ledger at `path`, or a fresh one in memory for `:memory:`.
pub(super) fn open(path: &Path) -> Result<Opened> {
    if path == Path::new(":memory:") {
        return Ok(Opened { connection: prepare(Connection::open_in_memory()?, path)?, lock: None });
    }
    let directory = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => bail!("the ledger's path {} names no file", path.display()),
    };
    ensure!(
        directory.is_dir(),
        "the ledger's directory {0} does not exist: create it (install -d -m 0700 {0}) or choose another ledger path",
        directory.display()
    );
    let lock = lock(path, directory)?;
    // SQLite gives its -wal and -shm files the mode of the database.
    let file = create(path, directory)?;
    file.set_permissions(Permissions::from_mode(MODE))
        .with_context(|| format!("setting mode 0600 on the ledger {}", path.display()))?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("syncing the ledger's directory {}", directory.display()))?;
    let connection = Connection::open(path).with_context(|| format!("opening the ledger {}", path.display()))?;
    Ok(Opened { connection: prepare(connection, path)?, lock: Some(lock) })
}

/// Opens `path` for reading and writing, creating it when it is missing.
fn create(path: &Path, directory: &Path) -> Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(MODE).open(path).map_err(|error| {
        match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => anyhow!(
                "cannot write {} ({error}): make the directory {} writable for the user the agent runs as, or choose another ledger path",
                path.display(),
                directory.display()
            ),
            _ => anyhow!(error).context(format!("opening {}", path.display())),
        }
    })
}

/// Takes the lock file beside the database; it holds the owner's process id for the error of whoever comes second.
fn lock(path: &Path, directory: &Path) -> Result<Flock<File>> {
    let lock_path = beside(path, ".lock");
    let file = create(&lock_path, directory)?;
    let mut held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(held) => held,
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut owner = String::new();
            let owner = file.read_to_string(&mut owner).map_or("unknown", |_| owner.trim());
            bail!(
                "another agent (process {owner}) is using the ledger {}: it holds the lock file {}; stop that agent or choose another ledger path",
                path.display(),
                lock_path.display()
            );
        }
        Err((_, errno)) => return Err(anyhow!(errno).context(format!("locking {}", lock_path.display()))),
    };
    held.set_len(0)
        .and_then(|()| held.rewind())
        .and_then(|()| writeln!(held, "{}", std::process::id()))
        .with_context(|| format!("writing {}", lock_path.display()))?;
    Ok(held)
}

/// `path` with `suffix` behind its file name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Sets the connection up and brings the schema to this version.
fn prepare(mut connection: Connection, path: &Path) -> Result<Connection> {
    let shown = path.display();
    connection.busy_timeout(Duration::from_secs(5))?;
    let version = identify(&connection).with_context(|| format!("the ledger {shown} cannot be used"))?;
    connection.set_prepared_statement_cache_capacity(64);
    for (pragma, value) in [("foreign_keys", "ON"), ("trusted_schema", "OFF"), ("temp_store", "MEMORY")] {
        connection.pragma_update(None, pragma, value)?;
    }
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .with_context(|| format!("the ledger {shown}: switching to write-ahead logging"))?;
    ensure!(
        mode == "wal" || mode == "memory",
        "the ledger {shown} stays in journal mode {mode}: its file system cannot map shared memory; choose another ledger path"
    );
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    migrate(&mut connection, version).with_context(|| format!("migrating the ledger {shown}"))?;
    Ok(connection)
}

/// The schema version of the file; an error when the file is not a ledger, or one of a newer agent.
fn identify(connection: &Connection) -> Result<usize> {
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(|error| {
        match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::NotADatabase) => anyhow!("it is not a weir ledger, but some other file"),
            _ => error.into(),
        }
    })?;
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let fresh = version == 0 && application == 0 && tables == 0;
    ensure!(fresh || application == APPLICATION_ID, "it is not a weir ledger, but another program's database");
    let known = MIGRATIONS.len();
    let version = usize::try_from(version).context("a negative schema version")?;
    ensure!(
        version <= known,
        "its schema version {version} is newer than version {known}, the newest this agent knows: install the agent that wrote it, or a later one"
    );
    Ok(version)
}

/// Takes the steps from `version` to the newest, each in a transaction of its own.
fn migrate(connection: &mut Connection, version: usize) -> Result<()> {
    for (step, sql) in MIGRATIONS.iter().enumerate().skip(version) {
        let transaction = connection.transaction()?;
        transaction.execute_batch(sql).with_context(|| format!("step {}", step + 1))?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", u32::try_from(step + 1)?)?;
        transaction.commit()?;
    }
    Ok(())
}
