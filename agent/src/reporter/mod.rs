//! One attempt, one answer, over the link it is told. Never tries again by itself: that is the core's decision.

mod decode;
mod http;
mod names;
mod tls;
mod wire;

use anyhow::Result;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use uuid::Uuid;

use crate::drill::{self, Point};
use crate::quota::{MessageKey, Operation, Outcome};
use crate::units::SessionRef;

pub use decode::{Expected, decode};
pub(crate) use decode::{Problem, clipped, failure_handling, final_unit_action};
pub(crate) use http::Failure;
pub use http::{Connections, Http, HttpSettings, Reply, Route, use_ring};
pub use names::KnownAddresses;
pub use tls::Expiry;
pub use wire::{Identity, Interval, SealInput, as_retransmission, encode};

/// Reads two headers of an answer, for the fuzzer: how long to wait, and the date it may be set against.
#[cfg(fuzzing)]
#[must_use]
pub fn pause_asked(retry_after: &str, date: &str) -> Option<std::time::Duration> {
    http::retry_after(retry_after, http::http_date(date))
}

/// Where charging is found at the server.
const BASE: &str = "/nchf-convergedcharging/v3/chargingdata";

/// One sealed message and the way it is to go.
#[derive(Clone, Debug)]
pub struct Attempt<'a> {
    /// What it does.
    pub operation: Operation,
    /// Its name.
    pub key: MessageKey,
    /// The sealed octets.
    pub body: &'a [u8],
    /// The server's name for the session; needed for an update and a release.
    pub session_ref: Option<&'a SessionRef>,
    /// Whether this is the first attempt.
    pub kind: AttemptKind,
    /// The bearer token, where the server wants one.
    pub token: Option<&'a str>,
    /// The way to the server.
    pub route: &'a Route,
}

/// Whether a message was attempted before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptKind {
    /// The sealed octets go as they are.
    First,
    /// They go with `retransmissionIndicator`.
    Retransmission,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempted {
    /// For the core.
    pub outcome: Outcome,
    /// The server did not accept the token (401): log in again before the next attempt.
    pub token_refused: bool,
}

/// Sends sealed messages.
#[derive(Clone, Debug)]
pub struct Reporter {
    http: Http,
    nf_name: Uuid,
}

impl Reporter {
    /// A reporter for the device `nf_name` (its `nfInstanceId`).
    #[must_use]
    pub const fn new(http: Http, nf_name: Uuid) -> Self {
        Self { http, nf_name }
    }

    /// Sends one message once, and says what came of it.
    pub async fn attempt(&self, attempt: Attempt<'_>) -> Attempted {
        match self.exchange(&attempt).await {
            Ok((expected, reply)) => {
                Attempted { outcome: decode(&expected, &reply), token_refused: reply.status == 401 }
            }
            Err(Failure::NotSent(reason)) => {
                Attempted { outcome: Outcome::NotTaken { retry_after: None, reason }, token_refused: false }
            }
            Err(Failure::Broken(reason)) => {
                Attempted { outcome: Outcome::Unanswered { retry_after: None, reason }, token_refused: false }
            }
        }
    }

    async fn exchange(&self, attempt: &Attempt<'_>) -> Result<(Expected, Reply), Failure> {
        let worded = |error: anyhow::Error| Failure::NotSent(format!("not sent: {error:#}"));
        let (rating_group, requested) = wire::asked(attempt.body).map_err(worded)?;
        let expected = Expected { operation: attempt.operation, number: attempt.key.number, rating_group, requested };
        let path = path(attempt)
            .ok_or_else(|| Failure::NotSent("not sent: the server has not named the session".to_owned()))?;
        let body = match attempt.kind {
            AttemptKind::First => attempt.body.to_vec(),
            AttemptKind::Retransmission => as_retransmission(attempt.body),
        };
        let mut request = self
            .http
            .client(attempt.route)
            .map_err(worded)?
            .post(self.http.address(&path))
            .header(CONTENT_TYPE, "application/json")
            .header("Idempotency-Key", self.idempotency_key(attempt))
            .body(body);
        if let Some(token) = attempt.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        drill::pass(Point::BeforeSend);
        let reply = self.http.exchange(request).await?;
        drill::pass(Point::Replied);
        Ok((expected, reply))
    }

    /// `<nFName>/<ref, or chargingId for create and event>/<number>`.
    fn idempotency_key(&self, attempt: &Attempt<'_>) -> String {
        let session = match (attempt.operation, attempt.session_ref) {
            (Operation::Update | Operation::Release, Some(session_ref)) => session_ref.to_string(),
            (Operation::Create | Operation::Event | Operation::Update | Operation::Release, _) => {
                attempt.key.session.to_string()
            }
        };
        format!("{}/{session}/{}", self.nf_name, attempt.key.number)
    }
}

/// The path of an operation; `None` when it needs the server's name for the session and there is none.
fn path(attempt: &Attempt<'_>) -> Option<String> {
    match attempt.operation {
        Operation::Create | Operation::Event => Some(BASE.to_owned()),
        Operation::Update => Some(format!("{BASE}/{}/update", attempt.session_ref?)),
        Operation::Release => Some(format!("{BASE}/{}/release", attempt.session_ref?)),
    }
}

#[cfg(test)]
pub(crate) mod tests;
