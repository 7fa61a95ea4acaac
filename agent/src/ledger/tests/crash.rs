//! What a crash leaves: after any step, and in the middle of any commit.

use std::fs;
use std::path::Path;

use fastrand::Rng;

use super::model::Model;
use super::random::next_batch;
use super::{SESSION, acknowledged, at, boot, bytes, closed, grant, key, moment, opened, sealed};
use crate::ledger::Ledger;
use crate::quota::{FailureHandling, Record, Trigger};
use crate::units::{Octets, SessionRef, SubscriberIdentifier, UsedUnit};

fn subscriber() -> SubscriberIdentifier {
    SubscriberIdentifier::new("imsi-001010000000001")
}

/// A session's life with every kind of record.
fn script() -> Vec<Vec<Record>> {
    let checkpoint = |uplink, downlink| Record::Checkpoint {
        session: SESSION,
        passed: UsedUnit::new(uplink, downlink),
        throttled: UsedUnit::new(10, 20),
        at: at(15),
    };
    vec![
        vec![opened(SESSION), sealed(0, &[], 0)],
        vec![Record::MessageAcknowledged {
            key: key(0),
            session_ref: Some(SessionRef::new("ref-1")),
            grant: Some(grant(1 << 20)),
            failure_handling: Some(FailureHandling::Continue),
        }],
        vec![checkpoint(1300, 2700)],
        vec![closed(1, 300, 700), sealed(1, &[1], 1000), checkpoint(1300, 2700)],
        vec![closed(2, 5, 6)],
        vec![Record::GraceOpened { session: SESSION, ceiling: Octets::new(2 << 20), until: at(900) }],
        vec![Record::MessageAcknowledged {
            key: key(1),
            session_ref: None,
            grant: Some(grant(3 << 20)),
            failure_handling: None,
        }],
        vec![sealed(2, &[2], 1011)],
        vec![Record::MessageSetAside { key: key(2), cause: "END_USER_REQUEST_REJECTED".to_owned() }],
        vec![closed(3, 7, 0), closed(4, 8, 0), sealed(3, &[3], 1018)],
        vec![
            Record::Orphaned { session: SESSION },
            Record::SessionClosing { session: SESSION, trigger: Trigger::Final },
        ],
        vec![Record::SessionSettled { session: SESSION }, Record::Aborted { subscriber: subscriber() }],
        vec![Record::Aborted { subscriber: subscriber() }, Record::Reauthorised { subscriber: subscriber() }],
    ]
}

/// Copies the files as a crash would leave them, the log cut to `log` octets, and opens the copy.
fn crashed(path: &Path, log: Option<u64>) -> (tempfile::TempDir, Ledger) {
    let cut = |octets: &mut Vec<u8>| {
        if let Some(log) = log {
            octets.truncate(usize::try_from(log).expect("in range"));
        }
    };
    damaged(path, cut)
}

/// Copies the files, with damage to the log, and opens the copy.
fn damaged(path: &Path, damage: impl FnOnce(&mut Vec<u8>)) -> (tempfile::TempDir, Ledger) {
    let directory = tempfile::tempdir().expect("a directory");
    let copy = directory.path().join("ledger.db");
    fs::copy(path, &copy).expect("the database copies");
    let mut log = fs::read(path.with_extension("db-wal")).expect("the log is read");
    damage(&mut log);
    fs::write(copy.with_extension("db-wal"), log).expect("the log copies");
    let ledger = Ledger::open(copy, boot()).expect("a crashed ledger opens");
    (directory, ledger)
}

fn log_length(path: &Path) -> u64 {
    fs::metadata(path.with_extension("db-wal")).map_or(0, |log| log.len())
}

/// Commits each batch; crashes after it, and at several points within it.
fn crash_at_each_step(batches: impl Iterator<Item = Vec<Record>>, model: &mut Model, hint: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    let mut ledger = Ledger::open(&path, boot()).expect("opens");
    for (step, batch) in batches.enumerate() {
        let hint = format!("{hint}, step {step}, {batch:?}");
        let before = log_length(&path);
        ledger.commit(&batch, &moment(100), &mut bytes).expect(&hint);
        let after = log_length(&path);
        assert!(after > before, "{hint}: the log grows, or the cuts below mean nothing");
        for cut in [before, before + 1, before.midpoint(after), after - 1] {
            let (_directory, crashed) = crashed(&path, Some(cut));
            model.assert_agrees(&crashed, &format!("{hint}, cut at {cut} of {before}..{after}"));
        }
        model.apply_all(&batch);
        let (_directory, crashed) = crashed(&path, None);
        model.assert_agrees(&crashed, &hint);
    }
}

