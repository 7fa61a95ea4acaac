//! The policer of a used-up link: lock-free GCRA in one word.

use agent_common::{Gate, Word};
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;

use crate::atomics;

const NANOSECONDS: u64 = 1_000_000_000;
/// Other CPUs may win the word in between; one that loses this often drops its packet, which never lets too much pass.
const MOST_ATTEMPTS: u32 = 8;

/// Tells whether a packet of so many octets passes now.
///
/// A packet passes while the debt is within the tolerance, and then pays in full. It has to be able to go into debt:
/// one super-packet of 64 KiB at 1 Mbit/s is half a second.
#[inline(always)]
pub(crate) fn admits(gate: *const Gate, word: *mut Word, octets: u64) -> bool {
    // SAFETY: both point to map values of these types.
    let (rate, tolerance, tat) = unsafe {
        (
            atomics::load(&raw const (*gate).throttle_rate),
            atomics::load(&raw const (*gate).throttle_tolerance_ns),
            &raw mut (*word).tat,
        )
    };
    if rate == 0 {
        return false;
    }
    // Fits: an skb stays far below 2^34 octets.
    let cost = octets * NANOSECONDS / rate;
    // SAFETY: the helper only reads the clock.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    for _ in 0..MOST_ATTEMPTS {
        // SAFETY: `tat` lies inside a map value.
        let before = unsafe { atomics::load(tat) };
        let due = if before > now { before } else { now };
        if due - now > tolerance {
            return false;
        }
        // SAFETY: as above.
        if unsafe { atomics::replace_if(tat, before, due + cost) } {
            return true;
        }
    }
    false
}
