//! How the core's inputs are spelled in a recording: the definitions stand here, because the core knows of no serialisation.
//!
//! A remote definition names every field and every variant of its type, so one that is new does not compile until it is
//! recorded as well. One that comes after a release has a default that means what cores did before it, or raises
//! [`super::SCHEMA`].

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::quota::{
    Answer, Event, Exceptions, FailureHandling, FinalUnitAction, Grant, GrantedUnit, LocalFilters, Message, MessageKey,
    OfflineGrace, Operation, Outcome, Reading, Repetition, ResultCode, SessionOpening, StoredSession, Terms, Trigger,
    Usable, WhenUsedUp,
};
use crate::units::{
    BootId, BootInstant, ChargingId, Epoch, Generation, InvocationSequenceNumber, LocalSequenceNumber, OctetRate,
    Octets, SessionRef, SubscriberIdentifier, UsedUnit,
};

/// Plain numbers, to the octet and the nanosecond.
macro_rules! numbers {
    ($($name:ident: $new:ident, $get:ident;)+) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.$get().serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Deserialize::deserialize(deserializer).map(Self::$new)
            }
        }
    )+};
}

numbers! {
    Octets: new, get;
    OctetRate: per_second, get;
    BootInstant: from_nanos, as_nanos;
    ChargingId: new, get;
    InvocationSequenceNumber: new, get;
    LocalSequenceNumber: new, get;
    Generation: new, get;
}

macro_rules! texts {
    ($($name:ident),+ $(,)?) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                self.as_str().serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(Self::new)
            }
        }
    )+};
}

texts!(BootId, SessionRef, SubscriberIdentifier);

/// Spells a type as its remote definition says.
macro_rules! spelled {
    ($($name:ident: $definition:ident,)+) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $definition::serialize(self, serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $definition::deserialize(deserializer)
            }
        }
    )+};
}

spelled! {
    Answer: AnswerDefinition,
    Epoch: EpochDefinition,
    Event: EventDefinition,
    Exceptions: ExceptionsDefinition,
    FailureHandling: FailureHandlingDefinition,
    FinalUnitAction: FinalUnitActionDefinition,
    Grant: GrantDefinition,
    GrantedUnit: GrantedUnitDefinition,
    LocalFilters: LocalFiltersDefinition,
    Message: MessageDefinition,
    MessageKey: MessageKeyDefinition,
    OfflineGrace: OfflineGraceDefinition,
    Operation: OperationDefinition,
    Outcome: OutcomeDefinition,
    Reading: ReadingDefinition,
    Repetition: RepetitionDefinition,
    ResultCode: ResultCodeDefinition,
    SessionOpening: SessionOpeningDefinition,
    StoredSession: StoredSessionDefinition,
    Terms: TermsDefinition,
    Trigger: TriggerDefinition,
    Usable: UsableDefinition,
    UsedUnit: UsedUnitDefinition,
    WhenUsedUp: WhenUsedUpDefinition,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "Event", rename_all = "snake_case", deny_unknown_fields)]
enum EventDefinition {
    Metered { epoch: Epoch, reading: Reading, control_reserve: Octets },
    Usable(Usable),
    Gone,
    MeterLost,
    MeterRetired,
    Reading(Reading),
    Hint,
    Answer { key: MessageKey, attempt: u32, outcome: Outcome },
    Named(ChargingId),
    Reauthorise(SubscriberIdentifier),
    Abort(SubscriberIdentifier),
    Renew,
    RouteUp,
    Settle,
    Pause,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "Outcome", rename_all = "snake_case", deny_unknown_fields)]
enum OutcomeDefinition {
    Answered(Answer),
    ContextNotFound,
    Rejected { status: u16, cause: String },
    NotTaken { retry_after: Option<Duration>, reason: String },
    Unanswered { retry_after: Option<Duration>, reason: String },
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "Answer", deny_unknown_fields)]
struct AnswerDefinition {
    session_ref: Option<SessionRef>,
    granted: Option<GrantedUnit>,
    failure_handling: Option<FailureHandling>,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "GrantedUnit", deny_unknown_fields)]
struct GrantedUnitDefinition {
    result: ResultCode,
    octets: Octets,
    volume_quota_threshold: Option<Octets>,
    validity_time: Option<Duration>,
    quota_holding_time: Option<Duration>,
    final_unit: Option<FinalUnitAction>,
    #[serde(default)]
    exceptions: Exceptions,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "Exceptions", deny_unknown_fields)]
struct ExceptionsDefinition {
    rules: Vec<String>,
    filters: Vec<String>,
    portal: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "MessageKey", deny_unknown_fields)]
