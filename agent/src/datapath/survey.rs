//! Which meters sit at the hooks of an interface, whoever has pinned them, and where: asked of the kernel, not of the pins.

use std::{collections::BTreeMap, io};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, MapInfo};
use nix::net::if_::if_nametoindex;

use super::{
    clsact::{self, Slot, filters_at},
    direction::{DIRECTIONS, Direction},
    maps::{COUNTERS, counters_in, read_counters},
    sys::{detach_link, link_by_id, program_by_id, program_state, programs_at_tcx, wait_for_packets},
};

/// A program of a meter at a hook, and what holds it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    /// The program.
    pub(super) program_id: u32,
    /// Of which kind the hook's list is that it is in.
    pub(super) held_by: HeldBy,
}

/// What holds a program at a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeldBy {
    /// The TCX link of this number (Linux 6.6); 0 when no link does.
    Link(u32),
    /// A filter of clsact.
    Filter(Slot),
}

/// A meter at one hook or both: programs that count in the same map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    /// Its epoch: the number of its map of counters, see [`super::Datapath::epoch_id`].
    pub epoch_id: u32,
    /// Where its programs sit, by hook.
    pub(super) seats: Vec<(Direction, Seat)>,
    /// Whether anything was ever let through by it; taken for true when its counters cannot be read here.
    pub has_passed: bool,
}

impl Meter {
    /// How many of its programs sit at the hook for what is sent, and at the one for what is received; one each when all is well.
    #[must_use]
    pub fn programs(&self) -> (usize, usize) {
        let at = |wanted| self.seats.iter().filter(|(direction, _)| *direction == wanted).count();
        (at(Direction::Uplink), at(Direction::Downlink))
    }
}

/// The meters at the hooks of an interface.
pub fn meters_on(interface: &str) -> Result<Vec<Meter>> {
    let ifindex = if_nametoindex(interface).with_context(|| format!("there is no interface {interface}"))?;
    let mut found: BTreeMap<u32, Meter> = BTreeMap::new();
    for direction in DIRECTIONS {
        for seat in seats_at(ifindex, direction, None)? {
            let epoch_id = epoch_of(seat.program_id)?.unwrap_or(0);
            let meter = found.entry(epoch_id).or_insert_with(|| {
                let passed = |counters: agent_common::Counters| {
                    let both = [counters.uplink, counters.downlink];
                    both.iter().any(|way| way.passed.octets + way.throttled.octets > 0)
                };
                let has_passed = counters_of(epoch_id).map_or(true, passed);
                Meter { epoch_id, seats: Vec::new(), has_passed }
            });
            meter.seats.push((direction, seat));
        }
    }
    Ok(found.into_values().collect())
}

/// The programs named like the meter at a hook, in the order in which they run: TCX goes before clsact. One that is known for a meter
/// need not be looked at.
pub(super) fn seats_at(ifindex: u32, direction: Direction, known: Option<u32>) -> Result<Vec<Seat>> {
    let name = direction.program_name();
    let asking = || format!("asking which programs are on the interface {ifindex}");
    let mut seats = Vec::new();
    for at in programs_at_tcx(ifindex, direction).with_context(asking)? {
        if Some(at.program_id) == known || is_named(at.program_id, name).with_context(asking)? {
            seats.push(Seat { program_id: at.program_id, held_by: HeldBy::Link(at.link_id) });
        }
    }
    let filters = filters_at(ifindex, direction).with_context(asking)?;
    let ours = filters.into_iter().filter(|filter| filter.name == name);
    seats.extend(ours.map(|filter| Seat { program_id: filter.program_id, held_by: HeldBy::Filter(filter.slot) }));
    Ok(seats)
}

/// False for a program that is gone, or that we have no right to look at: see [`super::load`] for who has.
fn is_named(program_id: u32, name: &str) -> io::Result<bool> {
    match program_by_id(program_id).map_err(|error| error.raw_os_error().unwrap_or_default()) {
        Ok(program) => Ok(program_state(&program)?.name == name),
        Err(libc::ENOENT | libc::EPERM) => Ok(false),
        Err(number) => Err(io::Error::from_raw_os_error(number)),
    }
}

/// The programs at a TCX hook that we have no right to look at: one of them may be a meter.
pub(super) fn hidden_at(ifindex: u32, direction: Direction, known: u32) -> Result<Vec<u32>> {
    let all = programs_at_tcx(ifindex, direction).context("asking which programs are at a hook")?;
    let others = all.into_iter().map(|at| at.program_id).filter(|program_id| *program_id != known);
    let is_hidden =
        |program_id: &u32| program_by_id(*program_id).is_err_and(|error| error.raw_os_error() == Some(libc::EPERM));
    Ok(others.filter(is_hidden).collect())
}

/// Takes the programs of a meter off its interface. No packet is in them any more when this returns.
pub(super) fn detach_meter(meter: &Meter) -> Result<()> {
    for (_, seat) in &meter.seats {
        match seat.held_by {
            HeldBy::Link(number) => {
                // Gone since it was listed?
                let Ok(link) = link_by_id(number) else { continue };
                detach_link(&link).context("detaching a link of an earlier meter")?;
            }
            HeldBy::Filter(slot) => clsact::detach(&slot).context("detaching a filter of an earlier meter")?,
        }
    }
    wait_for_packets();
    Ok(())
}

/// The number of the map of counters that a program uses; `None` for one that uses none, or is gone.
pub(super) fn epoch_of(program_id: u32) -> Result<Option<u32>> {
    let Ok(program) = program_by_id(program_id) else { return Ok(None) };
    let maps = program_state(&program).context("asking which maps a program uses")?.map_ids;
    let maps = maps.into_iter().filter_map(|id| MapInfo::from_id(id).ok());
    Ok(maps.into_iter().find(|map| map.name_as_str() == Some(COUNTERS)).map(|map| map.id()))
}

/// What the meter of this epoch has counted, wherever it is pinned or held.
pub fn counters_of(epoch_id: u32) -> Result<agent_common::Counters> {
    read_counters(&counters_in(MapData::from_id(epoch_id).context("opening a map of counters by its number")?)?)
}
