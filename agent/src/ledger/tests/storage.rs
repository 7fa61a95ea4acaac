//! What the ledger does when its file is damaged, removed, replaced, full, or old.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::{SESSION, acknowledged, boot, bytes, closed, commit, grant, key, moment, opened, opening, sealed, told};
use crate::ledger::open::beside;
use crate::ledger::{Ledger, Trouble};
use crate::quota::{Record, SessionOpening};
use crate::units::{ChargingId, Octets, SessionRef, UsedUnit};

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    (directory, path)
}

/// A session with one container acknowledged, one in a message that waits, one in none.
fn busy(path: &Path) -> Ledger {
    let mut ledger = Ledger::open(path, boot()).expect("opens");
    let named = Record::MessageAcknowledged {
        key: key(0),
        session_ref: Some(SessionRef::new("ref-1")),
        grant: Some(grant(1 << 20)),
        failure_handling: None,
    };
    let batch = [
        opened(SESSION),
        sealed(0, &[], 0),
        named,
        closed(1, 1, 0),
        sealed(1, &[1], 1),
        acknowledged(1),
        closed(2, 20, 0),
        sealed(2, &[2], 21),
        closed(3, 300, 0),
    ];
    commit(&mut ledger, &batch).expect("commits");
    ledger.set_setting("kept", "as it was").expect("stored");
    ledger
}

/// The files whose name goes on with `suffix` behind the ledger's.
fn exists(path: &Path, suffix: &str) -> bool {
    beside(path, suffix).exists()
}

#[test]
fn what_is_no_database_is_set_aside_and_a_new_ledger_begun() {
    let (_directory, path) = fresh();
    let letter = "this is a letter, not a database, and it is long enough to be looked at by anybody".repeat(100);
    fs::write(&path, &letter).expect("a file");
    let mut ledger = Ledger::open(&path, boot()).expect("opens anew");
    commit(&mut ledger, &[opened(SESSION)]).expect("commits");
    assert_eq!(fs::read_to_string(beside(&path, ".damaged-1")).expect("kept"), letter);
    let [notice] = &ledger.damage_notices().expect("notices")[..] else { panic!("one notice") };
    assert!(notice.contains("ledger.db.damaged-1") && notice.contains("LOST TO THE RECORD"), "{notice}");
    drop(ledger);
    // It is said over a restart as well, until the file is moved away.
    let ledger = Ledger::open(&path, boot()).expect("opens");
    assert_eq!(ledger.damage_notices().expect("notices").len(), 1);
    assert_eq!(ledger.restore().expect("restores").len(), 1);
    fs::remove_file(beside(&path, ".damaged-1")).expect("moved away");
    assert_eq!(ledger.damage_notices().expect("notices"), [] as [String; 0]);
}

#[test]
fn a_log_without_its_database_is_set_aside_and_not_thrown_away() {
    for empty in [false, true] {
        let (_directory, path) = fresh();
        let ledger = busy(&path);
        let (elsewhere, copy) = fresh();
        fs::copy(beside(&path, "-wal"), beside(&copy, "-wal")).expect("the log alone");
        drop(ledger);
        if empty {
            fs::write(&copy, "").expect("an empty database");
        }
        let log = fs::read(beside(&copy, "-wal")).expect("reads");
        let ledger = Ledger::open(&copy, boot()).expect("opens anew");
        assert_eq!(ledger.restore().expect("restores"), []);
        assert_eq!(fs::read(beside(&copy, ".damaged-1-wal")).expect("kept"), log);
        assert_eq!(ledger.damage_notices().expect("notices").len(), 1);
        drop(elsewhere);
    }
}

#[test]
fn a_table_that_is_gone_is_damage_and_the_sessions_that_need_it_are_named() {
    let (_directory, path) = fresh();
    drop(busy(&path));
    Connection::open(&path).and_then(|db| db.execute_batch("DROP TABLE checkpoint")).expect("damaged");
    let ledger = Ledger::open(&path, boot()).expect("opens anew");
    let [notice] = &ledger.damage_notices().expect("notices")[..] else { panic!("one notice") };
    assert!(notice.contains(&format!("session {SESSION} of imsi-001010000000001 with 320 octets")), "{notice}");
    assert_eq!(ledger.setting("kept").expect("reads").as_deref(), Some("as it was"));
}

