//! The simulator of the whole money path: the real core, models of all that surrounds it, one seed, virtual time.
//!
//! A *schedule* is a world and a list of steps, both drawn from the seed. After every step the invariants are checked; at its end the
//! network works, everything is settled, and the books are compared to the octet. A schedule that breaks an invariant is shrunk
//! to a short one that breaks the same. Nothing but `std` and the core is used, so that `cargo xtask sim` can compile it by itself.

/// Ends the function with a broken invariant unless the condition holds.
macro_rules! hold {
    ($condition:expr, $rule:literal, $($text:tt)+) => {
        if !$condition {
            return Err($crate::sim::Broken::new($rule, format!($($text)+)).into());
        }
    };
}

mod chance;
pub mod cli;
mod draw;
mod eventloop;
mod finish;
mod invariants;
mod kernel;
mod ledger;
mod network;
mod play;
mod schedule;
mod server;
mod shrink;
mod step;
mod strike;
mod tally;
#[cfg(test)]
mod tests;
mod world;

pub use draw::Sight;
pub use kernel::Direction;
pub use network::Ways;
pub use play::{Failure, many, one};
pub use schedule::{Moods, Package, Setup, Slice};
pub use shrink::shrink;
pub use step::{Step, Word};
pub use tally::{Faults, Tally};

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The invariant, in words.
    pub rule: &'static str,
    /// What was found.
    pub found: String,
}

impl Broken {
    pub(crate) const fn new(rule: &'static str, found: String) -> Self {
        Self { rule, found }
    }
}
