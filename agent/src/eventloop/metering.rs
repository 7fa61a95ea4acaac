//! Meters come and go: a loader attaches them away from the loop, they are looked after, tried again, and taken off.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::station::{Attachment, Station};
use super::{Agent, Message};
use crate::clock::boot_now;
use crate::datapath::{Datapath, LoadSpec, Loaded, Origin, retire_without_link, spawn_loader};
use crate::drill::{self, Point};
use crate::quota::{Event, Reading};

/// A meter that could not be attached is tried again after this long at first, then after twice that, and so on.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
/// The longest of these pauses.
const AGAIN_LAST: Duration = Duration::from_mins(1);

impl Agent {
    /// Has a loader attach the meter, away from the loop: it takes a moment.
    pub(super) fn attach(&mut self, index: usize, ifindex: u32) {
        let station = &mut self.stations[index];
        let Some(link) = station.name.clone() else { return };
        station.attachment = Attachment::Pending(ifindex);
        let spec = self.claim_link(&link, ifindex).and_then(|()| self.load_spec(index, link));
        let (inbox, loaders) = (self.inbox.clone(), Arc::clone(&self.loaders));
        tokio::spawn(async move {
            // Nobody closes it.
            let _turn = loaders.acquire().await;
            let result = match spec {
                Ok(spec) => load(spec).await,
                Err(error) => Err(error),
            };
            let _ = inbox.send(Message::Attached { station: index, ifindex, result });
        });
    }

    /// What a loader is told: the meter that is in hand may be replaced, wherever its pins are.
    fn load_spec(&self, index: usize, link: String) -> Result<LoadSpec> {
        let own = self.own_meters(&link, None)?;
        let mut retire: Vec<u32> = own.into_iter().map(|(epoch_id, _)| epoch_id).collect();
        retire.extend(self.stations[index].datapath.as_ref().map(Datapath::epoch_id));
        Ok(LoadSpec { link, pin_root: self.config.pin_root.clone(), retire })
    }

    /// The loader is done: opens the pins, takes the last reading of what was there before, and tells the core.
    pub(super) fn attached(&mut self, index: usize, ifindex: u32, result: Result<Loaded>) -> Result<()> {
        if self.stations[index].name.is_none() {
            return Ok(());
        }
        let taken = match result {
            Ok(loaded) => {
                drill::pass(Point::Attached);
                self.take_in_hand(index, &loaded)?
            }
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            self.failed_to_attach(index, ifindex, &error);
        }
        // The link may have been replaced meanwhile: the new one is not left unmetered until the next try.
        self.reconcile()
    }

    /// The same while nothing can be recorded: a meter that was attached is taken in hand later, its gate is shut; what failed is tried
    /// again.
    pub(super) fn attached_without_ledger(&mut self, index: usize, ifindex: u32, result: Result<Loaded>) {
        match result {
            Ok(loaded) => {
                self.deferred.push_back(Message::Attached { station: index, ifindex, result: Ok(loaded) });
            }
            Err(_) if self.stations[index].name.is_none() => {}
            Err(error) => self.failed_to_attach(index, ifindex, &error),
        }
        // The link may have been replaced meanwhile.
        self.meter_new_links();
    }

    /// Where a loader has put a meter that waits to be taken in hand until the ledger is back.
    pub(super) fn waiting_on(&self, index: usize) -> Option<u32> {
        self.deferred.iter().find_map(|message| match message {
            Message::Attached { station, result: Ok(loaded), .. } if *station == index => Some(loaded.ifindex),
            Message::Attached { .. }
            | Message::Answer { .. }
            | Message::AttachAgain { .. }
            | Message::Hint { .. }
            | Message::News(_)
            | Message::Allow(_)
            | Message::Portal { .. }
            | Message::Asked(_) => None,
        })
    }

    fn failed_to_attach(&mut self, index: usize, ifindex: u32, error: &anyhow::Error) {
        tracing::error!(
            link = self.stations[index].label(),
            "the link cannot be metered; unless an earlier meter is still there, what it carries is neither counted nor stopped: {error:#}"
        );
        self.try_again(index, ifindex);
    }

