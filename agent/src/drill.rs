//! Drills, in debug builds only: the environment has the process die or halt at a point, or see another wall clock.
//!
//! `WEIR_DRILL_DIE_AT=POINT[:N]` has it kill itself (SIGKILL) when it passes that point the Nth time, once unless said otherwise;
//! `WEIR_DRILL_HALT_AT=POINT[:N]` has it stop there (SIGSTOP) until it is told to go on. A loader inherits both, and counts for itself.
//! `WEIR_DRILL_SLOW_SYNC=MS` has each commit of the ledger take so many milliseconds more.
//! `WEIR_DRILL_CLOCK=FILE` shifts the wall clock by what the file says (`<signed seconds> synced|unsynced`) for as long as it is there.
//! `WEIR_DRILL_BOOT_ID=TEXT` has it take this for another boot.
//! `WEIR_DRILL_LAYOUT=N` has it be an agent of that layout of the maps, in all but the maps themselves.
//! `WEIR_DRILL_ATTACH=clsact` has it take the kernel for one without TCX.
//! `WEIR_DRILL_ATOMICS=none` has it ask the kernel for an atomic operation that there is not, as a fetching one is to an old kernel.
//!
//! In a release build every call is nothing: `cargo xtask build --release` refuses a binary that knows one of these names.

#[cfg(debug_assertions)]
mod armed;

#[cfg(debug_assertions)]
pub use armed::{boot, forbids_tcx, knows_no_fetching_atomics, layout, pass, prepare, sync, wall};

/// A moment at which a process may be made to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The ledger and the pins were read; nothing was written to either.
    Restored,
    /// Records are about to be committed.
    BeforeCommit,
    /// Records are committed; the command after them is still to be carried out.
    AfterCommit,
    /// The reporter has a message; none of its octets has left.
    BeforeSend,
    /// The reporter has an answer; the loop has not heard of it.
    Replied,
    /// The loop has an answer; the core has not heard of it.
    AnswerIn,
    /// A gate is about to be written.
    BeforeGate,
    /// A gate is written.
    AfterGate,
    /// The agent settles: once in each turn of that loop.
    Settling,
    /// The loader is done; its pins were not opened yet.
    Attached,
    /// In the loader: maps are pinned, programs are loaded, nothing is attached.
    MapsPinned,
    /// In the loader: the uplink is metered, the downlink is not.
    UplinkAttached,
    /// In the loader: one program was replaced, the other was not.
    UplinkReplaced,
    /// In the loader: the new meter is attached ahead of the old one, which is still there.
    Staged,
    /// The counters of an old meter are kept for its last reading; it is not yet taken off.
    Kept,
    /// In the loader: the old meter is taken off; the new one is not yet where the agent looks for it.
    Superseded,
}

/// Nothing to prepare.
#[cfg(not(debug_assertions))]
pub const fn prepare() -> anyhow::Result<()> {
    Ok(())
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub const fn pass(_: Point) {}

/// The layout as it is.
#[cfg(not(debug_assertions))]
#[must_use]
pub const fn layout(version: u32) -> u32 {
    version
}

/// The kernel as it is.
#[cfg(not(debug_assertions))]
#[must_use]
pub const fn forbids_tcx() -> bool {
    false
}

/// The kernel as it is.
#[cfg(not(debug_assertions))]
#[must_use]
pub const fn knows_no_fetching_atomics() -> bool {
    false
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub const fn sync() {}

/// The label as it is.
#[cfg(not(debug_assertions))]
pub const fn wall(label: crate::clock::Label) -> anyhow::Result<crate::clock::Label> {
    Ok(label)
}

/// The boot it is.
#[cfg(not(debug_assertions))]
pub const fn boot(id: crate::units::BootId) -> crate::units::BootId {
    id
}
