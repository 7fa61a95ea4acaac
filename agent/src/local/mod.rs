//! The agent's own API: what it holds, in documents of JSON, on a unix socket.

mod ask;
mod client;
mod routes;
mod socket;
mod status;

pub use ask::{Asker, Question};
pub use client::{fetch, get};
pub use socket::{Served, serve};
pub use status::{DrainStatus, KernelStatus, LinkStatus, SCHEMA, Status};
