//! Forged headers never make a packet cheaper than what leaves: a table, and a random walk against a model of the wire.

mod model;

use agent_common::{Counters, DirectionCounters};
use e2e::packet::{
    BRIDGED, DOWNLINK_V4, GRE, IPIP, IPV4, IPV6, IPV6_IN_IP, QINQ, TCP, UDP, UPLINK_V4, V4, VLAN, ethernet, extension,
    geneve, gre, padded, tagged, tcp, udp, udp_with, v4, v6, vxlan,
};
use fastrand::Rng;

use self::model::Model;
use crate::{
    Expect::{Passed, Unreadable},
    Row,
    bench::{
        Bench, Direction,
        Direction::{Downlink, Uplink},
        Skb, Verdict, tally,
    },
    check,
};
use e2e::testrun::OPEN;

#[test]
fn a_length_that_is_forged_makes_no_packet_cheaper() {
    let total = |total| ethernet(IPV4, &v4(V4 { total: Some(total), ..UPLINK_V4 }, UDP, &udp(1, 2, 100)));
    let payload = |length: u16| {
        let mut frame = ethernet(IPV6, &v6(UDP, &udp(1, 2, 100)));
        frame[18..20].copy_from_slice(&length.to_be_bytes());
        frame
    };
    let header = |words: u8| {
        let mut frame = total(128);
        frame[14] = 0x40 | words;
        frame
    };
    check(vec![
        Row::new("IPv4 total too small", total(28), Passed(128, 1)),
        Row::new("IPv4 total too small, received", total(28), Passed(128, 1)).downlink(),
        Row::new("IPv4 total smaller than its header", total(19), Unreadable(128, 1)),
        Row::new("IPv4 total of nothing", total(0), Unreadable(128, 1)),
        Row::new("IPv4 total too large", total(129), Unreadable(128, 1)),
        Row::new("IPv4 total as large as can be", total(u16::MAX), Unreadable(128, 1)).downlink(),
        Row::new("IPv4 header longer than the packet", header(15).split_at(64).0.to_vec(), Unreadable(50, 1)),
        Row::new("IPv4 header too short", header(4), Unreadable(128, 1)),
        Row::new("IPv6 payload of nothing", payload(0), Passed(148, 1)),
        Row::new("IPv6 payload too small", payload(8), Passed(148, 1)).downlink(),
        Row::new("IPv6 payload too large", payload(109), Unreadable(148, 1)),
        // Behind a tag, because the kernel refuses a test run without the header that the EtherType promises.
        Row::new("cut off in the IPv4 header", tagged(&[VLAN], IPV4, &[0x45; 19]), Unreadable(19, 1)),
        Row::new("cut off in the IPv6 header", tagged(&[VLAN], IPV6, &v6(UDP, &[])[..39]), Unreadable(39, 1))
            .downlink(),
    ]);
}

#[test]
fn a_super_packet_that_is_forged_is_not_cheaper_than_its_segments() {
    let tcp4 = || ethernet(IPV4, &v4(UPLINK_V4, TCP, &tcp(1, 2, 2500)));
    let data_offset = |words: u8, payload| {
        let mut frame = ethernet(IPV4, &v4(UPLINK_V4, TCP, &tcp(1, 2, payload)));
        frame[14 + 20 + 12] = words << 4;
        frame
    };
    let mut small_total = tcp4();
    small_total[16..18].copy_from_slice(&52_u16.to_be_bytes());
    let true_octets = 2500 + 3 * 52;
    check(vec![
        Row::new("number of segments left out", tcp4(), Passed(true_octets, 3)).gso(1000, 0),
        Row::new("number of segments too small", tcp4(), Unreadable(true_octets, 3)).gso(1000, 1),
        Row::new("number of segments too small, received", tcp4(), Unreadable(true_octets, 3)).gso(1000, 2).downlink(),
        Row::new("number of segments too large", tcp4(), Unreadable(2500 + 9 * 52, 9)).gso(1000, 9),
        Row::new("segments of one octet", tcp4(), Passed(2500 * 53, 2500)).gso(1, 0),
        Row::new("segments larger than the packet", tcp4(), Passed(2552, 1)).gso(60_000, 0),
        Row::new("total of one header", small_total, Passed(true_octets, 3)).gso(1000, 3),
        // The IP header at least is in each segment.
        Row::new("TCP header beyond the packet", data_offset(15, 0), Unreadable(52 + 20, 2)).gso(20, 2),
        Row::new("TCP header too short", data_offset(4, 2500), Unreadable(2552 + 2 * 20, 3)).gso(1000, 0),
        Row::new("no room for a TCP header", ethernet(IPV4, &v4(UPLINK_V4, TCP, &[0; 8])), Unreadable(28 + 20, 2))
            .gso(4, 2),
    ]);
}

