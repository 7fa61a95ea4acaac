//! Builds packets by hand, header by header, so that every length in a test is there to be read.
#![expect(clippy::unwrap_used, reason = "a packet that does not fit its own length field is a mistake in the test")]

/// Ethernet addresses of the two ends; neither looks like the beginning of an IP header.
const ETHERNET_ADDRESSES: [u8; 12] = [0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];

/// `EtherType` of IPv4.
pub const IPV4: u16 = 0x0800;
/// `EtherType` of IPv6.
pub const IPV6: u16 = 0x86dd;
/// `EtherType` of ARP.
pub const ARP: u16 = 0x0806;
/// `EtherType` of 802.1X.
pub const EAPOL: u16 = 0x888e;
/// `EtherType` of an 802.1Q tag.
pub const VLAN: u16 = 0x8100;
/// `EtherType` of an 802.1ad tag.
pub const QINQ: u16 = 0x88a8;

/// `EtherType` of an Ethernet frame in GRE or Geneve.
pub const BRIDGED: u16 = 0x6558;

/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of IPv4 in IP.
pub const IPIP: u8 = 4;
/// Protocol number of IPv6 in IP.
pub const IPV6_IN_IP: u8 = 41;
/// Protocol number of GRE.
pub const GRE: u8 = 47;
/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of `ICMPv6`.
pub const ICMPV6: u8 = 58;

/// This end, as the octets that go into the header.
pub const HERE_V4: [u8; 4] = [192, 0, 2, 1];
/// The other end.
pub const THERE_V4: [u8; 4] = [198, 51, 100, 7];
/// This end.
pub const HERE_V6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
/// The other end.
pub const THERE_V6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7];

/// An Ethernet header (14 octets) in front of `payload`.
#[must_use]
pub fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&ETHERNET_ADDRESSES, ethertype.to_be_bytes().as_slice(), payload].concat()
}

/// An Ethernet header with in-band tags (4 octets each), outermost first, in front of `payload`.
#[must_use]
pub fn tagged(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![];
    for tag in tags {
        body.extend(tag.to_be_bytes());
        body.extend([0, 5]);
    }
    body.extend(ethertype.to_be_bytes());
    [&ETHERNET_ADDRESSES, body.as_slice(), payload].concat()
}

/// What differs from packet to packet in an IPv4 header.
#[derive(Clone, Copy, Debug)]
pub struct V4 {
    /// Who sends it.
    pub source: [u8; 4],
    /// To whom.
    pub destination: [u8; 4],
    /// Octets of options; a multiple of 4, at most 40.
    pub options: u8,
    /// In units of 8 octets.
    pub fragment_offset: u16,
    /// Overrides the total length that the payload gives.
    pub total: Option<u16>,
}

/// From here to there without options.
pub const UPLINK_V4: V4 = V4 { source: HERE_V4, destination: THERE_V4, options: 0, fragment_offset: 0, total: None };
/// From there to here without options.
pub const DOWNLINK_V4: V4 = V4 { source: THERE_V4, destination: HERE_V4, ..UPLINK_V4 };

/// An IPv4 packet: 20 octets of header, the options, the payload.
#[must_use]
pub fn v4(header: V4, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = 20 + usize::from(header.options) + payload.len();
    let total = header.total.unwrap_or_else(|| u16::try_from(length).unwrap());
    let mut packet = vec![0x40 | (5 + header.options / 4), 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(header.fragment_offset.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(header.source);
    packet.extend(header.destination);
    packet.extend(vec![1; usize::from(header.options)]);
    packet.extend(payload);
    packet
}

/// An IPv6 packet from here to there: 40 octets of header, the payload.
#[must_use]
pub fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    v6_between(HERE_V6, THERE_V6, next, payload)
}

/// The same between any two.
#[must_use]
pub fn v6_between(source: [u8; 16], destination: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(payload);
    packet
}

/// An IPv6 extension header of `8 * units` octets in front of what follows it.
#[must_use]
pub fn extension(next: u8, units: u8, following: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 8 * usize::from(units)];
    header[0] = next;
    header[1] = units - 1;
    [header.as_slice(), following].concat()
}

