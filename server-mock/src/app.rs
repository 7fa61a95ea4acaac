//! What all handlers share, the routes, and the layers that every request passes.

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::{Router, http};
use futures::StreamExt as _;
use std::sync::Arc;
use tokio::sync::{Notify, watch};

use crate::faults::Faults;
use crate::problem::Problem;
use crate::record::Recorder;
use crate::server::{Database, Options};
use crate::store::Store;
use crate::{admin, charging, faults, onboarding, record};

/// The longest message that is read.
pub(crate) const LONGEST_MESSAGE: usize = 256 * 1024;
/// How much of an over-long message is still taken off the socket, so that its sender gets to read the refusal.
const LONGEST_DISCARD: usize = 16 * LONGEST_MESSAGE;

/// What all handlers share.
pub(crate) type App = Arc<Shared>;

pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) store: Store,
    pub(crate) faults: Faults,
    pub(crate) recorder: Option<Recorder>,
    /// Changes when a device may have a new command.
    pub(crate) commands: watch::Sender<u64>,
    /// Changes when the server plays a restart: all connections close.
    pub(crate) generation: watch::Sender<u64>,
    /// True once the server stops: long polls answer at once.
    pub(crate) stop: watch::Receiver<bool>,
}

/// Closes the connection that a request came on, without an answer.
#[derive(Clone, Default)]
pub(crate) struct Hangup(Arc<Notify>);

impl Hangup {
    /// Closes the connection; never comes back.
    pub(crate) async fn hang_up(&self) -> Response {
        self.0.notify_one();
        std::future::pending().await
    }

    /// Waits until someone wants the connection closed.
    pub(crate) async fn wanted(&self) {
        self.0.notified().await;
    }
}

impl Shared {
    pub(crate) fn open(options: Options, stop: watch::Receiver<bool>) -> anyhow::Result<Self> {
        Ok(Self {
            store: Store::open(options.database.clone(), options.clock.clone())?,
            faults: Faults::default(),
            recorder: options.record.clone().map(Recorder::new),
            commands: watch::Sender::new(0),
            generation: watch::Sender::new(0),
            stop,
            options,
        })
    }

    /// Tells long polls to look again.
    pub(crate) fn commands_changed(&self) {
        self.commands.send_modify(|generation| *generation += 1);
    }

    /// Plays a restart: the database is opened anew and every connection closes.
    pub(crate) async fn restart(&self) -> Result<(), Problem> {
        self.store.reopen().await?;
        self.generation.send_modify(|generation| *generation += 1);
        Ok(())
    }

    /// Whether a restart can be played without losing the books.
    pub(crate) fn can_restart(&self) -> bool {
        matches!(self.options.database, Database::File(_))
    }
}

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .nest("/nchf-convergedcharging/v3", charging::routes())
        .nest("/onboarding/v1", onboarding::routes())
        .nest("/admin/v1", admin::routes(&app))
        .fallback(no_such_resource)
        .method_not_allowed_fallback(no_such_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), record::layer))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), faults::layer))
        .layer(middleware::from_fn(whole_body))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), log))
        .with_state(app)
}

/// Waits until the server stops, or is gone.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the server's handle is gone, which is a stop as well.
    drop(stop.wait_for(|stopping| *stopping).await);
}

async fn no_such_resource(uri: http::Uri) -> Problem {
    Problem::not_found("RESOURCE_URI_STRUCTURE_NOT_FOUND", format!("there is nothing at {}", uri.path()))
}

async fn no_such_method(method: http::Method, uri: http::Uri) -> Problem {
    let detail = format!("{method} is not a method of {}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED", detail)
}

async fn log(State(app): State<App>, request: Request, next: Next) -> Response {
    let began = app.options.clock.now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    let took = app.options.clock.now().millis() - began.millis();
    tracing::info!(%method, path, status = response.status().as_u16(), took, "answered");
    response
}

/// Reads the whole message before anything is done with it: 413 where it is too long.
async fn whole_body(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let mut stream = body.into_data_stream();
    let mut message = Vec::new();
    let mut seen = 0;
    while let Some(chunk) = stream.next().await {
        let Ok(chunk) = chunk else {
            return Problem::new(StatusCode::BAD_REQUEST, "INVALID_MSG_FORMAT", "the message broke off")
                .into_response();
        };
        seen += chunk.len();
        if seen <= LONGEST_MESSAGE {
            message.extend_from_slice(&chunk);
        } else if seen > LONGEST_DISCARD {
            break;
        }
    }
    if seen > LONGEST_MESSAGE {
        let detail = format!("a message may be {LONGEST_MESSAGE} octets long");
        return Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", detail).into_response();
    }
    next.run(Request::from_parts(head, Body::from(message))).await
}

/// Takes a message that [`whole_body`] has read; it is in memory, so this cannot fail for its length.
pub(crate) async fn take_body(body: Body) -> Bytes {
    axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default()
}
