//! Finds the transport header of a packet, behind options and extension headers.

use aya_ebpf::programs::TcContext;

use crate::locate::{Ip, nothing};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;
pub(crate) const SCTP: u8 = 132;

pub(crate) const UDP_HEADER: u32 = 8;
const SCTP_HEADER: u32 = 12;

/// A transport header that was found, or not. (Not an `Option`: see [`crate::locate::Frame`].)
#[derive(Clone, Copy)]
pub(crate) struct Transport {
    /// Protocol number (IANA).
    pub(crate) protocol: u8,
    /// Where it begins in the frame, in octets; 0 if there is none.
    pub(crate) offset: u32,
}

impl Transport {
    const NONE: Self = Self { protocol: 0, offset: 0 };

    #[inline(always)]
    pub(crate) fn is_there(self) -> bool {
        self.offset != 0
    }

    /// The same, but the verifier no longer knows how it was found.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "it is 0")]
    pub(crate) fn merged(self, ctx: &TcContext) -> Self {
        let nothing = nothing(ctx);
        Self { protocol: self.protocol.wrapping_add(nothing as u8), offset: self.offset.wrapping_add(nothing) }
    }
}

/// [`transport_header`]: longer than any packet.
pub(crate) const UNREADABLE: u32 = 1 << 24;

/// Length of the transport header in octets; 0 for a protocol that is not known to have one, as a tunnel.
#[inline(always)]
pub(crate) fn transport_header(ctx: &TcContext, transport: Transport) -> u32 {
    match transport.protocol {
        TCP => match ctx.load::<u8>(transport.offset as usize + 12) {
            Ok(data_offset) if data_offset >> 4 >= 5 => u32::from(data_offset >> 4) * 4,
            _ => UNREADABLE,
        },
        UDP => UDP_HEADER,
        SCTP => SCTP_HEADER,
        _ => 0,
    }
}

/// Finds the transport header. A later fragment has none, nor has a packet whose headers cannot be followed.
#[inline(always)]
pub(crate) fn transport(ctx: &TcContext, ip: &Ip) -> Transport {
    let here = Transport { protocol: ip.protocol, offset: ip.l2 + ip.header };
    if ip.version == 6 {
        skip_extension_headers(ctx, here)
    } else if ip.fragment_offset != 0 {
        Transport::NONE
    } else {
        here
    }
}

/// RFC 8200 section 4.1 names five, each at most once and one of them twice. Every round doubles and more the work of
/// the verifier, which is bounded.
const MOST_EXTENSION_HEADERS: u32 = 6;

#[inline(always)]
fn skip_extension_headers(ctx: &TcContext, first: Transport) -> Transport {
    let mut here = first;
    for _ in 0..MOST_EXTENSION_HEADERS {
        if !matches!(here.protocol, 0 | 43 | 44 | 51 | 60 | 135) {
            return here;
        }
        let Ok([next, units, high, low]) = ctx.load::<[u8; 4]>(here.offset as usize) else { return Transport::NONE };
        // RFC 8200 section 4: hop-by-hop, routing, destination; RFC 6275: mobility. Length in units of 8, less one.
        here.offset += match here.protocol {
            // Fragment: 8 octets; all but the first fragment go on with data.
            44 if high != 0 || low & 0xf8 != 0 => return Transport::NONE,
            44 => 8,
            // Authentication (RFC 4302): length in units of 4, less two.
            51 => (u32::from(units) + 2) * 4,
            _ => (u32::from(units) + 1) * 8,
        };
        here.protocol = next;
    }
    Transport::NONE
}
