//! The commands as they are typed: the real program, what it prints where, and how it ends. No root, no kernel, no network.

// The lint that forbids unwrap outside of tests looks for this mark.
#[cfg(test)]
mod agents;
#[cfg(test)]
mod colour;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod transcript;