    /// The inner result tells whether the meter could be opened; the outer one is the loop's own.
    fn take_in_hand(&mut self, index: usize, loaded: &Loaded) -> Result<Result<()>> {
        let label = self.stations[index].label().to_owned();
        let opened = Datapath::open(&self.config.pin_root, &label).and_then(|mut datapath| {
            datapath.set_allow_list(&self.allow)?;
            Ok(datapath)
        });
        let datapath = match opened {
            Ok(datapath) => datapath,
            Err(error) => return Ok(Err(error)),
        };
        let before = self.stations[index].datapath.as_ref().map(Datapath::epoch_id);
        // The last of the old meter, if there is a new one: nothing counts there any more.
        match self.stations[index].read() {
            Ok(Some(reading)) => self.tell(index, Event::Reading(reading))?,
            Ok(None) => {}
            Err(error) => {
                tracing::error!(link = label, "the meter before this one cannot be read any more: {error:#}");
                self.tell(index, Event::MeterLost)?;
            }
        }
        let ears = self.listen(index, &datapath);
        let station = &mut self.stations[index];
        if loaded.origin == Origin::New {
            station.put_down(station.on);
        }
        station.ears = ears;
        station.on = Some(loaded.ifindex);
        station.datapath = Some(datapath);
        station.attachment = Attachment::On(loaded.ifindex);
        tracing::info!(link = label, ifindex = loaded.ifindex, "metered");
        match loaded.origin {
            Origin::New => self.note_unmetered(index, loaded)?,
            Origin::Adopted => self.recall_unmetered(index),
        }
        self.meter(index)?;
        if let Some(before) = before {
            self.forget_epoch(before)?;
        }
        Ok(Ok(()))
    }

    /// Tells the core which meter it has.
    pub(super) fn meter(&mut self, index: usize) -> Result<()> {
        let Some(reading) = self.reading(index) else { return Ok(()) };
        let Some(epoch) = self.stations[index].epoch(&self.boot) else { return Ok(()) };
        let control_reserve = self.config.agent.control_reserve;
        self.tell(index, Event::Metered { epoch, reading, control_reserve })
    }

