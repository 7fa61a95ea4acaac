//! Which path answers what.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};

use super::ask::{Asker, NotNow, Question};
use super::status::Status;

/// The path of the status document.
pub(super) const STATUS_PATH: &str = "/api/v1/status";

/// What only looks: documents, each as it is now.
pub(super) fn looking(asker: Asker) -> Router {
    Router::new().route(STATUS_PATH, get(status)).with_state(asker)
}

async fn status(State(asker): State<Asker>) -> Result<Json<Status>, NotNow> {
    asker.ask(Question::Status).await.map(Json)
}
