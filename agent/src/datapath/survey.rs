//! Which meters sit at the hooks of an interface, whoever has pinned them, and where: asked of the kernel, not of the pins.

use std::{
    collections::BTreeMap,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use aya::{
    maps::{MapData, MapInfo},
    programs::{ProgramInfo, SchedClassifier, loaded_links},
};

use super::{
    attach::{detach_link, get_link, hook},
    maps::{COUNTERS, DIRECTIONS, Direction, read_counters},
};

/// A meter at one hook or both: programs that count in the same map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    /// Its epoch: the number of its map of counters, see [`super::Datapath::epoch_id`].
    pub epoch_id: u32,
    /// The programs, by hook.
    pub(super) programs: Vec<(Direction, u32)>,
    /// Whether anything was ever let through by it; taken for true when its counters cannot be read here.
    pub has_passed: bool,
}

/// The meters at the hooks of an interface.
pub fn meters_on(interface: &str) -> Result<Vec<Meter>> {
    let mut found: BTreeMap<u32, Meter> = BTreeMap::new();
    for direction in DIRECTIONS {
        for program in programs_at(interface, direction)? {
            let counters = map_of(&program, COUNTERS)?;
            let epoch_id = counters.as_ref().map_or(0, MapInfo::id);
            let meter = found.entry(epoch_id).or_insert_with(|| {
                let passed = |counters: agent_common::Counters| {
                    let both = [counters.uplink, counters.downlink];
                    both.iter().any(|way| way.passed.octets + way.throttled.octets > 0)
                };
                let has_passed = counters_of(epoch_id).map_or(true, passed);
                Meter { epoch_id, programs: Vec::new(), has_passed }
            });
            meter.programs.push((direction, program.id()));
        }
    }
    Ok(found.into_values().collect())
}

/// The programs named like the meter at a hook, in the order in which they run.
pub(super) fn programs_at(interface: &str, direction: Direction) -> Result<Vec<ProgramInfo>> {
    let (_, programs) = SchedClassifier::query_tcx(interface, hook(direction))
        .with_context(|| format!("asking which programs are on {interface}"))?;
    let name = direction.program_name();
    Ok(programs.into_iter().filter(|program| program.name_as_str() == Some(name)).collect())
}

/// Takes the programs of a meter off whatever they are attached to. No packet is in them any more when this returns.
pub(super) fn detach_meter(meter: &Meter) -> Result<()> {
    for link in loaded_links().flatten() {
        if meter.programs.iter().any(|(_, program)| *program == link.program_id()) {
            let link: OwnedFd = match get_link(link.id()) {
                Ok(link) => link,
                // Gone since it was listed.
                Err(_) => continue,
            };
            detach_link(link.as_raw_fd()).context("detaching a link of an earlier meter")?;
        }
    }
    Ok(())
}

/// The map of that name that a program uses.
fn map_of(program: &ProgramInfo, name: &str) -> Result<Option<MapInfo>> {
    let ids = program.map_ids().context("asking which maps a program uses")?.unwrap_or_default();
    let maps = ids.into_iter().filter_map(|id| MapInfo::from_id(id).ok());
    Ok(maps.into_iter().find(|map| map.name_as_str() == Some(name)))
}

/// What the meter of this epoch has counted, wherever it is pinned or held.
pub fn counters_of(epoch_id: u32) -> Result<agent_common::Counters> {
    read_counters(MapData::from_id(epoch_id).context("opening a map of counters by its number")?)
}
