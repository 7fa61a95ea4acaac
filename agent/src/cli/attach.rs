//! `weir attach` and `weir detach`: puts the meters into the kernel before the agent runs, and takes everything out again when it does not.

use std::process::ExitCode;

use agent_common::Counters;
use anyhow::{Context, Result, bail};
use nix::net::if_::if_nameindex;
use serde::Serialize;
use serde_json::{Value, json};

use super::words::{Screen, octets};
use super::{as_json, load, print};
use crate::args;
use crate::clock::{Moment, boot_id};
use crate::config::Config;
use crate::datapath::{
    Datapath, LinkClaim, LoadSpec, Origin, PinRootClaim, clear_pin_root, load_and_pin, make_pin_root, meters_on,
    pinned_links, refuse_newer_layout, retire_meter, retire_without_link, retired,
};
use crate::drill;
use crate::eventloop::reading;
use crate::ledger::Ledger;
use crate::quota::{Reading, Record, StoredSession, Trigger};
use crate::units::{BootId, Epoch, Generation};

/// What became of one link, as JSON has it.
#[derive(Debug, Serialize)]
pub struct Attached {
    /// The link.
    pub link: String,
    /// Whether it was metered before; then its gate stays as it is, else it is shut.
    pub was_metered: bool,
}

/// Meters every configured link that is there, behind a shut gate. What is metered already stays as it is.
pub fn attach(asked: &args::Attach) -> Result<ExitCode> {
    drill::prepare()?;
    let config = load(&asked.config)?;
    make_pin_root(&config.pin_root)?;
    let _claim = PinRootClaim::take(&config.pin_root)?;
    let mut attached = Vec::new();
    for (name, ifindex) in interfaces()? {
        if !config.names(&name) {
            continue;
        }
        let _claim = LinkClaim::take(&name, ifindex)?;
        let spec = LoadSpec { link: name.clone(), pin_root: config.pin_root.clone(), retire: Vec::new() };
        let loaded = load_and_pin(&spec).with_context(|| format!("metering {name}"))?;
        let was_metered = match loaded.origin {
            Origin::New => false,
            Origin::Adopted => true,
        };
        attached.push(Attached { link: name, was_metered });
    }
    if attached.is_empty() {
        bail!("none of the links that {} names is there; `ip link` shows those that are", asked.config.display());
    }
    let text =
        if asked.json { as_json(&self::attached(&attached))? } else { render_attached(&attached, &Screen::plain()) };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// What became of the links, as a document.
#[must_use]
pub fn attached(links: &[Attached]) -> Value {
    json!({ "schema": 1, "attached": links })
}

/// What became of the links in lines that fit.
#[must_use]
pub fn render_attached(attached: &[Attached], screen: &Screen) -> String {
    let mut page = String::new();
    for Attached { link, was_metered } in attached {
        let words = if *was_metered {
            "was metered already; its gate stays as it is"
        } else {
            "metered; its gate is shut until `weir run` has units for it"
        };
        screen.add(&mut page, 0, &format!("{link}: {words}"));
    }
    page
}

/// What became of one meter, as JSON has it.
#[derive(Debug, Serialize)]
pub struct Removed {
    /// The link, where it is known.
    pub link: Option<String>,
    /// The meter's epoch.
    pub epoch: u32,
    /// Octets that had passed under the ceiling, uplink.
    pub passed_uplink_octets: u64,
    /// The same, downlink.
    pub passed_downlink_octets: u64,
    /// Octets that had passed throttled, both directions.
    pub throttled_octets: u64,
    /// Of these: recorded just now, for the next start to report.
    pub recorded_octets: u64,
    /// Of these: in no session of this ledger, and so billed by nobody.
    pub lost_octets: u64,
}

/// Takes off and unpins all that weir has put into the kernel, once what it has counted is recorded.
pub fn detach(asked: &args::Detach) -> Result<ExitCode> {
    drill::prepare()?;
    let config = load(&asked.config)?;
    // Without the directory there are no pins, and no agent that has any.
    let _claim = config.pin_root.exists().then(|| PinRootClaim::take(&config.pin_root)).transpose()?;
    let mut books = Books::open(&config)?;
    let found = survey(&config, &books)?;
    let unknown: Vec<&Found> = found.iter().filter(|meter| !meter.is_known && meter.has_passed()).collect();
    if !unknown.is_empty() && !asked.force {
        let each: Vec<String> = unknown.iter().map(|meter| meter.words()).collect();
        bail!(
            "nothing was touched: the ledger {} knows of no session on {}, so what was counted there cannot be recorded; name the \
             configuration that it belongs to (--config), or take it off and lose that: weir detach --force",
            config.ledger.display(),
            each.join("; ")
        );
    }
    for meter in &found {
        meter.take_off(&config).with_context(|| format!("taking off {}", meter.words()))?;
    }
    let removed = books.settle(&config, &found)?;
    clear_pin_root(&config.pin_root)?;
    let text = if asked.json { as_json(&self::removed(&removed))? } else { render_removed(&removed, &Screen::plain()) };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// A meter in the kernel.
struct Found {
    /// The link by its pins, or the interface on which it sits without any.
    link: String,
    epoch: Option<u32>,
    counters: Option<Counters>,
    /// Whether it is pinned under the configured directory.
    is_pinned: bool,
    /// Whether the ledger knows a session of it.
    is_known: bool,
}

impl Found {
    fn has_passed(&self) -> bool {
        // What cannot be read may be anything.
        self.counters.as_ref().is_none_or(|counters| {
            let reading = reading(counters);
            !reading.passed.total().saturating_add(reading.throttled.total()).is_zero()
        })
    }

    fn words(&self) -> String {
        let counted = match self.counters.as_ref().map(reading) {
            Some(Reading { passed, .. }) => {
                format!("{} up, {} down passed", octets(passed.uplink.get()), octets(passed.downlink.get()))
            }
            None => "its counters cannot be read".to_owned(),
        };
        format!("the meter of {} ({counted})", self.link)
    }

    fn take_off(&self, config: &Config) -> Result<()> {
        if self.is_pinned {
            return retire_without_link(&config.pin_root, &self.link);
        }
        let meters = meters_on(&self.link)?;
        meters.iter().filter(|meter| Some(meter.epoch_id) == self.epoch).try_for_each(|meter| {
            // Its counters are kept where the next reading looks for them.
            make_pin_root(&config.pin_root)?;
            retire_meter(&config.pin_root, meter)
        })
    }
}

/// Every meter that is pinned, and every one that sits on an interface here without pins and is no running agent's.
fn survey(config: &Config, books: &Books) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for link in pinned_links(&config.pin_root) {
        refuse_newer_layout(&config.pin_root, &link)?;
        let opened = Datapath::open(&config.pin_root, &link).ok();
        let epoch = opened.as_ref().map(Datapath::epoch_id);
        let counters = opened.and_then(|datapath| datapath.read().ok());
        // One of an older layout tells its epoch only once it is retired.
        let is_known = epoch.map_or(Ok(true), |epoch| books.knows(epoch))?;
        found.push(Found { link, epoch, counters, is_pinned: true, is_known });
    }
    for (name, ifindex) in interfaces()? {
        // Whoever has claimed it is at work on it.
        let Ok(_claim) = LinkClaim::take(&name, ifindex) else { continue };
        for meter in meters_on(&name).unwrap_or_default() {
            if found.iter().any(|found| found.epoch == Some(meter.epoch_id)) {
                continue;
            }
            let counters = crate::datapath::counters_of(meter.epoch_id).ok();
            let is_known = books.knows(meter.epoch_id)?;
            found.push(Found { link: name.clone(), epoch: Some(meter.epoch_id), counters, is_pinned: false, is_known });
        }
    }
    Ok(found)
}

fn interfaces() -> Result<Vec<(String, u32)>> {
    let all = if_nameindex().context("listing the interfaces")?;
    Ok(all.iter().map(|interface| (interface.name().to_string_lossy().into_owned(), interface.index())).collect())
}

/// The ledger, when there is one; it is not made for this.
struct Books {
    ledger: Option<Ledger>,
    boot: BootId,
}

impl Books {
    fn open(config: &Config) -> Result<Self> {
        let boot = boot_id()?;
        let ledger = config.ledger.exists().then(|| Ledger::open(&config.ledger, boot.clone())).transpose()?;
        Ok(Self { ledger, boot })
    }

    fn epoch(&self, epoch_id: u32) -> Epoch {
        Epoch { boot: self.boot.clone(), generation: Generation::new(epoch_id) }
    }

    fn knows(&self, epoch_id: u32) -> Result<bool> {
        self.ledger.as_ref().map_or(Ok(false), |ledger| ledger.knows_epoch(&self.epoch(epoch_id)))
    }

    /// Records the last reading of every meter that was taken off, so that the next start reports it and gives the rest back; then lets go
    /// of the counters.
    fn settle(&mut self, config: &Config, found: &[Found]) -> Result<Vec<Removed>> {
        let mut removed = Vec::new();
        for meter in retired(&config.pin_root) {
            let epoch = self.epoch(meter.epoch_id);
            let known = self.knows(meter.epoch_id)?;
            let reading = reading(&meter.counters);
            let recorded = self.record(&epoch, &reading)?;
            meter.forget()?;
            let all = reading.passed.total().saturating_add(reading.throttled.total()).get();
            removed.push(Removed {
                link: found.iter().find(|found| found.epoch == Some(meter.epoch_id)).map(|found| found.link.clone()),
                epoch: meter.epoch_id,
                passed_uplink_octets: reading.passed.uplink.get(),
                passed_downlink_octets: reading.passed.downlink.get(),
                throttled_octets: reading.throttled.total().get(),
                recorded_octets: recorded,
                lost_octets: if known { 0 } else { all },
            });
        }
        Ok(removed)
    }

    /// Answers with the octets that were in no record before.
    fn record(&mut self, epoch: &Epoch, last: &Reading) -> Result<u64> {
        let Some(ledger) = &mut self.ledger else { return Ok(0) };
        let moment = Moment::now()?;
        let mut records = Vec::new();
        let mut octets = 0;
        let open = ledger.restore()?;
        for session in open.into_iter().filter(|session| session.opening.epoch == *epoch && !session.settled) {
            octets += unrecorded(&session, last);
            let name = session.opening.session;
            let (passed, throttled) = (last.passed, last.throttled);
            records.push(Record::Checkpoint { session: name, passed, throttled, at: moment.boot });
            if session.closing.is_none() {
                records.push(Record::SessionClosing { session: name, trigger: Trigger::Final });
            }
            records.push(Record::SessionSettled { session: name });
        }
        ledger.commit(&records, &moment, &mut |_| bail!("nothing is sealed here"))?;
        Ok(octets)
    }
}

fn unrecorded(session: &StoredSession, last: &Reading) -> u64 {
    let before = session.checkpoint.unwrap_or((session.opening.base, session.opening.base_throttled));
    let of = |now: crate::units::UsedUnit, then| now.since(then).unwrap_or_default().total().get();
    of(last.passed, before.0) + of(last.throttled, before.1)
}

/// What became of the meters, as a document.
#[must_use]
pub fn removed(meters: &[Removed]) -> Value {
    json!({ "schema": 1, "removed": meters })
}

/// What became of the meters in lines that fit.
#[must_use]
pub fn render_removed(removed: &[Removed], screen: &Screen) -> String {
    let mut page = String::new();
    if removed.is_empty() {
        screen.add(&mut page, 0, "there was nothing of weir in the kernel");
        return page;
    }
    for meter in removed {
        let name = meter.link.as_deref().unwrap_or("an earlier meter");
        let (up, down) = (octets(meter.passed_uplink_octets), octets(meter.passed_downlink_octets));
        let throttled = match meter.throttled_octets {
            0 => String::new(),
            count => format!(", {} throttled", octets(count)),
        };
        let fate = match (meter.recorded_octets, meter.lost_octets) {
            (_, 1..) => format!("{} OF THIS ARE IN NO LEDGER AND BILLED BY NOBODY", octets(meter.lost_octets)),
            (0, 0) => "all of this had been recorded".to_owned(),
            (recorded, 0) => {
                format!("{} of this were recorded just now, for the next `weir run` to report", octets(recorded))
            }
        };
        screen.add(&mut page, 0, &format!("{name}: taken off; {up} up, {down} down{throttled} had passed; {fate}"));
    }
    screen.add(&mut page, 0, "what these links carry from now on is neither counted nor stopped");
    page
}
