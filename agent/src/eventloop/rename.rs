//! Links under a new name: the meter goes with its link, pins and all; epoch, session and octets go on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};

use super::Agent;
use super::station::Attachment;
use crate::datapath::{Pins, retire_without_link, sits_on};
use crate::link::Links;
use crate::quota::Event;
use crate::reporter::Route;

impl Agent {
    /// Gives every metered link that bears another name now that name, and the `[[link]]` that fits it.
    ///
    /// A name that another `[[link]]` fits brings another SIM: the core settles the old one with the last reading. A name that none
    /// fits leaves the station without a configuration: it is settled, and its meter taken off.
    pub(super) fn follow_renames(&mut self, links: &Links) -> Result<()> {
        let renamed = self.renamed(links);
        for (before, now) in renamed.values() {
            if !renamed.values().any(|(other, _)| other == now) {
                self.make_way(now)?;
            }
            tracing::info!(link = before, now, "the link has a new name");
        }
        move_pins(&self.config.pin_root, &renamed.values().cloned().collect::<Vec<_>>())?;
        for (index, (before, now)) in renamed.clone() {
            let config = self.config.links.iter().find(|config| config.matches(&now)).cloned();
            let station = &mut self.stations[index];
            if let Some(datapath) = &mut station.datapath {
                datapath.pinned_as(Pins::new(&self.config.pin_root, &now));
            }
            station.config = config;
            station.name = Some(now.clone());
            for name in [before, now] {
                self.http.forget(&Route::Device(name));
            }
        }
        renamed.into_keys().try_for_each(|index| self.note_carried(index))
    }

    /// Old and new name of each metered link that was renamed, by station.
    fn renamed(&self, links: &Links) -> BTreeMap<usize, (String, String)> {
        // A loader that is at work under a name is not disturbed.
        let busy = |name: &str| {
            self.stations.iter().any(|station| {
                station.name.as_deref() == Some(name) && matches!(station.attachment, Attachment::Pending(_))
            })
        };
        let names = (0..self.stations.len()).filter_map(|index| Some((index, self.has_another_name(index, links)?)));
        names.filter(|(_, (_, now))| !busy(now)).collect()
    }

    /// Old and new name, when the meter of this station sits on a link that bears another name now.
    pub(super) fn has_another_name(&self, index: usize, links: &Links) -> Option<(String, String)> {
        let station = &self.stations[index];
        let (Attachment::On(ifindex), Some(before)) = (station.attachment, &station.name) else { return None };
        let now = links.name_of(ifindex).filter(|now| now != before)?;
        // The index may be another interface's by now; that one does not have our meter.
        sits_on(&Pins::new(&self.config.pin_root, before), now, ifindex).then(|| (before.clone(), now.to_owned()))
    }

    /// Frees a name, and its pins, for a link that bears it now: whoever had it before is not a link any more, or not that one.
    fn make_way(&mut self, name: &str) -> Result<()> {
        let Some(index) = self.stations.iter().position(|station| station.name.as_deref() == Some(name)) else {
            // Pins that nobody knows of would be in the way as well.
            return retire_without_link(&self.config.pin_root, name);
        };
        self.tell(index, Event::Gone)?;
        self.take_off(index)?;
        self.stations[index].retire();
        Ok(())
    }
}

/// Gives pins whose link was renamed while no agent was there the present name of that link. Pins that are in the way, of a link
/// that is gone, take one of the names that became free: they are still to be read.
pub(super) fn adopt_renamed_pins(pin_root: &Path, links: &Links) -> Result<()> {
    let pinned = Pins::names(pin_root);
    let mut moves = Vec::new();
    for before in &pinned {
        let pins = Pins::new(pin_root, before);
        let sits = |(ifindex, link): &(&u32, &crate::link::Link)| sits_on(&pins, &link.name, **ifindex);
        let Some((_, link)) = links.by_index.iter().find(sits) else { continue };
        if link.name != *before {
            tracing::info!(link = before, now = link.name, "the link got a new name while no agent was there");
            moves.push((before.clone(), link.name.clone()));
        }
    }
    let froms: BTreeSet<_> = moves.iter().map(|(before, _)| before.clone()).collect();
    let tos: BTreeSet<_> = moves.iter().map(|(_, now)| now.clone()).collect();
    let displaced = pinned.iter().filter(|name| tos.contains(*name) && !froms.contains(*name));
    moves.extend(displaced.cloned().zip(froms.difference(&tos).cloned()).collect::<Vec<_>>());
    move_pins(pin_root, &moves)
}

/// Moves the directories of pins, each from its old name to its new one. All go aside first: names may be swapped.
fn move_pins(pin_root: &Path, moves: &[(String, String)]) -> Result<()> {
    let aside = |number: usize| Pins::new(pin_root, &format!("renamed-interface-{number}"));
    let rename = |from: &Pins, to: &Pins| {
        std::fs::rename(from.directory(), to.directory()).with_context(|| format!("renaming the pins {from} to {to}"))
    };
    for (number, (before, _)) in moves.iter().enumerate() {
        rename(&Pins::new(pin_root, before), &aside(number))?;
    }
    for (number, (_, now)) in moves.iter().enumerate() {
        rename(&aside(number), &Pins::new(pin_root, now))?;
    }
    Ok(())
}
