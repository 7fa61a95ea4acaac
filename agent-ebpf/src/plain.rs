//! The common case: one packet of IP, whose headers lie where a program can read them by itself and allow one reading only.

use agent_common::{DOWNLINK, LINK_ETHERNET};
use aya_ebpf::programs::TcContext;

use crate::{
    locate::{ETHERNET_HEADER, gso_size},
    packet::ETHERNET_MINIMUM,
};

const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;
const VLAN: u32 = 0x8100;
const QINQ: u32 = 0x88a8;
const IPV4_HEADER: u32 = 20;
const IPV6_HEADER: u32 = 40;

/// An Ethernet header and an IPv4 header without options, in octets: nothing beyond is read here.
const ENOUGH: usize = 34;

/// What the packet is on the air, in octets; 0 where that takes a closer look (`locate`, `packet`), which would find the
/// same for what is measured here.
///
/// The link's setting says where the IP header is looked for; reading the packet the other way must not make sense as well.
#[inline(always)]
pub(crate) fn octets(ctx: &TcContext, link_type: u64, direction: u32) -> u64 {
    let (start, end, length) = (ctx.data(), ctx.data_end(), ctx.len());
    if start + ENOUGH > end || gso_size(ctx) != 0 {
        return 0;
    }
    // SAFETY: so many octets are there.
    unsafe {
        if link_type != LINK_ETHERNET {
            let total = match octet(start) {
                0x45 => pair(start + 2),
                0x60..=0x6f => IPV6_HEADER + pair(start + 4),
                _ => return 0,
            };
            let is_raw = fits(total, length) && total_behind_ethernet(start, length) == 0;
            return if is_raw { u64::from(length) } else { 0 };
        }
        let (at, available) = (start + ETHERNET_HEADER as usize, length - ETHERNET_HEADER);
        // IPv4 without options: few packets have them.
        let total = match (pair(start + 12), octet(at)) {
            (IPV4, 0x45) => pair(at + 2),
            (IPV6, 0x60..=0x6f) => IPV6_HEADER + pair(at + 4),
            _ => return 0,
        };
        if !fits(total, available) || total_at(start, length) != 0 {
            return 0;
        }
        // Only what was received may be padded; what is sent is padded by the driver, behind this hook.
        let is_padded = direction == DOWNLINK && length <= ETHERNET_MINIMUM;
        u64::from(if is_padded { total } else { available })
    }
}

/// Whether a header without options that says `total` agrees with itself and with the octets that are there.
#[inline(always)]
const fn fits(total: u32, available: u32) -> bool {
    IPV4_HEADER <= total && total <= available
}

/// What the packet measures if this is an Ethernet frame; something other than 0, too, where only a closer look can tell.
///
/// # Safety
/// [`ENOUGH`] octets begin at `start`.
#[inline(always)]
unsafe fn total_behind_ethernet(start: usize, length: u32) -> u32 {
    let (at, available) = (start + ETHERNET_HEADER as usize, length - ETHERNET_HEADER);
    // SAFETY: the caller's promise.
    unsafe {
        match pair(start + 12) {
            IPV4 => total_v4(at, available),
            IPV6 => total_v6(at, available),
            // What it speaks of lies behind a tag.
            VLAN | QINQ => available,
            _ => 0,
        }
    }
}

/// What the IP header at `at` says the packet measures, in octets; 0 if there is none that agrees with itself and with
/// the `available` octets.
///
/// # Safety
/// `at` is an octet of the packet and 19 others follow.
#[inline(always)]
unsafe fn total_at(at: usize, available: u32) -> u32 {
    // SAFETY: the caller's promise.
    unsafe {
        match octet(at) >> 4 {
            4 => total_v4(at, available),
            6 => total_v6(at, available),
            _ => 0,
        }
    }
}

/// # Safety
/// As for [`total_at`].
#[inline(always)]
unsafe fn total_v4(at: usize, available: u32) -> u32 {
    // SAFETY: the caller's promise.
    let (first, total) = unsafe { (octet(at), pair(at + 2)) };
    // Version 4 and at least five words of header.
    if matches!(first, 0x45..=0x4f) && (first & 0xf) * 4 <= total && total <= available { total } else { 0 }
}

/// # Safety
/// As for [`total_at`].
#[inline(always)]
unsafe fn total_v6(at: usize, available: u32) -> u32 {
    // SAFETY: the caller's promise.
    let (first, total) = unsafe { (octet(at), IPV6_HEADER + pair(at + 4)) };
    if first >> 4 == 6 && total <= available { total } else { 0 }
}

/// # Safety
/// `at` is an octet of the packet.
#[inline(always)]
unsafe fn octet(at: usize) -> u32 {
    // SAFETY: the caller's promise.
    u32::from(unsafe { (at as *const u8).read() })
}

/// Two octets in network order. No more at a time: a kernel that cannot read words at odd places puts headers at even
/// ones, and its verifier knows that.
///
/// # Safety
/// `at` is an octet of the packet, as is the next; it lies an even number of octets behind the start.
#[inline(always)]
unsafe fn pair(at: usize) -> u32 {
    // SAFETY: the caller's promise.
    u32::from(u16::from_be(unsafe { (at as *const u16).read() }))
}
