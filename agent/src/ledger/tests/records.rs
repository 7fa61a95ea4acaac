//! What each kind of record does.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    SESSION, acknowledged, at, boot, bytes, closed, commit, container, grant, in_memory, key, label, message, moment,
    opened, opening, sealed, wall,
};
use crate::clock::{Label, Moment};
use crate::ledger::{Granularity, LabelledContainer, Ledger, Scope, SealRequest, Usage, Verdict};
use crate::quota::{Container, Exceptions, FailureHandling, Grant, QuotaManagement, Record, Trigger};
use crate::units::{BootId, ChargingId, Octets, SessionRef, SubscriberIdentifier, UsedUnit};

/// A session with its create answered.
pub(super) fn active() -> Ledger {
    let mut ledger = in_memory();
    let answer = Record::MessageAcknowledged {
        key: key(0),
        session_ref: Some(SessionRef::new("ref-1")),
        grant: Some(grant(1 << 20)),
        failure_handling: None,
    };
    commit(&mut ledger, &[opened(SESSION), sealed(0, &[], 0), answer]).expect("commits");
    ledger
}

/// What `seal` is asked for when `records` are committed.
fn requests(ledger: &mut Ledger, records: &[Record], moment: &Moment) -> Vec<SealRequest> {
    let mut requests = Vec::new();
    let mut seal = |request: &SealRequest| {
        requests.push(request.clone());
        bytes(request)
    };
    ledger.commit(records, moment, &mut seal).expect("commits");
    requests
}

#[test]
fn an_opened_session_is_restored_as_it_was_opened() {
    let mut ledger = in_memory();
    assert!(!ledger.knows(SESSION).expect("reads"));
    commit(&mut ledger, &[opened(SESSION)]).expect("commits");
    let restored = ledger.restore().expect("restores");
    assert_eq!(restored.len(), 1);
    assert_eq!(restored[0].opening, opening(SESSION));
    assert_eq!(restored[0].next_container.get(), 1);
    assert_eq!(restored[0].next_message.get(), 0);
    assert!(ledger.knows(SESSION).expect("reads"));
}

#[test]
fn a_message_is_sealed_with_all_it_is_made_of() {
    let mut ledger = active();
    let offline = Container { quota_management: QuotaManagement::Offline, ..container(2, 9, 1) };
    let batch = [
        closed(1, 300, 700),
        Record::ContainerClosed { session: SESSION, container: offline.clone() },
        closed(3, 1, 1),
        sealed(1, &[1, 2], 1000),
    ];
    let requests = requests(&mut ledger, &batch, &moment(100));
    let labels = |container| LabelledContainer {
        container,
        first_usage: label(10),
        last_usage: label(20),
        closed_at: label(21),
    };
    let expected = SealRequest {
        opening: opening(SESSION),
        session_ref: Some(SessionRef::new("ref-1")),
        message: message(1, &[1, 2], 1000),
        containers: vec![labels(container(1, 300, 700)), labels(offline)],
        sealed_at: label(30),
    };
    assert_eq!(requests, std::slice::from_ref(&expected));
    let stored = ledger.message(key(1)).expect("reads").expect("is stored");
    assert_eq!(stored.body, bytes(&expected).expect("bytes"));
    assert_eq!(stored.session_ref, expected.session_ref);
    let session = &ledger.restore().expect("restores")[0];
    assert_eq!(session.closed, UsedUnit::new(301, 701));
    assert_eq!(session.closed_throttled, UsedUnit::new(9, 1));
    assert_eq!(session.reported, Octets::new(1000));
    assert_eq!((session.next_container.get(), &session.pending[..]), (4, &[Octets::new(2)][..]));
}

#[test]
fn labels_stay_as_recorded_when_the_clock_steps() {
    const FIVE_WEEKS: i64 = 5 * 7 * 86_400;
    for step in [FIVE_WEEKS, -FIVE_WEEKS] {
        let mut ledger = active();
        commit(&mut ledger, &[closed(1, 1, 2)]).expect("commits");
        let stepped = Moment { boot: at(100), label: label(100 + step) };
        let requests = requests(&mut ledger, &[closed(2, 1, 1), sealed(1, &[1, 2], 5)], &stepped);
        let [before, after] = &requests[0].containers[..] else { panic!("two containers") };
        assert_eq!((before.first_usage, before.last_usage), (label(10), label(20)));
        // One moment labels a whole container: its first octet is never later than its last.
        assert_eq!((after.first_usage, after.last_usage), (label(10 + step), label(20 + step)));
        assert_eq!(requests[0].sealed_at, label(30 + step));
    }
}

