//! Follows the links: makes a station for each that is to be metered, has it metered, and tells the core when it is in use.

use std::path::Path;

use anyhow::Result;

use super::rename::adopt_renamed_pins;
use super::station::{Attachment, PAST_SESSIONS, Sim, Station, pinned};
use super::{Agent, Message};
use crate::clock::boot_now;
use crate::config::Link as LinkConfig;
use crate::datapath::Pins;
use crate::link::{Link, Links, Refusal};
use crate::quota::{Event, Reading, StoredSession, Terms, Usable};
use crate::recording::{Birth, Core};
use crate::reporter::Route;
use crate::units::Epoch;

impl Agent {
    /// Makes the stations: one for each pinned or configured link, and one that drains sessions of past epochs.
    pub(super) fn restore(&mut self, mut stored: Vec<StoredSession>) -> Result<()> {
        let links = self.links.borrow().clone();
        adopt_renamed_pins(&self.config.pin_root, &links)?;
        self.take_over(&links)?;
        self.settle_retired(&mut stored)?;
        for config in self.config.links.clone() {
            for name in names(&config, &links, &self.config.pin_root) {
                self.add_station(name, Some(&config), &mut stored)?;
            }
        }
        // What else is pinned was metered once, and has no [[link]] any more: it is settled and let go.
        for name in Pins::names(&self.config.pin_root) {
            self.add_station(name, None, &mut stored)?;
        }
        let terms = self.default_terms();
        let core = self.core(PAST_SESSIONS, stored, terms, None)?;
        self.stations.push(Station::new(None, None, core));
        // What was found to be lost is recorded before anything else happens.
        (0..self.stations.len()).try_for_each(|station| self.carry_out(station))?;
        self.announce_missing(&links);
        Ok(())
    }

