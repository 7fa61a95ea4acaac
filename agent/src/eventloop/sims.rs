//! SIMs, their terms, and how each is named on the wire: from the configuration, from onboarding, or recalled from the ledger.

use std::collections::HashMap;

use anyhow::{Context, Result};
use uuid::Uuid;

use super::Agent;
use super::station::Sim;
use crate::config::{self, Config, DEFAULT_CHUNK, DEFAULT_REPORT_INTERVAL, OnboardingMode};
use crate::ledger::SealRequest;
use crate::onboarding::{Binding, Package, Plan};
use crate::quota::{FailureHandling, OfflineGrace, Terms, WhenUsedUp};
use crate::reporter::{self, Identity, Interval, SealInput};
use crate::units::{Octets, RatingGroup, SubscriberIdentifier};

/// Setting of the ledger that holds the bindings, by slot.
const BINDINGS: &str = "bindings";
/// Setting of the ledger that holds the plan.
const PLAN: &str = "plan";
/// What is charged for when nobody says otherwise.
const DEFAULT_RATING_GROUP: RatingGroup = RatingGroup::new(10);
/// The access point name when nobody says otherwise.
const DEFAULT_APN: &str = "internet";

/// How each subscriber's sessions are named on the wire. Entries stay: a past session may still have to be settled.
#[derive(Debug)]
pub(super) struct Charged {
    nf_name: Uuid,
    by_subscriber: HashMap<SubscriberIdentifier, (RatingGroup, String)>,
}

impl Charged {
    pub(super) fn new(nf_name: Uuid) -> Self {
        Self { nf_name, by_subscriber: HashMap::new() }
    }

    fn remember(&mut self, subscriber: SubscriberIdentifier, rating_group: RatingGroup, apn: String) {
        self.by_subscriber.insert(subscriber, (rating_group, apn));
    }

    /// The exact bytes of a message.
    pub(super) fn encode(&self, request: &SealRequest) -> Result<Vec<u8>> {
        let subscriber = &request.opening.subscriber;
        let (rating_group, apn) = self.by_subscriber.get(subscriber).with_context(|| {
            format!("rating group and APN of {subscriber} are not known (its link is not configured any more)")
        })?;
        let identity = Identity {
            nf_name: self.nf_name,
            subscriber: subscriber.clone(),
            session: request.opening.session,
            rating_group: *rating_group,
            apn: apn.clone(),
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
                    self.add_sim(&link.slot, subscriber, None, None);
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
                self.apply_bindings();
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
        self.apply_bindings();
        self.reconcile()
    }

    /// The plan was fetched.
    pub(super) fn planned(&mut self, plan: Plan) -> Result<()> {
        self.ledger.set_setting(PLAN, &serde_json::to_string(&plan).context("writing the plan")?)?;
        self.plan = plan;
        self.apply_bindings();
        self.reconcile()
    }

    fn apply_bindings(&mut self) {
        for binding in self.bindings.values().cloned().collect::<Vec<_>>() {
            let first = binding.rating_groups.first().copied();
            self.add_sim(&binding.slot, binding.subscriber, first, Some(binding.apn));
        }
    }

    /// Notes the SIM of a slot, with the terms that the slot's links and the package make.
    fn add_sim(
        &mut self,
        slot: &str,
        subscriber: SubscriberIdentifier,
        rating_group: Option<RatingGroup>,
        apn: Option<String>,
    ) {
        let Some(link) = self.config.links.iter().find(|link| link.slot == slot) else { return };
        let rating_group = link.rating_group.or(rating_group).unwrap_or(DEFAULT_RATING_GROUP);
        let apn = link.apn.clone().or(apn).unwrap_or_else(|| DEFAULT_APN.to_owned());
        let terms = terms(&self.config, Some(link), self.plan.package(&subscriber, rating_group));
        self.charged.remember(subscriber.clone(), rating_group, apn);
        self.sims.insert(slot.to_owned(), Sim { subscriber, terms });
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
        report_interval: report_interval.unwrap_or(DEFAULT_REPORT_INTERVAL),
        checkpoint_interval: config.agent.checkpoint_interval,
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
            .unwrap_or(WhenUsedUp::Block),
        control_reserve: config.agent.control_reserve,
    }
}
