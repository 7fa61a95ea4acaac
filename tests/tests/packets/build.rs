//! Builds packets by hand, header by header, so that every length in a test is there to be read.

/// Ethernet addresses of the two ends; neither looks like the beginning of an IP header.
const ETHERNET_ADDRESSES: [u8; 12] = [0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];

pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const EAPOL: u16 = 0x888e;
pub(crate) const VLAN: u16 = 0x8100;
pub(crate) const QINQ: u16 = 0x88a8;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

/// Addresses of both ends, as the octets that go into the header.
pub(crate) const HERE_V4: [u8; 4] = [192, 0, 2, 1];
pub(crate) const THERE_V4: [u8; 4] = [198, 51, 100, 7];
pub(crate) const HERE_V6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1];
pub(crate) const THERE_V6: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 7];

/// An Ethernet header (14 octets) in front of `payload`.
pub(crate) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    [&ETHERNET_ADDRESSES, ethertype.to_be_bytes().as_slice(), payload].concat()
}

/// An Ethernet header with in-band tags (4 octets each), outermost first, in front of `payload`.
pub(crate) fn tagged(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = vec![];
    for tag in tags {
        body.extend(tag.to_be_bytes());
        body.extend([0, 5]);
    }
    body.extend(ethertype.to_be_bytes());
    [&ETHERNET_ADDRESSES, body.as_slice(), payload].concat()
}

/// What differs from packet to packet in an IPv4 header.
#[derive(Clone, Copy)]
pub(crate) struct V4 {
    pub(crate) source: [u8; 4],
    pub(crate) destination: [u8; 4],
    /// Octets of options; a multiple of 4, at most 40.
    pub(crate) options: u8,
    /// In units of 8 octets.
    pub(crate) fragment_offset: u16,
    /// Overrides the total length that the payload gives.
    pub(crate) total: Option<u16>,
}

/// From here to there without options.
pub(crate) const UPLINK_V4: V4 =
    V4 { source: HERE_V4, destination: THERE_V4, options: 0, fragment_offset: 0, total: None };
/// From there to here without options.
pub(crate) const DOWNLINK_V4: V4 = V4 { source: THERE_V4, destination: HERE_V4, ..UPLINK_V4 };

/// An IPv4 packet: 20 octets of header, the options, the payload.
pub(crate) fn v4(header: V4, protocol: u8, payload: &[u8]) -> Vec<u8> {
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
pub(crate) fn v6(next: u8, payload: &[u8]) -> Vec<u8> {
    v6_between(HERE_V6, THERE_V6, next, payload)
}

pub(crate) fn v6_between(source: [u8; 16], destination: [u8; 16], next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(source);
    packet.extend(destination);
    packet.extend(payload);
    packet
}

/// An IPv6 extension header of `8 * units` octets in front of what follows it.
pub(crate) fn extension(next: u8, units: u8, following: &[u8]) -> Vec<u8> {
    let mut header = vec![0; 8 * usize::from(units)];
    header[0] = next;
    header[1] = units - 1;
    [header.as_slice(), following].concat()
}

/// A TCP segment with 12 octets of options: 32 octets of header, `payload` octets of data.
pub(crate) fn tcp(source: u16, destination: u16, payload: usize) -> Vec<u8> {
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
pub(crate) fn udp(source: u16, destination: u16, payload: usize) -> Vec<u8> {
    let mut datagram = vec![];
    datagram.extend(source.to_be_bytes());
    datagram.extend(destination.to_be_bytes());
    datagram.extend(u16::try_from(8 + payload).unwrap().to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(vec![0; payload]);
    datagram
}

/// Appends zeros up to `length`, as an Ethernet driver does.
pub(crate) fn padded(mut frame: Vec<u8>, length: usize) -> Vec<u8> {
    frame.resize(length, 0);
    frame
}
