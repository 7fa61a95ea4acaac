//! The programs by themselves: nanoseconds a packet over a program that does nothing, and how many instructions they are.

use std::collections::BTreeMap;
use std::thread;

use agent::datapath::Counting;
use agent_common::{AllowKey, FAMILY_V4, Gate, LINK_RAW_IP, MODE_THROTTLE};
use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::json;

use crate::bench::{Figure, Measured};
use crate::clock::thread_time;
use crate::testrun::{OPEN, Programs, Verdict, pin_to, processors};

/// What an open gate may cost more than nothing at all.
const TARGET_NS: f64 = 8.0;

/// Ports of the packet: from, to.
const PORTS: [u16; 2] = [4000, 5000];

const SHUT: Gate = Gate { ceiling: 0, ..OPEN };
/// So fast that every packet passes, and so slow that none does.
const THROTTLED: Gate = Gate { mode: MODE_THROTTLE, throttle_rate: 1 << 50, throttle_tolerance_ns: 1 << 30, ..SHUT };
const POLICED: Gate = Gate { throttle_rate: 1, throttle_tolerance_ns: 0, ..THROTTLED };

/// One program at one gate.
struct Case {
    name: &'static str,
    programs: Programs,
    program: &'static str,
    packet: Vec<u8>,
    verdict: Verdict,
    /// The target goes for this one.
    is_held: bool,
}

/// Measures every case so often, in turn, with so many packets each time.
pub(super) fn measure(rounds: u32, packets: u32) -> Result<Measured> {
    // On a thread of its own: who starts threads on one processor has them all there.
    let measuring = thread::spawn(move || in_turn(rounds, packets));
    measuring.join().map_err(|_| anyhow!("the measuring thread panicked"))?
}

fn in_turn(rounds: u32, packets: u32) -> Result<Measured> {
    pin_to(*processors()?.last().context("a processor")?)?;
    let (empty, cases) = (yardstick("empty", "empty")?, cases()?);
    // Nanoseconds of the empty program, and of the one right behind it.
    let mut samples: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    // The first round warms caches and is not counted.
    for round in 0..=rounds {
        for case in &cases {
            let pair = (per_packet(&empty, packets)?, per_packet(case, packets)?);
            if round > 0 {
                samples.entry(case.name).or_default().push(pair);
            }
        }
    }
    let nothing: Vec<f64> = samples.values().flatten().map(|(empty, _)| *empty).collect();
    let mut figures = vec![Figure::median_of("empty program, a packet", "ns", &nothing)?];
    for case in &cases {
        let over: Vec<f64> = samples[case.name].iter().map(|(empty, case)| case - empty).collect();
        let figure = Figure::median_of(format!("{}, over empty", case.name), "ns", &over)?;
        figures.push(if case.is_held { figure.at_most(TARGET_NS) } else { figure });
    }
    figures.extend(sizes(&cases)?);
    Ok(Measured { figures, details: json!({ "emptyAndCaseNanoseconds": samples, "packetsEach": packets }) })
}

fn per_packet(case: &Case, packets: u32) -> Result<f64> {
    let begin = thread_time()?;
    let verdict = case.programs.run(case.program, &case.packet, packets)?;
    let took = thread_time()?.saturating_sub(begin);
    ensure!(verdict == case.verdict, "{}: {verdict:?}", case.name);
    Ok(took.as_secs_f64() * 1e9 / f64::from(packets))
}

/// A program that the meter is compared with.
fn yardstick(name: &'static str, program: &'static str) -> Result<Case> {
    let programs = Programs::yardstick()?;
    Ok(Case { name, programs, program, packet: frame(), verdict: Verdict::Pass, is_held: false })
}

