//! What the core is told, what it answers with, and what there is to see of it.

use super::message::{Grant, MessageKey, Outcome, Record, ResultCode};
use super::terms::{GateSetting, Reading, Usable};
use super::used_up::UsedUp;
use crate::units::{BootInstant, ChargingId, Epoch, OctetRate, Octets, SubscriberIdentifier, UsedUnit};

/// What happened, to the core of one link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The link's meter was attached or taken over: only control traffic passes until the link is usable.
    Metered {
        /// The epoch of the meter.
        epoch: Epoch,
        /// The meter, read after it was attached.
        reading: Reading,
        /// Octets of control traffic let through a shut gate per hour.
        control_reserve: Octets,
    },
    /// The link can be used, or is used under other terms, with another SIM, or with a new meter.
    Usable(Usable),
    /// The link is not in use any more. Its meter may still be read.
    Gone,
    /// The meter cannot be read any more; the last reading stands.
    MeterLost,
    /// The meter was taken off and then read to its end, which [`Event::Reading`] has told: nothing is uncertain.
    MeterRetired,
    /// The meter was read.
    Reading(Reading),
    /// The kernel hinted that the threshold was passed or a packet refused.
    Hint,
    /// An attempt to send came to something.
    Answer {
        /// The message.
        key: MessageKey,
        /// The attempt.
        attempt: u32,
        /// What it came to.
        outcome: Outcome,
    },
    /// The name for a new session, which no session of this device ever bore: used at once, or not at all.
    Named(ChargingId),
    /// The server or the operator asks for a new authorisation of this subscriber's units (a top-up, say). It ends an order to abort.
    Reauthorise(SubscriberIdentifier),
    /// The server orders this subscriber's session ended; it stays so until [`Event::Reauthorise`], over restarts as well. Every core
    /// is told, because the SIM may be in another link tomorrow.
    Abort(SubscriberIdentifier),
    /// The operator wants more asked for now; see [`super::Quota::renewal`] for what comes of it.
    Renew,
    /// Another route to the server has come up: waiting retries go at once.
    RouteUp,
    /// The agent is stopping: settle everything.
    Settle,
    /// The agent is stopping, but its sessions go on: commit the last reading.
    Pause,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Commit this, with the records next to it, before going on.
    Record(Record),
    /// Send the sealed message; answer with [`Event::Answer`].
    Send {
        /// The message.
        key: MessageKey,
        /// The attempt, from 1; every later one is a retransmission.
        attempt: u32,
        /// The way to the server.
        route: Route,
    },
    /// Write this to the kernel and read it back.
    SetGate(GateSetting),
    /// Draw a name that no session of this device ever bore; answer with [`Event::Named`] before anything else is done. As long as
    /// another core owes a report ([`super::Quota::owes`]) for the subscriber it is not answered, and then answered at once.
    DrawName,
    /// Read the meter now; answer with [`Event::Reading`] or [`Event::MeterLost`].
    Read,
}

/// The way a message takes to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Whichever the kernel's routing table says.
    Routed,
    /// Out of the nth link that leads to the server (counted round and round).
    Detour(u32),
}

/// The state of a credit session (the table in docs/architecture.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// No session; the gate is shut but for the allow-list.
    Idle,
    /// Waiting for the first units.
    Requesting,
    /// Units in hand.
    Active,
    /// Units in hand, a report or a request under way.
    Renewing,
    /// The last units of the package in hand.
    Final,
    /// The package is used up.
    Exhausted,
    /// The server does not answer.
    Offline,
    /// The gate is shut, the last reading is taken.
    Returning,
    /// The last messages are under way.
    Draining,
}

/// What there is to see of a link's credit session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// State of the current session.
    pub state: State,
    /// Its name.
    pub session: Option<ChargingId>,
    /// Quota octets it has used.
    pub used: UsedUnit,
    /// Octets used and not yet in a sealed message.
    pub unreported: Octets,
    /// When the first octet was seen that is in no closed container yet; `None` while there is none.
    pub open_since: Option<BootInstant>,
    /// Its last grant.
    pub grant: Option<Grant>,
    /// What is left of that grant.
    pub remaining: Octets,
    /// Present rate, both directions.
    pub rate: OctetRate,
    /// Sessions that still have something to be acknowledged, the current one apart.
    pub draining: usize,
    /// What becomes of traffic now that the package is used up; `None` while it is not.
    pub used_up: Option<UsedUp>,
    /// The same from the last units on, while they are being used.
    pub at_the_end: Option<UsedUp>,
    /// Whether the server has ordered this SIM's sessions ended.
    pub aborted: bool,
    /// What is done next without anybody's doing.
    pub next: Next,
}

impl Overview {
    /// Tells a server that refuses a session or units, or a session in doubt, from a package that is used up.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        let denied = self.grant.as_ref().is_some_and(|grant| grant.result == ResultCode::Denied);
        self.state == State::Exhausted && (denied || matches!(self.next, Next::Reopen(_)))
    }
}

/// What a core does next by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it waits for traffic, a SIM or an order.
    Nothing,
    /// A message is under way.
    Answer,
    /// More is asked for when so many octets of the grant are left, or then at the latest.
    Renewal {
        /// Octets of the grant.
        left: Octets,
        /// When its validity calls for it; `None` = never.
        by: Option<BootInstant>,
    },
    /// More is asked for then, a used-up package notwithstanding.
    Ask(BootInstant),
    /// A message that came to nothing is sent again then.
    Retry(BootInstant),
    /// After a refusal another session is tried then.
    Reopen(BootInstant),
}

/// What comes of [`Event::Renew`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// More is asked for at once; what waits to be sent again is sent again.
    Asks,
    /// A message is under way already; more is asked for when it is answered.
    AfterAnswer,
    /// It was asked a moment ago: not before then.
    TooSoon(BootInstant),
    /// The link is in no use, or has no SIM or no meter.
    NotInUse,
    /// The server has ordered this SIM's sessions ended; only the server takes that back.
    Aborted,
    /// The last session is being settled, or the link idles: units are asked for when traffic comes.
    NoSession,
}
