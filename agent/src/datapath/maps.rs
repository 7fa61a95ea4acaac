//! The maps of one link: their only names, and typed handles on them.

use std::{
    marker::PhantomData,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    ptr::{self, NonNull},
    sync::atomic::{AtomicU64, Ordering},
};

use agent_common::{Counters, DirectionCounters, Gate, Hint, Refusal, Tally};
use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, Map, MapData, PerCpuArray, RingBuf};
use aya_log::EbpfLogger;

use super::{
    direction::Direction,
    pins::{Pins, running},
};

pub(super) const COUNTERS: &str = "counters";
pub(super) const WORD: &str = "word";
pub(super) const GATE: &str = "gate";
pub(super) const ALLOW: &str = "allow";
pub(super) const FILTERS: &str = "filters";
pub(super) const HINTS: &str = "hints";
pub(super) const REFUSALS: &str = "refusals";

/// The maps that belong to an epoch and are pinned with it.
pub(super) const PINNED_MAPS: [&str; 7] = [COUNTERS, WORD, GATE, ALLOW, FILTERS, HINTS, REFUSALS];

pub(super) fn open_map(pins: &Pins, name: &str) -> Result<MapData> {
    let path = pins.map(name);
    MapData::from_pin(&path).with_context(|| format!("opening the pinned map {}", path.display()))
}

/// A map of counters; an error when it is not of this layout.
pub(super) fn counters_in(map: MapData) -> Result<PerCpuArray<MapData, Counters>> {
    PerCpuArray::try_from(Map::PerCpuArray(map)).context("map of counters")
}

/// Adds up what the CPUs have counted.
pub(super) fn read_counters(counters: &PerCpuArray<MapData, Counters>) -> Result<Counters> {
    Ok(sum(counters.get(&0, 0).context("reading counters")?.iter()))
}

/// Adds up what the CPUs have counted.
pub(super) fn sum<'a>(each: impl Iterator<Item = &'a Counters>) -> Counters {
    let mut all = Counters::default();
    for one in each {
        add_direction(&mut all.uplink, &one.uplink);
        add_direction(&mut all.downlink, &one.downlink);
        all.parse_errors += one.parse_errors;
    }
    all
}

fn add_direction(all: &mut DirectionCounters, one: &DirectionCounters) {
    let DirectionCounters { passed, refused, control, throttled, policed, non_ip } = one;
    for (total, part) in [
        (&mut all.passed, passed),
        (&mut all.refused, refused),
        (&mut all.control, control),
        (&mut all.throttled, throttled),
        (&mut all.policed, policed),
        (&mut all.non_ip, non_ip),
    ] {
        let Tally { octets, packets } = part;
        total.octets += octets;
        total.packets += packets;
    }
}

/// The gate, mapped into memory so that each field is stored whole.
///
/// An update through the system call copies the value octet by octet if the CPU likes it so, while the programs read
/// it: half of an old and half of a new ceiling would be a third one that nobody granted.
pub(super) struct GateMap {
    map: Array<MapData, Gate>,
    fields: NonNull<Gate>,
}

// SAFETY: the mapping belongs to this value alone and is shared with the kernel through atomic stores only.
unsafe impl Send for GateMap {}
// SAFETY: as above; a shared reference only reads through the system call.
unsafe impl Sync for GateMap {}

