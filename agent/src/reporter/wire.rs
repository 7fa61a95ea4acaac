//! The agent's spelling of the charging request (docs/protocol.md, section 1.1): exact octets out of one sealed message.

use anyhow::{Context, Result};
use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::quota::{Container, Message, Operation, QuotaManagement, Trigger};
use crate::units::{ChargingId, Octets, RatingGroup, SubscriberIdentifier};

/// Wall time as the wire writes it: UTC, three decimals.
const DATE_TIME: DateTimePrinter = DateTimePrinter::new().precision(Some(3));

/// Who sends, and for what: the same in every message of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `nFName`: the device's `nfInstanceId`.
    pub nf_name: Uuid,
    /// Who pays.
    pub subscriber: SubscriberIdentifier,
    /// The session.
    pub session: ChargingId,
    /// What one price applies to.
    pub rating_group: RatingGroup,
    /// `dnnId`: the access point name.
    pub apn: String,
}

/// A container and the wall time of its instants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval<'a> {
    /// The container.
    pub container: &'a Container,
    /// When the first octet of it was seen.
    pub first_usage: Timestamp,
    /// When the last octet of it was seen.
    pub last_usage: Timestamp,
    /// When it was closed.
    pub closed_at: Timestamp,
}

/// Everything the octets of a message are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealInput<'a> {
    /// Who sends, and for what.
    pub identity: &'a Identity,
    /// The message.
    pub message: &'a Message,
    /// Its containers, in the message's order.
    pub intervals: Vec<Interval<'a>>,
    /// When it was sealed.
    pub sealed_at: Timestamp,
}

/// The octets of a message. The same input gives the same octets; they never hold `retransmissionIndicator`.
pub fn encode(input: &SealInput<'_>) -> Result<Vec<u8>> {
    let (identity, message) = (input.identity, input.message);
    let event = message.operation == Operation::Event;
    let release = message.operation == Operation::Release;
    let request = ChargingDataRequest {
        subscriber_identifier: identity.subscriber.as_str(),
        charging_id: identity.session.get(),
        nf_consumer_identification: NfIdentification { nf_name: identity.nf_name, node_functionality: "SMF" },
        invocation_time_stamp: date_time(input.sealed_at),
        invocation_sequence_number: message.number.get(),
        one_time_event: event.then_some(true),
        one_time_event_type: event.then_some("PEC"),
        multiple_unit_usage: [MultipleUnitUsage {
            rating_group: identity.rating_group.get(),
            requested_unit: requested(message),
            used_unit_container: input.intervals.iter().map(container).collect(),
        }],
        triggers: release.then(|| [immediate(Trigger::Final)]),
        pdu_session_charging_information: PduSession {
            charging_id: identity.session.get(),
            pdu_session_information: PduSessionInformation { pdu_session_id: 1, dnn_id: &identity.apn },
        },
    };
    serde_json::to_vec(&request)
        .with_context(|| format!("writing message {} of session {}", message.number, identity.session))
}

/// The octets of a repeated attempt: those that were sealed, and the word that it is one, last.
#[must_use]
pub fn as_retransmission(sealed: &[u8]) -> Vec<u8> {
    match sealed.strip_suffix(b"}") {
        Some(head) => [head, br#","retransmissionIndicator":true}"#].concat(),
        None => sealed.to_vec(),
    }
}

/// A release asks with an empty `requestedUnit`; else nothing asked for is no member at all.
fn requested(message: &Message) -> Option<RequestedUnit> {
    match message.operation {
        Operation::Release => Some(RequestedUnit { total_volume: None }),
        Operation::Create | Operation::Update | Operation::Event => {
            message.requested.map(|octets| RequestedUnit { total_volume: Some(octets.get()) })
        }
    }
}

fn container(interval: &Interval<'_>) -> UsedUnitContainer {
    let container = interval.container;
    UsedUnitContainer {
        quota_management_indicator: match container.quota_management {
            QuotaManagement::Online => "ONLINE_CHARGING",
            QuotaManagement::Offline => "OFFLINE_CHARGING",
        },
        triggers: [immediate(container.trigger)],
        trigger_timestamp: date_time(interval.closed_at),
        total_volume: container.used.total().get(),
        uplink_volume: container.used.uplink.get(),
        downlink_volume: container.used.downlink.get(),
        local_sequence_number: container.number.get(),
        pdu_container_information: PduContainer {
            time_of_first_usage: date_time(interval.first_usage),
            time_of_last_usage: date_time(interval.last_usage),
        },
    }
}

const fn immediate(trigger: Trigger) -> WireTrigger {
    let trigger_type = match trigger {
        Trigger::QuotaThreshold => "QUOTA_THRESHOLD",
        Trigger::Qht => "QHT",
        Trigger::Final => "FINAL",
        Trigger::QuotaExhausted => "QUOTA_EXHAUSTED",
        Trigger::ValidityTime => "VALIDITY_TIME",
        Trigger::ForcedReauthorisation => "FORCED_REAUTHORISATION",
        Trigger::TimeLimit => "TIME_LIMIT",
        Trigger::VolumeLimit => "VOLUME_LIMIT",
        Trigger::AbnormalRelease => "ABNORMAL_RELEASE",
    };
    WireTrigger { trigger_type, trigger_category: "IMMEDIATE_REPORT" }
}

fn date_time(wall: Timestamp) -> String {
    DATE_TIME.timestamp_to_string(&wall)
}

/// Reads back from sealed octets what an answer to them has to hold.
pub(super) fn asked(sealed: &[u8]) -> Result<(RatingGroup, Option<Octets>)> {
    let sealed: Asked = serde_json::from_slice(sealed).context("reading a sealed message")?;
    let usage = sealed.multiple_unit_usage.first().context("a sealed message without rating group")?;
    let requested = usage.requested_unit.as_ref().and_then(|unit| unit.total_volume);
    Ok((RatingGroup::new(usage.rating_group), requested.map(Octets::new)))
}

/// What is read back; the rest, fifty containers perhaps, is passed over.
#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "multipleUnitUsage")]
    multiple_unit_usage: Vec<AskedUsage>,
}

