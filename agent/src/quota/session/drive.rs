//! What a session does next: closes intervals, seals messages, tells which gate it wants and when it must be asked again.

use super::{
    Closing, Exhausted, Fate, Jitter, LARGEST_PACKET, LEAST_DWELL, MAX_CONTAINERS, Outbox, Session, VALIDITY_MARGIN,
};
use crate::quota::outbox::is_overdue;
use crate::quota::{
    Command, FailureHandling, GateMode, Next, Operation, Record, Repetition, ResultCode, State, Trigger, UsedUp,
};
use crate::units::{BootInstant, Octets};

/// Why a session sends a message now.
struct Reason {
    trigger: Trigger,
    /// Whether the message asks for units.
    asks: bool,
}

/// The gate a session wants, in octets of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::quota) struct WantedGate {
    pub(in crate::quota) ceiling: Octets,
    pub(in crate::quota) deadline: Option<BootInstant>,
    pub(in crate::quota) threshold: Option<Octets>,
    pub(in crate::quota) mode: GateMode,
}

impl Session {
    /// Does what is due at `now`. Calling it again at the same instant does nothing more.
    pub(in crate::quota) fn drive(&mut self, now: BootInstant, jitter: &mut Jitter, out: &mut Vec<Command>) -> Fate {
        let judged = self.judge_what_was_restored(now, out);
        if judged == Fate::Ended {
            return judged;
        }
        match self.go_on(now, jitter, out) {
            Fate::Lives => judged,
            fate @ (Fate::Ended | Fate::Refused | Fate::Doubted) => fate,
        }
    }

    fn go_on(&mut self, now: BootInstant, jitter: &mut Jitter, out: &mut Vec<Command>) -> Fate {
        self.watch_outbox(now, out);
        self.watch_hold(now);
        if self.closing.is_some() {
            return self.drive_closing(now, out);
        }
        self.watch_exhaustion(now);
        self.grace_over = self.grace.is_some_and(|(_, until)| now >= until);
        if self.idle_until().is_some_and(|until| now >= until) {
            self.close(Trigger::Qht, now, out);
            return Fate::Lives;
        }
        if now >= self.interval_ends() && self.has_open_usage() {
            self.close_interval(Trigger::TimeLimit, now, out);
        }
        if self.may_seal()
            && let Some(reason) = self.reason(now)
        {
            self.close_interval(reason.trigger, now, out);
            self.reauthorise = false;
            if let Some(exhausted) = self.exhausted.as_mut().filter(|_| reason.asks) {
                exhausted.polled(now, jitter);
            }
            let request = reason.asks.then(|| self.request());
            self.seal(Operation::Update, request, Some(reason.trigger), now, out);
        }
        self.checkpoint(now, out);
        self.record_slice(out);
        Fate::Lives
    }

    /// The next instant at which [`Session::drive`] has something to do.
    pub(in crate::quota) fn timeout(&self) -> Option<BootInstant> {
        let mut due = Vec::with_capacity(8);
        if let Some(outbox) = &self.outbox {
            due.extend(outbox.timeout());
        }
        due.extend(self.doubt.hold_until);
        if let Some(Closing { settles_at: Some(settles_at), .. }) = self.closing {
            due.push(settles_at);
        }
        if self.closing.is_none() {
            self.open_timers(&mut due);
        }
        due.into_iter().min()
    }

    /// What the session does next by itself.
    pub(in crate::quota) fn next(&self) -> Next {
        if let Some(outbox) = &self.outbox {
            return outbox.resumes_at().map_or(Next::Answer, Next::Retry);
        }
        if let Some(until) = self.doubt.hold_until {
            return Next::Retry(until);
        }
        match (&self.closing, &self.exhausted, &self.grant) {
            (Some(_), _, _) | (None, None, None) => Next::Nothing,
            (None, Some(exhausted), _) => Next::Ask(exhausted.poll_at),
            (None, None, Some(grant)) if grant.final_unit.is_some() => Next::Nothing,
            (None, None, Some(grant)) => Next::Renewal { left: self.foresight.threshold(grant), by: self.renews_at() },
        }
    }

