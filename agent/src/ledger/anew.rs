//! The ledger goes on when its files do not: removed or replaced under the agent, or found damaged while it runs.

use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::open::{MODE, beside, connect_or_replace, directory_of, is_within_reach, lock, out_of_reach, prepare};
use super::place::{Place, next_aside, remove, set_aside, sync_directory};
use super::{Ledger, damage};

/// Setting that is written, and taken away again, to see whether there is room.
const PROBE: &str = "probe";
/// About what a busy minute writes: less room than that is none.
const PROBE_SIZE: usize = 64 << 10;

impl Ledger {
    /// Makes sure that what is committed lies where the next start will look for it. Files that were removed or replaced are still
    /// open, and written anew from there; what lies in their place now is set aside.
    pub fn keep_place(&mut self) -> Result<()> {
        let Some(place) = &mut self.place else { return Ok(()) };
        let path = place.path.clone();
        if !self.is_shut && place.is_lost().with_context(|| format!("looking at the ledger {}", path.display()))? {
            tracing::error!(
                "the ledger {} was removed or replaced under the agent: it is written anew",
                path.display()
            );
            self.write_anew(&path).with_context(|| format!("writing the ledger {} anew", path.display()))?;
        }
        Ok(())
    }

    /// Whether the ledger can be written, for a while at least; opens it first when it had to be shut, and is back.
    pub fn probe(&mut self) -> Result<()> {
        if let (true, Some(place)) = (self.is_shut, &self.place) {
            let path = place.path.clone();
            is_within_reach(&path)?;
            self.open_again(&path).map_err(|error| out_of_reach(&path, error))?;
        }
        self.set_setting(PROBE, &"-".repeat(PROBE_SIZE))?;
        self.db.prepare_cached("DELETE FROM setting WHERE key = ?1")?.execute([PROBE])?;
        Ok(())
    }

    /// Sets the damaged file aside and goes on in a new one, with every session that can still be read whole.
    pub fn replace_damaged(&mut self, cause: &anyhow::Error) -> Result<()> {
        let Some(place) = &self.place else { bail!("a ledger in memory is damaged: {cause:#}") };
        let path = place.path.clone();
        self.shut()?;
        self.reopen(damage::replace(&path, cause)?, &path)
    }

    /// What is to be said of damaged ledgers for as long as they lie beside this one: to move one away is to have seen it.
    pub fn damage_notices(&self) -> Result<Vec<String>> {
        self.place.as_ref().map_or(Ok(Vec::new()), |place| damage::notices(&self.db, &place.path))
    }

    /// Closes every file, so that whoever mends the file system may unmount it; [`Ledger::probe`] opens them again.
    pub fn let_go(&mut self) -> Result<()> {
        if self.place.is_some() {
            self.shut()?;
            self.lock = None;
        }
        Ok(())
    }

    /// Whether [`Ledger::let_go`] has closed its files: nothing can be read then.
    #[must_use]
    pub const fn is_let_go(&self) -> bool {
        self.is_shut
    }

    /// Closes the file; its log stays as it is.
    fn shut(&mut self) -> Result<()> {
        self.db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        self.db = Connection::open_in_memory()?;
        self.is_shut = true;
        Ok(())
    }

    fn open_again(&mut self, path: &Path) -> Result<()> {
        if self.lock.is_none() {
            self.lock = Some(lock(path, directory_of(path)?)?);
        }
        self.reopen(connect_or_replace(path)?, path)
    }

    fn reopen(&mut self, connection: Connection, path: &Path) -> Result<()> {
        self.db = connection;
        self.place = Some(Place::of(path)?);
        self.is_shut = false;
        Ok(())
    }

    fn write_anew(&mut self, path: &Path) -> Result<()> {
        let directory = directory_of(path)?;
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        if !self.holds_lock(path) {
            self.lock = Some(lock(path, directory)?);
        }
        let fresh = beside(path, ".new");
        remove(&fresh)?;
        self.db.execute("VACUUM INTO ?1", [fresh.to_str().context("its path is not UTF-8")?])?;
        let file = File::open(&fresh)?;
        file.set_permissions(Permissions::from_mode(MODE))?;
        file.sync_all()?;
        if path.exists() && !self.place.as_ref().is_some_and(Place::has_database) {
            let (_, aside) = next_aside(path, "replaced")?;
            set_aside(path, &aside)?;
            tracing::warn!("what lay in the ledger's place is set aside as {}", aside.display());
        }
        // A log that is left belongs to what was there before.
        remove(&beside(path, "-wal"))?;
        remove(&beside(path, "-shm"))?;
        fs::rename(&fresh, path)?;
        sync_directory(path)?;
        let connection = prepare(Connection::open(path)?, path)?;
        self.shut()?;
        self.reopen(connection, path)
    }

    /// Whether the lock file at its path is the one that is held.
    fn holds_lock(&self, path: &Path) -> bool {
        let held = self.lock.as_ref().and_then(|lock| lock.metadata().ok());
        let there = fs::metadata(beside(path, ".lock")).ok();
        held.zip(there).is_some_and(|(held, there)| (held.dev(), held.ino()) == (there.dev(), there.ino()))
    }
}
