//! From octets to a message and back; a member that does not fit is named by its path.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::problem::{InvalidParam, Problem};

/// Reads a message. One that does not fit is read once more, with an eye on where it is.
pub(crate) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    if let Ok(message) = serde_json::from_slice(body) {
        return Ok(message);
    }
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let message = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| blame(&error))?;
    deserializer.end().map_err(|error| not_json(&error))?;
    Ok(message)
}

/// Reads a message from a document that was parsed before.
pub(crate) fn from_value<T: DeserializeOwned>(value: serde_json::Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| blame(&error))
}

/// Answers with a document.
pub(crate) fn answer<T: Serialize>(status: StatusCode, document: &T) -> Response {
    match serde_json::to_vec(document) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => Problem::from(error).into_response(),
    }
}

fn not_json(error: &serde_json::Error) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "INVALID_MSG_FORMAT", format!("the body is not JSON: {error}"))
}

fn blame(error: &serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let inner = error.inner();
    if matches!(inner.classify(), Category::Syntax | Category::Eof | Category::Io) {
        return not_json(inner);
    }
    let path = error.path().to_string();
    let said = inner.to_string();
    // serde names the place where a missing member was looked for, and the member in its words only.
    for (words, is_missing) in [("missing field `", true), ("unknown field `", false)] {
        if let Some(member) = said.strip_prefix(words).and_then(|rest| rest.split('`').next()) {
            let last = path.rsplit('.').next().unwrap_or_default();
            let param = match path.as_str() {
                "." => member.to_owned(),
                _ if last == member => path.clone(),
                parent => format!("{parent}.{member}"),
            };
            return if is_missing {
                Problem::missing(param)
            } else {
                Problem::incorrect(vec![InvalidParam::new(param, "no such member")])
            };
        }
    }
    let param = if path == "." { "(body)".to_owned() } else { path };
    Problem::incorrect(vec![InvalidParam::new(param, said)])
}
