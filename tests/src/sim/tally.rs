//! What schedules have really reached: steps, records, states, outcomes, moments of death. One that reaches nothing proves nothing.

use std::collections::BTreeMap;

use agent::quota::{Operation, Outcome, Record, State, Trigger};

use super::step::KINDS;
use super::world::World;

/// How often each thing occurred.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    counts: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    crashes: BTreeMap<(&'static str, &'static str), u64>,
}

/// How often trouble struck.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// The agent died.
    pub deaths: u64,
    /// Messages were lost, doubled, late, garbled.
    pub network: u64,
    /// The server failed, refused, restarted, forgot.
    pub server: u64,
    /// A link, its SIM or its meter changed.
    pub links: u64,
    /// The power failed.
    pub power: u64,
}

impl Faults {
    /// Adds what struck another schedule.
    pub const fn add(&mut self, other: Self) {
        self.deaths += other.deaths;
        self.network += other.network;
        self.server += other.server;
        self.links += other.links;
        self.power += other.power;
    }
}

impl Tally {
    pub(super) fn count(&mut self, group: &'static str, name: &'static str) {
        *self.counts.entry(group).or_default().entry(name).or_default() += 1;
    }

    pub(super) fn count_crash(&mut self, when: &'static str, what: &'static str) {
        *self.crashes.entry((when, what)).or_default() += 1;
    }

    /// How much of a group occurred.
    #[must_use]
    pub fn total(&self, group: &str) -> u64 {
        self.counts.get(group).map_or(0, |counts| counts.values().sum())
    }

    /// How often one thing of a group occurred.
    #[must_use]
    pub fn of(&self, group: &str, name: &str) -> u64 {
        self.counts.get(group).and_then(|counts| counts.get(name)).copied().unwrap_or_default()
    }

    /// Everything of a group, and how often.
    pub fn group(&self, group: &str) -> impl Iterator<Item = (&'static str, u64)> {
        self.counts.get(group).into_iter().flatten().map(|(name, count)| (*name, *count))
    }

    /// Troubles that struck, by kind, for a line of progress.
    #[must_use]
    pub fn faults(&self) -> Faults {
        let sum = |names: &[&str]| names.iter().map(|name| self.of("steps", name)).sum();
        Faults {
            deaths: self.crashes.values().sum::<u64>() + sum(&["kill"]),
            network: sum(&[
                "unreachable",
                "request lost",
                "request doubled",
                "timed out",
                "reply lost",
                "reply doubled",
                "garbage",
                "outage",
            ]),
            server: sum(&[
                "server failed",
                "server busy",
                "refused",
                "server restarted",
                "sessions forgotten",
                "backup restored",
            ]),
            links: sum(&["SIM switched", "link down", "link replaced", "meter lost"]),
            power: sum(&["power cut"]),
        }
    }

    /// The moments at which the agent died in the middle of its work, and how often.
    pub fn crashes(&self) -> impl Iterator<Item = (String, u64)> {
        self.crashes.iter().map(|((when, what), count)| (format!("{when} {what}"), *count))
    }

    /// Adds what another schedule has reached.
    pub fn add(&mut self, other: &Self) {
        for (group, counts) in &other.counts {
            for (name, count) in counts {
                *self.counts.entry(group).or_default().entry(name).or_default() += count;
            }
        }
        for (at, count) in &other.crashes {
            *self.crashes.entry(*at).or_default() += count;
        }
    }
}

/// What schedules have to reach: groups, and the kinds of each.
pub(super) fn wanted() -> [(&'static str, Vec<&'static str>); 6] {
    [
        ("steps", KINDS.to_vec()),
        ("records", RECORDS.to_vec()),
        ("states", STATES.map(state_name).to_vec()),
        ("outcomes", OUTCOMES.to_vec()),
        ("operations", OPERATIONS.to_vec()),
        ("triggers", TRIGGERS.to_vec()),
    ]
}

impl World {
    /// Counts the states that the cores are in.
    pub(super) fn observe(&mut self) {
        let now = self.now;
        let stations = self.agent.iter().flat_map(|agent| &agent.stations);
        for state in stations.map(|station| station.quota.overview(now).state) {
            self.tally.count("states", state_name(state));
        }
    }
}

