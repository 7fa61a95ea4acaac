//! Finds the IP header of a frame, whatever the link puts in front of it.
//!
//! `qmi_wwan` and its like switch between Ethernet and raw IP at run time on the same interface, so the link type that
//! the agent wrote is only a hint. Each frame is read both ways; where both ways make sense the kernel's own
//! network header decides.

use agent_common::{LINK_ETHERNET, LINK_RAW_IP};
use aya_ebpf::{
    bindings::bpf_hdr_start_off::BPF_HDR_START_NET, helpers::generated::bpf_skb_load_bytes_relative,
    programs::TcContext,
};

pub(crate) const ETHERNET_HEADER: u32 = 14;
pub(crate) const VLAN_TAG: u32 = 4;
pub(crate) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(crate) const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_QINQ: u16 = 0x88a8;

/// Length of an IPv4 header without options; as much is read of an IPv6 header, which is enough to know it.
const IP_HEAD: u32 = 20;
const IPV6_HEADER: u32 = 40;

/// The first octets of what may be an IP header, as words in network order.
type Head = [u32; 5];

/// What a frame turned out to be.
///
/// Everything here has a value at all times, and absence is a value too. In an enum or an `Option` the fields that do
/// not apply are undefined; the compiler may copy them about, and the verifier refuses a program that does.
#[derive(Clone, Copy)]
pub(crate) struct Frame {
    /// The IP header, or [`Ip::NONE`].
    pub(crate) ip: Ip,
    /// The octets in front of the payload.
    pub(crate) l2: u32,
    /// The `EtherType`. If that is IP and there is no IP header, it cannot be read.
    pub(crate) ethertype: u16,
}

impl Frame {
    /// The same frame, but the verifier no longer knows how it was found.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "it is 0")]
    pub(crate) fn merged(self, ctx: &TcContext) -> Self {
        let nothing = nothing(ctx);
        Self {
            ip: self.ip.merged(ctx),
            l2: self.l2.wrapping_add(nothing),
            ethertype: self.ethertype.wrapping_add(nothing as u16),
        }
    }

    #[inline(always)]
    fn ip(ip: Ip) -> Self {
        Self { ip, l2: ip.l2, ethertype: ethertype_of(&ip) }
    }

    /// Tells whether this is an IP packet, readable or not.
    #[inline(always)]
    pub(crate) fn is_ip(&self) -> bool {
        is_ip(self.ethertype)
    }
}

/// An IP header that was found, or not.
#[derive(Clone, Copy)]
pub(crate) struct Ip {
    /// Octets in front of it.
    pub(crate) l2: u32,
    /// 4 or 6; 0 if there is no header.
    pub(crate) version: u32,
    /// IPv4: the protocol; IPv6: the first next header.
    pub(crate) protocol: u8,
    /// IPv4: with options; IPv6: without extension headers. Octets.
    pub(crate) header: u32,
    /// What the header says the packet measures, in octets. Never more than the frame holds.
    pub(crate) total: u32,
    /// IPv4: where this fragment begins, in units of 8 octets; behind 0 no transport header follows. IPv6 tells in an
    /// extension header.
    pub(crate) fragment_offset: u32,
}

impl Ip {
    pub(crate) const NONE: Self = Self { l2: 0, version: 0, protocol: 0, header: 0, total: 0, fragment_offset: 0 };

    #[inline(always)]
    pub(crate) fn is_there(&self) -> bool {
        self.version != 0
    }

    /// The same header, but the verifier no longer knows how it was found.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "it is 0")]
    pub(crate) fn merged(self, ctx: &TcContext) -> Self {
        let nothing = nothing(ctx);
        Self {
            l2: self.l2.wrapping_add(nothing),
            version: self.version.wrapping_add(nothing),
            protocol: self.protocol.wrapping_add(nothing as u8),
            header: self.header.wrapping_add(nothing),
            total: self.total.wrapping_add(nothing),
            fragment_offset: self.fragment_offset.wrapping_add(nothing),
        }
    }

