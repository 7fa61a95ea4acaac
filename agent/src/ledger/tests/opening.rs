//! Opening a ledger: who may, where, and what is refused.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::{BOOT, SESSION, acknowledged, boot, closed, commit, opened, opening, sealed, told};
use crate::ledger::open::newest;
use crate::ledger::{Ledger, Verdict};
use crate::quota::Exceptions;
use crate::units::Octets;

pub(super) fn fresh() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    (directory, path)
}

fn pragma(ledger: &Ledger, name: &str) -> String {
    let value = |row: &rusqlite::Row<'_>| Ok(format!("{:?}", row.get_ref(0)?));
    ledger.db.pragma_query_value(None, name, value).expect("a pragma")
}

#[test]
fn a_commit_is_synced_before_it_counts() {
    let (_directory, path) = fresh();
    let ledger = Ledger::open(&path, boot()).expect("opens");
    assert_eq!(pragma(&ledger, "synchronous"), "Integer(2)", "FULL");
    assert_eq!(pragma(&ledger, "journal_mode"), "Text([119, 97, 108])", "wal");
    assert_eq!(pragma(&ledger, "foreign_keys"), "Integer(1)");
    assert_eq!(pragma(&ledger, "user_version"), format!("Integer({})", newest()));
    assert_eq!(pragma(&ledger, "application_id"), format!("Integer({})", 0x7765_6972));
    assert_eq!(pragma(&ledger, "integrity_check"), "Text([111, 107])", "ok");
}

#[test]
fn sqlite_is_built_without_what_nobody_here_calls() {
    let ledger = Ledger::open(":memory:", boot()).expect("opens");
    let mut options = ledger.db.prepare("PRAGMA compile_options").expect("a pragma");
    let options: Vec<String> =
        options.query_map([], |row| row.get(0)).and_then(Iterator::collect).expect("what it was built with");
    for wanted in ["OMIT_JSON", "OMIT_LOAD_EXTENSION"] {
        assert!(
            options.iter().any(|option| option == wanted),
            "{wanted}: .cargo/config.toml was not read: {options:?}"
        );
    }
    for unwanted in ["ENABLE_FTS", "ENABLE_RTREE"] {
        assert!(!options.iter().any(|option| option.starts_with(unwanted)), "{unwanted}: {options:?}");
    }
}

#[test]
fn all_its_files_are_for_the_owner_alone() {
    let (directory, path) = fresh();
    fs::write(&path, "").expect("an empty file");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("a mode");
    let mut ledger = Ledger::open(&path, boot()).expect("opens");
    commit(&mut ledger, &[opened(SESSION)]).expect("commits");
    let files: Vec<_> = fs::read_dir(directory.path()).expect("lists").map(|file| file.expect("a file")).collect();
    assert!(files.len() >= 3, "database, log, lock: {files:?}");
    for file in files {
        let mode = file.metadata().expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.path().display());
    }
}

#[test]
fn a_second_agent_is_refused_and_told_who_the_first_is() {
    let (_directory, path) = fresh();
    let first = Ledger::open(&path, boot()).expect("opens");
    let error = told(Ledger::open(&path, boot()));
    assert!(error.contains("another agent") && error.contains("ledger.db.lock"), "{error}");
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    drop(first);
    Ledger::open(&path, boot()).expect("free again");
}

#[test]
fn a_missing_directory_is_named_with_what_to_do() {
    let (directory, _) = fresh();
    let missing = directory.path().join("not-there");
    let error = told(Ledger::open(missing.join("ledger.db"), boot()));
    assert!(error.contains(&format!("directory {} does not exist", missing.display())), "{error}");
    assert!(error.contains("install -d -m 0700"), "{error}");
}

#[test]
fn a_read_only_directory_is_named_with_what_to_do() {
    let (directory, path) = fresh();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o500)).expect("a mode");
    // Root writes where modes forbid it, but not into sysfs.
    let path = if nix::unistd::geteuid().is_root() { Path::new("/sys/kernel/ledger.db") } else { &path };
    let error = told(Ledger::open(path, boot()));
    fs::set_permissions(directory.path(), Permissions::from_mode(0o700)).expect("a mode");
    let parent = path.parent().expect("a parent");
    assert!(error.contains(&format!("make the directory {} writable", parent.display())), "{error}");
}

