//! Reads what came back (docs/protocol.md, section 1.2): lenient about what it does not know, strict about what it counts.

use std::time::Duration;

use serde::Deserialize;

use super::http::Reply;
use crate::quota::{
    Answer, Exceptions, FailureHandling, FinalUnitAction, GrantedUnit, MOST_FILTERS, Operation, Outcome, ResultCode,
};
use crate::units::{InvocationSequenceNumber, Octets, RatingGroup, SessionRef};

/// What an answer has to fit to be the answer to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The operation that was asked for.
    pub operation: Operation,
    /// The message's number, which the answer repeats.
    pub number: InvocationSequenceNumber,
    /// The rating group whose units are looked for.
    pub rating_group: RatingGroup,
    /// Octets the message asked for, if it did.
    pub requested: Option<Octets>,
}

/// Octets of a session's name at most: it goes into a path and a header of every message.
const REF_MAX: usize = 1000;
/// Characters of a filter rule that are kept: more than any may have.
const RULE_MAX: usize = 1000;
/// Characters of the portal's address that are kept: more than any may have.
const URL_MAX: usize = 4000;
/// Characters of a server's words that are kept.
const WORDS_MAX: usize = 200;

/// Judges one reply. Pure.
#[must_use]
pub fn decode(expected: &Expected, reply: &Reply) -> Outcome {
    match reply.status {
        200 | 201 => positive(expected, reply),
        204 => match expected.operation {
            Operation::Release | Operation::Event => Outcome::Answered(EMPTY),
            Operation::Create | Operation::Update => unanswered(reply, "204 without the body that was asked for"),
        },
        401 => not_taken(reply, "401: the token is not accepted"),
        // A gateway may say 408 of a server behind it that has the message.
        408 => unanswered(reply, "a status that asks to try again later"),
        429 => not_taken(reply, "a status that asks to try again later"),
        404 if lost(expected.operation, reply) => Outcome::ContextNotFound,
        status @ 400..=499 => match Problem::of(&reply.body).cause {
            Some(cause) if !ABOUT_THE_CALLER.contains(&cause.as_str()) => Outcome::Rejected { status, cause },
            cause => not_taken(reply, &cause.unwrap_or_else(|| "no word of a charging server's".to_owned())),
        },
        503 => not_taken(reply, &Problem::of(&reply.body).cause(reply.status)),
        500..=599 => unanswered(reply, &Problem::of(&reply.body).cause(reply.status)),
        // RFC 9110 section 15.4: these two ask for the same request elsewhere; after the others it may have been done.
        307 | 308 => not_taken(reply, "a redirection, which is not followed"),
        300..=399 => unanswered(reply, "a redirection, which is not followed"),
        _ => unanswered(reply, "a status that means nothing here"),
    }
}

/// Causes that say something of the caller's rights and nothing of the message: once they are mended, it can go.
const ABOUT_THE_CALLER: [&str; 3] = ["INVALID_TOKEN", "INSUFFICIENT_SCOPE", "DEVICE_MISMATCH"];

const EMPTY: Answer = Answer { session_ref: None, granted: None, failure_handling: None };

fn unanswered(reply: &Reply, reason: &str) -> Outcome {
    let reason = format!("HTTP {}: {}", reply.status, clipped(reason));
    Outcome::Unanswered { retry_after: reply.retry_after, reason }
}

fn not_taken(reply: &Reply, reason: &str) -> Outcome {
    let reason = format!("HTTP {}: {}", reply.status, clipped(reason));
    Outcome::NotTaken { retry_after: reply.retry_after, reason }
}

/// Only an update or a release names a session that the server could have lost.
fn lost(operation: Operation, reply: &Reply) -> bool {
    match operation {
        Operation::Update | Operation::Release => {
            Problem::of(&reply.body).cause.is_some_and(|cause| cause == "CONTEXT_NOT_FOUND")
        }
        Operation::Create | Operation::Event => false,
    }
}

fn positive(expected: &Expected, reply: &Reply) -> Outcome {
    if expected.operation == Operation::Release && reply.body.is_empty() {
        return Outcome::Answered(EMPTY);
    }
    let response: ChargingDataResponse = match serde_json::from_slice(&reply.body) {
        Ok(response) => response,
        Err(error) => return unanswered(reply, &format!("the body is not a ChargingDataResponse: {error}")),
    };
    let number = expected.number.get();
    match (response.invocation_sequence_number, expected.operation) {
        (Some(echo), _) if echo == number => {}
        // The standard has no body here at all.
        (None, Operation::Release) => {}
        (Some(echo), _) => return unanswered(reply, &format!("the answer is to number {echo}, not to {number}")),
        (None, _) => return unanswered(reply, "the answer does not say to which number"),
    }
    let session_ref = match (expected.operation, &reply.location) {
        (Operation::Create, location) => match location.as_deref().and_then(session_ref) {
            Some(session_ref) => Some(session_ref),
            None => return unanswered(reply, "the session was not named: no usable Location"),
        },
        (Operation::Update | Operation::Release | Operation::Event, _) => None,
    };
    let granted = match expected.operation {
        Operation::Create | Operation::Update => granted(expected, &response),
        Operation::Release | Operation::Event => None,
    };
    let handling = response.invocation_result.and_then(|result| result.failure_handling);
    Outcome::Answered(Answer { session_ref, granted, failure_handling: handling.as_deref().and_then(failure_handling) })
}

