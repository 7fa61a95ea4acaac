//! Files: whether the ledger can be kept where it lies, and who else can read what is nobody else's business.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use super::AS_ROOT;
use super::finding::{Check, Finding};
use crate::cli::words::octets;
use crate::config::Config;
use crate::ledger::is_persistent;

/// Room for the records of a day or so; a full disk is not far.
const LITTLE: u64 = 8 << 20;
/// The next commits may fail.
const NOTHING: u64 = 1 << 20;
/// Octets of the probe: more than fits into an inode.
const PROBE: [u8; 8192] = [0; 8192];

/// The directory of the ledger.
pub(super) fn storage(config: &Config) -> Vec<Finding> {
    let directory = directory_of(&config.ledger);
    // Where it would lie, if it is not there.
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let room = statvfs(existing).map(|found| Room {
        octets: found.blocks_available() * found.fragment_size(),
        files: (found.files() > 0).then(|| found.files_available()),
    });
    let shown = directory.display().to_string();
    vec![
        persistent(is_persistent(&existing.join("ledger")), &shown),
        writable(&probe(&directory), &shown),
        space(&room.map_err(io::Error::from), &shown),
    ]
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) | None => PathBuf::from("."),
    }
}

fn persistent(persists: bool, directory: &str) -> Finding {
    let check = Check::StatePersistent;
    if persists {
        return Finding::ok(check, format!("{directory} survives a reboot"));
    }
    let fix = "set ledger.path to storage that survives a reboot (flash, a disk), and restart weir";
    Finding::problem(check, format!("{directory} lies in memory and is gone with the next boot"), fix)
}

/// Writes a file there, syncs it, and removes it.
fn probe(directory: &Path) -> io::Result<()> {
    let path = directory.join(format!(".weir-doctor-{}", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(&PROBE)?;
        file.sync_all()
    };
    let written = write();
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => written.and(Err(error)),
        Ok(()) | Err(_) => written,
    }
}

fn writable(probed: &io::Result<()>, directory: &str) -> Finding {
    let check = Check::StateWritable;
    match probed.as_ref().map_err(io::Error::kind) {
        Ok(()) => Finding::ok(check, format!("{directory} can be written and synced")),
        Err(io::ErrorKind::PermissionDenied) => {
            Finding::not_checked(check, format!("{directory} may not be written by this user"), AS_ROOT)
        }
        Err(io::ErrorKind::NotFound) => {
            // It may be a disk that is not mounted.
            let fix = format!(
                "mount its disk, or make it: install -d -m 0700 {directory} (the service makes /var/lib/weir itself)"
            );
            Finding::problem(check, format!("{directory} is not there, and the agent does not make it"), fix)
        }
        Err(_) => {
            let error = probed.as_ref().map_or_else(ToString::to_string, |()| String::new());
            let fix = "remount it writable, make room, or check the file system; a failing flash has to be replaced";
            Finding::problem(check, format!("{directory} cannot be written: {error}"), fix)
        }
    }
}

/// What is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    octets: u64,
    /// `None` where the file system does not count them.
    files: Option<u64>,
}

fn space(room: &io::Result<Room>, directory: &str) -> Finding {
    let check = Check::StateSpace;
    let Room { octets: free, files } = match room {
        Ok(room) => *room,
        Err(error) => return Finding::not_checked(check, format!("{directory}: {error}"), AS_ROOT),
    };
    let what = match files {
        Some(files) if files < 16 => format!("only {files} more files can be made in {directory}"),
        _ => format!("{} are free in {directory}", octets(free)),
    };
    let fix = "make room there: logs and packages first";
    let files = files.unwrap_or(u64::MAX);
    if free < NOTHING || files < 4 {
        Finding::problem(check, what, fix)
    } else if free < LITTLE || files < 16 {
        Finding::warning(check, what, fix)
    } else {
        Finding::ok(check, what)
    }
}

/// A file and who can get at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// It is not there.
    Missing,
    /// Its permissions, and whether others can come as far as to it.
    Mode { mode: u32, reachable: bool },
}

/// The files that hold secrets, or say who pays.
pub(super) fn rights(path: &Path, config: &Config) -> Vec<Finding> {
    let mut told = vec![readable(path, &access(path))];
    told.push(key(&config.device.key_file, &access(&config.device.key_file)));
    if let Some(claim) = &config.device.claim_code_file {
        told.push(readable(claim, &access(claim)));
    }
    told
}

fn access(path: &Path) -> io::Result<Access> {
    let mode = match fs::metadata(path) {
        Ok(metadata) => metadata.permissions().mode() & 0o7777,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Access::Missing),
        Err(error) => return Err(error),
    };
    let path = fs::canonicalize(path)?;
    let is_open =
        |directory: &Path| fs::metadata(directory).map_or(true, |found| found.permissions().mode() & 0o001 != 0);
    Ok(Access::Mode { mode, reachable: path.ancestors().skip(1).all(is_open) })
}

