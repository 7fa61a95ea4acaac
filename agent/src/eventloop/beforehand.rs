//! What is done for the links as long as there is no ledger to begin with: one that has no meter, as after a reboot, gets one. Its gate is
//! shut, which needs no record.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use tokio::sync::watch;

use super::metering::load;
use super::reconcile::matching;
use super::rename::adopt_renamed_pins;
use super::station::Station;
use super::{Agent, LOOK};
use crate::clock::boot_now;
use crate::config::Config;
use crate::datapath::{LinkClaim, LoadSpec, Loaded, Origin, PinRootClaim, make_pin_root, meters_on};
use crate::link::{self, Links};
use crate::units::BootInstant;

/// Looks after the links before there is an agent.
#[derive(Debug)]
pub(super) struct Beforehand {
    links: watch::Receiver<Links>,
    /// When it is looked again, if no link has changed before.
    look_at: BootInstant,
    /// What loaders have done, by link.
    made: BTreeMap<String, Loaded>,
}

impl Beforehand {
    pub(super) async fn new() -> Result<Self> {
        let links = link::watch(watch::Sender::default().subscribe()).await?;
        Ok(Self { links, look_at: BootInstant::from_nanos(0), made: BTreeMap::new() })
    }

    /// Has every link metered that is to be, is there, and has no meter. Fails when another agent has one of them.
    pub(super) async fn shut_gates(&mut self, config: &Config) -> Result<()> {
        let now = boot_now()?;
        let has_changed = self.links.has_changed().context("the netlink watcher has ended")?;
        if !has_changed && now < self.look_at {
            return Ok(());
        }
        self.look_at = now.plus(LOOK);
        let links = self.links.borrow_and_update().clone();
        // Held for as long as loaders work: the agent that comes makes claims of its own.
        let _pins = make_pin_root(&config.pin_root).ok().map(|()| PinRootClaim::take(&config.pin_root)).transpose()?;
        adopt_renamed_pins(&config.pin_root, &links)?;
        for name in config.links.iter().flat_map(|config| matching(config, &links)) {
            let Some((ifindex, _)) = links.named(&name) else { continue };
            if links.refusal(ifindex, |name| config.names(name)).is_some() || is_metered(&name) {
                continue;
            }
            let spec = LoadSpec { link: name.clone(), pin_root: config.pin_root.clone(), retire: Vec::new() };
            let _link = LinkClaim::take(&name, ifindex)?;
            match load(spec).await {
                Ok(loaded) => {
                    tracing::info!(link = name, ifindex, "metered behind a shut gate until there is a ledger");
                    if loaded.origin == Origin::New {
                        self.made.insert(name, loaded);
                    }
                }
                Err(error) => tracing::error!(
                    link = name,
                    "the link cannot be metered, what it carries is neither counted nor stopped: {error:#}"
                ),
            }
        }
        Ok(())
    }

    /// Writes down what had passed the links before they were metered: the agent finds the meters, and would not know.
    pub(super) fn tell(&self, agent: &mut Agent) {
        for (name, loaded) in &self.made {
            let is_its = |station: &Station| station.name.as_ref() == Some(name);
            let index = agent.stations.iter().position(is_its);
            if let Some(Err(error)) = index.map(|index| agent.note_unmetered(index, loaded)) {
                tracing::warn!(link = name, "what had passed before the meter is not remembered: {error:#}");
            }
        }
    }
}

/// Whether a meter sits at both hooks; it is left as it is, whoever has put it there.
fn is_metered(link: &str) -> bool {
    // Without the right to ask the loader has none either, and says so.
    meters_on(link).unwrap_or_default().iter().any(|meter| meter.programs() == (1, 1))
}
