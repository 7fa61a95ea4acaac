//! A table of packets through `BPF_PROG_TEST_RUN`: what each is measured as, and what the gate does with it.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

mod answers;
mod bench;
mod contention;
mod filters;
mod forged;
mod gate;
mod object;
mod policer;
mod tunnels;

use agent_common::{Counters, Gate, LINK_ETHERNET, LINK_RAW_IP};
use e2e::packet::{
    ARP, DOWNLINK_V4, EAPOL, IPV4, IPV6, QINQ, TCP, UDP, UPLINK_V4, V4, VLAN, ethernet, extension, padded, tagged, tcp,
    udp, v4, v6,
};
use e2e::testrun::OPEN;

use crate::bench::{Bench, Direction, Skb, Verdict, tally};

use Direction::{Downlink, Uplink};

/// One packet at an open gate.
struct Row {
    name: &'static str,
    direction: Direction,
    link_type: u64,
    packet: Vec<u8>,
    skb: Skb,
    expect: Expect,
}

/// Where the packet must be counted, and nowhere else.
enum Expect {
    Passed(u64, u64),
    /// Counted by length, as well as the parse error.
    Unreadable(u64, u64),
    NonIp(u64),
}
use Expect::{NonIp, Passed, Unreadable};

impl Row {
    fn new(name: &'static str, packet: Vec<u8>, expect: Expect) -> Self {
        Self { name, direction: Uplink, link_type: LINK_ETHERNET, packet, skb: Skb::default(), expect }
    }

    fn downlink(self) -> Self {
        Self { direction: Downlink, ..self }
    }

    fn raw(self) -> Self {
        Self { link_type: LINK_RAW_IP, ..self }
    }

    fn gso(self, gso_size: u32, gso_segs: u32) -> Self {
        Self { skb: Skb { gso_size, gso_segs, ..self.skb }, ..self }
    }

    fn wire_len(self, wire_len: u32) -> Self {
        Self { skb: Skb { wire_len, ..self.skb }, ..self }
    }

    fn expected(&self) -> Counters {
        let mut counters = Counters::default();
        let direction = match self.direction {
            Uplink => &mut counters.uplink,
            Downlink => &mut counters.downlink,
        };
        match self.expect {
            Passed(octets, packets) => direction.passed = tally(octets, packets),
            Unreadable(octets, packets) => {
                direction.passed = tally(octets, packets);
                counters.parse_errors = 1;
            }
            NonIp(octets) => direction.non_ip = tally(octets, 1),
        }
        counters
    }
}

