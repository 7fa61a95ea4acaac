//! The gate: ceiling, deadline, allow-list, hints.

use std::{fs, net::SocketAddr, time::Duration};

use agent::datapath::AllowList;
use agent_common::{
    Counters, DOWNLINK, Gate, HINT_REFUSAL, HINT_THRESHOLD, LINK_ETHERNET, MAX_CEILING, MODE_THROTTLE, UPLINK, Word,
};
use e2e::eventually::eventually;
use e2e::packet::{
    ARP, DOWNLINK_V4, EAPOL, HERE_V4, HERE_V6, ICMPV6, IPV4, IPV6, TCP, THERE_V4, THERE_V6, UDP, UPLINK_V4, V4, VLAN,
    ethernet, extension, tagged, tcp, udp, v4, v6, v6_between,
};

use crate::bench::{
    Bench,
    Direction::{Downlink, Uplink},
    Verdict::{Drop, Pass},
    tally,
};
use e2e::testrun::OPEN;

pub(crate) const SHUT: Gate = Gate { ceiling: 0, ..OPEN };

/// 128 octets at layer 3.
pub(crate) fn packet() -> Vec<u8> {
    ethernet(IPV4, &v4(UPLINK_V4, UDP, &udp(1, 2, 100)))
}

/// Nanoseconds since boot, as the programs see them.
pub(crate) fn boot_ns() -> u64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    Duration::from_secs_f64(seconds).as_nanos().try_into().unwrap()
}

#[test]
fn a_gate_never_written_is_shut() {
    let mut bench = Bench::new();
    assert_eq!(bench.send(Uplink, &v4(UPLINK_V4, UDP, &udp(1, 2, 100))), Drop);
    assert_eq!(bench.counters().uplink.refused, tally(128, 1));
    assert_eq!(bench.word(), Word::default());
    assert_eq!(bench.hints(), []);
}

#[test]
fn the_ceiling_is_reached_to_the_octet_and_not_passed_by_one() {
    let mut bench = Bench::with_gate(Gate { ceiling: 256, ..OPEN });
    assert_eq!(bench.send(Uplink, &packet()), Pass);
    // Both directions draw on the same ceiling.
    assert_eq!(bench.send(Downlink, &packet()), Pass);
    assert_eq!(bench.send(Uplink, &packet()), Drop);
    assert_eq!(bench.send(Downlink, &packet()), Drop);
    let mut expected = Counters::default();
    expected.uplink.passed = tally(128, 1);
    expected.downlink.passed = tally(128, 1);
    expected.uplink.refused = tally(128, 1);
    expected.downlink.refused = tally(128, 1);
    assert_eq!(bench.counters(), expected);
    assert_eq!(bench.word().gate, 256);
}

#[test]
fn one_octet_too_few_refuses_and_a_smaller_packet_still_fits() {
    let mut bench = Bench::with_gate(Gate { ceiling: 127, ..OPEN });
    assert_eq!(bench.send(Uplink, &packet()), Drop);
    assert_eq!(bench.word().gate, 0);
    let smaller = ethernet(IPV4, &v4(UPLINK_V4, UDP, &udp(1, 2, 99)));
    assert_eq!(bench.send(Uplink, &smaller), Pass);
    assert_eq!(bench.word().gate, 127);
}

#[test]
fn a_raised_ceiling_opens_the_gate_again_and_counts_go_on() {
    let mut bench = Bench::with_gate(Gate { ceiling: 128, ..OPEN });
    assert_eq!([bench.send(Uplink, &packet()), bench.send(Uplink, &packet())], [Pass, Drop]);
    bench.set_gate(Gate { ceiling: 256, generation: 2, ..OPEN });
    assert_eq!([bench.send(Uplink, &packet()), bench.send(Uplink, &packet())], [Pass, Drop]);
    assert_eq!(bench.counters().uplink.passed, tally(256, 2));
    assert_eq!(bench.counters().uplink.refused, tally(256, 2));
}

#[test]
fn the_last_number_does_not_wrap_the_gate_open() {
    let mut bench = Bench::with_gate(Gate { ceiling: u64::MAX, ..OPEN });
    for start in [MAX_CEILING, u64::MAX - 200, u64::MAX - 127, u64::MAX - 1] {
        bench.set_word(Word { gate: start, ..Word::default() });
        // The addition wraps for the last two.
        assert_eq!(bench.send(Uplink, &packet()), Drop, "from {start}");
        assert_eq!(bench.word().gate, start);
    }
    bench.set_word(Word { gate: MAX_CEILING - 128, ..Word::default() });
    assert_eq!(bench.send(Uplink, &packet()), Pass);
}

