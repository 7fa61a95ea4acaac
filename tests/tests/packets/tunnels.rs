//! Super-packets in tunnels: every segment repeats the headers of both packets.

use e2e::packet::{
    BRIDGED, GRE, IPIP, IPV4, IPV6, IPV6_IN_IP, TCP, UDP, UPLINK_V4, V4, VLAN, ethernet, extension, geneve, gre,
    tagged, tcp, udp, udp_with, v4, v6, vxlan,
};

use crate::{
    Expect::{Passed, Unreadable},
    Row, check,
};

/// An inner packet of 20 + 32 octets of headers and 2,500 of payload: 3 segments of a kilobyte.
fn inner_v4() -> Vec<u8> {
    v4(UPLINK_V4, TCP, &tcp(1, 2, 2500))
}

/// The same with 40 + 8 + 32 octets of headers.
fn inner_v6() -> Vec<u8> {
    v6(60, &extension(TCP, 1, &tcp(1, 2, 2500)))
}

/// The outer packet: 20 octets of header.
fn over_v4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(IPV4, &v4(UPLINK_V4, protocol, payload))
}

/// The outer packet: 40 octets of header.
fn over_v6(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(IPV6, &v6(protocol, payload))
}

/// 8 octets of header more.
fn over_udp(payload: &[u8]) -> Vec<u8> {
    over_v4(UDP, &udp_with(40000, 4789, payload))
}

/// Each of these is sent, received (`wire_len` is no help), and met with the number of its segments unknown.
fn each_way(name: &'static str, frame: &[u8], headers: u64) -> [Row; 3] {
    let row = || Row::new(name, frame.to_vec(), Passed(2500 + 3 * headers, 3));
    [row().gso(1000, 3), row().gso(1000, 3).downlink(), row().gso(1000, 0)]
}

#[test]
fn a_super_packet_in_a_tunnel_is_all_the_packets_it_becomes() {
    let options = V4 { options: 8, ..UPLINK_V4 };
    let inner_udp = v4(UPLINK_V4, UDP, &udp(1, 2, 2500));
    let rows = [
        each_way("IPIP", &over_v4(IPIP, &inner_v4()), 20 + 52),
        each_way("6in4", &over_v4(IPV6_IN_IP, &inner_v6()), 20 + 80),
        each_way("IPv4 in IPv6", &over_v6(IPIP, &inner_v4()), 40 + 52),
        each_way("IPv6 in IPv6 behind options", &over_v6(60, &extension(IPV6_IN_IP, 1, &inner_v6())), 48 + 80),
        each_way("outer options", &ethernet(IPV4, &v4(options, IPIP, &inner_v4())), 28 + 52),
        each_way("inner options", &over_v4(IPIP, &v4(options, TCP, &tcp(1, 2, 2500))), 20 + 60),
        each_way("UDP in IPIP", &over_v4(IPIP, &inner_udp), 20 + 28),
        each_way("GRE", &over_v4(GRE, &gre(0, IPV4, &inner_v4())), 20 + 4 + 52),
        each_way("GRE with checksum, key and number", &over_v4(GRE, &gre(0xb0, IPV6, &inner_v6())), 20 + 16 + 80),
        each_way("GRE over IPv6", &over_v6(GRE, &gre(0x20, IPV4, &inner_v4())), 40 + 8 + 52),
        each_way("Ethernet in GRE", &over_v4(GRE, &gre(0, BRIDGED, &ethernet(IPV4, &inner_v4()))), 20 + 4 + 14 + 52),
        each_way("VXLAN", &over_udp(&vxlan(&ethernet(IPV4, &inner_v4()))), 28 + 8 + 14 + 52),
        each_way("VXLAN, IPv6", &over_udp(&vxlan(&ethernet(IPV6, &inner_v6()))), 28 + 8 + 14 + 80),
        each_way("VXLAN, tagged", &over_udp(&vxlan(&tagged(&[VLAN], IPV4, &inner_v4()))), 28 + 8 + 18 + 52),
        each_way("Geneve", &over_udp(&geneve(2, BRIDGED, &ethernet(IPV4, &inner_v4()))), 28 + 16 + 14 + 52),
        each_way("Geneve without Ethernet", &over_udp(&geneve(0, IPV6, &inner_v6())), 28 + 8 + 80),
        each_way(
            "VXLAN behind a tag",
            &tagged(&[VLAN], IPV4, &v4(UPLINK_V4, UDP, &udp_with(1, 8472, &vxlan(&ethernet(IPV4, &inner_v4()))))),
            28 + 8 + 14 + 52,
        ),
    ];
    check(
        rows.into_iter()
            .flatten()
            .chain([Row::new("raw 6in4", v4(UPLINK_V4, IPV6_IN_IP, &inner_v6()), Passed(2500 + 3 * 100, 3))
                .gso(1000, 3)
                .raw()])
            .collect(),
    );
}

#[test]
fn a_train_of_datagrams_that_hold_packets_is_no_tunnel() {
    // Each datagram of 1,000 octets holds a whole inner packet, as a tunnel in user space sends them.
    let one = vxlan(&ethernet(IPV4, &v4(UPLINK_V4, UDP, &udp(1, 2, 1000 - 50))));
    assert_eq!(one.len(), 1000);
    let train = || over_udp(&one.repeat(3));
    check(vec![
        Row::new("sent", train(), Passed(3000 + 3 * 28, 3)).gso(1000, 3),
        Row::new("received", train(), Passed(3000 + 3 * 28, 3)).gso(1000, 3).downlink(),
    ]);
}

#[test]
fn headers_that_cannot_be_followed_are_found_by_what_the_segments_leave_for_them() {
    // Two tunnels, one in the other: 20 octets more in each segment.
    let twice = || over_v4(IPIP, &v4(UPLINK_V4, IPIP, &inner_v4()));
    // IP right behind UDP.
    let unknown = |payload| over_udp(&v4(UPLINK_V4, TCP, &tcp(1, 2, payload)));
    check(vec![
        // What is known, three times.
        Row::new("two tunnels, a rest", twice(), Unreadable(2500 + 72 + 20 + 2 * 40, 3)).gso(1000, 3).downlink(),
        // Where the last segment is full nothing is left to guess.
        Row::new("two tunnels, no rest", twice(), Unreadable(2500 + 2 * 92, 2)).gso(1250, 2).downlink(),
        Row::new("unknown tunnel, no rest", unknown(3000), Unreadable(3000 + 3 * 80, 3)).gso(1000, 3).downlink(),
        // Too small by less than the missing rest of the last segment, two times.
        Row::new("unknown tunnel, small rest", unknown(2990), Unreadable(2990 + 80 + 2 * 70, 3))
            .gso(1000, 3)
            .downlink(),
        // Sent, the kernel knows it.
        Row::new("unknown tunnel, sent", unknown(2500), Passed(2500 + 3 * 80, 3)).gso(1000, 3).wire_len(2500 + 3 * 94),
        Row::new("two tunnels, sent", twice(), Unreadable(2500 + 3 * 92, 3)).gso(1000, 3).wire_len(2500 + 3 * 106),
    ]);
}
