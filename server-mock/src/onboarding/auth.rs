//! Bearer tokens: drawn at random, stored as digests, bound to a device and a scope.

use axum::http::{HeaderMap, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use ring::rand::{SecureRandom as _, SystemRandom};
use rusqlite::{OptionalExtension as _, Transaction, params};

use crate::app::App;
use crate::clock::Moment;
use crate::problem::Problem;
use crate::server::Authentication;
use crate::units::Seconds;

/// May call `/onboarding/v1`.
pub(super) const ONBOARDING: &str = "onboarding";
/// May call `/nchf-convergedcharging/v3`.
pub(super) const CHARGING: &str = "nchf-convergedcharging";

/// What a token lets its bearer do.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) device_id: String,
    pub(crate) nf_instance_id: String,
    scope: String,
}

/// The caller of a charging operation; none where the server lets anyone charge and no token was sent.
pub(crate) async fn charging(app: &App, headers: &HeaderMap) -> Result<Option<Grant>, Problem> {
    match app.options.authentication {
        Authentication::Optional if !headers.contains_key(header::AUTHORIZATION) => Ok(None),
        Authentication::Optional | Authentication::Required => caller(app, headers, CHARGING).await.map(Some),
    }
}

/// The caller of an onboarding operation on a device, which must be that device.
pub(super) async fn device(app: &App, headers: &HeaderMap, device: &str) -> Result<(), Problem> {
    let grant = caller(app, headers, ONBOARDING).await?;
    if grant.device_id == device {
        Ok(())
    } else {
        Err(Problem::forbidden("DEVICE_MISMATCH", format!("the token is not one of {device}")))
    }
}

/// The bearer token of a request.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// What is stored and compared in place of a token.
pub(crate) fn token_digest(token: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, token.as_bytes()).as_ref().to_vec()
}

pub(crate) fn unauthorised(detail: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "INVALID_TOKEN", detail)
}

/// Draws a token for a device; tokens that are over go.
pub(super) fn issue(
    tx: &Transaction<'_>,
    now: Moment,
    device: &str,
    scope: &str,
    lifetime: Seconds,
) -> Result<String, Problem> {
    let mut octets = [0; 32];
    SystemRandom::new().fill(&mut octets).map_err(|_| Problem::failure("the system has no randomness"))?;
    let token = URL_SAFE_NO_PAD.encode(octets);
    tx.execute("DELETE FROM tokens WHERE expires_at <= ?1", [now.millis()])?;
    tx.execute(
        "INSERT INTO tokens (hash, device_id, scope, expires_at) VALUES (?1, ?2, ?3, ?4)",
        params![token_digest(&token), device, scope, now.plus(lifetime).millis()],
    )?;
    Ok(token)
}

async fn caller(app: &App, headers: &HeaderMap, scope: &str) -> Result<Grant, Problem> {
    let digest = token_digest(bearer(headers).ok_or_else(|| unauthorised("a bearer token is needed"))?);
    let grant = app.store.run(move |tx, now| find(tx, now, &digest)).await?;
    if grant.scope.split(' ').any(|granted| granted == scope) {
        Ok(grant)
    } else {
        Err(Problem::forbidden("INSUFFICIENT_SCOPE", format!("the token does not have the scope {scope}")))
    }
}

fn find(tx: &Transaction<'_>, now: Moment, digest: &[u8]) -> Result<Grant, Problem> {
    tx.prepare_cached(
        "SELECT d.device_id, d.nf_instance_id, t.scope FROM tokens t JOIN devices d USING (device_id)
         WHERE t.hash = ?1 AND t.expires_at > ?2",
    )?
    .query_row(params![digest, now.millis()], |row| {
        Ok(Grant { device_id: row.get(0)?, nf_instance_id: row.get(1)?, scope: row.get(2)? })
    })
    .optional()?
    .ok_or_else(|| unauthorised("the token is unknown or over"))
}
