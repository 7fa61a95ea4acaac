//! A model of the network: requests and replies under way, in no particular order, and the ways that are broken.

use std::rc::Rc;
use std::time::Duration;

use agent::quota::{Outcome, Route};

use super::chance::index;
use super::ledger::Sealed;

/// Copies that nobody waits for are forgotten when there are more of them.
const GHOSTS: usize = 8;

/// The ways to the server that work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    /// Every way.
    All,
    /// Only the kernel's own route.
    Routed,
    /// Only out of another link than the routing table says.
    Detours,
    /// None: the agent is alone.
    None,
}

/// One attempt: whose it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    pub(super) station: usize,
    pub(super) number: u32,
}

/// A request on its way to the server.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) sealed: Rc<Sealed>,
    /// Who waits for the answer; nobody any more when the agent has given up or died.
    pub(super) from: Option<Attempt>,
}

/// What an attempt came to, on its way to the core.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) sealed: Rc<Sealed>,
    pub(super) to: Attempt,
    pub(super) outcome: Outcome,
    /// The number of the books that it came out of.
    pub(super) books: u32,
}

/// Everything under way.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) requests: Vec<Request>,
    pub(super) replies: Vec<Reply>,
    pub(super) ways: Ways,
}

impl Network {
    pub(super) const fn new() -> Self {
        Self { requests: Vec::new(), replies: Vec::new(), ways: Ways::All }
    }

    /// An attempt begins; over a way that is broken it comes to nothing at once.
    pub(super) fn send(&mut self, sealed: Rc<Sealed>, from: Attempt, route: Route) {
        let works = match (self.ways, route) {
            (Ways::All, _) | (Ways::Routed, Route::Routed) | (Ways::Detours, Route::Detour(_)) => true,
            (Ways::None, _) | (Ways::Routed, Route::Detour(_)) | (Ways::Detours, Route::Routed) => false,
        };
        if works {
            self.requests.push(Request { sealed, from: Some(from) });
        } else {
            self.refuse(&Request { sealed, from: Some(from) }, None, "unreachable");
        }
        let ghosts = self.requests.iter().filter(|request| request.from.is_none()).count();
        if ghosts > GHOSTS
            && let Some(oldest) = self.requests.iter().position(|request| request.from.is_none())
        {
            self.requests.remove(oldest);
        }
    }

    /// Takes the nth request out.
    pub(super) fn take_request(&mut self, nth: u64) -> Option<Request> {
        (!self.requests.is_empty()).then(|| self.requests.remove(index(nth, self.requests.len())))
    }

    /// A copy of a request goes on, and nobody waits for it.
    pub(super) fn leave_under_way(&mut self, request: &Request) {
        self.requests.push(Request { sealed: Rc::clone(&request.sealed), from: None });
    }

    /// Whoever waits for this request is told that it was certainly not taken.
    pub(super) fn refuse(&mut self, request: &Request, retry_after: Option<Duration>, reason: &str) {
        self.answer(request, Outcome::NotTaken { retry_after, reason: reason.to_owned() }, 0);
    }

    /// Whoever waits for this request is told that there is no answer.
    pub(super) fn fail(&mut self, request: &Request, reason: &str) {
        let outcome = Outcome::Unanswered { retry_after: None, reason: reason.to_owned() };
        self.answer(request, outcome, 0);
    }

    pub(super) fn answer(&mut self, request: &Request, outcome: Outcome, books: u32) {
        if let Some(to) = request.from {
            self.replies.push(Reply { sealed: Rc::clone(&request.sealed), to, outcome, books });
        }
    }

    /// The agent is no more: what it has sent may still arrive, but nobody waits for the answers.
    pub(super) fn hang_up(&mut self) {
        self.replies.clear();
        for request in &mut self.requests {
            request.from = None;
        }
    }

    /// Every connection breaks.
    pub(super) fn break_all(&mut self, reason: &str) {
        for request in std::mem::take(&mut self.requests) {
            self.fail(&request, reason);
        }
        for reply in &mut self.replies {
            reply.outcome = Outcome::Unanswered { retry_after: None, reason: reason.to_owned() };
        }
    }
}
