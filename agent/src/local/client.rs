//! Asks a running agent over its socket.

use std::path::Path;

use anyhow::{Context, Result};
use reqwest::Method;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::routes::STATUS_PATH;
use super::status::Status;

/// Asks a running agent for its status.
pub async fn fetch(socket: &Path) -> Result<Status> {
    get(socket, STATUS_PATH).await
}

/// Whether anybody listens at this socket.
#[must_use]
pub fn is_answering(socket: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket).is_ok()
}

/// Asks a running agent for the document at `path` (and query).
pub async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T> {
    exchange(socket, Method::GET, path).await
}

/// Orders something of a running agent by a POST to `path` (and query).
pub async fn post<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T> {
    exchange(socket, Method::POST, path).await
}

async fn exchange<T: DeserializeOwned>(socket: &Path, method: Method, path: &str) -> Result<T> {
    let whom =
        || format!("no agent answers at {}; is `weir run` running, and may you open its socket?", socket.display());
    UnixStream::connect(socket).await.with_context(whom)?;
    crate::reporter::use_ring();
    // Nothing is said over TLS here: a machine without authorities has a status all the same.
    let client = reqwest::Client::builder().unix_socket(socket.to_owned()).tls_certs_only([]);
    let client = client.build().context("making a client")?;
    let answer = client.request(method, format!("http://localhost{path}")).send().await.with_context(whom)?;
    let answer = answer.error_for_status().with_context(|| format!("the agent did not answer {path}"))?;
    let unread = || format!("what the agent answered to {path} could not be read; is it of another version?");
    answer.json().await.with_context(unread)
}
