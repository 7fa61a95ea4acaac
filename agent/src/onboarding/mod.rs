//! Register, log in, bind SIMs, fetch the plan, wait for commands: one attempt each, and a clear answer.

mod key;
mod token;
mod types;

use std::time::Duration;

use reqwest::RequestBuilder;
use reqwest::header::{CONTENT_TYPE, IF_NONE_MATCH};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::config::Device;
use crate::reporter::{Http, Problem, Reply, Route, clipped};

use token::Login;

pub use key::DeviceKey;
pub use types::{Binding, CommandKind, CommandNumber, Modem, Package, Plan, ServerCommand};

/// Where onboarding is found at the server.
const BASE: &str = "/onboarding/v1";

/// Why a call came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OnboardingError {
    /// No usable answer: refused, timed out, 5xx, garbage. Worth another try.
    #[error("the server does not answer: {reason}")]
    Unanswered {
        /// How long the server asked to wait, if it did.
        retry_after: Option<Duration>,
        /// For the log.
        reason: String,
    },
    /// A definite no.
    #[error("the server refuses ({status} {cause}): {detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The problem document's `cause`, or OAuth's `error`.
        cause: String,
        /// What the server says about it; may be empty.
        detail: String,
    },
}

/// What a question for the plan comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanAnswer {
    /// It is the one that was known.
    Unchanged,
    /// It is another one.
    Changed {
        /// The plan.
        plan: Plan,
        /// To be given with the next question.
        etag: Option<String>,
    },
}

/// The client of `/onboarding/v1`.
#[derive(Debug)]
pub struct Onboarding {
    http: Http,
    device: Device,
    key: DeviceKey,
    login: Login,
}

impl Onboarding {
    /// A client for a device and its key.
    #[must_use]
    pub fn new(http: Http, device: Device, key: DeviceKey) -> Self {
        Self { http, device, key, login: Login::default() }
    }

    /// Tells the server of the device. The same again is fine, and needs no claim code.
    pub async fn register(
        &self,
        route: &Route,
        modems: &[Modem],
        claim_code: Option<&str>,
    ) -> Result<(), OnboardingError> {
        let x = self.key.public_x();
        let body = RegisterRequest {
            device_id: &self.device.id,
            nf_instance_id: self.device.nf_instance_id,
            serial: &self.device.serial,
            model: &self.device.model,
            agent_version: env!("CARGO_PKG_VERSION"),
            modems,
            public_key: PublicKey { kty: "OKP", crv: "Ed25519", x: &x },
            claim_code,
        };
        let client = self.http.client(route).map_err(not_sent)?;
        let request = client.post(self.http.address(&format!("{BASE}/devices")));
        self.send(with_json(request, &body)?).await.map(drop)
    }

    /// A bearer token: the one at hand while it lasts, else a new one. One attempt.
    pub async fn token(&self, route: &Route) -> Result<String, OnboardingError> {
        self.login.token(self, route).await
    }

    /// A server did not accept this token: the next call logs in again.
    pub fn forget_token(&self, refused: &str) {
        self.login.forget(refused);
    }

    /// The SIM for a slot. The same slot again answers the same SIM.
    pub async fn bind(&self, route: &Route, modem: &Modem) -> Result<Binding, OnboardingError> {
        let client = self.http.client(route).map_err(not_sent)?;
        let request = with_json(client.post(self.device_address("bindings")), modem)?;
        let binding: Binding = parse(&self.send_authorised(route, request).await?)?;
        match binding.what_is_wrong(&modem.slot) {
            None => Ok(binding),
            Some(reason) => Err(OnboardingError::Unanswered { retry_after: None, reason }),
        }
    }

    /// The plan, unless it is the one with this tag.
    pub async fn plan(&self, route: &Route, etag: Option<&str>) -> Result<PlanAnswer, OnboardingError> {
        let client = self.http.client(route).map_err(not_sent)?;
        let mut request = client.get(self.device_address("plan"));
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let reply = self.send_authorised(route, request).await?;
        match reply.status {
            304 => Ok(PlanAnswer::Unchanged),
            _ => Ok(PlanAnswer::Changed { plan: parse(&reply)?, etag: reply.etag }),
        }
    }

