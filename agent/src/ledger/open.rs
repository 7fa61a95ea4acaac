//! Opening: the directory, the lock against a second agent, `SQLite`'s settings, migrations.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use super::damage;
use super::place::{Place, sync_directory};
use super::trouble::{Damage, OutOfReach, Trouble};

/// Marks the file as weir's ("weir" in ASCII).
const APPLICATION_ID: i32 = 0x7765_6972;

/// Each schema version's step from the one before; `user_version` counts the steps taken.
const MIGRATIONS: [&str; 4] = [
    include_str!("schema-1.sql"),
    include_str!("schema-2.sql"),
    include_str!("schema-3.sql"),
    include_str!("schema-4.sql"),
];

/// Pages of 4 KiB that the write-ahead log may grow to before it is folded into the database.
///
/// Commits are appended to the log, and a few pages (session, checkpoint, message) are written again by every commit; the
/// database gets each of them once for a whole log. At 4 MiB that is about one database write for 250 commits.
const CHECKPOINT_PAGES: u32 = 1000;

/// Owner reads and writes, nobody else: the ledger holds who pays and what was used.
pub(super) const MODE: u32 = 0o600;

/// How long looking through the whole file may take when it is opened. What has not been looked at by then is found damaged, if it
/// is, when it is read.
const CHECK_TIME: Duration = Duration::from_secs(3);

/// How long another process may hold the database locked before that is said.
pub(super) const BUSY_TIME: Duration = Duration::from_secs(1);

/// A connection, where its files are, and the lock that keeps a second agent away (neither for `:memory:`).
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) place: Option<Place>,
    pub(super) lock: Option<Flock<File>>,
}

/// Opens the ledger at `path`, or a fresh one in memory for `:memory:`.
pub(super) fn open(path: &Path) -> Result<Opened> {
    if path == Path::new(":memory:") {
        return Ok(Opened { connection: prepare(Connection::open_in_memory()?, path)?, place: None, lock: None });
    }
    let directory = directory_of(path)?;
    ensure!(
        directory.is_dir(),
        "the ledger's directory {0} does not exist: create it (install -d -m 0700 {0}) or choose another ledger path",
        directory.display()
    );
    let lock = lock(path, directory)?;
    let connection = connect_or_replace(path)?;
    let place = Place::of(path).with_context(|| format!("looking at {}", path.display()))?;
    Ok(Opened { connection, place: Some(place), lock: Some(lock) })
}

/// Refuses, with [`Trouble::Away`], where nothing is to be seen of a ledger that was there before: on the bare mount point of a file
/// system that is being mended no new one is begun.
pub fn is_within_reach(path: &Path) -> Result<()> {
    // A log without its database is a matter of damage.
    for suffix in ["", ".new", "-wal"] {
        match beside(path, suffix).try_exists() {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => bail!(OutOfReach { path: path.display().to_string(), source: error.into() }),
        }
    }
    bail!(OutOfReach { path: path.display().to_string(), source: anyhow!("there is no such file") })
}

/// What is not found, or not permitted, at the place of a ledger that was there before passes like other trouble.
pub(super) fn out_of_reach(path: &Path, source: anyhow::Error) -> anyhow::Error {
    let mut kinds = source.chain().filter_map(|cause| Some(cause.downcast_ref::<std::io::Error>()?.kind()));
    if kinds.any(|kind| matches!(kind, ErrorKind::NotFound | ErrorKind::PermissionDenied)) {
        return OutOfReach { path: path.display().to_string(), source }.into();
    }
    source
}

/// A connection to the ledger at `path`; to a new one, with what could be salvaged, when it is damaged.
pub(super) fn connect_or_replace(path: &Path) -> Result<Connection> {
    match connect(path) {
        Err(error) if Trouble::of(&error) == Some(Trouble::Damaged) => damage::replace(path, &error),
        connected => connected,
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let fresh = beside(path, ".new");
    if !path.exists() && fresh.exists() {
        // The one before was moved away, and we died before the new one, complete by then, was in its place.
        std::fs::rename(&fresh, path).with_context(|| format!("renaming {}", fresh.display()))?;
    }
    // SQLite gives its -wal and -shm files the mode of the database.
    let file = create(path, directory_of(path)?)?;
    refuse_lone_log(path, &file)?;
    file.set_permissions(Permissions::from_mode(MODE))
        .with_context(|| format!("setting mode 0600 on the ledger {}", path.display()))?;
    sync_directory(path)?;
    let connection = Connection::open(path).with_context(|| format!("opening the ledger {}", path.display()))?;
    // Should it be damaged, the log is not to be folded into it when it is closed.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let connection = prepare(connection, path)?;
    check(&connection).with_context(|| format!("checking the ledger {}", path.display()))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(connection)
}

/// The directory that a ledger at `path` lies in.
pub(super) fn directory_of(path: &Path) -> Result<&Path> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(parent) => Ok(parent),
        None => bail!("the ledger's path {} names no file", path.display()),
    }
}

/// A log without its database holds the last commits of a ledger that is gone; `SQLite` would throw it away.
fn refuse_lone_log(path: &Path, database: &File) -> Result<()> {
    let is_empty = database.metadata().with_context(|| format!("looking at {}", path.display()))?.len() == 0;
    let log = std::fs::metadata(beside(path, "-wal")).map_or(0, |log| log.len());
    if is_empty && log > 0 {
        bail!(Damage("the database is gone or empty, only its log is left".to_owned()));
    }
    Ok(())
}

/// Looks through the whole file, as far as the time for it goes.
fn check(connection: &Connection) -> Result<()> {
    for table in [
        "setting",
        "session",
        "total",
        "grant_last",
        "checkpoint",
        "container",
        "message",
        "history",
        "aborted",
        "carried",
    ] {
        let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        if !connection.prepare(sql)?.exists([table])? {
            bail!(Damage(format!("its table {table} is gone")));
        }
    }
    let interrupt = connection.get_interrupt_handle();
    let (done, over) = channel::<()>();
    let watch = std::thread::spawn(move || {
        let is_late = over.recv_timeout(CHECK_TIME) == Err(RecvTimeoutError::Timeout);
        if is_late {
            interrupt.interrupt();
        }
        is_late
    });
    let found = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    drop(done);
    let is_late = watch.join().unwrap_or(false);
    match found {
        Ok(word) if word == "ok" => Ok(()),
        Ok(word) => bail!(Damage(word)),
        Err(error) if is_late && error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            tracing::info!(limit = ?CHECK_TIME, "the ledger is long and was looked through only in part");
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Opens `path` for reading and writing, creating it when it is missing.
fn create(path: &Path, directory: &Path) -> Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(MODE).open(path).map_err(|error| {
        let words = match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => format!(
                "cannot write {} ({error}): make the directory {} writable for the user the agent runs as, or choose another ledger path",
                path.display(),
                directory.display()
            ),
            _ => format!("opening {}", path.display()),
        };
        anyhow!(error).context(words)
    })
}

/// Takes the lock file beside the database; it holds the owner's process id for the error of whoever comes second.
pub(super) fn lock(path: &Path, directory: &Path) -> Result<Flock<File>> {
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
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Sets the connection up and brings the schema to this version.
pub(super) fn prepare(mut connection: Connection, path: &Path) -> Result<Connection> {
    let shown = path.display();
    connection.busy_timeout(BUSY_TIME)?;
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
pub(super) fn identify(connection: &Connection) -> Result<usize> {
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(|error| {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => anyhow!(error).context("it is not a weir ledger, but some other file"),
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

/// The newest schema version there is.
pub(super) const fn newest() -> usize {
    MIGRATIONS.len()
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
