//! The charging work itself, in one transaction: debit, grant, give back, and keep the answer.

use axum::http::StatusCode;
use rusqlite::{OptionalExtension as _, Transaction, params};

use super::answers::{self, Answer, Fingerprint, Key};
use super::wire::{
    ChargingDataRequest, ChargingDataResponse, FinalUnitIndication, GrantedUnit, InvocationResult,
    MultipleUnitInformation, MultipleUnitUsage, RequestedUnit, UsedUnitContainer,
};
use crate::admin::terms::Terms;
use crate::clock::Moment;
use crate::problem::{InvalidParam, Problem};
use crate::server::Repetition;
use crate::store::ledger::{self, Entry, EntryKind, Origin, Standing};
use crate::store::packages::{self, Package};
use crate::store::{bindings, reservations};
use crate::units::{ChargingId, Octets, RatingGroup, Seconds, SequenceNumber};

/// A message that was read and checked, with what it is known by.
pub(super) struct Message {
    pub(super) request: ChargingDataRequest,
    pub(super) key: Key,
    pub(super) fingerprint: Fingerprint,
    /// What becomes of it if it has come before.
    pub(super) repetition: Repetition,
}

/// Whom a message is about, and which session it belongs to.
#[derive(Clone, Copy)]
struct Account<'a> {
    subscriber: &'a str,
    origin: Origin<'a>,
    repetition: Repetition,
}

struct Session {
    subscriber: String,
    charging_id: ChargingId,
}

/// Create, or one-time event.
pub(super) fn create(
    tx: &Transaction<'_>,
    now: Moment,
    message: &Message,
    (subscriber, charging_id): (&str, ChargingId),
) -> Result<Answer, Problem> {
    if let Some(answer) = first_answer(tx, message)? {
        return Ok(answer);
    }
    if !bindings::is_subscriber(tx, subscriber)? {
        return Err(Problem::not_found("USER_UNKNOWN", format!("there is no subscriber {subscriber}")));
    }
    let request = &message.request;
    let nf_name = message.key.nf_name.as_str();
    let session = (!request.is_one_time()).then(|| uuid::Uuid::new_v4().to_string());
    if let Some(session) = &session {
        tx.prepare_cached(
            "INSERT INTO sessions (ref, nf_name, subscriber, charging_id, created_at, last_sequence_number)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            session,
            nf_name,
            subscriber,
            charging_id,
            now.millis(),
            request.invocation_sequence_number
        ])?;
    }
    let account = Account {
        subscriber,
        origin: Origin { nf_name, charging_id, session: session.as_deref() },
        repetition: message.repetition,
    };
    let body = charge(tx, now, request, account)?;
    let location = session.map(|session| format!("/nchf-convergedcharging/v3/chargingdata/{session}"));
    finish(tx, message, Answer { status: StatusCode::CREATED, location, body })
}

/// Update of an open session.
pub(super) fn update(tx: &Transaction<'_>, now: Moment, message: &Message, session: &str) -> Result<Answer, Problem> {
    if let Some(answer) = first_answer(tx, message)? {
        return Ok(answer);
    }
    let open = open_session(tx, message, session)?;
    let origin = Origin { nf_name: &message.key.nf_name, charging_id: open.charging_id, session: Some(session) };
    let body = charge(
        tx,
        now,
        &message.request,
        Account { subscriber: &open.subscriber, origin, repetition: message.repetition },
    )?;
    saw(tx, session, message.request.invocation_sequence_number)?;
    finish(tx, message, Answer { status: StatusCode::OK, location: None, body })
}

/// Release of an open session: the last usage is debited, the rest goes back.
pub(super) fn release(tx: &Transaction<'_>, now: Moment, message: &Message, session: &str) -> Result<Answer, Problem> {
    if let Some(answer) = first_answer(tx, message)? {
        return Ok(answer);
    }
    let open = open_session(tx, message, session)?;
    let origin = Origin { nf_name: &message.key.nf_name, charging_id: open.charging_id, session: Some(session) };
    let account = Account { subscriber: &open.subscriber, origin, repetition: message.repetition };
    for usage in &message.request.multiple_unit_usage {
        book_all(tx, now, account, usage)?;
    }
    reservations::release(tx, now, (session, &open.subscriber), origin)?;
    saw(tx, session, message.request.invocation_sequence_number)?;
    tx.prepare_cached("UPDATE sessions SET released_at = ?2 WHERE ref = ?1")?
        .execute(params![session, now.millis()])?;
    finish(tx, message, Answer { status: StatusCode::NO_CONTENT, location: None, body: Vec::new() })
}

