//! One input of each kind, with numbers at the ends of their ranges.

use std::time::Duration;

use crate::quota::{
    Answer, Event, Exceptions, FailureHandling, FinalUnitAction, Grant, GrantedUnit, LocalFilters, Message, MessageKey,
    OfflineGrace, Operation, Outcome, Reading, Repetition, ResultCode, SessionOpening, StoredSession, Terms, Trigger,
    Usable, WhenUsedUp,
};
use crate::units::{
    BootId, BootInstant, ChargingId, Epoch, Generation, InvocationSequenceNumber, LocalSequenceNumber, OctetRate,
    Octets, SessionRef, SubscriberIdentifier, UsedUnit,
};

pub(super) fn at(millis: u64) -> BootInstant {
    BootInstant::from_nanos(millis * 1_000_000)
}

pub(super) fn sim() -> SubscriberIdentifier {
    SubscriberIdentifier::new("imsi-001010000000001")
}

pub(super) fn epoch() -> Epoch {
    Epoch { boot: BootId::new("boot-1"), generation: Generation::new(u32::MAX) }
}

pub(super) fn reading(octets: u64) -> Reading {
    Reading {
        passed: UsedUnit::new(octets, 1),
        throttled: UsedUnit::new(2, 3),
        control: UsedUnit::new(4, 5),
        refused: UsedUnit::new(6, 7),
    }
}

pub(super) fn terms() -> Terms {
    Terms {
        chunk: Octets::new(1_000_000),
        largest_chunk: Octets::new(u64::MAX),
        report_interval: Duration::from_mins(1),
        checkpoint_interval: Duration::new(5, 1),
        max_unrecorded: Some(Octets::new(250_000)),
        failure_handling: FailureHandling::Continue,
        offline_grace: OfflineGrace { octets: Octets::new(50_000), duration: Duration::MAX },
        when_used_up: WhenUsedUp::Throttle(OctetRate::per_second(u64::MAX)),
        filters: LocalFilters {
            named: [("shop \"1\"".to_owned(), vec![String::new(), "permit in ip from any to any".to_owned()])].into(),
            own: Some("shop \"1\"".to_owned()),
        },
        control_reserve: Octets::new(100_000),
        repetition: Repetition::Recognised,
    }
}

pub(super) fn key(number: u32) -> MessageKey {
    MessageKey { session: ChargingId::new(7), number: InvocationSequenceNumber::new(number) }
}

pub(super) fn granted(octets: u64) -> GrantedUnit {
    GrantedUnit {
        result: ResultCode::Success,
        octets: Octets::new(octets),
        volume_quota_threshold: None,
        validity_time: Some(Duration::from_nanos(u64::MAX)),
        quota_holding_time: None,
        final_unit: None,
        exceptions: Exceptions::default(),
    }
}

fn exceptions() -> Exceptions {
    Exceptions {
        rules: vec!["deny in ip from any to \u{e4}\n".to_owned(), String::new()],
        filters: vec!["shop".to_owned()],
        portal: Some("https://portal.example/?a=\"b\"".to_owned()),
    }
}

pub(super) fn answered(granted: Option<GrantedUnit>) -> Outcome {
    Outcome::Answered(Answer { session_ref: Some(SessionRef::new("ref \"1\"\n")), granted, failure_handling: None })
}

const fn next_repetition(repetition: Repetition) -> Repetition {
    match repetition {
        Repetition::Recognised => Repetition::Charged,
        Repetition::Charged => Repetition::Recognised,
    }
}

fn usable(when_used_up: WhenUsedUp, failure_handling: FailureHandling, repetition: Repetition) -> Event {
    let terms = Terms { failure_handling, when_used_up, repetition, ..terms() };
    Event::Usable(Usable { subscriber: sim(), epoch: epoch(), terms, reading: reading(u64::MAX) })
}

/// Whoever adds a variant has to give it a number here, and a sample below.
const fn number_of_event(event: &Event) -> usize {
    match event {
        Event::Metered { .. } => 0,
        Event::Usable(_) => 1,
        Event::Gone => 2,
        Event::MeterLost => 3,
        Event::Reading(_) => 4,
        Event::Hint => 5,
        Event::Answer { .. } => 6,
        Event::Named(_) => 7,
        Event::Reauthorise(_) => 8,
        Event::Abort(_) => 9,
        Event::RouteUp => 10,
        Event::Settle => 11,
        Event::Pause => 12,
        Event::Renew => 13,
        Event::MeterRetired => 14,
    }
}