#[test]
fn a_deadline_is_noticed_when_it_comes_and_a_nearer_one_at_once() {
    let mut bench = Bench::with_gate(Gate { deadline_boot_ns: boot_ns() + 1_000_000_000, ..OPEN });
    assert_eq!(bench.send(Uplink, &packet()), Pass);
    eventually("the deadline to be noticed", Duration::from_secs(10), || {
        anyhow::ensure!(bench.send(Uplink, &packet()) == Drop, "it passes still");
        Ok(())
    })
    .unwrap();
    assert_eq!(bench.send(Downlink, &packet()), Drop);
    for _ in 0..100 {
        // The second packet comes in the same jiffy as the first, most of the time.
        bench.set_gate(Gate { deadline_boot_ns: u64::MAX, ..OPEN });
        assert_eq!(bench.send(Uplink, &packet()), Pass);
        bench.set_gate(Gate { deadline_boot_ns: 1, ..OPEN });
        assert_eq!(bench.send(Uplink, &packet()), Drop);
    }
}

#[test]
fn nothing_passes_after_the_deadline() {
    let mut bench = Bench::with_gate(Gate { deadline_boot_ns: 1, ..OPEN });
    assert_eq!(bench.send(Uplink, &packet()), Drop);
    assert_eq!(bench.send(Uplink, &ethernet(EAPOL, &[0; 46])), Drop);
    assert_eq!(bench.word().gate, 0);
    bench.set_gate(Gate { deadline_boot_ns: boot_ns() + 3_600_000_000_000, ..OPEN });
    assert_eq!(bench.send(Uplink, &packet()), Pass);
}

#[test]
fn arp_passes_a_shut_gate_and_other_frames_without_ip_do_not() {
    let mut bench = Bench::with_gate(SHUT);
    assert_eq!(bench.send(Uplink, &ethernet(ARP, &[0; 46])), Pass);
    assert_eq!(bench.send(Downlink, &ethernet(EAPOL, &[0; 46])), Drop);
    let mut expected = Counters::default();
    expected.uplink.non_ip = tally(46, 1);
    expected.downlink.non_ip = tally(46, 1);
    assert_eq!(bench.counters(), expected);
}

#[test]
fn an_empty_packet_finds_no_way_through_a_shut_gate() {
    let mut bench = Bench::with_gate(SHUT);
    assert_eq!(bench.send(Uplink, &tagged(&[VLAN, VLAN], IPV4, &[])), Drop);
    assert_eq!(bench.counters().parse_errors, 1);
}

/// A bench with a shut gate, a list of one server and one resolver, and a reserve of so many octets.
fn with_reserve(control_ceiling: u64) -> Bench {
    let mut bench = Bench::with_gate(Gate { control_ceiling, ..SHUT });
    let list = AllowList {
        servers: vec![SocketAddr::from((THERE_V4, 443)), SocketAddr::from((THERE_V6, 443))],
        resolvers: vec![THERE_V4.into()],
    };
    list.entries().into_iter().for_each(|key| bench.allow(key));
    bench
}

#[test]
fn control_traffic_passes_a_shut_gate() {
    let uplink = |protocol, payload: Vec<u8>| ethernet(IPV4, &v4(UPLINK_V4, protocol, &payload));
    let downlink = |protocol, payload: Vec<u8>| ethernet(IPV4, &v4(DOWNLINK_V4, protocol, &payload));
    let options = V4 { options: 8, ..UPLINK_V4 };
    let advertisement = |kind: u8| v6(ICMPV6, &[kind, 0, 0, 0, 0, 0, 0, 0]);
    let rows = [
        ("request to the server", Uplink, uplink(TCP, tcp(40000, 443, 0)), Pass),
        ("answer of the server", Downlink, downlink(TCP, tcp(443, 40000, 0)), Pass),
        ("request behind IP options", Uplink, ethernet(IPV4, &v4(options, TCP, &tcp(40000, 443, 0))), Pass),
        ("request over IPv6", Uplink, ethernet(IPV6, &v6(TCP, &tcp(40000, 443, 0))), Pass),
        (
            "answer over IPv6 behind an extension header",
            Downlink,
            ethernet(IPV6, &v6_between(THERE_V6, HERE_V6, 60, &extension(TCP, 1, &tcp(443, 40000, 0)))),
            Pass,
        ),
        ("question to the resolver", Uplink, uplink(UDP, udp(40000, 53, 30)), Pass),
        (
            "DHCP to anyone",
            Uplink,
            ethernet(IPV4, &v4(V4 { destination: [255; 4], ..UPLINK_V4 }, UDP, &udp(68, 67, 300))),
            Pass,
        ),
        ("DHCPv6 to anyone", Uplink, ethernet(IPV6, &v6(UDP, &udp(546, 547, 60))), Pass),
        ("neighbour solicitation", Uplink, ethernet(IPV6, &advertisement(135)), Pass),
        ("neighbour advertisement", Downlink, ethernet(IPV6, &advertisement(136)), Pass),
        ("echo request", Uplink, ethernet(IPV6, &advertisement(128)), Drop),
        ("another port of the server", Uplink, uplink(TCP, tcp(40000, 80, 0)), Drop),
        ("the server's port at this end", Uplink, uplink(TCP, tcp(443, 40000, 0)), Drop),
        ("UDP to the server's port", Uplink, uplink(UDP, udp(40000, 443, 30)), Drop),
        (
            "another server",
            Uplink,
            ethernet(IPV4, &v4(V4 { destination: HERE_V4, ..UPLINK_V4 }, TCP, &tcp(40000, 443, 0))),
            Drop,
        ),
        (
            "later fragment to the server",
            Uplink,
            ethernet(IPV4, &v4(V4 { fragment_offset: 100, ..UPLINK_V4 }, TCP, &tcp(40000, 443, 0))),
            Drop,
        ),
        (
            "later IPv6 fragment to the server",
            Uplink,
            ethernet(IPV6, &v6(44, &[&[TCP, 0, 0, 8, 0, 0, 0, 1], tcp(40000, 443, 0).as_slice()].concat())),
            Drop,
        ),
    ];
    let mut bench = with_reserve(10_000);
    for (name, direction, packet, verdict) in rows {
        bench.forget();
        assert_eq!(bench.send(direction, &packet), verdict, "{name}");
        let octets = packet.len() as u64 - 14;
        let counted = tally(octets, 1);
        let mut expected = Counters::default();
        let tallies = if direction == Uplink { &mut expected.uplink } else { &mut expected.downlink };
        *(if verdict == Pass { &mut tallies.control } else { &mut tallies.refused }) = counted;
        assert_eq!(bench.counters(), expected, "{name}");
        assert_eq!(bench.word().control, if verdict == Pass { octets } else { 0 }, "{name}");
        assert_eq!(bench.word().gate, 0, "{name}");
    }
}

