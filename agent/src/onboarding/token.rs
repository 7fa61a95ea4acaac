//! Logging in (RFC 7523): an assertion signed with the device's key for a short-lived token, kept while it lasts.

use std::sync::{Mutex as StdMutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use uuid::Uuid;

use super::{BASE, Onboarding, OnboardingError, not_sent, parse};
use crate::clock::{Label, Moment, boot_now};
use crate::reporter::Route;
use crate::units::BootInstant;

/// How long an assertion holds: it is used at once.
const ASSERTION_LIFE: SignedDuration = SignedDuration::from_secs(120);
/// A clock that differs from the server's by more is not trusted for assertions.
const SKEW_MAX: SignedDuration = SignedDuration::from_secs(60);
/// How long a token is taken to last when the server does not say.
const LIFE_UNSAID: u64 = 300;

/// The token at hand, and how far our wall clock is from the server's.
#[derive(Debug, Default)]
pub(super) struct Login {
    // Held while logging in, so that calls at the same time log in once.
    token: Mutex<Option<Token>>,
    ahead: StdMutex<Option<SignedDuration>>,
}

#[derive(Clone, Debug)]
struct Token {
    text: String,
    renew_at: BootInstant,
    ends_at: BootInstant,
}

impl Login {
    pub(super) async fn token(&self, onboarding: &Onboarding, route: &Route) -> Result<String, OnboardingError> {
        let mut token = self.token.lock().await;
        let now = boot_now().map_err(not_sent)?;
        if let Some(token) = token.as_ref().filter(|token| now < token.renew_at) {
            return Ok(token.text.clone());
        }
        match self.log_in(onboarding, route, now).await {
            Ok(new) => Ok(token.insert(new).text.clone()),
            // A token is renewed early so that a server that is away for a moment costs nothing.
            Err(OnboardingError::Unanswered { retry_after, reason }) => match token.as_ref() {
                Some(token) if now < token.ends_at => Ok(token.text.clone()),
                _ => Err(OnboardingError::Unanswered { retry_after, reason }),
            },
            Err(refused @ OnboardingError::Refused { .. }) => Err(refused),
        }
    }

    pub(super) async fn forget(&self, refused: &str) {
        let mut token = self.token.lock().await;
        if token.as_ref().is_some_and(|token| token.text == refused) {
            *token = None;
        }
    }

    /// Remembers how far the server's clock is ahead of ours.
    pub(super) fn server_time(&self, date: Option<Timestamp>) {
        if let (Some(date), Ok(now)) = (date, Moment::now()) {
            *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(date.duration_since(now.label.wall));
        }
    }

    async fn log_in(&self, onboarding: &Onboarding, route: &Route, now: BootInstant) -> Result<Token, OnboardingError> {
        let address = onboarding.http.address(&format!("{BASE}/oauth2/token"));
        let label = Moment::now().map_err(not_sent)?.label;
        let ahead = *self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        let claims = claims(&onboarding.device.id, &address, issued_at(label, ahead));
        let assertion = onboarding.key.jwt(&serde_json::to_vec(&claims).map_err(not_sent)?);
        let client = onboarding.http.client(route).map_err(not_sent)?;
        let request = client.post(&address).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let answer: TokenResponse = parse(&onboarding.send(request.body(form(&assertion))).await?)?;
        let life = answer.expires_in.unwrap_or(LIFE_UNSAID);
        Ok(Token {
            text: answer.access_token,
            renew_at: now.plus(Duration::from_secs(life / 5 * 4)),
            ends_at: now.plus(Duration::from_secs(life)),
        })
    }
}

/// The time the assertion is dated with: ours when it can be trusted, else the server's.
fn issued_at(label: Label, ahead: Option<SignedDuration>) -> Timestamp {
    match ahead {
        Some(ahead) if !label.synced || ahead.abs() > SKEW_MAX => label.wall.checked_add(ahead).unwrap_or(label.wall),
        Some(_) | None => label.wall,
    }
}

fn claims<'a>(device_id: &'a str, token_address: &'a str, issued_at: Timestamp) -> Claims<'a> {
    Claims {
        iss: device_id,
        sub: device_id,
        aud: token_address,
        iat: issued_at.as_second(),
        exp: issued_at.as_second() + ASSERTION_LIFE.as_secs(),
        jti: Uuid::new_v4(),
    }
}

/// The form; an assertion needs no escaping.
fn form(assertion: &str) -> String {
    format!(
        "grant_type=client_credentials\
         &client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
         &client_assertion={assertion}\
         &scope=onboarding%20nchf-convergedcharging"
    )
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: i64,
    exp: i64,
    jti: Uuid,
}

#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
    expires_in: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reporter::tests::wire_file;

    #[test]
    fn an_assertion_is_dated_by_a_clock_that_can_be_trusted() {
        let wall: Timestamp = "2026-11-23T08:00:00Z".parse().unwrap();
        let (right, wrong) = (Label { wall, synced: true }, Label { wall, synced: false });
        let (near, far) = (SignedDuration::from_secs(-60), SignedDuration::from_hours(24 * 365));
        assert_eq!(issued_at(right, None), wall);
        assert_eq!(issued_at(right, Some(near)), wall);
        assert_eq!(issued_at(right, Some(far)), wall + far);
        assert_eq!(issued_at(wrong, Some(near)), wall + near);
        assert_eq!(issued_at(wrong, None), wall);
    }

    #[test]
    fn the_claims_are_the_golden_ones() {
        let golden = wire_file("golden/token-assertion.claims.json");
        let mut golden: serde_json::Value = serde_json::from_str(&golden).unwrap();
        let issued_at = Timestamp::from_second(golden["iat"].as_i64().unwrap()).unwrap();
        let ours = claims("gw-0001", "https://charging.example/onboarding/v1/oauth2/token", issued_at);
        let ours = serde_json::to_value(ours).unwrap();
        // Ours live a little longer, and every one has a name of its own.
        golden["exp"] = (issued_at.as_second() + 120).into();
        golden["jti"] = ours["jti"].clone();
        assert_eq!(ours, golden);
    }
}
