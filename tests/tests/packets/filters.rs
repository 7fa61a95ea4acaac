//! The filters of a restricted link: what each word of a rule comes to in the kernel, and that the first rule that fits decides.

use std::net::IpAddr;

use agent::quota::{FilterAction, FilterDirection, FilterEnd, FilterRule, rules};
use agent_common::{Counters, Gate, MODE_RESTRICT};

use e2e::packet::{
    HERE_V4, HERE_V6, ICMPV6, IPV4, IPV6, TCP, THERE_V4, THERE_V6, UDP, UPLINK_V4, V4, ethernet, extension, tcp, udp,
    v4, v6, v6_between,
};
use e2e::testrun::OPEN;

use crate::bench::{
    Bench,
    Direction::{self, Downlink, Uplink},
    Verdict::{Drop, Pass},
    tally,
};

const RESTRICTED: Gate = Gate { ceiling: 0, mode: MODE_RESTRICT, ..OPEN };

fn uplink(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(IPV4, &v4(UPLINK_V4, protocol, payload))
}

fn downlink(protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(IPV4, &v4(V4 { source: THERE_V4, destination: HERE_V4, ..UPLINK_V4 }, protocol, payload))
}

#[test]
fn the_first_rule_that_fits_decides_and_what_fits_none_is_refused() {
    let out = |port| uplink(TCP, &tcp(40000, port, 10));
    let later_fragment = V4 { fragment_offset: 100, ..UPLINK_V4 };
    let sctp = udp(1, 443, 4);
    // Rules, a packet, its direction, whether it passes. 198.51.100.7 and 2001:db8:0:2::7 are there.
    let rows: Vec<(&[&str], Direction, Vec<u8>, bool)> = vec![
        (&[], Uplink, out(443), false),
        (&["permit in ip from any to any"], Uplink, out(443), true),
        (&["permit in ip from any to any"], Downlink, downlink(TCP, &tcp(443, 40000, 0)), false),
        (&["permit out ip from any to any"], Downlink, downlink(TCP, &tcp(443, 40000, 0)), true),
        (&["permit in 6 from any to 198.51.100.7"], Uplink, out(443), true),
        (&["permit in 17 from any to 198.51.100.7"], Uplink, out(443), false),
        (&["permit in 6 from any to 198.51.100.8"], Uplink, out(443), false),
        (&["permit in 6 from any to 198.51.100.0/29"], Uplink, out(443), true),
        (&["permit in 6 from any to 198.51.100.8/29"], Uplink, out(443), false),
        (&["permit in 6 from 192.0.2.0/24 to any"], Uplink, out(443), true),
        (&["permit in 6 from 192.0.3.0/24 to any"], Uplink, out(443), false),
        (&["permit in 6 from any to any 443"], Uplink, out(443), true),
        (&["permit in 6 from any to any 80,440-443"], Uplink, out(443), true),
        (&["permit in 6 from any to any 80,444-65535"], Uplink, out(443), false),
        (&["permit in 6 from any 40000 to any"], Uplink, out(443), true),
        (&["permit in 6 from any 40001 to any"], Uplink, out(443), false),
        (&["permit out 6 from any 443 to any"], Downlink, downlink(TCP, &tcp(443, 40000, 0)), true),
        (&["permit out 6 from any 40000 to any"], Downlink, downlink(TCP, &tcp(443, 40000, 0)), false),
        (&["deny in 6 from any to any 443", "permit in ip from any to any"], Uplink, out(443), false),
        (&["deny in 6 from any to any 443", "permit in ip from any to any"], Uplink, out(444), true),
        (&["deny in 6 from any to any 443"], Uplink, out(444), true),
        (&["deny in 6 from any to any 443"], Downlink, downlink(TCP, &tcp(443, 40000, 0)), true),
        (&["permit in 17 from any to any 53"], Uplink, uplink(UDP, &udp(1, 53, 9)), true),
        (&["permit in 132 from any to any 443"], Uplink, uplink(132, &sctp), true),
        (&["permit in 1 from any to any"], Uplink, uplink(1, &[8, 0, 0, 0, 0, 0, 0, 0]), true),
        (&["permit in 6 from any to any"], Uplink, ethernet(IPV4, &v4(later_fragment, TCP, &[0; 40])), true),
        (&["permit in 6 from any to any 0-65535"], Uplink, ethernet(IPV4, &v4(later_fragment, TCP, &[0; 40])), false),
        (&["permit in 6 from any to 198.51.100.7"], Uplink, ethernet(IPV6, &v6(TCP, &tcp(1, 443, 0))), false),
        (&["permit in 6 from any to 0.0.0.0/0"], Uplink, ethernet(IPV6, &v6(TCP, &tcp(1, 443, 0))), false),
        (&["permit in 6 from any to 2001:db8:0:2::/64"], Uplink, ethernet(IPV6, &v6(TCP, &tcp(1, 443, 0))), true),
        (&["permit in 6 from any to 2001:db8:0:3::/64"], Uplink, ethernet(IPV6, &v6(TCP, &tcp(1, 443, 0))), false),
        (
            &["permit in 6 from any to 2001:db8:0:2::7 443"],
            Uplink,
            ethernet(IPV6, &v6(60, &extension(TCP, 1, &tcp(1, 443, 0)))),
            true,
        ),
        (
            &["permit out 58 from 2001:db8::/32 to any"],
            Downlink,
            ethernet(IPV6, &v6_between(THERE_V6, HERE_V6, ICMPV6, &[129; 8])),
            true,
        ),
        (
            &["permit in 6 from any to any"],
            Uplink,
            ethernet(IPV6, &v6(44, &[&[TCP, 0, 0, 8, 0, 0, 0, 1], tcp(1, 443, 0).as_slice()].concat())),
            false,
        ),
        (
            &["permit in ip from any to any"],
            Uplink,
            ethernet(IPV6, &v6(44, &[&[TCP, 0, 0, 8, 0, 0, 0, 1], tcp(1, 443, 0).as_slice()].concat())),
            true,
        ),
    ];
    let mut bench = Bench::with_gate(RESTRICTED);
    for (rules, direction, packet, passes) in rows {
        bench.forget();
        bench.set_filters(rules);
        assert_eq!(
            bench.send(direction, &packet),
            if passes { Pass } else { Drop },
            "{rules:?} {direction:?} {packet:x?}"
        );
        let counted = tally(packet.len() as u64 - 14, 1);
        let mut expected = Counters::default();
        let tallies = if direction == Uplink { &mut expected.uplink } else { &mut expected.downlink };
        *(if passes { &mut tallies.throttled } else { &mut tallies.refused }) = counted;
        assert_eq!(bench.counters(), expected, "{rules:?} {direction:?}");
        assert_eq!(bench.word().gate, 0, "what is permitted is no quota octet");
    }
}

