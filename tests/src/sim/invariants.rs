//! What must hold after every step, and what must be equal when everything is settled.
//!
//! Nothing passes beyond the highest ceiling that was recorded when a gate was written, and no more is asked for than the largest chunk. Containers join, never hold what the meter has not
//! counted, and never change. A debit is the sum of the containers booked, each once; no more is debited than was bought, but for the
//! graces that were opened, what was left in doubt, and the holds that the server itself has forgotten, taken back or let end. At the end the debit is what passed, less what
//! was lost with maps beyond the last commit, and that is at most what was not committed at that moment, and what people were told.
//!
//! *A server restored from an older backup* has forgotten sessions, answers, purchases and debits. What it had acknowledged since the
//! backup is not reported again: the agent let go of it when it was acknowledged, so those debits stay lost to the operator of the server, and nobody
//! else can bring them back. What must still hold: within the books that it has now, every container is booked at most once; everything
//! that the agent had not yet seen acknowledged arrives; sessions that the server no longer knows go as one-time events, and the
//! agent gets going again.

use std::collections::BTreeMap;

use agent::quota::{Grant, MessageKey, Outcome, QuotaManagement, Record, Repetition};
use agent::units::{Octets, SubscriberIdentifier};

use super::Broken;
use super::ledger::{Whereabouts, end_of};
use super::schedule::Package;
use super::world::World;

/// The sum of all containers is taken once in so many steps: it is the dearest check.
const AUDIT: u64 = 16;

impl World {
    /// Everything that must hold at any moment.
    pub(super) fn check(&mut self) -> Result<(), Broken> {
        self.check_meters()?;
        self.check_accounts()?;
        if self.tally.total("steps").is_multiple_of(AUDIT) {
            self.check_debits()?;
        }
        Ok(())
    }

    /// What is recorded of a message must be what came of it.
    pub(super) fn check_commit(&self, batch: &[Record]) -> Result<(), Broken> {
        for record in batch {
            match record {
                Record::MessageAcknowledged { key, grant, .. } => self.check_acknowledged(*key, grant.as_ref())?,
                Record::MessageSetAside { key, .. } => {
                    let refused = matches!(self.said, Outcome::Rejected { .. } | Outcome::ContextNotFound);
                    hold!(refused, "only what the server refuses is set aside", "{key:?}: {:?}", self.said);
                }
                Record::MessageInDoubt { key, .. } => {
                    let charges = self.setup.repetition == Repetition::Charged;
                    hold!(charges, "what a server would recognise is not left in doubt", "{key:?}");
                }
                Record::MessageSealed { message, .. } => {
                    let largest = self.setup.sims.iter().map(Package::largest_chunk).max();
                    let asked = message.requested.unwrap_or_default();
                    hold!(Some(asked) <= largest, "no more is asked for than the largest chunk", "{message:?}");
                }
                Record::SessionOpened(_)
                | Record::ContainerClosed { .. }
                | Record::MessageNotTaken { .. }
                | Record::MessageAttempted { .. }
                | Record::Orphaned { .. }
                | Record::GraceOpened { .. }
                | Record::SessionClosing { .. }
                | Record::SessionSettled { .. }
                | Record::Aborted { .. }
                | Record::Reauthorised { .. }
                | Record::SessionClosed { .. }
                | Record::Checkpoint { .. }
                | Record::SliceSet { .. }
                | Record::RestUncertain { .. } => {}
            }
        }
        Ok(())
    }

    /// The server has said so, has booked it, and a grant counts from what was reported.
    fn check_acknowledged(&self, key: MessageKey, grant: Option<&Grant>) -> Result<(), Broken> {
        let Outcome::Answered(answer) = &self.said else {
            return Err(Broken::new("only what is answered is acknowledged", format!("{key:?}: {:?}", self.said)));
        };
        let sealed = self.ledger.message(key)?;
        let granted = answer.granted.as_ref().map_or(Octets::ZERO, |granted| granted.octets);
        let ceiling = sealed.message.reported.saturating_add(granted);
        let absolute = grant.is_none_or(|grant| grant.ceiling == ceiling);
        hold!(absolute, "a ceiling is what was reported, and what was granted for that", "{grant:?}, not {ceiling}");
        // Of older books nothing more can be said: they are gone.
        let current = self.ledger.answering_books == self.server.generation;
        let unbooked =
            sealed.containers.iter().find(|container| !self.server.has_booked((key.session, container.number)));
        let booked = !current || unbooked.is_none();
        hold!(booked, "only what the server has booked counts as acknowledged", "{unbooked:?} of {key:?}");
        Ok(())
    }

