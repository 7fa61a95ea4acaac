//! What the ledger refuses, and that nothing of a refused batch holds.

use super::{SESSION, acknowledged, at, closed, commit, container, in_memory, key, message, opened, sealed, told};
use crate::ledger::Ledger;
use crate::quota::Record;
use crate::units::{ChargingId, UsedUnit};

/// A session with container 1 acknowledged, 2 in the outstanding message 1, 3 pending.
fn busy() -> Ledger {
    let mut ledger = in_memory();
    let batch = [
        opened(SESSION),
        closed(1, 1, 0),
        sealed(0, &[1], 1),
        acknowledged(0),
        closed(2, 20, 0),
        closed(3, 300, 0),
        sealed(1, &[2], 21),
    ];
    commit(&mut ledger, &batch).expect("commits");
    ledger
}

/// The batch is refused with these words, and what comes before the bad record does not hold either.
fn assert_refused(bad: Record, words: &str) {
    let mut ledger = busy();
    let before = ledger.restore().expect("restores");
    let error = told(commit(&mut ledger, &[opened(ChargingId::new(77)), bad]));
    assert!(error.contains(words), "{error}");
    assert_eq!(ledger.restore().expect("restores"), before);
    assert!(!ledger.knows(ChargingId::new(77)).expect("reads"));
}

fn checkpoint(passed: UsedUnit, throttled: UsedUnit) -> Record {
    Record::Checkpoint { session: SESSION, passed, throttled, at: at(3) }
}

#[test]
fn a_session_is_opened_once() {
    assert_refused(opened(SESSION), "UNIQUE");
}

#[test]
fn an_unknown_session_takes_nothing() {
    let unknown = ChargingId::new(9);
    assert_refused(Record::ContainerClosed { session: unknown, container: container(1, 1, 1) }, "is not in the ledger");
    assert_refused(Record::SessionClosed { session: unknown }, "is not in the ledger");
}

#[test]
fn containers_are_numbered_without_a_gap() {
    assert_refused(closed(5, 1, 1), "out of turn: the next one is 4");
    assert_refused(closed(3, 1, 1), "out of turn");
}

#[test]
fn a_container_holds_less_than_2_to_the_31_octets() {
    assert_refused(closed(4, 1 << 30, 1 << 30), "container_below_2_to_the_31");
    assert_refused(closed(4, u64::MAX, 1), "CHECK");
    commit(&mut busy(), &[closed(4, 1 << 30, (1 << 30) - 1)]).expect("one octet less is taken");
}

#[test]
fn one_message_is_in_flight() {
    assert_refused(sealed(2, &[3], 321), "message 1 of session 3000000001 still waits");
}

#[test]
fn messages_carry_on_where_the_last_one_ended() {
    let refused = |bad: Record, words: &str| {
        let mut ledger = busy();
        commit(&mut ledger, &[acknowledged(1), closed(4, 4000, 0)]).expect("commits");
        let error = told(commit(&mut ledger, &[bad]));
        assert!(error.contains(words), "{error}");
    };
    refused(sealed(3, &[3], 321), "out of turn: the next one is 2");
    refused(sealed(2, &[4], 4021), "the oldest containers");
    refused(sealed(2, &[4, 3], 4321), "the oldest containers");
    refused(sealed(2, &[3, 4, 5], 4321), "the oldest containers");
    refused(sealed(2, &[2], 41), "the oldest containers");
    refused(sealed(2, &[3], 320), "claims 320 octets reported so far, its containers make it 321");
    let many: Vec<u32> = (3..54).collect();
    refused(sealed(2, &many, 321), "50 at most");
}

#[test]
fn only_a_message_that_waits_is_acknowledged() {
    assert_refused(acknowledged(2), "message 2 of session 3000000001 is not in the ledger");
    let mut ledger = busy();
    commit(&mut ledger, &[Record::MessageSetAside { key: key(1), cause: "no".to_owned() }]).expect("commits");
    assert!(told(commit(&mut ledger, &[acknowledged(1)])).contains("was set aside"));
    assert_refused(Record::MessageSetAside { key: key(0), cause: "no".to_owned() }, "was acknowledged");
}

#[test]
fn a_session_with_anything_left_is_not_closed() {
    assert_refused(Record::SessionClosed { session: SESSION }, "in no message");
    let batch = [opened(SESSION), closed(1, 1, 0), sealed(0, &[1], 1), Record::SessionClosed { session: SESSION }];
    let error = told(commit(&mut in_memory(), &batch));
    assert!(error.contains("still waits for its answer"), "{error}");
}