    /// The gate this session wants; `None` = shut.
    pub(in crate::quota) fn wanted_gate(&self) -> Option<WantedGate> {
        if self.closing.is_some() || !self.live {
            return None;
        }
        let mode = self.used_up().map_or(GateMode::Block, |used_up| used_up.mode);
        let ceiling = self.granted_ceiling()?;
        let (deadline, threshold) = match (self.grace.filter(|_| !self.grace_over), &self.grant) {
            (Some((_, until)), _) => (Some(until), None),
            (None, Some(grant)) => {
                let asks = grant.final_unit.is_none();
                (grant.valid_until, asks.then(|| ceiling.saturating_sub(self.foresight.threshold(grant))))
            }
            (None, None) => return None,
        };
        let gate = WantedGate { ceiling, deadline, threshold, mode };
        Some(match self.slice_ends() {
            None => gate,
            Some((ceiling, moves_at)) => {
                let threshold = Some(threshold.map_or(moves_at, |threshold| threshold.min(moves_at)));
                WantedGate { ceiling, threshold, ..gate }
            }
        })
    }

    /// What becomes of traffic when the package is used up; `None` while it is not.
    pub(in crate::quota) fn used_up(&self) -> Option<UsedUp> {
        self.exhausted?;
        self.at_the_end()
    }

    /// What will become of traffic at the end of the units in hand, or has; `None` while more may follow.
    pub(in crate::quota) fn at_the_end(&self) -> Option<UsedUp> {
        let is_last = self.exhausted.is_some() || self.grant.as_ref().is_some_and(|grant| grant.final_unit.is_some());
        let (action, exceptions) = &self.last_words;
        is_last.then(|| UsedUp::of(&self.terms, *action, exceptions))
    }

    /// Session octets up to which there are units, or grace; `None` before the first grant.
    pub(super) fn granted_ceiling(&self) -> Option<Octets> {
        if let Some((ceiling, _)) = self.grace.filter(|_| !self.grace_over) {
            return Some(ceiling);
        }
        let granted = self.grant.as_ref()?.ceiling;
        // Until the least dwell has passed, a larger grant is held back.
        Some(self.exhausted.map_or(granted, |exhausted| granted.min(exhausted.ceiling)))
    }

    /// The gate is set, `raised` if it lets more pass than before. True when a reading is needed before that can be relied on: the
    /// counters tell how much was refused and not when, and a narrower slice holds for what is read from here on.
    pub(in crate::quota) fn gate_is_set(&mut self, raised: bool) -> bool {
        // What a slice has no room for does not use up the grant.
        let raised = raised && self.slice_ends().is_none();
        if raised {
            self.raised = true;
            self.refused_lately = false;
        }
        let narrowed = self.narrows_slice();
        raised || narrowed
    }

    /// Until the reading that follows a raised gate.
    pub(in crate::quota) const fn is_raised(&self) -> bool {
        self.raised
    }

    /// The state of the table in docs/architecture.md.
    pub(in crate::quota) fn state(&self, now: BootInstant) -> State {
        if self.closing.is_some() {
            return if self.live { State::Returning } else { State::Draining };
        }
        if self.exhausted.is_some() {
            return State::Exhausted;
        }
        let owed = self.outbox.as_ref().map(Outbox::since).or(self.doubt.since);
        if owed.is_some_and(|since| is_overdue(since, now)) {
            return State::Offline;
        }
        match &self.grant {
            None => State::Requesting,
            Some(grant) if grant.final_unit.is_some() => State::Final,
            Some(_) if self.outbox.is_some() => State::Renewing,
            Some(_) => State::Active,
        }
    }

