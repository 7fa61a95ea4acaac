//! A device introduces itself, once; the same device with the same key gets the first answer again.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rusqlite::{OptionalExtension as _, Transaction, params};

use super::wire::{RegisterRequest, RegisterResponse};
use crate::app::App;
use crate::clock::Moment;
use crate::json;
use crate::problem::{InvalidParam, Problem};
use crate::server::Enrolment;

pub(super) async fn register(State(app): State<App>, body: Bytes) -> Result<Response, Problem> {
    let request: RegisterRequest = json::read(&body)?;
    check(&request)?;
    let enrolment = app.options.enrolment;
    let answer = app.store.run(move |tx, now| enter(tx, now, &request, enrolment)).await?;
    Ok((StatusCode::CREATED, [(header::CONTENT_TYPE, "application/json")], answer).into_response())
}

fn check(request: &RegisterRequest) -> Result<(), Problem> {
    let mut wrong = Vec::new();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !(1..=64).contains(&request.device_id.len()) || !request.device_id.bytes().all(is_plain) {
        wrong.push(InvalidParam::new("deviceId", "not 1 to 64 letters, digits, dots, dashes and underscores"));
    }
    if uuid::Uuid::try_parse(&request.nf_instance_id).is_err() {
        wrong.push(InvalidParam::new("nfInstanceId", "not a UUID"));
    }
    for (member, text, most) in
        [("serial", &request.serial, 128), ("model", &request.model, 128), ("agentVersion", &request.agent_version, 64)]
    {
        if !(1..=most).contains(&text.chars().count()) {
            wrong.push(InvalidParam::new(member, format!("not 1 to {most} characters")));
        }
    }
    for (index, modem) in request.modems.iter().enumerate() {
        if !is_slot(&modem.slot) {
            wrong.push(InvalidParam::new(format!("modems[{index}].slot"), "not 1 to 64 characters"));
        }
    }
    let key = &request.public_key;
    if key.kty != "OKP" {
        wrong.push(InvalidParam::new("publicKey.kty", "not OKP"));
    }
    if key.crv != "Ed25519" {
        wrong.push(InvalidParam::new("publicKey.crv", "not Ed25519"));
    }
    if URL_SAFE_NO_PAD.decode(&key.x).is_ok_and(|octets| octets.len() == 32) {
    } else {
        wrong.push(InvalidParam::new("publicKey.x", "not 32 octets in base64url without padding"));
    }
    if wrong.is_empty() { Ok(()) } else { Err(Problem::incorrect(wrong)) }
}

/// Whether a slot's name is 1 to 64 characters long.
pub(super) fn is_slot(slot: &str) -> bool {
    (1..=64).contains(&slot.chars().count())
}

fn enter(
    tx: &Transaction<'_>,
    now: Moment,
    request: &RegisterRequest,
    enrolment: Enrolment,
) -> Result<String, Problem> {
    let nf_instance_id = request.nf_instance_id.to_ascii_lowercase();
    let known: Option<(String, String, String)> = tx
        .query_row(
            "SELECT public_key, nf_instance_id, answer FROM devices WHERE device_id = ?1",
            [&request.device_id],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    if let Some((key, instance, answer)) = known {
        return if key == request.public_key.x && instance == nf_instance_id {
            Ok(answer)
        } else {
            let detail = format!("{} is registered with another key or nfInstanceId", request.device_id);
            Err(Problem::conflict("DEVICE_KEY_DIFFERS", detail))
        };
    }
    if tx.prepare("SELECT 1 FROM devices WHERE nf_instance_id = ?1")?.exists([&nf_instance_id])? {
        let detail = format!("another device has the nfInstanceId {nf_instance_id}");
        return Err(Problem::conflict("NF_INSTANCE_TAKEN", detail));
    }
    match enrolment {
        Enrolment::Open => {}
        Enrolment::ClaimCode => claim(tx, request)?,
    }
    let answer = serde_json::to_string(&RegisterResponse {
        device_id: request.device_id.clone(),
        nf_instance_id: nf_instance_id.clone(),
        registered_at: now.to_string(),
    })?;
    // The code is used up and nobody's business any more.
    let shown = serde_json::to_string(&RegisterRequest { claim_code: None, ..request.clone() })?;
    tx.execute(
        "INSERT INTO devices (device_id, nf_instance_id, public_key, request, answer, registered_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![request.device_id, nf_instance_id, request.public_key.x, shown, answer, now.millis()],
    )?;
    Ok(answer)
}

fn claim(tx: &Transaction<'_>, request: &RegisterRequest) -> Result<(), Problem> {
    let used = tx.execute(
        "UPDATE claim_codes SET used_by = ?2 WHERE code = ?1 AND used_by IS NULL",
        params![request.claim_code, request.device_id],
    )?;
    if used == 1 {
        return Ok(());
    }
    let mut problem =
        Problem::forbidden("CLAIM_CODE_INVALID", "registering needs a claim code that was not used before");
    problem.invalid_params.push(InvalidParam::new("claimCode", "missing, wrong or used"));
    Err(problem)
}
