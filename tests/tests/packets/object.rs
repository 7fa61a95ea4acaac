//! The instructions that the compiler has made of the atomic operations.
//!
//! LLVM 22 turns a relaxed fetch-add whose result is used into the addition that does not fetch. The programs ask for
//! the strongest order everywhere, so every atomic instruction of the object must be one that fetches.

use agent::datapath::load::OBJECT;
use e2e::packet::{IPV4, UDP, UPLINK_V4, ethernet, udp, v4};

use crate::bench::{
    Bench,
    Direction::{Downlink, Uplink},
    Verdict::{Drop, Pass},
};
use e2e::testrun::OPEN;

/// `BPF_STX | BPF_ATOMIC | BPF_DW` and the same with `BPF_W`.
const ATOMIC_OPCODES: [u8; 2] = [0xdb, 0xc3];
/// `BPF_LD | BPF_IMM | BPF_DW`: the only instruction of 16 octets.
const WIDE_OPCODE: u8 = 0x18;
const FETCH: u32 = 0x01;
const ADD: u32 = 0x00;
const COMPARE_AND_EXCHANGE: u32 = 0xf0;

/// The contents of the executable sections of a 64-bit little-endian ELF file.
fn code() -> Vec<&'static [u8]> {
    let long = |at: usize| usize::try_from(u64::from_le_bytes(OBJECT[at..at + 8].try_into().unwrap())).unwrap();
    let short = |at: usize| usize::from(u16::from_le_bytes(OBJECT[at..at + 2].try_into().unwrap()));
    let (table, size, count) = (long(0x28), short(0x3a), short(0x3c));
    (0..count)
        .map(|index| table + index * size)
        // SHF_EXECINSTR
        .filter(|header| long(header + 8) & 0x4 != 0)
        .map(|header| &OBJECT[long(header + 0x18)..][..long(header + 0x20)])
        .collect()
}

/// What each atomic instruction does, as its `imm` tells.
fn atomic_operations() -> Vec<u32> {
    let mut operations = vec![];
    for section in code() {
        let mut rest = section;
        while let Some((instruction, behind)) = rest.split_first_chunk::<8>() {
            if ATOMIC_OPCODES.contains(&instruction[0]) {
                operations.push(u32::from_le_bytes(instruction[4..].try_into().unwrap()));
            }
            rest = if instruction[0] == WIDE_OPCODE { &behind[8..] } else { behind };
        }
    }
    operations
}

#[test]
fn the_object_carries_types_for_the_kernel_and_no_debugging_information() {
    let holds = |name: &[u8]| OBJECT.windows(name.len()).any(|octets| octets == name);
    assert!(holds(b".BTF\0") && holds(b".BTF.ext\0") && !holds(b".debug_"));
}

#[test]
fn every_atomic_instruction_fetches() {
    let operations = atomic_operations();
    let additions = operations.iter().filter(|operation| **operation & !FETCH == ADD).count();
    let exchanges = operations.iter().filter(|operation| **operation & !FETCH == COMPARE_AND_EXCHANGE).count();
    // Two programs, each with the words of the gate and of the reserve, their refunds, and the hint of a refusal.
    assert!(additions >= 8 && exchanges >= 2, "{operations:x?}");
    assert!(operations.iter().all(|operation| operation & FETCH != 0), "{operations:x?}");
}

#[test]
fn the_sum_that_decides_is_the_sum_that_stands() {
    // With the addend in place of the old value every packet of 128 octets would seem to be the second of two.
    let packet = ethernet(IPV4, &v4(UPLINK_V4, UDP, &udp(1, 2, 100)));
    let mut bench = Bench::with_gate(agent_common::Gate { ceiling: 3 * 128 + 127, ..OPEN });
    let verdicts = [Uplink, Downlink, Uplink, Downlink, Uplink].map(|direction| bench.send(direction, &packet));
    assert_eq!(verdicts, [Pass, Pass, Pass, Drop, Drop]);
    assert_eq!(bench.word().gate, 3 * 128);
    let counters = bench.counters();
    assert_eq!((counters.uplink.passed.octets, counters.downlink.passed.octets), (2 * 128, 128));
}

/// What any verifier since Linux 5.2 follows before it gives up (`BPF_COMPLEXITY_LIMIT_INSNS`).
const VERIFIER_BOUND: u32 = 1_000_000;

#[test]
fn the_verifier_is_nowhere_near_its_bound() {
    // Other kernels follow more or fewer ways than this one: Linux 6.1 an eighth of what it may, more than any newer one.
    let verified = Bench::new().verified();
    assert!(verified < VERIFIER_BOUND / 5, "{verified} instructions followed");
}
