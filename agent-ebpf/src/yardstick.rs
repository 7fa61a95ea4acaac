//! What the meter is measured against: a program that does nothing, one that only counts, and gates that are wrong.
//!
//! No agent carries these. The wrong gates are there so that a test that finds nothing wrong with the right one is known
//! to be able to.
#![no_std]
#![no_main]
#![feature(core_intrinsics)]
#![expect(clippy::inline_always, reason = "a call would hide from the verifier what it has to prove")]
#![expect(internal_features, reason = "core has no fetch-add for this target; the intrinsics are used in one file")]

// The lints run on the host, where something has to define what a panic does.
#[cfg(not(target_arch = "bpf"))]
extern crate std as _;

#[expect(dead_code, reason = "the meter needs more of them")]
mod atomics;

use agent_common::{Counters, Gate, Tally, Word};
use aya_ebpf::{
    macros::{classifier, map},
    maps::{Array, PerCpuArray},
    programs::TcContext,
};

/// As the meter says it.
const PASS: i32 = -1;
/// As the meter says it.
const DROP: i32 = 2;

#[map(name = "counters")]
static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

#[map(name = "word")]
static WORD: Array<Word> = Array::with_max_entries(1, 0);

#[map(name = "gate")]
static GATE: Array<Gate> = Array::with_max_entries(1, 0);

/// Does nothing: what every program costs.
#[classifier]
pub(crate) fn empty(_: TcContext) -> i32 {
    PASS
}

/// Counts the length of each packet on its CPU, and that is all.
#[classifier]
#[expect(clippy::needless_pass_by_value, reason = "the macro hands it over so")]
pub(crate) fn count_only(ctx: TcContext) -> i32 {
    let Some(counters) = COUNTERS.get_ptr_mut(0) else { return DROP };
    // SAFETY: an address inside a map value.
    count(unsafe { &raw mut (*counters).uplink.passed }, u64::from(ctx.len()));
    PASS
}

/// Wrong: two CPUs that look at the same time both find room.
#[classifier]
#[expect(clippy::needless_pass_by_value, reason = "the macro hands it over so")]
pub(crate) fn check_then_add(ctx: TcContext) -> i32 {
    judge(&ctx, |word, ceiling, octets| {
        // SAFETY: the word lies inside a map value.
        unsafe {
            if atomics::load(word) + octets > ceiling {
                return false;
            }
            atomics::fetch_add(word, octets);
        }
        true
    })
}

/// Wrong: of two additions at the same time one is lost.
#[classifier]
#[expect(clippy::needless_pass_by_value, reason = "the macro hands it over so")]
pub(crate) fn add_without_lock(ctx: TcContext) -> i32 {
    judge(&ctx, |word, ceiling, octets| {
        // SAFETY: the word lies inside a map value; that others add to it is the mistake.
        unsafe {
            let fits = atomics::load(word) + octets <= ceiling;
            if fits {
                atomics::add_undisturbed(word, octets);
            }
            fits
        }
    })
}

/// Wrong: what was refused stays in the sum, and is counted as used.
#[classifier]
#[expect(clippy::needless_pass_by_value, reason = "the macro hands it over so")]
pub(crate) fn add_then_check(ctx: TcContext) -> i32 {
    // SAFETY: the word lies inside a map value.
    judge(&ctx, |word, ceiling, octets| unsafe { atomics::fetch_add(word, octets) } + octets <= ceiling)
}

/// As [`add_then_check`], but what it decides by is data of the program: reached without a lookup, and gone with the program.
#[classifier]
#[expect(clippy::needless_pass_by_value, reason = "the macro hands it over so")]
pub(crate) fn add_then_check_own(ctx: TcContext) -> i32 {
    /// The ceiling.
    static mut CEILING: u64 = u64::MAX;
    /// The octets admitted.
    static mut GATE: u64 = 0;
    let Some(counters) = COUNTERS.get_ptr_mut(0) else { return DROP };
    let octets = u64::from(ctx.len());
    // SAFETY: aligned words that all processors share, and an address inside a map value.
    unsafe {
        let passes = atomics::fetch_add(&raw mut GATE, octets) + octets <= atomics::load(&raw const CEILING);
        let tallies = &raw mut (*counters).uplink;
        count(if passes { &raw mut (*tallies).passed } else { &raw mut (*tallies).refused }, octets);
        if passes { PASS } else { DROP }
    }
}

/// Admits by `admits`, and counts as the meter does.
#[inline(always)]
fn judge(ctx: &TcContext, admits: impl FnOnce(*mut u64, u64, u64) -> bool) -> i32 {
    let (Some(gate), Some(word), Some(counters)) = (GATE.get_ptr(0), WORD.get_ptr_mut(0), COUNTERS.get_ptr_mut(0))
    else {
        return DROP;
    };
    let octets = u64::from(ctx.len());
    // SAFETY: addresses inside map values.
    unsafe {
        let ceiling = atomics::load(&raw const (*gate).ceiling);
        let passes = admits(&raw mut (*word).gate, ceiling, octets);
        let tallies = &raw mut (*counters).uplink;
        count(if passes { &raw mut (*tallies).passed } else { &raw mut (*tallies).refused }, octets);
        if passes { PASS } else { DROP }
    }
}

#[inline(always)]
fn count(tally: *mut Tally, octets: u64) {
    // SAFETY: `tally` lies inside a map value of this CPU.
    unsafe {
        atomics::add_undisturbed(&raw mut (*tally).octets, octets);
        atomics::add_undisturbed(&raw mut (*tally).packets, 1);
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
