//! The verdict: fetch-add, refund, refuse.

use agent_common::{Counters, Gate, MAX_CEILING, MODE_THROTTLE, Word};
use aya_ebpf::{helpers::bpf_ktime_get_boot_ns, programs::TcContext};

use crate::{
    DROP, PASS, allow, atomics, counters, hints,
    locate::{Ip, locate},
    maps::{COUNTERS, GATE, WORD},
    packet::{self, Size},
    policer,
};

const ETHERTYPE_ARP: u16 = 0x0806;

/// The map values of this link.
#[derive(Clone, Copy)]
struct Meter {
    gate: *const Gate,
    word: *mut Word,
    counters: *mut Counters,
}

/// Measures, counts and judges one skb.
#[inline(always)]
pub(crate) fn meter(ctx: &TcContext, direction: u32) -> i32 {
    // A missing value is a shut gate; arrays always have theirs, the verifier wants it said.
    let (Some(gate), Some(word), Some(counters)) = (GATE.get_ptr(0), WORD.get_ptr_mut(0), COUNTERS.get_ptr_mut(0))
    else {
        return DROP;
    };
    let meter = Meter { gate, word, counters };
    // SAFETY: a map value of this type.
    let link_type = unsafe { atomics::load(&raw const (*gate).link_type) };
    let frame = locate(ctx, link_type).merged(ctx);
    let size = packet::measure(ctx, &frame, direction);
    if !frame.is_ip() {
        // SAFETY: an address inside a map value.
        counters::count(unsafe { &raw mut (*counters::of(counters, direction)).non_ip }, size);
        return if frame.ethertype == ETHERTYPE_ARP || is_open(meter) { PASS } else { DROP };
    }
    if size.is_guess != 0 {
        counters::count_parse_error(counters);
    }
    if frame.ip.is_there() && frame.ip.link_type() != link_type {
        hints::other_link_type(ctx, gate, word, frame.ip.link_type());
    }
    judge(ctx, meter, &frame.ip, size, direction)
}

#[inline(always)]
fn judge(ctx: &TcContext, meter: Meter, ip: &Ip, size: Size, direction: u32) -> i32 {
    let Meter { gate, word, counters } = meter;
    let tallies = counters::of(counters, direction);
    if !is_past_deadline(gate)
        // SAFETY: addresses inside map values.
        && let Some(total) = unsafe { admit(&raw mut (*word).gate, &raw const (*gate).ceiling, size.octets) }
    {
        // SAFETY: as above.
        counters::count(unsafe { &raw mut (*tallies).passed }, size);
        // SAFETY: as above.
        let threshold = unsafe { atomics::load(&raw const (*gate).threshold) };
        if total >= threshold && total - size.octets < threshold {
            hints::threshold_reached(gate, direction);
        }
        return PASS;
    }
    refuse(ctx, meter, ip, size, direction)
}

/// What may still pass a shut gate, and how; everything else ends here.
#[inline(always)]
fn refuse(ctx: &TcContext, meter: Meter, ip: &Ip, size: Size, direction: u32) -> i32 {
    let Meter { gate, word, counters } = meter;
    let tallies = counters::of(counters, direction);
    if ip.is_there()
        && allow::lists(ctx, ip, direction)
        // SAFETY: addresses inside map values.
        && unsafe { admit(&raw mut (*word).control, &raw const (*gate).control_ceiling, size.octets) }.is_some()
    {
        // SAFETY: as above.
        counters::count(unsafe { &raw mut (*tallies).control }, size);
        return PASS;
    }
    hints::refused(gate, word, direction);
    // SAFETY: as above.
    let mode = unsafe { atomics::load(&raw const (*gate).mode) };
    // SAFETY: as above.
    let (tally, verdict) = unsafe {
        if mode != MODE_THROTTLE {
            (&raw mut (*tallies).refused, DROP)
        } else if policer::admits(ctx, gate, word, size.octets) {
            (&raw mut (*tallies).throttled, PASS)
        } else {
            (&raw mut (*tallies).policed, DROP)
        }
    };
    counters::count(tally, size);
    verdict
}

/// Adds to the word if it stays within the ceiling, and gives what it then holds.
///
/// The sum is taken first and given back when it is too much: a check before the addition would let two CPUs through
/// at once, and an addition that is left standing would count what was refused. While it stands another CPU may be
/// refused what would have fitted; nothing is ever admitted over the ceiling.
///
/// # Safety
/// Both point to aligned words inside map values.
#[inline(always)]
unsafe fn admit(word: *mut u64, ceiling: *const u64, octets: u64) -> Option<u64> {
    // SAFETY: the caller's promise.
    unsafe {
        let ceiling = atomics::load(ceiling).min(MAX_CEILING);
        let before = atomics::fetch_add(word, octets);
        let total = before.wrapping_add(octets);
        // A packet of nothing is nothing that could be metered; it must not find a way through a shut gate.
        if octets != 0 && before <= ceiling && total <= ceiling {
            return Some(total);
        }
        atomics::refund(word, octets);
        None
    }
}

/// Tells whether anything at all would pass, for frames that are not metered.
#[inline(always)]
fn is_open(meter: Meter) -> bool {
    // SAFETY: addresses inside map values.
    let (used, ceiling) =
        unsafe { (atomics::load(&raw const (*meter.word).gate), atomics::load(&raw const (*meter.gate).ceiling)) };
    used < ceiling && !is_past_deadline(meter.gate)
}

#[inline(always)]
fn is_past_deadline(gate: *const Gate) -> bool {
    // SAFETY: an address inside a map value; the helper only reads the clock, and only when there is a deadline.
    unsafe {
        let deadline = atomics::load(&raw const (*gate).deadline_boot_ns);
        deadline != 0 && bpf_ktime_get_boot_ns() >= deadline
    }
}
