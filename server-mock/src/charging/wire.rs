//! The charging messages, member names as in TS 32.291 (clause 6.1.6 and its OpenAPI file).
//!
//! Reading is lenient: members and enumeration values that are not known are let pass, so enumerations are strings here.

use serde::{Deserialize, Serialize};

use crate::units::{ChargingId, LocalSequenceNumber, Octets, RatingGroup, Seconds, SequenceNumber};

/// What the agent sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChargingDataRequest {
    /// `imsi-…`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscriber_identifier: Option<String>,
    /// The agent's number of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charging_id: Option<ChargingId>,
    /// Who sends it.
    pub nf_consumer_identification: NfIdentification,
    /// When it was sealed.
    pub invocation_time_stamp: String,
    /// Its number within the session.
    pub invocation_sequence_number: SequenceNumber,
    /// True where no session is to be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_time_event: Option<bool>,
    /// `PEC` or `IEC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_time_event_type: Option<String>,
    /// Usage and requests, one for each rating group.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub multiple_unit_usage: Vec<MultipleUnitUsage>,
    /// Triggers of the whole message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<Trigger>,
    /// What is known of the PDU session.
    #[serde(rename = "pDUSessionChargingInformation", default, skip_serializing_if = "Option::is_none")]
    pub pdu_session_charging_information: Option<PduSessionChargingInformation>,
    /// True in a retry; the last member of the text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retransmission_indicator: Option<bool>,
}

/// Who sends a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NfIdentification {
    /// The device's `nfInstanceId`.
    #[serde(rename = "nFName")]
    pub nf_name: String,
    /// `SMF`.
    pub node_functionality: String,
}

/// Usage and request of one rating group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MultipleUnitUsage {
    /// What is charged alike.
    pub rating_group: RatingGroup,
    /// Absent: nothing is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_unit: Option<RequestedUnit>,
    /// What was used, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used_unit_container: Vec<UsedUnitContainer>,
}

/// How much is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestedUnit {
    /// Absent: as much as the plan's chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_volume: Option<Octets>,
}

/// Octets between two closings of the count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsedUnitContainer {
    /// `ONLINE_CHARGING` or `OFFLINE_CHARGING`; absent reads as online.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_management_indicator: Option<String>,
    /// Why it was closed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub triggers: Vec<Trigger>,
    /// When it was closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger_timestamp: Option<String>,
    /// Both directions; absent reads as their sum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_volume: Option<Octets>,
    /// From the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink_volume: Option<Octets>,
    /// To the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub downlink_volume: Option<Octets>,
    /// Its number within charging id and rating group.
    pub local_sequence_number: LocalSequenceNumber,
    /// When it was used.
    #[serde(rename = "pDUContainerInformation", default, skip_serializing_if = "Option::is_none")]
    pub pdu_container_information: Option<PduContainerInformation>,
}

/// Why a container was closed or a message sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Trigger {
    /// `QUOTA_THRESHOLD`, `FINAL` and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trigger_type: Option<String>,
    /// `IMMEDIATE_REPORT` or `DEFERRED_REPORT`.
    pub trigger_category: String,
}

/// When a container's octets passed. The standard writes `timeof`, in one word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PduContainerInformation {
    /// The first packet.
    #[serde(rename = "timeofFirstUsage", default, skip_serializing_if = "Option::is_none")]
    pub time_of_first_usage: Option<String>,
    /// The last packet.
    #[serde(rename = "timeofLastUsage", default, skip_serializing_if = "Option::is_none")]
    pub time_of_last_usage: Option<String>,
}

/// What is known of the PDU session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PduSessionChargingInformation {
    /// As in the message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charging_id: Option<ChargingId>,
    /// Number and APN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pdu_session_information: Option<PduSessionInformation>,
}

/// Number and APN of a PDU session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PduSessionInformation {
    /// 0 to 255.
    #[serde(rename = "pduSessionID")]
    pub pdu_session_id: u8,
    /// The APN.
    pub dnn_id: String,
}

/// What the server answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChargingDataResponse {
    /// The server's time.
    pub invocation_time_stamp: String,
    /// The request's number.
    pub invocation_sequence_number: SequenceNumber,
    /// What to do while there is no answer.
    pub invocation_result: InvocationResult,
    /// One for each rating group of the request.
    pub multiple_unit_information: Vec<MultipleUnitInformation>,
}

/// What to do while there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InvocationResult {
    /// `TERMINATE`, `CONTINUE` or `RETRY_AND_TERMINATE`.
    pub failure_handling: String,
}

/// The answer for one rating group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MultipleUnitInformation {
    /// `SUCCESS`, `QUOTA_LIMIT_REACHED` or `RATING_FAILED`.
    pub result_code: String,
    /// The request's.
    pub rating_group: RatingGroup,
    /// Present where units were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted_unit: Option<GrantedUnit>,
    /// From receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validity_time: Option<Seconds>,
    /// Without traffic; absent = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quota_holding_time: Option<Seconds>,
    /// Remaining octets at which to ask again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_quota_threshold: Option<Octets>,
    /// Present where no more will follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_unit_indication: Option<FinalUnitIndication>,
}

/// How much is granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantedUnit {
    /// Both directions together.
    pub total_volume: Octets,
}

/// What to do once the last grant is used up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FinalUnitIndication {
    /// `TERMINATE`, `RESTRICT_ACCESS` or `REDIRECT`.
    pub final_unit_action: String,
    /// What is permitted then: one `IPFilterRule` (RFC 6733).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restriction_filter_rule: Option<String>,
    /// The same, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restriction_filter_rule_list: Vec<String>,
    /// A filter that the gateway has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter_id: Option<String>,
    /// The same, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filter_id_list: Vec<String>,
    /// Where people are led.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_server: Option<RedirectServer>,
}

/// Where people are led once the last grant is used up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedirectServer {
    /// `IPV4`, `IPV6` or `URL`.
    pub redirect_address_type: String,
    /// An address of that type.
    pub redirect_server_address: String,
}

impl FinalUnitIndication {
    /// One that says no more than what to do.
    #[must_use]
    pub fn plain(final_unit_action: String) -> Self {
        Self {
            final_unit_action,
            restriction_filter_rule: None,
            restriction_filter_rule_list: Vec::new(),
            filter_id: None,
            filter_id_list: Vec::new(),
            redirect_server: None,
        }
    }
}

impl ChargingDataRequest {
    /// Whether it is a one-time event, which makes no session.
    #[must_use]
    pub fn is_one_time(&self) -> bool {
        self.one_time_event == Some(true)
    }
}

impl UsedUnitContainer {
    /// All octets of the container.
    #[must_use]
    pub fn total(&self) -> Octets {
        let directions = self.uplink_volume.unwrap_or_default().plus(self.downlink_volume.unwrap_or_default());
        self.total_volume.unwrap_or(directions)
    }

    /// Whether its octets passed outside the quota, and are not to be debited.
    #[must_use]
    pub fn is_offline(&self) -> bool {
        self.quota_management_indicator.as_deref() == Some("OFFLINE_CHARGING")
    }
}
