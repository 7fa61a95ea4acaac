//! The policer of a used-up link: lock-free GCRA in one word.

use agent_common::{Gate, Word};
use aya_ebpf::{
    helpers::{bpf_ktime_get_boot_ns, bpf_skb_ecn_set_ce},
    programs::TcContext,
};

use crate::atomics;

const NANOSECONDS: u64 = 1_000_000_000;
/// Other CPUs may win the word in between; one that loses this often drops its packet, which never lets too much pass.
const MOST_ATTEMPTS: u32 = 8;
/// A link that has owed nothing for so long is idle: nobody is sending to whom anything would be owed.
const IDLE_NS: u64 = NANOSECONDS;
/// What whoever begins on an idle link may send at once, in nanoseconds of sending.
const START_NS: u64 = 150_000_000;
/// Congestion is told when no more than this is left before packets are dropped.
const MARK_NS: u64 = 75_000_000;

/// Tells whether a packet of so many octets passes now, and tells a flow that understands it (ECN) when there is too much of it.
///
/// A packet passes while the debt stays within the tolerance: so much of what a flow has not sent may it catch up later, and
/// without that TCP, which slows down at every loss, would stay below the rate. On an idle link most of the tolerance is
/// taken for used, or every beginning would be a burst; but a packet of any size passes there.
#[inline(always)]
pub(crate) fn admits(ctx: &TcContext, gate: *const Gate, word: *mut Word, octets: u64) -> bool {
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
        let debt = if before > now {
            before - now
        } else if now - before > IDLE_NS {
            tolerance.saturating_sub(if cost > START_NS { cost } else { START_NS })
        } else {
            0
        };
        let left = tolerance.saturating_sub(debt);
        if cost > left {
            return false;
        }
        // SAFETY: as above.
        if unsafe { atomics::replace_if(tat, before, now + debt + cost) } {
            tell_congestion(ctx, left, left - cost);
            return true;
        }
    }
    false
}

/// Marks the packet if what is left fell below the next power of two by it: the nearer the first drop the more often, and
/// seldom enough that a flow which has slowed down is not told again before that can be seen.
#[inline(always)]
fn tell_congestion(ctx: &TcContext, before: u64, after: u64) {
    if after < MARK_NS && (before ^ after) > after {
        // SAFETY: the helper takes the packet of this program; one that is not of a flow with ECN it leaves alone.
        unsafe { bpf_skb_ecn_set_ce(ctx.skb.skb) };
    }
}
