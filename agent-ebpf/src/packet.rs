//! How much one skb is on the air: L3 octets after segmentation.

use agent_common::{DOWNLINK, UPLINK};
use aya_ebpf::programs::TcContext;

use crate::{
    locate::{ETHERNET_HEADER, Frame, Ip, gso_size},
    transport::{UDP, UNREADABLE, transport, transport_header},
    tunnel,
};

/// Ethernet frames shorter than this are padded to it (IEEE 802.3, without the check sequence).
pub(crate) const ETHERNET_MINIMUM: u32 = 60;

/// What one skb amounts to.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    /// L3 octets of all its segments.
    pub(crate) octets: u64,
    /// Number of its segments.
    pub(crate) packets: u64,
    /// Not 0 if its headers could not be read to the end, and this is the best that can be said.
    pub(crate) is_guess: u64,
}

/// Measures a frame behind its link header; one without a readable IP header by its length.
#[inline(always)]
pub(crate) fn measure(ctx: &TcContext, frame: &Frame, direction: u32) -> Size {
    let ip = &frame.ip;
    let l3 = ctx.len().saturating_sub(frame.l2);
    let mut size = Size { octets: u64::from(l3), packets: 1, is_guess: 0 };
    if !ip.is_there() {
        size.is_guess = 1;
    } else if gso_size(ctx) != 0 {
        measure_super_packet(ctx, ip, direction, &mut size);
    } else if direction == DOWNLINK && ip.l2 != 0 && l3 + ETHERNET_HEADER <= ETHERNET_MINIMUM {
        // Only what was received may be padded; what is sent is padded by the driver, behind this hook. Counting
        // in-band tags out of the frame makes the padding of a tagged frame the same as that of an untagged one.
        size.octets = u64::from(ip.total);
    }
    size
}

/// Measures a packet that is many on the air: each segment repeats the network and the transport header, and in a
/// tunnel those of both packets.
///
/// `skb->len` counts them once, before TSO as well as after GRO, and is up to 11 % short (MSS 536).
///
/// How many segments there are `gso_segs` tells, and the payload divided by `gso_size`. Where these differ, the number
/// is forged or headers are hidden (a tunnel that is not known): then the reading that gives more counts.
#[inline(never)]
fn measure_super_packet(ctx: &TcContext, ip: &Ip, direction: u32, size: &mut Size) {
    let l3 = ctx.len().saturating_sub(ip.l2);
    // SAFETY: the context of a running program.
    let (gso_segs, wire_len) = unsafe { ((*ctx.skb.skb).gso_segs, (*ctx.skb.skb).wire_len) };
    let repeated = repeated(ctx, ip);
    let headers = if repeated.octets > l3 { ip.header } else { repeated.octets };
    let segment = gso_size(ctx).max(1);
    let by_size = if segment == BY_FRAGMENTS { 1 } else { (l3 - headers).div_ceil(segment).max(1) };
    let segments = by_size.max(gso_segs);
    let is_agreed = gso_segs == 0 || gso_segs == by_size || segment == BY_FRAGMENTS;
    *size = Size {
        octets: segmented(l3, segments, headers),
        packets: u64::from(segments),
        is_guess: u64::from(repeated.is_known == 0 || repeated.octets > l3 || !is_agreed),
    };
    if repeated.is_known == CERTAIN {
        return;
    }
    if !is_agreed {
        // So many segments, all but the last of full size, leave so much for headers at least.
        let hidden = u64::from(l3).saturating_sub(u64::from(gso_segs) * u64::from(segment));
        #[expect(clippy::cast_possible_truncation, reason = "at most `l3`")]
        let hidden = segmented(l3, gso_segs, hidden as u32);
        size.octets = size.octets.max(hidden);
        size.packets = u64::from(gso_segs);
    }
    // What the kernel makes of it at egress. At ingress it means something else before Linux 6.19, and older kernels
    // take the header of a tunnel for that of the packet inside: good where nothing better is known.
    if direction == UPLINK {
        let wire = u64::from(wire_len).saturating_sub(u64::from(segments) * u64::from(ip.l2));
        size.octets = size.octets.max(wire);
    }
}

/// Octets of so many segments that together hold `l3` and repeat `headers` of them.
#[inline(always)]
fn segmented(l3: u32, segments: u32, headers: u32) -> u64 {
    u64::from(l3) + u64::from(segments - 1) * u64::from(headers)
}

/// `GSO_BY_FRAGS`: the segments (of SCTP) are of different sizes, and only their number is known.
const BY_FRAGMENTS: u32 = 0xffff;

/// What the segments of a super-packet repeat.
#[derive(Clone, Copy)]
struct Repeated {
    /// Octets from the IP header on.
    octets: u32,
    /// 0 if there is more that could not be read; else [`LIKELY`] or [`CERTAIN`].
    is_known: u64,
}

/// [`Repeated::is_known`]: unless a datagram is a tunnel of a kind that is not known.
const LIKELY: u64 = 1;
/// [`Repeated::is_known`]: beyond doubt.
const CERTAIN: u64 = 2;

/// Reads the headers to the end, through a tunnel.
#[inline(always)]
fn repeated(ctx: &TcContext, ip: &Ip) -> Repeated {
    let outer = transport(ctx, ip).merged(ctx);
    if !outer.is_there() {
        return Repeated { octets: ip.header, is_known: 0 };
    }
    let inner = tunnel::inner(ctx, outer).merged(ctx);
    let innermost = if inner.is_there() { transport(ctx, &inner).merged(ctx) } else { outer };
    if !innermost.is_there() {
        return Repeated { octets: (inner.l2 + inner.header).saturating_sub(ip.l2), is_known: 0 };
    }
    let header = transport_header(ctx, innermost);
    let before = innermost.offset.saturating_sub(ip.l2);
    if header == 0 || header == UNREADABLE {
        return Repeated { octets: before, is_known: 0 };
    }
    let is_known = if innermost.protocol == UDP && !inner.is_there() { LIKELY } else { CERTAIN };
    Repeated { octets: before + header, is_known }
}