struct MessageKeyDefinition {
    session: ChargingId,
    number: InvocationSequenceNumber,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "Usable", deny_unknown_fields)]
struct UsableDefinition {
    subscriber: SubscriberIdentifier,
    epoch: Epoch,
    terms: Terms,
    reading: Reading,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "Terms", deny_unknown_fields)]
struct TermsDefinition {
    chunk: Octets,
    /// Before there was one every chunk was as large as the usual one: a smaller one counts as that.
    #[serde(default)]
    largest_chunk: Octets,
    report_interval: Duration,
    checkpoint_interval: Duration,
    max_unrecorded: Option<Octets>,
    failure_handling: FailureHandling,
    offline_grace: OfflineGrace,
    when_used_up: WhenUsedUp,
    #[serde(default)]
    filters: LocalFilters,
    control_reserve: Octets,
    repetition: Repetition,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "LocalFilters", deny_unknown_fields)]
struct LocalFiltersDefinition {
    named: BTreeMap<String, Vec<String>>,
    own: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "Repetition", rename_all = "snake_case")]
enum RepetitionDefinition {
    Recognised,
    Charged,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "OfflineGrace", deny_unknown_fields)]
struct OfflineGraceDefinition {
    octets: Octets,
    duration: Duration,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "WhenUsedUp", rename_all = "snake_case")]
enum WhenUsedUpDefinition {
    AsTold,
    Block,
    Restrict,
    Throttle(OctetRate),
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "Reading", deny_unknown_fields)]
struct ReadingDefinition {
    passed: UsedUnit,
    throttled: UsedUnit,
    control: UsedUnit,
    refused: UsedUnit,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "UsedUnit", deny_unknown_fields)]
struct UsedUnitDefinition {
    uplink: Octets,
    downlink: Octets,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "Epoch", deny_unknown_fields)]
struct EpochDefinition {
    boot: BootId,
    generation: Generation,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "StoredSession", deny_unknown_fields)]
struct StoredSessionDefinition {
    opening: SessionOpening,
    session_ref: Option<SessionRef>,
    closing: Option<Trigger>,
    settled: bool,
    orphaned: bool,
    closed: UsedUnit,
    closed_throttled: UsedUnit,
    reported: Octets,
    next_container: LocalSequenceNumber,
    next_message: InvocationSequenceNumber,
    pending: Vec<Octets>,
    outstanding: Option<Message>,
    not_taken: bool,
    grant: Option<Grant>,
    failure_handling: Option<FailureHandling>,
    grace: Option<(Octets, BootInstant)>,
    checkpoint: Option<(UsedUnit, UsedUnit)>,
    highest_ceiling: Octets,
    slice: Option<Octets>,
    uncertain: Option<Octets>,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "SessionOpening", deny_unknown_fields)]
struct SessionOpeningDefinition {
    session: ChargingId,
    subscriber: SubscriberIdentifier,
    epoch: Epoch,
    base: UsedUnit,
    base_throttled: UsedUnit,
    opened_at: BootInstant,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "Message", deny_unknown_fields)]
struct MessageDefinition {
    number: InvocationSequenceNumber,
    operation: Operation,
    requested: Option<Octets>,
    containers: Vec<LocalSequenceNumber>,
    trigger: Option<Trigger>,
    reported: Octets,
    sealed_at: BootInstant,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "Grant", deny_unknown_fields)]
struct GrantDefinition {
    ceiling: Octets,
    octets: Octets,
    threshold: Octets,
    valid_until: Option<BootInstant>,
    holding: Option<Duration>,
    final_unit: Option<FinalUnitAction>,
    #[serde(default)]
    exceptions: Exceptions,
    result: ResultCode,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "Trigger", rename_all = "snake_case")]
enum TriggerDefinition {
    QuotaThreshold,
    Qht,
    Final,
    QuotaExhausted,
    ValidityTime,
    ForcedReauthorisation,
    TimeLimit,
    VolumeLimit,
    AbnormalRelease,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "Operation", rename_all = "snake_case")]
enum OperationDefinition {
    Create,
    Update,
    Release,
    Event,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "FinalUnitAction", rename_all = "snake_case")]
enum FinalUnitActionDefinition {
    Terminate,
    Redirect,
    RestrictAccess,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "FailureHandling", rename_all = "snake_case")]
enum FailureHandlingDefinition {
    Terminate,
    Continue,
    RetryAndTerminate,
}

#[derive(Deserialize, Serialize)]
#[serde(remote = "ResultCode", rename_all = "snake_case")]
enum ResultCodeDefinition {
    Success,
    QuotaLimitReached,
    Denied,
}
