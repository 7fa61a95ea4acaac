//! Follows the links: makes a station for each that is to be metered, has it metered, and tells the core when it is in use.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::station::{Attachment, Station, pinned};
use super::{Agent, Message};
use crate::clock::boot_now;
use crate::config::Link as LinkConfig;
use crate::datapath::{Datapath, LoadSpec, detach_and_unpin, spawn_loader};
use crate::drill::{self, Point};
use crate::link::{Link, Links, Refusal};
use crate::quota::{Event, Quota, StoredSession, Usable};
use crate::reporter::Route;
use crate::units::{BootInstant, Epoch};

/// A meter that could not be attached is tried again after this long, or when the links change.
const ATTACH_AGAIN: Duration = Duration::from_secs(30);

impl Agent {
    /// Makes the stations: one for each pinned or configured link, and one that drains sessions of past epochs.
    pub(super) fn restore(&mut self, mut stored: Vec<StoredSession>) -> Result<()> {
        let now = boot_now()?;
        let links = self.links.borrow().clone();
        for config in self.config.links.clone() {
            for name in names(&config, &links, &self.config.pin_root) {
                self.add_station(name, &config, &mut stored, now)?;
            }
        }
        let terms = self.default_terms();
        let quota = Quota::restore(stored, &terms, None, seed(), now).with_aborted(self.ledger.aborted()?);
        self.stations.push(Station::new(None, None, quota));
        // What was found to be lost is recorded before anything else happens.
        (0..self.stations.len()).try_for_each(|station| self.carry_out(station))?;
        self.announce_missing(&links);
        Ok(())
    }

    /// Says which configured links do not exist, and which links do: a misspelt name must not go unnoticed.
    fn announce_missing(&self, links: &Links) {
        let present: Vec<_> = links.by_index.values().map(|link| link.name.as_str()).collect();
        for config in self.config.links.iter().filter(|config| matching(config, links).is_empty()) {
            let present = present.join(", ");
            tracing::warn!(
                link = config.name,
                "there is no such link yet; it is metered once it exists. There are: {present}"
            );
        }
    }

    /// Adds a station for a link and gives it the stored sessions that its pinned meter still counts for.
    fn add_station(
        &mut self,
        name: String,
        config: &LinkConfig,
        stored: &mut Vec<StoredSession>,
        now: BootInstant,
    ) -> Result<()> {
        if self.stations.iter().any(|station| station.name.as_deref() == Some(name.as_str())) {
            return Ok(());
        }
        let pinned = pinned(&self.config.pin_root, &name, &self.boot)?;
        let belongs = |epoch: &Epoch| pinned.as_ref().is_some_and(|(_, pinned, _)| pinned == epoch);
        let (own, others) = std::mem::take(stored).into_iter().partition(|session| belongs(&session.opening.epoch));
        *stored = others;
        let sim = self.sims.get(&config.slot).cloned();
        let terms = sim.as_ref().map_or_else(|| self.default_terms(), |sim| sim.terms.clone());
        let meter = pinned.as_ref().map(|(_, epoch, reading)| (epoch.clone(), *reading));
        let quota = Quota::restore(own, &terms, meter.as_ref(), seed(), now).with_aborted(self.ledger.aborted()?);
        let mut station = Station::new(Some(name), Some(config.clone()), quota);
        station.datapath = pinned.map(|(datapath, _, _)| datapath);
        station.sim = sim;
        self.stations.push(station);
        Ok(())
    }

    /// Forgets the connections to the server that a change of links or routes has broken: a message that is sent now must not
    /// wait for a connection whose address went with its link.
    pub(super) fn forget_dead_connections(&mut self) {
        let links = self.links.borrow().clone();
        if links == self.known_links {
            return;
        }
        for (index, link) in &self.known_links.by_index {
            if links.by_index.get(index) != Some(link) {
                self.http.forget(&Route::Device(link.name.clone()));
            }
        }
        self.http.forget(&Route::Routed);
        self.known_links = links;
    }