fn readable(path: &Path, access: &io::Result<Access>) -> Finding {
    let check = Check::ConfigRights;
    let shown = path.display().to_string();
    match access {
        Ok(Access::Mode { mode, reachable: true }) if mode & 0o004 != 0 => {
            let what = format!("can be read by every user (mode {mode:04o})");
            Finding::warning(check, what, format!("chmod o-rwx {shown}"))
        }
        Ok(Access::Mode { mode, reachable: true }) if mode & 0o002 != 0 => {
            let what = format!("can be changed by every user (mode {mode:04o})");
            Finding::problem(check, what, format!("chmod o-rwx {shown}"))
        }
        Ok(Access::Mode { .. }) => Finding::ok(check, "is not open to every user"),
        Ok(Access::Missing) => Finding::ok(check, "is not there (any more)"),
        Err(error) => Finding::not_checked(check, error.to_string(), AS_ROOT),
    }
    .of(shown)
}

fn key(path: &Path, access: &io::Result<Access>) -> Finding {
    let check = Check::ConfigRights;
    let shown = path.display().to_string();
    match access {
        Ok(Access::Mode { mode, .. }) if mode & 0o077 != 0 => {
            let what = format!("the device's key can be reached by others (mode {mode:04o}), and weir refuses it");
            Finding::problem(check, what, format!("chmod 600 {shown}"))
        }
        Ok(Access::Mode { .. }) => Finding::ok(check, "the device's key is its owner's alone"),
        Ok(Access::Missing) => {
            Finding::ok(check, "the device's key is not there yet: the agent makes it at its first start")
        }
        Err(error) => Finding::not_checked(check, format!("the device's key: {error}"), AS_ROOT),
    }
    .of(shown)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;
    use crate::doctor::finding::Verdict;

    #[test]
    fn the_probe_leaves_nothing_and_says_what_is_missing() {
        let directory = tempfile::tempdir().unwrap();
        probe(directory.path()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        let missing = probe(&directory.path().join("not")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let told = writable(&Err(missing), "/x");
        assert_eq!(told.verdict, Verdict::Problem);
        assert!(told.fix.unwrap().contains("install -d -m 0700 /x"));
        let boot = crate::units::BootId::new("this boot");
        let begun = crate::ledger::Ledger::open(directory.path().join("not/ledger.db"), boot);
        assert!(begun.is_err() && !directory.path().join("not").exists(), "as the agent has it");
    }

    #[test]
    fn storage_is_judged_by_what_keeps_the_ledger_from_being_written() {
        assert_eq!(persistent(true, "/x").verdict, Verdict::Ok);
        assert_eq!(persistent(false, "/x").verdict, Verdict::Problem);
        let written = |number: i32| writable(&Err(io::Error::from_raw_os_error(number)), "/x").verdict;
        assert_eq!(writable(&Ok(()), "/x").verdict, Verdict::Ok);
        assert_eq!([written(libc::EROFS), written(libc::ENOSPC), written(libc::EIO)], [Verdict::Problem; 3]);
        assert_eq!(written(libc::EACCES), Verdict::NotChecked);
        let room = |octets, files| space(&Ok(Room { octets, files }), "/x").verdict;
        assert_eq!(room(1 << 30, Some(1000)), Verdict::Ok);
        assert_eq!(room(1 << 30, None), Verdict::Ok);
        assert_eq!(room(7 << 20, Some(1000)), Verdict::Warning);
        assert_eq!(room(1 << 30, Some(10)), Verdict::Warning);
        assert_eq!(room(1 << 19, Some(1000)), Verdict::Problem);
        assert_eq!(room(1 << 30, Some(0)), Verdict::Problem);
    }

    #[test]
    fn a_file_counts_as_open_only_where_others_can_come_to_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir.toml");
        let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        assert_eq!(readable(&path, &access(&path)).verdict, Verdict::Ok, "not there");
        fs::write(&path, "").unwrap();
        mode(&path, 0o644);
        mode(directory.path(), 0o700);
        assert_eq!(readable(&path, &access(&path)).verdict, Verdict::Ok, "behind a closed door");
        mode(directory.path(), 0o755);
        let told = readable(&path, &access(&path));
        assert_eq!(told.verdict, Verdict::Warning);
        assert_eq!(told.fix, Some(format!("chmod o-rwx {}", path.display())));
        mode(&path, 0o640);
        assert_eq!(readable(&path, &access(&path)).verdict, Verdict::Ok);
        mode(&path, 0o602);
        assert_eq!(readable(&path, &access(&path)).verdict, Verdict::Problem);
    }

    #[test]
    fn the_key_is_judged_as_the_agent_judges_it() {
        let judged = |mode| key(Path::new("/k"), &Ok(Access::Mode { mode, reachable: false })).verdict;
        assert_eq!([judged(0o600), judged(0o400)], [Verdict::Ok; 2]);
        assert_eq!([judged(0o640), judged(0o604), judged(0o610)], [Verdict::Problem; 3]);
        assert_eq!(key(Path::new("/k"), &Ok(Access::Missing)).verdict, Verdict::Ok);
    }
}
