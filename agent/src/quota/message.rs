//! What is written down and sent: containers, messages, grants, and the answers to them.

use std::time::Duration;

use crate::units::{
    BootInstant, ChargingId, Epoch, InvocationSequenceNumber, LocalSequenceNumber, Octets, SessionRef,
    SubscriberIdentifier, UsedUnit,
};

/// Why a container was closed or a message sent (TS 32.291 `TriggerType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// What remains of the grant fell to the volume quota threshold.
    QuotaThreshold,
    /// The quota holding time passed without traffic.
    Qht,
    /// The session ends.
    Final,
    /// The grant is used up.
    QuotaExhausted,
    /// The grant's validity time is about to end.
    ValidityTime,
    /// The server (or the operator) asked for a new authorisation.
    ForcedReauthorisation,
    /// The report interval passed.
    TimeLimit,
    /// The container would have grown past 2^31 - 1 octets.
    VolumeLimit,
    /// The counters' epoch ended without a proper close: what was last recorded is billed.
    AbnormalRelease,
}

/// Whether a container draws on the granted quota (TS 32.291 `QuotaManagementIndicator`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuotaManagement {
    /// Octets of the grant: debited from the package.
    Online,
    /// Octets that passed outside the quota (throttled after use-up, or permitted then): told, never debited.
    Offline,
}

/// A closed interval of usage. Immutable once closed; below 2^31 octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its number within the session.
    pub number: LocalSequenceNumber,
    /// The octets of the interval.
    pub used: UsedUnit,
    /// Whether they draw on the quota.
    pub quota_management: QuotaManagement,
    /// Why it was closed.
    pub trigger: Trigger,
    /// When the first octet of it was seen (boot time of the session's boot).
    pub first_usage: BootInstant,
    /// When the last octet of it was seen.
    pub last_usage: BootInstant,
    /// When it was closed.
    pub closed_at: BootInstant,
}

impl Container {
    /// Octets of it that draw on the quota.
    #[must_use]
    pub const fn quota_octets(&self) -> Octets {
        match self.quota_management {
            QuotaManagement::Online => self.used.total(),
            QuotaManagement::Offline => Octets::ZERO,
        }
    }
}

/// The operation of a message (TS 32.291 clause 6.1.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Opens the session and asks for the first units.
    Create,
    /// Reports used units and may ask for more.
    Update,
    /// Reports the last used units and gives the rest back.
    Release,
    /// A one-time post-event charge (PEC) for usage whose session the server no longer knows.
    Event,
}

/// Names one sealed message for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageKey {
    /// The session it belongs to.
    pub session: ChargingId,
    /// Its number within the session.
    pub number: InvocationSequenceNumber,
}

/// One message, complete but for wall-clock labels and identity. Once recorded it never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its number within the session.
    pub number: InvocationSequenceNumber,
    /// What it does.
    pub operation: Operation,
    /// Octets asked for; `None` asks for nothing (no `requestedUnit` but for release, which sends it empty).
    pub requested: Option<Octets>,
    /// The containers it carries, oldest first, at most [`super::MAX_CONTAINERS`].
    pub containers: Vec<LocalSequenceNumber>,
    /// Why it is sent; `None` for create.
    pub trigger: Option<Trigger>,
    /// Quota octets reported by this session up to and including this message: the zero point of the grant in its answer.
    pub reported: Octets,
    /// When it was sealed.
    pub sealed_at: BootInstant,
}

/// What to do when the package is used up (TS 32.291 `FinalUnitAction`, RFC 8506 section 5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinalUnitAction {
    /// Block.
    Terminate,
    /// Lead people to a portal; nothing else passes.
    Redirect,
    /// Let through what the filters permit.
    RestrictAccess,
}

/// What still passes a used-up link, in the server's own words: they are judged when the link is used up, and kept as they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exceptions {
    /// Filter rules (`restrictionFilterRule`, `restrictionFilterRuleList`), in their order.
    pub rules: Vec<String>,
    /// Names of filters that the gateway itself has (`filterId`, `filterIdList`).
    pub filters: Vec<String>,
    /// Where to lead people: an address in the form of a URL (`redirectServer`).
    pub portal: Option<String>,
}

/// What to do when the server does not answer (TS 32.291 `FailureHandling`, RFC 8506 section 8.14).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureHandling {
    /// Shut at the ceiling.
    Terminate,
    /// Go on up to the offline grace.
    Continue,
    /// Try every other route first, then shut at the ceiling.
    RetryAndTerminate,
}

/// How the server judged the request for units (TS 32.291 `ResultCode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResultCode {
    /// Units were granted.
    Success,
    /// The package is used up.
    QuotaLimitReached,
    /// Refused for another reason.
    Denied,
}