/// Overwrites the pages of a table's tree with noise, from the root down or one leaf of it.
fn spoil(path: &Path, page: u64) {
    let size: i64 = Connection::open(path)
        .and_then(|db| db.pragma_query_value(None, "page_size", |row| row.get(0)))
        .expect("a size");
    let mut file = fs::OpenOptions::new().write(true).open(path).expect("opens");
    file.seek(SeekFrom::Start((page - 1) * size.cast_unsigned())).expect("seeks");
    file.write_all(&vec![0xA5; usize::try_from(size).expect("small")]).expect("spoils");
}

fn root_page(path: &Path, table: &str) -> u64 {
    let db = Connection::open(path).expect("opens");
    db.query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [table], |row| row.get::<_, i64>(0))
        .expect("a page")
        .cast_unsigned()
}

#[test]
fn a_spoiled_page_of_the_history_costs_no_session() {
    let (_directory, path) = fresh();
    let ledger = busy(&path);
    let before = (ledger.restore().expect("restores"), ledger.message(key(2)).expect("reads").expect("there").body);
    drop(ledger);
    let page = root_page(&path, "history");
    spoil(&path, page);
    let mut ledger = Ledger::open(&path, boot()).expect("opens anew");
    let after = (ledger.restore().expect("restores"), ledger.message(key(2)).expect("reads").expect("there").body);
    assert_eq!(after, before, "session, grant, message and containers are as they were");
    let [notice] = &ledger.damage_notices().expect("notices")[..] else { panic!("one notice") };
    assert!(notice.contains("1 sessions were taken over whole"), "{notice}");
    // The guards are back, and it goes on.
    commit(&mut ledger, &[closed(9, 1, 1)]).expect_err("a gap is refused");
    commit(&mut ledger, &[acknowledged(2), sealed(3, &[3], 321), acknowledged(3)]).expect("goes on");
    assert_eq!(ledger.buffered().expect("sums").containers, 0);
}

#[test]
fn of_many_sessions_only_those_on_a_spoiled_page_are_lost() {
    let (_directory, path) = fresh();
    let mut ledger = Ledger::open(&path, boot()).expect("opens");
    let session = |number: u32| ChargingId::new(1000 + number);
    for number in 0..200 {
        let opening = SessionOpening { session: session(number), ..opening(SESSION) };
        commit(&mut ledger, &[Record::SessionOpened(opening)]).expect("commits");
    }
    drop(ledger);
    // A leaf of the table itself: neither its root nor its index.
    let db = Connection::open(&path).expect("opens");
    let leaf =
        "SELECT pageno FROM dbstat WHERE name = 'session' AND pagetype = 'leaf' ORDER BY pageno LIMIT 1 OFFSET 3";
    let page = db.query_row(leaf, [], |row| row.get::<_, i64>(0));
    drop(db);
    let page = page.map_or_else(|_| root_page(&path, "session") + 20, i64::cast_unsigned);
    spoil(&path, page);
    let ledger = Ledger::open(&path, boot()).expect("opens anew");
    let saved = ledger.restore().expect("restores").len();
    assert!((100..200).contains(&saved), "{saved} of 200");
    assert_eq!(ledger.damage_notices().expect("notices").len(), 1);
}

