//! Finds the packet that a tunnel's packet carries: a super-packet repeats the headers of both on the air.
//!
//! The kernel merges and segments through one tunnel and no second one, so one is looked into.

use aya_ebpf::programs::TcContext;

use crate::{
    locate::{ETHERNET_HEADER, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ip, VLAN_TAG, ethertype_of, ip_at, is_tag},
    transport::{Transport, UDP, UDP_HEADER},
};

const IPIP: u8 = 4;
/// IPv6 in either: 6in4 (RFC 4213) or RFC 2473.
const IPV6: u8 = 41;
const GRE: u8 = 47;

/// Transparent Ethernet bridging, in GRE and Geneve; VXLAN carries nothing else.
const ETHERTYPE_BRIDGED: u16 = 0x6558;

/// Length of a VXLAN header (RFC 7348), and of a Geneve header without options (RFC 8926), in octets.
const OVERLAY_HEADER: u32 = 8;
/// Bit of the first octet of a VXLAN header: there is a network identifier. Other bits belong to extensions.
const VXLAN_IDENTIFIED: u32 = 0x08;

/// Where the payload of a tunnel begins, and what it is.
#[derive(Clone, Copy)]
struct Payload {
    /// Offset in the frame, in octets.
    offset: u32,
    /// Its `EtherType`; 0 if there is no tunnel.
    ethertype: u16,
}

impl Payload {
    const NONE: Self = Self { offset: 0, ethertype: 0 };
}

/// The IP header of the packet inside, or [`Ip::NONE`].
#[inline(always)]
pub(crate) fn inner(ctx: &TcContext, outer: Transport) -> Ip {
    let offset = outer.offset;
    let payload = match outer.protocol {
        IPIP => Payload { offset, ethertype: ETHERTYPE_IPV4 },
        IPV6 => Payload { offset, ethertype: ETHERTYPE_IPV6 },
        GRE => gre(ctx, offset),
        UDP => overlay(ctx, offset + UDP_HEADER),
        _ => Payload::NONE,
    };
    let payload = if payload.ethertype == ETHERTYPE_BRIDGED { bridged(ctx, payload.offset) } else { payload };
    if payload.ethertype == 0 {
        return Ip::NONE;
    }
    let ip = ip_at(ctx, payload.offset);
    if !ip.is_there() || ethertype_of(&ip) != payload.ethertype {
        return Ip::NONE;
    }
    // A datagram is no tunnel for its port, but for what it holds: one inner packet that is as long as all segments
    // together. Where a program sends a train of datagrams with packets in them, the first is as long as its segment.
    if outer.protocol == UDP && ip.total != ctx.len().saturating_sub(payload.offset) {
        return Ip::NONE;
    }
    ip
}

/// RFC 2784 and 2890: four octets, and as many for each of checksum, key and sequence number.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "one half of a word is meant")]
fn gre(ctx: &TcContext, offset: u32) -> Payload {
    let Ok(head) = ctx.load::<u32>(offset as usize).map(u32::from_be) else { return Payload::NONE };
    let fields = (head >> 31 & 1) + (head >> 29 & 1) + (head >> 28 & 1);
    // Routing (bit 1) is obsolete, and a version other than 0 is another protocol (PPTP).
    if head & 0x4007_0000 != 0 {
        Payload::NONE
    } else {
        Payload { offset: offset + 4 + 4 * fields, ethertype: head as u16 }
    }
}

/// VXLAN or Geneve, at whatever port.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "one half of a word is meant")]
fn overlay(ctx: &TcContext, offset: u32) -> Payload {
    let Ok(head) = ctx.load::<u32>(offset as usize).map(u32::from_be) else { return Payload::NONE };
    let ethertype = head as u16;
    if head >> 30 == 0 && matches!(ethertype, ETHERTYPE_BRIDGED | ETHERTYPE_IPV4 | ETHERTYPE_IPV6) {
        let options = (head >> 24 & 0x3f) * 4;
        Payload { offset: offset + OVERLAY_HEADER + options, ethertype }
    } else if head >> 24 & VXLAN_IDENTIFIED != 0 {
        Payload { offset: offset + OVERLAY_HEADER, ethertype: ETHERTYPE_BRIDGED }
    } else {
        Payload::NONE
    }
}

/// An Ethernet frame in a tunnel, with at most one tag.
#[inline(always)]
fn bridged(ctx: &TcContext, offset: u32) -> Payload {
    let Ok(ethertype) = ctx.load::<u16>(offset as usize + 12).map(u16::from_be) else { return Payload::NONE };
    if !is_tag(ethertype) {
        return Payload { offset: offset + ETHERNET_HEADER, ethertype };
    }
    let Ok(ethertype) = ctx.load::<u16>(offset as usize + 16).map(u16::from_be) else { return Payload::NONE };
    Payload { offset: offset + ETHERNET_HEADER + VLAN_TAG, ethertype }
}
