//! What the core is told about a link: the terms of its package, the meter's readings, and the gate it answers with.

use std::collections::BTreeMap;
use std::time::Duration;

use super::FailureHandling;
use super::filter::FilterRule;
use super::portal::Portal;
use crate::units::{BootInstant, Epoch, OctetRate, Octets, SubscriberIdentifier, UsedUnit};

/// What happens on the link when the package is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenUsedUp {
    /// What the server says with the last units: block, restrict or redirect; block where it says nothing.
    AsTold,
    /// Nothing but the allow-list passes, whatever the server says.
    Block,
    /// What filters permit passes: the server's, else those of [`LocalFilters::own`].
    Restrict,
    /// What does not fit under the ceiling passes at this rate, counted apart.
    Throttle(OctetRate),
}

/// Filters of the configuration, as lists of rules in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalFilters {
    /// All of them, by the names that a server may use (`filterId`).
    pub named: BTreeMap<String, Vec<String>>,
    /// The name of the one that is followed where the server names no rules and no filters.
    pub own: Option<String>,
}

/// How far a link may go on without the server under [`FailureHandling::Continue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfflineGrace {
    /// Octets beyond the last ceiling.
    pub octets: Octets,
    /// For how long, from the moment the server is held to be away.
    pub duration: Duration,
}

/// What the charging server does with a message that comes again (docs/protocol.md section 1.3, rules 1 and 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// It answers as it did before: whatever is not answered is sent again.
    Recognised,
    /// It charges again: what may have been taken is booked as in doubt and not sent again.
    Charged,
}

/// The terms a link is charged under, from the package and the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Octets asked for at a time. At least one packet.
    pub chunk: Octets,
    /// Octets asked for at a time on a link that would use up a chunk within moments; a smaller one than `chunk` counts as that.
    pub largest_chunk: Octets,
    /// Usage is reported at least this often while there is any.
    pub report_interval: Duration,
    /// The reading is committed at least this often while it moves: what a power cut can cost.
    pub checkpoint_interval: Duration,
    /// The slice: the gate is open no further than so many octets beyond what is committed; `None` = up to the grant's ceiling.
    pub max_unrecorded: Option<Octets>,
    /// What to do without an answer, unless the server says otherwise.
    pub failure_handling: FailureHandling,
    /// How far [`FailureHandling::Continue`] goes.
    pub offline_grace: OfflineGrace,
    /// What happens when the package is used up.
    pub when_used_up: WhenUsedUp,
    /// The filters of the configuration.
    pub filters: LocalFilters,
    /// Octets of control traffic let through a shut gate per hour.
    pub control_reserve: Octets,
    /// What the server does with a message that comes again.
    pub repetition: Repetition,
}

/// One reading of a link's meter: cumulative in its epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Octets that passed under the ceiling.
    pub passed: UsedUnit,
    /// Octets that passed outside the quota: throttled, or permitted by filters.
    pub throttled: UsedUnit,
    /// Control octets that passed a shut gate.
    pub control: UsedUnit,
    /// Octets refused.
    pub refused: UsedUnit,
}

/// A link that can be used: it exists, its meter is attached and its SIM is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usable {
    /// The SIM.
    pub subscriber: SubscriberIdentifier,
    /// The epoch of its meter.
    pub epoch: Epoch,
    /// Its terms.
    pub terms: Terms,
    /// The meter, read after it was attached.
    pub reading: Reading,
}

/// What the kernel does with a packet that does not fit under the ceiling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GateMode {
    /// Refuse it.
    Block,
    /// Police it at this rate.
    Throttle(OctetRate),
    /// Let it pass if the first of these rules that fits it permits it, else refuse it.
    Restrict(Vec<FilterRule>),
    /// Let it pass if it goes to the portal or comes from there, else refuse it.
    Redirect(Portal),
}

/// Whether those behind the gateway hear of it when their packets are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusals {
    /// They do not: the gate is about to open, and a packet that is sent again passes.
    Silent,
    /// They do: whoever waits would wait in vain.
    Told,
}

/// The gate of one link as the kernel holds it. Absolute in the epoch, so setting it twice changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateSetting {
    /// Octets of the epoch at which the gate shuts; zero = shut.
    pub ceiling: Octets,
    /// When it shuts regardless; `None` = never.
    pub deadline: Option<BootInstant>,
    /// Octets of the epoch at which the kernel sends a hint; `None` = no hint.
    pub threshold: Option<Octets>,
    /// Control octets of the epoch at which even the allow-list is refused.
    pub control_ceiling: Octets,
    /// What happens beyond the ceiling.
    pub mode: GateMode,
    /// Whether senders hear of a refusal.
    pub refusals: Refusals,
}
