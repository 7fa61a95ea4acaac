//! The one sealed message of a session that waits for its answer: attempts, back-off, and when the server counts as away.

use std::time::Duration;

use super::Route;
use super::jitter::Jitter;
use super::message::Message;
use crate::units::BootInstant;

/// Without an answer for this long the server is held to be away (Tx timer, RFC 8506 section 13); the answer is still awaited.
pub(super) const ANSWER_TIMER: Duration = Duration::from_secs(10);
const BACK_OFF_FIRST: Duration = Duration::from_secs(1);
const BACK_OFF_LAST: Duration = Duration::from_mins(5);

/// A sealed message on its way.
#[derive(Clone, Debug)]
pub(super) struct Outbox {
    pub(super) message: Message,
    since: BootInstant,
    attempt: u32,
    /// Attempts in a row that came to nothing, since one was last made at once.
    failures: u32,
    phase: Phase,
    /// Whether the session has acted on the server being away.
    overdue_met: bool,
    /// Whether the other routes were tried at once when the answer timer ran out.
    detoured: bool,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Waiting,
    BackingOff {
        until: BootInstant,
    },
    /// An earlier life may have sent it, to a server that would charge it again.
    Doubtful,
}

impl Outbox {
    /// A message that was just sealed; its first attempt goes out now. `since` says for how long the server has not answered.
    pub(super) const fn sealed(message: Message, since: BootInstant) -> Self {
        Self { message, since, attempt: 1, failures: 0, phase: Phase::Waiting, overdue_met: false, detoured: false }
    }

    /// A message found in the ledger: it may have been sent before, so it goes out as a retransmission, on the kernel's route.
    pub(super) const fn restored(message: Message, now: BootInstant) -> Self {
        Self {
            message,
            since: now,
            attempt: 2,
            failures: 0,
            phase: Phase::BackingOff { until: now },
            overdue_met: false,
            detoured: false,
        }
    }

    /// The same, of which nobody may know any more whether it was taken.
    pub(super) const fn doubtful(message: Message, now: BootInstant) -> Self {
        let mut outbox = Self::restored(message, now);
        outbox.phase = Phase::Doubtful;
        outbox
    }

    pub(super) const fn is_doubtful(&self) -> bool {
        matches!(self.phase, Phase::Doubtful)
    }

    /// Since when the server has owed an answer.
    pub(super) const fn since(&self) -> BootInstant {
        self.since
    }

    pub(super) const fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The first attempt takes the kernel's own route; later ones alternate between it and every other link in turn.
    pub(super) const fn route(&self) -> Route {
        match self.attempt {
            odd if odd % 2 == 1 => Route::Routed,
            even => Route::Detour(even / 2 - 1),
        }
    }

    /// True once: when the answer timer has run out and nobody has acted on it yet.
    pub(super) fn becomes_overdue(&mut self, now: BootInstant) -> bool {
        let becomes = !self.overdue_met && is_overdue(self.since, now);
        self.overdue_met |= becomes;
        becomes
    }

    /// The attempt failed: wait, with full jitter, up to a bound that doubles.
    pub(super) fn back_off(&mut self, retry_after: Option<Duration>, now: BootInstant, jitter: &mut Jitter) {
        self.failures = self.failures.saturating_add(1);
        self.phase = Phase::BackingOff { until: now.plus(back_off(self.failures, retry_after, jitter)) };
    }

    /// Begins the next attempt when the back-off has passed.
    pub(super) fn resume(&mut self, now: BootInstant) -> bool {
        match self.phase {
            Phase::BackingOff { until } if now >= until => {
                self.next_attempt();
                true
            }
            Phase::BackingOff { .. } | Phase::Waiting | Phase::Doubtful => false,
        }
    }

    /// When the next attempt is made; `None` while one is under way, or none is to be made.
    pub(super) const fn resumes_at(&self) -> Option<BootInstant> {
        match self.phase {
            Phase::BackingOff { until } => Some(until),
            Phase::Waiting | Phase::Doubtful => None,
        }
    }

    /// Several attempts have failed, and the next is some time off.
    pub(super) const fn is_stuck(&self) -> bool {
        self.failures > 2 && matches!(self.phase, Phase::BackingOff { .. })
    }

    /// Begins an attempt over another route beside the one still waiting; once per message.
    pub(super) fn detour(&mut self) -> bool {
        if self.detoured || !matches!(self.phase, Phase::Waiting) {
            return false;
        }
        self.detoured = true;
        self.next_attempt();
        true
    }

    /// An attempt is made at once, whatever the back-off says, and the next ones soon after it, as they go other ways (another link
    /// came up, the agent is stopping).
    pub(super) const fn hurry(&mut self, now: BootInstant) {
        if let Phase::BackingOff { .. } = self.phase {
            self.phase = Phase::BackingOff { until: now };
            self.failures = 0;
        }
    }

    /// The next instant at which this message wants attention; it stays due until it is met.
    pub(super) fn timeout(&self) -> Option<BootInstant> {
        let back_off = match self.phase {
            Phase::BackingOff { until } => Some(until),
            Phase::Waiting => None,
            Phase::Doubtful => Some(self.since),
        };
        let overdue = (!self.overdue_met).then(|| self.since.plus(ANSWER_TIMER));
        back_off.into_iter().chain(overdue).min()
    }

    const fn next_attempt(&mut self) {
        self.attempt = self.attempt.saturating_add(1);
        self.phase = Phase::Waiting;
    }
}

/// Whether a server that has owed an answer since then is held to be away.
pub(super) fn is_overdue(since: BootInstant, now: BootInstant) -> bool {
    now >= since.plus(ANSWER_TIMER)
}

/// How long to wait after so many failures in a row: with full jitter, up to a bound that doubles.
pub(super) fn back_off(failures: u32, retry_after: Option<Duration>, jitter: &mut Jitter) -> Duration {
    let doublings = failures.saturating_sub(1).min(9);
    let bound = (BACK_OFF_FIRST * 2_u32.pow(doublings)).min(BACK_OFF_LAST);
    let wait = jitter.between(Duration::from_millis(100), bound).max(retry_after.unwrap_or_default());
    wait.min(BACK_OFF_LAST)
}