    fn check_meters(&self) -> Result<(), Broken> {
        for meter in self.kernel.meters.iter().filter(|meter| meter.end.is_none()) {
            hold!(
                meter.reading.passed.total() <= meter.recorded_ceiling,
                "nothing passes beyond a recorded ceiling",
                "{meter:?}"
            );
        }
        for session in self.ledger.sessions() {
            let Some(id) = self.kernel.of_epoch(&session.opening.epoch) else { continue };
            let reading = self.kernel.meters[id].reading;
            let (passed, throttled) = end_of(session);
            let counted = reading.passed.since(passed).is_some() && reading.throttled.since(throttled).is_some();
            hold!(counted, "no container holds what the meter has not counted", "{session:?}, {reading:?}");
        }
        Ok(())
    }

    fn check_accounts(&self) -> Result<(), Broken> {
        for (who, account) in self.server.accounts() {
            let beyond = |of: &BTreeMap<SubscriberIdentifier, u64>| of.get(who).copied().unwrap_or_default();
            let allowed = account.bought + beyond(&self.ledger.beyond) + beyond(&self.server.allowance);
            hold!(account.debited <= allowed, "no more is debited than was bought", "{who}: {account:?}, {allowed}");
        }
        Ok(())
    }

    /// The server's debit is the sum of the containers it has booked.
    pub(super) fn check_debits(&self) -> Result<(), Broken> {
        let mut booked: BTreeMap<&SubscriberIdentifier, (u64, u64)> = BTreeMap::new();
        for (name, closed) in &self.ledger.containers {
            if !self.server.has_booked(*name) {
                continue;
            }
            let octets = closed.container.used.total().get();
            let sum = booked.entry(&closed.subscriber).or_default();
            match closed.container.quota_management {
                QuotaManagement::Online => sum.0 += octets,
                QuotaManagement::Offline => sum.1 += octets,
            }
        }
        for (who, account) in self.server.accounts() {
            let sum = booked.get(who).copied().unwrap_or_default();
            hold!((account.debited, account.offline) == sum, "a debit is a sum of containers", "{account:?}, {sum:?}");
        }
        Ok(())
    }

    /// Everything is settled: the books are equal, to the octet.
    pub(super) fn check_balance(&self) -> Result<(), Broken> {
        self.check_debits()?;
        let left = self.ledger.restore();
        hold!(left.is_empty(), "the ledger has nothing left to settle", "{left:?}");
        for meter in &self.kernel.meters {
            let position = self.ledger.position(&meter.epoch);
            let (contained, contained_throttled) = position.contained;
            let end = meter.end.unwrap_or_default();
            let passed = (meter.reading.passed.total().get(), meter.reading.throttled.total().get());
            let is_exact = |passed: u64, contained: u64, at_least: u64, at_most: u64| {
                (at_least..=at_most).contains(&passed.saturating_sub(contained)) && contained <= passed
            };
            hold!(
                is_exact(passed.0, contained, end.at_least.0, end.at_most.0)
                    && is_exact(passed.1, contained_throttled, end.at_least.1, end.at_most.1),
                "every octet that passed is in a container once, but for what was lost with its maps",
                "{meter:?}, in containers: {contained}, {contained_throttled}"
            );
            let claimed = meter.end.is_none() && position.uncertain > 0;
            hold!(!claimed, "nothing is uncertain of a meter that lives", "{meter:?}, told: {}", position.uncertain);
            hold!(
                passed.0 - contained <= position.uncertain,
                "what is lost is no more than people were told",
                "{meter:?}, in containers: {contained}, told: {}",
                position.uncertain
            );
        }
        for (name, closed) in &self.ledger.containers {
            let excused = match closed.whereabouts {
                Whereabouts::Kept => false,
                Whereabouts::Acknowledged(books) => books < self.server.generation,
                Whereabouts::SetAside | Whereabouts::InDoubt => true,
            };
            hold!(excused || self.server.has_booked(*name), "every container is booked", "{name:?}: {closed:?}");
        }
        for session in self.server.open_sessions().filter(|_| self.server.generation == 0) {
            hold!(self.ledger.orphaned.contains(&session), "no session stays open at the server", "{session}");
        }
        Ok(())
    }
}
