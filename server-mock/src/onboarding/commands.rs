//! The long poll: a device waits for commands, because it cannot be called back.

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::json;
use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use super::auth;
use crate::app::{self, App};
use crate::json;
use crate::problem::{InvalidParam, Problem};
use crate::store::commands;

/// The longest wait, in seconds.
const LONGEST_WAIT: u64 = 60;
/// The wait where none is named, in seconds.
const USUAL_WAIT: u64 = 30;

pub(super) async fn commands(
    State(app): State<App>,
    Path(device): Path<String>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    auth::device(&app, &headers, &device).await?;
    let after: u32 = number(&query, "after", 0)?;
    let wait = Duration::from_secs(number(&query, "wait", USUAL_WAIT)?.min(LONGEST_WAIT));
    let mut changed = app.commands.subscribe();
    let mut stop = app.stop.clone();
    let end = tokio::time::sleep(wait);
    tokio::pin!(end);
    loop {
        let device = device.clone();
        let waiting = app.store.run(move |tx, _| commands::after(tx, &device, i64::from(after))).await;
        let waiting = waiting.map_err(|error: rusqlite::Error| Problem::from(error))?;
        let is_over = tokio::select! {
            biased;
            () = std::future::ready(()), if !waiting.is_empty() => true,
            () = &mut end => true,
            () = app::stopped(&mut stop) => true,
            changed = changed.changed() => changed.is_err(),
        };
        if is_over {
            return Ok(json::answer(StatusCode::OK, &json!({ "commands": waiting })));
        }
    }
}

fn number<T: FromStr>(query: &HashMap<String, String>, name: &str, usual: T) -> Result<T, Problem> {
    query.get(name).map_or(Ok(usual), |text| {
        text.parse().map_err(|_| Problem::incorrect(vec![InvalidParam::new(name, "not a number from 0")]))
    })
}