/// What the walk begins with: every kind of packet that is told apart, whole and right.
fn beginnings() -> Vec<Vec<u8>> {
    let inner = v4(UPLINK_V4, TCP, &tcp(1, 2, 700));
    let inner_v6 = v6(0, &extension(TCP, 1, &tcp(1, 2, 700)));
    let over_udp = |payload: &[u8]| ethernet(IPV4, &v4(UPLINK_V4, UDP, &udp_with(1, 4789, payload)));
    vec![
        ethernet(IPV4, &v4(UPLINK_V4, TCP, &tcp(1, 2, 900))),
        ethernet(IPV4, &v4(V4 { options: 12, ..DOWNLINK_V4 }, UDP, &udp(1, 2, 900))),
        ethernet(IPV4, &v4(UPLINK_V4, UDP, &udp(1, 2, 1))),
        padded(ethernet(IPV4, &v4(DOWNLINK_V4, UDP, &udp(1, 2, 1))), 60),
        padded(tagged(&[VLAN], IPV4, &v4(DOWNLINK_V4, UDP, &udp(1, 2, 1))), 64),
        ethernet(IPV4, &v4(V4 { fragment_offset: 0x2000, ..UPLINK_V4 }, UDP, &udp(1, 2, 500))),
        ethernet(IPV6, &v6(TCP, &tcp(1, 2, 900))),
        ethernet(IPV6, &v6(0, &extension(60, 2, &extension(UDP, 1, &udp(1, 2, 600))))),
        tagged(&[VLAN], IPV6, &v6(UDP, &udp(1, 2, 400))),
        tagged(&[QINQ, VLAN], IPV4, &v4(UPLINK_V4, TCP, &tcp(1, 2, 400))),
        ethernet(IPV4, &v4(UPLINK_V4, IPIP, &inner)),
        ethernet(IPV4, &v4(UPLINK_V4, IPV6_IN_IP, &inner_v6)),
        ethernet(IPV6, &v6(IPIP, &inner)),
        ethernet(IPV4, &v4(UPLINK_V4, GRE, &gre(0x30, IPV4, &inner))),
        ethernet(IPV4, &v4(UPLINK_V4, GRE, &gre(0, BRIDGED, &ethernet(IPV6, &inner_v6)))),
        over_udp(&vxlan(&ethernet(IPV4, &inner))),
        over_udp(&geneve(3, BRIDGED, &ethernet(IPV6, &inner_v6))),
    ]
}

/// One step of the walk: something in the headers is another, or the frame has another end. The link's own header,
/// which is behind nobody's forging, stays.
fn mutate(frame: &mut Vec<u8>, random: &mut Rng) {
    let tags = [12, 16].iter().take_while(|at| matches!(frame[**at..**at + 2], [0x81, 0] | [0x88, 0xa8])).count();
    let ip = 14 + 4 * tags;
    // Without a tag the kernel refuses a test run that ends within the IP header.
    let shortest = if tags == 0 { 54 } else { ip };
    let at = random.usize(ip..140);
    match random.u8(0..8) {
        0 => frame.truncate(at.max(shortest)),
        1 => frame.extend(vec![0; random.usize(1..80)]),
        // Where IPv4 and IPv6 have their lengths.
        2 => {
            let length = random.choice([0, 1, 19, 20, 28, 40, 46, 1500, u16::MAX]).unwrap_or(0);
            let field = ip + random.choice([2, 4]).unwrap_or(2);
            if let Some(octets) = frame.get_mut(field..field + 2) {
                octets.copy_from_slice(&length.to_be_bytes());
            }
        }
        3 => frame.iter_mut().skip(ip).take(1).for_each(|octet| *octet = *octet & 0xf0 | random.u8(0..16)),
        4 => frame.iter_mut().skip(at).take(1).for_each(|octet| *octet ^= 1 << random.u8(0..8)),
        _ => frame.iter_mut().skip(at).take(1).for_each(|octet| *octet = random.u8(..)),
    }
}

