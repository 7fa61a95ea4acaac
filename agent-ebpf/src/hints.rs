//! Events for the agent: hints through the ring buffer, rare log lines.

use agent_common::{Gate, HINT_REFUSAL, HINT_THRESHOLD, Hint, Word};
use aya_ebpf::{helpers::bpf_ktime_get_boot_ns, programs::TcContext};
use aya_log_ebpf::warn;

use crate::{atomics, maps::HINTS};

/// The word of the gate has reached the threshold. (Not inlined, so that it takes no registers from the common case.)
#[inline(never)]
pub(crate) fn threshold_reached(gate: *const Gate, direction: u32) {
    // SAFETY: a map value of this type.
    let generation = unsafe { atomics::load(&raw const (*gate).generation) };
    send(HINT_THRESHOLD, direction, generation);
}

/// A packet was refused; only the first since the gate was written is told.
#[inline(always)]
pub(crate) fn refused(gate: *const Gate, word: *mut Word, direction: u32) {
    // SAFETY: map values of these types.
    let (generation, last) =
        unsafe { (atomics::load(&raw const (*gate).generation), &raw mut (*word).hinted_generation) };
    if is_first(last, generation) {
        send(HINT_REFUSAL, direction, generation);
    }
}

/// A frame of the other link type came by; only the first since the gate was written is logged.
#[inline(always)]
pub(crate) fn other_link_type(ctx: &TcContext, gate: *const Gate, word: *mut Word, found: u64) {
    // SAFETY: map values of these types.
    let (generation, last) =
        unsafe { (atomics::load(&raw const (*gate).generation), &raw mut (*word).logged_generation) };
    if is_first(last, generation) {
        warn!(ctx, "a frame of link type {} on a link of the other type: counted by what it is", found);
    }
}

#[inline(always)]
fn is_first(last: *mut u64, generation: u64) -> bool {
    // SAFETY: `last` lies inside a map value.
    unsafe {
        let before = atomics::load(last);
        before != generation && atomics::replace_if(last, before, generation)
    }
}

#[inline(always)]
fn send(kind: u32, direction: u32, generation: u64) {
    // A full buffer loses the hint; the agent has a timer beside it.
    if let Some(mut entry) = HINTS.reserve::<Hint>(0) {
        // SAFETY: the helper only reads the clock.
        let boot_ns = unsafe { bpf_ktime_get_boot_ns() };
        entry.write(Hint { kind, direction, generation, boot_ns });
        entry.submit(0);
    }
}