/// The last segment of a `Location`, absolute or relative.
fn session_ref(location: &str) -> Option<SessionRef> {
    let path = location.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let (_, last) = path.rsplit_once('/').unwrap_or(("", path));
    // It goes back into a path as it is: only what may stand there unescaped or escaped (RFC 3986 section 3.3).
    let fine = last.bytes().all(|c| c.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%".contains(&c));
    let fits = (1..=REF_MAX).contains(&last.len());
    (fine && fits && last != "." && last != "..").then(|| SessionRef::new(last))
}

/// The units for our rating group; when units were asked for, no word of them is no unit.
fn granted(expected: &Expected, response: &ChargingDataResponse) -> Option<GrantedUnit> {
    let group = expected.rating_group.get();
    let of = |wanted: Option<u32>| {
        response.multiple_unit_information.iter().flatten().find(move |i| i.rating_group == wanted)
    };
    let Some(information) = of(Some(group)).or_else(|| of(None)) else {
        return expected.requested.map(|_| GrantedUnit::none());
    };
    if expected.requested.is_none() && information.granted_unit.is_none() {
        return None;
    }
    let offered = information.granted_unit.as_ref().and_then(|unit| unit.total_volume).unwrap_or(0);
    let result = result_code(information.result_code.as_deref(), offered);
    let octets = if result == ResultCode::Success { Octets::new(offered) } else { Octets::ZERO };
    let threshold = information.volume_quota_threshold.filter(|threshold| *threshold > 0);
    Some(GrantedUnit {
        result,
        octets,
        volume_quota_threshold: threshold.map(Octets::new),
        validity_time: seconds(information.validity_time),
        quota_holding_time: seconds(information.quota_holding_time),
        final_unit: information.final_unit_indication.as_ref().and_then(final_unit),
        exceptions: information.final_unit_indication.as_ref().map(exceptions).unwrap_or_default(),
    })
}

/// A code that is not known, or none, is judged by what came with it.
fn result_code(code: Option<&str>, offered: u64) -> ResultCode {
    match code {
        Some("SUCCESS") => ResultCode::Success,
        Some("QUOTA_LIMIT_REACHED") => ResultCode::QuotaLimitReached,
        // QUOTA_MANAGEMENT_NOT_APPLICABLE belongs here: without a quota there is no ceiling to open the gate to.
        Some(
            "END_USER_SERVICE_DENIED"
            | "END_USER_SERVICE_REJECTED"
            | "USER_UNKNOWN"
            | "RATING_FAILED"
            | "QUOTA_MANAGEMENT"
            | "QUOTA_MANAGEMENT_NOT_APPLICABLE",
        ) => ResultCode::Denied,
        Some(_) | None if offered > 0 => ResultCode::Success,
        Some(_) | None => ResultCode::Denied,
    }
}

/// 0 = off.
fn seconds(seconds: Option<u64>) -> Option<Duration> {
    seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

/// An action that is not known still says that these are the last units: the plain one is taken.
fn final_unit(indication: &FinalUnitIndication) -> Option<FinalUnitAction> {
    match indication.final_unit_action.as_deref() {
        None | Some("") => None,
        Some(action) => Some(final_unit_action(action).unwrap_or(FinalUnitAction::Terminate)),
    }
}

/// What still passes: kept as the server says it, but no more of it than could ever be followed. One entry more is kept than may be, so
/// that a list that is cut short is never taken for a whole one.
fn exceptions(indication: &FinalUnitIndication) -> Exceptions {
    let list = |one: &Option<String>, more: &Option<Vec<String>>| -> Vec<String> {
        let all = one.iter().chain(more.iter().flatten());
        all.take(MOST_FILTERS + 1).map(|text| text.chars().take(RULE_MAX).collect()).collect()
    };
    Exceptions {
        rules: list(&indication.restriction_filter_rule, &indication.restriction_filter_rule_list),
        filters: list(&indication.filter_id, &indication.filter_id_list),
        portal: indication.redirect_server.as_ref().and_then(portal),
    }
}

/// A server to redirect to, in the form of a URL. Of a kind that is not known its bare address is kept, which is no URL.
fn portal(server: &RedirectServer) -> Option<String> {
    let address = server.redirect_server_address.as_deref()?;
    let url = match server.redirect_address_type.as_deref() {
        Some("IPV4") => format!("http://{address}/"),
        Some("IPV6") => format!("http://[{}]/", address.trim_matches(['[', ']'])),
        _ => address.to_owned(),
    };
    Some(url.chars().take(URL_MAX).collect())
}

/// The word for a final unit action.
pub(crate) fn final_unit_action(word: &str) -> Option<FinalUnitAction> {
    match word {
        "TERMINATE" => Some(FinalUnitAction::Terminate),
        "REDIRECT" => Some(FinalUnitAction::Redirect),
        "RESTRICT_ACCESS" => Some(FinalUnitAction::RestrictAccess),
        _ => None,
    }
}

/// The word for a failure handling.
pub(crate) fn failure_handling(word: &str) -> Option<FailureHandling> {
    match word {
        "TERMINATE" => Some(FailureHandling::Terminate),
        "CONTINUE" => Some(FailureHandling::Continue),
        "RETRY_AND_TERMINATE" => Some(FailureHandling::RetryAndTerminate),
        _ => None,
    }
}

/// A problem document (RFC 9457) with 3GPP's cause, or what OAuth has in its place (RFC 6749 section 5.2).
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Problem {
    pub(crate) cause: Option<String>,
    pub(crate) title: Option<String>,
    pub(crate) detail: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) error_description: Option<String>,
}

impl Problem {
    /// Reads a body; one that is no problem document says nothing.
    pub(crate) fn of(body: &[u8]) -> Self {
        let Self { cause, title, detail, error, error_description } = serde_json::from_slice(body).unwrap_or_default();
        let short = |words: Option<String>| words.as_deref().map(clipped);
        Self {
            cause: short(cause),
            title: short(title),
            detail: short(detail),
            error: short(error),
            error_description: short(error_description),
        }
    }

    /// The cause, or the nearest thing to it.
    pub(crate) fn cause(self, status: u16) -> String {
        self.cause.or(self.error).or(self.title).unwrap_or_else(|| format!("status {status} without a cause"))
    }
}

/// A server's words as they may go into the log, the status and the ledger: not long, and on one line.
pub(crate) fn clipped(words: &str) -> String {
    let plain = words.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut short: String = plain.clone().take(WORDS_MAX).collect();
    if plain.clone().nth(WORDS_MAX).is_some() {
        short.push('…');
    }
    short
}

// What is received: only what is used, each member optional, unknown ones ignored.

#[derive(Deserialize)]
struct ChargingDataResponse {
    #[serde(rename = "invocationSequenceNumber")]
    invocation_sequence_number: Option<u32>,
    #[serde(rename = "invocationResult")]
    invocation_result: Option<InvocationResult>,
    #[serde(rename = "multipleUnitInformation")]
    multiple_unit_information: Option<Vec<MultipleUnitInformation>>,
}

#[derive(Deserialize)]
struct InvocationResult {
    #[serde(rename = "failureHandling")]
    failure_handling: Option<String>,
}

#[derive(Deserialize)]
struct MultipleUnitInformation {
    #[serde(rename = "resultCode")]
    result_code: Option<String>,
    #[serde(rename = "ratingGroup")]
    rating_group: Option<u32>,
    #[serde(rename = "grantedUnit")]
    granted_unit: Option<WireGrantedUnit>,
    #[serde(rename = "validityTime")]
    validity_time: Option<u64>,
    #[serde(rename = "quotaHoldingTime")]
    quota_holding_time: Option<u64>,
    #[serde(rename = "volumeQuotaThreshold")]
    volume_quota_threshold: Option<u64>,
    #[serde(rename = "finalUnitIndication")]
    final_unit_indication: Option<FinalUnitIndication>,
}

#[derive(Deserialize)]
struct WireGrantedUnit {
    #[serde(rename = "totalVolume")]
    total_volume: Option<u64>,
}

#[derive(Deserialize)]
struct FinalUnitIndication {
    #[serde(rename = "finalUnitAction")]
    final_unit_action: Option<String>,
    #[serde(rename = "restrictionFilterRule")]
    restriction_filter_rule: Option<String>,
    #[serde(rename = "restrictionFilterRuleList")]
    restriction_filter_rule_list: Option<Vec<String>>,
    #[serde(rename = "filterId")]
    filter_id: Option<String>,
    #[serde(rename = "filterIdList")]
    filter_id_list: Option<Vec<String>>,
    #[serde(rename = "redirectServer")]
    redirect_server: Option<RedirectServer>,
}

#[derive(Deserialize)]
struct RedirectServer {
    #[serde(rename = "redirectAddressType")]
    redirect_address_type: Option<String>,
    #[serde(rename = "redirectServerAddress")]
    redirect_server_address: Option<String>,
}
