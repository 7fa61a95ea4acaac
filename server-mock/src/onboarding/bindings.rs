//! A device binds a SIM of the pool to a modem slot, and gives it back.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use rusqlite::params;

use super::auth;
use super::register::is_slot;
use super::wire::BindingRequest;
use crate::app::App;
use crate::json;
use crate::problem::{InvalidParam, Problem};
use crate::store::bindings;

pub(super) async fn bind(
    State(app): State<App>,
    Path(device): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    auth::device(&app, &headers, &device).await?;
    let request: BindingRequest = json::read(&body)?;
    if !is_slot(&request.slot) {
        return Err(Problem::incorrect(vec![InvalidParam::new("slot", "not 1 to 64 characters")]));
    }
    let binding = app
        .store
        .run(move |tx, _| {
            let BindingRequest { slot, iccid, imei: _ } = &request;
            match bindings::of_slot(tx, &device, slot)? {
                Some(bound) if iccid.as_ref().is_none_or(|asked| *asked == bound.iccid) => Ok(bound),
                Some(bound) => Err(Problem::conflict("SLOT_BOUND", format!("slot {slot} holds SIM {}", bound.iccid))),
                None => bindings::bind(tx, &device, slot, iccid.as_deref()),
            }
        })
        .await?;
    Ok(json::answer(StatusCode::CREATED, &binding))
}

pub(super) async fn unbind(
    State(app): State<App>,
    Path((device, binding)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    auth::device(&app, &headers, &device).await?;
    app.store
        .run(move |tx, _| {
            let gone = tx.execute("DELETE FROM bindings WHERE id = ?1 AND device_id = ?2", params![binding, device])?;
            if gone == 1 {
                Ok(StatusCode::NO_CONTENT)
            } else {
                Err(Problem::not_found("BINDING_NOT_FOUND", format!("{device} has no binding {binding}")))
            }
        })
        .await
}
