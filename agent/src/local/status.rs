//! What `weir status` shows: the same structure for the text and for `--json`. Octets are plain numbers, times RFC 3339.

use serde::{Deserialize, Serialize};

/// Version of this structure; it changes when a member changes its meaning or goes.
pub const SCHEMA: u32 = 1;

/// The whole agent.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of the agent that answers.
    pub version: String,
    /// The device's identity.
    pub device: String,
    /// The charging server.
    pub server: String,
    /// How far onboarding has come, in words.
    pub onboarding: String,
    /// What the last try of onboarding failed at, in words, until one comes through: a link that has no SIM yet passes nothing meanwhile.
    /// `None` while nothing has failed.
    #[serde(default)]
    pub onboarding_trouble: Option<String>,
    /// When this was written, RFC 3339.
    pub at: String,
    /// Whether the wall clock was synchronised then.
    pub clock_synced: bool,
    /// The metered links.
    pub links: Vec<LinkStatus>,
    /// Usage recorded but not acknowledged, over all links and past sessions.
    pub unacknowledged_octets: u64,
    /// Containers that hold it.
    pub buffered_containers: usize,
    /// Start of the oldest usage that the server has not acknowledged, RFC 3339; `None` while it has acknowledged all.
    #[serde(default)]
    pub oldest_unreported: Option<String>,
    /// Octets by which the ledger does not close; must be 0.
    pub ledger_drift_octets: u64,
    /// Octets that may have passed after the last record before counters were lost (a power cut), at most, over all such times.
    #[serde(default)]
    pub uncertain_octets: u64,
    /// Octets in messages the server refused for good.
    pub set_aside_octets: u64,
    /// Octets in messages that were sent once without an answer to a server that would charge them again: charged or not, never
    /// sent again.
    pub in_doubt_octets: u64,
    /// Past sessions that are still being settled.
    pub draining_sessions: usize,
    /// How far a long backlog has come; `None` while there is none.
    pub draining: Option<DrainStatus>,
    /// Why the ledger cannot be written, in words; nothing more is granted until it can.
    pub ledger_trouble: Option<String>,
    /// False when the ledger lies in memory and is gone with the next boot.
    pub ledger_persistent: bool,
    /// What became of damaged ledgers, for as long as they lie beside the present one.
    pub ledger_damage: Vec<String>,
}

/// A long backlog on its way to the server.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct DrainStatus {
    /// Containers that were there, and came since.
    pub total_containers: usize,
    /// Containers that are still to be acknowledged.
    pub left_containers: usize,
    /// Seconds until all are, at the present rate; `None` while nothing moves.
    pub seconds_left: Option<u64>,
}

/// One metered link.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of a link, told to whoever reads them")]
pub struct LinkStatus {
    /// Its name.
    pub link: String,
    /// Whether there is such a link.
    #[serde(default)]
    pub exists: bool,
    /// Whether it exists and is metered now.
    pub metered: bool,
    /// Whether it is in use (and not, say, standing by while another carries the default route).
    pub in_use: bool,
    /// Its SIM.
    pub subscriber: Option<String>,
    /// State of its credit session.
    pub state: String,
    /// The same in plain words, with what happens next.
    pub explanation: String,
    /// Whether the server has ordered the sessions of its SIM ended (`ABORT`): nothing passes until it takes that back, however much is
    /// left of the package.
    #[serde(default)]
    pub aborted: bool,
    /// While `state` is `exhausted`: whether the server refuses a session or units, or a session is in doubt; else the package is used
    /// up.
    #[serde(default)]
    pub refused: bool,
    /// The session's charging id.
    pub charging_id: Option<u32>,
    /// Octets the session has used, uplink.
    pub session_uplink_octets: u64,
    /// Octets the session has used, downlink.
    pub session_downlink_octets: u64,
    /// Session octets at which the gate shuts.
    pub ceiling_octets: u64,
    /// Octets left until then.
    pub remaining_octets: u64,
    /// Grants this session has received.
    pub grants: u32,
    /// Octets per second, both directions.
    pub rate_octets_per_second: u64,
    /// Octets used and not yet in a sealed message.
    pub unreported_octets: u64,
    /// Octets per second, both directions, over the last ten minutes or so; `None` until half a minute was seen.
    #[serde(default)]
    pub average_octets_per_second: Option<u64>,
    /// What is bought, as far as the server says.
    #[serde(default)]
    pub package: PackageStatus,
    /// What happens next without anybody's doing.
    #[serde(default)]
    pub next: NextStatus,
    /// When the server last acknowledged a message of this link, RFC 3339; `None` = not since the agent started.
    #[serde(default)]
    pub last_report: Option<String>,
    /// Octets that had passed the link before its meter was attached, as the interface itself counted them (link-layer headers
    /// included). 0 when it was metered from its first packet.
    #[serde(default)]
    pub unmetered_prefix_octets: u64,
    /// How often somebody else has taken the meter off; what passed until it was back is in `unmetered_prefix_octets`.
    #[serde(default)]
    pub meter_gaps: u32,
    /// What the kernel has counted since its counters were made.
    pub kernel: KernelStatus,
}

/// What is bought for the SIM of a link. What nobody knows is `None`, never a guess.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct PackageStatus {
    /// The server's name for it.
    pub id: Option<String>,
    /// Octets bought; `None` where the server says nothing of packages (static onboarding).
    pub bought_octets: Option<u64>,
    /// Octets left: what the server said last, less what this gateway has used since.
    pub left_octets: Option<u64>,
    /// When the server said so, RFC 3339.
    pub told_at: Option<String>,
    /// When it ends, RFC 3339; `None` = never, or not known.
    pub valid_until: Option<String>,
    /// Seconds until it is used up at the average rate; `None` where left or rate are not known, or nothing moves.
    pub runs_out_seconds: Option<u64>,
}

/// What happens next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct NextStatus {
    /// `nothing`, `answer` (one is awaited), `renewal` (more is asked for in time), `ask` (more is asked for although the package was
    /// used up), `retry` (a message is sent again), `reopen` (another session is tried).
    pub what: String,
    /// When, RFC 3339; of a renewal: at the latest. `None` = when it is called for.
    pub at: Option<String>,
    /// Of a renewal: the octets of the grant that are to be left then.
    pub left_octets: Option<u64>,
}

/// The kernel's counters of one link.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct KernelStatus {
    /// Octets passed under the ceiling, uplink.
    pub passed_uplink_octets: u64,
    /// Octets passed under the ceiling, downlink.
    pub passed_downlink_octets: u64,
    /// Octets refused, uplink: never sent.
    pub refused_uplink_octets: u64,
    /// Octets refused, downlink: already paid for on the air.
    pub refused_downlink_octets: u64,
    /// Control octets that passed a shut gate, uplink.
    pub control_uplink_octets: u64,
    /// Control octets that passed a shut gate, downlink.
    pub control_downlink_octets: u64,
    /// Octets that passed throttled, uplink.
    pub throttled_uplink_octets: u64,
    /// Octets that passed throttled, downlink.
    pub throttled_downlink_octets: u64,
    /// Those of `refused_uplink_octets` that came too fast for a throttled link: never sent.
    #[serde(default)]
    pub policed_uplink_octets: u64,
    /// Those of `refused_downlink_octets` that came too fast for a throttled link: paid for on the air, for nothing.
    #[serde(default)]
    pub policed_downlink_octets: u64,
    /// Packets (super-packets count once) that were counted by what is known of them, because not all of their headers could be read.
    #[serde(default)]
    pub guessed_packets: u64,
}