    /// Gives every station the sessions that are its own, in a core made anew; the others drain apart.
    pub(super) fn take_up(&mut self, stored: Vec<StoredSession>) -> Result<()> {
        let mut rest = stored;
        for index in 0..self.stations.len() {
            let station = &self.stations[index];
            let Some(name) = station.name.clone() else {
                // What it was draining is among the rest.
                self.stations[index].quota = self.core(PAST_SESSIONS, Vec::new(), self.default_terms(), None)?;
                continue;
            };
            let meter = station.epoch(&self.boot).zip(station.read()?);
            let (own, others) = split(rest, meter.as_ref().map(|(epoch, _)| epoch));
            rest = others;
            let terms = station.sim.as_ref().map_or_else(|| self.default_terms(), |sim| sim.terms.clone());
            let core = self.core(&name, own, terms, meter)?;
            self.stations[index].quota = core;
            self.stations[index].in_use = false;
        }
        let core = self.core(PAST_SESSIONS, rest, self.default_terms(), None)?;
        match self.stations.iter_mut().find(|station| station.name.is_none()) {
            Some(past) => past.quota = core,
            // Its place was given to a link when it had nothing more to drain.
            None => self.stations.push(Station::new(None, None, core)),
        }
        // What was found to be lost is recorded before anything else happens.
        (0..self.stations.len()).try_for_each(|station| self.carry_out(station))
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

    /// Adds a station for a link, where there is none, and gives it the stored sessions that are its own.
    fn add_station(
        &mut self,
        name: String,
        config: Option<&LinkConfig>,
        stored: &mut Vec<StoredSession>,
    ) -> Result<()> {
        if self.stations.iter().any(|station| station.name.as_deref() == Some(name.as_str())) {
            return Ok(());
        }
        let pinned = pinned(&self.config.pin_root, &name, &self.boot)?;
        let sim = self.sim_of(config).cloned();
        let (own, others) = split(std::mem::take(stored), pinned.as_ref().map(|(_, epoch, _)| epoch));
        *stored = others;
        let terms = sim.as_ref().map_or_else(|| self.default_terms(), |sim| sim.terms.clone());
        let meter = pinned.as_ref().map(|(_, epoch, reading)| (epoch.clone(), *reading));
        let links = self.links.borrow().clone();
        let core = self.core(&name, own, terms, meter)?;
        let mut station = Station::new(Some(name), config.cloned(), core);
        station.datapath = pinned.map(|(datapath, _, _)| datapath);
        station.sim = sim;
        // The gate of a pinned meter may be written before the link is looked at.
        if let Some((_, link)) = station.name.as_deref().and_then(|name| links.named(name)) {
            station.framing = link.framing;
        }
        match self.stations.iter_mut().find(|station| station.is_free()) {
            Some(place) => *place = station,
            None => self.stations.push(station),
        }
        Ok(())
    }

    /// A core that takes up these sessions.
    pub(super) fn core(
        &self,
        label: &str,
        sessions: Vec<StoredSession>,
        terms: Terms,
        meter: Option<(Epoch, Reading)>,
    ) -> Result<Core> {
        let (label, seed, at) = (label.to_owned(), seed(), boot_now()?);
        // A core that is made while the ledger is out of reach is made anew when that is back, and is asked nothing until then.
        let aborted = if self.ledger.is_let_go() { Vec::new() } else { self.ledger.aborted()? };
        Ok(Core::begin(Birth { label, at, seed, terms, meter, aborted, sessions }, &self.recorder))
    }

    /// Forgets the connections to the server that a change of links or routes has broken: a message that is sent now must not
    /// wait for a connection whose address went with its link.
    pub(super) fn forget_dead_connections(&mut self) {
        let links = self.links.borrow().clone();
        if links.are_alike(&self.known_links) {
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
        self.follow_renames(&links)?;
        self.look_after_meters();
        let wanted = if self.stopping { Vec::new() } else { self.config.links.clone() };
        for config in &wanted {
            let own = (!config.is_pattern()).then(|| config.name.clone());
            for name in own.into_iter().chain(matching(config, &links)) {
                self.add_station(name, Some(config), &mut Vec::new())?;
            }
        }
        for index in 0..self.stations.len() {
            let Some(name) = self.stations[index].name.clone() else { continue };
            match links.named(&name) {
                Some(_) if self.stations[index].config.is_none() => self.refuse(index, Refusal::Unwanted)?,
                Some((ifindex, link)) => self.present(index, ifindex, link, &links)?,
                // Its new name is not free yet.
                None if self.has_another_name(index, &links).is_some() => {}
                None => self.absent(index)?,
            }
        }
        self.begin_onboarding();
        Ok(())
    }

    /// Has links metered that are new, or were replaced, while nothing can be recorded: behind a shut gate, which needs no record.
    pub(super) fn meter_new_links(&mut self) {
        let links = self.links.borrow_and_update().clone();
        for config in self.config.links.clone() {
            for name in matching(&config, &links) {
                if let Err(error) = self.add_station(name.clone(), Some(&config), &mut Vec::new()) {
                    tracing::error!(link = name, "the link cannot be metered before the ledger is back: {error:#}");
                }
            }
        }
        for index in 0..self.stations.len() {
            let station = &self.stations[index];
            let name = station.name.as_ref().filter(|_| station.config.is_some());
            let found = name.and_then(|name| links.named(name));
            let Some((ifindex, _)) =
                found.filter(|(ifindex, _)| links.refusal(*ifindex, |name| self.config.names(name)).is_none())
            else {
                continue;
            };
            match station.attachment {
                Attachment::On(on) | Attachment::Failed(on) if on == ifindex => {}
                // As long as the loader is at work there is nothing to be done, nor when its meter is the right one.
                Attachment::Pending(_) if self.waiting_on(index).is_none_or(|on| on == ifindex) => {}
                Attachment::Refused => {}
                Attachment::None | Attachment::Pending(_) | Attachment::On(_) | Attachment::Failed(_) => {
                    let is_of_it =
                        |later: &Message| matches!(later, Message::Attached { station, .. } if *station == index);
                    self.deferred.retain(|later| !is_of_it(later));
                    self.attach(index, ifindex);
                }
            }
        }
    }

    fn present(&mut self, index: usize, ifindex: u32, link: &Link, links: &Links) -> Result<()> {
        if let Some(refusal) = links.refusal(ifindex, |name| self.config.names(name)) {
            return self.refuse(index, refusal);
        }
        let station = &mut self.stations[index];
        if station.framing != link.framing {
            tracing::info!(link = station.label(), framing = ?link.framing, "the link has another framing");
            station.reframe(link.framing, &self.portals)?;
        }
        match station.attachment {
            Attachment::Pending(_) => Ok(()),
            Attachment::On(on) if on == ifindex => self.use_link(index, ifindex, link, links),
            Attachment::Failed(on) if on == ifindex => Ok(()),
            Attachment::None | Attachment::On(_) | Attachment::Failed(_) | Attachment::Refused if self.stopping => {
                Ok(())
            }
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

    /// The link does not exist: it is settled.
    fn absent(&mut self, index: usize) -> Result<()> {
        let station = &mut self.stations[index];
        if matches!(station.attachment, Attachment::Pending(_)) {
            return Ok(());
        }
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

    /// Notes, for the history, that a link carries its SIM.
    pub(super) fn note_carried(&mut self, index: usize) -> Result<()> {
        let station = &self.stations[index];
        let slot = station.config.as_ref().map(|config| config.slot.as_str()).unwrap_or_default();
        // A link with a new name may still have to settle the SIM of the old one.
        let own = self.sims.get(slot).filter(|sim| station.in_use && station.sim.as_ref() == Some(*sim));
        match (&station.name, own) {
            (Some(name), Some(sim)) => self.ledger.note_carried(name, &sim.subscriber),
            (_, _) => Ok(()),
        }
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
        let Some(reading) = self.reading(index) else { return Ok(()) };
        let Some(epoch) = self.stations[index].epoch(&self.boot) else { return Ok(()) };
        let station = &mut self.stations[index];
        let came_up = !station.in_use;
        station.in_use = true;
        station.sim = Some(sim.clone());
        self.note_carried(index)?;
        self.tell(index, Event::Usable(Usable { subscriber: sim.subscriber, epoch, terms: sim.terms, reading }))?;
        if came_up {
            // Its own core as well: past sessions are drained there, and one that is awaited keeps the link shut.
            (0..self.stations.len()).try_for_each(|station| self.tell(station, Event::RouteUp))?;
        }
        Ok(())
    }

    /// The SIM behind a configured link, as far as it is known.
    fn sim_of(&self, config: Option<&LinkConfig>) -> Option<&Sim> {
        config.and_then(|config| self.sims.get(&config.slot))
    }
}

/// The sessions that a meter of this epoch still counts for, and the others.
fn split(stored: Vec<StoredSession>, epoch: Option<&Epoch>) -> (Vec<StoredSession>, Vec<StoredSession>) {
    stored.into_iter().partition(|session| epoch == Some(&session.opening.epoch))
}

/// The names that a configured link stands for: its own, or those that exist or are pinned and match its pattern.
pub(super) fn names(config: &LinkConfig, links: &Links, pin_root: &Path) -> Vec<String> {
    if !config.is_pattern() {
        return vec![config.name.clone()];
    }
    let pinned = Pins::names(pin_root).into_iter().filter(|name| config.matches(name));
    matching(config, links).into_iter().chain(pinned).collect()
}

pub(super) fn matching(config: &LinkConfig, links: &Links) -> Vec<String> {
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