    /// Compares the stations with the links that exist now, and acts on the difference.
    pub(super) fn reconcile(&mut self) -> Result<()> {
        let links = self.links.borrow_and_update().clone();
        for config in self.config.links.clone() {
            for name in matching(&config, &links) {
                self.add_station(name, &config, &mut Vec::new(), boot_now()?)?;
            }
        }
        for index in 0..self.stations.len() {
            let Some(name) = self.stations[index].name.clone() else { continue };
            match links.named(&name) {
                Some((ifindex, link)) => self.present(index, ifindex, link, &links)?,
                None => self.absent(index)?,
            }
        }
        self.begin_onboarding();
        Ok(())
    }

    fn present(&mut self, index: usize, ifindex: u32, link: &Link, links: &Links) -> Result<()> {
        let refusal = links.refusal(ifindex, |name| self.config.links.iter().any(|config| config.matches(name)));
        if let Some(refusal) = refusal {
            return self.refuse(index, refusal);
        }
        let station = &mut self.stations[index];
        let reframed = station.framing != link.framing;
        station.framing = link.framing;
        match station.attachment {
            Attachment::Pending(_) => Ok(()),
            Attachment::On(on) if on == ifindex => {
                if reframed {
                    self.meter(index)?;
                }
                self.use_link(index, ifindex, link, links)
            }
            Attachment::Failed(on) if on == ifindex => Ok(()),
            Attachment::None | Attachment::On(_) | Attachment::Failed(_) | Attachment::Refused => {
                station.refusal = None;
                self.attach(index, ifindex);
                Ok(())
            }
        }
    }

    /// The link is not to be metered: it is settled, and its meter taken off once that is done.
    fn refuse(&mut self, index: usize, refusal: Refusal) -> Result<()> {
        let station = &mut self.stations[index];
        if matches!(station.attachment, Attachment::Pending(_)) {
            // Looked at again when the loader is done.
            return Ok(());
        }
        if station.refusal.as_ref() != Some(&refusal) {
            tracing::error!(link = station.label(), "the link is not metered: {refusal}");
        }
        station.refusal = Some(refusal);
        self.out_of_reach(index, Attachment::Refused)
    }

    fn absent(&mut self, index: usize) -> Result<()> {
        let station = &mut self.stations[index];
        if station.attachment != Attachment::None || station.in_use || station.quota.needs_meter() {
            tracing::info!(link = station.label(), "the link is gone");
        }
        station.refusal = None;
        self.out_of_reach(index, Attachment::None)
    }

    /// Tells the core, once, that a link is not in use any more and will not be soon.
    fn out_of_reach(&mut self, index: usize, attachment: Attachment) -> Result<()> {
        let station = &mut self.stations[index];
        let is_news = station.attachment != attachment || station.in_use || station.quota.needs_meter();
        station.attachment = attachment;
        if !is_news {
            return Ok(());
        }
        station.in_use = false;
        self.tell(index, Event::Gone)
    }

    /// Takes the meter off every link that is gone or not to be metered, once its last reading is taken: such a link may live on
    /// in another namespace, or under a bridge, where a shut gate would block it for ever.
    pub(super) fn let_go(&mut self) -> Result<()> {
        for index in 0..self.stations.len() {
            let station = &mut self.stations[index];
            let out_of_reach = matches!(station.attachment, Attachment::None | Attachment::Refused);
            if !out_of_reach || station.datapath.is_none() || station.quota.needs_meter() {
                continue;
            }
            station.datapath = None;
            let label = station.label().to_owned();
            match detach_and_unpin(&self.config.pin_root, &label) {
                Ok(()) => tracing::info!(link = label, "settled; its meter is taken off"),
                Err(error) => tracing::warn!(link = label, "its meter could not be taken off: {error:#}"),
            }
            self.tell(index, Event::MeterLost)?;
        }
        Ok(())
    }

    /// Has a loader attach the meter, away from the loop: it takes a moment.
    fn attach(&mut self, index: usize, ifindex: u32) {
        let station = &mut self.stations[index];
        let Some(link) = station.name.clone() else { return };
        station.attachment = Attachment::Pending(ifindex);
        let spec = LoadSpec { link, pin_root: self.config.pin_root.clone() };
        let inbox = self.inbox.clone();
        tokio::task::spawn_blocking(move || {
            let result = spawn_loader(Path::new("/proc/self/exe"), &spec);
            let _ = inbox.send(Message::Attached { station: index, ifindex, result });
        });
    }

