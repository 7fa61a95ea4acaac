//! Views of the books: packages, sessions, ledger entries, sums, devices.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use rusqlite::Transaction;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::clock::Moment;
use crate::json;
use crate::problem::{InvalidParam, Problem};
use crate::store::ledger::{EntryKind, Filter};
use crate::store::{bindings, ledger, packages, reservations};
use crate::units::{ChargingId, Octets, SequenceNumber};

const USUAL_LIMIT: u32 = 1000;
const LARGEST_LIMIT: u32 = 10_000;

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Asked {
    subscriber: Option<String>,
    kind: Option<String>,
    after: Option<i64>,
    limit: Option<u32>,
}

pub(super) async fn packages(State(app): State<App>, Query(asked): Query<Asked>) -> Result<Response, Problem> {
    let entries = app
        .store
        .run(move |tx, _| {
            let found = packages::list(tx, asked.subscriber.as_deref())?;
            let entries: rusqlite::Result<Vec<_>> = found.iter().map(|package| package.admin_entry(tx)).collect();
            Ok::<_, Problem>(entries?)
        })
        .await?;
    Ok(json::answer(StatusCode::OK, &json!({ "packages": entries })))
}

pub(super) async fn ledger(State(app): State<App>, Query(asked): Query<Asked>) -> Result<Response, Problem> {
    if let Some(kind) = &asked.kind
        && EntryKind::ALL.iter().all(|known| known.name() != kind)
    {
        let names: Vec<_> = EntryKind::ALL.iter().map(|kind| kind.name()).collect();
        let reason = format!("must be one of {}", names.join(", "));
        return Err(Problem::incorrect(vec![InvalidParam::new("kind", reason)]));
    }
    let filter = Filter {
        subscriber: asked.subscriber,
        kind: asked.kind,
        after: asked.after.unwrap_or_default(),
        limit: asked.limit.unwrap_or(USUAL_LIMIT).clamp(1, LARGEST_LIMIT),
    };
    let entries = app.store.run::<_, rusqlite::Error, _>(move |tx, _| ledger::list(tx, &filter)).await?;
    Ok(json::answer(StatusCode::OK, &json!({ "entries": entries })))
}

pub(super) async fn stats(State(app): State<App>) -> Result<Response, Problem> {
    let sums = app.store.run::<_, rusqlite::Error, _>(|tx, _| ledger::sums(tx)).await?;
    Ok(json::answer(StatusCode::OK, &json!({ "subscribers": sums })))
}

pub(super) async fn sessions(State(app): State<App>, Query(asked): Query<Asked>) -> Result<Response, Problem> {
    let sessions =
        app.store.run::<_, rusqlite::Error, _>(move |tx, _| list_sessions(tx, asked.subscriber.as_deref())).await?;
    Ok(json::answer(StatusCode::OK, &json!({ "sessions": sessions })))
}

pub(super) async fn devices(State(app): State<App>) -> Result<Response, Problem> {
    let devices = app.store.run(|tx, _| list_devices(tx)).await?;
    Ok(json::answer(StatusCode::OK, &json!({ "devices": devices })))
}

fn list_sessions(tx: &Transaction<'_>, subscriber: Option<&str>) -> rusqlite::Result<Vec<Value>> {
    let mut sessions: Vec<Value> = tx
        .prepare(
            "SELECT s.ref, s.nf_name, s.subscriber, s.charging_id, s.created_at, s.released_at, s.last_sequence_number,
                    (SELECT coalesce(sum(total), 0) FROM ledger l WHERE l.ref = s.ref AND l.kind = 'debit')
             FROM sessions s WHERE ?1 IS NULL OR s.subscriber = ?1 ORDER BY s.rowid",
        )?
        .query_map([subscriber], |row| {
            let released_at: Option<i64> = row.get(5)?;
            Ok(json!({
                "ref": row.get::<_, String>(0)?,
                "nFName": row.get::<_, String>(1)?,
                "subscriberIdentifier": row.get::<_, String>(2)?,
                "chargingId": row.get::<_, ChargingId>(3)?,
                "state": if released_at.is_some() { "released" } else { "open" },
                "createdAt": Moment::from_millis(row.get(4)?),
                "releasedAt": released_at.map(Moment::from_millis),
                "lastSequenceNumber": row.get::<_, SequenceNumber>(6)?,
                "debitedVolume": row.get::<_, Octets>(7)?,
            }))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for session in &mut sessions {
        let held = reservations::of_session(tx, session["ref"].as_str().unwrap_or_default())?;
        session["reservations"] = held
            .into_iter()
            .map(|(group, octets, end)| json!({ "ratingGroup": group, "octets": octets, "expiresAt": end }))
            .collect();
    }
    Ok(sessions)
}

fn list_devices(tx: &Transaction<'_>) -> Result<Vec<Value>, Problem> {
    let found: Vec<(String, String, i64)> = tx
        .prepare("SELECT device_id, request, registered_at FROM devices ORDER BY device_id")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<rusqlite::Result<_>>()?;
    found
        .into_iter()
        .map(|(device, request, registered_at)| {
            let mut document: Value = serde_json::from_str(&request)?;
            document["registeredAt"] = Moment::from_millis(registered_at).to_string().into();
            document["bindings"] = serde_json::to_value(bindings::of_device(tx, &device)?)?;
            Ok(document)
        })
        .collect()
}