#[test]
fn control_traffic_is_bounded_by_its_reserve() {
    // 20 + 32 octets each.
    let request = ethernet(IPV4, &v4(UPLINK_V4, TCP, &tcp(40000, 443, 0)));
    let mut bench = with_reserve(104);
    assert_eq!([(); 3].map(|()| bench.send(Uplink, &request)), [Pass, Pass, Drop]);
    assert_eq!(bench.counters().uplink.control, tally(104, 2));
    assert_eq!(bench.counters().uplink.refused, tally(52, 1));
    assert_eq!(bench.word().control, 104);
}

#[test]
fn control_traffic_at_an_open_gate_is_billed_like_any_other() {
    let mut bench = with_reserve(10_000);
    bench.set_gate(Gate { control_ceiling: 10_000, ..OPEN });
    assert_eq!(bench.send(Uplink, &ethernet(IPV4, &v4(UPLINK_V4, TCP, &tcp(40000, 443, 0)))), Pass);
    assert_eq!(bench.counters().uplink.passed, tally(52, 1));
    assert_eq!(bench.word().control, 0);
}

#[test]
fn the_threshold_is_hinted_once_when_it_is_reached() {
    let mut bench = Bench::with_gate(Gate { threshold: 256, generation: 7, ..OPEN });
    let before = boot_ns();
    for direction in [Uplink, Downlink, Uplink, Uplink] {
        assert_eq!(bench.send(direction, &packet()), Pass);
    }
    let hints = bench.hints();
    let told = hints.iter().map(|hint| (hint.kind, hint.direction, hint.generation)).collect::<Vec<_>>();
    assert_eq!(told, [(HINT_THRESHOLD, DOWNLINK, 7)]);
    // /proc/uptime is cut off to hundredths.
    assert!(hints[0].boot_ns + 10_000_000 >= before && hints[0].boot_ns <= boot_ns() + 10_000_000);
}

#[test]
fn a_refusal_is_hinted_once_for_each_write_of_the_gate() {
    let mut bench = Bench::with_gate(Gate { generation: 3, ..SHUT });
    for _ in 0..3 {
        bench.send(Uplink, &packet());
    }
    bench.set_gate(Gate { generation: 4, mode: MODE_THROTTLE, ..SHUT });
    for _ in 0..3 {
        bench.send(Downlink, &packet());
    }
    let told = bench.hints().iter().map(|hint| (hint.kind, hint.direction, hint.generation)).collect::<Vec<_>>();
    assert_eq!(told, [(HINT_REFUSAL, UPLINK, 3), (HINT_REFUSAL, DOWNLINK, 4)]);
}

#[test]
fn control_traffic_at_a_shut_gate_is_no_refusal() {
    let mut bench = with_reserve(10_000);
    assert_eq!(bench.send(Uplink, &ethernet(IPV4, &v4(UPLINK_V4, TCP, &tcp(40000, 443, 0)))), Pass);
    assert_eq!(bench.hints(), []);
}

#[test]
fn a_frame_of_the_other_link_type_is_noted_once_for_each_write_of_the_gate() {
    let mut bench = Bench::with_gate(Gate { link_type: 1 - LINK_ETHERNET, generation: 9, ..OPEN });
    assert_eq!(bench.send(Uplink, &packet()), Pass);
    assert_eq!(bench.word().logged_generation, 9);
}
