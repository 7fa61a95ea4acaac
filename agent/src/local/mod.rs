//! The agent's own API: what it holds, in documents of JSON, on a unix socket and, where it is configured, over TCP with a page.

mod access;
mod ask;
mod captive;
mod client;
mod events;
mod metrics;
mod page;
mod period;
mod problems;
mod renewed;
mod routes;
mod socket;
mod status;
mod tcp;
#[cfg(test)]
mod tests;
mod timeline;

use axum::extract::FromRef;

pub use ask::{Asker, Question, Untold};
pub use captive::{Outlook, Passage, tell_captives};
pub use client::{NoAgent, fetch, get, post, reach, usage};
pub use problems::Problems;
pub use renewed::{RENEWED_SCHEMA, Renewed, RenewedLink};
pub(crate) use routes::{LEDGER_PATH, RENEW_PATH};
pub use socket::{Served, serve};
pub use status::{DrainStatus, KernelStatus, LinkStatus, NextStatus, PackageStatus, SCHEMA, Status};
pub use tcp::listen;
pub use timeline::{Happening, Kind, Tidings, Timeline};

use events::Live;
use period::Period;

/// What the handlers of requests have at hand: a way to ask the agent, what has happened, who watches, and the period as it was last read.
#[derive(Clone, Debug)]
pub struct Desk {
    asker: Asker,
    timeline: Timeline,
    live: Live,
    period: Period,
}

impl Desk {
    /// A desk at which nobody watches yet.
    #[must_use]
    pub fn new(asker: Asker, timeline: Timeline) -> Self {
        Self { asker, timeline, live: Live::new(), period: Period::default() }
    }
}

impl FromRef<Desk> for Asker {
    fn from_ref(desk: &Desk) -> Self {
        desk.asker.clone()
    }
}
