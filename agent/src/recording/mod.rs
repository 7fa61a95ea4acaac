//! A recording of everything the cores are told and everything they answer, and how it is replayed.
//!
//! A core depends on nothing but what it is told, so whatever it did once it does again. A recording is made of lines
//! ([`Line`]); commands are kept as their text, because they are compared and never read back.

mod core;
mod line;
mod recorder;
mod replay;
#[cfg(test)]
mod tests;
mod wire;

pub use self::core::Core;
pub use self::line::{Birth, Life, Line, SCHEMA};
pub use self::recorder::{BOUND, Recorder};
pub use self::replay::{End, Parting, Replay, Tally, Verdict, replay};
