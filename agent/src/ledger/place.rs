//! Where the ledger lies: whether its files are still the ones that are open, and whether they survive a reboot.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::statfs::{self, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC};

use super::open::{beside, directory_of};

/// Not in nix: file systems in memory that are no tmpfs.
const RAMFS_MAGIC: i64 = 0x8584_58f6;

/// The database, its log, and the log's index.
pub(super) const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// So many files beside the ledger, and somebody should have looked.
const MOST_ASIDE: u32 = 1000;

/// Device and inode: the same file, whatever it is called.
type Identity = (u64, u64);

/// The files of the open ledger as they were found; `None` = not there (yet).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    files: [Option<Identity>; 3],
}

impl Place {
    /// The place at `path`, of the files that are there now.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), files: identities(path)? })
    }

    /// Whether the database itself still lies there.
    pub(super) fn has_database(&self) -> bool {
        identities(&self.path).is_ok_and(|present| present[0] == self.files[0])
    }

    /// True when a file of the ledger was removed or replaced: what is written to it then is lost with the process.
    pub(super) fn is_lost(&mut self) -> io::Result<bool> {
        let present = identities(&self.path)?;
        let lost = self.files.iter().zip(&present).any(|(open, present)| open.is_some() && open != present);
        if !lost {
            // The log is made with the first write.
            self.files = present;
        }
        Ok(lost)
    }
}

/// Of the files with [`SUFFIXES`].
fn identities(path: &Path) -> io::Result<[Option<Identity>; 3]> {
    let identity = |suffix: &str| match fs::metadata(beside(path, suffix)) {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let [database, log, index] = SUFFIXES;
    Ok([identity(database)?, identity(log)?, identity(index)?])
}

/// False when the ledger at `path` lies in memory and is gone with the next boot: on a tmpfs or ramfs, or on an overlay whose
/// upper layer is one. What cannot be found out counts as persistent.
#[must_use]
pub fn is_persistent(path: &Path) -> bool {
    let Ok(directory) = directory_of(path) else { return false };
    match kind(directory) {
        Some(OVERLAYFS_SUPER_MAGIC) => upper_layer(directory).is_none_or(|upper| !is_in_memory(kind(&upper))),
        kind => !is_in_memory(kind),
    }
}

fn is_in_memory(kind: Option<statfs::FsType>) -> bool {
    kind.is_some_and(|kind| kind == TMPFS_MAGIC || kind.0 == RAMFS_MAGIC)
}

fn kind(directory: &Path) -> Option<statfs::FsType> {
    statfs::statfs(directory).ok().map(|found| found.filesystem_type())
}

/// The directory that takes the writes of the overlay that `directory` is on.
fn upper_layer(directory: &Path) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let directory = fs::canonicalize(directory).ok()?;
    upper_layer_in(&mounts, &directory)
}

/// The upper layer of the innermost mount that holds `directory`, by the lines of `/proc/self/mountinfo` (proc(5)).
fn upper_layer_in(mounts: &str, directory: &Path) -> Option<PathBuf> {
    let holding =
        mounts.lines().filter(|line| line.split(' ').nth(4).is_some_and(|point| directory.starts_with(point)));
    let innermost = holding.max_by_key(|line| line.split(' ').nth(4).map_or(0, str::len))?;
    let options = innermost.rsplit(' ').next()?;
    options.split(',').find_map(|option| option.strip_prefix("upperdir=")).map(PathBuf::from)
}

/// The next free `.KIND-<n>` beside the ledger, and its number.
pub(super) fn next_aside(path: &Path, kind: &str) -> Result<(u32, PathBuf)> {
    let name = |number| beside(path, &format!(".{kind}-{number}"));
    let is_taken = |number: &u32| SUFFIXES.iter().any(|suffix| beside(&name(*number), suffix).exists());
    let number = (1..=MOST_ASIDE).find(|number| !is_taken(number)).context("there are too many files set aside")?;
    Ok((number, name(number)))
}

/// Moves the database at `path`, with its log, to `aside`.
pub(super) fn set_aside(path: &Path, aside: &Path) -> Result<()> {
    for suffix in SUFFIXES {
        let (from, to) = (beside(path, suffix), beside(aside, suffix));
        match fs::rename(&from, &to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("renaming {} to {}", from.display(), to.display()));
            }
            Ok(()) | Err(_) => {}
        }
    }
    sync_directory(path)
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes the directory's entries durable.
pub(super) fn sync_directory(path: &Path) -> Result<()> {
    let directory = directory_of(path)?;
    fs::File::open(directory)
        .and_then(|directory| directory.sync_all())
        .with_context(|| format!("syncing the ledger's directory {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_upper_layer_of_the_innermost_overlay_is_found() {
        let mounts = "22 1 0:20 / / rw,relatime - overlay overlayroot rw,lowerdir=/ro,upperdir=/media/rw/up,workdir=/w\n\
                      30 22 0:21 / /var rw - ext4 /dev/sda1 rw\n\
                      31 30 0:22 / /var/lib rw - overlay none rw,lowerdir=/a,upperdir=/ram/up,workdir=/ram/w\n";
        let upper = |directory| upper_layer_in(mounts, Path::new(directory));
        assert_eq!(upper("/etc/weir"), Some("/media/rw/up".into()));
        assert_eq!(upper("/var/log"), None);
        assert_eq!(upper("/var/lib/weir"), Some("/ram/up".into()));
    }

    #[test]
    fn a_file_that_was_replaced_is_noticed_and_a_log_that_comes_later_is_none() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ledger.db");
        fs::write(&path, "one").expect("written");
        let mut place = Place::of(&path).expect("looked at");
        fs::write(beside(&path, "-wal"), "log").expect("written");
        assert!(!place.is_lost().expect("looked at"));
        fs::remove_file(beside(&path, "-wal")).expect("removed");
        assert!(place.is_lost().expect("looked at"), "the log is gone");
        fs::write(beside(&path, "-wal"), "log").expect("written");
        let mut place = Place::of(&path).expect("looked at");
        fs::rename(&path, beside(&path, ".old")).expect("moved");
        fs::write(&path, "two").expect("written");
        assert!(place.is_lost().expect("looked at"), "another file is there");
    }
}
