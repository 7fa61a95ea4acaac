//! Fault switches: the server misbehaves on request, the same way each time. For tests and demonstrations.

mod answers;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::app::{App, Hangup, take_body};
use crate::problem::{InvalidParam, Problem};
use crate::units::Seconds;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Create,
    Update,
    Release,
    Token,
    Register,
    Binding,
    Plan,
    Commands,
    Any,
}

/// A rule: which requests, how often, and what goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Rule {
    pub(crate) kind: Kind,
    pub(crate) fault: Fault,
    /// Matching requests to let pass first.
    #[serde(default)]
    after: u32,
    /// How often it strikes.
    #[serde(default = "once")]
    times: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delay_ms: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after: Option<Seconds>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    patch: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    skew_seconds: Option<i64>,
    /// Matching requests that met this rule.
    #[serde(default, skip_deserializing)]
    seen: u32,
    /// How often it struck.
    #[serde(default, skip_deserializing)]
    fired: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fault {
    DropRequest,
    DropAnswer,
    Duplicate,
    DelayMs,
    Status,
    Garbage,
    WrongSequence,
    Restart,
    Answer,
    Rewrite,
    Redirect,
    Huge,
    Endless,
    Slow,
    Malformed,
    Skew,
}

/// The document of `/admin/v1/faults`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rules {
    pub(crate) rules: Vec<Rule>,
}

/// The rules in force.
#[derive(Default)]
pub(crate) struct Faults(Mutex<Rules>);

impl Kind {
    /// The kind of a request, if it is one that faults can strike.
    pub(crate) fn of(method: &Method, path: &str) -> Option<Self> {
        if let Some(rest) = path.strip_prefix("/nchf-convergedcharging/v3/chargingdata") {
            let last = rest.rsplit('/').next().unwrap_or_default();
            return match (rest, last) {
                ("", _) => Some(Self::Create),
                (_, "update") => Some(Self::Update),
                (_, "release") => Some(Self::Release),
                _ => None,
            };
        }
        let rest = path.strip_prefix("/onboarding/v1/")?;
        match rest.split('/').collect::<Vec<_>>().as_slice() {
            ["devices"] => Some(Self::Register),
            ["oauth2", "token"] => Some(Self::Token),
            ["devices", _, "bindings"] if method == Method::POST => Some(Self::Binding),
            ["devices", _, "bindings", _] => Some(Self::Binding),
            ["devices", _, "plan"] => Some(Self::Plan),
            ["devices", _, "commands"] => Some(Self::Commands),
            _ => None,
        }
    }

    /// Its name in rules and recordings.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Release => "release",
            Self::Token => "token",
            Self::Register => "register",
            Self::Binding => "binding",
            Self::Plan => "plan",
            Self::Commands => "commands",
            Self::Any => "any",
        }
    }
}

impl Rule {
    /// What is wrong with this rule, if anything.
    fn check(&self, index: usize) -> Option<InvalidParam> {
        let at = |member: &str| format!("rules[{index}].{member}");
        match self.fault {
            Fault::DelayMs if self.delay_ms.is_none() => Some(InvalidParam::new(at("delayMs"), "missing")),
            Fault::Status if !self.status.is_some_and(|status| status == 429 || (500..=599).contains(&status)) => {
                Some(InvalidParam::new(at("status"), "must be 429 or 500 to 599"))
            }
            Fault::Answer if !self.status.is_some_and(|status| (200..=599).contains(&status)) => {
                Some(InvalidParam::new(at("status"), "must be 200 to 599"))
            }
            Fault::Rewrite if self.patch.is_none() && self.location.is_none() => {
                Some(InvalidParam::new(at("patch"), "missing, and there is no location either"))
            }
            Fault::Skew if self.skew_seconds.is_none() => Some(InvalidParam::new(at("skewSeconds"), "missing")),
            Fault::WrongSequence if !matches!(self.kind, Kind::Create | Kind::Update) => {
                Some(InvalidParam::new(at("kind"), "only create and update answer with a sequence number"))
            }
            _ => None,
        }
    }
}

