//! The verdict: fetch-add, refund, refuse.

use agent_common::{Counters, Gate, MAX_CEILING, MODE_RESTRICT, MODE_THROTTLE, UPLINK, Word};
use aya_ebpf::{
    helpers::{bpf_jiffies64, bpf_ktime_get_boot_ns},
    programs::TcContext,
};

use crate::{
    DROP, PASS, allow, answers, atomics, counters, filters, hints,
    locate::{Ip, locate},
    maps::{COUNTERS, GATE, WORD},
    packet::{self, Size},
    plain, policer,
};

const ETHERTYPE_ARP: u16 = 0x0806;

/// The map values of this link.
#[derive(Clone, Copy)]
struct Meter {
    gate: *const Gate,
    word: *mut Word,
    counters: *mut Counters,
}

impl Meter {
    /// A missing value is a shut gate; arrays always have theirs, the verifier wants it said.
    #[inline(always)]
    fn find() -> Option<Self> {
        Some(Self { gate: GATE.get_ptr(0)?, word: WORD.get_ptr_mut(0)?, counters: COUNTERS.get_ptr_mut(0)? })
    }
}

/// Measures, counts and judges one skb.
#[inline(always)]
pub(crate) fn meter(ctx: &TcContext, direction: u32) -> i32 {
    if passes_plainly(ctx, direction) { PASS } else { meter_any(ctx, direction) }
}

/// Counts a plain packet at an open gate. Everything else is left to [`meter_any`], which begins anew.
#[inline(always)]
fn passes_plainly(ctx: &TcContext, direction: u32) -> bool {
    let Some(Meter { gate, word, counters }) = Meter::find() else { return false };
    // SAFETY: addresses inside map values.
    unsafe {
        let octets = plain::octets(ctx, atomics::load(&raw const (*gate).link_type), direction);
        let ceiling = ceiling_of(gate);
        // Looked at before anything is added, so that a shut gate need not give anything back. It is only a guess.
        if octets == 0 || atomics::load(&raw const (*word).gate) + octets > ceiling || is_past_deadline(gate) {
            return false;
        }
        let Some(total) = admit(&raw mut (*word).gate, ceiling, octets) else { return false };
        let size = Size { octets, packets: 1, is_guess: 0 };
        counters::count(&raw mut (*counters::of(counters, direction)).passed, size);
        tell_threshold(gate, total, octets, direction);
    }
    true
}

/// Measures, counts and judges one skb of any kind. (Not inlined, so that it takes no registers from the common case.)
#[inline(never)]
fn meter_any(ctx: &TcContext, direction: u32) -> i32 {
    let Some(meter) = Meter::find() else { return DROP };
    let Meter { gate, word, counters } = meter;
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
        && let Some(total) = unsafe { admit(&raw mut (*word).gate, ceiling_of(gate), size.octets) }
    {
        // SAFETY: as above.
        counters::count(unsafe { &raw mut (*tallies).passed }, size);
        tell_threshold(gate, total, size.octets, direction);
        return PASS;
    }
    refuse(ctx, meter, ip, size, direction)
}

/// Hints that the word has reached the threshold with these octets.
#[inline(always)]
fn tell_threshold(gate: *const Gate, total: u64, octets: u64, direction: u32) {
    // SAFETY: an address inside a map value.
    let threshold = unsafe { atomics::load(&raw const (*gate).threshold) };
    if total >= threshold && total - octets < threshold {
        hints::threshold_reached(gate, direction);
    }
}

/// What may still pass a shut gate, and how; everything else ends here.
#[inline(always)]
fn refuse(ctx: &TcContext, meter: Meter, ip: &Ip, size: Size, direction: u32) -> i32 {
    let Meter { gate, word, counters } = meter;
    let tallies = counters::of(counters, direction);
    if ip.is_there()
        && allow::lists(ctx, ip, direction)
        // SAFETY: addresses inside map values.
        && unsafe { admit(&raw mut (*word).control, control_ceiling_of(gate), size.octets) }.is_some()
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
        if mode == MODE_RESTRICT && filters::permit(ctx, ip, direction) {
            (&raw mut (*tallies).throttled, PASS)
        } else if mode != MODE_THROTTLE {
            if direction == UPLINK {
                answers::sample(ctx, ip, gate, word);
            }
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
/// `word` points to an aligned word inside a map value.
#[inline(always)]
unsafe fn admit(word: *mut u64, ceiling: u64, octets: u64) -> Option<u64> {
    // SAFETY: the caller's promise.
    unsafe {
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

#[inline(always)]
fn ceiling_of(gate: *const Gate) -> u64 {
    // SAFETY: an address inside a map value.
    unsafe { atomics::load(&raw const (*gate).ceiling) }.min(MAX_CEILING)
}

#[inline(always)]
fn control_ceiling_of(gate: *const Gate) -> u64 {
    // SAFETY: an address inside a map value.
    unsafe { atomics::load(&raw const (*gate).control_ceiling) }.min(MAX_CEILING)
}

/// Tells whether anything at all would pass, for frames that are not metered.
#[inline(always)]
fn is_open(meter: Meter) -> bool {
    // SAFETY: addresses inside map values.
    let (used, ceiling) =
        unsafe { (atomics::load(&raw const (*meter.word).gate), atomics::load(&raw const (*meter.gate).ceiling)) };
    used < ceiling && !is_past_deadline(meter.gate)
}

/// The last jiffy in which the deadline was looked at, and the deadline that was then still to come.
///
/// Reading the clock costs as much as all the rest of a packet. The deadline is therefore looked at once a jiffy (1 to
/// 10 ms), and again when it has changed. (Jiffies stand still in suspend; the next one after it looks at the clock.)
static mut LOOKED_AT: [u64; 2] = [0; 2];

#[inline(always)]
fn is_past_deadline(gate: *const Gate) -> bool {
    // SAFETY: addresses inside map values and of two words that all CPUs store to; the helpers only read clocks.
    unsafe {
        let deadline = atomics::load(&raw const (*gate).deadline_boot_ns);
        if deadline == 0 {
            return false;
        }
        let (last, still) = (&raw mut LOOKED_AT[0], &raw mut LOOKED_AT[1]);
        let jiffy = bpf_jiffies64();
        if atomics::load(last) == jiffy && atomics::load(still) == deadline {
            return false;
        }
        if bpf_ktime_get_boot_ns() >= deadline {
            return true;
        }
        atomics::store(still, deadline);
        atomics::store(last, jiffy);
        false
    }
}