fn cases() -> Result<Vec<Case>> {
    use Verdict::{Drop, Pass};
    let counting = Counting::of_this_kernel();
    let meter = |name, program, gate: &Gate, verdict| -> Result<Case> {
        let mut programs = Programs::meter(counting)?;
        programs.set_gate(gate)?;
        Ok(Case { name, programs, program, packet: frame(), verdict, is_held: false })
    };
    let open = |name, program| -> Result<Case> { Ok(Case { is_held: true, ..meter(name, program, &OPEN, Pass)? }) };
    let allowed = |name, program, port| -> Result<Case> {
        let mut case = meter(name, program, &Gate { control_ceiling: u64::MAX, ..SHUT }, Pass)?;
        case.programs.allow(AllowKey { address: [0; 16], port, family: FAMILY_V4, protocol: 17 })?;
        Ok(case)
    };
    let locked = || -> Result<Case> {
        let mut programs = Programs::meter(Counting::Locked)?;
        programs.set_gate(&OPEN)?;
        let name = "open gate, uplink, as on a real-time kernel";
        Ok(Case { name, programs, program: UPLINK, packet: frame(), verdict: Pass, is_held: false })
    };
    let deadline = Gate { deadline_boot_ns: u64::MAX, ..OPEN };
    let raw = |name, program| -> Result<Case> {
        let packet = frame().split_off(14);
        Ok(Case { packet, ..meter(name, program, &Gate { link_type: LINK_RAW_IP, ..OPEN }, Pass)? })
    };
    let by_length = || -> Result<Case> {
        let mut case = yardstick("a gate by length, without a look at the packet", "add_then_check")?;
        case.programs.set_gate(&OPEN)?;
        Ok(case)
    };
    Ok(vec![
        yardstick("counting on each processor and nothing else", "count_only")?,
        by_length()?,
        yardstick("the same, reaching its words without a lookup", "add_then_check_own")?,
        open("open gate, uplink", UPLINK)?,
        open("open gate, downlink", DOWNLINK)?,
        meter("open gate with a deadline, uplink", UPLINK, &deadline, Pass)?,
        raw("open gate, raw IP, uplink", UPLINK)?,
        locked()?,
        meter("shut gate, uplink", UPLINK, &SHUT, Drop)?,
        meter("shut gate, downlink", DOWNLINK, &SHUT, Drop)?,
        allowed("shut gate, on the allow-list, uplink", UPLINK, PORTS[1])?,
        allowed("shut gate, on the allow-list, downlink", DOWNLINK, PORTS[0])?,
        meter("throttled and passed, uplink", UPLINK, &THROTTLED, Pass)?,
        meter("throttled and passed, downlink", DOWNLINK, &THROTTLED, Pass)?,
        meter("throttled and dropped, uplink", UPLINK, &POLICED, Drop)?,
        meter("throttled and dropped, downlink", DOWNLINK, &POLICED, Drop)?,
    ])
}

const UPLINK: &str = "weir_uplink";
const DOWNLINK: &str = "weir_downlink";

/// How large the programs are, for the verifier, as instructions, and for the processor.
fn sizes(cases: &[Case]) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for program in [UPLINK, DOWNLINK] {
        let case = cases.iter().find(|case| case.program == program).context("a case of each program")?;
        let info = case.programs.info(program)?;
        // An instruction is eight octets.
        let instructions = info.size_translated().context("its length")? / 8;
        figures.push(Figure::single(format!("{program}: instructions"), "instructions", f64::from(instructions)));
        let visited = info.verified_instruction_count().context("what the verifier did")?;
        figures.push(Figure::single(format!("{program}: visited by the verifier"), "instructions", f64::from(visited)));
        figures.push(Figure::single(format!("{program}: compiled"), "octets", f64::from(info.size_jitted())));
    }
    Ok(figures)
}

/// A datagram of 128 octets in an Ethernet frame.
fn frame() -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x08, 0x00];
    frame.extend([0x45, 0, 0, 128, 0, 1, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 7]);
    for port in PORTS {
        frame.extend(port.to_be_bytes());
    }
    frame.extend([0, 108, 0, 0]);
    frame.resize(14 + 128, 0);
    frame
}
