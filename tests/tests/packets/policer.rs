//! The policer of a shut gate: what an idle link lets pass, what may be caught up, who is told of congestion.

use agent_common::{Counters, Gate, MODE_THROTTLE, Word};
use e2e::packet::{IPV6, UDP, ethernet, udp, v6};

use crate::bench::{
    Bench,
    Direction::{self, Downlink, Uplink},
    Verdict::{Drop, Pass},
    tally,
};
use crate::gate::{SHUT, boot_ns, packet};

const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;

/// One octet a second, so that the time a test takes is nothing: a packet costs 128 s, and one hour is tolerated.
const SLOW: Gate = Gate { mode: MODE_THROTTLE, throttle_rate: 1, throttle_tolerance_ns: 3600 * SECOND, ..SHUT };

/// As many packets; how many passed before the first that did not, which none after it does.
fn passed(bench: &mut Bench, packets: usize) -> u64 {
    let verdicts: Vec<_> = (0..packets).map(|_| bench.send(Uplink, &packet())).collect();
    let passed = verdicts.iter().take_while(|verdict| **verdict == Pass).count();
    assert!(verdicts.iter().skip(passed).all(|verdict| *verdict == Drop), "{verdicts:?}");
    passed.try_into().unwrap()
}

/// A policer under which traffic has just been: nothing is owed, and the link is not idle.
fn busy(gate: Gate) -> Bench {
    let mut bench = Bench::with_gate(gate);
    bench.set_word(Word { tat: boot_ns(), ..Word::default() });
    bench
}

#[test]
fn what_was_not_sent_may_be_caught_up_within_the_tolerance_and_then_has_to_be_waited_for() {
    let mut bench = busy(SLOW);
    let before = boot_ns();
    // 28 times 128 s is within the hour, 29 times is not.
    assert_eq!(passed(&mut bench, 40), 28);
    let mut expected = Counters::default();
    expected.uplink.throttled = tally(28 * 128, 28);
    expected.uplink.policed = tally(12 * 128, 12);
    assert_eq!(bench.counters(), expected);
    assert!(bench.word().tat >= before + 28 * 128 * SECOND);
    // Time has passed: there is room for one more.
    bench.set_word(Word { tat: boot_ns() + (3600 - 129) * SECOND, ..bench.word() });
    assert_eq!(passed(&mut bench, 3), 1);
}

#[test]
fn an_idle_link_lets_a_packet_of_any_size_pass_and_no_more() {
    let mut bench = Bench::with_gate(SLOW);
    assert_eq!(passed(&mut bench, 5), 1);
    // However long nobody has sent.
    bench.set_word(Word { tat: boot_ns() - 2 * SECOND, ..bench.word() });
    assert_eq!(passed(&mut bench, 5), 1);
}

#[test]
fn whoever_begins_on_an_idle_link_gets_no_burst() {
    // 64 ms each, of 150 ms.
    let mut bench = Bench::with_gate(Gate { throttle_rate: 2000, throttle_tolerance_ns: 60 * SECOND, ..SLOW });
    let before = boot_ns();
    let passed = (0..100).filter(|_| bench.send(Uplink, &packet()) == Pass).count() as u64;
    // The clock that this is told by counts hundredths.
    let elapsed = boot_ns() - before + 10 * MILLISECOND;
    assert!(passed >= 2 && passed * 64 * MILLISECOND <= 150 * MILLISECOND + elapsed, "{passed} in {elapsed} ns");
}

#[test]
fn at_rate_zero_nothing_passes() {
    let mut bench = Bench::with_gate(Gate { throttle_rate: 0, throttle_tolerance_ns: u64::MAX, ..SLOW });
    assert_eq!(bench.send(Downlink, &packet()), Drop);
    assert_eq!(bench.counters().downlink.policed, tally(128, 1));
}

/// The same packet with these bits in its ECN field (RFC 3168).
fn with_ecn(bits: u8) -> [(Vec<u8>, usize, u8); 2] {
    let mut four = packet();
    four[15] |= bits;
    let mut six = ethernet(IPV6, &v6(UDP, &udp(1, 2, 80)));
    six[15] |= bits << 4;
    [(four, 15, 0b11), (six, 15, 0b11 << 4)]
}

/// Sends it when so much is left after it before packets are dropped; whether it comes out with congestion experienced.
fn comes_out_marked(direction: Direction, (packet, at, mask): &(Vec<u8>, usize, u8), left: u64) -> bool {
    let mut bench = busy(SLOW);
    bench.set_word(Word { tat: boot_ns() + (3600 - 128) * SECOND - left, ..Word::default() });
    let (verdict, after) = bench.send_through(direction, packet);
    assert_eq!(verdict, Pass);
    let marked = after[*at] & mask == *mask;
    if !marked {
        assert_eq!(after, *packet, "it is the same");
    }
    marked
}

#[test]
fn a_flow_that_can_be_told_is_told_of_congestion_before_packets_are_dropped() {
    const NOT_CAPABLE: u8 = 0b00;
    const CAPABLE: u8 = 0b10;
    for direction in [Uplink, Downlink] {
        for packet in &with_ecn(CAPABLE) {
            assert!(comes_out_marked(direction, packet, 10 * MILLISECOND));
            assert!(!comes_out_marked(direction, packet, SECOND));
        }
        for packet in &with_ecn(NOT_CAPABLE) {
            assert!(!comes_out_marked(direction, packet, 10 * MILLISECOND));
        }
    }
}
