//! How a request asks the agent: a question is left with whoever owns everything, and the answer comes back.

use std::sync::Arc;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use tokio::sync::oneshot;

use super::{Outlook, Renewed, Status};
use crate::ledger::Accounts;
use crate::usage::{Refusal, UsageDocument, Wish};

/// What is asked, with where the answer goes. A question that is dropped is answered with "not now" (503).
#[derive(Debug)]
pub enum Question {
    /// The present status.
    Status(oneshot::Sender<Status>),
    /// The ledger's account.
    Account(oneshot::Sender<Accounts>),
    /// Have more asked for now, on the link of this name or on all.
    Renew(Option<String>, oneshot::Sender<Renewed>),
    /// What each metered link in use has to say to those who send over it.
    Outlooks(oneshot::Sender<Vec<Outlook>>),
    /// What was used.
    Usage(Wish, oneshot::Sender<Result<UsageDocument, Untold>>),
}

/// Leaves questions with the agent.
#[derive(Clone)]
pub struct Asker(Arc<dyn Fn(Question) + Send + Sync>);

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Asker")
    }
}

impl Asker {
    /// `leave` takes each question to the agent, and drops it when the agent has gone.
    #[must_use]
    pub fn new(leave: impl Fn(Question) + Send + Sync + 'static) -> Self {
        Self(Arc::new(leave))
    }

    /// Asks, and waits for the answer: `asker.ask(Question::Status)`.
    pub(super) async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Result<T, NotNow> {
        let (reply, answer) = oneshot::channel();
        (self.0)(question(reply));
        answer.await.map_err(|_| NotNow)
    }
}

/// Why there is no history to show.
#[derive(Debug)]
pub enum Untold {
    /// The question was wrong.
    Refused(Refusal),
    /// The ledger could not be read: why.
    Failed(String),
}

impl IntoResponse for Untold {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(refusal) => (StatusCode::BAD_REQUEST, format!("{refusal}\n")).into_response(),
            Self::Failed(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
        }
    }
}

/// The agent cannot answer: it is about to end, or what was asked for is out of reach.
#[derive(Clone, Copy, Debug)]
pub(super) struct NotNow;

impl IntoResponse for NotNow {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, "the agent cannot answer this now; it may be about to end\n").into_response()
    }
}