#[derive(Deserialize)]
struct AskedUsage {
    #[serde(rename = "ratingGroup")]
    rating_group: u32,
    #[serde(rename = "requestedUnit")]
    requested_unit: Option<AskedUnit>,
}

#[derive(Deserialize)]
struct AskedUnit {
    #[serde(rename = "totalVolume")]
    total_volume: Option<u64>,
}

// Member names are the standard's own, and no rule of letter case gives them: each is spelled out.

#[derive(Serialize)]
struct ChargingDataRequest<'a> {
    #[serde(rename = "subscriberIdentifier")]
    subscriber_identifier: &'a str,
    #[serde(rename = "chargingId")]
    charging_id: u32,
    #[serde(rename = "nfConsumerIdentification")]
    nf_consumer_identification: NfIdentification,
    #[serde(rename = "invocationTimeStamp")]
    invocation_time_stamp: String,
    #[serde(rename = "invocationSequenceNumber")]
    invocation_sequence_number: u32,
    #[serde(rename = "oneTimeEvent", skip_serializing_if = "Option::is_none")]
    one_time_event: Option<bool>,
    #[serde(rename = "oneTimeEventType", skip_serializing_if = "Option::is_none")]
    one_time_event_type: Option<&'static str>,
    #[serde(rename = "multipleUnitUsage")]
    multiple_unit_usage: [MultipleUnitUsage; 1],
    #[serde(rename = "triggers", skip_serializing_if = "Option::is_none")]
    triggers: Option<[WireTrigger; 1]>,
    #[serde(rename = "pDUSessionChargingInformation")]
    pdu_session_charging_information: PduSession<'a>,
}

#[derive(Serialize)]
struct NfIdentification {
    #[serde(rename = "nFName")]
    nf_name: Uuid,
    #[serde(rename = "nodeFunctionality")]
    node_functionality: &'static str,
}

#[derive(Serialize)]
struct MultipleUnitUsage {
    #[serde(rename = "ratingGroup")]
    rating_group: u32,
    #[serde(rename = "requestedUnit", skip_serializing_if = "Option::is_none")]
    requested_unit: Option<RequestedUnit>,
    #[serde(rename = "usedUnitContainer", skip_serializing_if = "Vec::is_empty")]
    used_unit_container: Vec<UsedUnitContainer>,
}

#[derive(Serialize)]
struct RequestedUnit {
    #[serde(rename = "totalVolume", skip_serializing_if = "Option::is_none")]
    total_volume: Option<u64>,
}

#[derive(Serialize)]
struct UsedUnitContainer {
    #[serde(rename = "quotaManagementIndicator")]
    quota_management_indicator: &'static str,
    #[serde(rename = "triggers")]
    triggers: [WireTrigger; 1],
    #[serde(rename = "triggerTimestamp")]
    trigger_timestamp: String,
    #[serde(rename = "totalVolume")]
    total_volume: u64,
    #[serde(rename = "uplinkVolume")]
    uplink_volume: u64,
    #[serde(rename = "downlinkVolume")]
    downlink_volume: u64,
    #[serde(rename = "localSequenceNumber")]
    local_sequence_number: u32,
    #[serde(rename = "pDUContainerInformation")]
    pdu_container_information: PduContainer,
}

#[derive(Serialize)]
struct WireTrigger {
    #[serde(rename = "triggerType")]
    trigger_type: &'static str,
    #[serde(rename = "triggerCategory")]
    trigger_category: &'static str,
}

#[derive(Serialize)]
struct PduContainer {
    #[serde(rename = "timeofFirstUsage")]
    time_of_first_usage: String,
    #[serde(rename = "timeofLastUsage")]
    time_of_last_usage: String,
}

#[derive(Serialize)]
struct PduSession<'a> {
    #[serde(rename = "chargingId")]
    charging_id: u32,
    #[serde(rename = "pduSessionInformation")]
    pdu_session_information: PduSessionInformation<'a>,
}

#[derive(Serialize)]
struct PduSessionInformation<'a> {
    #[serde(rename = "pduSessionID")]
    pdu_session_id: u8,
    #[serde(rename = "dnnId")]
    dnn_id: &'a str,
}
