//! What a sender is told whose packet a shut link has refused: ICMP, "communication administratively prohibited".

mod voices;

pub use voices::Voices;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// ICMP (IANA).
const ICMP: u8 = 1;
/// `ICMPv6` (IANA).
const ICMPV6: u8 = 58;
/// The fragment header of IPv6: all but the first fragment are not answered, and the first may wait for its sender's next try.
const FRAGMENT: u8 = 44;

/// The only ICMP message that is answered: an echo request. About an error no error is sent (RFC 1122 section 3.2.2).
const ECHO_REQUEST: u8 = 8;
/// `ICMPv6` messages below this are errors (RFC 4443 section 2.1).
const FIRST_INFORMATIONAL: u8 = 128;

/// What a sender is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prohibited {
    /// The sender of what was refused.
    pub to: IpAddr,
    /// An ICMP message, its own header first. The kernel fills in the checksum of `ICMPv6`.
    pub message: Vec<u8>,
}

/// The answer to a packet of which this is the head, from its IP header on; `None` where none is to be given: about errors, to and about
/// groups, about later fragments (RFC 1122 section 3.2.2, RFC 4443 section 2.4). Pure.
#[must_use]
pub fn prohibited(head: &[u8]) -> Option<Prohibited> {
    match head.first()? >> 4 {
        4 => v4(head),
        6 => v6(head),
        _ => None,
    }
}

fn v4(head: &[u8]) -> Option<Prohibited> {
    let header = usize::from(head[0] & 0xf) * 4;
    if header < 20 || head.len() < header + 8 {
        return None;
    }
    let is_later_fragment = u16::from_be_bytes([head[6], head[7]]) & 0x1fff != 0;
    let is_no_request = head[9] == ICMP && head[header] != ECHO_REQUEST;
    let [from, to] = [12, 16].map(|at| Ipv4Addr::new(head[at], head[at + 1], head[at + 2], head[at + 3]));
    let is_one_host = |address: Ipv4Addr| {
        !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast() && !address.is_loopback()
    };
    if is_later_fragment || is_no_request || !is_one_host(from) || !is_one_host(to) {
        return None;
    }
    // RFC 792: destination unreachable; RFC 1812 section 5.2.7.1: code 13.
    let mut message = vec![3, 13, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(head);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    Some(Prohibited { to: from.into(), message })
}

fn v6(head: &[u8]) -> Option<Prohibited> {
    if head.len() < 48 {
        return None;
    }
    let address = |at: usize| head.get(at..at + 16)?.try_into().ok().map(|octets: [u8; 16]| Ipv6Addr::from(octets));
    let (from, to) = (address(8)?, address(24)?);
    let is_error = head[6] == ICMPV6 && head[40] < FIRST_INFORMATIONAL;
    let is_one_host =
        |address: Ipv6Addr| !address.is_unspecified() && !address.is_multicast() && !address.is_loopback();
    // The link of a link-local address is not known any more.
    if is_error || head[6] == FRAGMENT || !is_one_host(from) || from.is_unicast_link_local() || !is_one_host(to) {
        return None;
    }
    // RFC 4443 section 3.1: destination unreachable, code 1.
    let mut message = vec![1, 1, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(head);
    Some(Prohibited { to: from.into(), message })
}

/// The checksum of the Internet protocols (RFC 1071).
fn checksum(message: &[u8]) -> u16 {
    let words = message.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let sum: u32 = words.sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded & 0xffff).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4_packet(protocol: u8, fragment: u16, addresses: [[u8; 4]; 2], payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 60, 0, 1];
        packet.extend(fragment.to_be_bytes());
        packet.extend([63, protocol, 0, 0]);
        packet.extend(addresses.concat());
        packet.extend(payload);
        packet
    }

    fn v6_packet(next: u8, from: &str, to: &str, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 8, next, 63];
        for address in [from, to] {
            packet.extend(address.parse::<Ipv6Addr>().expect("an address").octets());
        }
        packet.extend(payload);
        packet
    }

    const LAN: [u8; 4] = [10, 64, 0, 2];
    const HOST: [u8; 4] = [192, 0, 2, 1];

    #[test]
    fn a_segment_is_answered_with_its_own_head_and_a_right_checksum() {
        let packet = v4_packet(6, 0x4000, [LAN, HOST], &[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let answer = prohibited(&packet).expect("an answer");
        assert_eq!(answer.to, IpAddr::from(LAN));
        assert_eq!((&answer.message[..2], &answer.message[8..]), (&[3, 13][..], &packet[..]));
        // With the checksum in it, all words add up to nothing.
        assert_eq!(checksum(&answer.message), 0);
    }

    #[test]
    fn ipv6_is_answered_alike() {
        let packet = v6_packet(6, "fd00:64::2", "2001:db8::1", &[0; 12]);
        let answer = prohibited(&packet).expect("an answer");
        assert_eq!(answer.to, "fd00:64::2".parse::<IpAddr>().expect("an address"));
        assert_eq!((&answer.message[..8], &answer.message[8..]), (&[1, 1, 0, 0, 0, 0, 0, 0][..], &packet[..]));
    }

    #[test]
    fn no_answer_is_given_where_none_may_be() {
        let echo = |kind: u8| [kind, 0, 0, 0, 0, 0, 0, 0];
        assert!(prohibited(&v4_packet(1, 0, [LAN, HOST], &echo(8))).is_some());
        assert!(prohibited(&v6_packet(58, "fd00:64::2", "2001:db8::1", &echo(128))).is_some());
        for silent in [
            vec![],
            vec![0x45; 5],
            vec![0x75; 60],
            v4_packet(6, 0, [LAN, HOST], &[0; 7]),
            v4_packet(6, 100, [LAN, HOST], &[0; 8]),
            v4_packet(1, 0, [LAN, HOST], &echo(3)),
            v4_packet(1, 0, [LAN, HOST], &echo(0)),
            v4_packet(17, 0, [LAN, [224, 0, 0, 251]], &[0; 8]),
            v4_packet(17, 0, [LAN, [255; 4]], &[0; 8]),
            v4_packet(17, 0, [[0; 4], HOST], &[0; 8]),
            v4_packet(17, 0, [[239, 1, 1, 1], HOST], &[0; 8]),
            v6_packet(58, "fd00:64::2", "2001:db8::1", &echo(1)),
            v6_packet(17, "fd00:64::2", "ff02::1", &[0; 8]),
            v6_packet(17, "fe80::2", "2001:db8::1", &[0; 8]),
            v6_packet(44, "fd00:64::2", "2001:db8::1", &[0; 16]),
            v6_packet(6, "fd00:64::2", "2001:db8::1", &[0; 7]),
        ] {
            assert_eq!(prohibited(&silent), None, "{silent:x?}");
        }
    }

    #[test]
    fn no_head_does_harm() {
        let mut random = fastrand::Rng::with_seed(792);
        for _ in 0..50_000 {
            let mut head: Vec<u8> = (0..random.usize(..130)).map(|_| random.u8(..)).collect();
            if let Some(first) = head.first_mut() {
                *first = *first & 0xf | [0x40, 0x60][random.usize(..2)];
            }
            if let Some(answer) = prohibited(&head) {
                assert_eq!(answer.message.len(), head.len() + 8);
            }
        }
    }
}
