//! Answers as no server should give them: rewritten, redirected, without end, in drips, mangled, from another time.

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use jiff::fmt::rfc2822::DateTimePrinter;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::Duration;

use super::Rule;
use crate::app::take_body;
use crate::clock::Moment;

/// Octets of a huge answer: 256 times what an agent should read.
const HUGE: usize = 64 << 20;
/// What endless and huge answers are made of at a time.
const PIECE: usize = 16 << 10;
/// How long a slow answer rests between two octets.
const REST: Duration = Duration::from_millis(100);

/// The answer that the rule says, in place of any.
pub(super) fn canned(rule: &Rule) -> Response {
    let mut response = axum::Json(rule.body.clone().unwrap_or_default()).into_response();
    *response.status_mut() = rule.status.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or_default();
    relocate(&mut response, rule.location.as_deref());
    response
}

/// Sends the client elsewhere: by default to the very same place, where a client that follows is seen again.
pub(super) fn redirect(rule: &Rule, uri: &Uri) -> Response {
    let mut response = StatusCode::TEMPORARY_REDIRECT.into_response();
    let here = uri.to_string();
    relocate(&mut response, Some(rule.location.as_deref().unwrap_or(&here)));
    response
}

/// The answer with the rule's patch and location in it.
pub(super) async fn rewritten(rule: &Rule, response: Response) -> Response {
    let patch = rule.patch.clone().unwrap_or_else(|| json!({}));
    let mut response = with_json(response, |answer| merge(answer, &patch)).await;
    relocate(&mut response, rule.location.as_deref());
    response
}

/// The answer as a server would date it whose clock is so many seconds ahead.
pub(super) async fn skewed(rule: &Rule, now: Moment, response: Response) -> Response {
    let skew = SignedDuration::from_secs(rule.skew_seconds.unwrap_or_default());
    let now = Timestamp::from_millisecond(now.millis()).unwrap_or_default();
    let now = now.checked_add(skew).unwrap_or(now);
    let mut response = with_json(response, |answer| {
        if let Some(stamp) = answer.get_mut("invocationTimeStamp") {
            *stamp = format!("{now:.3}").into();
        }
    })
    .await;
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&now).ok();
    if let Some(date) = date.and_then(|date| HeaderValue::try_from(date).ok()) {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}

/// So many octets, and the length told in advance.
pub(super) fn huge() -> Response {
    let pieces = futures::stream::iter((0..HUGE / PIECE).map(|_| Ok::<_, Infallible>(blanks())));
    let mut response = json_response(Body::from_stream(pieces));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(HUGE));
    response
}

/// Octets without end, and no length.
pub(super) fn endless() -> Response {
    json_response(Body::from_stream(futures::stream::repeat_with(|| Ok::<_, Infallible>(blanks()))))
}

/// An octet now and then, for ever.
pub(super) fn slow() -> Response {
    let drips = futures::stream::unfold((), |()| async {
        tokio::time::sleep(REST).await;
        Some((Ok::<_, Infallible>(Bytes::from_static(b" ")), ()))
    });
    json_response(Body::from_stream(drips))
}

/// The answer, broken in another way each time.
pub(super) async fn malformed(rule: &Rule, response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    let text = take_body(body).await;
    let answer = serde_json::from_slice(&text).unwrap_or_else(|_| json!({ "invocationSequenceNumber": 0 }));
    head.headers.remove(header::CONTENT_LENGTH);
    if head.status == StatusCode::NO_CONTENT {
        head.status = StatusCode::OK;
    }
    Response::from_parts(head, Body::from(mangled(&answer, rule.fired)))
}

fn mangled(answer: &Value, which: u32) -> Vec<u8> {
    let text = answer.to_string();
    let each = |change: fn(&mut Value)| {
        let mut answer = answer.clone();
        leaves(&mut answer, change);
        answer.to_string().into_bytes()
    };
    match which % 8 {
        0 => text.into_bytes()[..answer.to_string().len() / 2].to_vec(),
        1 => each(|leaf| *leaf = if leaf.is_number() { leaf.to_string().into() } else { json!(7) }),
        2 => each(|leaf| {
            if leaf.is_number() {
                *leaf = json!(-1);
            }
        }),
        3 => each(|leaf| {
            if leaf.is_number() {
                *leaf = json!(1e300);
            }
        }),
        4 => "[".repeat(100_000).into_bytes(),
        5 => [text.as_bytes(), text.as_bytes()].concat(),
        6 => [text.as_bytes(), b"\xff\xfe"].concat(),
        _ => b"null".to_vec(),
    }
}

/// Changes everything that is no object and no list.
fn leaves(value: &mut Value, change: fn(&mut Value)) {
    match value {
        Value::Object(members) => members.values_mut().for_each(|member| leaves(member, change)),
        Value::Array(items) => items.iter_mut().for_each(|item| leaves(item, change)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => change(value),
    }
}

/// RFC 7396; an object that meets a list is merged into each item of it.
fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Array(items), Value::Object(_)) => items.iter_mut().for_each(|item| merge(item, patch)),
        (target, Value::Object(changes)) => {
            if !target.is_object() {
                *target = json!({});
            }
            for (name, change) in changes {
                match target.as_object_mut() {
                    Some(members) if change.is_null() => drop(members.remove(name)),
                    Some(members) => merge(members.entry(name.as_str()).or_insert(Value::Null), change),
                    None => {}
                }
            }
        }
        (target, Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            *target = patch.clone();
        }
    }
}

async fn with_json(response: Response, change: impl FnOnce(&mut Value)) -> Response {
    let (mut head, body) = response.into_parts();
    let mut text = take_body(body).await.to_vec();
    if let Ok(mut answer) = serde_json::from_slice::<Value>(&text) {
        change(&mut answer);
        text = answer.to_string().into_bytes();
        head.headers.remove(header::CONTENT_LENGTH);
    }
    Response::from_parts(head, Body::from(text))
}

/// Another `Location`; an empty one takes it away.
fn relocate(response: &mut Response, location: Option<&str>) {
    match location {
        None => {}
        Some("") => drop(response.headers_mut().remove(header::LOCATION)),
        Some(location) => {
            if let Ok(location) = HeaderValue::try_from(location) {
                response.headers_mut().insert(header::LOCATION, location);
            }
        }
    }
}

fn json_response(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn blanks() -> Bytes {
    Bytes::from_static(&[b' '; PIECE])
}