#[test]
fn damage_found_while_it_runs_is_told_from_other_errors_and_replaced() {
    let (_directory, path) = fresh();
    let mut ledger = busy(&path);
    let before = ledger.restore().expect("restores");
    // As if a container had been lost: the books of the session show it.
    ledger.db.execute_batch("DROP TRIGGER container_kept; DELETE FROM container WHERE number = 3").expect("spoiled");
    let error = ledger.restore().expect_err("a gap");
    assert_eq!(Trouble::of(&error), Some(Trouble::Damaged), "{error:#}");
    ledger.replace_damaged(&error).expect("replaced");
    assert_eq!(ledger.restore().expect("restores"), [], "the session was not whole");
    let [notice] = &ledger.damage_notices().expect("notices")[..] else { panic!("one notice") };
    assert!(notice.contains("with 320 octets not acknowledged"), "{notice}");
    commit(&mut ledger, &[opened(ChargingId::new(5))]).expect("goes on");
    let refused = commit(&mut ledger, &[opened(ChargingId::new(5))]).expect_err("a name is used once");
    assert_eq!(Trouble::of(&refused), None, "{refused:#}");
    assert_eq!(before.len(), 1);
}

#[test]
fn a_ledger_removed_while_it_is_open_is_written_anew_and_nothing_is_lost() {
    for names in
        [&["ledger.db"][..], &["ledger.db-wal", "ledger.db-shm"], &["ledger.db", "ledger.db-wal", "ledger.db-shm"]]
    {
        let (_directory, path) = fresh();
        let mut ledger = busy(&path);
        for name in names {
            fs::remove_file(path.with_file_name(name)).expect("removed");
        }
        commit(&mut ledger, &[closed(4, 4000, 0)]).expect("commits");
        let expected = ledger.restore().expect("restores");
        // What the next start would find, without anything that this process still holds.
        let (_elsewhere, copy) = fresh();
        for suffix in ["", "-wal"] {
            fs::copy(beside(&path, suffix), beside(&copy, suffix)).expect("copies");
        }
        let next = Ledger::open(&copy, boot()).expect("opens");
        assert_eq!(next.restore().expect("restores"), expected, "{names:?}");
        assert_eq!(next.damage_notices().expect("notices"), [] as [String; 0]);
        commit(&mut ledger, &[acknowledged(2)]).expect("goes on");
    }
}

#[test]
fn a_directory_removed_under_the_ledger_is_made_again_with_its_lock() {
    let (directory, path) = fresh();
    let mut ledger = busy(&path);
    fs::remove_dir_all(directory.path()).expect("removed");
    ledger.keep_place().expect("written anew");
    let error = told(Ledger::open(&path, boot()));
    assert!(error.contains("another agent"), "{error}");
    let expected = ledger.restore().expect("restores");
    drop(ledger);
    assert_eq!(Ledger::open(&path, boot()).expect("opens").restore().expect("restores"), expected);
}

#[test]
fn another_file_put_in_the_place_of_an_open_ledger_is_set_aside() {
    let (_directory, path) = fresh();
    let mut ledger = busy(&path);
    let expected = ledger.restore().expect("restores");
    let other = path.with_file_name("backup");
    fs::write(&other, "somebody's backup").expect("written");
    fs::rename(&other, &path).expect("put there");
    ledger.keep_place().expect("written anew");
    assert_eq!(fs::read_to_string(beside(&path, ".replaced-1")).expect("kept"), "somebody's backup");
    drop(ledger);
    assert_eq!(Ledger::open(&path, boot()).expect("opens").restore().expect("restores"), expected);
}

#[test]
fn a_new_ledger_that_was_complete_when_the_agent_died_is_taken() {
    let (_directory, path) = fresh();
    let ledger = busy(&path);
    let expected = ledger.restore().expect("restores");
    drop(ledger);
    fs::rename(&path, beside(&path, ".new")).expect("as it was then");
    assert_eq!(Ledger::open(&path, boot()).expect("opens").restore().expect("restores"), expected);
    assert!(!exists(&path, ".new"));
}

#[test]
fn a_ledger_locked_by_somebody_else_is_written_once_they_are_done() {
    let (_directory, path) = fresh();
    let mut ledger = busy(&path);
    let other = Connection::open(&path).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("locks");
    let error = commit(&mut ledger, &[closed(4, 1, 1)]).expect_err("locked");
    assert_eq!(Trouble::of(&error), Some(Trouble::Locked), "{error:#}");
    other.execute_batch("ROLLBACK").expect("lets go");
    ledger.probe().expect("can be written");
    commit(&mut ledger, &[closed(4, 1, 1)]).expect("commits");
}

