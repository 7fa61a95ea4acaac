//! SIMs, their terms, and how each is named on the wire: from the configuration, from onboarding, or recalled from the ledger.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use uuid::Uuid;

use super::Agent;
use super::station::Sim;
use crate::config::{self, Config, DEFAULT_CHUNK, DEFAULT_LARGEST_CHUNK, DEFAULT_REPORT_INTERVAL, OnboardingMode};
use crate::ledger::{Ledger, SealRequest};
use crate::onboarding::{Binding, Package, Plan};
use crate::quota::{FailureHandling, LocalFilters, OfflineGrace, Terms, WhenUsedUp};
use crate::reporter::{self, Identity, Interval, SealInput};
use crate::units::{Octets, RatingGroup, SubscriberIdentifier};
use crate::usage::PLAN;

/// Setting of the ledger that holds the bindings, by slot.
const BINDINGS: &str = "bindings";
/// Setting of the ledger that holds the rating group and APN of every subscriber there ever was a session of.
const CHARGED: &str = "charged";
/// What is charged for when nobody says otherwise.
const DEFAULT_RATING_GROUP: RatingGroup = RatingGroup::new(10);
/// The access point name when nobody says otherwise.
const DEFAULT_APN: &str = "internet";

/// How each subscriber's sessions are named on the wire. Entries stay, over restarts as well: a past session may still have to be
/// settled when its SIM is in no slot and no configuration any more.
#[derive(Debug)]
pub(super) struct Charged {
    nf_name: Uuid,
    by_subscriber: BTreeMap<String, (u32, String)>,
}

impl Charged {
    /// Those whom the ledger remembers.
    pub(super) fn recall(nf_name: Uuid, ledger: &Ledger) -> Result<Self> {
        let by_subscriber = match ledger.setting(CHARGED)? {
            Some(text) => serde_json::from_str(&text).context("reading how past sessions are charged")?,
            None => BTreeMap::new(),
        };
        Ok(Self { nf_name, by_subscriber })
    }

    /// Remembers a subscriber, before a session of it can be opened.
    fn remember(
        &mut self,
        ledger: &mut Ledger,
        subscriber: &SubscriberIdentifier,
        rating_group: RatingGroup,
        apn: String,
    ) -> Result<()> {
        let entry = (rating_group.get(), apn);
        if self.by_subscriber.get(subscriber.as_str()) == Some(&entry) {
            return Ok(());
        }
        self.by_subscriber.insert(subscriber.as_str().to_owned(), entry);
        self.store(ledger)
    }

    fn store(&self, ledger: &mut Ledger) -> Result<()> {
        let text = serde_json::to_string(&self.by_subscriber).context("writing how sessions are charged")?;
        ledger.set_setting(CHARGED, &text)
    }

    /// What a subscriber's sessions on a link are charged for.
    pub(super) fn rating_group(&self, subscriber: &SubscriberIdentifier, link: &config::Link) -> RatingGroup {
        let known = self.by_subscriber.get(subscriber.as_str()).map(|(group, _)| RatingGroup::new(*group));
        link.rating_group.or(known).unwrap_or(DEFAULT_RATING_GROUP)
    }

    /// The exact bytes of a message.
    pub(super) fn encode(&self, request: &SealRequest) -> Result<Vec<u8>> {
        let subscriber = &request.opening.subscriber;
        let known = self.by_subscriber.get(subscriber.as_str()).cloned();
        let (rating_group, apn) = known.unwrap_or_else(|| {
            // Better charged to the usual group than an agent that can neither start nor settle.
            tracing::error!(%subscriber, "rating group and APN are not known: the defaults are reported");
            (DEFAULT_RATING_GROUP.get(), DEFAULT_APN.to_owned())
        });
        let identity = Identity {
            nf_name: self.nf_name,
            subscriber: subscriber.clone(),
            session: request.opening.session,
            rating_group: RatingGroup::new(rating_group),
            apn,
        };
        let intervals = request.containers.iter().map(|labelled| Interval {
            container: &labelled.container,
            first_usage: labelled.first_usage.wall,
            last_usage: labelled.last_usage.wall,
            closed_at: labelled.closed_at.wall,
        });
        reporter::encode(&SealInput {
            identity: &identity,
            message: &request.message,
            intervals: intervals.collect(),
            sealed_at: request.sealed_at.wall,
        })
    }
}