#[test]
fn filters_are_followed_in_that_mode_alone_and_only_beyond_the_ceiling() {
    let packet = uplink(TCP, &tcp(1, 443, 76));
    let mut bench = Bench::with_gate(Gate { mode: 0, ..RESTRICTED });
    bench.set_filters(&["permit in ip from any to any"]);
    assert_eq!(bench.send(Uplink, &packet), Drop);
    bench.set_gate(Gate { ceiling: 128, generation: 2, ..RESTRICTED });
    assert_eq!([bench.send(Uplink, &packet), bench.send(Uplink, &packet)], [Pass, Pass]);
    assert_eq!(bench.counters().uplink.passed, tally(128, 1));
    assert_eq!(bench.counters().uplink.throttled, tally(128, 1));
}

/// The same judgement made from the rules themselves, word by word.
fn permitted(rules: &[FilterRule], direction: FilterDirection, [from, to]: [(IpAddr, u16); 2], protocol: u8) -> bool {
    let covers = |end: &FilterEnd, (address, port): (IpAddr, u16)| {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(v4) => u128::from(v4.to_bits()),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let prefix = end.prefix.is_none_or(|(prefix, length)| {
            let width: u32 = if prefix.is_ipv4() { 32 } else { 128 };
            let host = width - u32::from(length);
            let cut = |address| bits(address).checked_shr(host).unwrap_or(0);
            prefix.is_ipv4() == address.is_ipv4() && cut(prefix) == cut(address)
        });
        prefix && (end.ports.is_empty() || end.ports.iter().any(|range| range.contains(&port)))
    };
    let (local, remote) = if direction == FilterDirection::Uplink { (from, to) } else { (to, from) };
    let fits = |rule: &&FilterRule| {
        rule.direction == direction
            && rule.protocol.is_none_or(|wanted| wanted == protocol)
            && covers(&rule.local, local)
            && covers(&rule.remote, remote)
    };
    rules.iter().find(fits).is_some_and(|rule| rule.action == FilterAction::Permit)
}

