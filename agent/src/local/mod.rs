//! The agent's own API on a unix socket: what it holds, read only.

mod status;

use std::future::Future;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::{UnixListener, UnixStream};

pub use status::{DrainStatus, KernelStatus, LinkStatus, SCHEMA, Status};

/// The path of the status document.
const STATUS_PATH: &str = "/api/v1/status";

/// A socket that is being served; its file goes with it.
#[derive(Debug)]
pub struct Served(PathBuf);

impl Drop for Served {
    fn drop(&mut self) {
        // It may have been removed already; there is nobody left to tell.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Serves the status on a unix socket, readable by owner and group. `ask` answers with the present status, or `None` when the
/// agent is about to end.
pub fn serve<F, A>(socket: &Path, ask: F) -> Result<Served>
where
    F: Fn() -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Option<Status>> + Send + 'static,
{
    if let Some(directory) = socket.parent() {
        std::fs::create_dir_all(directory).with_context(|| format!("making {} for the socket", directory.display()))?;
    }
    remove_stale(socket)?;
    let listener = UnixListener::bind(socket).with_context(|| format!("listening on {}", socket.display()))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o660))
        .with_context(|| format!("setting the mode of {}", socket.display()))?;
    let router = Router::new().route(STATUS_PATH, get(answer::<F, A>)).with_state(ask);
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!("the status socket has ended: {error}");
        }
    });
    Ok(Served(socket.to_owned()))
}

async fn answer<F, A>(State(ask): State<F>) -> Result<Json<Status>, StatusCode>
where
    F: Fn() -> A,
    A: Future<Output = Option<Status>>,
{
    ask().await.map(Json).ok_or(StatusCode::SERVICE_UNAVAILABLE)
}

/// Asks a running agent for its status.
pub async fn fetch(socket: &Path) -> Result<Status> {
    let whom =
        || format!("no agent answers at {}; is `weir run` running, and may you open its socket?", socket.display());
    UnixStream::connect(socket).await.with_context(whom)?;
    crate::reporter::use_ring();
    // Nothing is said over TLS here: a machine without authorities has a status all the same.
    let client = reqwest::Client::builder().unix_socket(socket.to_owned()).tls_certs_only([]);
    let client = client.build().context("making a client")?;
    let answer = client.get(format!("http://localhost{STATUS_PATH}")).send().await.with_context(whom)?;
    let answer = answer.error_for_status().context("the agent is about to end")?;
    answer.json().await.context("the agent's status could not be read; is it of another version?")
}

/// A socket file that nobody listens on is left over from a crash; one that answers belongs to another agent.
fn remove_stale(socket: &Path) -> Result<()> {
    match std::os::unix::net::UnixStream::connect(socket) {
        Ok(_) => bail!("another agent is running: {} answers", socket.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(_) if !is_socket(socket) => {
            bail!("{} is there and is no socket: name another agent.socket", socket.display())
        }
        Err(_) => std::fs::remove_file(socket).with_context(|| format!("removing the left-over {}", socket.display())),
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("weir.sock");
        std::fs::write(&path, "precious").expect("written");
        let error = remove_stale(&path).expect_err("refused").to_string();
        assert!(error.contains("no socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("still there"), "precious");
    }

    #[test]
    fn a_socket_that_a_crash_left_makes_way() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("weir.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        remove_stale(&path).expect("removed");
        assert!(!path.exists());
    }
}
