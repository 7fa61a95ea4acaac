//! The agent's side of the kernel meter: load and pin it, attach it, read its counters, write its gate.
//!
//! Loading happens in a short-lived child ([`load::spawn_loader`]), because parsing the object and the kernel's types
//! costs 40 MiB that a daemon should not carry. The agent itself only opens the pins ([`Datapath::open`]).

pub mod allow;
pub mod attach;
pub mod claim;
mod clsact;
mod direction;
pub mod filters;
pub mod load;
pub mod maps;
pub mod pins;
pub mod preemption;
mod probe;
pub mod retire;
pub mod survey;
mod sys;
mod tc;
mod throttle;

use std::{fmt, path::Path};

use agent_common::{AllowKey, Counters, Filters, Gate, MODE_BLOCK, MODE_RESTRICT, Word};
use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, MapData, PerCpuArray};

pub use self::{
    allow::AllowList,
    attach::{detach_and_unpin, sits_on},
    claim::{LinkClaim, PinRootClaim, claimant},
    load::{LoadSpec, Loaded, Origin, load_and_pin, make_pin_root, require_bpffs, spawn_loader},
    maps::{Hints, KernelLog, Refusals},
    pins::Pins,
    preemption::Counting,
    probe::{compiles_programs, require_fetching_atomics},
    retire::{
        Retired, clear_pin_root, has_older_layout, pinned_links, refuse_newer_layout, retire_meter,
        retire_without_link, retired,
    },
    survey::{Meter, counters_of, meters_on},
    sys::has_tcx,
    throttle::throttle_tolerance,
};
use self::{
    attach::Hold,
    direction::DIRECTIONS,
    maps::{GateMap, open_map},
};

/// The pinned meter of one link, open for reading and for writing its gate.
pub struct Datapath {
    pins: Pins,
    epoch_id: u32,
    counters: PerCpuArray<MapData, Counters>,
    word: Array<MapData, Word>,
    gate: GateMap,
    allow: HashMap<MapData, AllowKey, u8>,
    filters: Array<MapData, Filters>,
    holds: Vec<Hold>,
}

impl fmt::Debug for Datapath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datapath").field("pins", &self.pins).field("epoch_id", &self.epoch_id).finish_non_exhaustive()
    }
}

impl Datapath {
    /// Opens what a loader has pinned for `link` under `pin_root`.
    pub fn open(pin_root: &Path, link: &str) -> Result<Self> {
        Self::open_pins(Pins::new(pin_root, link))
    }

    /// The same by the pins.
    pub fn open_pins(pins: Pins) -> Result<Self> {
        let counters = open_map(&pins, maps::COUNTERS)?;
        let epoch_id = counters.info().context("asking the kernel about the map of counters")?.id();
        Ok(Self {
            epoch_id,
            counters: PerCpuArray::try_from(aya::maps::Map::PerCpuArray(counters)).context("map of counters")?,
            word: Array::try_from(aya::maps::Map::Array(open_map(&pins, maps::WORD)?)).context("map of the word")?,
            gate: GateMap::open(&pins)?,
            allow: HashMap::try_from(aya::maps::Map::HashMap(open_map(&pins, maps::ALLOW)?))
                .context("map of the allow-list")?,
            filters: Array::try_from(aya::maps::Map::Array(open_map(&pins, maps::FILTERS)?))
                .context("map of the filters")?,
            // Where there is none yet, a loader is at work, or has died.
            holds: DIRECTIONS.iter().filter_map(|direction| Hold::open(&pins, *direction).ok()).collect(),
            pins,
        })
    }

    /// What has happened since the epoch began, summed over all CPUs. Every figure only grows inside an epoch.
    pub fn read(&self) -> Result<Counters> {
        let each = self.counters.get(&0, 0).with_context(|| format!("reading the counters of {}", self.pins))?;
        Ok(maps::sum(each.iter()))
    }

    /// The words that the programs decide by. Briefly above the truth; never report from them.
    pub fn word(&self) -> Result<Word> {
        self.word.get(&0, 0).with_context(|| format!("reading the word of {}", self.pins))
    }