impl GateMap {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        let data = open_map(pins, GATE)?;
        let fd = data.fd().as_fd().as_raw_fd();
        // SAFETY: a new mapping at an address of the kernel's choice; the result is checked below.
        let address = unsafe {
            libc::mmap(ptr::null_mut(), size_of::<Gate>(), libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd, 0)
        };
        if address == libc::MAP_FAILED {
            bail!("mapping the gate of {pins} into memory: {}", std::io::Error::last_os_error());
        }
        let fields = NonNull::new(address.cast::<Gate>()).context("the gate was mapped at address 0")?;
        let map = Array::try_from(Map::Array(data)).context("map of the gate");
        // Made before the check of the layout, so that the mapping goes away with a failure.
        map.map(|map| Self { map, fields }).inspect_err(|_| unmap(fields))
    }

    pub(super) fn read(&self) -> Result<Gate> {
        self.map.get(&0, 0).context("reading the gate")
    }

    /// At no moment is more permitted than the larger of the old and the new gate: a lower ceiling is stored before
    /// everything else, a higher one after it.
    pub(super) fn write(&mut self, gate: &Gate) -> Result<u64> {
        let before = self.read()?;
        let wanted = Gate { generation: before.generation.wrapping_add(1).max(1), ..*gate };
        let fields = self.fields.as_ptr();
        // SAFETY: only addresses inside the mapping are taken; `store` writes them atomically.
        unsafe {
            store(&raw mut (*fields).ceiling, before.ceiling.min(wanted.ceiling));
            store(&raw mut (*fields).control_ceiling, before.control_ceiling.min(wanted.control_ceiling));
            store(&raw mut (*fields).throttle_rate, wanted.throttle_rate);
            store(&raw mut (*fields).throttle_tolerance_ns, wanted.throttle_tolerance_ns);
            store(&raw mut (*fields).mode, wanted.mode);
            store(&raw mut (*fields).link_type, wanted.link_type);
            store(&raw mut (*fields).threshold, wanted.threshold);
            store(&raw mut (*fields).deadline_boot_ns, wanted.deadline_boot_ns);
            store(&raw mut (*fields).tells_refusals, wanted.tells_refusals);
            store(&raw mut (*fields).generation, wanted.generation);
            store(&raw mut (*fields).control_ceiling, wanted.control_ceiling);
            store(&raw mut (*fields).ceiling, wanted.ceiling);
        }
        let found = self.read()?;
        ensure!(found == wanted, "the gate was written as {wanted:?}, but the kernel holds {found:?}");
        Ok(wanted.generation)
    }
}

impl Drop for GateMap {
    fn drop(&mut self) {
        unmap(self.fields);
    }
}

fn unmap(fields: NonNull<Gate>) {
    // SAFETY: made by `mmap` with this size and not used after this.
    unsafe { libc::munmap(fields.as_ptr().cast(), size_of::<Gate>()) };
}

/// # Safety
/// `field` is an aligned field of the mapped gate.
unsafe fn store(field: *mut u64, value: u64) {
    // SAFETY: the caller's promise; the mapping is never accessed otherwise than atomically.
    unsafe { AtomicU64::from_ptr(field) }.store(value, Ordering::SeqCst);
}

/// What the kernel says through a ring buffer. Readable (`AsyncFd`) when there is something; a wake-up may be missed, so keep a timer
/// beside what must not be.
pub struct Said<T> {
    ring: RingBuf<MapData>,
    what: PhantomData<T>,
}

/// The hints of the kernel.
pub type Hints = Said<Hint>;

/// The heads of refused packets.
pub type Refusals = Said<Refusal>;

impl<T: aya::Pod> Said<T> {
    pub(super) fn open(pins: &Pins, map: &str) -> Result<Self> {
        let ring = RingBuf::try_from(Map::RingBuf(open_map(pins, map)?)).with_context(|| format!("map of {map}"))?;
        Ok(Self { ring, what: PhantomData })
    }

    /// Takes what was said next, if there is anything.
    pub fn take(&mut self) -> Option<T> {
        let entry = self.ring.next()?;
        if entry.len() < size_of::<T>() {
            return None;
        }
        // SAFETY: there are as many octets as `T` has, and any octets are one (`Pod`); the source need not be aligned.
        Some(unsafe { ptr::read_unaligned(entry.as_ptr().cast()) })
    }
}

impl<T> AsRawFd for Said<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.ring.as_raw_fd()
    }
}

impl<T> AsFd for Said<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

/// The rare log lines of the programs of one link, each direction's program writing to the same buffer.
pub struct KernelLog {
    logger: EbpfLogger<ToTracing>,
}

impl KernelLog {
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        let program_id = running(pins, Direction::Uplink)?;
        let logger = EbpfLogger::init_from_id_with_logger(program_id, ToTracing)
            .with_context(|| format!("opening the log of the programs of {pins}"))?;
        Ok(Self { logger })
    }

    /// Writes what has come in since the last call.
    pub fn flush(&mut self) {
        self.logger.flush();
    }
}

impl AsRawFd for KernelLog {
    fn as_raw_fd(&self) -> RawFd {
        self.logger.as_raw_fd()
    }
}

/// Hands the lines of the programs to `tracing`.
struct ToTracing;

impl log::Log for ToTracing {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        match record.level() {
            log::Level::Error => tracing::error!(target: "weir::kernel", "{}", record.args()),
            log::Level::Warn => tracing::warn!(target: "weir::kernel", "{}", record.args()),
            log::Level::Info => tracing::info!(target: "weir::kernel", "{}", record.args()),
            log::Level::Debug | log::Level::Trace => tracing::debug!(target: "weir::kernel", "{}", record.args()),
        }
    }

    fn flush(&self) {}
}