impl Agent {
    /// Takes SIMs and terms from the configuration (static onboarding) or from what an earlier run has left in the ledger.
    pub(super) fn recall_sims(&mut self) -> Result<()> {
        match self.config.server.onboarding {
            OnboardingMode::Static => {
                for link in self.config.links.clone() {
                    let Some(subscriber) = link.subscriber.clone() else { continue };
                    self.add_sim(&link.slot, subscriber, None, None)?;
                }
            }
            OnboardingMode::Server => {
                if let Some(plan) = self.ledger.setting(PLAN)? {
                    self.plan = serde_json::from_str(&plan).context("reading the plan kept in the ledger")?;
                }
                if let Some(bindings) = self.ledger.setting(BINDINGS)? {
                    self.bindings =
                        serde_json::from_str(&bindings).context("reading the bindings kept in the ledger")?;
                }
                self.recall_told()?;
                self.apply_bindings()?;
            }
        }
        Ok(())
    }

    /// A SIM was bound to a slot.
    pub(super) fn bound(&mut self, binding: Binding) -> Result<()> {
        if self.bindings.get(&binding.slot) != Some(&binding) {
            self.bindings.insert(binding.slot.clone(), binding);
            self.ledger.set_setting(BINDINGS, &serde_json::to_string(&self.bindings).context("writing bindings")?)?;
        }
        self.apply_bindings()?;
        self.reconcile()
    }

    /// The plan was fetched.
    pub(super) fn planned(&mut self, plan: Plan) -> Result<()> {
        self.ledger.set_setting(PLAN, &serde_json::to_string(&plan).context("writing the plan")?)?;
        self.plan = plan;
        self.note_told()?;
        self.apply_bindings()?;
        self.reconcile()
    }

    /// Stores what is known from onboarding and look-ups: what was learned while the ledger could not be written is not in it.
    pub(super) fn store_what_is_known(&mut self) -> Result<()> {
        self.charged.store(&mut self.ledger)?;
        self.remember_addresses()?;
        if self.config.server.onboarding == OnboardingMode::Server {
            self.ledger.set_setting(BINDINGS, &serde_json::to_string(&self.bindings).context("writing bindings")?)?;
            self.ledger.set_setting(PLAN, &serde_json::to_string(&self.plan).context("writing the plan")?)?;
        }
        Ok(())
    }

    fn apply_bindings(&mut self) -> Result<()> {
        for binding in self.bindings.values().cloned().collect::<Vec<_>>() {
            let first = binding.rating_groups.first().copied();
            self.add_sim(&binding.slot, binding.subscriber, first, Some(binding.apn))?;
        }
        Ok(())
    }

    /// Notes the SIM of a slot, with the terms that the slot's links and the package make.
    fn add_sim(
        &mut self,
        slot: &str,
        subscriber: SubscriberIdentifier,
        rating_group: Option<RatingGroup>,
        apn: Option<String>,
    ) -> Result<()> {
        let Some(link) = self.config.links.iter().find(|link| link.slot == slot) else { return Ok(()) };
        let rating_group = link.rating_group.or(rating_group).unwrap_or(DEFAULT_RATING_GROUP);
        let apn = link.apn.clone().or(apn).unwrap_or_else(|| DEFAULT_APN.to_owned());
        let terms = terms(&self.config, Some(link), self.plan.package(&subscriber, rating_group));
        self.charged.remember(&mut self.ledger, &subscriber, rating_group, apn)?;
        self.sims.insert(slot.to_owned(), Sim { subscriber, terms });
        Ok(())
    }

    /// Terms for sessions of which only the past is known.
    pub(super) fn default_terms(&self) -> Terms {
        terms(&self.config, None, None)
    }
}

