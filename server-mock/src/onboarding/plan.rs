//! What was bought for the SIMs of a device.

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::auth;
use crate::app::App;
use crate::json;
use crate::problem::Problem;
use crate::store::{bindings, packages};

pub(super) async fn plan(
    State(app): State<App>,
    Path(device): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    auth::device(&app, &headers, &device).await?;
    let document = app
        .store
        .run(move |tx, _| {
            let mut entries = Vec::new();
            for binding in bindings::of_device(tx, &device)? {
                for package in packages::list(tx, Some(&binding.subscriber_identifier))? {
                    entries.push(package.plan_entry(tx)?);
                }
            }
            Ok::<_, Problem>(json!({ "deviceId": device, "packages": entries }))
        })
        .await?;
    let digest = auth::token_digest(&document.to_string());
    let tag = HeaderValue::try_from(format!("\"{}\"", URL_SAFE_NO_PAD.encode(&digest[..12])))
        .map_err(|_| Problem::failure("an entity tag cannot be written"))?;
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_known = known.split(',').any(|known| known.trim().trim_start_matches("W/").as_bytes() == tag.as_bytes());
    let mut response =
        if is_known { StatusCode::NOT_MODIFIED.into_response() } else { json::answer(StatusCode::OK, &document) };
    response.headers_mut().insert(header::ETAG, tag);
    Ok(response)
}
