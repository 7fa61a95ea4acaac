//! Carries out the core's commands, in their order: commit, send, set the gate, read.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::{Agent, Message, tidings};
use crate::clock::boot_now;
use crate::drill::{self, Point};
use crate::ledger::{SealRequest, SealedMessage};
use crate::local::Tidings;
use crate::onboarding::Onboarding;
use crate::quota::{Command, Event, MessageKey, Outcome, Record, Route};
use crate::reporter::{self, Attempt, AttemptKind, Attempted, Reporter};

impl Agent {
    /// Tells the core of a station what happened and carries out what it answers.
    pub(super) fn tell(&mut self, station: usize, event: Event) -> Result<()> {
        let label = self.stations[station].label().to_owned();
        match &event {
            // Several a second: only for those who ask.
            Event::Reading(reading) => tracing::trace!(link = label, ?reading, "event"),
            Event::Hint => tracing::debug!(link = label, ?event, "event"),
            // While a long backlog drains, its progress is told, and not each of thousands of messages.
            Event::Answer { outcome: Outcome::Answered(_), .. } if self.progress.draining().is_some() => {
                tracing::debug!(link = label, ?event, "event");
            }
            event => tracing::info!(link = label, ?event, "event"),
        }
        if let Some(tidings) = tidings::of_event(&event) {
            self.timeline.note(Some(&label), tidings);
        }
        self.stations[station].quota.handle_event(event, boot_now()?);
        self.carry_out(station)
    }

    /// Lets the core of a station do what is due, and carries it out.
    pub(super) fn tick(&mut self, station: usize) -> Result<()> {
        self.stations[station].quota.handle_timeout(boot_now()?);
        self.carry_out(station)
    }

    /// Empties the command queue. Records that follow each other are one commit, made before the next command.
    pub(super) fn carry_out(&mut self, station: usize) -> Result<()> {
        let mut batch = Vec::new();
        while let Some(command) = self.stations[station].quota.poll_command() {
            let label = self.stations[station].label();
            match &command {
                Command::Read => tracing::trace!(link = label, "command: read"),
                // Asked for again at every reading while it is kept waiting.
                Command::DrawName | Command::Record(Record::Checkpoint { .. }) => {
                    tracing::debug!(link = label, ?command, "command");
                }
                Command::Record(Record::MessageSealed { .. } | Record::MessageAcknowledged { .. })
                | Command::Send { .. }
                    if self.progress.draining().is_some() =>
                {
                    tracing::debug!(link = label, ?command, "command");
                }
                // With slices, one for each of them.
                Command::SetGate(_) if self.config.agent.max_unrecorded.is_some() => {
                    tracing::debug!(link = label, ?command, "command");
                }
                Command::Record(Record::RestUncertain { session, octets }) => tracing::warn!(
                    link = label,
                    %session,
                    octets = octets.get(),
                    "the counters are lost (a power cut): up to that many octets may have passed after the last record; they are not billed"
                ),
                command => tracing::info!(link = label, ?command, "command"),
            }
            if let Some(tidings) = tidings::of_command(&command).filter(|_| self.progress.draining().is_none()) {
                self.note_command(station, &command, tidings);
            }
            if let Command::Record(record) = command {
                batch.push(record);
                continue;
            }
            self.commit(&mut batch)?;
            match command {
                Command::Record(_) => {}
                Command::Send { key, attempt, route } => self.send(station, key, attempt, route)?,
                Command::SetGate(setting) => {
                    drill::pass(Point::BeforeGate);
                    self.set_gate(station, &setting)?;
                    drill::pass(Point::AfterGate);
                }
                Command::DrawName => self.name(station)?,
                Command::Read => self.read(station)?,
            }
        }
        self.commit(&mut batch)?;
        self.note_state(station)
    }

    /// Tells people what a command means to its link. What they have been told already is counted, and not told again.
    fn note_command(&mut self, index: usize, command: &Command, tidings: Tidings) {
        let station = &mut self.stations[index];
        if station.told_end.is_news(command, &tidings) {
            self.timeline.note(Some(station.label()), tidings);
        } else {
            self.timeline.count(Some(station.label()), tidings.kind);
        }
    }

    /// Tells people of a state that no record tells.
    fn note_state(&mut self, index: usize) -> Result<()> {
        let station = &mut self.stations[index];
        let overview = station.quota.overview(boot_now()?);
        let before = std::mem::replace(&mut station.told_state, overview.state);
        // What was refused its record has told.
        let tidings = if overview.is_refused() { None } else { tidings::of_state(before, overview.state) };
        if let Some(tidings) = tidings {
            self.timeline.note(Some(station.label()), tidings);
        }
        Ok(())
    }

    /// Reads the meter and tells the core. Does not carry out what the core answers: the caller is doing that.
    fn read(&mut self, station: usize) -> Result<()> {
        let event = match self.reading(station) {
            Some(reading) => Event::Reading(reading),
            None => Event::MeterLost,
        };
        self.stations[station].quota.handle_event(event, boot_now()?);
        Ok(())
    }

