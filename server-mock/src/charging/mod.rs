//! Charging: create, update, release and one-time events (TS 32.291).

mod answers;
mod engine;
mod handler;
mod validate;
pub mod wire;

pub(crate) use validate::is_imsi;

use axum::Router;
use axum::routing::post;

use crate::app::App;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/chargingdata", post(handler::create))
        .route("/chargingdata/{ref}/update", post(handler::update))
        .route("/chargingdata/{ref}/release", post(handler::release))
}
