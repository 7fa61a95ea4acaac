//! Onboarding: registration, log-in, SIM bindings, the plan, commands.

pub(crate) mod auth;
mod bindings;
mod commands;
mod plan;
mod register;
mod token;
pub mod wire;

use axum::Router;
use axum::routing::{delete, get, post};

use crate::app::App;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/devices", post(register::register))
        .route("/oauth2/token", post(token::token))
        .route("/devices/{device}/bindings", post(bindings::bind))
        .route("/devices/{device}/bindings/{binding}", delete(bindings::unbind))
        .route("/devices/{device}/plan", get(plan::plan))
        .route("/devices/{device}/commands", get(commands::commands))
}
