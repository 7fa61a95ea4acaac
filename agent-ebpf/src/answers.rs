//! Samples of what is refused, from which the agent tells senders behind the gateway that they need not wait.

use agent_common::{Gate, REFUSAL_OCTETS, Refusal, Word};
use aya_ebpf::{
    helpers::{bpf_ktime_get_boot_ns, bpf_skb_load_bytes},
    programs::TcContext,
};

use crate::{
    atomics,
    locate::Ip,
    maps::REFUSALS,
    transport::{TCP, transport},
};

/// One sample each 10 ms …
const INTERVAL_NS: u64 = 10_000_000;
/// … and so many of them ahead at once: a page in a browser opens dozens of connections.
const AHEAD_NS: u64 = 100 * INTERVAL_NS;

/// What is taken of a packet: the longest of these that it has. The shortest is an IPv4 header and 8 octets, which an answer has to
/// hold (RFC 792).
#[expect(clippy::cast_possible_truncation, reason = "120 fits")]
const LENGTHS: [u32; 4] = [REFUSAL_OCTETS as u32, 60, 48, 28];

/// Where TCP has its flags, in octets from its header on.
const TCP_FLAGS: u32 = 13;
/// SYN and ACK.
const SYN_ACK: u8 = 0x12;
/// SYN without ACK: a connection begins.
const SYN: u8 = 0x02;

/// Hands the head of a refused packet to the agent, if its sender is to be told, and not too often. What the gateway itself has sent is
/// left out: the agent hears of its server in other ways. So are connections that stand: they go on after a top-up.
#[inline(never)]
pub(crate) fn sample(ctx: &TcContext, ip: &Ip, gate: *const Gate, word: *mut Word) {
    // SAFETY: map values of these types, and the context of a running program.
    let (is_told, came_in_by) =
        unsafe { (atomics::load(&raw const (*gate).tells_refusals), (*ctx.skb.skb).ingress_ifindex) };
    if is_told == 0 || came_in_by == 0 || !ip.is_there() {
        return;
    }
    let transport = transport(ctx, ip);
    if !transport.is_there() {
        return;
    }
    // Each has a budget of its own, so that a stream of datagrams leaves connections theirs.
    // SAFETY: addresses inside a map value.
    let next = unsafe { &raw mut (*word).next_answer };
    let next = if transport.protocol == TCP {
        match ctx.load::<u8>((transport.offset + TCP_FLAGS) as usize) {
            Ok(flags) if flags & SYN_ACK == SYN => next,
            _ => return,
        }
    } else {
        // SAFETY: as above.
        unsafe { &raw mut (*word).next_other_answer }
    };
    if is_due(next) {
        send(ctx, ip, came_in_by);
    }
}

#[inline(always)]
fn send(ctx: &TcContext, ip: &Ip, came_in_by: u32) {
    // A full buffer loses the sample; the sender tries again.
    let Some(mut entry) = REFUSALS.reserve::<Refusal>(0) else { return };
    let refusal = entry.as_mut_ptr();
    for length in LENGTHS {
        // SAFETY: `octets` is as long as the longest of the lengths, and the helper checks the packet's.
        let failed =
            unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), ip.l2, (&raw mut (*refusal).octets).cast(), length) };
        if failed == 0 {
            // SAFETY: addresses inside the entry.
            unsafe {
                (*refusal).length = length;
                (*refusal).came_in_by = came_in_by;
            }
            entry.submit(0);
            return;
        }
    }
    entry.discard(0);
}

/// Whether another sample may be given now. Whoever loses the word to another CPU does without.
#[inline(always)]
fn is_due(next: *mut u64) -> bool {
    // SAFETY: an address inside a map value; the helper only reads the clock.
    let (before, now) = unsafe { (atomics::load(next), bpf_ktime_get_boot_ns()) };
    let due = if before > now { before } else { now };
    // SAFETY: as above.
    due - now < AHEAD_NS && unsafe { atomics::replace_if(next, before, due + INTERVAL_NS) }
}
