//! First answers, kept octet for octet: a message that comes again gets what it got before.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ring::digest;
use rusqlite::{OptionalExtension as _, Transaction, params};
use serde_json::Value;

use crate::problem::Problem;
use crate::units::{ChargingId, SequenceNumber};

/// What a message is known by.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) nf_name: String,
    pub(super) scope: Scope,
    pub(super) sequence_number: SequenceNumber,
}

/// What a message belongs to.
#[derive(Clone, Debug)]
pub(super) enum Scope {
    /// A create or a one-time event.
    Create(ChargingId),
    /// An update or a release.
    Session(String),
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) location: Option<String>,
    /// Empty for 204.
    pub(super) body: Vec<u8>,
}

/// What a message says: the digest of its canonical form, retransmission or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(Vec<u8>);

impl Fingerprint {
    /// Of a message on one of the three operations; the same text on another operation is another message.
    pub(super) fn of(operation: &str, body: &[u8]) -> Result<Self, Problem> {
        let mut message: Value = serde_json::from_slice(body)?;
        if let Some(members) = message.as_object_mut() {
            members.remove("retransmissionIndicator");
        }
        message.sort_all_objects();
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(operation.as_bytes());
        context.update(b"\n");
        context.update(&serde_json::to_vec(&message)?);
        Ok(Self(context.finish().as_ref().to_vec()))
    }
}

impl Key {
    /// As it travels in `Idempotency-Key`.
    pub(super) fn header(&self) -> String {
        match &self.scope {
            Scope::Create(charging_id) => format!("{}/{charging_id}/{}", self.nf_name, self.sequence_number),
            Scope::Session(session) => format!("{}/{session}/{}", self.nf_name, self.sequence_number),
        }
    }

    fn scope(&self) -> String {
        match &self.scope {
            Scope::Create(charging_id) => format!("create/{charging_id}"),
            Scope::Session(session) => session.clone(),
        }
    }
}

/// The stored answer to this very message; 409 if the key was used for another one.
pub(super) fn find(tx: &Transaction<'_>, key: &Key, fingerprint: &Fingerprint) -> Result<Option<Answer>, Problem> {
    let found = tx
        .prepare_cached(
            "SELECT fingerprint, status, location, body FROM answers
             WHERE nf_name = ?1 AND scope = ?2 AND sequence_number = ?3",
        )?
        .query_row(params![key.nf_name, key.scope(), key.sequence_number], |row| {
            let first = Fingerprint(row.get(0)?);
            let status: u16 = row.get(1)?;
            Ok((first, status, Answer { status: StatusCode::OK, location: row.get(2)?, body: row.get(3)? }))
        })
        .optional()?;
    let Some((first, status, answer)) = found else { return Ok(None) };
    if first != *fingerprint {
        let detail = format!("sequence number {} of this session was used for another message", key.sequence_number);
        return Err(Problem::conflict("IDEMPOTENCY_KEY_REUSED", detail));
    }
    let status = StatusCode::from_u16(status).map_err(|_| Problem::failure("a stored answer has no valid status"))?;
    Ok(Some(Answer { status, ..answer }))
}

/// Keeps an answer, in the transaction that does what it tells of.
pub(super) fn keep(
    tx: &Transaction<'_>,
    key: &Key,
    fingerprint: &Fingerprint,
    answer: &Answer,
) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO answers (nf_name, scope, sequence_number, fingerprint, status, location, body)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        key.nf_name,
        key.scope(),
        key.sequence_number,
        fingerprint.0,
        answer.status.as_u16(),
        answer.location,
        answer.body
    ])?;
    Ok(())
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let has_body = !self.body.is_empty();
        let mut response = (self.status, self.body).into_response();
        response.headers_mut().remove(header::CONTENT_TYPE);
        if has_body {
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(location) = self.location.and_then(|location| HeaderValue::try_from(location).ok()) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }
}
