//! What is counted while the blows fall.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::clock::now;

/// Counts of a run.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Blows by kind.
    pub(super) blows: BTreeMap<&'static str, u64>,
    /// Times the agent was killed with SIGKILL.
    pub(super) agent_kills: u64,
    /// Times the server was.
    pub(super) server_kills: u64,
    /// Times the agent was started.
    pub(super) agent_starts: u64,
    /// Times a flow of the client was begun anew because it had broken.
    pub(super) flow_restarts: u64,
    /// Moments at which wire and kernel were held against each other, and agreed.
    pub(super) audits: u64,
    /// Octets that have passed on all links, by the kernel.
    pub(super) passed: u64,
    /// The longest time between two looks at which more had passed.
    pub(super) longest_standstill: Duration,
    /// When more was last seen to have passed.
    pub(super) moved: Option<Instant>,
}

impl Tally {
    /// So many octets have passed by now.
    pub(super) fn saw(&mut self, passed: u64) {
        let at = now();
        let moved = *self.moved.get_or_insert(at);
        if passed > self.passed {
            self.longest_standstill = self.longest_standstill.max(at - moved);
            self.moved = Some(at);
        }
        self.passed = passed;
    }

    /// Everything that was killed.
    pub(super) const fn kills(&self) -> u64 {
        self.agent_kills + self.server_kills
    }
}