    /// Retries, and what the failure handling says once the answer timer has run out.
    fn watch_outbox(&mut self, now: BootInstant, out: &mut Vec<Command>) {
        let handling = self.failure_handling.unwrap_or(self.terms.failure_handling);
        let Some(mut outbox) = self.outbox.take() else { return };
        let overdue = outbox.becomes_overdue(now);
        // Beside an attempt that may still be taken, none is made at a server that would charge both.
        let may_detour = overdue && self.terms.repetition == Repetition::Recognised;
        let detours = may_detour && handling == FailureHandling::RetryAndTerminate && outbox.detour();
        if detours || outbox.resume(now) {
            self.send_again(&outbox, out);
        }
        self.outbox = Some(outbox);
        let used_up = self.exhausted.is_some() || self.grant.as_ref().is_some_and(|grant| grant.final_unit.is_some());
        let (spent, ends) = self.grace_spent;
        let octets = self.terms.offline_grace.octets.saturating_sub(spent);
        let until = now.plus(self.terms.offline_grace.duration);
        let until = ends.map_or(until, |ends| ends.min(until));
        if overdue
            && handling == FailureHandling::Continue
            && !used_up
            && self.grace.is_none()
            && self.closing.is_none()
            && self.live
            && !octets.is_zero()
            && until > now
        {
            let granted = self.grant.as_ref().map_or(Octets::ZERO, |grant| grant.ceiling);
            let ceiling = granted.saturating_add(octets);
            self.grace = Some((ceiling, until));
            self.slice.reach(ceiling);
            out.push(Command::Record(Record::GraceOpened { session: self.id(), ceiling, until }));
        }
    }

    /// The last reading, then everything that is left, then the release.
    fn drive_closing(&mut self, now: BootInstant, out: &mut Vec<Command>) -> Fate {
        if !self.is_settled(now, out) || !self.may_seal() {
            return Fate::Lives;
        }
        if self.session_ref.is_none() {
            // The server never named the session: there is nothing to release.
            self.become_orphan(now, out);
        }
        if self.orphan {
            return self.drive_orphan(now, out);
        }
        let (operation, trigger) = if self.pending.len() > MAX_CONTAINERS {
            (Operation::Update, Trigger::TimeLimit)
        } else {
            (Operation::Release, Trigger::Final)
        };
        self.seal(operation, None, Some(trigger), now, out);
        Fate::Lives
    }

    /// True once the last reading is taken: after the gate was shut and packets in flight have settled.
    fn is_settled(&mut self, now: BootInstant, out: &mut Vec<Command>) -> bool {
        let Some(Closing { trigger, settles_at }) = self.closing else { return true };
        if let Some(settles_at) = settles_at {
            if self.last_reading < settles_at {
                if now >= settles_at {
                    out.push(Command::Read);
                }
                return false;
            }
            self.closing = Some(Closing { trigger, settles_at: None });
        }
        if self.has_open_usage() {
            self.close_interval(trigger, now, out);
        }
        if self.live {
            self.end_readings(out);
        }
        true
    }

    fn drive_orphan(&mut self, now: BootInstant, out: &mut Vec<Command>) -> Fate {
        if self.pending.is_empty() {
            out.push(Command::Record(Record::SessionClosed { session: self.id() }));
            return Fate::Ended;
        }
        self.seal(Operation::Event, None, Some(Trigger::AbnormalRelease), now, out);
        Fate::Lives
    }

    /// Enters and leaves exhaustion.
    fn watch_exhaustion(&mut self, now: BootInstant) {
        let Some(grant) = &self.grant else { return };
        if let Some(exhausted) = self.exhausted {
            if self.is_replenished() && now >= exhausted.since.plus(LEAST_DWELL) {
                self.exhausted = None;
            }
        } else if grant.final_unit.is_some() && self.is_tight() {
            self.exhausted = Some(Exhausted::new(grant.ceiling, false, now));
        }
    }

    /// A strictly larger ceiling was granted than the one that was reached.
    fn is_replenished(&self) -> bool {
        self.grant
            .as_ref()
            .zip(self.exhausted)
            .is_some_and(|(grant, exhausted)| grant.ceiling > exhausted.ceiling && grant.result == ResultCode::Success)
    }

    /// What is left is nothing, or too little for a packet that wanted to pass.
    fn is_tight(&self) -> bool {
        let remaining = self.remaining();
        remaining.is_zero() || (self.refused_lately && remaining < LARGEST_PACKET)
    }

    /// Octets of the grant that are left.
    pub(in crate::quota) fn remaining(&self) -> Octets {
        self.grant.as_ref().map_or(Octets::ZERO, |grant| grant.ceiling.saturating_sub(self.used().total()))
    }

