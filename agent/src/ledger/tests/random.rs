//! Random walks over the records, against the model.

use fastrand::Rng;

use super::model::{Model, ModelSession};
use super::{at, boot, bytes, container, grant, in_memory, moment, opening};
use crate::ledger::Ledger;
use crate::quota::{
    Container, FailureHandling, Message, MessageKey, Operation, QuotaManagement, Record, StoredSession, Trigger,
};
use crate::units::{ChargingId, Octets, SessionRef, UsedUnit};

/// One to three things that may happen next, as a batch.
pub(super) fn next_batch(rng: &mut Rng, model: &Model) -> Vec<Record> {
    let mut model = model.clone();
    let mut batch = Vec::new();
    for _ in 0..rng.u8(1..=3) {
        let record = next_record(rng, &model);
        model.apply_all(std::slice::from_ref(&record));
        batch.push(record);
    }
    batch
}

fn next_record(rng: &mut Rng, model: &Model) -> Record {
    let open: Vec<_> = model.sessions.iter().filter(|session| session.is_open).collect();
    let Some(session) = rng.choice(open) else {
        return Record::SessionOpened(opening(name(rng)));
    };
    let id = session.stored.opening.session;
    match rng.u8(0..20) {
        0 => Record::SessionOpened(opening(name(rng))),
        1..=6 if !session.stored.orphaned => random_container(rng, &session.stored),
        7..=8 => checkpoint(rng, &session.stored),
        9 => Record::GraceOpened { session: id, ceiling: Octets::MAX, until: at(rng.u64(0..9000)) },
        13 => Record::SliceSet { session: id, slice: Some(Octets::new(rng.u64(..))) },
        14 if session.stored.uncertain.is_none() => {
            Record::RestUncertain { session: id, octets: Octets::new(rng.u64(1..1 << 40)) }
        }
        10 if rng.bool() && !session.stored.settled => Record::SessionSettled { session: id },
        10 if session.stored.closing.is_none() => Record::SessionClosing { session: id, trigger: Trigger::Final },
        11 if rng.bool() => {
            let subscriber = session.stored.opening.subscriber.clone();
            // The one that changes something: a batch that writes nothing could not be cut anywhere.
            if model.aborted.contains(&subscriber) {
                Record::Reauthorised { subscriber }
            } else {
                Record::Aborted { subscriber }
            }
        }
        11 if !session.stored.orphaned => Record::Orphaned { session: id },
        12 if session.stored.outstanding.is_none() && session.pending.is_empty() => {
            Record::SessionClosed { session: id }
        }
        _ => seal_or_settle(rng, session),
    }
}

fn name(rng: &mut Rng) -> ChargingId {
    ChargingId::new(rng.u32(..))
}

fn random_container(rng: &mut Rng, session: &StoredSession) -> Record {
    let number = session.next_container.get();
    let quota_management = if rng.u8(0..4) == 0 { QuotaManagement::Offline } else { QuotaManagement::Online };
    let used = UsedUnit::new(rng.u64(0..1 << 30), rng.u64(0..1 << 30));
    // Over three months, so that the roll-ups have several spans.
    let closed_at = at(rng.u64(0..8_000_000));
    let container = Container { used, quota_management, closed_at, last_usage: closed_at, ..container(number, 0, 0) };
    Record::ContainerClosed { session: session.opening.session, container }
}

fn checkpoint(rng: &mut Rng, session: &StoredSession) -> Record {
    let before = session.checkpoint.unwrap_or((session.opening.base, session.opening.base_throttled));
    let mut grow = |used: UsedUnit| used.saturating_add(UsedUnit::new(rng.u64(0..1 << 40), rng.u64(0..1 << 40)));
    let (passed, throttled) = (grow(before.0), grow(before.1));
    Record::Checkpoint { session: session.opening.session, passed, throttled, at: at(50) }
}

fn seal_or_settle(rng: &mut Rng, model: &ModelSession) -> Record {
    let session = &model.stored;
    let id = session.opening.session;
    if let Some(message) = &session.outstanding {
        let key = MessageKey { session: id, number: message.number };
        match rng.u8(0..12) {
            0 => return Record::MessageSetAside { key, cause: "CHARGING_FAILED".to_owned() },
            1 => return Record::MessageInDoubt { key, reason: "timed out".to_owned() },
            2 if !session.not_taken => return Record::MessageNotTaken { key },
            3 if session.not_taken => return Record::MessageAttempted { key },
            _ => {}
        }
        let session_ref = rng.bool().then(|| SessionRef::new(format!("ref-{id}")));
        let grant = rng.bool().then(|| grant(rng.u64(..)));
        let handlings = [FailureHandling::Terminate, FailureHandling::Continue, FailureHandling::RetryAndTerminate];
        let failure_handling = rng.choice(handlings).filter(|_| rng.bool());
        return Record::MessageAcknowledged { key, session_ref, grant, failure_handling };
    }
    let carried = &model.pending[..rng.usize(0..=model.pending.len().min(5))];
    let reported = carried.iter().map(Container::quota_octets).fold(session.reported, Octets::saturating_add);
    let message = Message {
        number: session.next_message,
        operation: if session.next_message.get() == 0 { Operation::Create } else { Operation::Update },
        requested: rng.bool().then_some(Octets::new(1 << 22)),
        containers: carried.iter().map(|container| container.number).collect(),
        trigger: Some(Trigger::ValidityTime),
        reported,
        sealed_at: at(60),
    };
    Record::MessageSealed { session: id, message }
}

#[test]
fn a_random_walk_agrees_with_the_model() {
    let fresh = fastrand::u64(..);
    for seed in (1..=5).chain([fresh]) {
        println!("seed {seed}");
        let mut rng = Rng::with_seed(seed);
        let (mut ledger, mut model) = (in_memory(), Model::default());
        for step in 0..150 {
            let batch = next_batch(&mut rng, &model);
            let hint = format!("seed {seed}, step {step}, {batch:?}");
            if batch.iter().any(|record| matches!(record, Record::MessageSealed { .. })) && rng.bool() {
                ledger
                    .commit(&batch, &moment(100), &mut |_| anyhow::bail!("no bytes today"))
                    .expect_err("the seal's error stops the batch");
                model.assert_agrees(&ledger, &format!("{hint}, refused"));
            }
            ledger.commit(&batch, &moment(100), &mut bytes).expect(&hint);
            model.apply_all(&batch);
            model.assert_agrees(&ledger, &hint);
        }
    }
}

#[test]
fn a_random_walk_survives_being_closed_and_opened_at_any_step() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ledger.db");
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let (mut rng, mut model) = (Rng::with_seed(seed), Model::default());
    let mut ledger = Ledger::open(&path, boot()).expect("opens");
    for step in 0..60 {
        let batch = next_batch(&mut rng, &model);
        let hint = format!("seed {seed}, step {step}");
        ledger.commit(&batch, &moment(100), &mut bytes).expect(&hint);
        model.apply_all(&batch);
        if rng.u8(0..4) == 0 {
            drop(ledger);
            ledger = Ledger::open(&path, boot()).expect(&hint);
        }
        model.assert_agrees(&ledger, &hint);
    }
}
