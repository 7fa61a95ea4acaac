//! What the ledger takes and gives: seal requests, sealed messages, sums.

use crate::clock::Label;
use crate::quota::{Container, Message, MessageKey, Operation, QuotaManagement, SessionOpening, Trigger};
use crate::units::{ChargingId, Octets, SessionRef, SubscriberIdentifier, UsedUnit};

/// A container with the wall-clock labels it was recorded with (microseconds; they never change afterwards).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledContainer {
    /// The interval.
    pub container: Container,
    /// When the first octet of it was seen.
    pub first_usage: Label,
    /// When the last octet of it was seen.
    pub last_usage: Label,
    /// When it was closed.
    pub closed_at: Label,
}

/// Everything the exact bytes of a message are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealRequest {
    /// Whose message it is.
    pub opening: SessionOpening,
    /// The server's name for the session, once create was answered.
    pub session_ref: Option<SessionRef>,
    /// The message.
    pub message: Message,
    /// Its containers, in the message's order.
    pub containers: Vec<LabelledContainer>,
    /// When it was sealed.
    pub sealed_at: Label,
}

/// A message that is to be sent, exactly as it was sealed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedMessage {
    /// Its name.
    pub key: MessageKey,
    /// What it does.
    pub operation: Operation,
    /// Who pays.
    pub subscriber: SubscriberIdentifier,
    /// The server's name for the session, once create was answered.
    pub session_ref: Option<SessionRef>,
    /// The exact bytes.
    pub body: Vec<u8>,
    /// Attempts counted in this run of the agent.
    pub attempts: u32,
    /// True when the next attempt has to say so: it was attempted in this run, or was sealed in an earlier one (which may have sent it).
    pub retransmission: bool,
}

/// What a batch did beyond what its records say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Messages that had been acknowledged before: nothing was changed for them.
    pub repeated: Vec<MessageKey>,
}

/// Usage by its relation to the quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Octets of the quota.
    pub online: UsedUnit,
    /// Octets that passed outside the quota.
    pub offline: UsedUnit,
}

impl Usage {
    /// Nothing used.
    pub const ZERO: Self = Self { online: UsedUnit::ZERO, offline: UsedUnit::ZERO };

    /// The usage of one container.
    #[must_use]
    pub const fn of(container: &Container) -> Self {
        match container.quota_management {
            QuotaManagement::Online => Self { online: container.used, offline: UsedUnit::ZERO },
            QuotaManagement::Offline => Self { online: UsedUnit::ZERO, offline: container.used },
        }
    }

    /// Sum, held at the end of the range.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self { online: self.online.saturating_add(other.online), offline: self.offline.saturating_add(other.offline) }
    }

    /// All octets, in and outside the quota.
    #[must_use]
    pub const fn total(self) -> Octets {
        self.online.total().saturating_add(self.offline.total())
    }
}

impl<'a> FromIterator<&'a Container> for Usage {
    fn from_iter<I: IntoIterator<Item = &'a Container>>(containers: I) -> Self {
        containers.into_iter().fold(Self::ZERO, |sum, container| sum.saturating_add(Self::of(container)))
    }
}

impl FromIterator<Self> for Usage {
    fn from_iter<I: IntoIterator<Item = Self>>(usages: I) -> Self {
        usages.into_iter().fold(Self::ZERO, Self::saturating_add)
    }
}

/// The books of one session: everything closed, and where it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionAudit {
    /// Its name.
    pub session: ChargingId,
    /// Who pays.
    pub subscriber: SubscriberIdentifier,
    /// The server's name for it, once create was answered.
    pub session_ref: Option<SessionRef>,
    /// When it was opened.
    pub opened_at: Label,
    /// Set when it is closing.
    pub closing: Option<Trigger>,
    /// Set when the server has lost it: what is left goes as one-time events.
    pub orphaned: bool,
    /// Everything ever closed.
    pub closed: Usage,
    /// Quota octets ever put into a sealed message.
    pub reported: Octets,
    /// Of `closed`: acknowledged by the server.
    pub acknowledged: Usage,
    /// Of `closed`: not yet in a message.
    pub pending: Usage,
    /// Containers not yet in a message.
    pub pending_containers: usize,
    /// Of `closed`: in the sealed message that waits for its answer.
    pub outstanding: Usage,
    /// Of `closed`: in messages that were refused for good or are in doubt.
    pub set_aside: Usage,
    /// Start of the oldest usage that is neither acknowledged nor set aside.
    pub oldest_unreported: Option<Label>,
    /// Grants received.
    pub grants: u32,
    /// Octets granted in all of them together.
    pub granted: Octets,
}

impl SessionAudit {
    /// Octets by which the books do not close. Must be zero.
    #[must_use]
    pub fn drift(&self) -> Octets {
        let parts = [self.acknowledged, self.pending, self.outstanding, self.set_aside];
        let parts: Usage = parts.into_iter().collect();
        let apart = |left: Octets, right: Octets| Octets::new(left.get().abs_diff(right.get()));
        [
            apart(self.closed.online.uplink, parts.online.uplink),
            apart(self.closed.online.downlink, parts.online.downlink),
            apart(self.closed.offline.uplink, parts.offline.uplink),
            apart(self.closed.offline.downlink, parts.offline.downlink),
        ]
        .into_iter()
        .fold(Octets::ZERO, Octets::saturating_add)
    }
}

/// Usage that is recorded but neither acknowledged nor set aside, over all sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buffered {
    /// Containers that hold it.
    pub containers: usize,
    /// Its octets, in and outside the quota.
    pub octets: Octets,
    /// Start of the oldest of it.
    pub oldest: Option<Label>,
}

/// Why a message was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The server refused it for good.
    Refused,
    /// It may have been taken by a server that would charge it again.
    InDoubt,
}

/// A message the server refused for good, or may have taken without an answer: shown, not sent again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// Its name.
    pub key: MessageKey,
    /// What it was to do.
    pub operation: Operation,
    /// Who would pay.
    pub subscriber: SubscriberIdentifier,
    /// Whether it was refused or is in doubt.
    pub verdict: Verdict,
    /// Why.
    pub cause: String,
    /// The usage it reports.
    pub usage: Usage,
    /// When it was sealed.
    pub sealed_at: Label,
    /// When it was set aside.
    pub set_aside_at: Label,
}

/// The span of one history bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Granularity {
    /// Five minutes.
    FiveMinutes,
    /// An hour of the clock on the wall.
    Hour,
    /// A day.
    Day,
    /// A calendar month.
    Month,
}

/// Which usage a history shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Only what the server has acknowledged.
    Acknowledged,
    /// Everything recorded: acknowledged, waiting, and set aside.
    Recorded,
}

/// The usage of one subscriber in one span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageBucket {
    /// Who pays.
    pub subscriber: SubscriberIdentifier,
    /// Start of the span. A day and a month are dates, of the zone in which the agent lived then: this is the midnight of that date in UTC.
    pub start: jiff::Timestamp,
    /// What was used.
    pub usage: Usage,
    /// False when some of it was labelled by a clock that was not synchronised.
    pub synced: bool,
}