    /// The most pressing reason to send a message, if there is one.
    fn reason(&self, now: BootInstant) -> Option<Reason> {
        let asking = |trigger| Some(Reason { trigger, asks: true });
        let grant = self.grant.as_ref()?;
        if self.reauthorise {
            return asking(Trigger::ForcedReauthorisation);
        }
        if let Some(exhausted) = &self.exhausted {
            if (!exhausted.told && now >= self.ask_not_before) || now >= exhausted.poll_at {
                return asking(Trigger::QuotaExhausted);
            }
            return (!self.pending.is_empty()).then_some(Reason { trigger: Trigger::TimeLimit, asks: false });
        }
        if self.renews_at().is_some_and(|at| now >= at) {
            return asking(Trigger::ValidityTime);
        }
        if grant.final_unit.is_none() && now >= self.ask_not_before {
            if self.is_tight() {
                return asking(Trigger::QuotaExhausted);
            }
            if self.remaining() <= self.foresight.threshold(grant) {
                return asking(Trigger::QuotaThreshold);
            }
        }
        let asks = grant.final_unit.is_none();
        (!self.pending.is_empty()).then_some(Reason { trigger: Trigger::TimeLimit, asks })
    }

    fn open_timers(&self, due: &mut Vec<BootInstant>) {
        if self.has_open_usage() {
            due.push(self.interval_ends());
        }
        if self.is_dirty() {
            due.push(self.checkpoint_at.plus(self.terms.checkpoint_interval));
        }
        if let Some((_, until)) = self.grace.filter(|_| !self.grace_over) {
            due.push(until);
        }
        if let Some(exhausted) = self.exhausted.filter(|_| self.is_replenished()) {
            due.push(exhausted.since.plus(LEAST_DWELL));
        }
        due.extend(self.idle_until());
        if !self.may_seal() {
            return;
        }
        let Some(grant) = &self.grant else { return };
        match &self.exhausted {
            Some(exhausted) if exhausted.told => due.push(exhausted.poll_at),
            Some(exhausted) => due.push(exhausted.poll_at.min(self.ask_not_before)),
            None => {
                due.extend(self.renews_at());
                let wants = self.is_tight() || self.remaining() <= self.foresight.threshold(grant);
                if grant.final_unit.is_none() && wants {
                    due.push(self.ask_not_before);
                }
            }
        }
    }

    fn has_open_usage(&self) -> bool {
        let closed = self.opening.base.saturating_add(self.closed);
        let closed_throttled = self.opening.base_throttled.saturating_add(self.closed_throttled);
        self.passed != closed || self.throttled != closed_throttled
    }

    fn interval_ends(&self) -> BootInstant {
        self.interval_since.plus(self.terms.report_interval)
    }

    /// When the grant should be renewed for the sake of its validity time.
    fn renews_at(&self) -> Option<BootInstant> {
        let until = self.grant.as_ref()?.valid_until?;
        let early = BootInstant::from_nanos(until.as_nanos().saturating_sub(nanos(VALIDITY_MARGIN)));
        Some(early.max(self.renew_not_before))
    }

    /// When the quota holding time is over; not while a message is out or the package is used up.
    fn idle_until(&self) -> Option<BootInstant> {
        if !self.may_seal() || self.exhausted.is_some() {
            return None;
        }
        Some(self.last_usage.plus(self.grant.as_ref()?.holding?))
    }

    fn is_dirty(&self) -> bool {
        self.live && self.checkpoint != (self.passed, self.throttled)
    }

    /// Commits the reading when it is time to.
    fn checkpoint(&mut self, now: BootInstant, out: &mut Vec<Command>) {
        if now >= self.checkpoint_at.plus(self.terms.checkpoint_interval) || self.is_slice_due() {
            self.pause(now, out);
        }
    }

    /// Commits the reading if it has moved.
    pub(in crate::quota) fn pause(&mut self, now: BootInstant, out: &mut Vec<Command>) {
        if self.is_dirty() {
            self.checkpoint = (self.passed, self.throttled);
            self.checkpoint_at = now;
            out.push(Command::Record(Record::Checkpoint {
                session: self.id(),
                passed: self.passed,
                throttled: self.throttled,
                at: now,
            }));
        }
    }
}

fn nanos(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