/// The first ten seconds of a boot, by a clock that nobody has set.
fn unset(seconds: i64) -> Moment {
    let wall = Timestamp::from_second(seconds).expect("a time");
    Moment { boot: at(seconds.unsigned_abs()), label: Label { wall, synced: false } }
}

#[test]
fn labels_of_a_clock_that_was_not_set_are_put_right_when_they_are_sealed() {
    let mut ledger = active();
    ledger.commit(&[closed(1, 1, 2)], &unset(100), &mut bytes).expect("commits");
    let requests = requests(&mut ledger, &[sealed(1, &[1], 3)], &moment(100));
    let container = &requests[0].containers[0];
    assert_eq!((container.first_usage, container.last_usage, container.closed_at), (label(10), label(20), label(21)));
    // And what is added to the history goes by them.
    commit(&mut ledger, &[acknowledged(1)]).expect("commits");
    let days = ledger.usage_history(Granularity::Day, Scope::Acknowledged).expect("a history");
    assert_eq!(days.len(), 1);
    assert!(days[0].synced && days[0].start > wall(-86_400), "{days:?}");
}

#[test]
fn labels_that_are_sealed_are_never_put_right() {
    let mut ledger = active();
    ledger.commit(&[closed(1, 1, 2), sealed(1, &[1], 3)], &unset(100), &mut bytes).expect("commits");
    let body = ledger.message(key(1)).expect("reads").expect("is stored").body;
    ledger.commit(&[closed(2, 1, 1)], &moment(100), &mut bytes).expect("commits");
    assert_eq!(ledger.message(key(1)).expect("reads").expect("is stored").body, body);
    let sql = "UPDATE container SET closed_wall = 7, closed_synced = 1 WHERE number = ";
    for number in [1, 2] {
        let error = ledger.db.execute(&format!("{sql}{number}"), []).expect_err("refused").to_string();
        assert!(error.contains("a closed container never changes"), "{number}: {error}");
    }
}

#[test]
fn what_a_power_cut_left_is_labelled_by_the_clock_that_was_set() {
    for (opened_by, read_by, expected) in [(unset(5), moment(100), label(80)), (moment(100), unset(100), label(1))] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ledger.db");
        let mut ledger = Ledger::open(&path, boot()).expect("opens");
        ledger.commit(&[opened(SESSION), sealed(0, &[], 0), acknowledged(0)], &opened_by, &mut bytes).expect("commits");
        let (passed, throttled) = (UsedUnit::new(1300, 2700), UsedUnit::new(10, 20));
        let checkpoint = Record::Checkpoint { session: SESSION, passed, throttled, at: at(80) };
        ledger.commit(&[checkpoint], &read_by, &mut bytes).expect("commits");
        drop(ledger);
        let mut ledger = Ledger::open(&path, BootId::new("another boot")).expect("opens");
        let requests = requests(&mut ledger, &[closed(1, 300, 700), sealed(1, &[1], 1000)], &unset(7));
        let left = &requests[0].containers[0];
        assert_eq!((left.first_usage, left.last_usage, left.closed_at), (expected, expected, expected));
    }
}

#[test]
fn what_a_power_cut_left_is_labelled_by_what_was_recorded_before_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    let mut ledger = Ledger::open(&path, boot()).expect("opens");
    let checkpoint = Record::Checkpoint {
        session: SESSION,
        passed: UsedUnit::new(1300, 2700),
        throttled: UsedUnit::new(10, 20),
        at: at(80),
    };
    let before = [opened(SESSION), sealed(0, &[], 0), acknowledged(0), closed(1, 1, 1), checkpoint];
    commit(&mut ledger, &before).expect("commits");
    drop(ledger);
    let mut ledger = Ledger::open(&path, BootId::new("another boot")).expect("opens");
    // Weeks later by the wall, five seconds after the boot: the instants of the old boot lie in the future of the new one.
    let now = Moment { boot: at(5), label: label(2_000_000) };
    let left = Container { trigger: Trigger::AbnormalRelease, ..container(2, 298, 698) };
    let batch = [Record::ContainerClosed { session: SESSION, container: left }, sealed(1, &[1, 2], 998)];
    let requests = requests(&mut ledger, &batch, &now);
    let left = &requests[0].containers[1];
    assert_eq!((left.first_usage, left.last_usage, left.closed_at), (label(20), label(80), label(80)));
}

