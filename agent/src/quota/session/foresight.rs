//! How early a session asks for more units, and for how many: by the rate of its link and the usual time to an answer.

use std::time::Duration;

use super::Session;
use crate::quota::Grant;
use crate::quota::outbox::ANSWER_TIMER;
use crate::units::{BootInstant, OctetRate, Octets};

/// A rate is measured over at least this span: a shorter one says little.
const LEAST_SPAN: Duration = Duration::from_millis(20);
/// What was measured so long ago counts half as much as what is measured now.
const MEMORY: Duration = Duration::from_millis(200);
/// The time to an answer before there was one (as the first retransmission time-out of RFC 6298 section 2).
const FIRST_GUESS: Duration = Duration::from_secs(1);
/// Beside twice the usual time to an answer: for a commit on a slow disk, and for a reading that comes late.
const MARGIN: Duration = Duration::from_millis(250);
/// A chunk lasts for this long at least, at the present rate and as far as the largest chunk goes.
const CHUNK_TIME: Duration = Duration::from_secs(2);

/// What a session has seen of its link and of its server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Foresight {
    rate: OctetRate,
    /// Since when octets have been added up for the next measurement, and how many.
    measured: (BootInstant, Octets),
    /// The usual time from a sealed message to its answer.
    answer_time: Option<Duration>,
    /// So many octets are to be left when it asks.
    early: Octets,
    /// What the server granted last, if that was less than was asked for and not the end of the package.
    short: Option<Octets>,
}

impl Foresight {
    pub(super) const fn new(now: BootInstant) -> Self {
        Self {
            rate: OctetRate::per_second(0),
            measured: (now, Octets::ZERO),
            answer_time: None,
            early: Octets::ZERO,
            short: None,
        }
    }

    /// Takes what has passed since the last reading. The rate follows a flow that begins within some hundred milliseconds.
    pub(super) fn read(&mut self, moved: Octets, now: BootInstant) {
        let (since, octets) = self.measured;
        let octets = octets.saturating_add(moved);
        let span = now.since(since);
        if span < LEAST_SPAN {
            self.measured = (since, octets);
            return;
        }
        self.measured = (now, Octets::ZERO);
        let remembered = u128::from(self.rate.get()) * MEMORY.as_millis();
        let smoothed = (remembered + u128::from(octets.get()) * 1000) / (MEMORY.as_millis() + span.as_millis());
        self.rate = OctetRate::per_second(u64::try_from(smoothed).unwrap_or(u64::MAX));
    }

    /// Has more asked for earlier when the rate calls for it. Until the next grant that only grows, and in steps: each is written to the
    /// kernel.
    pub(super) fn look_ahead(&mut self) {
        if self.needed() > self.early {
            self.early = self.needed().scaled(5, 4);
        }
    }

    /// An answer has come to the first attempt: a longer time is believed at once, a shorter one bit by bit. Time spent on retries is
    /// no time to an answer.
    pub(super) fn answered(&mut self, took: Duration) {
        let took = took.min(ANSWER_TIMER);
        let before = self.answer_time.unwrap_or(took);
        self.answer_time = Some(took.max(before.saturating_sub(before.saturating_sub(took) / 8)));
    }

    /// A grant takes the place of the one before it.
    pub(super) fn granted(&mut self, grant: &Grant, requested: Option<Octets>) {
        self.early = self.needed();
        let is_short = requested.is_some_and(|requested| grant.octets < requested) && grant.final_unit.is_none();
        self.short = is_short.then_some(grant.octets);
    }

    /// How long before it runs out of units a session asks for more. The rate or the time to the answer may double meanwhile.
    fn lead(&self) -> Duration {
        self.answer_time.unwrap_or(FIRST_GUESS) * 2 + MARGIN
    }

    /// What passes at the present rate until there is an answer, with room for surprises.
    pub(super) fn needed(&self) -> Octets {
        self.rate.over(self.lead())
    }

    /// Remaining octets at which to ask for more: the grant's own threshold, and earlier on a link that is too fast for that. At most
    /// half the grant, so that two requests have at least the other half between them.
    pub(super) fn threshold(&self, grant: &Grant) -> Octets {
        grant.threshold.max(self.early.min(grant.octets.scaled(1, 2)))
    }
}

impl Session {
    /// The present rate, both directions.
    pub(in crate::quota) const fn rate(&self) -> OctetRate {
        self.foresight.rate
    }

    /// Octets until more is asked for; `None` without a grant.
    pub(in crate::quota) fn until_asking(&self) -> Option<Octets> {
        let threshold = self.foresight.threshold(self.grant.as_ref()?);
        Some(self.remaining().saturating_sub(threshold))
    }

    /// Octets to ask for: what lasts for some seconds, between the usual chunk and the largest. A server that gave less than it was
    /// asked for is asked for no more than twice that.
    pub(super) fn request(&self) -> Octets {
        // Half of it is the most that a threshold can be.
        let lasts = CHUNK_TIME.max(self.foresight.lead() * 2);
        let most = self
            .foresight
            .short
            .map_or(self.terms.largest_chunk, |got| self.terms.largest_chunk.min(got.saturating_add(got)));
        self.rate().over(lasts).min(most).max(self.terms.chunk)
    }
}