#[test]
fn random_lists_judge_as_their_rules_say() {
    let mut random = fastrand::Rng::with_seed(431);
    let mut bench = Bench::with_gate(RESTRICTED);
    let (mut passed, mut refused) = (0, 0);
    for _ in 0..400 {
        let texts: Vec<String> = (0..random.usize(1..12)).map(|_| any_rule(&mut random)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let Ok(list) = rules(texts.iter().copied()) else { continue };
        bench.set_filters(&texts);
        for _ in 0..20 {
            let (here, there) = (u16::from(random.u8(1..5)), u16::from(random.u8(1..5)));
            let protocol = if random.bool() { TCP } else { UDP };
            let segment = |from, to| if protocol == TCP { tcp(from, to, 5) } else { udp(from, to, 5) };
            let v4_hosts = ([192, 0, 2, random.u8(0..8)], [198, 51, 100, random.u8(0..8)]);
            let is_up = random.bool();
            let (from, to) = if is_up { (here, there) } else { (there, here) };
            let (source, destination) = if is_up { v4_hosts } else { (v4_hosts.1, v4_hosts.0) };
            let packet = ethernet(IPV4, &v4(V4 { source, destination, ..UPLINK_V4 }, protocol, &segment(from, to)));
            let direction = if is_up { FilterDirection::Uplink } else { FilterDirection::Downlink };
            let expected = permitted(&list, direction, [(source.into(), from), (destination.into(), to)], protocol);
            let verdict = bench.send(if is_up { Uplink } else { Downlink }, &packet);
            assert_eq!(verdict, if expected { Pass } else { Drop }, "{texts:?} {packet:x?}");
            *(if expected { &mut passed } else { &mut refused }) += 1;
        }
    }
    assert!(passed > 1000 && refused > 1000, "{passed} passed, {refused} refused");
}

fn any_rule(random: &mut fastrand::Rng) -> String {
    let action = ["permit", "deny"][random.usize(..2)];
    let (way, local_first) = [("in", true), ("out", false)][random.usize(..2)];
    let protocol = ["ip", "6", "17"][random.usize(..3)];
    let mut end = |network: &str| {
        let address = match random.u8(..4) {
            0 => "any".to_owned(),
            1 => format!("{network}{}", random.u8(0..8)),
            _ => format!("{network}{}/{}", random.u8(0..8), random.u8(24..33)),
        };
        let first = random.u16(1..5);
        let ports = format!(" {first},{}-{}", first, random.u16(first..6));
        address + if protocol == "ip" || random.bool() { "" } else { &ports }
    };
    let (local, remote) = (end("192.0.2."), end("198.51.100."));
    let (from, to) = if local_first { (local, remote) } else { (remote, local) };
    format!("{action} {way} {protocol} from {from} to {to}")
}
