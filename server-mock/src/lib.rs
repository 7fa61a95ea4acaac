//! The reference charging server: a profile of `Nchf_ConvergedCharging`, onboarding, administration and fault switches.
//!
//! The wire is written down in `docs/protocol.md`. This crate knows nothing of the agent's code: two parties, two spellings of
//! the wire, one set of golden files.

mod admin;
mod app;
mod args;
pub mod charging;
mod clock;
mod faults;
mod json;
pub mod onboarding;
mod problem;
mod record;
mod server;
mod store;
mod units;

pub use args::Args;
pub use clock::{Clock, Hand, Moment};
pub use problem::{InvalidParam, Problem};
pub use server::{Authentication, Database, Enrolment, FaultSwitches, Options, Repetition, Server, TlsFiles};
pub use units::{ChargingId, LocalSequenceNumber, Octets, RatingGroup, Seconds, SequenceNumber};
