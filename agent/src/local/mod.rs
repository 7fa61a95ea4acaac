//! The agent's own API: what it holds, in documents of JSON, on a unix socket.

mod ask;
mod client;
mod renewed;
mod routes;
mod socket;
mod status;

pub use ask::{Asker, Question, Untold};
pub use client::{fetch, get, is_answering, post, usage};
pub use renewed::{RENEWED_SCHEMA, Renewed, RenewedLink};
pub(crate) use routes::{LEDGER_PATH, RENEW_PATH};
pub use socket::{Served, serve};
pub use status::{DrainStatus, KernelStatus, LinkStatus, NextStatus, PackageStatus, SCHEMA, Status};