    /// The link type that this frame speaks for.
    #[inline(always)]
    pub(crate) fn link_type(&self) -> u64 {
        if self.l2 == 0 { LINK_RAW_IP } else { LINK_ETHERNET }
    }
}

/// A 0 that neither the compiler nor the verifier knows to be one: the length of the packet less the length of the
/// packet.
///
/// Added to what was found, it makes the verifier forget how. Otherwise it follows everything that comes after once for
/// each way to here, and two programs of some thousand instructions cost it hundreds of thousands (the bound is a
/// million).
#[inline(always)]
pub(crate) fn nothing(ctx: &TcContext) -> u32 {
    // SAFETY: the context of a running program. Volatile, so that the compiler does not know it either.
    unsafe {
        let length = &raw const (*ctx.skb.skb).len;
        length.read_volatile().wrapping_sub(length.read_volatile())
    }
}

/// Finds the IP header of the frame.
#[inline(always)]
pub(crate) fn locate(ctx: &TcContext, link_type: u64) -> Frame {
    let Ok(head) = ctx.load::<Head>(0) else {
        return Frame {
            ip: Ip::NONE,
            l2: if link_type == LINK_ETHERNET { ETHERNET_HEADER } else { 0 },
            ethertype: ETHERTYPE_IPV4,
        };
    };
    let (l2, ethertype) = strip_ethernet(ctx, &head);
    let ethernet = if is_ip(ethertype) { ip_at(ctx, l2) } else { Ip::NONE };
    let is_ethernet = ethernet.is_there() && ethertype_of(&ethernet) == ethertype;
    // A destination address can look like an IP header (46:…). On an Ethernet link the kernel must say so as well.
    let raw = parse(ctx, &head, 0);
    let is_raw = raw.is_there() && (link_type == LINK_RAW_IP || ethertype_of(&raw) == protocol(ctx));
    if is_ethernet && !(is_raw && is_rather_raw(ctx, link_type)) {
        Frame::ip(ethernet)
    } else if is_raw {
        Frame::ip(raw)
    } else {
        neither(ctx, link_type, l2, ethertype)
    }
}

/// Both readings make sense. The kernel's network header decides; if it is at neither place, the setting does.
#[inline(always)]
fn is_rather_raw(ctx: &TcContext, link_type: u64) -> bool {
    match network_header_offset(ctx) {
        NOWHERE => link_type == LINK_RAW_IP,
        offset => offset == 0,
    }
}

/// No IP header is where one should be: either none is meant to be there, or it is damaged, or it is somewhere else.
#[inline(always)]
fn neither(ctx: &TcContext, link_type: u64, l2: u32, ethertype: u16) -> Frame {
    let protocol = protocol(ctx);
    let is_ethernet = link_type == LINK_ETHERNET || protocol == ethertype;
    let l2 = if is_ethernet { l2 } else { 0 };
    let ethertype = if is_ethernet { ethertype } else { protocol };
    if is_ip(protocol) {
        let offset = network_header_offset(ctx);
        if offset != NOWHERE {
            let ip = ip_at(ctx, offset);
            if ip.is_there() && ethertype_of(&ip) == protocol {
                return Frame::ip(ip);
            }
        }
        return Frame { ip: Ip::NONE, l2, ethertype: protocol };
    }
    Frame { ip: Ip::NONE, l2, ethertype }
}

/// Reads the frame as Ethernet: the octets in front of the payload and its `EtherType`, past at most two in-band tags.
/// (A tag that the interface took off is in the skb's metadata and not in its data.)
#[inline(always)]
fn strip_ethernet(ctx: &TcContext, head: &Head) -> (u32, u16) {
    let outer = (u32::from_be(head[3]) >> 16) as u16;
    if !is_tag(outer) {
        return (ETHERNET_HEADER, outer);
    }
    let Ok(middle) = ctx.load::<u16>(16).map(u16::from_be) else { return (ETHERNET_HEADER, outer) };
    if !is_tag(middle) {
        return (ETHERNET_HEADER + VLAN_TAG, middle);
    }
    let Ok(inner) = ctx.load::<u16>(20).map(u16::from_be) else { return (ETHERNET_HEADER + VLAN_TAG, middle) };
    (ETHERNET_HEADER + 2 * VLAN_TAG, inner)
}

