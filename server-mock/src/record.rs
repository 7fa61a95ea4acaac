//! Writes each charging exchange to a file of its own, so that a schema can be held against it afterwards.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::app::{App, take_body};
use crate::faults::Kind;

/// Where exchanges are written, and how many there were.
pub(crate) struct Recorder {
    directory: PathBuf,
    written: AtomicU64,
}

impl Recorder {
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory, written: AtomicU64::new(0) }
    }

    async fn write(&self, kind: Kind, exchange: &Value) {
        let number = self.written.fetch_add(1, Ordering::SeqCst) + 1;
        let path = self.directory.join(format!("{number:06}-{}.json", kind.name()));
        if let Err(error) = tokio::fs::write(&path, format!("{exchange:#}\n")).await {
            tracing::error!(%error, path = %path.display(), "an exchange was not recorded");
        }
    }
}

/// Below the fault switches: what is recorded is what the server did and answered, whether or not that reached the agent.
pub(crate) async fn layer(State(app): State<App>, request: Request, next: Next) -> Response {
    let kind = Kind::of(request.method(), request.uri().path());
    let (Some(recorder), Some(kind @ (Kind::Create | Kind::Update | Kind::Release))) = (&app.recorder, kind) else {
        return next.run(request).await;
    };
    let path = request.uri().path().to_owned();
    let (head, body) = request.into_parts();
    let asked = take_body(body).await;
    let response = next.run(Request::from_parts(head, Body::from(asked.clone()))).await;
    let (head, body) = response.into_parts();
    let answered = take_body(body).await;
    let location = head.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
    let exchange = json!({
        "kind": kind.name(),
        "method": Method::POST.as_str(),
        "path": path,
        "request": document(&asked),
        "status": head.status.as_u16(),
        "location": location,
        "response": document(&answered),
    });
    recorder.write(kind, &exchange).await;
    Response::from_parts(head, Body::from(answered))
}

fn document(text: &[u8]) -> Value {
    if text.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(text).unwrap_or_else(|_| Value::String(String::from_utf8_lossy(text).into_owned()))
}