fn finish(tx: &Transaction<'_>, message: &Message, answer: Answer) -> Result<Answer, Problem> {
    match message.repetition {
        Repetition::Recognised => answers::keep(tx, &message.key, &message.fingerprint, &answer)?,
        Repetition::Charged => {}
    }
    Ok(answer)
}

/// The stored answer to a message that has come before.
fn first_answer(tx: &Transaction<'_>, message: &Message) -> Result<Option<Answer>, Problem> {
    match message.repetition {
        Repetition::Recognised => answers::find(tx, &message.key, &message.fingerprint),
        Repetition::Charged => Ok(None),
    }
}

fn open_session(tx: &Transaction<'_>, message: &Message, session: &str) -> Result<Session, Problem> {
    let found = tx
        .prepare_cached(
            "SELECT subscriber, charging_id FROM sessions WHERE ref = ?1 AND nf_name = ?2 AND released_at IS NULL",
        )?
        .query_row(params![session, message.key.nf_name], |row| {
            Ok(Session { subscriber: row.get(0)?, charging_id: row.get(1)? })
        })
        .optional()?;
    let Some(open) = found else {
        return Err(Problem::not_found("CONTEXT_NOT_FOUND", format!("there is no open session {session}")));
    };
    let mut wrong = Vec::new();
    if message.request.subscriber_identifier.as_ref().is_some_and(|named| *named != open.subscriber) {
        wrong.push(InvalidParam::new("subscriberIdentifier", "the session is another subscriber's"));
    }
    if message.request.charging_id.is_some_and(|named| named != open.charging_id) {
        wrong.push(InvalidParam::new("chargingId", "the session has another charging id"));
    }
    if wrong.is_empty() { Ok(open) } else { Err(Problem::incorrect(wrong)) }
}

fn saw(tx: &Transaction<'_>, session: &str, number: SequenceNumber) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE sessions SET last_sequence_number = max(last_sequence_number, ?2) WHERE ref = ?1")?
        .execute(params![session, number])?;
    Ok(())
}

/// Debits and grants for every rating group of the message, and writes the answer's body.
fn charge(
    tx: &Transaction<'_>,
    now: Moment,
    request: &ChargingDataRequest,
    account: Account<'_>,
) -> Result<Vec<u8>, Problem> {
    let mut information = Vec::with_capacity(request.multiple_unit_usage.len());
    let mut failure_handling = None;
    for usage in &request.multiple_unit_usage {
        book_all(tx, now, account, usage)?;
        // Read after the debit: what is left is what is left after this message.
        let package = packages::current(tx, account.subscriber, usage.rating_group)?;
        if let Some(package) = &package {
            failure_handling.get_or_insert_with(|| package.terms.failure_handling.clone());
        }
        let asked = usage.requested_unit.zip(account.origin.session);
        information.push(match (asked, package) {
            (Some((requested, session)), Some(package)) => {
                grant(tx, now, (account, session), (requested, usage.rating_group), &package)?
            }
            (Some(_), None) => without_package(usage.rating_group),
            (None, _) => booked_only(usage.rating_group),
        });
    }
    let failure_handling = failure_handling.unwrap_or_else(|| Terms::default().failure_handling);
    Ok(serde_json::to_vec(&ChargingDataResponse {
        invocation_time_stamp: now.to_string(),
        invocation_sequence_number: request.invocation_sequence_number,
        invocation_result: InvocationResult { failure_handling },
        multiple_unit_information: information,
    })?)
}

/// Books the containers of one rating group. Package and reservation are written once, whatever the number of containers.
fn book_all(
    tx: &Transaction<'_>,
    now: Moment,
    account: Account<'_>,
    usage: &MultipleUnitUsage,
) -> rusqlite::Result<()> {
    if usage.used_unit_container.is_empty() {
        return Ok(());
    }
    let Account { subscriber, origin, .. } = account;
    let rating_group = usage.rating_group;
    let mut standing = Standing::of(tx, subscriber, rating_group)?;
    let (mut debited, mut offline) = (Octets(0), Octets(0));
    for container in &usage.used_unit_container {
        let total = container.total();
        let kind = kind_of(tx, account, rating_group, container)?;
        if kind == EntryKind::Debit {
            debited = debited.plus(total);
            if let Some(standing) = &mut standing {
                standing.debit(total);
            }
        } else if kind == EntryKind::Offline {
            offline = offline.plus(total);
        }
        let entry = Entry {
            kind,
            subscriber,
            rating_group,
            origin: Some(origin),
            local_sequence_number: Some(container.local_sequence_number),
            total,
            uplink: container.uplink_volume,
            downlink: container.downlink_volume,
        };
        ledger::write_with(tx, now, &entry, standing.as_ref())?;
    }
    packages::book(tx, (subscriber, rating_group), debited, offline)?;
    if let Some(session) = origin.session {
        reservations::use_up(tx, session, rating_group, debited)?;
    }
    Ok(())
}