impl Rules {
    /// Refuses rules that could never strike.
    pub(crate) fn check(&self, can_restart: bool) -> Result<(), Problem> {
        let mut wrong: Vec<_> = self.rules.iter().enumerate().filter_map(|(index, rule)| rule.check(index)).collect();
        for (index, rule) in self.rules.iter().enumerate() {
            if rule.fault == Fault::Restart && !can_restart {
                let reason =
                    "a restart would lose books that are kept in memory; start the server with a database file";
                wrong.push(InvalidParam::new(format!("rules[{index}].fault"), reason));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(Problem::incorrect(wrong)) }
    }
}

impl Faults {
    pub(crate) fn get(&self) -> Rules {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set(&self, rules: Rules) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// The rule that strikes this request. Every rule of its kind that comes before counts it.
    fn strike(&self, kind: Kind) -> Option<Rule> {
        let mut rules = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for rule in rules.rules.iter_mut().filter(|rule| rule.kind == kind || rule.kind == Kind::Any) {
            rule.seen += 1;
            if rule.seen > rule.after && rule.fired < rule.times {
                rule.fired += 1;
                return Some(rule.clone());
            }
        }
        None
    }
}

/// Lets the rule that is due strike.
pub(crate) async fn layer(
    State(app): State<App>,
    Extension(hangup): Extension<Hangup>,
    request: Request,
    next: Next,
) -> Response {
    let Some(rule) = Kind::of(request.method(), request.uri().path()).and_then(|kind| app.faults.strike(kind)) else {
        return next.run(request).await;
    };
    tracing::warn!(kind = rule.kind.name(), fault = ?rule.fault, "a fault strikes");
    match rule.fault {
        Fault::DropRequest => hangup.hang_up().await,
        Fault::DropAnswer => {
            next.run(request).await;
            hangup.hang_up().await
        }
        Fault::Duplicate => twice(request, next).await,
        Fault::DelayMs => {
            tokio::time::sleep(Duration::from_millis(u64::from(rule.delay_ms.unwrap_or_default()))).await;
            next.run(request).await
        }
        Fault::Status => refuse(&rule),
        Fault::Garbage => {
            next.run(request).await;
            (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], "<html>not JSON").into_response()
        }
        Fault::WrongSequence => wrong_sequence(next.run(request).await).await,
        Fault::Answer => answers::canned(&rule),
        Fault::Rewrite => answers::rewritten(&rule, work(request, next).await).await,
        Fault::Redirect => answers::redirect(&rule, request.uri()),
        Fault::Huge => {
            work(request, next).await;
            answers::huge()
        }
        Fault::Endless => {
            work(request, next).await;
            answers::endless()
        }
        Fault::Slow => {
            work(request, next).await;
            answers::slow()
        }
        Fault::Malformed => answers::malformed(&rule, work(request, next).await).await,
        Fault::Skew => answers::skewed(&rule, app.options.clock.now(), work(request, next).await).await,
        Fault::Restart => match app.restart().await {
            Ok(()) => hangup.hang_up().await,
            Err(problem) => problem.into_response(),
        },
    }
}

/// Does the work; waiting for commands is none that could go wrong.
async fn work(request: Request, next: Next) -> Response {
    if Kind::of(request.method(), request.uri().path()) == Some(Kind::Commands) {
        return axum::Json(json!({ "commands": [] })).into_response();
    }
    next.run(request).await
}

async fn twice(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let message = take_body(body).await;
    next.clone().run(Request::from_parts(head.clone(), Body::from(message.clone()))).await;
    next.run(Request::from_parts(head, Body::from(message))).await
}

fn refuse(rule: &Rule) -> Response {
    let status =
        rule.status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let mut response = Problem::new(status, "NF_CONGESTION", "a fault switch is on").into_response();
    if let Some(seconds) = rule.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds.0));
    }
    response
}

async fn wrong_sequence(response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    let mut text = take_body(body).await.to_vec();
    if let Ok(mut answer) = serde_json::from_slice::<Value>(&text)
        && let Some(number) = answer.get("invocationSequenceNumber").and_then(Value::as_u64)
    {
        answer["invocationSequenceNumber"] = (number + 1).into();
        text = answer.to_string().into_bytes();
        head.headers.remove(header::CONTENT_LENGTH);
    }
    Response::from_parts(head, Body::from(text))
}

fn once() -> u32 {
    1
}