    /// Has another loader try, after a pause that grows.
    fn try_again(&mut self, index: usize, ifindex: u32) {
        let station = &mut self.stations[index];
        station.attachment = Attachment::Failed(ifindex);
        let pause = (AGAIN_FIRST * 2_u32.pow(station.failures.min(10))).min(AGAIN_LAST);
        station.failures = station.failures.saturating_add(1);
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let _ = inbox.send(Message::AttachAgain { station: index });
        });
    }

    /// The reading of a station's meter; `None` without one. One that cannot be read is opened again from its pins, and where that
    /// does not help it is left to a loader.
    pub(super) fn reading(&mut self, index: usize) -> Option<Reading> {
        let error = match self.stations[index].read() {
            Ok(reading) => {
                if let (Some(reading), Ok(now)) = (&reading, boot_now()) {
                    self.stations[index].trend.note(reading.passed.total(), now);
                }
                return reading;
            }
            Err(error) => error,
        };
        let label = self.stations[index].label().to_owned();
        // Until the next try that is known.
        if !matches!(self.stations[index].attachment, Attachment::Pending(_) | Attachment::Failed(_)) {
            tracing::error!(link = label, "the meter cannot be read: {error:#}");
        }
        let same = |datapath: &Datapath| {
            self.stations[index].datapath.as_ref().is_some_and(|before| before.epoch_id() == datapath.epoch_id())
        };
        if let Ok(datapath) = Datapath::open(&self.config.pin_root, &label)
            && same(&datapath)
        {
            self.stations[index].datapath = Some(datapath);
            if let Ok(reading) = self.stations[index].read() {
                return reading;
            }
        }
        if let Attachment::On(ifindex) = self.stations[index].attachment {
            self.try_again(index, ifindex);
        }
        None
    }

    /// Looks whether every meter is still where it was attached. One that somebody else has taken off is attached again: a new epoch.
    pub(super) fn look_after_meters(&mut self) {
        let links = self.links.borrow().clone();
        for index in 0..self.stations.len() {
            let station = &mut self.stations[index];
            let Attachment::On(ifindex) = station.attachment else { continue };
            let in_place = station.datapath.as_ref().is_some_and(|datapath| datapath.is_attached(ifindex));
            // A link that is gone, or bears another name now, is the business of `reconcile`.
            let still_there = station.name.as_deref() == links.name_of(ifindex)
                && station.name.as_deref().is_some_and(|name| nix::net::if_::if_nametoindex(name) == Ok(ifindex));
            let is_pinned = station.datapath.as_ref().is_some_and(Datapath::is_pinned);
            if in_place && !is_pinned && still_there && !self.stopping {
                tracing::error!(
                    link = station.label(),
                    ifindex,
                    "the pins of the meter are gone (is another file system mounted over them?); it is replaced by one that is pinned"
                );
                self.attach(index, ifindex);
            } else if in_place {
                station.failures = 0;
                note_what_runs_ahead(station, ifindex);
            } else if still_there && !self.stopping {
                station.gaps = station.gaps.saturating_add(1);
                tracing::error!(
                    link = station.label(),
                    ifindex,
                    "somebody has taken the meter off: what passed since then was neither counted nor stopped; it is attached again"
                );
                self.attach(index, ifindex);
            }
        }
    }

    /// Takes the meter off every link that is gone or not to be metered, once its last reading is taken: such a link may live on
    /// in another namespace, or under a bridge, where a shut gate would block it for ever.
    pub(super) fn let_go(&mut self) -> Result<()> {
        for index in 0..self.stations.len() {
            let station = &mut self.stations[index];
            let out_of_reach = matches!(station.attachment, Attachment::None | Attachment::Refused);
            if !out_of_reach || station.quota.needs_meter() {
                continue;
            }
            if station.datapath.is_some() {
                tracing::info!(link = station.label(), "settled; its meter is taken off");
                self.take_off(index)?;
                continue;
            }
            // A link that was there by a pattern, or by an earlier configuration, is not waited for.
            let passing = station.config.as_ref().is_none_or(crate::config::Link::is_pattern);
            if station.name.is_some() && passing && (station.config.is_none() || station.attachment == Attachment::None)
            {
                station.retire();
            }
        }
        Ok(())
    }

    /// Takes the meter off, then reads it for the last time.
    pub(super) fn take_off(&mut self, index: usize) -> Result<()> {
        let station = &mut self.stations[index];
        let on = station.on.take();
        if station.datapath.is_none() {
            return Ok(());
        }
        let label = station.label().to_owned();
        let epoch_id = station.datapath.as_ref().map(Datapath::epoch_id);
        let taken_off = retire_without_link(&self.config.pin_root, &label);
        if let Err(error) = &taken_off {
            tracing::warn!(link = label, "its meter could not be taken off: {error:#}");
        }
        // The maps live as long as they are open, and nobody writes to them any more.
        let last = self.reading(index);
        if let Some(reading) = last {
            self.tell(index, Event::Reading(reading))?;
        }
        self.stations[index].put_down(on);
        let is_read_to_its_end = last.is_some() && taken_off.is_ok();
        self.tell(index, if is_read_to_its_end { Event::MeterRetired } else { Event::MeterLost })?;
        epoch_id.map_or(Ok(()), |epoch_id| self.forget_epoch(epoch_id))
    }
}

/// Runs a loader beside the loop's thread, and waits for it.
pub(super) async fn load(spec: LoadSpec) -> Result<Loaded> {
    let work = move || spawn_loader(Path::new("/proc/self/exe"), &spec);
    tokio::task::spawn_blocking(work).await.context("the loader's thread").flatten()
}

/// Says, once, what others have put ahead of a meter: it is nobody's to move.
fn note_what_runs_ahead(station: &mut Station, ifindex: u32) {
    // What cannot be asked now is asked again at the next look.
    let ahead = station.datapath.as_ref().and_then(|datapath| datapath.ahead(ifindex).ok());
    let Some(ahead) = ahead.filter(|ahead| *ahead != station.ahead) else { return };
    if ahead.is_empty() {
        tracing::info!(link = station.label(), "nothing runs before the meter any more");
    } else {
        tracing::error!(
            link = station.label(),
            "programs of somebody else run before the meter ({}): what they accept or drop by themselves is not counted. Have them \
             run behind it (a filter with a higher pref, a TCX program after the others)",
            ahead.join("; ")
        );
    }
    station.ahead = ahead;
}