/// The units of one answer (TS 32.291 `MultipleUnitInformation`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantedUnit {
    /// The judgement.
    pub result: ResultCode,
    /// Octets granted, counted from what the request reported. Zero when nothing was granted.
    pub octets: Octets,
    /// Remaining octets at which to ask again, when the server says so.
    pub volume_quota_threshold: Option<Octets>,
    /// How long the grant may be used, from receipt.
    pub validity_time: Option<Duration>,
    /// How long the link may idle before the session is returned.
    pub quota_holding_time: Option<Duration>,
    /// Set when these are the last units of the package.
    pub final_unit: Option<FinalUnitAction>,
    /// What still passes after them.
    pub exceptions: Exceptions,
}

impl GrantedUnit {
    /// Nothing granted, for want of a word from the server.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            result: ResultCode::Denied,
            octets: Octets::ZERO,
            volume_quota_threshold: None,
            validity_time: None,
            quota_holding_time: None,
            final_unit: None,
            exceptions: Exceptions { rules: Vec::new(), filters: Vec::new(), portal: None },
        }
    }
}

/// A positive answer to one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The server's name for the session, from `Location` (create only).
    pub session_ref: Option<SessionRef>,
    /// Units, when the request asked for some.
    pub granted: Option<GrantedUnit>,
    /// The server's wish for failure handling, when it has one.
    pub failure_handling: Option<FailureHandling>,
}

/// What came of one attempt to send a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A positive answer to that very number.
    Answered(Answer),
    /// The server does not know the session (404 `CONTEXT_NOT_FOUND`).
    ContextNotFound,
    /// A definite no to this message (any other 4xx but 401, 408 and 429).
    Rejected {
        /// HTTP status.
        status: u16,
        /// The problem document's `cause`, or its title.
        cause: String,
    },
    /// The message was certainly not taken: it never left, or the server said so (401, 429, 503).
    NotTaken {
        /// How long the server asked to wait, if it did.
        retry_after: Option<Duration>,
        /// For the log.
        reason: String,
    },
    /// No usable answer: timed out, broken off, other 5xx, garbage. The message may or may not have been taken.
    Unanswered {
        /// How long the server asked to wait, if it did.
        retry_after: Option<Duration>,
        /// For the log.
        reason: String,
    },
}

/// A grant as it is recorded: absolute within its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Session octets at which the gate shuts: reported in the request + granted in its answer.
    pub ceiling: Octets,
    /// Octets granted.
    pub octets: Octets,
    /// Remaining octets at which to ask again.
    pub threshold: Octets,
    /// When it ends; `None` = never.
    pub valid_until: Option<BootInstant>,
    /// Idle time before the session is returned; `None` = never.
    pub holding: Option<Duration>,
    /// Set when these are the last units of the package.
    pub final_unit: Option<FinalUnitAction>,
    /// What still passes after them.
    pub exceptions: Exceptions,
    /// How the server judged.
    pub result: ResultCode,
}

/// The opening of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOpening {
    /// Its name.
    pub session: ChargingId,
    /// Who pays.
    pub subscriber: SubscriberIdentifier,
    /// The epoch of the counters it is measured with.
    pub epoch: Epoch,
    /// `passed` of that epoch when the session was opened.
    pub base: UsedUnit,
    /// `throttled` of that epoch when the session was opened.
    pub base_throttled: UsedUnit,
    /// When it was opened.
    pub opened_at: BootInstant,
}

