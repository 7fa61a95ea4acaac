//! What `weir usage` shows: the same structure for the text and for `--json`. Octets are plain numbers, times RFC 3339 with their offset.

use serde::{Deserialize, Serialize};

use crate::ledger::Usage;

/// Version of this structure; it changes when a member changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// Usage by spans of time.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct UsageDocument {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When this was written.
    pub at: String,
    /// Whether the wall clock was synchronised then.
    pub clock_synced: bool,
    /// Who has read the ledger: `agent`, or `file` when no agent was running.
    pub source: String,
    /// The zone in which hours, days and months are told: its name, or its rule.
    pub time_zone: String,
    /// Why that is not the zone that was asked for.
    pub time_zone_note: Option<String>,
    /// Day of the month on which a billing period begins; in a shorter month its last day.
    pub billing_day: i8,
    /// What the spans are: `5min`, `hour`, `day`, `month`, `period`, or `top` (the days with the most, the most first).
    pub by: String,
    /// Whose usage this is, those who have any on record or are bound to a link.
    pub sims: Vec<SimOfUsage>,
    /// The spans, the oldest first (but for `top`), also those in which nothing passed.
    pub spans: Vec<SpanUsage>,
    /// All of `spans` together.
    pub total: Sums,
    /// The day, month and billing period that are running now.
    pub running: Running,
}

/// A SIM, and what it pays for.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SimOfUsage {
    /// Who pays.
    pub subscriber: String,
    /// The links that have carried it. What is recorded is recorded by SIM: of one that has been in several links it is not known what
    /// passed which.
    pub links: Vec<String>,
    /// Octets of its package as they were bought; `None` when it is not known.
    pub package_octets: Option<u64>,
    /// When the package ends; `None` when it does not, or is not known.
    pub package_valid_until: Option<String>,
}

/// One span.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SpanUsage {
    /// Its first instant.
    pub begin: String,
    /// The first instant after it.
    pub end: String,
    /// Whether it is still running.
    pub running: bool,
    /// What passed in it.
    #[serde(flatten)]
    pub sums: Sums,
    /// What all of it will come to at the present pace, both directions; `None` for one that is over, and for as long as too little of it
    /// has passed.
    pub estimate_octets: Option<u64>,
    /// The same by SIM: those with any usage.
    pub sims: Vec<SimUsage>,
}

/// The usage of one SIM in a span.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SimUsage {
    /// Who pays.
    pub subscriber: String,
    /// What passed.
    #[serde(flatten)]
    pub sums: Sums,
    /// What the span will come to at the present pace.
    pub estimate_octets: Option<u64>,
}

/// The spans that are running now.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Running {
    /// Today.
    pub day: SpanUsage,
    /// This calendar month.
    pub month: SpanUsage,
    /// This billing period.
    pub period: SpanUsage,
}

/// Octets that passed.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// All that passed, uplink.
    pub uplink_octets: u64,
    /// All that passed, downlink.
    pub downlink_octets: u64,
    /// Those of both that passed outside the quota (throttled, after the package was used up).
    pub offline_octets: u64,
    /// Those of both that the server has not acknowledged yet.
    pub unacknowledged_octets: u64,
    /// False when some of it was labelled by a clock that was not synchronised: it may belong elsewhere.
    pub synced: bool,
}

impl Default for Sums {
    fn default() -> Self {
        Self { uplink_octets: 0, downlink_octets: 0, offline_octets: 0, unacknowledged_octets: 0, synced: true }
    }
}

impl Sums {
    /// What the server has acknowledged.
    pub(super) fn acknowledged(usage: Usage, synced: bool) -> Self {
        let all = usage.online.saturating_add(usage.offline);
        Self {
            uplink_octets: all.uplink.get(),
            downlink_octets: all.downlink.get(),
            offline_octets: usage.offline.total().get(),
            unacknowledged_octets: 0,
            synced,
        }
    }

    /// What it has not.
    pub(super) fn waiting(usage: Usage, synced: bool) -> Self {
        Self { unacknowledged_octets: usage.total().get(), ..Self::acknowledged(usage, synced) }
    }

    /// Octets of both directions.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.uplink_octets.saturating_add(self.downlink_octets)
    }

    /// Adds the other figures, each held at the end of its range.
    pub fn add(&mut self, other: Self) {
        self.uplink_octets = self.uplink_octets.saturating_add(other.uplink_octets);
        self.downlink_octets = self.downlink_octets.saturating_add(other.downlink_octets);
        self.offline_octets = self.offline_octets.saturating_add(other.offline_octets);
        self.unacknowledged_octets = self.unacknowledged_octets.saturating_add(other.unacknowledged_octets);
        self.synced &= other.synced;
    }
}
