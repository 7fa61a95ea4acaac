//! From an HTTP request to a message with a key, and to the transaction that answers it.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};

use super::answers::{Answer, Fingerprint, Key, Scope};
use super::engine::{self, Message};
use super::validate;
use super::wire::ChargingDataRequest;
use crate::app::App;
use crate::json;
use crate::onboarding::auth::{self, Grant};
use crate::problem::Problem;

pub(super) async fn create(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Result<Answer, Problem> {
    let caller = auth::charging(&app, &headers).await?;
    let request = read(&body, caller.as_ref())?;
    let subscriber = request.subscriber_identifier.clone().ok_or_else(|| Problem::missing("subscriberIdentifier"))?;
    let charging_id = request.charging_id.ok_or_else(|| Problem::missing("chargingId"))?;
    let message = seal(&app, request, Scope::Create(charging_id), ("create", &body), &headers)?;
    app.store.run(move |tx, now| engine::create(tx, now, &message, (&subscriber, charging_id))).await
}

pub(super) async fn update(
    State(app): State<App>,
    Path(session): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Answer, Problem> {
    let caller = auth::charging(&app, &headers).await?;
    let request = read(&body, caller.as_ref())?;
    let message = seal(&app, request, Scope::Session(session.clone()), ("update", &body), &headers)?;
    app.store.run(move |tx, now| engine::update(tx, now, &message, &session)).await
}

pub(super) async fn release(
    State(app): State<App>,
    Path(session): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Answer, Problem> {
    let caller = auth::charging(&app, &headers).await?;
    let request = read(&body, caller.as_ref())?;
    let message = seal(&app, request, Scope::Session(session.clone()), ("release", &body), &headers)?;
    app.store.run(move |tx, now| engine::release(tx, now, &message, &session)).await
}

/// Reads a message and makes sure that its sender may send it.
fn read(body: &[u8], caller: Option<&Grant>) -> Result<ChargingDataRequest, Problem> {
    let request: ChargingDataRequest = json::read(body)?;
    validate::check(&request)?;
    let name = &request.nf_consumer_identification.nf_name;
    match caller {
        Some(caller) if !caller.nf_instance_id.eq_ignore_ascii_case(name) => {
            Err(Problem::forbidden("DEVICE_MISMATCH", format!("the token is not one of {name}")))
        }
        Some(_) | None => Ok(request),
    }
}

fn seal(
    app: &App,
    request: ChargingDataRequest,
    scope: Scope,
    (operation, body): (&str, &[u8]),
    headers: &HeaderMap,
) -> Result<Message, Problem> {
    let key = Key {
        nf_name: request.nf_consumer_identification.nf_name.to_ascii_lowercase(),
        scope,
        sequence_number: request.invocation_sequence_number,
    };
    if let Some(named) = headers.get("idempotency-key") {
        let expected = key.header();
        // The header's draft writes the key as a structured-field string, in quotes.
        let named = named.to_str().unwrap_or_default().trim_matches('"');
        if !named.eq_ignore_ascii_case(&expected) {
            let detail = format!("Idempotency-Key says {named}, the message says {expected}");
            return Err(Problem::new(StatusCode::BAD_REQUEST, "IDEMPOTENCY_KEY_MISMATCH", detail));
        }
    }
    let fingerprint = Fingerprint::of(operation, body)?;
    Ok(Message { request, key, fingerprint, repetition: app.options.repetition })
}