#[test]
fn a_newer_schema_is_refused_and_left_alone() {
    let (_directory, path) = fresh();
    drop(Ledger::open(&path, boot()).expect("opens"));
    let database = Connection::open(&path).expect("opens");
    let newer = u32::try_from(newest() + 1).expect("a version");
    database.pragma_update(None, "user_version", newer).expect("a version");
    drop(database);
    let error = told(Ledger::open(&path, boot()));
    assert!(error.contains(&format!("schema version {newer} is newer than version {}", newest())), "{error}");
    assert!(error.contains(&path.display().to_string()), "{error}");
    let version: u32 = Connection::open(&path)
        .and_then(|db| db.pragma_query_value(None, "user_version", |row| row.get(0)))
        .expect("reads");
    assert_eq!(version, newer);
}

#[test]
fn a_ledger_of_version_1_is_migrated_with_all_that_is_in_it() {
    let (_directory, path) = fresh();
    let database = Connection::open(&path).expect("opens");
    database.execute_batch(include_str!("../schema-1.sql")).expect("a schema");
    database.pragma_update(None, "application_id", 0x7765_6972).expect("a mark");
    database.pragma_update(None, "user_version", 1).expect("a version");
    // A session with a grant, as version 1 wrote it.
    let session = format!(
        "INSERT INTO session (charging_id, subscriber, boot, generation, base_uplink, base_downlink, \
         base_throttled_uplink, base_throttled_downlink, opened_at, opened_wall, opened_synced, accounted_wall, \
         accounted_synced, session_ref, next_message, last_acknowledged, grace_ceiling, grace_until) \
         VALUES ({SESSION}, 'imsi-001010000000001', '{BOOT}', 7, 1000, 2000, 10, 20, 1000000000, 0, 1, 0, 1, 'ref-1', 1, 0, 7000, 9)"
    );
    database.execute(&session, []).expect("a session");
    let grant = format!("INSERT INTO grant_last VALUES ({SESSION}, 5000, 5000, 1000, NULL, NULL, NULL, 'success')");
    database.execute(&grant, []).expect("a grant");
    drop(database);
    let mut ledger = Ledger::open(&path, boot()).expect("opens");
    assert_eq!(pragma(&ledger, "user_version"), format!("Integer({})", newest()));
    let [session] = &ledger.restore().expect("restores")[..] else { panic!("one session") };
    assert_eq!(session.opening, opening(SESSION));
    assert_eq!(session.grant.as_ref().map(|grant| grant.ceiling), Some(Octets::new(5000)));
    assert_eq!(session.grant.as_ref().map(|grant| grant.exceptions.clone()), Some(Exceptions::default()));
    assert_eq!(session.failure_handling, None);
    assert_eq!(session.highest_ceiling, Octets::new(7000), "of its grant and its grace");
    assert_eq!((session.slice, session.uncertain), (None, None));
    commit(&mut ledger, &[closed(1, 5, 6), sealed(1, &[1], 11), acknowledged(1)]).expect("it goes on");
}

#[test]
fn a_message_that_version_1_has_left_may_have_been_sent() {
    let (_directory, path) = fresh();
    let database = Connection::open(&path).expect("a database");
    database.execute_batch(include_str!("../schema-1.sql")).expect("the schema as it was released");
    database.pragma_update(None, "application_id", 0x7765_6972).expect("its mark");
    database.pragma_update(None, "user_version", 1).expect("its version");
    database.execute_batch(include_str!("version-1.sql")).expect("what such an agent had written");
    drop(database);

    let ledger = Ledger::open(&path, boot()).expect("opens");
    assert_eq!(pragma(&ledger, "user_version"), format!("Integer({})", newest()));
    let sessions = ledger.restore().expect("restores");
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0].outstanding.as_ref().map(|message| message.number.get()), Some(2));
    assert!(!sessions[0].not_taken, "an earlier version may have sent it");
    let aside = ledger.set_aside().expect("lists");
    assert_eq!(
        aside.iter().map(|m| (m.verdict, m.usage.total().get())).collect::<Vec<_>>(),
        [(Verdict::Refused, 1000)]
    );
    assert_eq!(ledger.audit().expect("audits")[0].drift().get(), 0);
}

#[test]
fn the_database_of_another_program_is_refused_and_left_alone() {
    let (_directory, path) = fresh();
    Connection::open(&path).and_then(|db| db.execute_batch("CREATE TABLE letter (text)")).expect("a database");
    let error = told(Ledger::open(&path, boot()));
    assert!(error.contains("another program's database"), "{error}");
}