fn check(rows: Vec<Row>) {
    let mut bench = Bench::new();
    let wrong = rows.into_iter().filter_map(|row| {
        bench.forget();
        bench.set_gate(Gate { link_type: row.link_type, ..OPEN });
        let verdict = bench.send_skb(row.direction, &row.packet, row.skb);
        let (found, expected) = (bench.counters(), row.expected());
        let used = bench.word().gate;
        let billed = expected.uplink.passed.octets + expected.downlink.passed.octets;
        (verdict != Verdict::Pass || found != expected || used != billed)
            .then(|| format!("{}: {verdict:?}, word {used}\n  found    {found:?}\n  expected {expected:?}", row.name))
    });
    let wrong = wrong.collect::<Vec<_>>();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_single_packet_is_its_octets_behind_the_link_header() {
    check(vec![
        Row::new("IPv4", ethernet(IPV4, &v4(UPLINK_V4, UDP, &udp(1, 2, 100))), Passed(128, 1)),
        Row::new("IPv4 received", ethernet(IPV4, &v4(DOWNLINK_V4, UDP, &udp(1, 2, 100))), Passed(128, 1)).downlink(),
        Row::new(
            "IPv4 with 24 octets of options",
            ethernet(IPV4, &v4(V4 { options: 24, ..UPLINK_V4 }, UDP, &udp(1, 2, 100))),
            Passed(152, 1),
        ),
        Row::new(
            "later IPv4 fragment",
            ethernet(IPV4, &v4(V4 { fragment_offset: 185, ..UPLINK_V4 }, UDP, &[0; 200])),
            Passed(220, 1),
        ),
        Row::new(
            "first IPv4 fragment",
            ethernet(IPV4, &v4(V4 { fragment_offset: 0x2000, ..UPLINK_V4 }, UDP, &udp(1, 2, 992))),
            Passed(1020, 1),
        ),
        Row::new("IPv6", ethernet(IPV6, &v6(UDP, &udp(1, 2, 100))), Passed(148, 1)),
        Row::new(
            "IPv6 with extension headers",
            ethernet(IPV6, &v6(0, &extension(60, 1, &extension(UDP, 2, &udp(1, 2, 100))))),
            Passed(172, 1),
        ),
        Row::new("one VLAN tag", tagged(&[VLAN], IPV4, &v4(UPLINK_V4, UDP, &udp(1, 2, 100))), Passed(128, 1)),
        Row::new("two VLAN tags", tagged(&[QINQ, VLAN], IPV6, &v6(UDP, &udp(1, 2, 100))), Passed(148, 1)),
        Row::new("raw IPv4", v4(UPLINK_V4, UDP, &udp(1, 2, 100)), Passed(128, 1)).raw(),
        Row::new("raw IPv6", v6(UDP, &udp(1, 2, 100)), Passed(148, 1)).raw(),
    ]);
}

#[test]
fn a_super_packet_is_all_the_packets_it_becomes() {
    // 20 + 32 octets of headers in front of each kilobyte, 3 segments.
    let tcp4 = || ethernet(IPV4, &v4(UPLINK_V4, TCP, &tcp(1, 2, 2500)));
    let tcp6 = || ethernet(IPV6, &v6(0, &extension(TCP, 1, &tcp(1, 2, 2500))));
    let udp4 = || ethernet(IPV4, &v4(V4 { options: 4, ..UPLINK_V4 }, UDP, &udp(1, 2, 2500)));
    check(vec![
        Row::new("TCP over IPv4", tcp4(), Passed(2500 + 3 * 52, 3)).gso(1000, 3),
        Row::new("TCP over IPv4 after GRO", tcp4(), Passed(2500 + 3 * 52, 3)).gso(1000, 3).downlink(),
        Row::new("TCP over IPv4, segments unknown", tcp4(), Passed(2500 + 3 * 52, 3)).gso(1000, 0),
        Row::new("TCP over IPv4, segments unknown, no rest", tcp4(), Passed(2500 + 2 * 52, 2)).gso(1250, 0),
        Row::new("TCP over IPv4, one segment", tcp4(), Passed(2552, 1)).gso(2500, 1),
        Row::new("TCP over IPv6 with an extension header", tcp6(), Passed(2500 + 3 * 80, 3)).gso(1000, 3),
        Row::new("TCP over IPv6, segments unknown", tcp6(), Passed(2500 + 3 * 80, 3)).gso(1000, 0).downlink(),
        Row::new("UDP over IPv4 with options", udp4(), Passed(2500 + 5 * 32, 5)).gso(500, 5),
        Row::new("UDP over IPv4, segments unknown", udp4(), Passed(2500 + 5 * 32, 5)).gso(500, 0).downlink(),
        Row::new(
            "TCP behind two VLAN tags",
            tagged(&[QINQ, VLAN], IPV4, &v4(UPLINK_V4, TCP, &tcp(1, 2, 2500))),
            Passed(2500 + 3 * 52, 3),
        )
        .gso(1000, 3),
        Row::new("raw TCP", v4(UPLINK_V4, TCP, &tcp(1, 2, 2500)), Passed(2500 + 3 * 52, 3)).gso(1000, 3).raw(),
        Row::new("UDP, `wire_len` agrees", udp4(), Passed(2500 + 5 * 32, 5)).gso(500, 5).wire_len(2500 + 5 * 46),
    ]);
}

#[test]
fn the_frame_decides_what_the_link_is_and_not_the_setting() {
    // The source address spells the EtherType of IPv4 where an Ethernet frame has it.
    let spells_ipv4 = V4 { source: [8, 0, 0, 1], ..UPLINK_V4 };
    // Read as Ethernet this one has a plausible IPv4 header as well: version 4 behind the EtherType, a short length.
    let reads_both_ways = V4 { source: [8, 0, 0x45, 1], destination: [0, 40, 0, 1], ..UPLINK_V4 };
    check(vec![
        Row::new("Ethernet on a raw link", ethernet(IPV4, &v4(UPLINK_V4, UDP, &udp(1, 2, 100))), Passed(128, 1)).raw(),
        Row::new("IPv6 on a raw link", ethernet(IPV6, &v6(UDP, &udp(1, 2, 100))), Passed(148, 1)).raw(),
        Row::new("raw on an Ethernet link", v4(spells_ipv4, UDP, &udp(1, 2, 100)), Passed(128, 1)),
        Row::new("raw that reads as Ethernet", v4(spells_ipv4, UDP, &udp(1, 2, 100)), Passed(128, 1)).raw(),
        // The kernel's network header of a test run is where Ethernet has it, and decides.
        Row::new("both ways", v4(reads_both_ways, UDP, &udp(1, 2, 100)), Passed(114, 1)),
    ]);
}

#[test]
fn an_ethernet_address_that_looks_like_an_ip_header_is_none() {
    let mut frame = ethernet(ARP, &[0; 46]);
    // 46:00:00:1c reads as IPv4 with one option and 28 octets in total.
    frame[..4].copy_from_slice(&[0x46, 0, 0, 0x1c]);
    let mut packet = ethernet(IPV4, &v4(UPLINK_V4, UDP, &udp(1, 2, 100)));
    packet[..4].copy_from_slice(&[0x46, 0, 0, 0x1c]);
    // 45:… needs no option, so that nothing of it asks for a closer look; 60:… reads as IPv6 as well.
    let behind_a_tag = |address: &[u8]| {
        let mut packet = tagged(&[VLAN], IPV4, &v4(UPLINK_V4, UDP, &udp(1, 2, 100)));
        packet[..address.len()].copy_from_slice(address);
        packet
    };
    check(vec![
        Row::new("ARP", frame, NonIp(46)),
        Row::new("IPv4", packet.clone(), Passed(128, 1)),
        Row::new("IPv4 on a raw link", packet, Passed(128, 1)).raw(),
        Row::new("45, tagged, on a raw link", behind_a_tag(&[0x45, 0, 0, 0x1c]), Passed(128, 1)).raw(),
        Row::new("60, tagged, on a raw link", behind_a_tag(&[0x60, 0, 0, 0, 0, 0x1c]), Passed(128, 1)).raw(),
        Row::new(
            "60, tagged twice, on a raw link",
            {
                let mut packet = tagged(&[QINQ, VLAN], IPV4, &v4(UPLINK_V4, UDP, &udp(1, 2, 100)));
                packet[..6].copy_from_slice(&[0x60, 0, 0, 0, 0, 0x1c]);
                packet
            },
            Passed(128, 1),
        )
        .raw(),
    ]);
}

#[test]
fn padding_is_not_billed_where_it_was_received() {
    let small = || ethernet(IPV4, &v4(DOWNLINK_V4, UDP, &udp(1, 2, 1)));
    let small_v6 = || ethernet(IPV6, &v6(59, &[]));
    let small_tagged = || tagged(&[VLAN], IPV4, &v4(DOWNLINK_V4, UDP, &udp(1, 2, 1)));
    let cut_short = V4 { total: Some(40), ..DOWNLINK_V4 };
    check(vec![
        Row::new("received, padded to 60", padded(small(), 60), Passed(29, 1)).downlink(),
        Row::new("received, padded to 56 behind a tag taken off", padded(small(), 56), Passed(29, 1)).downlink(),
        Row::new("received, tagged, padded to 64", padded(small_tagged(), 64), Passed(29, 1)).downlink(),
        Row::new("received, IPv6, padded to 60", padded(small_v6(), 60), Passed(40, 1)).downlink(),
        Row::new("received, not padded", small(), Passed(29, 1)).downlink(),
        Row::new("sent, all that the frame holds", padded(small(), 60), Passed(46, 1)),
        Row::new(
            "too long for padding",
            padded(ethernet(IPV4, &v4(cut_short, UDP, &udp(1, 2, 100))), 142),
            Passed(128, 1),
        )
        .downlink(),
        Row::new("raw links do not pad", padded(v4(DOWNLINK_V4, UDP, &udp(1, 2, 1)), 46), Passed(46, 1))
            .downlink()
            .raw(),
    ]);
}

#[test]
fn what_cannot_be_read_is_counted_by_its_length() {
    let overlong = V4 { total: Some(1000), ..UPLINK_V4 };
    let mut short_header = v4(UPLINK_V4, UDP, &udp(1, 2, 20));
    short_header[0] = 0x44;
    let mut short_tcp = v4(UPLINK_V4, TCP, &tcp(1, 2, 2500));
    short_tcp[20 + 12] = 4 << 4;
    check(vec![
        Row::new("shorter than an IPv4 header", tagged(&[VLAN], IPV4, &[0x45; 10]), Unreadable(10, 1)),
        Row::new(
            "IPv4 header says more than there is",
            ethernet(IPV4, &v4(overlong, UDP, &[0; 20])),
            Unreadable(40, 1),
        ),
        Row::new("IPv4 header says it is too short", ethernet(IPV4, &short_header), Unreadable(48, 1)),
        Row::new("IPv6 cut off", ethernet(IPV6, &v6(UDP, &udp(1, 2, 100))[..100]), Unreadable(100, 1)),
        Row::new("version 4 where 6 was promised", ethernet(IPV6, &v4(UPLINK_V4, UDP, &[0; 20])), Unreadable(40, 1)),
        Row::new("super-packet with a bad TCP header", ethernet(IPV4, &short_tcp), Unreadable(2552 + 2 * 20, 3))
            .gso(1000, 3),
        Row::new(
            "super-packet with endless extension headers",
            ethernet(IPV6, &v6(60, &(0..9).fold(vec![0; 500], |rest, _| extension(60, 1, &rest)))),
            Unreadable(40 + 9 * 8 + 500 + 40, 2),
        )
        .gso(300, 2),
    ]);
}

#[test]
fn what_is_not_ip_is_counted_apart_and_never_billed() {
    check(vec![
        Row::new("ARP", ethernet(ARP, &[0; 46]), NonIp(46)),
        Row::new("ARP behind a VLAN tag", tagged(&[VLAN], ARP, &[0; 46]), NonIp(46)).downlink(),
        Row::new("802.1X", ethernet(EAPOL, &[0; 46]), NonIp(46)),
    ]);
}
