//! What the programs need of a kernel and not every kernel has: tried before anything is loaded, by a program of a few instructions.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result, bail};

use super::sys::{bpf, own, program_state};
use crate::drill;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const SCHED_CLS: u32 = 3;
/// `BPF_ADD | BPF_FETCH`.
const FETCH_ADD: i32 = 0x01;
/// `BPF_CMPXCHG`.
const COMPARE_EXCHANGE: i32 = 0xf1;
/// What the verifier answers to an operation that it does not know.
const UNKNOWN: i32 = libc::EINVAL;
/// `ENOTSUPP`, which user space has no name for: the JIT compiler has given up and there is no interpreter.
const NOT_COMPILED: i32 = 524;
/// What the probe gives where every operation does what it should.
const RIGHT: u32 = 5 + 12 + 30;

/// `union bpf_attr` of `BPF_PROG_LOAD`, as far as the probe needs it.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u64; 2],
    kernel_and_flags: u64,
}

/// `union bpf_attr` of `BPF_PROG_TEST_RUN`.
#[repr(C)]
#[derive(Default)]
struct RunAttr {
    program: u32,
    result: u32,
    size_in: u32,
    size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat_and_duration: u64,
}

/// Fails, saying which kernel is needed, where BPF programs cannot add to a word and learn in the same moment what it held.
pub fn require_fetching_atomics() -> Result<()> {
    let kernel = || {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        format!("Linux {} on {}", release.trim(), std::env::consts::ARCH)
    };
    let fetch_add = if drill::knows_no_fetching_atomics() { 0x0f } else { FETCH_ADD };
    match run(&probe(fetch_add)) {
        Ok(RIGHT) => Ok(()),
        Ok(other) => bail!(
            "this kernel ({}) does not do right what it knows of atomic operations in BPF programs: {other} for {RIGHT}; the \
             gate would not hold its ceiling. Another kernel is needed",
            kernel()
        ),
        Err(error) => match error.raw_os_error() {
            Some(UNKNOWN) => bail!(
                "this kernel ({}) is too old: its BPF programs cannot add to a word and learn what it held before, without \
                 which no gate holds its ceiling to the octet. Linux 5.12 or newer is needed (5.15 LTS)",
                kernel()
            ),
            Some(NOT_COMPILED) => bail!(
                "the BPF compiler of this kernel ({}) lacks atomic operations that fetch, without which no gate holds its \
                 ceiling to the octet, and there is no interpreter to do them (CONFIG_BPF_JIT_ALWAYS_ON). A kernel for a \
                 64-bit processor is needed, or one with the interpreter",
                kernel()
            ),
            _ => Err(error).context("trying which atomic operations BPF programs have here"),
        },
    }
}

/// A word of the stack is 5; 7 is added, and 12 exchanged for 30: the sum of all that was fetched on the way.
fn probe(fetch_add: i32) -> [u64; 10] {
    let instruction = |code: u8, destination: u8, source: u8, offset: i16, immediate: i32| {
        u64::from(code)
            | u64::from(source << 4 | destination) << 8
            | u64::from(offset.cast_unsigned()) << 16
            | u64::from(immediate.cast_unsigned()) << 32
    };
    let set = |register, value| instruction(0xb7, register, 0, 0, value);
    let atomic = |source, operation| instruction(0xdb, 10, source, -8, operation);
    [
        set(1, 5),
        instruction(0x7b, 10, 1, -8, 0),
        set(2, 7),
        // r2 = 5
        atomic(2, fetch_add),
        set(0, 12),
        set(3, 30),
        // r0 = 12
        atomic(3, COMPARE_EXCHANGE),
        // r2 += r0; r0 = 30; r0 += r2
        instruction(0x0f, 2, 0, 0, 0),
        instruction(0x79, 0, 10, -8, 0),
        instruction(0x0f, 0, 2, 0, 0),
    ]
}

/// Tells whether this kernel runs BPF programs as machine code, by one that is loaded and thrown away.
pub fn compiles_programs() -> io::Result<bool> {
    Ok(program_state(&load(&probe(FETCH_ADD))?)?.is_compiled)
}

fn load(instructions: &[u64]) -> io::Result<OwnedFd> {
    let exit: u64 = 0x95;
    let instructions: Vec<u64> = instructions.iter().copied().chain([exit]).collect();
    let mut load = LoadAttr {
        kind: SCHED_CLS,
        count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..LoadAttr::default()
    };
    // SAFETY: instructions and licence live over the call, and their number is told.
    own(unsafe { bpf(BPF_PROG_LOAD, &mut load) }?)
}

fn run(instructions: &[u64]) -> io::Result<u32> {
    let program = load(instructions)?;
    // An Ethernet header of zeros and something behind it, which the program does not look at.
    let packet = [0_u8; 64];
    let mut run = RunAttr {
        program: program.as_raw_fd().cast_unsigned(),
        size_in: u32::try_from(packet.len()).map_err(io::Error::other)?,
        data_in: packet.as_ptr() as u64,
        ..RunAttr::default()
    };
    // SAFETY: the packet lives over the call, and its length is told.
    unsafe { bpf(BPF_PROG_TEST_RUN, &mut run) }?;
    Ok(run.result)
}
