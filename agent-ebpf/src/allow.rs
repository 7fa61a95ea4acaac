//! The allow-list: what may pass a shut gate, looked at only after a refusal.

use agent_common::{AllowKey, FAMILY_V4, FAMILY_V6, UPLINK};
use aya_ebpf::programs::TcContext;

use crate::{
    locate::Ip,
    maps::ALLOW,
    transport::{ICMPV6, TCP, Transport, UDP, transport},
};

/// Tells whether the remote end of this packet is on the list: by address and port, or by port alone.
#[inline(never)]
pub(crate) fn lists(ctx: &TcContext, ip: &Ip, direction: u32) -> bool {
    let transport = transport(ctx, ip);
    if !transport.is_there() {
        return false;
    }
    let Some(port) = remote_port(ctx, transport, direction) else { return false };
    let family = if ip.version == 4 { FAMILY_V4 } else { FAMILY_V6 };
    let mut key = AllowKey { address: [0; 16], port, family, protocol: transport.protocol };
    if is_listed(&key) {
        return true;
    }
    // Neighbour discovery is allowed by the type of the message, whoever sends it.
    if transport.protocol == ICMPV6 {
        return false;
    }
    let Some(address) = remote_address(ctx, ip, direction) else { return false };
    key.address = address;
    is_listed(&key)
}

#[inline(always)]
fn is_listed(key: &AllowKey) -> bool {
    ALLOW.get_ptr(key).is_some()
}

/// The port of the far end; for ICMPv6 the type of the message.
#[inline(always)]
fn remote_port(ctx: &TcContext, transport: Transport, direction: u32) -> Option<u16> {
    let offset = transport.offset as usize;
    match transport.protocol {
        TCP | UDP => ctx.load::<u16>(if direction == UPLINK { offset + 2 } else { offset }).ok().map(u16::from_be),
        ICMPV6 => ctx.load::<u8>(offset).ok().map(u16::from),
        _ => None,
    }
}

#[inline(always)]
fn remote_address(ctx: &TcContext, ip: &Ip, direction: u32) -> Option<[u8; 16]> {
    let l3 = ip.l2 as usize;
    if ip.version == 6 {
        return ctx.load::<[u8; 16]>(if direction == UPLINK { l3 + 24 } else { l3 + 8 }).ok();
    }
    let [a, b, c, d] = ctx.load::<[u8; 4]>(if direction == UPLINK { l3 + 16 } else { l3 + 12 }).ok()?;
    Some([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}