fn metadata(random: &mut Rng, frame: &[u8], model: impl Fn(Skb) -> Model) -> Skb {
    if random.bool() || frame.len() < 64 {
        return Skb::default();
    }
    let gso_size = random.choice([1, 100, 333, 536, 1000, 1448, 0xffff]).unwrap_or(1);
    let honest = Skb { gso_size, ..Skb::default() };
    let gso_segs = match random.u8(0..4) {
        0 => random.u32(0..100),
        1 => 0,
        // What the kernel would say.
        _ => model(honest).segments,
    };
    Skb { gso_segs, ..honest }
}

/// Packets of the walk.
const STEPS: u32 = 60_000;

#[test]
fn no_packet_of_a_random_walk_is_cheaper_than_what_leaves() {
    let mut random = Rng::with_seed(0x5eed);
    let beginnings = beginnings();
    let mut bench = Bench::with_gate(OPEN);
    let (mut exact, mut guessed) = (0, 0);
    for step in 0..STEPS {
        let direction = if random.bool() { Uplink } else { Downlink };
        let mut frame = beginnings[random.usize(..beginnings.len())].clone();
        for _ in 0..random.u8(0..4) {
            mutate(&mut frame, &mut random);
        }
        let skb = metadata(&mut random, &frame, |skb| Model::of(&frame, skb, direction));
        let model = Model::of(&frame, skb, direction);
        let (found, used) = measure(&mut bench, direction, &frame, skb);
        let what = || {
            format!(
                "step {step}, {direction:?}, {skb:?}, {model:?}, {found:?}, {used} used\n{:02x?}",
                &frame[..frame.len().min(160)]
            )
        };
        let octets = passed(&found, direction);
        assert!(octets >= model.least, "cheaper than what leaves: {}", what());
        assert_eq!(used, octets, "billed is not what was counted: {}", what());
        if model.is_certain {
            assert_eq!((octets, found.parse_errors), (model.least, 0), "not exact: {}", what());
            exact += 1;
        }
        guessed += found.parse_errors;
    }
    // The walk goes everywhere: neither half of it is the whole.
    assert!(exact > STEPS / 4 && guessed > u64::from(STEPS / 20), "{exact} exact, {guessed} guessed of {STEPS}");
}

/// Sends one packet through empty counters.
fn measure(bench: &mut Bench, direction: Direction, frame: &[u8], skb: Skb) -> (Counters, u64) {
    bench.forget();
    let verdict = bench.send_skb(direction, frame, skb);
    let counters = bench.counters();
    // A frame of nothing is refused; whatever else there is passes an open gate.
    assert!(verdict == Verdict::Pass || counters == refused_nothing(direction), "{counters:?} {frame:02x?}");
    (counters, bench.word().gate)
}

fn refused_nothing(direction: Direction) -> Counters {
    let nothing = DirectionCounters { refused: tally(0, 1), ..DirectionCounters::default() };
    let mut counters = Counters { parse_errors: 1, ..Counters::default() };
    match direction {
        Uplink => counters.uplink = nothing,
        Downlink => counters.downlink = nothing,
    }
    counters
}

fn passed(counters: &Counters, direction: Direction) -> u64 {
    match direction {
        Uplink => counters.uplink.passed.octets,
        Downlink => counters.downlink.passed.octets,
    }
}