    /// The loader is done: opens the pins, takes the last reading of what was there before, and tells the core.
    pub(super) fn attached(&mut self, index: usize, ifindex: u32, result: Result<()>) -> Result<()> {
        let label = self.stations[index].label().to_owned();
        if let Err(error) = result {
            tracing::error!(
                link = label,
                "the link cannot be metered; unless an earlier meter is still there, what it carries is neither counted nor stopped: {error:#}"
            );
            self.stations[index].attachment = Attachment::Failed(ifindex);
            let inbox = self.inbox.clone();
            tokio::spawn(async move {
                tokio::time::sleep(ATTACH_AGAIN).await;
                let _ = inbox.send(Message::AttachAgain { station: index });
            });
            // The link may have been replaced meanwhile: the new one is not left unmetered until the next try.
            return self.reconcile();
        }
        drill::pass(Point::Attached);
        match self.stations[index].read() {
            Ok(Some(reading)) => self.tell(index, Event::Reading(reading))?,
            Ok(None) => {}
            Err(error) => {
                tracing::error!(link = label, "the meter before this one cannot be read any more: {error:#}");
                self.tell(index, Event::MeterLost)?;
            }
        }
        let mut datapath = Datapath::open(&self.config.pin_root, &label)?;
        datapath.set_allow_list(&self.allow)?;
        self.watch_hints(index, &datapath);
        self.watch_kernel_log(&datapath);
        self.stations[index].datapath = Some(datapath);
        self.stations[index].attachment = Attachment::On(ifindex);
        tracing::info!(link = label, ifindex, "metered");
        self.meter(index)?;
        self.reconcile()
    }

    /// Tells the core which meter it has. The gate is written anew with the framing of the link.
    fn meter(&mut self, index: usize) -> Result<()> {
        let station = &self.stations[index];
        let (Some(epoch), Some(reading)) = (station.epoch(&self.boot), station.read()?) else { return Ok(()) };
        let control_reserve = self.config.agent.control_reserve;
        self.tell(index, Event::Metered { epoch, reading, control_reserve })
    }

    /// Tells the core when the link comes into use, goes out of use, or has another SIM or other terms.
    fn use_link(&mut self, index: usize, ifindex: u32, link: &Link, links: &Links) -> Result<()> {
        let routed = !self.config.agent.follow_default_route || links.default_route() == Some(ifindex);
        let station = &mut self.stations[index];
        let slot = station.config.as_ref().map(|config| config.slot.as_str()).unwrap_or_default();
        let sim = self.sims.get(slot).cloned().filter(|_| link.up && routed);
        let Some(sim) = sim else {
            if station.in_use || station.quota.needs_meter() {
                station.in_use = false;
                self.tell(index, Event::Gone)?;
            }
            return Ok(());
        };
        if station.in_use && station.sim.as_ref() == Some(&sim) {
            return Ok(());
        }
        let (Some(epoch), Some(reading)) = (station.epoch(&self.boot), station.read()?) else { return Ok(()) };
        let came_up = !station.in_use;
        station.in_use = true;
        station.sim = Some(sim.clone());
        self.tell(index, Event::Usable(Usable { subscriber: sim.subscriber, epoch, terms: sim.terms, reading }))?;
        if came_up {
            for other in (0..self.stations.len()).filter(|other| *other != index) {
                self.tell(other, Event::RouteUp)?;
            }
        }
        Ok(())
    }
}

/// The names that a configured link stands for: its own, or those that exist or are pinned and match its pattern.
fn names(config: &LinkConfig, links: &Links, pin_root: &Path) -> Vec<String> {
    if !config.is_pattern() {
        return vec![config.name.clone()];
    }
    let mut names = matching(config, links);
    let pinned = std::fs::read_dir(pin_root.join(format!("v{}", agent_common::LAYOUT_VERSION)));
    for entry in pinned.into_iter().flatten().flatten() {
        if let Ok(name) = entry.file_name().into_string()
            && config.matches(&name)
        {
            names.push(name);
        }
    }
    names
}

fn matching(config: &LinkConfig, links: &Links) -> Vec<String> {
    links.by_index.values().map(|link| link.name.clone()).filter(|name| config.matches(name)).collect()
}

/// A seed from the kernel's randomness: devices that lost their server together must not come back together.
fn seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // `RandomState` is keyed from the operating system's randomness.
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u8(0);
    hasher.finish()
}
