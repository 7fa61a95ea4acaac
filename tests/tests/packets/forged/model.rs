//! What a packet is on the wire, worked out from its octets without a look at how the programs do it.

use crate::bench::{Direction, Skb};

/// What leaves, or has arrived.
#[derive(Debug)]
pub(crate) struct Model {
    /// L3 octets: all of them where they are certain, else no more than really leave.
    pub(crate) least: u64,
    /// Packets that the kernel makes of it.
    pub(crate) segments: u32,
    /// Whether every header could be read, and all that is said about the packet agrees.
    pub(crate) is_certain: bool,
}

impl Model {
    /// Of an Ethernet frame with IP in it.
    pub(crate) fn of(frame: &[u8], skb: Skb, direction: Direction) -> Self {
        let (tags, version, packet) = behind_tags(frame);
        let held = packet.len();
        let declared = declared(packet).filter(|_| packet[0] >> 4 == version);
        if skb.gso_size == 0 {
            let padded = direction == Direction::Downlink && frame.len() - 4 * tags <= 60;
            let octets = declared.filter(|_| padded).unwrap_or(held);
            return Self { least: octets as u64, segments: 0, is_certain: declared.is_some() };
        }
        let Some(headers) = declared.and_then(|_| ip(packet, true)).filter(|headers| *headers <= held) else {
            return Self { least: held as u64, segments: 1, is_certain: false };
        };
        let segments = (held - headers).div_ceil(skb.gso_size as usize).max(1);
        let is_told = skb.gso_segs == 0 || skb.gso_segs as usize == segments || skb.gso_size == 0xffff;
        let segments = if is_told { segments.max(skb.gso_segs as usize) } else { segments };
        Self {
            least: (held + (segments - 1) * headers) as u64,
            segments: u32::try_from(segments).unwrap(),
            is_certain: is_told,
        }
    }
}

fn word(octets: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes([*octets.get(at)?, *octets.get(at + 1)?])))
}

/// The number of tags, the version of IP that the `EtherType` promises, and what follows it.
fn behind_tags(frame: &[u8]) -> (usize, u8, &[u8]) {
    let tags = (0..2).take_while(|tag| matches!(word(frame, 12 + 4 * tag), Some(0x8100 | 0x88a8))).count();
    let version = if word(frame, 12 + 4 * tags) == Some(0x0800) { 4 } else { 6 };
    (tags, version, frame.get(14 + 4 * tags..).unwrap_or_default())
}

/// What the packet says it measures, if that can be.
fn declared(packet: &[u8]) -> Option<usize> {
    let (least, length) = match packet.first()? >> 4 {
        4 => (usize::from(packet[0] & 15) * 4, word(packet, 2)?),
        6 => (40, 40 + word(packet, 4)?),
        _ => return None,
    };
    (packet.len() >= 20 && least >= 20 && least <= length && length <= packet.len()).then_some(length)
}

/// Octets of all headers from this IP header on.
fn ip(packet: &[u8], may_be_tunnel: bool) -> Option<usize> {
    declared(packet)?;
    let (mut next, mut at) = match packet[0] >> 4 {
        4 if word(packet, 6)? & 0x1fff != 0 => return None,
        4 => (packet[9], usize::from(packet[0] & 15) * 4),
        _ => (packet[6], 40),
    };
    // Not more than six, as the programs promise.
    let mut extensions = 0;
    while packet[0] >> 4 == 6 && matches!(next, 0 | 43 | 44 | 51 | 60 | 135) {
        extensions += 1;
        let head = packet.get(at..at + 4)?;
        at += match next {
            44 if u16::from_be_bytes([head[2], head[3]]) >> 3 != 0 => return None,
            44 => 8,
            51 => 4 * (usize::from(head[1]) + 2),
            _ => 8 * (usize::from(head[1]) + 1),
        };
        next = head[0];
        if extensions == 6 {
            return None;
        }
    }
    Some(at + transport(next, packet.get(at..).unwrap_or_default(), may_be_tunnel)?)
}

fn transport(protocol: u8, segment: &[u8], may_be_tunnel: bool) -> Option<usize> {
    let inner = |version: u8, at: usize| {
        let packet = segment.get(at..)?;
        (may_be_tunnel && packet.first()? >> 4 == version).then(|| ip(packet, false)).flatten().map(|inner| at + inner)
    };
    let payload = |ethertype: usize, at: usize| match ethertype {
        0x0800 => inner(4, at),
        0x86dd => inner(6, at),
        _ => None,
    };
    let bridged = |at: usize| match word(segment, at + 12)? {
        0x8100 | 0x88a8 => payload(word(segment, at + 16)?, at + 18),
        ethertype => payload(ethertype, at + 14),
    };
    let any = |ethertype: usize, at: usize| if ethertype == 0x6558 { bridged(at) } else { payload(ethertype, at) };
    match protocol {
        6 => Some(4 * usize::from(segment.get(12)? >> 4)).filter(|length| *length >= 20),
        17 => match overlay(segment, may_be_tunnel) {
            Some((ethertype, at)) => any(ethertype, at),
            None => Some(8),
        },
        132 => Some(12),
        4 => inner(4, 0),
        41 => inner(6, 0),
        47 => {
            let flags = word(segment, 0)?;
            let fields = [0x8000, 0x2000, 0x1000].iter().filter(|bit| flags & **bit != 0).count();
            if flags & 0x4007 == 0 { any(word(segment, 2)?, 4 + 4 * fields) } else { None }
        }
        _ => None,
    }
}

/// A tunnel over UDP, by what it holds: one packet as long as all that is there. Its payload's `EtherType` and place.
fn overlay(datagram: &[u8], may_be_tunnel: bool) -> Option<(usize, usize)> {
    let (first, kind) = (usize::from(*datagram.get(8)?), word(datagram, 10)?);
    let (ethertype, at) = if first < 64 && matches!(kind, 0x6558 | 0x0800 | 0x86dd) {
        (kind, 16 + 4 * first)
    } else if first & 8 != 0 {
        (0x6558, 16)
    } else {
        return None;
    };
    let ip = match ethertype {
        0x6558 if matches!(word(datagram, at + 12)?, 0x8100 | 0x88a8) => (word(datagram, at + 16)?, at + 18),
        0x6558 => (word(datagram, at + 12)?, at + 14),
        _ => (ethertype, at),
    };
    let packet = datagram.get(ip.1..)?;
    let version = if packet.first()? >> 4 == 4 { 0x0800 } else { 0x86dd };
    (may_be_tunnel && ip.0 == version && declared(packet)? == packet.len()).then_some((ethertype, at))
}