const fn number_of_outcome(outcome: &Outcome) -> usize {
    match outcome {
        Outcome::Answered(_) => 0,
        Outcome::ContextNotFound => 1,
        Outcome::Rejected { .. } => 2,
        Outcome::NotTaken { .. } => 3,
        Outcome::Unanswered { .. } => 4,
    }
}

const fn number_of_trigger(trigger: Trigger) -> usize {
    match trigger {
        Trigger::QuotaThreshold => 0,
        Trigger::Qht => 1,
        Trigger::Final => 2,
        Trigger::QuotaExhausted => 3,
        Trigger::ValidityTime => 4,
        Trigger::ForcedReauthorisation => 5,
        Trigger::TimeLimit => 6,
        Trigger::VolumeLimit => 7,
        Trigger::AbnormalRelease => 8,
    }
}

/// The same for the small words: each is one of a chain that ends where it began.
const fn next_handling(handling: FailureHandling) -> FailureHandling {
    match handling {
        FailureHandling::Terminate => FailureHandling::Continue,
        FailureHandling::Continue => FailureHandling::RetryAndTerminate,
        FailureHandling::RetryAndTerminate => FailureHandling::Terminate,
    }
}

const fn next_action(action: FinalUnitAction) -> FinalUnitAction {
    match action {
        FinalUnitAction::Terminate => FinalUnitAction::Redirect,
        FinalUnitAction::Redirect => FinalUnitAction::RestrictAccess,
        FinalUnitAction::RestrictAccess => FinalUnitAction::Terminate,
    }
}

const fn next_used_up(when_used_up: WhenUsedUp) -> WhenUsedUp {
    match when_used_up {
        WhenUsedUp::AsTold => WhenUsedUp::Block,
        WhenUsedUp::Block => WhenUsedUp::Restrict,
        WhenUsedUp::Restrict => WhenUsedUp::Throttle(OctetRate::per_second(1)),
        WhenUsedUp::Throttle(_) => WhenUsedUp::AsTold,
    }
}

const fn next_result(result: ResultCode) -> ResultCode {
    match result {
        ResultCode::Success => ResultCode::QuotaLimitReached,
        ResultCode::QuotaLimitReached => ResultCode::Denied,
        ResultCode::Denied => ResultCode::Success,
    }
}

const fn next_operation(operation: Operation) -> Operation {
    match operation {
        Operation::Create => Operation::Update,
        Operation::Update => Operation::Release,
        Operation::Release => Operation::Event,
        Operation::Event => Operation::Create,
    }
}

/// All of a chain, from `first` round to `first`.
fn all<T: Copy + PartialEq>(first: T, next: impl Fn(T) -> T) -> Vec<T> {
    let mut all = vec![first];
    let mut one = next(first);
    while one != first {
        all.push(one);
        one = next(one);
    }
    all
}

/// Fails unless each number up to the highest is there.
fn complete(numbers: impl Iterator<Item = usize>) {
    let found: std::collections::BTreeSet<usize> = numbers.collect();
    assert_eq!(found, (0..found.len()).collect(), "a sample of each variant");
}

fn outcomes() -> Vec<Outcome> {
    let mut outcomes = vec![
        answered(None),
        Outcome::ContextNotFound,
        Outcome::Rejected { status: 400, cause: "MANDATORY_IE_INCORRECT".to_owned() },
        Outcome::Unanswered {
            retry_after: Some(Duration::new(1, 999_999_999)),
            reason: "timed out: Zeit ünd “Ort”".to_owned(),
        },
        Outcome::Unanswered { retry_after: None, reason: String::new() },
        Outcome::NotTaken { retry_after: Some(Duration::ZERO), reason: "HTTP 429".to_owned() },
    ];
    for result in all(ResultCode::Success, next_result) {
        for action in all(FinalUnitAction::Terminate, next_action) {
            let octets = Octets::MAX;
            let unit = GrantedUnit {
                result,
                octets,
                volume_quota_threshold: Some(octets),
                validity_time: None,
                quota_holding_time: Some(Duration::ZERO),
                final_unit: Some(action),
                exceptions: exceptions(),
            };
            outcomes.push(answered(Some(unit)));
        }
    }
    for handling in all(FailureHandling::Terminate, next_handling) {
        let answer = Answer { session_ref: None, granted: Some(granted(1)), failure_handling: Some(handling) };
        outcomes.push(Outcome::Answered(answer));
    }
    complete(outcomes.iter().map(number_of_outcome));
    outcomes
}