#[test]
fn an_acknowledgement_deletes_the_message_and_keeps_the_history() {
    let mut ledger = active();
    commit(&mut ledger, &[closed(1, 300, 700), closed(2, 1, 1), sealed(1, &[1], 1000)]).expect("commits");
    let answer = Record::MessageAcknowledged {
        key: key(1),
        session_ref: None,
        grant: Some(Grant {
            valid_until: None,
            holding: None,
            final_unit: None,
            exceptions: Exceptions::default(),
            ..grant(u64::MAX)
        }),
        failure_handling: None,
    };
    commit(&mut ledger, &[answer]).expect("commits");
    assert_eq!(ledger.message(key(1)).expect("reads"), None);
    let session = &ledger.restore().expect("restores")[0];
    assert_eq!(session.session_ref, Some(SessionRef::new("ref-1")), "an answer without a name keeps it");
    assert_eq!(session.grant.as_ref().expect("a grant").ceiling, Octets::MAX);
    assert_eq!(session.outstanding, None);
    let audit = &ledger.audit().expect("audits")[0];
    assert_eq!(audit.acknowledged.online, UsedUnit::new(300, 700));
    assert_eq!((audit.pending_containers, audit.grants, audit.granted), (1, 2, Octets::new(2 << 20)));
    assert_eq!(audit.oldest_unreported, Some(label(10)));
    assert_eq!(audit.drift(), Octets::ZERO);
    let history = ledger.usage_history(Granularity::Month, Scope::Acknowledged).expect("a history");
    assert_eq!(history.len(), 1);
    assert_eq!(history[0].usage, Usage { online: UsedUnit::new(300, 700), offline: UsedUnit::ZERO });
    assert_eq!(history[0].start, "2026-10-01T00:00:00Z".parse().expect("a time"));
}

#[test]
fn a_late_second_answer_changes_nothing() {
    let mut ledger = active();
    commit(&mut ledger, &[closed(1, 300, 700), sealed(1, &[1], 1000)]).expect("commits");
    let fresh = commit(&mut ledger, &[acknowledged(1)]).expect("commits");
    assert!(fresh.repeated.is_empty());
    let before = (ledger.restore().expect("restores"), ledger.audit().expect("audits"));
    let late = Record::MessageAcknowledged {
        key: key(0),
        session_ref: Some(SessionRef::new("other")),
        grant: Some(grant(5 << 20)),
        failure_handling: None,
    };
    let repeated = commit(&mut ledger, &[late, acknowledged(1)]).expect("commits");
    assert_eq!(repeated.repeated, [key(0), key(1)]);
    assert_eq!((ledger.restore().expect("restores"), ledger.audit().expect("audits")), before);
}

#[test]
fn a_grace_is_remembered_until_the_next_grant() {
    let mut ledger = active();
    let grace = Record::GraceOpened { session: SESSION, ceiling: Octets::new(2 << 20), until: at(900) };
    commit(&mut ledger, &[grace, sealed(1, &[], 0), acknowledged(1)]).expect("commits");
    assert_eq!(ledger.restore().expect("restores")[0].grace, Some((Octets::new(2 << 20), at(900))));
    let answer = Record::MessageAcknowledged {
        key: key(2),
        session_ref: None,
        grant: Some(grant(3 << 20)),
        failure_handling: None,
    };
    commit(&mut ledger, &[sealed(2, &[], 0), answer]).expect("commits");
    assert_eq!(ledger.restore().expect("restores")[0].grace, None);
}

#[test]
fn the_failure_handling_that_the_server_asked_for_is_remembered_until_it_asks_for_another() {
    let mut ledger = active();
    let mut next = 1;
    let mut after = |failure_handling| {
        let answer = Record::MessageAcknowledged { key: key(next), session_ref: None, grant: None, failure_handling };
        commit(&mut ledger, &[sealed(next, &[], 0), answer]).expect("commits");
        next += 1;
        ledger.restore().expect("restores")[0].failure_handling
    };
    assert_eq!(after(None), None);
    assert_eq!(after(Some(FailureHandling::Continue)), Some(FailureHandling::Continue));
    assert_eq!(after(None), Some(FailureHandling::Continue), "an answer that says nothing of it changes nothing");
    for asked in [FailureHandling::Terminate, FailureHandling::RetryAndTerminate] {
        assert_eq!(after(Some(asked)), Some(asked));
    }
}

