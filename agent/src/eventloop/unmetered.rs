//! What a link carried before its meter was there: read from the interface's own counters at the moment of attachment, kept by epoch.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Agent;
use crate::datapath::Loaded;
use crate::ledger::Ledger;
use crate::units::Epoch;

/// Setting of the ledger that holds what is known of each epoch that is still metered.
const UNMETERED: &str = "unmetered";

/// What passed a link outside its meter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Unmetered {
    /// Octets before the epoch began and in none before, as the interface counts them (link-layer headers included), both directions.
    pub(super) prefix_octets: u64,
    /// How often somebody else has taken the meter off since the agent first met the link.
    pub(super) gaps: u32,
}

/// By epoch.
#[derive(Debug, Default)]
pub(super) struct UnmeteredBook {
    by_epoch: BTreeMap<String, Unmetered>,
}

impl UnmeteredBook {
    /// What the ledger remembers.
    pub(super) fn recall(ledger: &Ledger) -> Result<Self> {
        let by_epoch = match ledger.setting(UNMETERED)? {
            Some(text) => serde_json::from_str(&text).context("reading what passed unmetered")?,
            None => BTreeMap::new(),
        };
        Ok(Self { by_epoch })
    }

    /// What is known of an epoch.
    pub(super) fn of(&self, epoch: &Epoch) -> Unmetered {
        self.by_epoch.get(&key(epoch)).copied().unwrap_or_default()
    }
}

fn key(epoch: &Epoch) -> String {
    format!("{}/{}", epoch.boot.as_str(), epoch.generation.get())
}

impl Agent {
    /// The meter goes on from an earlier run: so do its gaps.
    pub(super) fn recall_unmetered(&mut self, index: usize) {
        if let Some(epoch) = self.stations[index].epoch(&self.boot) {
            let known = self.unmetered.of(&epoch);
            let station = &mut self.stations[index];
            station.gaps = station.gaps.max(known.gaps);
        }
    }

    /// Writes down what a new epoch begins with; epochs that no link has any more are forgotten.
    pub(super) fn note_unmetered(&mut self, index: usize, loaded: &Loaded) -> Result<()> {
        let station = &self.stations[index];
        let prefix_octets = station.unmetered(loaded.ifindex, loaded.octets_before);
        let Some(epoch) = station.epoch(&self.boot) else { return Ok(()) };
        let unmetered = Unmetered { prefix_octets, gaps: station.gaps };
        if prefix_octets > 0 {
            tracing::warn!(
                link = station.label(),
                octets = prefix_octets,
                "so much had passed the link before it was metered"
            );
        }
        let alive: Vec<String> =
            self.stations.iter().filter_map(|station| Some(key(&station.epoch(&self.boot)?))).collect();
        self.unmetered.by_epoch.retain(|epoch, _| alive.contains(epoch));
        self.unmetered.by_epoch.insert(key(&epoch), unmetered);
        let text = serde_json::to_string(&self.unmetered.by_epoch).context("writing what passed unmetered")?;
        self.ledger.set_setting(UNMETERED, &text)
    }
}
