//! Tests of the ledger: what each record does, what is refused, and what a crash leaves behind.

mod core;
mod crash;
mod history;
mod model;
mod opening;
mod random;
mod records;
mod refusals;
mod storage;

use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;

use super::{Ledger, SealRequest};
use crate::clock::{Label, Moment};
use crate::quota::{
    Container, Exceptions, FinalUnitAction, Grant, Message, MessageKey, Operation, QuotaManagement, Record, ResultCode,
    SessionOpening, Trigger,
};
use crate::units::{
    BootId, BootInstant, ChargingId, Epoch, Generation, InvocationSequenceNumber, LocalSequenceNumber, Octets,
    SubscriberIdentifier, UsedUnit,
};

const BOOT: &str = "5e0f3a3c-0000-4000-8000-000000000001";
const SESSION: ChargingId = ChargingId::new(3_000_000_001);

fn boot() -> BootId {
    BootId::new(BOOT)
}

fn in_memory() -> Ledger {
    Ledger::open(":memory:", boot()).expect("a ledger in memory")
}

/// Seconds since boot.
const fn at(seconds: u64) -> BootInstant {
    BootInstant::from_nanos(seconds * 1_000_000_000)
}

/// 2026-10-25T12:00:00Z and so many seconds.
fn wall(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_792_929_600 + seconds).expect("in range")
}

fn label(seconds: i64) -> Label {
    Label { wall: wall(seconds), synced: true }
}

/// Boot time and wall time that started together.
fn moment(seconds: u32) -> Moment {
    Moment { boot: at(seconds.into()), label: label(seconds.into()) }
}

fn opening(session: ChargingId) -> SessionOpening {
    SessionOpening {
        session,
        subscriber: SubscriberIdentifier::new("imsi-001010000000001"),
        epoch: Epoch { boot: boot(), generation: Generation::new(7) },
        base: UsedUnit::new(1000, 2000),
        base_throttled: UsedUnit::new(10, 20),
        opened_at: at(1),
    }
}

fn opened(session: ChargingId) -> Record {
    Record::SessionOpened(opening(session))
}

fn container(number: u32, uplink: u64, downlink: u64) -> Container {
    Container {
        number: LocalSequenceNumber::new(number),
        used: UsedUnit::new(uplink, downlink),
        quota_management: QuotaManagement::Online,
        trigger: Trigger::TimeLimit,
        first_usage: at(10),
        last_usage: at(20),
        closed_at: at(21),
    }
}

fn closed(number: u32, uplink: u64, downlink: u64) -> Record {
    Record::ContainerClosed { session: SESSION, container: container(number, uplink, downlink) }
}

fn sealed(number: u32, containers: &[u32], reported: u64) -> Record {
    Record::MessageSealed { session: SESSION, message: message(number, containers, reported) }
}

fn message(number: u32, containers: &[u32], reported: u64) -> Message {
    Message {
        number: InvocationSequenceNumber::new(number),
        operation: if number == 0 { Operation::Create } else { Operation::Update },
        requested: Some(Octets::new(1 << 20)),
        containers: containers.iter().copied().map(LocalSequenceNumber::new).collect(),
        trigger: (number > 0).then_some(Trigger::QuotaThreshold),
        reported: Octets::new(reported),
        sealed_at: at(30),
    }
}

fn grant(ceiling: u64) -> Grant {
    Grant {
        ceiling: Octets::new(ceiling),
        octets: Octets::new(1 << 20),
        threshold: Octets::new(1 << 18),
        valid_until: Some(at(600)),
        holding: Some(Duration::from_secs(90)),
        final_unit: Some(FinalUnitAction::RestrictAccess),
        exceptions: Exceptions {
            rules: vec!["permit in 6 from any to 192.0.2.10 443".to_owned()],
            filters: vec!["shop".to_owned()],
            portal: Some("https://portal.example/".to_owned()),
        },
        result: ResultCode::Success,
    }
}

const fn key(number: u32) -> MessageKey {
    MessageKey { session: SESSION, number: InvocationSequenceNumber::new(number) }
}

fn acknowledged(number: u32) -> Record {
    Record::MessageAcknowledged { key: key(number), session_ref: None, grant: None, failure_handling: None }
}

/// Bytes that tell everything they were made of.
#[expect(clippy::unnecessary_wraps, reason = "the signature of a seal")]
fn bytes(request: &SealRequest) -> Result<Vec<u8>> {
    Ok(format!("{request:?}").into_bytes())
}

/// Commits a batch at 100 s.
fn commit(ledger: &mut Ledger, records: &[Record]) -> Result<super::Committed> {
    ledger.commit(records, &moment(100), &mut bytes)
}

/// A whole error as one line.
fn told<T>(result: Result<T>) -> String {
    format!("{:#}", result.err().expect("an error"))
}
