//! Adding to the per-CPU counters.

use agent_common::{Counters, DirectionCounters, Tally, UPLINK};

use crate::{atomics, packet::Size};

/// The counters of one direction.
#[inline(always)]
pub(crate) fn of(counters: *mut Counters, direction: u32) -> *mut DirectionCounters {
    // SAFETY: `counters` is a map value of this type; only an address inside it is taken.
    unsafe { if direction == UPLINK { &raw mut (*counters).uplink } else { &raw mut (*counters).downlink } }
}

/// Not 0 where nothing can come between a load and its store on the same CPU: on a kernel that is not `PREEMPT_RT`.
///
/// There egress runs with bottom halves off and ingress is a bottom half. On `PREEMPT_RT` both are threads that can be
/// preempted, and since the per-CPU lock of `local_bh_disable` became optional there (Linux 6.18) by each other; a lost
/// update is a lost octet on a bill. Written by the loader before the kernel sees the program, and 0 if it does not know.
#[unsafe(no_mangle)]
static UNDISTURBED: u64 = 0;

/// Counts one skb.
///
/// The value belongs to this CPU; where something can come in between the additions are atomic all the same. They are
/// two of the three locked instructions of a packet, which is most of what it costs. (The verifier knows
/// [`UNDISTURBED`] and keeps one branch only.)
#[inline(always)]
pub(crate) fn count(tally: *mut Tally, size: Size) {
    // SAFETY: `tally` lies inside a map value. Volatile, or the compiler would take the constant for what it is now.
    unsafe {
        let (octets, packets) = (&raw mut (*tally).octets, &raw mut (*tally).packets);
        if (&raw const UNDISTURBED).read_volatile() != 0 {
            atomics::add_undisturbed(octets, size.octets);
            atomics::add_undisturbed(packets, size.packets);
        } else {
            atomics::fetch_add(octets, size.octets);
            atomics::fetch_add(packets, size.packets);
        }
    }
}

/// Counts an IP packet that could not be read.
#[inline(always)]
pub(crate) fn count_parse_error(counters: *mut Counters) {
    // SAFETY: `counters` is a map value of this type.
    unsafe { atomics::fetch_add(&raw mut (*counters).parse_errors, 1) };
}
