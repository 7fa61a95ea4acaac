//! Meters that have had their day: their counters stay pinned until the last reading is recorded, and everything else of them goes.
//!
//! Under `<pin_root>/retired/v<layout>/` there is one pin for each, named by its epoch. A meter is retired by whoever replaces it, and
//! forgotten by the agent once the usage it tells of is in the ledger: whoever dies in between, the octets are still there.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use agent_common::Counters;
use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::MapData;

use super::{
    attach::remove_pins,
    maps::{COUNTERS, counters_in, open_map, read_counters},
    pins::{Pins, layout, names_in, remove_if_there},
    survey::{Meter, detach_meter},
};
use crate::drill::{self, Point};

/// Layouts whose counters are [`Counters`] as it stands. When the layout changes, what reads the counters of the last one goes here.
const READABLE: [u32; 2] = [1, 2];

/// What a retired meter has counted in all.
#[derive(Clone, Debug)]
pub struct Retired {
    /// Its epoch.
    pub epoch_id: u32,
    /// Its last reading: nothing counts there any more.
    pub counters: Counters,
    pin: PathBuf,
}

impl Retired {
    /// Lets go of the counters: their usage is recorded.
    pub fn forget(&self) -> Result<()> {
        remove_if_there(&self.pin)
    }
}

/// All retired meters under `pin_root`. One that cannot be read is said, and left alone.
pub fn retired(pin_root: &Path) -> Vec<Retired> {
    let layouts = numbered(&pin_root.join("retired"), "v");
    let mut found = Vec::new();
    for (_, directory) in layouts {
        for (epoch_id, pin) in numbered(&directory, "") {
            let read = || read_counters(&counters_in(MapData::from_pin(&pin).context("opening the pin")?)?);
            match read() {
                Ok(counters) => found.push(Retired { epoch_id, counters, pin }),
                Err(error) => tracing::error!("the retired counters {} cannot be read: {error:#}", pin.display()),
            }
        }
    }
    found
}

/// Keeps the counters of a meter for its last reading. False when nobody here could read them.
fn keep(pin_root: &Path, version: u32, counters: MapData) -> Result<bool> {
    if version != layout() && !READABLE.contains(&version) {
        return Ok(false);
    }
    let epoch_id = counters.info().context("asking the kernel about a map of counters")?.id();
    let counters = counters_in(counters)?;
    // What cannot be read now will not be readable later either.
    read_counters(&counters)?;
    let directory = pin_root.join(format!("retired/v{version}"));
    fs::create_dir_all(&directory).with_context(|| format!("making the directory {}", directory.display()))?;
    let pin = directory.join(epoch_id.to_string());
    if !pin.exists() {
        counters.pin(&pin).with_context(|| format!("pinning the last counters as {}", pin.display()))?;
    }
    drill::pass(Point::Kept);
    Ok(true)
}

/// Retires what is pinned in a directory: of this layout or an older one, alive or not.
pub(super) fn retire_pins(pin_root: &Path, version: u32, pins: &Pins) -> Result<()> {
    if !pins.directory().exists() {
        return Ok(());
    }
    if pins.map(COUNTERS).exists() {
        let kept = open_map(pins, COUNTERS).and_then(|counters| keep(pin_root, version, counters));
        if !kept.as_ref().is_ok_and(|kept| *kept) {
            let why =
                kept.err().map_or_else(|| format!("its layout {version} is unknown"), |error| format!("{error:#}"));
            unreadable(&pins.to_string(), &why);
        }
    }
    remove_pins(pins)
}

/// Retires a meter that is pinned where we cannot see it.
pub fn retire_meter(pin_root: &Path, meter: &Meter) -> Result<()> {
    let kept = MapData::from_id(meter.epoch_id)
        .context("opening its counters by their number")
        .and_then(|counters| keep(pin_root, layout(), counters));
    if let Err(error) = kept {
        unreadable(&format!("epoch {}", meter.epoch_id), &format!("{error:#}"));
    }
    detach_meter(meter)
}

#[expect(clippy::print_stderr, reason = "the loader's words, which the agent puts in its log")]
fn unreadable(what: &str, why: &str) {
    eprintln!(
        "the counters of the earlier meter {what} cannot be read: what it has let through since the last record is billed by \
         nobody; the last recorded reading is: {why}"
    );
}

/// Retires the pins that older layouts, or an earlier run, have left of a link that does not exist now: nothing counts there any more.
pub fn retire_without_link(pin_root: &Path, link: &str) -> Result<()> {
    for (version, pins) in pins_of(pin_root, link) {
        retire_pins(pin_root, version, &pins)?;
    }
    Ok(())
}

/// The pins of a link in every layout that has any, by version.
pub(super) fn pins_of(pin_root: &Path, link: &str) -> Vec<(u32, Pins)> {
    let layouts = numbered(pin_root, "v");
    let pins = layouts.into_iter().map(|(version, _)| (version, Pins::of_layout(pin_root, version, link)));
    pins.filter(|(_, pins)| pins.directory().exists()).collect()
}

/// Whether an older layout than ours has pins of a link.
#[must_use]
pub fn has_older_layout(pin_root: &Path, link: &str) -> bool {
    pins_of(pin_root, link).iter().any(|(version, _)| *version < layout())
}

/// Fails when a newer agent has pins of this link: what they count is not for us to judge.
pub fn refuse_newer_layout(pin_root: &Path, link: &str) -> Result<()> {
    let newer = pins_of(pin_root, link).into_iter().find(|(version, _)| *version > layout());
    if let Some((version, pins)) = newer {
        bail!(
            "{link} is metered by a newer agent's meter: {pins} is of layout {version}, and {} is the newest known here. Nothing \
             was touched: install the agent that made it, or a later one",
            layout()
        );
    }
    Ok(())
}

/// The names of the links that any layout has pins of.
#[must_use]
pub fn pinned_links(pin_root: &Path) -> BTreeSet<String> {
    numbered(pin_root, "v").iter().flat_map(|(_, directory)| names_in(directory)).collect()
}

/// The entries of a directory whose names are numbers behind this prefix.
fn numbered(directory: &Path, prefix: &str) -> Vec<(u32, PathBuf)> {
    let parsed = |name: String| Some((name.strip_prefix(prefix)?.parse().ok()?, directory.join(&name)));
    entries(directory).into_iter().filter_map(parsed).collect()
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Removes the directories that held pins, where nothing is left in them.
pub fn clear_pin_root(pin_root: &Path) -> Result<()> {
    let retired = pin_root.join("retired");
    let layouts =
        [numbered(pin_root, "v"), numbered(&retired, "v")].concat().into_iter().map(|(_, directory)| directory);
    for directory in layouts.chain([pin_root.join("new"), retired, pin_root.to_owned()]) {
        match fs::remove_dir(&directory) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {}
            // It is somebody else's to make and remove.
            Err(_) if directory == pin_root => {}
            Err(error) => return Err(error).with_context(|| format!("removing the directory {}", directory.display())),
        }
    }
    Ok(())
}

/// Puts a directory of pins in the place of one that is gone.
pub(super) fn move_pins(from: &Pins, to: &Pins) -> Result<()> {
    ensure!(!to.directory().exists(), "{to} is still there");
    if let Some(parent) = to.directory().parent() {
        fs::create_dir_all(parent).with_context(|| format!("making the directory {}", parent.display()))?;
    }
    match fs::rename(from.directory(), to.directory()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("putting {from} in the place of {to}"))
        }
        _ => Ok(()),
    }
}