/// The configuration goes before the package, the package before the defaults.
fn terms(config: &Config, link: Option<&config::Link>, package: Option<&Package>) -> Terms {
    let report_interval = config.agent.report_interval.or_else(|| package.and_then(|p| p.report_interval));
    Terms {
        chunk: link.and_then(|link| link.chunk).or_else(|| package.and_then(|p| p.chunk)).unwrap_or(DEFAULT_CHUNK),
        largest_chunk: link.map_or(DEFAULT_LARGEST_CHUNK, |link| link.largest_chunk),
        report_interval: report_interval.unwrap_or(DEFAULT_REPORT_INTERVAL),
        checkpoint_interval: config.agent.checkpoint_interval,
        max_unrecorded: config.agent.max_unrecorded,
        failure_handling: link
            .and_then(|link| link.failure_handling)
            .or_else(|| package.and_then(|p| p.failure_handling))
            .unwrap_or(FailureHandling::RetryAndTerminate),
        offline_grace: link
            .and_then(|link| link.offline_grace)
            .or_else(|| package.map(|p| p.offline_grace))
            .unwrap_or(OfflineGrace { octets: Octets::ZERO, duration: std::time::Duration::ZERO }),
        when_used_up: link
            .and_then(|link| link.when_used_up)
            .or_else(|| package.map(|p| p.when_used_up))
            .unwrap_or(WhenUsedUp::AsTold),
        filters: LocalFilters { named: config.filters.clone(), own: link.and_then(|link| link.restrict_to.clone()) },
        control_reserve: config.agent.control_reserve,
        repetition: config.server.repetition,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::clock::Label;
    use crate::quota::{Message, Operation, SessionOpening, Trigger};
    use crate::units::{BootId, BootInstant, ChargingId, Epoch, Generation, InvocationSequenceNumber, UsedUnit};

    fn release_of(subscriber: &SubscriberIdentifier) -> SealRequest {
        let epoch = Epoch { boot: BootId::new("boot"), generation: Generation::new(1) };
        let at = BootInstant::from_nanos(1);
        SealRequest {
            opening: SessionOpening {
                session: ChargingId::new(7),
                subscriber: subscriber.clone(),
                epoch,
                base: UsedUnit::ZERO,
                base_throttled: UsedUnit::ZERO,
                opened_at: at,
            },
            session_ref: None,
            message: Message {
                number: InvocationSequenceNumber::new(1),
                operation: Operation::Release,
                requested: None,
                containers: Vec::new(),
                trigger: Some(Trigger::Final),
                reported: Octets::ZERO,
                sealed_at: at,
            },
            containers: Vec::new(),
            sealed_at: Label { wall: jiff::Timestamp::UNIX_EPOCH, synced: true },
        }
    }

    #[test]
    fn a_session_whose_sim_is_configured_nowhere_any_more_is_still_settled_after_a_restart() {
        let mut ledger = Ledger::open(Path::new(":memory:"), BootId::new("boot")).expect("a ledger");
        let gone = SubscriberIdentifier::new("imsi-001010000000001");
        let mut before = Charged::recall(Uuid::nil(), &ledger).expect("nothing yet");
        before.remember(&mut ledger, &gone, RatingGroup::new(33), "fleet".to_owned()).expect("remembered");

        let after = Charged::recall(Uuid::nil(), &ledger).expect("recalled");
        let body = String::from_utf8(after.encode(&release_of(&gone)).expect("encoded")).expect("text");
        assert!(body.contains("\"ratingGroup\":33") && body.contains("fleet"), "{body}");
    }

    #[test]
    fn a_session_of_which_nothing_is_remembered_does_not_keep_the_agent_from_starting() {
        let ledger = Ledger::open(Path::new(":memory:"), BootId::new("boot")).expect("a ledger");
        let charged = Charged::recall(Uuid::nil(), &ledger).expect("nothing yet");
        let body = charged.encode(&release_of(&SubscriberIdentifier::new("imsi-001010000000002"))).expect("encoded");
        assert!(String::from_utf8(body).expect("text").contains("imsi-001010000000002"));
    }
}
