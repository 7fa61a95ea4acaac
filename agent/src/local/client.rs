//! Asks a running agent over its socket.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::routes::{STATUS_PATH, USAGE_PATH};
use super::status::Status;
use crate::usage::{Refusal, UsageDocument, Wish};

/// An agent that has not answered by then is stuck: to add up the books of a long backlog on a slow disk takes less.
const PATIENCE: Duration = Duration::from_mins(1);

/// Nobody answers at the agent's socket: why, and what to do about it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no agent answers at {}: {why}", .socket.display())]
pub struct NoAgent {
    socket: PathBuf,
    /// What the kernel says.
    pub kind: ErrorKind,
    why: String,
}

impl NoAgent {
    /// What came of an attempt to open it.
    #[must_use]
    pub fn new(socket: &Path, error: &io::Error) -> Self {
        const START: &str = "start the agent (systemctl start weir, or weir run)";
        let why = match error.kind() {
            ErrorKind::NotFound => format!("there is no such socket; {START}, or say where its socket is (--socket)"),
            ErrorKind::ConnectionRefused => format!("whoever made that socket has ended; {START}"),
            ErrorKind::PermissionDenied => {
                "you may not open its socket; ask by sudo, or join its group (usermod -aG weir NAME) and log in anew"
                    .to_owned()
            }
            _ => error.to_string(),
        };
        Self { socket: socket.to_owned(), kind: error.kind(), why }
    }
}

/// Asks a running agent for its status.
pub async fn fetch(socket: &Path) -> Result<Status> {
    get(socket, STATUS_PATH).await
}

/// Asks a running agent what was used; a question that is wrong is a [`Refusal`].
pub async fn usage(socket: &Path, wish: &Wish) -> Result<UsageDocument> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    let said = [("by", &wish.by), ("begin", &wish.begin), ("end", &wish.end), ("link", &wish.link), ("sim", &wish.sim)];
    for (key, value) in said.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))) {
        query.append_pair(key, value);
    }
    get(socket, &format!("{USAGE_PATH}?{}", query.finish())).await
}

/// Fails unless somebody listens at this socket.
pub fn reach(socket: &Path) -> Result<(), NoAgent> {
    let reached = std::os::unix::net::UnixStream::connect(socket);
    reached.map(drop).map_err(|error| NoAgent::new(socket, &error))
}

/// Asks a running agent for the document at `path` (and query).
pub async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T> {
    exchange(socket, Method::GET, path, PATIENCE).await
}

/// Orders something of a running agent by a POST to `path` (and query).
pub async fn post<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T> {
    exchange(socket, Method::POST, path, PATIENCE).await
}

async fn exchange<T: DeserializeOwned>(socket: &Path, method: Method, path: &str, patience: Duration) -> Result<T> {
    UnixStream::connect(socket).await.map_err(|error| NoAgent::new(socket, &error))?;
    crate::reporter::use_ring();
    // Nothing is said over TLS here: a machine without authorities has a status all the same.
    let client = reqwest::Client::builder().unix_socket(socket.to_owned()).tls_certs_only([]).timeout(patience);
    let client = client.build().context("making a client")?;
    let answer = match client.request(method, format!("http://localhost{path}")).send().await {
        Err(error) if error.is_timeout() => {
            let (socket, seconds) = (socket.display(), patience.as_secs());
            bail!(
                "the agent at {socket} has not answered for {seconds} s; its log says at what it is: journalctl -u weir"
            );
        }
        answer => answer.with_context(|| format!("the agent at {} has broken off", socket.display()))?,
    };
    let status = answer.status();
    if !status.is_success() {
        let why = answer.text().await.unwrap_or_default().trim_end().to_owned();
        return Err(refusal(status, path, why));
    }
    let other =
        || format!("what the agent answered to {path} cannot be read: it is of another version than this weir, {OWN}");
    let text = answer.text().await.with_context(|| format!("the agent at {} has broken off", socket.display()))?;
    serde_json::from_str(&text).with_context(other)
}

/// The version of this program.
const OWN: &str = env!("CARGO_PKG_VERSION");

/// Why there is no document, in words.
fn refusal(status: StatusCode, path: &str, why: String) -> anyhow::Error {
    match status {
        StatusCode::BAD_REQUEST => Refusal(why).into(),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => anyhow!(
            "the agent that runs is older than this weir ({OWN}) and does not know {path}; have this version take its place: \
             kill -USR1 its process, then start this one"
        ),
        StatusCode::SERVICE_UNAVAILABLE => anyhow!("{why}; its log says more: journalctl -u weir"),
        status => anyhow!("the agent did not answer {path}: {status}: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::local::{Asker, Desk, Question, Timeline, Untold, serve};

    /// An agent that answers every question for usage so.
    async fn answered(wish: Wish, untold: fn(Wish) -> Untold) -> anyhow::Error {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("weir.sock");
        let asker = Asker::new(move |question| {
            if let Question::Usage(said, reply) = question {
                drop(reply.send(Err(untold(said))));
            }
        });
        let desk = Desk::new(asker, Timeline::new(Clock::default()));
        let _served = serve(&socket, desk).expect("served");
        usage(&socket, &wish).await.expect_err("no document")
    }

    #[tokio::test]
    async fn a_wrong_question_comes_back_as_a_refusal_in_the_words_of_the_agent() {
        let asked = Wish { by: Some("a week & more".to_owned()), ..Wish::default() };
        let error = answered(asked, |wish| Untold::Refused(Refusal(format!("by: {}", wish.by.unwrap_or_default()))));
        let error = error.await;
        assert!(error.is::<Refusal>(), "{error:#}");
        assert_eq!(error.to_string(), "by: a week & more");
    }

    #[tokio::test]
    async fn an_agent_that_hangs_is_told_and_not_waited_for_for_ever() {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("weir.sock");
        let _listening = tokio::net::UnixListener::bind(&socket).expect("bound");
        let asked = exchange::<serde_json::Value>(&socket, Method::GET, STATUS_PATH, Duration::from_millis(50));
        let error = asked.await.expect_err("nobody answers").to_string();
        assert!(error.contains("has not answered") && error.contains("journalctl -u weir"), "{error}");
    }

    #[tokio::test]
    async fn a_ledger_that_cannot_be_read_is_an_error_that_says_why() {
        let error = answered(Wish::default(), |_| Untold::Failed("the ledger is gone".to_owned())).await;
        assert!(!error.is::<Refusal>() && error.to_string().contains("the ledger is gone"), "{error:#}");
    }
}