/// Every state that schedules have to reach.
const STATES: [State; 9] = [
    State::Idle,
    State::Requesting,
    State::Active,
    State::Renewing,
    State::Final,
    State::Exhausted,
    State::Offline,
    State::Returning,
    State::Draining,
];

/// A state in a word.
const fn state_name(state: State) -> &'static str {
    match state {
        State::Idle => "idle",
        State::Requesting => "requesting",
        State::Active => "active",
        State::Renewing => "renewing",
        State::Final => "final",
        State::Exhausted => "exhausted",
        State::Offline => "offline",
        State::Returning => "returning",
        State::Draining => "draining",
    }
}

/// Every kind of record that schedules have to commit, as [`kind_of`] says it.
const RECORDS: [&str; 18] = [
    "session opened",
    "container closed",
    "message sealed",
    "message acknowledged",
    "message set aside",
    "orphaned",
    "grace opened",
    "session closing",
    "session settled",
    "session closed",
    "checkpoint",
    "aborted",
    "reauthorised",
    "slice set",
    "rest uncertain",
    "message in doubt",
    "message not taken",
    "message attempted",
];

/// The kind of a record in words.
pub(super) const fn kind_of(record: &Record) -> &'static str {
    match record {
        Record::SessionOpened(_) => "session opened",
        Record::ContainerClosed { .. } => "container closed",
        Record::MessageSealed { .. } => "message sealed",
        Record::MessageAcknowledged { .. } => "message acknowledged",
        Record::MessageSetAside { .. } => "message set aside",
        Record::Orphaned { .. } => "orphaned",
        Record::GraceOpened { .. } => "grace opened",
        Record::SessionClosing { .. } => "session closing",
        Record::SessionSettled { .. } => "session settled",
        Record::SessionClosed { .. } => "session closed",
        Record::Checkpoint { .. } => "checkpoint",
        Record::Aborted { .. } => "aborted",
        Record::Reauthorised { .. } => "reauthorised",
        Record::SliceSet { .. } => "slice set",
        Record::RestUncertain { .. } => "rest uncertain",
        Record::MessageInDoubt { .. } => "message in doubt",
        Record::MessageNotTaken { .. } => "message not taken",
        Record::MessageAttempted { .. } => "message attempted",
    }
}

/// Every outcome of an attempt that schedules have to meet, as [`outcome`] says it.
const OUTCOMES: [&str; 5] = ["answered", "context not found", "rejected", "not taken", "unanswered"];

/// What an attempt came to, in words.
pub(super) const fn outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Answered(_) => "answered",
        Outcome::ContextNotFound => "context not found",
        Outcome::Rejected { .. } => "rejected",
        Outcome::NotTaken { .. } => "not taken",
        Outcome::Unanswered { .. } => "unanswered",
    }
}

/// Every operation that schedules have to send, as [`operation`] says it.
const OPERATIONS: [&str; 4] = ["create", "update", "release", "event"];

/// An operation in a word.
pub(super) const fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "create",
        Operation::Update => "update",
        Operation::Release => "release",
        Operation::Event => "event",
    }
}

/// Every trigger of a container that schedules have to meet, as [`trigger`] says it.
const TRIGGERS: [&str; 9] = [
    "quota threshold",
    "quota holding time",
    "final",
    "quota exhausted",
    "validity time",
    "forced reauthorisation",
    "time limit",
    "volume limit",
    "abnormal release",
];

/// A trigger in words.
pub(super) const fn trigger(trigger: Trigger) -> &'static str {
    match trigger {
        Trigger::QuotaThreshold => "quota threshold",
        Trigger::Qht => "quota holding time",
        Trigger::Final => "final",
        Trigger::QuotaExhausted => "quota exhausted",
        Trigger::ValidityTime => "validity time",
        Trigger::ForcedReauthorisation => "forced reauthorisation",
        Trigger::TimeLimit => "time limit",
        Trigger::VolumeLimit => "volume limit",
        Trigger::AbnormalRelease => "abnormal release",
    }
}