    /// Draws a name for the core's next session and tells the core. As with a reading, the caller carries out what it answers: the
    /// session is committed before any other core can draw.
    ///
    /// None is drawn, and so no units are asked for, while another core still owes a report for the same SIM.
    pub(super) fn name(&mut self, station: usize) -> Result<()> {
        let waits = self.is_owed_elsewhere(station);
        let waited = std::mem::replace(&mut self.stations[station].is_kept_waiting, waits);
        if waits {
            if !waited {
                tracing::info!(
                    link = self.stations[station].label(),
                    "no units are asked for before an earlier session of the SIM, which the server has lost, is booked"
                );
            }
            return Ok(());
        }
        let name = self.ledger.fresh_name(&mut || fastrand::u32(..))?;
        self.stations[station].quota.handle_event(Event::Named(name), boot_now()?);
        Ok(())
    }

    /// Names the sessions that had to wait for what other cores owed.
    pub(super) fn name_those_kept_waiting(&mut self) -> Result<()> {
        for station in 0..self.stations.len() {
            if self.stations[station].is_kept_waiting && !self.is_owed_elsewhere(station) {
                self.name(station)?;
                self.carry_out(station)?;
            }
        }
        Ok(())
    }

    fn is_owed_elsewhere(&self, index: usize) -> bool {
        let Some(sim) = &self.stations[index].sim else { return false };
        let mut others = self.stations.iter().enumerate().filter(|(other, _)| *other != index);
        others.any(|(_, other)| other.quota.owes(&sim.subscriber))
    }

    /// Commits the records in one transaction, with the exact bytes of every message that is sealed.
    fn commit(&mut self, batch: &mut Vec<Record>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let moment = self.clock.now()?;
        let sims = &self.charged;
        let mut seal = |request: &SealRequest| sims.encode(request);
        drill::pass(Point::BeforeCommit);
        self.ledger
            .commit(batch, &moment, &mut seal)
            .context("the ledger could not be written; the gates stay as they are")?;
        drill::pass(Point::AfterCommit);
        batch.clear();
        Ok(())
    }

    /// Sends a sealed message on its way; the answer comes back through the inbox.
    fn send(&mut self, station: usize, key: MessageKey, attempt: u32, route: Route) -> Result<()> {
        let sealed = self
            .ledger
            .message(key)?
            .with_context(|| format!("message {} of session {} is not in the ledger", key.number, key.session))?;
        self.ledger.count_attempt(key)?;
        let reporter = Arc::clone(&self.reporter);
        let login = self.login.clone();
        let route = self.route(station, route);
        let (inbox, doubt) = (self.inbox.clone(), Arc::clone(&self.doubt));
        tokio::spawn(async move {
            let outcome = attempt_once(&reporter, login.as_deref(), key, &sealed, &route).await;
            if let Outcome::NotTaken { reason, .. } | Outcome::Unanswered { reason, .. } = &outcome {
                tracing::warn!(session = %key.session, number = %key.number, attempt, %route, "no answer: {reason}");
                doubt.notify_one();
            }
            // The loop may be gone already; then the sealed message waits in the ledger for the next start.
            let _ = inbox.send(Message::Answer { station, key, attempt, outcome });
        });
        Ok(())
    }

    /// The way that the core's choice comes to: a detour is the nth link that leads out.
    fn route(&self, station: usize, route: Route) -> reporter::Route {
        let Route::Detour(nth) = route else { return reporter::Route::Routed };
        let ways = self.ways(station);
        let chosen = usize::try_from(nth).ok().and_then(|nth| nth.checked_rem(ways.len()));
        chosen.map_or(reporter::Route::Routed, |index| ways[index].clone())
    }
}

/// One attempt, with a token where the server wants one. A token that is refused is not used again.
async fn attempt_once(
    reporter: &Reporter,
    login: Option<&Onboarding>,
    key: MessageKey,
    sealed: &SealedMessage,
    route: &reporter::Route,
) -> Outcome {
    let token = match login {
        None => None,
        Some(login) => match login.token(route).await {
            Ok(token) => Some(token),
            Err(error) => return Outcome::NotTaken { retry_after: None, reason: format!("no token: {error}") },
        },
    };
    let attempted = reporter.attempt(Attempt {
        operation: sealed.operation,
        key,
        body: &sealed.body,
        session_ref: sealed.session_ref.as_ref(),
        kind: if sealed.retransmission { AttemptKind::Retransmission } else { AttemptKind::First },
        token: token.as_deref(),
        route,
    });
    let Attempted { outcome, token_refused } = attempted.await;
    if let (true, Some(login), Some(token)) = (token_refused, login, &token) {
        login.forget_token(token);
    }
    outcome
}
