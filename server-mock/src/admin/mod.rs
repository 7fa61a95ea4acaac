//! Administration: the SIM pool, claim codes, plans, purchases, views of the books, commands and fault switches.

mod actions;
mod pool;
mod sales;
pub(crate) mod terms;
mod views;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use std::sync::Arc;

use crate::app::App;
use crate::onboarding::auth;

pub(crate) fn routes(app: &App) -> Router<App> {
    Router::new()
        .route("/sims", get(pool::sims).post(pool::add_sim))
        .route("/claim-codes", get(pool::claim_codes).post(pool::add_claim_code))
        .route("/plans", get(sales::plans).post(sales::add_plan))
        .route("/purchases", post(sales::purchase))
        .route("/top-ups", post(sales::top_up))
        .route("/packages", get(views::packages))
        .route("/sessions", get(views::sessions))
        .route("/ledger", get(views::ledger))
        .route("/stats", get(views::stats))
        .route("/devices", get(views::devices))
        .route("/commands", post(actions::command))
        .route("/switches", post(actions::switch))
        .route("/faults", get(actions::faults).put(actions::set_faults).delete(actions::clear_faults))
        .route_layer(middleware::from_fn_with_state(Arc::clone(app), only_admin))
}

async fn only_admin(State(app): State<App>, request: Request, next: Next) -> Response {
    // Digests are compared, so the time it takes tells nothing of the token.
    let given = auth::bearer(request.headers()).map(auth::token_digest);
    if given == Some(auth::token_digest(&app.options.admin_token)) {
        next.run(request).await
    } else {
        auth::unauthorised("the admin token is needed").into_response()
    }
}
