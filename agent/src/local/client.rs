//! Asks a running agent over its socket.

use std::path::Path;

use anyhow::{Context, Result, bail};
use reqwest::Method;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::routes::{STATUS_PATH, USAGE_PATH};
use super::status::Status;
use crate::usage::{Refusal, UsageDocument, Wish};

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
    let status = answer.status();
    if !status.is_success() {
        let why = answer.text().await.unwrap_or_default().trim_end().to_owned();
        if status == reqwest::StatusCode::BAD_REQUEST {
            bail!(Refusal(why));
        }
        bail!("the agent did not answer {path}: {status}: {why}");
    }
    let unread = || format!("what the agent answered to {path} could not be read; is it of another version?");
    answer.json().await.with_context(unread)
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
    async fn a_ledger_that_cannot_be_read_is_an_error_that_says_why() {
        let error = answered(Wish::default(), |_| Untold::Failed("the ledger is gone".to_owned())).await;
        assert!(!error.is::<Refusal>() && error.to_string().contains("the ledger is gone"), "{error:#}");
    }
}
