//! Log-in: client credentials with a signed assertion (RFC 6749 section 4.4, RFC 7523).

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rusqlite::{OptionalExtension as _, Transaction, params};
use serde_json::json;
use std::collections::HashMap;

use super::auth;
use super::wire::AssertionClaims;
use crate::app::App;
use crate::clock::Moment;
use crate::json;
use crate::problem::Problem;
use crate::units::Seconds;

const GRANT_TYPE: &str = "client_credentials";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
const AUDIENCE_END: &str = "/onboarding/v1/oauth2/token";
/// The longest life of an assertion, in seconds.
const LONGEST_LIFE: i64 = 300;
/// How far the two clocks may differ, in seconds.
const SKEW: i64 = 60;

/// A refusal as RFC 6749 section 5.2 writes it.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    error: &'static str,
    description: String,
}

impl Refusal {
    fn request(description: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error: "invalid_request", description: description.into() }
    }

    fn client(description: impl Into<String>) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, error: "invalid_client", description: description.into() }
    }
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, error: "server_error", description: problem.detail }
    }
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::from(Problem::from(error))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        json::answer(self.status, &json!({ "error": self.error, "error_description": self.description }))
    }
}

pub(super) async fn token(State(app): State<App>, body: Bytes) -> Result<Response, Refusal> {
    let form: HashMap<String, String> = form_urlencoded::parse(&body).into_owned().collect();
    let member = |name: &str| form.get(name).cloned().ok_or_else(|| Refusal::request(format!("{name} is missing")));
    if member("grant_type")? != GRANT_TYPE {
        let description = format!("grant_type must be {GRANT_TYPE}");
        return Err(Refusal { status: StatusCode::BAD_REQUEST, error: "unsupported_grant_type", description });
    }
    if member("client_assertion_type")? != ASSERTION_TYPE {
        return Err(Refusal::request(format!("client_assertion_type must be {ASSERTION_TYPE}")));
    }
    let assertion = member("client_assertion")?;
    let scope = scope(form.get("scope").map(String::as_str))?;
    let lifetime = app.options.token_lifetime;
    let (granted, token) = app.store.run(move |tx, now| log_in(tx, now, &assertion, scope, lifetime)).await?;
    let document = json!({ "access_token": token, "token_type": "Bearer", "expires_in": lifetime, "scope": granted });
    let mut response = json::answer(StatusCode::OK, &document);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The scopes asked for, in the order of the profile; all where none is named.
fn scope(asked: Option<&str>) -> Result<String, Refusal> {
    let known = [auth::ONBOARDING, auth::CHARGING];
    let asked: Vec<&str> = match asked {
        None => return Ok(known.join(" ")),
        Some(asked) => asked.split_ascii_whitespace().collect(),
    };
    if asked.is_empty() || asked.iter().any(|scope| !known.contains(scope)) {
        let description = format!("scope must be any of: {}", known.join(" "));
        return Err(Refusal { status: StatusCode::BAD_REQUEST, error: "invalid_scope", description });
    }
    let granted: Vec<_> = known.into_iter().filter(|scope| asked.contains(scope)).collect();
    Ok(granted.join(" "))
}

fn log_in(
    tx: &Transaction<'_>,
    now: Moment,
    assertion: &str,
    scope: String,
    lifetime: Seconds,
) -> Result<(String, String), Refusal> {
    // The signature is checked with the key of the device that the assertion names, so that name is read first.
    let named = decode(assertion, None)?.iss;
    let key: Option<String> =
        tx.query_row("SELECT public_key FROM devices WHERE device_id = ?1", [&named], |row| row.get(0)).optional()?;
    let key = key.ok_or_else(|| Refusal::client(format!("{named} is not a registered device")))?;
    let claims = decode(assertion, Some(&key))?;
    check(&claims, now)?;
    tx.execute("DELETE FROM assertions WHERE expires_at <= ?1", [now.millis()])?;
    let is_new = tx.execute(
        "INSERT INTO assertions (device_id, jti, expires_at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        params![claims.iss, claims.jti, claims.exp.saturating_add(SKEW).saturating_mul(1000)],
    )? == 1;
    if !is_new {
        return Err(Refusal::client("an assertion of this jti was used before"));
    }
    let token = auth::issue(tx, now, &claims.iss, &scope, lifetime)?;
    Ok((scope, token))
}

/// Reads an assertion; with a key, only if that key signed it.
fn decode(assertion: &str, key: Option<&str>) -> Result<AssertionClaims, Refusal> {
    let mut validation = Validation::new(Algorithm::EdDSA);
    // Times and audience are checked by our own clock and rule.
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let key = match key {
        Some(key) => DecodingKey::from_ed_components(key)
            .map_err(|error| Refusal::client(format!("the device's key cannot be used: {error}")))?,
        None => {
            validation.insecure_disable_signature_validation();
            DecodingKey::from_secret(&[])
        }
    };
    jsonwebtoken::decode::<AssertionClaims>(assertion, &key, &validation)
        .map(|token| token.claims)
        .map_err(|error| Refusal::client(format!("the assertion does not hold: {error}")))
}

fn check(claims: &AssertionClaims, now: Moment) -> Result<(), Refusal> {
    let now = now.seconds();
    if claims.iss != claims.sub {
        return Err(Refusal::client("iss and sub differ"));
    }
    if !claims.aud.any_ends_with(AUDIENCE_END) {
        return Err(Refusal::client(format!("aud does not end with {AUDIENCE_END}")));
    }
    if claims.exp <= claims.iat || claims.exp - claims.iat > LONGEST_LIFE {
        return Err(Refusal::client(format!("exp is not within {LONGEST_LIFE} s after iat")));
    }
    if claims.iat > now.saturating_add(SKEW) {
        return Err(Refusal::client("iat is in the future"));
    }
    if claims.exp.saturating_add(SKEW) <= now {
        return Err(Refusal::client("the assertion is over"));
    }
    Ok(())
}
