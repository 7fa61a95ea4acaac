//! The lines of a recording: one JSON object each, in the order in which things happened.

use serde::{Deserialize, Serialize};

use crate::quota::{Event, Quota, Reading, StoredSession, Terms};
use crate::units::{BootId, BootInstant, Epoch, SubscriberIdentifier};

/// Version of this format; it changes when a line changes its meaning.
pub const SCHEMA: u32 = 1;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Line {
    /// An agent has started: the cores of the agent before it are gone.
    Life(Life),
    /// A core begins.
    Core {
        /// Its number within the life, from 0.
        core: u32,
        /// What it begins with.
        birth: Birth,
    },
    /// A core is told of an event.
    Event {
        /// The core.
        core: u32,
        /// When.
        at: BootInstant,
        /// Whether commands of what it was told before are still to be taken.
        #[serde(default, skip_serializing_if = "is_false")]
        pending: bool,
        /// The event.
        event: Event,
    },
    /// A core is told to do what is due.
    Timeout {
        /// The core.
        core: u32,
        /// When.
        at: BootInstant,
        /// Whether commands of what it was told before are still to be taken.
        #[serde(default, skip_serializing_if = "is_false")]
        pending: bool,
    },
    /// A command was taken from a core.
    Command {
        /// The core.
        core: u32,
        /// The command, as the log shows it.
        command: String,
    },
}

/// The beginning of an agent's life.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Life {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of the agent.
    pub version: String,
    /// The boot whose clock every `at` of this life is read from.
    pub boot: BootId,
    /// When it began.
    pub at: BootInstant,
}

/// Everything a core begins with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Birth {
    /// The link's name as it was then.
    pub label: String,
    /// When it began.
    pub at: BootInstant,
    /// What its chance comes from.
    pub seed: u64,
    /// The terms of the sessions it takes up.
    pub terms: Terms,
    /// What the pinned meter says, if there is one.
    pub meter: Option<(Epoch, Reading)>,
    /// Under which orders to abort.
    pub aborted: Vec<SubscriberIdentifier>,
    /// The sessions that the ledger remembers.
    pub sessions: Vec<StoredSession>,
}

impl Birth {
    /// The core that this makes, the same each time.
    #[must_use]
    pub fn quota(self) -> Quota {
        Quota::restore(self.sessions, &self.terms, self.meter.as_ref(), self.seed, self.at).with_aborted(self.aborted)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
const fn is_false(value: &bool) -> bool {
    !*value
}
