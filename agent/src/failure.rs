//! How a command ends that fails: its exit status, and what programs are told of it.

use serde::Serialize;

/// Exit status for a wrong configuration or bad usage (`EX_USAGE` of sysexits.h).
pub const EXIT_USAGE: u8 = 64;

/// Exit status of what was asked for rightly and could not be done.
pub const EXIT_FAILED: u8 = 1;

/// Exit status of a check that could not be made.
pub const EXIT_UNKNOWN: u8 = 3;

/// A command that failed, for programs (`--json`); for people the same sentence stands on standard error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    schema: u32,
    /// What, where, and what to do about it.
    pub error: String,
    /// The exit status that goes with it.
    pub exit_status: u8,
}

impl Failure {
    /// A failure, in one line.
    #[must_use]
    pub fn new(error: &str, exit_status: u8) -> Self {
        Self { schema: 1, error: error.lines().map(str::trim).collect::<Vec<_>>().join(" "), exit_status }
    }
}
