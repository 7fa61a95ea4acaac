//! The filters of a restricted link: what else may pass beyond the ceiling, looked at only after a refusal.

use agent_common::{ANY_PROTOCOL, FILTER_END, FILTER_PERMIT, Filter, MAX_FILTERS, UPLINK};
use aya_ebpf::programs::TcContext;

use crate::{
    atomics,
    locate::Ip,
    maps::FILTERS,
    transport::{SCTP, TCP, UDP, transport},
};

/// [`Packet::protocol`]: not known, as in a later fragment of IPv6; fits only what fits any.
const UNKNOWN: u32 = 512;

/// What filters ask of a packet.
struct Packet {
    direction: u32,
    family: u32,
    protocol: u32,
    local: [u32; 4],
    remote: [u32; 4],
    local_port: u16,
    remote_port: u16,
    has_ports: bool,
}

/// Tells whether the first filter that this packet fits permits it; one that fits none is refused.
#[inline(never)]
pub(crate) fn permit(ctx: &TcContext, ip: &Ip, direction: u32) -> bool {
    let Some(packet) = read(ctx, ip, direction) else { return false };
    let Some(filters) = FILTERS.get_ptr(0) else { return false };
    for index in 0..MAX_FILTERS {
        // SAFETY: an address inside a map value; the index is bounded.
        let filter = unsafe { &raw const (*filters).list[index] };
        // SAFETY: as above. The agent writes the list only while nobody looks at it.
        let verdict = unsafe { atomics::load_half(&raw const (*filter).verdict) };
        if verdict == FILTER_END {
            return false;
        }
        if fits(filter, &packet) {
            return verdict == FILTER_PERMIT;
        }
    }
    false
}

#[inline(always)]
fn fits(filter: *const Filter, packet: &Packet) -> bool {
    // SAFETY: a map value of this type.
    let filter = unsafe { &*filter };
    let mut differs = filter.direction ^ packet.direction;
    for word in 0..4 {
        differs |= (filter.local[word] ^ packet.local[word]) & filter.local_mask[word];
        differs |= (filter.remote[word] ^ packet.remote[word]) & filter.remote_mask[word];
    }
    if differs != 0
        || (filter.family != 0 && filter.family != packet.family)
        || (filter.protocol != ANY_PROTOCOL && filter.protocol != packet.protocol)
    {
        return false;
    }
    let within = |port: u16, [first, last]: [u16; 2]| port >= first && port <= last;
    filter.has_ports == 0
        || (packet.has_ports
            && within(packet.local_port, filter.local_ports)
            && within(packet.remote_port, filter.remote_ports))
}

#[inline(always)]
fn read(ctx: &TcContext, ip: &Ip, direction: u32) -> Option<Packet> {
    if !ip.is_there() {
        return None;
    }
    let l3 = ip.l2 as usize;
    let (source, destination) = if ip.version == 6 {
        (ctx.load::<[u32; 4]>(l3 + 8).ok()?, ctx.load::<[u32; 4]>(l3 + 24).ok()?)
    } else {
        ([ctx.load::<u32>(l3 + 12).ok()?, 0, 0, 0], [ctx.load::<u32>(l3 + 16).ok()?, 0, 0, 0])
    };
    let transport = transport(ctx, ip);
    let mut protocol = u32::from(transport.protocol);
    let (mut from, mut to, mut has_ports) = (0, 0, false);
    if !transport.is_there() {
        // The rest of a fragmented packet (RFC 6733 section 4.3.1: it fits no filter with ports).
        protocol = if ip.version == 4 { u32::from(ip.protocol) } else { UNKNOWN };
    } else if matches!(transport.protocol, TCP | UDP | SCTP) {
        // All three have their ports in the same place.
        let offset = transport.offset as usize;
        (from, to) = (u16::from_be(ctx.load(offset).ok()?), u16::from_be(ctx.load(offset + 2).ok()?));
        has_ports = true;
    }
    let is_uplink = direction == UPLINK;
    Some(Packet {
        direction,
        family: ip.version,
        protocol,
        local: if is_uplink { source } else { destination },
        remote: if is_uplink { destination } else { source },
        local_port: if is_uplink { from } else { to },
        remote_port: if is_uplink { to } else { from },
        has_ports,
    })
}