pub(super) fn events() -> Vec<Event> {
    let mut events = vec![
        Event::Metered { epoch: epoch(), reading: Reading::default(), control_reserve: Octets::MAX },
        Event::Gone,
        Event::MeterLost,
        Event::MeterRetired,
        Event::Reading(reading(u64::MAX)),
        Event::Hint,
        Event::Named(ChargingId::new(u32::MAX)),
        Event::Reauthorise(sim()),
        Event::Abort(sim()),
        Event::Renew,
        Event::RouteUp,
        Event::Settle,
        Event::Pause,
    ];
    events.extend(outcomes().into_iter().map(|outcome| Event::Answer { key: key(u32::MAX), attempt: 3, outcome }));
    for handling in all(FailureHandling::Terminate, next_handling) {
        for repetition in all(Repetition::Recognised, next_repetition) {
            for when_used_up in all(WhenUsedUp::AsTold, next_used_up) {
                events.push(usable(when_used_up, handling, repetition));
            }
        }
    }
    complete(events.iter().map(number_of_event));
    events
}

pub(super) fn opening() -> SessionOpening {
    SessionOpening {
        session: ChargingId::new(7),
        subscriber: sim(),
        epoch: epoch(),
        base: UsedUnit::new(u64::MAX, 0),
        base_throttled: UsedUnit::new(0, u64::MAX),
        opened_at: BootInstant::from_nanos(u64::MAX),
    }
}

/// Sessions with nothing, with everything, and with each word.
pub(super) fn sessions() -> Vec<StoredSession> {
    let triggers = [
        Trigger::QuotaThreshold,
        Trigger::Qht,
        Trigger::Final,
        Trigger::QuotaExhausted,
        Trigger::ValidityTime,
        Trigger::ForcedReauthorisation,
        Trigger::TimeLimit,
        Trigger::VolumeLimit,
        Trigger::AbnormalRelease,
    ];
    complete(triggers.into_iter().map(number_of_trigger));
    let mut sessions = vec![StoredSession::opened(opening())];
    for (trigger, operation) in triggers.into_iter().zip(all(Operation::Create, next_operation).into_iter().cycle()) {
        sessions.push(full(trigger, operation));
    }
    sessions
}

fn full(trigger: Trigger, operation: Operation) -> StoredSession {
    StoredSession {
        opening: opening(),
        session_ref: Some(SessionRef::new("ref-1")),
        closing: Some(trigger),
        settled: true,
        orphaned: true,
        closed: UsedUnit::new(1, u64::MAX),
        closed_throttled: UsedUnit::new(2, 3),
        reported: Octets::MAX,
        next_container: LocalSequenceNumber::new(4),
        next_message: InvocationSequenceNumber::new(5),
        pending: vec![Octets::ZERO, Octets::new(6)],
        outstanding: Some(Message {
            number: InvocationSequenceNumber::new(4),
            operation,
            requested: Some(Octets::MAX),
            containers: vec![LocalSequenceNumber::new(1), LocalSequenceNumber::new(2)],
            trigger: Some(trigger),
            reported: Octets::new(9),
            sealed_at: at(10),
        }),
        not_taken: true,
        grant: Some(Grant {
            ceiling: Octets::MAX,
            octets: Octets::new(11),
            threshold: Octets::new(12),
            valid_until: Some(at(13)),
            holding: Some(Duration::from_millis(14)),
            final_unit: Some(FinalUnitAction::Redirect),
            exceptions: exceptions(),
            result: ResultCode::Denied,
        }),
        failure_handling: Some(FailureHandling::Continue),
        grace: Some((Octets::MAX, at(15))),
        checkpoint: Some((UsedUnit::new(16, 17), UsedUnit::new(18, 19))),
        highest_ceiling: Octets::MAX,
        slice: Some(Octets::new(20)),
        uncertain: Some(Octets::ZERO),
    }
}
