//! Logging in (RFC 7523): an assertion signed with the device's key for a short-lived token, kept while it lasts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{BASE, Onboarding, OnboardingError, not_sent, parse};
use crate::clock::{Label, boot_now};
use crate::reporter::Route;
use crate::units::BootInstant;

/// How long an assertion holds: it is used at once.
const ASSERTION_LIFE: SignedDuration = SignedDuration::from_secs(120);
/// A clock that differs from the server's by more is not trusted for assertions.
const SKEW_MAX: SignedDuration = SignedDuration::from_secs(60);
/// How long a token is taken to last when the server does not say.
const LIFE_UNSAID: u64 = 300;
/// Octets of a token at most: it goes into a header of every request.
const TOKEN_MAX: usize = 4096;
/// How long a renewal may take while the present token is good.
const RENEWAL: Duration = Duration::from_secs(5);
/// A renewal that came to nothing is tried again after this long, while the present token is good.
const RENEW_AGAIN: Duration = Duration::from_secs(30);

/// The token at hand.
#[derive(Debug, Default)]
pub(super) struct Login {
    token: Mutex<Option<Token>>,
    ways: Mutex<HashMap<Route, Arc<Way>>>,
}

/// Held while logging in, so that calls at the same time log in once; over each way for itself, as one may be dead and the other not.
/// The last attempt, where it came to nothing, and when it ended.
type Way = tokio::sync::Mutex<Option<(BootInstant, OnboardingError)>>;

#[derive(Clone, Debug)]
struct Token {
    text: String,
    renew_at: BootInstant,
    ends_at: BootInstant,
}

impl Login {
    pub(super) async fn token(&self, onboarding: &Onboarding, route: &Route) -> Result<String, OnboardingError> {
        let asked_at = boot_now().map_err(not_sent)?;
        let way = Arc::clone(locked(&self.ways).entry(route.clone()).or_default());
        let mut failed = way.lock().await;
        let now = boot_now().map_err(not_sent)?;
        let at_hand = locked(&self.token).clone().filter(|token| now < token.ends_at);
        if let Some(token) = at_hand.as_ref().filter(|token| now < token.renew_at) {
            return Ok(token.text.clone());
        }
        if let Some((_, error)) = failed.as_ref().filter(|(at, _)| *at >= asked_at) {
            // It was asked for at the same time: as many attempts in a row would take as many time-outs.
            return Err(error.clone());
        }
        let answer = match &at_hand {
            // A token is renewed early so that a server that is away for a moment, or takes its time, costs nothing.
            Some(_) => tokio::time::timeout(RENEWAL, self.log_in(onboarding, route, now)).await.unwrap_or_else(|_| {
                let reason = format!("the renewal of the token takes longer than {RENEWAL:?}");
                Err(OnboardingError::Unanswered { retry_after: None, reason })
            }),
            None => self.log_in(onboarding, route, now).await,
        };
        let ended_at = boot_now().map_err(not_sent)?;
        let token = match (answer, at_hand) {
            (Ok(new), _) => new,
            (Err(OnboardingError::Unanswered { .. }), Some(token)) => {
                Token { renew_at: ended_at.plus(RENEW_AGAIN), ..token }
            }
            (Err(error), _) => {
                *failed = Some((ended_at, error.clone()));
                return Err(error);
            }
        };
        *failed = None;
        Ok(locked(&self.token).insert(token).text.clone())
    }

    pub(super) fn forget(&self, refused: &str) {
        locked(&self.token).take_if(|token| token.text == refused);
    }

    /// One attempt; a second one when the refusal has taught us the time, which is why it was refused.
    async fn log_in(&self, onboarding: &Onboarding, route: &Route, now: BootInstant) -> Result<Token, OnboardingError> {
        let dated = issued_at(onboarding)?;
        match self.log_in_at(dated, onboarding, route, now).await {
            Err(OnboardingError::Refused { .. }) if is_other_time(issued_at(onboarding)?, dated) => {
                self.log_in_at(issued_at(onboarding)?, onboarding, route, now).await
            }
            done => done,
        }
    }

    async fn log_in_at(
        &self,
        issued_at: Timestamp,
        onboarding: &Onboarding,
        route: &Route,
        now: BootInstant,
    ) -> Result<Token, OnboardingError> {
        let address = onboarding.http.address(&format!("{BASE}/oauth2/token"));
        let claims = claims(&onboarding.device.id, &address, issued_at);
        let assertion = onboarding.key.jwt(&serde_json::to_vec(&claims).map_err(not_sent)?);
        let client = onboarding.http.client(route).map_err(not_sent)?;
        let request = client.post(&address).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        let answer: TokenResponse = parse(&onboarding.send(request.body(form(&assertion))).await?)?;
        let text = answer.access_token.as_bytes();
        let sendable = (1..=TOKEN_MAX).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic);
        if !sendable {
            let reason = "the token cannot be sent back: it is empty, too long, or not plain text".to_owned();
            return Err(OnboardingError::Unanswered { retry_after: None, reason });
        }
        let life = answer.expires_in.unwrap_or(LIFE_UNSAID);
        Ok(Token {
            text: answer.access_token,
            renew_at: now.plus(Duration::from_secs(life / 5 * 4)),
            ends_at: now.plus(Duration::from_secs(life)),
        })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time an assertion is dated with now.
fn issued_at(onboarding: &Onboarding) -> Result<Timestamp, OnboardingError> {
    let clock = onboarding.http.clock();
    let moment = clock.now().map_err(not_sent)?;
    Ok(better(moment.label, clock.at_the_server(moment.boot)))
}

/// Our time when it can be trusted, else the server's.
fn better(ours: Label, theirs: Option<Timestamp>) -> Timestamp {
    theirs.filter(|theirs| !ours.synced || is_other_time(*theirs, ours.wall)).unwrap_or(ours.wall)
}

/// Whether two times are further apart than the server lets pass.
fn is_other_time(one: Timestamp, other: Timestamp) -> bool {
    one.duration_since(other).abs() > SKEW_MAX
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
        assert_eq!(better(right, None), wall);
        assert_eq!(better(right, Some(wall + near)), wall);
        assert_eq!(better(right, Some(wall + far)), wall + far);
        assert_eq!(better(wrong, Some(wall + near)), wall + near);
        assert_eq!(better(wrong, None), wall);
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
