//! What a captured frame is: its IP length by its own header, its ends, and whether it is IP at all.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::Direction;

const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_ICMPV6: u8 = 58;

/// How much of the frame's front belongs to the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkLayer {
    /// Ethernet with its 14 octets and perhaps VLAN tags.
    Ethernet,
    /// Nothing: the packet begins at once.
    RawIp,
}

/// One IP packet as it crossed the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Which way it went.
    pub direction: Direction,
    /// Octets by its own header: total length (IPv4), or 40 and the payload length (IPv6).
    pub octets: u64,
    /// Who sent it; the port is 0 where there is none (ICMP, later fragments).
    pub source: SocketAddr,
    /// To whom; the port is 0 where there is none.
    pub destination: SocketAddr,
    /// The protocol after all extension headers.
    pub protocol: u8,
    /// The first octet after the IP headers: the type, if it is ICMP. 0 in later fragments.
    pub kind: u8,
    /// Whether it is a part of a packet.
    pub fragment: bool,
}

impl Packet {
    /// Whether it is neighbour discovery or a multicast listener report: what a kernel sends of its own accord.
    #[must_use]
    pub const fn is_neighbour_talk(&self) -> bool {
        self.protocol == IPPROTO_ICMPV6 && matches!(self.kind, 130..=137 | 143)
    }
}

/// What a frame turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// IP, and how many octets of link header stood before it.
    Ip(Packet, usize),
    /// Something that is never billed, such as ARP.
    NotIp,
    /// It says IP but does not hold what its header promises.
    Malformed,
}

/// Reads the frame that begins with `data` (perhaps cut short by the capture) and was `wire` octets long.
pub(super) fn parse(layer: LinkLayer, direction: Direction, data: &[u8], wire: usize) -> Parsed {
    let link = match layer {
        LinkLayer::RawIp => 0,
        LinkLayer::Ethernet => match ethernet(data) {
            Some(link) => link,
            None => return Parsed::NotIp,
        },
    };
    let packet = data.get(link..).unwrap_or_default();
    let parsed = match packet.first().map(|octet| octet >> 4) {
        Some(4) => ipv4(packet, direction),
        Some(6) => ipv6(packet, direction),
        _ if layer == LinkLayer::RawIp => return Parsed::NotIp,
        _ => None,
    };
    match parsed {
        Some(packet) if packet.octets + link as u64 <= wire as u64 => Parsed::Ip(packet, link),
        _ => Parsed::Malformed,
    }
}

/// The length of the link header if IP follows it.
fn ethernet(data: &[u8]) -> Option<usize> {
    let mut at = 12;
    loop {
        match be16(data, at)? {
            0x8100 | 0x88a8 => at += 4,
            0x0800 | 0x86dd => return Some(at + 2),
            _ => return None,
        }
    }
}

fn ipv4(packet: &[u8], direction: Direction) -> Option<Packet> {
    let header = usize::from(packet[0] & 0xf) * 4;
    let octets = be16(packet, 2)?;
    let cut = be16(packet, 6)?;
    let offset = cut & 0x1fff;
    let protocol = *packet.get(9)?;
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets).into())
    };
    let ends = Ends { source: address(12)?, destination: address(16)?, octets: octets.into(), direction };
    Some(ends.packet(protocol, cut & 0x3fff != 0, if offset == 0 { packet.get(header..) } else { None }))
}

fn ipv6(packet: &[u8], direction: Direction) -> Option<Packet> {
    let octets = 40 + u64::from(be16(packet, 4)?);
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(octets).into())
    };
    let ends = Ends { source: address(8)?, destination: address(24)?, octets, direction };
    let (mut next, mut at, mut fragment, mut first) = (*packet.get(6)?, 40, false, true);
    loop {
        let length = match next {
            // Hop-by-hop, routing, destination options: in units of 8, the first not counted.
            0 | 43 | 60 => 8 + 8 * usize::from(*packet.get(at + 1)?),
            44 => {
                fragment = true;
                first = be16(packet, at + 2)? & 0xfff8 == 0;
                8
            }
            // Authentication header: in units of 4, less two.
            51 => 8 + 4 * usize::from(*packet.get(at + 1)?),
            _ => break,
        };
        next = *packet.get(at)?;
        at += length;
        if !first {
            break;
        }
    }
    Some(ends.packet(next, fragment, if first { packet.get(at..) } else { None }))
}

/// What the IP header says, before the transport's ports are known.
struct Ends {
    source: IpAddr,
    destination: IpAddr,
    octets: u64,
    direction: Direction,
}

impl Ends {
    fn packet(&self, protocol: u8, fragment: bool, transport: Option<&[u8]>) -> Packet {
        let transport = transport.unwrap_or_default();
        let port = |at| match protocol {
            IPPROTO_TCP | IPPROTO_UDP => be16(transport, at).unwrap_or(0),
            _ => 0,
        };
        Packet {
            direction: self.direction,
            octets: self.octets,
            source: SocketAddr::new(self.source, port(0)),
            destination: SocketAddr::new(self.destination, port(2)),
            protocol,
            kind: transport.first().copied().unwrap_or(0),
            fragment,
        }
    }
}

fn be16(data: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(data.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ethernet, two VLAN tags, IPv4 with one option word, UDP 7 → 9, and padding that is not the packet's.
    fn tagged_udp() -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x88, 0xa8, 0, 1, 0x81, 0, 0, 2, 8, 0]);
        frame.extend([0x46, 0, 0, 33, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 1, 1, 1, 1]);
        frame.extend([0, 7, 0, 9, 0, 9, 0, 0, 0xff]);
        frame.resize(70, 0);
        frame
    }

    #[test]
    fn padding_and_tags_are_not_the_packets_octets() {
        let frame = tagged_udp();
        let Parsed::Ip(packet, link) = parse(LinkLayer::Ethernet, Direction::Uplink, &frame, frame.len()) else {
            panic!("is IP")
        };
        assert_eq!((packet.octets, link), (33, 22));
        assert_eq!(packet.source, "10.0.0.1:7".parse().unwrap());
        assert_eq!(packet.destination, "10.0.0.2:9".parse().unwrap());
    }

    #[test]
    fn a_later_fragment_has_no_ports() {
        let mut frame = tagged_udp();
        frame[22 + 7] = 5;
        let Parsed::Ip(packet, _) = parse(LinkLayer::Ethernet, Direction::Uplink, &frame, frame.len()) else {
            panic!("is IP")
        };
        assert!(packet.fragment);
        assert_eq!(packet.source.port(), 0);
    }

    #[test]
    fn ports_lie_behind_extension_headers() {
        let mut packet = vec![0x60, 0, 0, 0, 0, 24, 0, 64];
        packet.extend([0; 32]);
        // Hop-by-hop of 8, destination options of 8, then UDP.
        packet.extend([60, 0, 0, 0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 9, 0, 8, 0, 0]);
        let Parsed::Ip(packet, 0) = parse(LinkLayer::RawIp, Direction::Downlink, &packet, packet.len()) else {
            panic!("is IP")
        };
        assert_eq!((packet.octets, packet.protocol, packet.destination.port()), (64, 17, 9));
    }

    #[test]
    fn a_packet_longer_than_its_frame_is_malformed() {
        let frame = tagged_udp();
        assert_eq!(parse(LinkLayer::Ethernet, Direction::Uplink, &frame, 50), Parsed::Malformed);
    }

    #[test]
    fn arp_is_not_ip() {
        let mut frame = vec![0; 60];
        frame[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(parse(LinkLayer::Ethernet, Direction::Uplink, &frame, 60), Parsed::NotIp);
    }
}