/// A TCP segment with 12 octets of options: 32 octets of header, `payload` octets of data.
#[must_use]
pub fn tcp(source: u16, destination: u16, payload: usize) -> Vec<u8> {
    let mut segment = vec![];
    segment.extend(source.to_be_bytes());
    segment.extend(destination.to_be_bytes());
    segment.extend([0; 8]);
    segment.extend([8 << 4, 0x10, 0, 0, 0, 0, 0, 0]);
    segment.extend([1; 12]);
    segment.extend(vec![0; payload]);
    segment
}

/// A UDP datagram: 8 octets of header, `payload` octets of data.
#[must_use]
pub fn udp(source: u16, destination: u16, payload: usize) -> Vec<u8> {
    let mut datagram = vec![];
    datagram.extend(source.to_be_bytes());
    datagram.extend(destination.to_be_bytes());
    datagram.extend(u16::try_from(8 + payload).unwrap().to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(vec![0; payload]);
    datagram
}

/// Appends zeros up to `length`, as an Ethernet driver does.
#[must_use]
pub fn padded(mut frame: Vec<u8>, length: usize) -> Vec<u8> {
    frame.resize(length, 0);
    frame
}

/// A GRE header in front of `payload`: 4 octets, and 4 more for each bit of `fields` (0x80 checksum, 0x20 key, 0x10 sequence number).
#[must_use]
pub fn gre(fields: u8, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![fields, 0];
    header.extend(ethertype.to_be_bytes());
    header.extend(vec![0; 4 * fields.count_ones() as usize]);
    [header.as_slice(), payload].concat()
}

/// A VXLAN header (8 octets) in front of an Ethernet frame.
#[must_use]
pub fn vxlan(frame: &[u8]) -> Vec<u8> {
    [&[8, 0, 0, 0, 0, 0, 42, 0], frame].concat()
}

/// A Geneve header of 8 octets and so many words of options in front of `payload`.
#[must_use]
pub fn geneve(options: u8, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut header = vec![options, 0];
    header.extend(ethertype.to_be_bytes());
    header.extend([0, 0, 42, 0]);
    header.extend(vec![0; 4 * usize::from(options)]);
    [header.as_slice(), payload].concat()
}

/// A UDP datagram with this payload.
#[must_use]
pub fn udp_with(source: u16, destination: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = udp(source, destination, payload.len());
    datagram[8..].copy_from_slice(payload);
    datagram
}

/// The same packet with the checksums that belong into its IPv4 header and its TCP or UDP header. (What a tunnel carries has its
/// own before it is put in.)
#[must_use]
pub fn sealed(mut packet: Vec<u8>) -> Vec<u8> {
    let length = packet.len();
    let (protocol, at, addresses, is_fragment) = if packet[0] >> 4 == 4 {
        let header = usize::from(packet[0] & 15) * 4;
        let sum = checksum(&packet[..header], 0);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        (packet[9], header, 12..20, u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0)
    } else {
        let (mut next, mut at) = (packet[6], 40);
        while matches!(next, 0 | 60) {
            (next, at) = (packet[at], at + 8 * (usize::from(packet[at + 1]) + 1));
        }
        (next, at, 8..40, false)
    };
    let field = match protocol {
        TCP => at + 16,
        UDP => at + 6,
        _ => return packet,
    };
    if is_fragment {
        return packet;
    }
    let pseudo =
        u32::from(!checksum(&packet[addresses], 0)) + u32::from(protocol) + u32::try_from(length - at).unwrap();
    let sum = checksum(&packet[at..], pseudo);
    packet[field..field + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// RFC 1071, begun with the sum of what is not in `octets`.
fn checksum(octets: &[u8], begun: u32) -> u16 {
    let words = octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from));
    let mut sum = words.sum::<u32>() + begun;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