/// One write to the ledger. Records that follow each other in the command queue are committed together, before the next
/// command is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A session begins.
    SessionOpened(SessionOpening),
    /// An interval of usage is closed.
    ContainerClosed {
        /// The session.
        session: ChargingId,
        /// The interval.
        container: Container,
    },
    /// A message is sealed: its exact bytes are committed with this record.
    MessageSealed {
        /// The session.
        session: ChargingId,
        /// The message.
        message: Message,
    },
    /// The server has acknowledged that very message: its bytes and containers may go, the history stays.
    MessageAcknowledged {
        /// The message.
        key: MessageKey,
        /// The server's name for the session, if the answer gave it.
        session_ref: Option<SessionRef>,
        /// The grant in the answer.
        grant: Option<Grant>,
        /// What the answer wants done when there is none; `None` leaves the wish as it was.
        failure_handling: Option<FailureHandling>,
    },
    /// The server has refused that message for good: kept, shown, not sent again.
    MessageSetAside {
        /// The message.
        key: MessageKey,
        /// Why.
        cause: String,
    },
    /// The message may have been taken by a server that would charge it again: kept, shown, not sent again.
    MessageInDoubt {
        /// The message.
        key: MessageKey,
        /// What came of the attempt.
        reason: String,
    },
    /// The attempts so far were certainly not taken, which holds over a restart. Only for a server that charges what comes again.
    MessageNotTaken {
        /// The message.
        key: MessageKey,
    },
    /// The message is about to be attempted again: from here on it may have been taken.
    MessageAttempted {
        /// The message.
        key: MessageKey,
    },
    /// The server does not know the session any more (or never named it). A message of it that waits for an answer is void and
    /// goes; its containers and those not yet sealed are sent as one-time events, under the same names, so that the
    /// server knows again what it has booked already.
    Orphaned {
        /// The session.
        session: ChargingId,
    },
    /// The offline grace was opened: the ceiling is held at `ceiling` until `until`.
    GraceOpened {
        /// The session.
        session: ChargingId,
        /// Session octets at which the gate shuts.
        ceiling: Octets,
        /// When the grace ends.
        until: BootInstant,
    },
    /// The session takes no more usage: it will be released once its last reading is sealed.
    SessionClosing {
        /// The session.
        session: ChargingId,
        /// Why.
        trigger: Trigger,
    },
    /// The last reading of a closing session is taken: whatever the meter counts from now on is another session's.
    SessionSettled {
        /// The session.
        session: ChargingId,
    },
    /// The server has ordered this subscriber's sessions ended: none is opened any more. Comes again from each link's core.
    Aborted {
        /// The subscriber.
        subscriber: SubscriberIdentifier,
    },
    /// The server has asked for this subscriber again: the order to abort is over.
    Reauthorised {
        /// The subscriber.
        subscriber: SubscriberIdentifier,
    },
    /// Everything of the session is acknowledged.
    SessionClosed {
        /// The session.
        session: ChargingId,
    },
    /// The cumulative reading of the session's epoch: what is billed after a power cut.
    Checkpoint {
        /// The session.
        session: ChargingId,
        /// `passed`, cumulative in the epoch.
        passed: UsedUnit,
        /// `throttled`, cumulative in the epoch.
        throttled: UsedUnit,
        /// When it was read.
        at: BootInstant,
    },
    /// From now on the gate is open no further than a slice beyond what is recorded.
    SliceSet {
        /// The session.
        session: ChargingId,
        /// Octets; `None` = up to the ceiling that was granted.
        slice: Option<Octets>,
    },
    /// The counters are lost, and with them what passed after the last reading: told to people, never billed.
    RestUncertain {
        /// The session.
        session: ChargingId,
        /// At most so many quota octets.
        octets: Octets,
    },
}

/// A session as the ledger remembers it after a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSession {
    /// How it was opened.
    pub opening: SessionOpening,
    /// The server's name for it, once create was answered.
    pub session_ref: Option<SessionRef>,
    /// Set when it is closing.
    pub closing: Option<Trigger>,
    /// Set when its last reading is taken.
    pub settled: bool,
    /// Set when the server has lost it: what is left goes as one-time events.
    pub orphaned: bool,
    /// Sum of all quota containers ever closed, acknowledged or not.
    pub closed: UsedUnit,
    /// Sum of all containers outside the quota ever closed.
    pub closed_throttled: UsedUnit,
    /// Sum (octets, quota) of all containers ever put into a sealed message.
    pub reported: Octets,
    /// The number of the next container.
    pub next_container: LocalSequenceNumber,
    /// The number of the next message.
    pub next_message: InvocationSequenceNumber,
    /// Quota octets of each container closed but not yet in a sealed message, oldest first; the last one's number is the one before
    /// `next_container`. A long backlog is many of them: the ledger keeps the rest.
    pub pending: Vec<Octets>,
    /// The sealed message that has not been acknowledged.
    pub outstanding: Option<Message>,
    /// Whether that message was certainly not taken yet.
    pub not_taken: bool,
    /// The last grant.
    pub grant: Option<Grant>,
    /// The failure handling that the server asked for last, if it ever did.
    pub failure_handling: Option<FailureHandling>,
    /// The offline grace, if it was opened after that grant.
    pub grace: Option<(Octets, BootInstant)>,
    /// The last checkpoint (`passed`, `throttled`), cumulative in the epoch.
    pub checkpoint: Option<(UsedUnit, UsedUnit)>,
    /// Session octets at which the gate shut at the highest.
    pub highest_ceiling: Octets,
    /// How far beyond what is recorded the gate was open at most; `None` = up to `highest_ceiling`.
    pub slice: Option<Octets>,
    /// What may have passed after the last reading, once that was found to be lost.
    pub uncertain: Option<Octets>,
}

impl StoredSession {
    /// A session of which nothing is known but that it was opened.
    #[must_use]
    pub const fn opened(opening: SessionOpening) -> Self {
        Self {
            opening,
            session_ref: None,
            closing: None,
            settled: false,
            orphaned: false,
            closed: UsedUnit::ZERO,
            closed_throttled: UsedUnit::ZERO,
            reported: Octets::ZERO,
            next_container: LocalSequenceNumber::new(1),
            next_message: InvocationSequenceNumber::new(0),
            pending: Vec::new(),
            outstanding: None,
            not_taken: false,
            grant: None,
            failure_handling: None,
            grace: None,
            checkpoint: None,
            highest_ceiling: Octets::ZERO,
            slice: None,
            uncertain: None,
        }
    }
}
