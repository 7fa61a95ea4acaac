//! What an agent does about earlier meters before it touches anything: claims its links, takes over what it finds, bills what has retired.

use std::collections::BTreeSet;
use std::collections::btree_map::Entry;
use std::path::Path;

use anyhow::{Context, Result};

use super::Agent;
use super::reconcile::matching;
use super::station::{PAST_SESSIONS, Station, reading};
use crate::datapath::{
    Datapath, LinkClaim, LoadSpec, Meter, PinRootClaim, Pins, Retired, has_older_layout, make_pin_root, meters_on,
    pinned_links, refuse_newer_layout, retire_without_link, retired, spawn_loader,
};
use crate::link::Links;
use crate::quota::{Event, StoredSession};
use crate::units::{Epoch, Generation};

impl Agent {
    /// Claims the directory of the pins and every configured link that exists; fails, with nothing touched, when another agent has one, or a
    /// newer one has left its meter.
    pub(super) fn claim_all(&mut self) -> Result<()> {
        self.claim_pin_root()?;
        for name in pinned_links(&self.config.pin_root) {
            refuse_newer_layout(&self.config.pin_root, &name)?;
        }
        let links = self.links.borrow().clone();
        for config in self.config.links.clone() {
            for name in matching(&config, &links) {
                if let Some((ifindex, _)) = links.named(&name) {
                    self.claim_link(&name, ifindex)?;
                }
            }
        }
        Ok(())
    }

    /// Claims a link that is to be metered, once.
    pub(super) fn claim_link(&mut self, name: &str, ifindex: u32) -> Result<()> {
        self.claim_pin_root()?;
        let present = self.links.borrow().clone();
        self.claims.retain(|claimed, _| present.by_index.contains_key(claimed));
        if let Entry::Vacant(free) = self.claims.entry(ifindex) {
            free.insert(LinkClaim::take(name, ifindex)?);
        }
        Ok(())
    }

    /// Where no pin can be made there is nothing to claim; the loader says what is missing.
    fn claim_pin_root(&mut self) -> Result<()> {
        if self.pin_root_claim.is_none() && make_pin_root(&self.config.pin_root).is_ok() {
            self.pin_root_claim = Some(PinRootClaim::take(&self.config.pin_root)?);
        }
        Ok(())
    }

    /// Replaces the meters of an older layout, those whose pins are out of sight, and those that cannot be opened: by a new one, before any
    /// session is taken up. What they have counted is then among the retired.
    pub(super) fn take_over(&self, links: &Links) -> Result<()> {
        let present = self.config.links.iter().flat_map(|config| matching(config, links));
        let names: BTreeSet<String> = present.chain(pinned_links(&self.config.pin_root)).collect();
        for name in names {
            let is_wanted = self.config.names(&name);
            let attach = is_wanted && links.named(&name).is_some();
            self.take_over_link(&name, attach).with_context(|| format!("taking over the meter of {name}"))?;
        }
        Ok(())
    }

    fn take_over_link(&self, name: &str, attach: bool) -> Result<()> {
        let pin_root = &self.config.pin_root;
        let has_pins = Pins::new(pin_root, name).directory().exists();
        let pinned = has_pins.then(|| Datapath::open(pin_root, name));
        let broken = pinned.as_ref().and_then(|opened| opened.as_ref().err());
        let own = pinned.as_ref().and_then(|opened| opened.as_ref().ok()).map(Datapath::epoch_id);
        let mut retire = if attach { self.own_meters(name, own)? } else { Vec::new() };
        // Where nothing has passed there is nothing to be billed first: the loader that comes later replaces it.
        retire.retain(|(_, has_passed)| *has_passed);
        let retire: Vec<u32> = retire.into_iter().map(|(epoch_id, _)| epoch_id).collect();
        if let Some(error) = broken {
            tracing::error!(
                link = name,
                "the pins of an earlier run are damaged, a new meter takes its place: {error:#}"
            );
        }
        if broken.is_none() && retire.is_empty() && !has_older_layout(pin_root, name) {
            return Ok(());
        }
        tracing::warn!(link = name, epochs = ?retire, "taking over what an earlier run has left; what it has counted is billed");
        if !attach {
            return retire_without_link(pin_root, name);
        }
        let spec = LoadSpec { link: name.to_owned(), pin_root: pin_root.clone(), retire };
        spawn_loader(Path::new("/proc/self/exe"), &spec).map(drop)
    }

    /// Epochs of the meters on a link, other than `present`, that this agent may replace: the ledger knows them, or nothing has passed
    /// them (which is told with each).
    pub(super) fn own_meters(&self, link: &str, present: Option<u32>) -> Result<Vec<(u32, bool)>> {
        let mut own = Vec::new();
        // Without the right to ask there is nothing to replace either; the loader says what is missing.
        for Meter { epoch_id, has_passed, .. } in meters_on(link).unwrap_or_default() {
            // Which are ours is not known while the ledger is out of reach; a loader finds those that are pinned by itself.
            let is_own =
                !has_passed || (!self.ledger.is_let_go() && self.ledger.knows_epoch(&self.epoch_of(epoch_id))?);
            if is_own && Some(epoch_id) != present {
                own.push((epoch_id, has_passed));
            }
        }
        Ok(own)
    }

    fn epoch_of(&self, epoch_id: u32) -> Epoch {
        Epoch { boot: self.boot.clone(), generation: Generation::new(epoch_id) }
    }

    /// The epochs of the meters that are pinned.
    pub(super) fn pinned_epochs(&self) -> Vec<Epoch> {
        let open = |name: String| Datapath::open(&self.config.pin_root, &name).ok();
        let pinned = Pins::names(&self.config.pin_root).into_iter().filter_map(open);
        pinned.map(|meter| self.epoch_of(meter.epoch_id())).collect()
    }

    /// Gives the sessions of retired meters their last reading, records it, and forgets those meters.
    pub(super) fn settle_retired(&mut self, stored: &mut Vec<StoredSession>) -> Result<()> {
        let present = self.pinned_epochs();
        for meter in retired(&self.config.pin_root) {
            let epoch = self.epoch_of(meter.epoch_id);
            if present.contains(&epoch) {
                // Whoever was about to retire it died before it was taken off: it counts on, and its session goes on.
                meter.forget()?;
                continue;
            }
            let (own, others) = std::mem::take(stored).into_iter().partition(|session| session.opening.epoch == epoch);
            *stored = others;
            self.settle_meter(own, epoch, &meter)?;
            meter.forget()?;
        }
        Ok(())
    }

    fn settle_meter(&mut self, sessions: Vec<StoredSession>, epoch: Epoch, meter: &Retired) -> Result<()> {
        if sessions.is_empty() {
            return Ok(());
        }
        tracing::info!(
            epoch = meter.epoch_id,
            sessions = sessions.len(),
            "billing the last reading of a meter that was replaced"
        );
        let last = (epoch, reading(&meter.counters));
        let core = self.core(PAST_SESSIONS, sessions, self.default_terms(), Some(last))?;
        self.stations.push(Station::new(None, None, core));
        // The core has taken this reading, and it was the last.
        self.tell(self.stations.len() - 1, Event::MeterRetired)
    }

    /// The usage of this epoch is recorded: its counters may go, if they were kept.
    pub(super) fn forget_epoch(&self, epoch_id: u32) -> Result<()> {
        let own = retired(&self.config.pin_root).into_iter().filter(|meter| meter.epoch_id == epoch_id);
        own.into_iter().try_for_each(|meter| meter.forget())
    }
}
