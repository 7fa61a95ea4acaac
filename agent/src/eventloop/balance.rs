//! What is left of the packages: what the server said last, less what was used since.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Agent;
use super::station::Station;
use crate::local::PackageStatus;
use crate::quota::{Overview, State};
use crate::units::{Octets, SubscriberIdentifier};

/// Setting of the ledger that says when the plan was told, and what the server had been told by then.
const TOLD: &str = "plan-told";

/// When the server told the plan, and how many quota octets of each subscriber it had acknowledged by then: these are in what it said.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Told {
    at: Option<Timestamp>,
    acknowledged: BTreeMap<String, u64>,
}

impl Agent {
    /// Notes that the server has told the plan just now.
    pub(super) fn note_told(&mut self) -> Result<()> {
        let mut told = Told { at: Some(self.clock.now()?.label.wall), acknowledged: BTreeMap::new() };
        for package in &self.plan.packages {
            let acknowledged = self.ledger.acknowledged_of(&package.subscriber)?;
            told.acknowledged.insert(package.subscriber.to_string(), acknowledged.get());
        }
        self.told = told;
        self.ledger.set_setting(TOLD, &serde_json::to_string(&self.told).context("writing what was told")?)
    }

    /// Takes up what an earlier run was told.
    pub(super) fn recall_told(&mut self) -> Result<()> {
        if let Some(told) = self.ledger.setting(TOLD)? {
            self.told = serde_json::from_str(&told).context("reading what was told of the plan")?;
        }
        Ok(())
    }

    /// The package of a link.
    pub(super) fn package_status(&self, station: &Station, overview: &Overview) -> Result<PackageStatus> {
        let mut status = PackageStatus::default();
        // With these the server has said that there is no more than what it has granted.
        let is_at_end = matches!(overview.state, State::Final | State::Exhausted) && overview.grant.is_some();
        let is_last = is_at_end && !overview.is_refused();
        let last = is_last.then_some(overview.remaining);
        // With static onboarding there is no plan.
        let known = station.sim.as_ref().zip(station.config.as_ref()).and_then(|(sim, config)| {
            let group = self.charged.rating_group(&sim.subscriber, config);
            self.plan.package(&sim.subscriber, group)
        });
        if let Some(package) = known {
            status.id = Some(package.id.clone());
            status.bought_octets = Some(package.total.get());
            status.valid_until = package.valid_until.map(|until| until.to_string());
            status.told_at = self.told.at.map(|at| at.to_string());
            let since = self.used_since_told(&package.subscriber)?;
            status.left_octets = since.map(|since| package.remaining.saturating_sub(since).get());
        }
        if let Some(last) = last {
            status.left_octets = Some(last.get());
        }
        let rate = station.trend.rate().filter(|rate| *rate > 0);
        status.runs_out_seconds = status.left_octets.zip(rate).map(|(left, rate)| left / rate);
        Ok(status)
    }

    /// Quota octets of a subscriber that were not in what the server told; `None` when that is not known.
    fn used_since_told(&self, subscriber: &SubscriberIdentifier) -> Result<Option<Octets>> {
        let Some(acknowledged) = self.told.acknowledged.get(subscriber.as_str()) else { return Ok(None) };
        let mut used = self.ledger.recorded_of(subscriber)?;
        for station in &self.stations {
            let overview = station.quota.overview(crate::clock::boot_now()?);
            let is_theirs = station.sim.as_ref().is_some_and(|sim| sim.subscriber == *subscriber);
            if let Some(session) = overview.session.filter(|_| is_theirs) {
                let closed = self.ledger.closed_of(session)?;
                used = used.saturating_add(overview.used.total().saturating_sub(closed));
            }
        }
        Ok(Some(used.saturating_sub(Octets::new(*acknowledged))))
    }
}