#[test]
fn a_message_set_aside_is_kept_and_shown_but_not_sent_again() {
    let mut ledger = active();
    commit(&mut ledger, &[closed(1, 300, 700), sealed(1, &[1], 1000)]).expect("commits");
    let refused = Record::MessageSetAside { key: key(1), cause: "400 INVALID".to_owned() };
    commit(&mut ledger, &[refused, closed(2, 1, 0), sealed(2, &[2], 1001)]).expect("the session goes on");
    assert_eq!(ledger.message(key(1)).expect("reads"), None);
    let in_doubt = ledger.set_aside().expect("lists");
    assert_eq!(in_doubt.len(), 1);
    assert_eq!((in_doubt[0].key, in_doubt[0].cause.as_str()), (key(1), "400 INVALID"));
    assert_eq!(in_doubt[0].usage.total(), Octets::new(1000));
    assert_eq!((in_doubt[0].sealed_at, in_doubt[0].set_aside_at), (label(30), label(100)));
    assert_eq!(ledger.buffered().expect("sums").octets, Octets::new(1), "what is set aside waits for nothing");
    commit(&mut ledger, &[acknowledged(2), Record::SessionClosed { session: SESSION }]).expect("commits");
    assert_eq!(ledger.set_aside().expect("lists"), in_doubt, "it outlives its session");
}

#[test]
fn what_is_in_doubt_is_kept_apart_from_what_was_refused() {
    let mut ledger = active();
    commit(&mut ledger, &[closed(1, 300, 700), sealed(1, &[1], 1000)]).expect("commits");
    let doubt = Record::MessageInDoubt { key: key(1), reason: "timed out".to_owned() };
    commit(&mut ledger, &[doubt, closed(2, 1, 0), sealed(2, &[2], 1001)]).expect("the session goes on");
    let refused = Record::MessageSetAside { key: key(2), cause: "400 INVALID".to_owned() };
    commit(&mut ledger, &[refused]).expect("commits");
    let aside: Vec<_> = ledger.set_aside().expect("lists").into_iter().map(|m| (m.verdict, m.usage.total())).collect();
    assert_eq!(aside, [(Verdict::InDoubt, Octets::new(1000)), (Verdict::Refused, Octets::new(1))]);
    assert_eq!(ledger.message(key(1)).expect("reads"), None, "it is not sent again");
    assert_eq!(ledger.audit().expect("audits")[0].drift(), Octets::ZERO);
}

#[test]
fn a_message_in_doubt_that_reports_nothing_leaves_nothing_behind() {
    let mut ledger = active();
    let doubt = Record::MessageInDoubt { key: key(1), reason: "timed out".to_owned() };
    commit(&mut ledger, &[sealed(1, &[], 0), doubt, sealed(2, &[], 0), acknowledged(2)]).expect("commits");
    assert_eq!(ledger.set_aside().expect("lists"), []);
}

#[test]
fn whether_a_message_was_taken_is_known_only_when_somebody_said_so() {
    let mut ledger = active();
    let not_taken = |ledger: &Ledger| ledger.restore().expect("restores")[0].not_taken;
    commit(&mut ledger, &[closed(1, 9, 0), sealed(1, &[1], 9)]).expect("commits");
    assert!(!not_taken(&ledger), "it may be on its way");
    commit(&mut ledger, &[Record::MessageNotTaken { key: key(1) }]).expect("commits");
    assert!(not_taken(&ledger));
    commit(&mut ledger, &[Record::MessageAttempted { key: key(1) }]).expect("commits");
    assert!(!not_taken(&ledger), "it may be on its way again");
}

