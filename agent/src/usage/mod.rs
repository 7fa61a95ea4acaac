//! What was used in the hours, days, months and billing periods of the operator's own time, and what is to be expected of the running ones.
//!
//! Everything here is worked out from what the ledger holds and the present moment; only [`read`] opens a file, and
//! [`Calendar::of`] asks the system for its time zone.

mod calendar;
mod document;
mod estimate;
mod read;
mod tally;
mod wish;

pub use calendar::{BillingDay, Calendar, Span};
pub use document::{Running, SCHEMA, SimOfUsage, SimUsage, SpanUsage, Sums, UsageDocument};
pub(crate) use read::PLAN;
pub use read::{Source, read};
pub use wish::{By, Refusal, Wish};

#[cfg(test)]
mod tests;
