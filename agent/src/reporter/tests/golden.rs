//! What is written equals the golden requests octet for octet; every golden response is understood.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::{assert_passes, expected, minified, wire_file};
use crate::quota::{
    Answer, Container, Exceptions, FailureHandling, FinalUnitAction, GrantedUnit, Message, Operation, Outcome,
    QuotaManagement, ResultCode, Trigger,
};
use crate::reporter::{Identity, Interval, Reply, SealInput, as_retransmission, decode, encode};
use crate::units::{
    BootInstant, ChargingId, InvocationSequenceNumber, LocalSequenceNumber, Octets, RatingGroup, SessionRef,
    SubscriberIdentifier, UsedUnit,
};

/// A container in few words: number, uplink, downlink, trigger, first usage, last usage, closed.
type Row = (u32, u64, u64, Trigger, &'static str, &'static str, &'static str);

/// A message in few words.
struct Sealed {
    golden: &'static str,
    session: u32,
    operation: Operation,
    number: u32,
    requested: Option<u64>,
    at: &'static str,
    quota_management: QuotaManagement,
    rows: &'static [Row],
}

const BASE: Sealed = Sealed {
    golden: "create",
    session: 2_718_281_828,
    operation: Operation::Create,
    number: 0,
    requested: Some(1 << 20),
    at: "08:00:00.000",
    quota_management: QuotaManagement::Online,
    rows: &[],
};

const UPDATE: Sealed = Sealed { operation: Operation::Update, ..BASE };

const THRESHOLD: Sealed = Sealed {
    golden: "update-threshold",
    number: 1,
    at: "08:00:09.251",
    rows: &[(1, 120_434, 718_427, Trigger::QuotaThreshold, "08:00:00.310", "08:00:09.248", "08:00:09.250")],
    ..UPDATE
};

const MESSAGES: [Sealed; 10] = [
    BASE,
    THRESHOLD,
    Sealed {
        golden: "update-interval",
        number: 2,
        at: "08:01:09.251",
        rows: &[(2, 4210, 96_012, Trigger::TimeLimit, "08:00:10.002", "08:01:08.977", "08:01:09.251")],
        ..UPDATE
    },
    Sealed {
        golden: "update-exhausted",
        number: 3,
        at: "08:01:30.000",
        rows: &[(3, 200_000, 848_576, Trigger::QuotaExhausted, "08:01:10.001", "08:01:29.990", "08:01:29.999")],
        ..UPDATE
    },
    Sealed {
        golden: "update-validity",
        number: 4,
        at: "08:11:30.000",
        rows: &[(4, 10, 20, Trigger::ValidityTime, "08:02:00.000", "08:02:01.000", "08:11:30.000")],
        ..UPDATE
    },
    Sealed {
        golden: "update-backlog",
        number: 5,
        at: "09:30:00.000",
        rows: &[
            (5, 1500, 40_000, Trigger::TimeLimit, "08:11:31.000", "08:12:29.500", "08:12:30.000"),
            (6, 0, 60, Trigger::TimeLimit, "08:13:02.000", "08:13:02.000", "08:13:30.000"),
            (7, 100_000, 900_000, Trigger::QuotaExhausted, "08:13:31.000", "08:14:12.690", "08:14:12.700"),
        ],
        ..UPDATE
    },
    Sealed {
        golden: "update-throttled",
        number: 7,
        at: "09:45:00.000",
        quota_management: QuotaManagement::Offline,
        rows: &[(9, 2000, 62_000, Trigger::TimeLimit, "09:44:00.000", "09:44:59.000", "09:45:00.000")],
        ..UPDATE
    },
    Sealed {
        golden: "release-final",
        operation: Operation::Release,
        number: 8,
        requested: None,
        at: "10:00:00.000",
        rows: &[(10, 333, 4444, Trigger::Final, "09:46:00.000", "09:59:58.000", "09:59:59.998")],
        ..BASE
    },
    Sealed {
        golden: "release-unused",
        session: 314_159_265,
        operation: Operation::Release,
        number: 1,
        requested: None,
        at: "10:00:00.000",
        ..BASE
    },
    Sealed {
        golden: "pec",
        operation: Operation::Event,
        number: 9,
        requested: None,
        at: "10:05:00.000",
        rows: &[(11, 777, 8888, Trigger::Final, "10:01:00.000", "10:04:58.000", "10:04:59.000")],
        ..BASE
    },
];

fn at(time: &str) -> Timestamp {
    format!("2026-11-23T{time}Z").parse().unwrap()
}

fn octets_of(sealed: &Sealed) -> Vec<u8> {
    let identity = Identity {
        nf_name: Uuid::parse_str("3f0d7c5e-8a3b-4c0e-9c0a-2f1f6f7d1a10").unwrap(),
        subscriber: SubscriberIdentifier::new("imsi-001010000000001"),
        session: ChargingId::new(sealed.session),
        rating_group: RatingGroup::new(10),
        apn: "internet".to_owned(),
    };
    let containers: Vec<Container> = sealed.rows.iter().map(|row| container(row, sealed.quota_management)).collect();
    let message = Message {
        number: InvocationSequenceNumber::new(sealed.number),
        operation: sealed.operation,
        requested: sealed.requested.map(Octets::new),
        containers: containers.iter().map(|container| container.number).collect(),
        trigger: sealed.rows.last().map(|row| row.3),
        reported: Octets::ZERO,
        sealed_at: BootInstant::default(),
    };
    let interval = |(container, row)| {
        let (_, _, _, _, first, last, closed): &Row = row;
        Interval { container, first_usage: at(first), last_usage: at(last), closed_at: at(closed) }
    };
    let intervals = containers.iter().zip(sealed.rows).map(interval).collect();
    encode(&SealInput { identity: &identity, message: &message, intervals, sealed_at: at(sealed.at) }).unwrap()
}

fn container(row: &Row, quota_management: QuotaManagement) -> Container {
    Container {
        number: LocalSequenceNumber::new(row.0),
        used: UsedUnit::new(row.1, row.2),
        quota_management,
        trigger: row.3,
        first_usage: BootInstant::default(),
        last_usage: BootInstant::default(),
        closed_at: BootInstant::default(),
    }
}

#[test]
fn messages_equal_their_golden_files_octet_for_octet() {
    for sealed in &MESSAGES {
        let golden = minified(&wire_file(&format!("golden/{}.request.json", sealed.golden)));
        assert_eq!(String::from_utf8(octets_of(sealed)).unwrap(), golden, "{}", sealed.golden);
    }
}

#[test]
fn a_message_that_only_reports_asks_for_nothing() {
    let sealed = Sealed {
        number: 6,
        requested: None,
        at: "09:30:01.000",
        rows: &[(8, 100, 200, Trigger::ForcedReauthorisation, "09:30:00.000", "09:30:00.900", "09:30:01.000")],
        ..UPDATE
    };
    let golden = minified(&wire_file("golden/update-report-only.request.json"));
    let golden = golden.replace("MANAGEMENT_INTERVENTION", "FORCED_REAUTHORISATION");
    assert_eq!(String::from_utf8(octets_of(&sealed)).unwrap(), golden);
}

#[test]
fn everything_written_passes_the_closed_schema() {
    for sealed in &MESSAGES {
        let octets = octets_of(sealed);
        assert_passes("ChargingDataRequest", &octets);
        assert_passes("ChargingDataRequest", &as_retransmission(&octets));
    }
}

#[test]
fn every_trigger_is_in_the_schema() {
    for trigger in [
        Trigger::QuotaThreshold,
        Trigger::Qht,
        Trigger::Final,
        Trigger::QuotaExhausted,
        Trigger::ValidityTime,
        Trigger::ForcedReauthorisation,
        Trigger::TimeLimit,
        Trigger::VolumeLimit,
        Trigger::AbnormalRelease,
    ] {
        let rows: &'static [Row] = Box::leak(Box::new([(1, 1, 2, trigger, "08:00:00", "08:00:00", "08:00:00")]));
        assert_passes("ChargingDataRequest", &octets_of(&Sealed { number: 1, rows, ..UPDATE }));
    }
}

#[test]
fn a_retry_is_the_sealed_octets_with_one_word_more_at_the_end() {
    let sealed = octets_of(&THRESHOLD);
    let retry = as_retransmission(&sealed);
    let golden = minified(&wire_file("golden/update-threshold-retransmission.request.json"));
    assert_eq!(String::from_utf8(retry.clone()).unwrap(), golden);
    assert!(retry.starts_with(&sealed[..sealed.len() - 1]));
    assert!(!String::from_utf8(sealed).unwrap().contains("retransmissionIndicator"));
}

fn reply(status: u16, golden: &str) -> Reply {
    let location = "/nchf-convergedcharging/v3/chargingdata/7b9f2c1e-52a1-4a86-8d0e-0d4a5a8f9c33".to_owned();
    Reply {
        status,
        location: (status == 201).then_some(location),
        body: wire_file(&format!("golden/{golden}")).into_bytes(),
        ..Reply::default()
    }
}

fn units(octets: u64, threshold: Option<u64>, times: (Option<u64>, Option<u64>)) -> GrantedUnit {
    GrantedUnit {
        result: ResultCode::Success,
        octets: Octets::new(octets),
        volume_quota_threshold: threshold.map(Octets::new),
        validity_time: times.0.map(Duration::from_secs),
        quota_holding_time: times.1.map(Duration::from_secs),
        final_unit: None,
        exceptions: Exceptions::default(),
    }
}

fn answered(session_ref: Option<&str>, granted: Option<GrantedUnit>) -> Outcome {
    Outcome::Answered(Answer {
        session_ref: session_ref.map(SessionRef::new),
        granted,
        failure_handling: Some(FailureHandling::RetryAndTerminate),
    })
}

#[test]
fn every_golden_response_is_understood() {
    let usual = units(1 << 20, Some(209_715), (Some(600), Some(300)));
    let last = GrantedUnit { final_unit: Some(FinalUnitAction::Terminate), ..units(4096, None, (Some(600), None)) };
    let nothing = GrantedUnit {
        result: ResultCode::QuotaLimitReached,
        final_unit: Some(FinalUnitAction::Terminate),
        ..units(0, None, (None, None))
    };
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let ending = |action, exceptions| {
        let unit = units(4096, None, (Some(600), None));
        answered(None, Some(GrantedUnit { final_unit: Some(action), exceptions, ..unit }))
    };
    let restricted = Exceptions {
        rules: texts(&["permit in 6 from any to 192.0.2.10 443", "permit out 6 from 192.0.2.10 443 to assigned"]),
        filters: texts(&["shop"]),
        portal: None,
    };
    let restricted_once = Exceptions {
        rules: texts(&["deny in ip from any to 10.0.0.0/8"]),
        filters: texts(&["shop", "news"]),
        portal: None,
    };
    let redirected = Exceptions { portal: Some("https://portal.example/buy".to_owned()), ..Exceptions::default() };
    let final_unit = expected(Operation::Update, 5);
    let mut report_only = expected(Operation::Update, 6);
    report_only.requested = None;
    for (asked, status, golden, outcome) in [
        (
            expected(Operation::Create, 0),
            201,
            "create.response.json",
            answered(Some("7b9f2c1e-52a1-4a86-8d0e-0d4a5a8f9c33"), Some(usual.clone())),
        ),
        (expected(Operation::Update, 1), 200, "update-threshold.response.json", answered(None, Some(usual))),
        (expected(Operation::Update, 5), 200, "final-unit.response.json", answered(None, Some(last))),
        (final_unit, 200, "final-unit-restrict.response.json", ending(FinalUnitAction::RestrictAccess, restricted)),
        (
            final_unit,
            200,
            "final-unit-restrict-one.response.json",
            ending(FinalUnitAction::RestrictAccess, restricted_once),
        ),
        (final_unit, 200, "final-unit-redirect.response.json", ending(FinalUnitAction::Redirect, redirected)),
        (expected(Operation::Update, 6), 200, "quota-limit.response.json", answered(None, Some(nothing))),
        (report_only, 200, "update-report-only.response.json", answered(None, None)),
        (expected(Operation::Event, 9), 201, "pec.response.json", answered(None, None)),
        (expected(Operation::Update, 1), 404, "problem-context-not-found.json", Outcome::ContextNotFound),
        (
            expected(Operation::Update, 1),
            400,
            "problem-invalid-member.json",
            Outcome::Rejected { status: 400, cause: "MANDATORY_IE_INCORRECT".to_owned() },
        ),
        (
            expected(Operation::Update, 1),
            409,
            "problem-key-reused.json",
            Outcome::Rejected { status: 409, cause: "IDEMPOTENCY_KEY_REUSED".to_owned() },
        ),
    ] {
        assert_eq!(decode(&asked, &reply(status, golden)), outcome, "{golden}");
    }
}