    /// What is permitted now, as the kernel has it.
    pub fn gate(&self) -> Result<Gate> {
        self.gate.read()
    }

    /// Writes the gate and reads it back; an error if the kernel then holds something else.
    ///
    /// [`Gate::generation`] of the argument does not matter: each write gets the next one, which is given back and will
    /// be found in the hints that this write leads to.
    pub fn set_gate(&mut self, gate: &Gate) -> Result<u64> {
        self.gate.write(gate)
    }

    /// Makes the filters what is given. A gate that lets through what they permit is made to block before, and packets that have met it
    /// are waited for, before the list is written and after, so that nothing is judged by half of the old and half of the new; the
    /// caller sets the gate anew.
    pub fn set_filters(&mut self, filters: &Filters) -> Result<()> {
        let what = || format!("the filters of {}", self.pins);
        if self.filters.get(&0, 0).with_context(|| format!("reading {}", what()))? == *filters {
            return Ok(());
        }
        let gate = self.gate.read()?;
        if gate.mode == MODE_RESTRICT {
            self.gate.write(&Gate { mode: MODE_BLOCK, ..gate })?;
        }
        // Whoever has seen that mode may be anywhere in the list.
        sys::wait_for_packets();
        self.filters.set(0, filters, 0).with_context(|| format!("writing {}", what()))?;
        let found = self.filters.get(&0, 0).with_context(|| format!("reading {}", what()))?;
        ensure!(found == *filters, "{} were written, but the kernel holds others", what());
        // A processor may have read ahead in the list, before it looks at the mode that the caller sets next.
        sys::wait_for_packets();
        Ok(())
    }

    /// Makes the allow-list what is given; what stays on it is never missing in between.
    pub fn set_allow_list(&mut self, list: &AllowList) -> Result<()> {
        list.apply(&mut self.allow).with_context(|| format!("writing the allow-list of {}", self.pins))
    }

    /// Opens the hints of the kernel. One reader at a time: what one takes, another does not see.
    pub fn hints(&self) -> Result<Hints> {
        Hints::open(&self.pins, maps::HINTS)
    }

    /// Opens the heads of refused packets, whose senders are to be told. One reader at a time, as for hints.
    pub fn refusals(&self) -> Result<Refusals> {
        Refusals::open(&self.pins, maps::REFUSALS)
    }

    /// Opens the rare log lines of the programs, which are then written with `tracing`.
    pub fn kernel_log(&self) -> Result<KernelLog> {
        KernelLog::open(&self.pins)
    }

    /// Names the epoch: no two sets of counters have the same number between two boots.
    #[must_use]
    pub fn epoch_id(&self) -> u32 {
        self.epoch_id
    }

    /// Where it is pinned.
    #[must_use]
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Its pins were moved to the place of another name.
    pub fn pinned_as(&mut self, pins: Pins) {
        self.pins = pins;
    }

    /// Tells whether both programs sit on the interface with this index now. Asked in the network namespace of the interface.
    #[must_use]
    pub fn is_attached(&self, ifindex: u32) -> bool {
        self.holds.len() == DIRECTIONS.len() && self.holds.iter().all(|hold| hold.is_on(ifindex))
    }

    /// What runs before the meter at the hooks of this interface, in words: of what that accepts or drops by itself the meter sees nothing.
    pub fn ahead(&self, ifindex: u32) -> Result<Vec<String>> {
        let each: Result<Vec<_>> = self.holds.iter().map(|hold| hold.ahead(ifindex)).collect();
        Ok(each?.concat())
    }

    /// Tells whether the pins are still where they were made: without them nothing would be left of the meter after the agent.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        let same = |counters: MapData| counters.info().is_ok_and(|info| info.id() == self.epoch_id);
        open_map(&self.pins, maps::COUNTERS).is_ok_and(same)
    }
}

/// Reads a datagram of the kernel about filters, for the fuzzer.
#[cfg(fuzzing)]
pub fn hear_of_filters(datagram: &[u8]) {
    // What it makes of it does not matter.
    let _ = tc::hear(datagram, &mut Vec::new());
}