/// As when its file system is unmounted, mended and mounted again: the mount point is bare for a while, or not even there.
#[test]
fn a_ledger_that_was_let_go_is_waited_for_and_no_new_one_is_begun_in_its_place() {
    let (directory, path) = fresh();
    let mut ledger = busy(&path);
    let before = ledger.restore().expect("restores");
    ledger.let_go().expect("closed");
    let (elsewhere, _) = fresh();
    let mended = elsewhere.path().join("mended");
    fs::rename(directory.path(), &mended).expect("unmounted");
    for bare in [false, true] {
        if bare {
            fs::create_dir(directory.path()).expect("a bare mount point");
        }
        let error = ledger.probe().expect_err("nothing is there");
        assert_eq!(Trouble::of(&error), Some(Trouble::Away), "{error:#}");
        assert!(format!("{error:#}").contains("mount its file system"), "{error:#}");
    }
    assert_eq!(fs::read_dir(directory.path()).expect("lists").count(), 0, "nothing is made there");
    fs::remove_dir(directory.path()).expect("gone again");
    fs::rename(&mended, directory.path()).expect("mounted");
    ledger.probe().expect("can be written");
    assert_eq!(ledger.restore().expect("restores"), before);
    assert!(!exists(&path, ".replaced-1"));
    commit(&mut ledger, &[closed(4, 1, 1)]).expect("commits");
}

#[test]
fn a_full_file_system_is_told_apart_and_costs_nothing_that_was_committed() {
    let (_directory, path) = fresh();
    let mut ledger = busy(&path);
    let before = ledger.restore().expect("restores");
    // SQLite's own bound on the file stands for the file system's; the real one is filled in the scenarios.
    let pages: i64 = ledger.db.pragma_query_value(None, "page_count", |row| row.get(0)).expect("a count");
    ledger.db.pragma_update(None, "max_page_count", pages).expect("bounded");
    let error = ledger.probe().expect_err("no room");
    assert_eq!(Trouble::of(&error), Some(Trouble::Full), "{error:#}");
    assert_eq!(ledger.restore().expect("restores"), before);
    ledger.db.pragma_update(None, "max_page_count", pages + 1000).expect("room");
    ledger.probe().expect("can be written");
    assert_eq!(ledger.setting("probe").expect("reads"), None);
}

#[test]
fn a_long_backlog_is_sealed_in_messages_of_fifty_and_restored_in_little() {
    let mut ledger = super::in_memory();
    commit(&mut ledger, &[opened(SESSION)]).expect("commits");
    let batch: Vec<Record> = (1..=5000).map(|number| closed(number, 10, 1)).collect();
    commit(&mut ledger, &batch).expect("commits");
    let [session] = &ledger.restore().expect("restores")[..] else { panic!("one session") };
    assert_eq!(session.pending, vec![Octets::new(11); 5000]);
    let mut asked = 0;
    for message in 0..100 {
        let numbers: Vec<u32> = (message * 50 + 1..=message * 50 + 50).collect();
        let reported = u64::from(message + 1) * 550;
        let mut seal = |request: &crate::ledger::SealRequest| {
            asked += request.containers.len();
            bytes(request)
        };
        let batch = [sealed(message, &numbers, reported), acknowledged(message)];
        ledger.commit(&batch, &moment(100), &mut seal).expect("commits");
    }
    assert_eq!(asked, 5000);
    let [audit] = &ledger.audit().expect("audits")[..] else { panic!("one session") };
    assert_eq!((audit.drift(), audit.acknowledged.online), (Octets::ZERO, UsedUnit::new(50_000, 5000)));
    let buffered = ledger.buffered().expect("sums");
    assert_eq!((buffered.containers, buffered.octets), (0, Octets::ZERO));
}