#[test]
fn what_a_lost_session_left_is_sealed_again_under_the_same_names_and_labels() {
    let mut ledger = active();
    let usage = [
        closed(1, 1, 0),
        sealed(1, &[1], 1),
        acknowledged(1),
        closed(2, 20, 0),
        sealed(2, &[2], 21),
        closed(3, 300, 0),
    ];
    commit(&mut ledger, &usage).expect("commits");
    let lost = Record::Orphaned { session: SESSION };
    ledger.commit(&[lost], &Moment { label: label(50_000), ..moment(100) }, &mut bytes).expect("commits");
    assert_eq!(ledger.message(key(2)).expect("reads"), None, "the void message is not sent again");
    let session = &ledger.restore().expect("restores")[0];
    assert!(session.orphaned);
    assert_eq!((&session.outstanding, session.next_message.get()), (&None, 3));
    assert_eq!((session.next_container.get(), &session.pending[..]), (4, &[Octets::new(20), Octets::new(300)][..]));
    let requests = requests(&mut ledger, &[sealed(3, &[2, 3], 321)], &moment(200));
    let containers = &requests[0].containers;
    assert_eq!(containers.iter().map(|labelled| labelled.container.number.get()).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(containers[0].closed_at, label(21), "labels stay as they were");
    assert_eq!(ledger.audit().expect("audits")[0].drift(), Octets::ZERO);
}

#[test]
fn a_closed_session_is_not_restored() {
    let mut ledger = active();
    commit(&mut ledger, &[Record::SessionClosing { session: SESSION, trigger: Trigger::Qht }]).expect("commits");
    assert_eq!(ledger.restore().expect("restores")[0].closing, Some(Trigger::Qht));
    commit(&mut ledger, &[Record::SessionClosed { session: SESSION }]).expect("commits");
    assert_eq!(ledger.restore().expect("restores"), []);
    assert!(ledger.knows(SESSION).expect("reads"), "its name is not given twice");
}

#[test]
fn a_name_that_any_session_ever_bore_is_drawn_again() {
    let mut ledger = in_memory();
    commit(&mut ledger, &[opened(SESSION), opened(ChargingId::new(8))]).expect("commits");
    commit(&mut ledger, &[Record::SessionClosed { session: ChargingId::new(8) }]).expect("commits");
    let mut offered = [SESSION.get(), 8, SESSION.get(), 9, 10].into_iter();
    let name = ledger.fresh_name(&mut || offered.next().expect("an offer")).expect("reads");
    assert_eq!((name, offered.next()), (ChargingId::new(9), Some(10)));
}

#[test]
fn an_order_to_abort_is_remembered_until_it_is_reauthorised() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    let sim = |number: u8| SubscriberIdentifier::new(format!("imsi-00101000000000{number}"));
    let mut ledger = Ledger::open(&path, boot()).expect("opens");
    let order = |number| Record::Aborted { subscriber: sim(number) };
    // Each link's core says so.
    commit(&mut ledger, &[order(2), order(1), order(2)]).expect("commits");
    drop(ledger);
    let mut ledger = Ledger::open(&path, boot()).expect("opens");
    assert_eq!(ledger.aborted().expect("lists"), [sim(1), sim(2)]);
    let over = Record::Reauthorised { subscriber: sim(2) };
    commit(&mut ledger, &[over.clone(), over]).expect("commits");
    assert_eq!(ledger.aborted().expect("lists"), [sim(1)]);
}

#[test]
fn the_last_checkpoint_is_kept() {
    let mut ledger = active();
    for octets in [0, 5, 5, u64::MAX - 2000] {
        let (passed, throttled) = (UsedUnit::new(1000 + octets, 2000), UsedUnit::new(10, 20));
        commit(&mut ledger, &[Record::Checkpoint { session: SESSION, passed, throttled, at: at(5) }]).expect("commits");
        assert_eq!(ledger.restore().expect("restores")[0].checkpoint, Some((passed, throttled)));
    }
}

#[test]
fn a_label_is_kept_to_the_microsecond() {
    let mut ledger = active();
    let fine = Label { wall: wall(100) + Duration::from_nanos(123_456_789), synced: true };
    let sealed_at = requests(&mut ledger, &[sealed(1, &[], 0)], &Moment { boot: at(30), label: fine })[0].sealed_at;
    assert_eq!(sealed_at.wall, wall(100) + Duration::from_micros(123_456));
}

#[test]
fn settings_are_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    let mut ledger = Ledger::open(&path, boot()).expect("opens");
    assert_eq!(ledger.setting("plan").expect("reads"), None);
    ledger.set_setting("plan", r#"{"octets":1}"#).expect("stores");
    ledger.set_setting("plan", r#"{"octets":2}"#).expect("stores");
    drop(ledger);
    let ledger = Ledger::open(&path, boot()).expect("opens");
    assert_eq!(ledger.setting("plan").expect("reads").as_deref(), Some(r#"{"octets":2}"#));
}