#[test]
fn a_closed_session_takes_nothing() {
    let mut ledger = in_memory();
    commit(&mut ledger, &[opened(SESSION), Record::SessionClosed { session: SESSION }]).expect("commits");
    for record in [closed(1, 1, 1), sealed(0, &[], 0), Record::SessionClosed { session: SESSION }] {
        assert!(told(commit(&mut ledger, &[record])).contains("session 3000000001 is closed"));
    }
}

#[test]
fn a_checkpoint_never_goes_back() {
    assert_refused(checkpoint(UsedUnit::new(999, 2000), UsedUnit::new(10, 20)), "goes back");
    let mut ledger = busy();
    commit(&mut ledger, &[checkpoint(UsedUnit::new(1500, 2500), UsedUnit::new(10, 20))]).expect("commits");
    for (passed, throttled) in
        [((1499, 2500), (10, 20)), ((1500, 2499), (10, 20)), ((1500, 2500), (9, 20)), ((1500, 2500), (10, 19))]
    {
        let back = checkpoint(UsedUnit::new(passed.0, passed.1), UsedUnit::new(throttled.0, throttled.1));
        assert!(told(commit(&mut ledger, &[back])).contains("goes back"));
    }
}

#[test]
fn a_session_is_lost_once() {
    let mut ledger = busy();
    commit(&mut ledger, &[Record::Orphaned { session: SESSION }]).expect("commits");
    let error = told(commit(&mut ledger, &[Record::Orphaned { session: SESSION }]));
    assert!(error.contains("is lost already"), "{error}");
    let error = told(commit(&mut ledger, &[acknowledged(1)]));
    assert!(error.contains("is not in the ledger"), "a void message takes no answer: {error}");
}

#[test]
fn nothing_of_a_batch_holds_when_its_bytes_cannot_be_made() {
    let mut ledger = busy();
    let before = (ledger.restore().expect("restores"), ledger.audit().expect("audits"));
    let batch = [acknowledged(1), closed(4, 4, 4), sealed(2, &[3, 4], 329)];
    let error = told(ledger.commit(&batch, &super::moment(100), &mut |_| anyhow::bail!("no room for bytes")));
    assert!(error.contains("message 2 of session 3000000001") && error.contains("no room for bytes"), "{error}");
    let error = told(ledger.commit(&batch, &super::moment(100), &mut |_| Ok(Vec::new())));
    assert!(error.contains("has no bytes"), "{error}");
    assert_eq!((ledger.restore().expect("restores"), ledger.audit().expect("audits")), before);
    let message = ledger.message(key(1)).expect("reads").expect("still there");
    assert!(!message.retransmission, "an answer that was not committed does not forget that it was never sent");
    commit(&mut ledger, &batch).expect("the next try holds");
}

#[test]
fn the_database_itself_refuses_to_change_what_is_sealed() {
    let ledger = busy();
    let refused = |sql: &str, words: &str| {
        let error = ledger.db.execute(sql, []).expect_err(sql).to_string();
        assert!(error.contains(words), "{sql}: {error}");
    };
    for column in
        ["number", "operation", "requested", "first_container", "containers", "reported", "sealed_wall", "body"]
    {
        refused(&format!("UPDATE message SET {column} = {column}"), "a sealed message never changes");
    }
    for column in ["number", "uplink", "downlink", "quota_management", "closed_at", "closed_wall"] {
        refused(&format!("UPDATE container SET {column} = {column}"), "a closed container never changes");
    }
    refused("DELETE FROM message", "deleted only when it is acknowledged");
    refused("DELETE FROM container WHERE number = 2", "deleted only with the acknowledged message");
    refused("DELETE FROM container WHERE number = 3", "deleted only with the acknowledged message");
    refused("INSERT OR REPLACE INTO message SELECT * FROM message", "numbered without a gap");
    refused("INSERT OR REPLACE INTO container SELECT * FROM container", "numbered without a gap");
    refused("DELETE FROM session", "FOREIGN KEY");
}

#[test]
fn what_was_set_aside_stays_set_aside() {
    let mut ledger = busy();
    commit(&mut ledger, &[Record::MessageSetAside { key: key(1), cause: "no".to_owned() }]).expect("commits");
    for sql in ["UPDATE message SET state = 'acknowledged', cause = NULL", "UPDATE message SET cause = 'other'"] {
        let error = ledger.db.execute(sql, []).expect_err(sql).to_string();
        assert!(error.contains("only an outstanding message"), "{error}");
    }
    let error = ledger.db.execute("DELETE FROM container WHERE number = 2", []).expect_err("is kept").to_string();
    assert!(error.contains("deleted only with the acknowledged message"), "{error}");
    let again = Record::MessageSealed { session: SESSION, message: message(2, &[2], 41) };
    assert!(told(commit(&mut ledger, &[again])).contains("the oldest containers"), "its usage is not reported twice");
}