#[test]
fn a_crash_leaves_all_of_a_batch_or_nothing_of_it() {
    let mut model = Model::default();
    crash_at_each_step(script().into_iter(), &mut model, "script");
    let [orphan] = &model.open()[..] else { panic!("the lost session is left") };
    assert_eq!(orphan.pending.len(), 2);
}

#[test]
fn a_commit_that_reached_the_disk_torn_never_was_and_garbage_behind_the_last_one_is_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    let mut ledger = Ledger::open(&path, boot()).expect("opens");
    let (mut model, mut rng) = (Model::default(), Rng::with_seed(7));
    for (step, batch) in script().into_iter().enumerate() {
        let from = usize::try_from(log_length(&path)).expect("in range");
        ledger.commit(&batch, &moment(100), &mut bytes).expect("commits");
        let to = usize::try_from(log_length(&path)).expect("in range");
        for _ in 0..5 {
            let (at, bit) = (rng.usize(from..to), rng.u8(0..8));
            let (_directory, torn) = damaged(&path, |log| log[at] ^= 1 << bit);
            model.assert_agrees(&torn, &format!("step {step}, bit {bit} of octet {at} of {from}..{to}"));
        }
        // A sector of the commit was never written: there is what was there before, or zeros.
        let sector = from + rng.usize(0..(to - from) / 512) * 512;
        let (_directory, torn) = damaged(&path, |log| log[sector..sector + 512].fill(0));
        let untouched =
            fs::read(path.with_extension("db-wal")).expect("the log is read")[sector..sector + 512] == [0; 512];
        if !untouched {
            model.assert_agrees(&torn, &format!("step {step}, the sector at {sector} of {from}..{to}"));
        }
        model.apply_all(&batch);
        let garbage: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(9000).collect();
        let (_directory, followed) = damaged(&path, |log| log.extend(garbage));
        model.assert_agrees(&followed, &format!("step {step}, garbage behind"));
    }
}

#[test]
fn a_crash_anywhere_in_a_random_walk_leaves_all_of_a_batch_or_nothing_of_it() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = Rng::with_seed(seed);
    let mut ahead = Model::default();
    let batches = std::iter::repeat_with(move || {
        let batch = next_batch(&mut rng, &ahead);
        ahead.apply_all(&batch);
        batch
    });
    crash_at_each_step(batches.take(25), &mut Model::default(), &format!("seed {seed}"));
}

#[test]
fn a_message_keeps_its_bytes_over_a_crash_and_is_a_retransmission_then() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    let mut ledger = Ledger::open(&path, boot()).expect("opens");
    ledger.commit(&[opened(SESSION), sealed(0, &[], 0)], &moment(100), &mut bytes).expect("commits");
    let first = ledger.message(key(0)).expect("reads").expect("is stored");
    assert_eq!((first.attempts, first.retransmission), (0, false));
    assert_eq!(ledger.count_attempt(key(0)).expect("counts"), 1);
    let second = ledger.message(key(0)).expect("reads").expect("is stored");
    assert_eq!((second.attempts, second.retransmission), (1, true));
    let (_directory, mut crashed) = crashed(&path, None);
    let restored = crashed.message(key(0)).expect("reads").expect("is stored");
    assert_eq!(restored.body, first.body);
    assert_eq!((restored.attempts, restored.retransmission), (0, true));
    assert_eq!(crashed.count_attempt(key(0)).expect("counts"), 1);
    crashed.commit(&[acknowledged(0)], &moment(100), &mut bytes).expect("commits");
    assert_eq!(crashed.message(key(0)).expect("reads"), None);
    crashed.count_attempt(key(0)).expect_err("what is acknowledged is not sent again");
}
