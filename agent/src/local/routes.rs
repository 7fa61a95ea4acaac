//! Which path answers what.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;

use super::Desk;
use super::ask::{Asker, NotNow, Question};
use super::events::events;
use super::metrics::metrics;
use super::renewed::Renewed;
use super::status::Status;
use crate::ledger::Accounts;
use crate::usage::Wish;

/// The path of the status document.
pub(super) const STATUS_PATH: &str = "/api/v1/status";
/// The path of the usage document; what it is to show is in the query.
pub(super) const USAGE_PATH: &str = "/api/v1/usage";

/// The path of the ledger's account.
pub(crate) const LEDGER_PATH: &str = "/api/v1/ledger";
/// The path of the order to ask for more now.
pub(crate) const RENEW_PATH: &str = "/api/v1/renew";

/// The documents, each as it is now, and what may be asked to be done.
pub(super) fn api(desk: Desk) -> Router {
    Router::new()
        .route(STATUS_PATH, get(status))
        .route(USAGE_PATH, get(usage))
        .route(LEDGER_PATH, get(account))
        .route(RENEW_PATH, post(renew))
        .route("/api/v1/events", get(events))
        .route("/metrics", get(metrics))
        .with_state(desk)
}

async fn status(State(asker): State<Asker>) -> Result<Json<Status>, NotNow> {
    asker.ask(Question::Status).await.map(Json)
}

async fn account(State(asker): State<Asker>) -> Result<Json<Accounts>, NotNow> {
    asker.ask(Question::Account).await.map(Json)
}

/// Which link an order is about.
#[derive(Debug, Deserialize)]
struct About {
    /// Its name; all when left out.
    link: Option<String>,
}

async fn renew(State(asker): State<Asker>, Query(About { link }): Query<About>) -> Result<Json<Renewed>, NotNow> {
    asker.ask(|reply| Question::Renew(link, reply)).await.map(Json)
}

async fn usage(State(asker): State<Asker>, wish: Result<Query<Wish>, QueryRejection>) -> Response {
    let wish = match wish {
        Ok(Query(wish)) => wish,
        Err(wrong) => return (StatusCode::BAD_REQUEST, format!("{}\n", wrong.body_text())).into_response(),
    };
    match asker.ask(|reply| Question::Usage(wish, reply)).await {
        Ok(Ok(document)) => Json(document).into_response(),
        Ok(Err(untold)) => untold.into_response(),
        Err(not_now) => not_now.into_response(),
    }
}
