//! Adding to the per-CPU counters.

use agent_common::{Counters, DirectionCounters, Tally, UPLINK};

use crate::{atomics, packet::Size};

/// The counters of one direction.
#[inline(always)]
pub(crate) fn of(counters: *mut Counters, direction: u32) -> *mut DirectionCounters {
    // SAFETY: `counters` is a map value of this type; only an address inside it is taken.
    unsafe { if direction == UPLINK { &raw mut (*counters).uplink } else { &raw mut (*counters).downlink } }
}

/// Counts one skb.
///
/// The value belongs to this CPU, yet the additions are atomic. On most kernels nothing could come between a load and
/// its store: egress runs with bottom halves off and ingress is a bottom half. On `PREEMPT_RT` both are threads that
/// can be preempted, and since the per-CPU lock of `local_bh_disable` became optional there (Linux 6.18) by each
/// other. A lost update here is a lost octet on a bill; a locked addition to a line that no other CPU touches costs a
/// few nanoseconds.
#[inline(always)]
pub(crate) fn count(tally: *mut Tally, size: Size) {
    // SAFETY: `tally` lies inside a map value.
    unsafe {
        atomics::fetch_add(&raw mut (*tally).octets, size.octets);
        atomics::fetch_add(&raw mut (*tally).packets, size.packets);
    }
}

/// Counts an IP packet that could not be read.
#[inline(always)]
pub(crate) fn count_parse_error(counters: *mut Counters) {
    // SAFETY: `counters` is a map value of this type.
    unsafe { atomics::fetch_add(&raw mut (*counters).parse_errors, 1) };
}