    /// Commands after a number, which acknowledges that one and all before it. Waits at the server for at most
    /// `wait` (0 to 60 s) when there is none.
    pub async fn commands(
        &self,
        route: &Route,
        after: CommandNumber,
        wait: Duration,
    ) -> Result<Vec<ServerCommand>, OnboardingError> {
        let client = self.http.client(route).map_err(not_sent)?;
        let wait = wait.as_secs().min(60);
        let query = format!("commands?after={}&wait={wait}", after.get());
        // The wait at the server is wanted, and is not part of what an answer may take.
        let timeout = self.http.answer_timeout() + Duration::from_secs(wait);
        let request = client.get(self.device_address(&query)).timeout(timeout);
        let reply = self.send_authorised(route, request).await?;
        parse::<Commands>(&reply).map(|answer| answer.commands)
    }

    fn device_address(&self, rest: &str) -> String {
        self.http.address(&format!("{BASE}/devices/{}/{rest}", self.device.id))
    }

    async fn send_authorised(&self, route: &Route, request: RequestBuilder) -> Result<Reply, OnboardingError> {
        let token = self.token(route).await?;
        let answer = self.send(request.bearer_auth(&token)).await;
        if let Err(OnboardingError::Refused { status: 401, .. }) = &answer {
            self.forget_token(&token);
        }
        answer
    }

    /// Sends once.
    async fn send(&self, request: RequestBuilder) -> Result<Reply, OnboardingError> {
        let unanswered = |retry_after, reason| OnboardingError::Unanswered { retry_after, reason };
        let reply = self.http.exchange(request).await.map_err(|failure| unanswered(None, failure.into_reason()))?;
        match reply.status {
            200 | 201 | 204 | 304 => Ok(reply),
            status @ (400..=407 | 409..=428 | 430..=499) => {
                let mut problem = Problem::of(&reply.body);
                let detail = problem.detail.take().or(problem.error_description.take()).unwrap_or_default();
                Err(OnboardingError::Refused { status, cause: problem.cause(status), detail })
            }
            status => {
                let cause = Problem::of(&reply.body).cause(status);
                Err(unanswered(reply.retry_after, format!("HTTP {status}: {cause}")))
            }
        }
    }
}

pub(crate) fn not_sent(error: impl Into<anyhow::Error>) -> OnboardingError {
    OnboardingError::Unanswered { retry_after: None, reason: format!("not sent: {:#}", error.into()) }
}

fn with_json(request: RequestBuilder, body: &impl Serialize) -> Result<RequestBuilder, OnboardingError> {
    let body = serde_json::to_vec(body).map_err(not_sent)?;
    Ok(request.header(CONTENT_TYPE, "application/json").body(body))
}

fn parse<T: DeserializeOwned>(reply: &Reply) -> Result<T, OnboardingError> {
    serde_json::from_slice(&reply.body).map_err(|error| OnboardingError::Unanswered {
        retry_after: None,
        reason: format!("HTTP {}: the answer cannot be read: {}", reply.status, clipped(&error.to_string())),
    })
}

/// Reads a body as each of the server's answers, for the fuzzer; a plan also as it is kept in the ledger.
#[cfg(fuzzing)]
pub fn read_answers(body: &[u8]) {
    let reply = Reply { status: 200, body: body.to_vec(), ..Reply::default() };
    if let Ok(binding) = parse::<Binding>(&reply) {
        let _ = binding.what_is_wrong("wwan0");
    }
    if let Ok(plan) = parse::<Plan>(&reply) {
        let kept = serde_json::to_vec(&plan).expect("a plan can be written");
        let again: Plan = serde_json::from_slice(&kept).expect("a plan that was written can be read");
        assert_eq!(again, plan);
    }
    let _ = parse::<Commands>(&reply);
    let _ = Problem::of(body);
}

#[derive(Serialize)]
struct RegisterRequest<'a> {
    #[serde(rename = "deviceId")]
    device_id: &'a str,
    #[serde(rename = "nfInstanceId")]
    nf_instance_id: Uuid,
    serial: &'a str,
    model: &'a str,
    #[serde(rename = "agentVersion")]
    agent_version: &'static str,
    modems: &'a [Modem],
    #[serde(rename = "publicKey")]
    public_key: PublicKey<'a>,
    #[serde(rename = "claimCode", skip_serializing_if = "Option::is_none")]
    claim_code: Option<&'a str>,
}

#[derive(Serialize)]
struct PublicKey<'a> {
    kty: &'static str,
    crv: &'static str,
    x: &'a str,
}

#[derive(Deserialize)]
struct Commands {
    commands: Vec<ServerCommand>,
}

#[cfg(test)]
mod tests;
