//! Refusals, as RFC 9457 problem documents with 3GPP's `cause` (TS 29.571 `ProblemDetails`).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// A problem document. Whatever answers with one has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The status in words.
    pub title: String,
    /// The HTTP status, 400 to 599.
    pub status: u16,
    /// What went wrong, for a person.
    pub detail: String,
    /// What went wrong, for a program.
    pub cause: String,
    /// The members that are to blame.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub invalid_params: Vec<InvalidParam>,
}

/// A member that is to blame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvalidParam {
    /// The member's path in the message.
    pub param: String,
    /// What is wrong with it.
    pub reason: String,
}

impl InvalidParam {
    /// Blames a member.
    pub fn new(param: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { param: param.into(), reason: reason.into() }
    }
}

impl Problem {
    pub(crate) fn new(status: StatusCode, cause: &str, detail: impl Into<String>) -> Self {
        Self {
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            cause: cause.to_owned(),
            invalid_params: Vec::new(),
        }
    }

    pub(crate) fn missing(param: impl Into<String>) -> Self {
        let mut problem =
            Self::new(StatusCode::BAD_REQUEST, "MANDATORY_IE_MISSING", "a member that must be there is not");
        problem.invalid_params.push(InvalidParam::new(param, "missing"));
        problem
    }

    pub(crate) fn incorrect(params: Vec<InvalidParam>) -> Self {
        let detail = "a member has a value that is not allowed";
        let mut problem = Self::new(StatusCode::BAD_REQUEST, "MANDATORY_IE_INCORRECT", detail);
        problem.invalid_params = params;
        problem
    }

    pub(crate) fn not_found(cause: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, cause, detail)
    }

    pub(crate) fn conflict(cause: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, cause, detail)
    }

    pub(crate) fn forbidden(cause: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, cause, detail)
    }

    pub(crate) fn failure(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "SYSTEM_FAILURE", detail)
    }
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        tracing::error!(%error, "the database refused");
        Self::failure("the database refused")
    }
}

impl From<serde_json::Error> for Problem {
    fn from(error: serde_json::Error) -> Self {
        tracing::error!(%error, "a stored document does not parse");
        Self::failure("a stored document does not parse")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