#[inline(always)]
pub(crate) fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_QINQ)
}

/// What the kernel takes the frame for: the `EtherType` of the outermost layer that it has not taken off.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the kernel keeps 16 bits there")]
fn protocol(ctx: &TcContext) -> u16 {
    // A big-endian 16 bit number in the low half of a native word.
    u16::from_be(ctx.skb.protocol() as u16)
}

#[inline(always)]
fn is_ip(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_IPV4 | ETHERTYPE_IPV6)
}

#[inline(always)]
pub(crate) fn ethertype_of(ip: &Ip) -> u16 {
    if ip.version == 4 { ETHERTYPE_IPV4 } else { ETHERTYPE_IPV6 }
}

#[inline(always)]
pub(crate) fn ip_at(ctx: &TcContext, l2: u32) -> Ip {
    match ctx.load::<Head>(l2 as usize) {
        Ok(head) => parse(ctx, &head, l2),
        Err(_) => Ip::NONE,
    }
}

/// Reads what may be an IP header; its own length fields must agree with the frame.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "one octet of a word is meant")]
fn parse(ctx: &TcContext, head: &Head, l2: u32) -> Ip {
    let available = ctx.len().saturating_sub(l2);
    let first = u32::from_be(head[0]);
    let second = u32::from_be(head[1]);
    let third = u32::from_be(head[2]);
    // A super-packet over 64 KiB says 0, its length does not fit (BIG TCP).
    let is_big = gso_size(ctx) != 0 && available > u32::from(u16::MAX);
    let version = first >> 28;
    let ip = if version == 4 {
        let total = first & 0xffff;
        Ip {
            l2,
            version,
            protocol: (third >> 16) as u8,
            header: (first >> 24 & 0xf) * 4,
            total: if total == 0 && is_big { available } else { total },
            fragment_offset: second & 0x1fff,
        }
    } else {
        let payload = second >> 16;
        Ip {
            l2,
            version,
            protocol: (second >> 8) as u8,
            header: IPV6_HEADER,
            total: if payload == 0 && is_big { available } else { IPV6_HEADER + payload },
            fragment_offset: 0,
        }
    };
    let is_ip = matches!(version, 4 | 6);
    if is_ip && ip.header >= IP_HEAD && ip.header <= ip.total && ip.total <= available { ip } else { Ip::NONE }
}

#[inline(always)]
pub(crate) fn gso_size(ctx: &TcContext) -> u32 {
    // SAFETY: the context of a running program.
    unsafe { (*ctx.skb.skb).gso_size }
}

/// [`network_header_offset`]: at none of the offsets that a link can have.
const NOWHERE: u32 = u32::MAX;

/// Where in the frame the kernel's network header lies. No helper tells, so the octets there are looked for at every
/// offset that a link can have.
#[inline(never)]
fn network_header_offset(ctx: &TcContext) -> u32 {
    let mut wanted: Head = [0; 5];
    // SAFETY: the helper writes `IP_HEAD` octets, which is the size of `wanted`.
    let failed = unsafe {
        bpf_skb_load_bytes_relative(ctx.skb.skb.cast(), 0, wanted.as_mut_ptr().cast(), IP_HEAD, BPF_HDR_START_NET)
    };
    if failed != 0 {
        return NOWHERE;
    }
    for offset in [0, ETHERNET_HEADER, ETHERNET_HEADER + VLAN_TAG, ETHERNET_HEADER + 2 * VLAN_TAG] {
        // Word by word: there is no `memcmp` to call.
        if let Ok([a, b, c, d, e]) = ctx.load::<Head>(offset as usize)
            && a == wanted[0]
            && b == wanted[1]
            && c == wanted[2]
            && d == wanted[3]
            && e == wanted[4]
        {
            return offset;
        }
    }
    NOWHERE
}