/// What is to be done with a container: a duplicate was booked before.
fn kind_of(
    tx: &Transaction<'_>,
    Account { origin, repetition, .. }: Account<'_>,
    rating_group: RatingGroup,
    container: &UsedUnitContainer,
) -> rusqlite::Result<EntryKind> {
    let is_new = tx
        .prepare_cached(
            "INSERT INTO containers (nf_name, charging_id, rating_group, local_sequence_number) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO NOTHING",
        )?
        .execute(params![origin.nf_name, origin.charging_id, rating_group, container.local_sequence_number])?
        == 1;
    Ok(if !is_new && repetition == Repetition::Recognised {
        EntryKind::Duplicate
    } else if container.is_offline() {
        EntryKind::Offline
    } else {
        EntryKind::Debit
    })
}

/// Grants what was asked for, or what is left of it; replaces what the session held.
fn grant(
    tx: &Transaction<'_>,
    now: Moment,
    (account, session): (Account<'_>, &str),
    (requested, rating_group): (RequestedUnit, RatingGroup),
    package: &Package,
) -> Result<MultipleUnitInformation, Problem> {
    let subscriber = account.subscriber;
    let others = reservations::held_by_others(tx, (subscriber, rating_group), Some(session))?;
    let left = package.left(others, now);
    let granted = requested.total_volume.unwrap_or(package.terms.chunk).min(left);
    let validity = validity(package, now);
    // Twice the validity: an agent whose renewal is late must not find its octets given to another session.
    let expires_at = now.plus(Seconds(validity.0.saturating_mul(2)));
    reservations::replace(tx, (session, subscriber), rating_group, granted, expires_at)?;
    let entry = Entry {
        kind: EntryKind::Grant,
        subscriber,
        rating_group,
        origin: Some(account.origin),
        local_sequence_number: None,
        total: granted,
        uplink: None,
        downlink: None,
    };
    ledger::write(tx, now, &entry)?;
    let is_final = granted == left;
    let terms = &package.terms;
    let threshold = granted.percent(terms.threshold_percent);
    let is_usable = granted > Octets(0);
    Ok(MultipleUnitInformation {
        result_code: if left == Octets(0) { "QUOTA_LIMIT_REACHED" } else { "SUCCESS" }.to_owned(),
        rating_group,
        granted_unit: Some(GrantedUnit { total_volume: granted }),
        validity_time: is_usable.then_some(validity),
        quota_holding_time: Some(terms.quota_holding_time).filter(|time| is_usable && time.0 > 0),
        volume_quota_threshold: Some(threshold).filter(|threshold| !is_final && threshold.0 > 0),
        final_unit_indication: is_final.then(|| final_unit_indication(terms)),
    })
}

/// What the terms say of the end. Release 16 has one rule and one name, later ones have lists: a list only where there are several.
fn final_unit_indication(terms: &Terms) -> FinalUnitIndication {
    let one_or_list = |all: &[String]| match all {
        [one] => (Some(one.clone()), Vec::new()),
        all => (None, all.to_vec()),
    };
    let (restriction_filter_rule, restriction_filter_rule_list) = one_or_list(&terms.restriction_filter_rules);
    let (filter_id, filter_id_list) = one_or_list(&terms.filter_ids);
    FinalUnitIndication {
        final_unit_action: terms.final_unit_action.clone(),
        restriction_filter_rule,
        restriction_filter_rule_list,
        filter_id,
        filter_id_list,
        redirect_server: terms.redirect_server.clone(),
    }
}

/// The plan's validity, or what is left of the package's time.
fn validity(package: &Package, now: Moment) -> Seconds {
    let until_end = package.valid_until.map(|end| (end.seconds() - now.seconds()).max(1));
    match until_end.and_then(|seconds| u32::try_from(seconds).ok()) {
        Some(seconds) => package.terms.validity_time.min(Seconds(seconds)),
        None => package.terms.validity_time,
    }
}

fn without_package(rating_group: RatingGroup) -> MultipleUnitInformation {
    MultipleUnitInformation {
        result_code: "RATING_FAILED".to_owned(),
        granted_unit: Some(GrantedUnit { total_volume: Octets(0) }),
        final_unit_indication: Some(FinalUnitIndication::plain(Terms::default().final_unit_action)),
        ..booked_only(rating_group)
    }
}

fn booked_only(rating_group: RatingGroup) -> MultipleUnitInformation {
    MultipleUnitInformation {
        result_code: "SUCCESS".to_owned(),
        rating_group,
        granted_unit: None,
        validity_time: None,
        quota_holding_time: None,
        volume_quota_threshold: None,
        final_unit_indication: None,
    }
}
