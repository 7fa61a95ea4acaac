//! Of which refused packets the agent gets to hear, so that their senders are told.

use agent_common::{AllowKey, FAMILY_V4, Gate, MODE_RESTRICT, MODE_THROTTLE, REFUSAL_OCTETS, Refusal, Word};
use e2e::clock::now;
use e2e::packet::{
    ARP, DOWNLINK_V4, ICMPV6, IPV4, IPV6, TCP, THERE_V4, UDP, UPLINK_V4, V4, ethernet, extension, tcp, udp, v4, v6,
};

use crate::bench::{
    Bench,
    Direction::{self, Downlink, Uplink},
    Skb,
};
use crate::gate::{SHUT, boot_ns};

const TELLING: Gate = Gate { tells_refusals: 1, ..SHUT };

/// The index of some interface towards the hosts behind the gateway.
const LAN: u32 = 7;

/// An hour, in nanoseconds.
const HOUR: u64 = 3_600_000_000_000;

fn from_behind() -> Skb {
    Skb { ingress_ifindex: LAN, ..Skb::default() }
}

/// A segment with these flags.
fn segment(flags: u8) -> Vec<u8> {
    let mut segment = tcp(40000, 443, 0);
    segment[13] = flags;
    segment
}

fn syn() -> Vec<u8> {
    ethernet(IPV4, &v4(UPLINK_V4, TCP, &segment(0x02)))
}

fn datagram(payload: usize) -> Vec<u8> {
    ethernet(IPV4, &v4(UPLINK_V4, UDP, &udp(40000, 53, payload)))
}

/// What is heard of one packet from behind the gateway.
fn heard(gate: Gate, direction: Direction, packet: &[u8]) -> Vec<Refusal> {
    let mut bench = Bench::with_gate(gate);
    bench.send_skb(direction, packet, from_behind());
    bench.refusals()
}

#[test]
fn the_head_of_a_refused_packet_is_told_with_the_interface_it_came_in_by() {
    for packet in [
        syn(),
        // With ECN asked for (RFC 3168 section 6.1.1).
        ethernet(IPV4, &v4(UPLINK_V4, TCP, &segment(0xc2))),
        datagram(0),
        datagram(1400),
        ethernet(IPV6, &v6(TCP, &segment(0x02))),
        ethernet(IPV6, &v6(0, &extension(UDP, 1, &udp(1, 2, 30)))),
        ethernet(IPV6, &v6(ICMPV6, &[128, 0, 0, 0, 0, 0, 0, 0])),
    ] {
        let told = heard(TELLING, Uplink, &packet);
        let [refusal] = told.as_slice() else { panic!("{told:?} of {packet:x?}") };
        let head = refusal.head();
        assert_eq!(refusal.came_in_by, LAN);
        assert_eq!(head, &packet[14..14 + head.len()]);
        assert!(head.len() >= (packet.len() - 14).min(28) && head.len() <= REFUSAL_OCTETS, "{}", head.len());
    }
}

#[test]
fn nothing_is_told_of_what_passes_or_goes_on_later_or_when_nobody_is_to_hear_of_it() {
    let fragment = V4 { fragment_offset: 100, ..UPLINK_V4 };
    for (gate, direction, packet) in [
        (SHUT, Uplink, syn()),
        (Gate { ceiling: u64::MAX, ..TELLING }, Uplink, syn()),
        (Gate { mode: MODE_THROTTLE, throttle_rate: 1, ..TELLING }, Uplink, syn()),
        (TELLING, Downlink, ethernet(IPV4, &v4(DOWNLINK_V4, UDP, &udp(1, 2, 3)))),
        (TELLING, Uplink, ethernet(IPV4, &v4(UPLINK_V4, TCP, &segment(0x10)))),
        (TELLING, Uplink, ethernet(IPV4, &v4(UPLINK_V4, TCP, &segment(0x12)))),
        (TELLING, Uplink, ethernet(IPV4, &v4(UPLINK_V4, TCP, &segment(0x11)))),
        (TELLING, Uplink, ethernet(IPV4, &v4(fragment, UDP, &[0; 40]))),
        (TELLING, Uplink, ethernet(ARP, &[0; 28])),
    ] {
        assert_eq!(heard(gate, direction, &packet), [], "{gate:?} {packet:x?}");
    }
    let mut bench = Bench::with_gate(TELLING);
    bench.send(Uplink, &syn());
    assert_eq!(bench.refusals(), [], "the gateway's own");
}

#[test]
fn what_the_allow_list_or_a_filter_lets_through_is_not_told_and_what_no_filter_permits_is() {
    let mut bench = Bench::with_gate(Gate { control_ceiling: u64::MAX, ..TELLING });
    let mut address = [0; 16];
    address[..4].copy_from_slice(&THERE_V4);
    bench.allow(AllowKey { address, port: 443, family: FAMILY_V4, protocol: TCP });
    bench.send_skb(Uplink, &syn(), from_behind());
    assert_eq!(bench.refusals(), []);

    let mut bench = Bench::with_gate(Gate { mode: MODE_RESTRICT, ..TELLING });
    bench.set_filters(&["permit in 6 from any to any 443"]);
    bench.send_skb(Uplink, &syn(), from_behind());
    bench.send_skb(Uplink, &datagram(5), from_behind());
    let told = bench.refusals();
    assert!(matches!(told.as_slice(), [refusal] if refusal.head()[9] == UDP), "{told:?}");
}

#[test]
fn a_flood_is_told_a_hundred_times_and_then_a_hundred_times_a_second() {
    let mut bench = Bench::with_gate(TELLING);
    let begun = now();
    for _ in 0..1000 {
        bench.send_skb(Uplink, &syn(), from_behind());
    }
    let most = 101 + begun.elapsed().as_millis() / 10;
    let told = bench.refusals().len();
    assert!(told >= 100 && told as u128 <= most, "{told} told, at most {most}");
}

#[test]
fn a_flood_of_one_kind_leaves_the_other_its_own() {
    for (word, told) in [
        (Word { next_answer: boot_ns() + HOUR, ..Word::default() }, UDP),
        (Word { next_other_answer: boot_ns() + HOUR, ..Word::default() }, TCP),
    ] {
        let mut bench = Bench::with_gate(TELLING);
        bench.set_word(word);
        bench.send_skb(Uplink, &syn(), from_behind());
        bench.send_skb(Uplink, &datagram(5), from_behind());
        let heard = bench.refusals();
        assert!(matches!(heard.as_slice(), [refusal] if refusal.head()[9] == told), "{heard:?}");
    }
}
