//! Programs that are loaded and not attached, and run by `BPF_PROG_TEST_RUN`: as often as one likes, on the processor one likes.

use std::path::PathBuf;

use agent::datapath::Counting;
use agent::datapath::load::OBJECT;
use agent_common::{AllowKey, Counters, DirectionCounters, Gate, LINK_ETHERNET, Tally, Word};
use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, HashMap, PerCpuArray};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, ProgramInfo, SchedClassifier, TcAttachType, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// A gate of an Ethernet link that is open without end.
pub const OPEN: Gate = Gate {
    ceiling: u64::MAX,
    deadline_boot_ns: 0,
    threshold: 0,
    control_ceiling: 0,
    tells_refusals: 0,
    mode: 0,
    throttle_rate: 0,
    throttle_tolerance_ns: 0,
    link_type: LINK_ETHERNET,
    generation: 1,
};

/// What a program said of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Pass,
    /// It is dropped.
    Drop,
}

/// Programs with maps of their own, all at zero.
pub struct Programs {
    object: Ebpf,
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.object.programs().map(|(name, _)| name)).finish()
    }
}

impl Programs {
    /// The meter of the agent, counting in one of its two ways.
    pub fn meter(counting: Counting) -> Result<Self> {
        let object = counting.loader().load(OBJECT).context("making the maps of the meter (needs root)")?;
        Self::of(object)
    }

    /// What the meter is measured against (`agent-ebpf/src/yardstick.rs`), as `cargo xtask build` leaves it in the target directory.
    pub fn yardstick() -> Result<Self> {
        let executable = std::env::current_exe().context("find this executable")?;
        let path: Option<PathBuf> =
            executable.ancestors().map(|directory| directory.join("bpf/weir-yardstick.o")).find(|path| path.is_file());
        let path = path.context("bpf/weir-yardstick.o is not in the target directory: run `cargo xtask build`")?;
        let object = EbpfLoader::new().load_file(&path).with_context(|| format!("load {}", path.display()))?;
        Self::of(object)
    }

    fn of(mut object: Ebpf) -> Result<Self> {
        for (name, program) in object.programs_mut() {
            let program: &mut SchedClassifier = program.try_into()?;
            program.load().with_context(|| format!("the kernel's verifier does not take {name}"))?;
        }
        Ok(Self { object })
    }

    /// Lets the packet through one of the programs so many times, on the processor of this thread; answers what it said the last time.
    pub fn run(&self, program: &str, packet: &[u8], times: u32) -> Result<Verdict> {
        let options = TestRunOptions { data_in: Some(packet), repeat: times, ..TestRunOptions::new() };
        let result = self.program(program)?.test_run(options).with_context(|| format!("running {program}"))?;
        match result.return_value.cast_signed() {
            -1 => Ok(Verdict::Pass),
            2 => Ok(Verdict::Drop),
            other => bail!("{program} said {other}, which is neither NEXT nor SHOT"),
        }
    }

    /// What the kernel knows of a program.
    pub fn info(&self, program: &str) -> Result<ProgramInfo> {
        self.program(program)?.info().with_context(|| format!("asking the kernel about {program}"))
    }

    /// Attaches a program to a hook of an interface in the namespace of this thread, for as long as these programs live.
    pub fn attach(&mut self, program: &str, interface: &str, hook: TcAttachType) -> Result<()> {
        let found = self.object.program_mut(program).with_context(|| format!("the object has no program {program}"))?;
        let found: &mut SchedClassifier = found.try_into()?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        found
            .attach_with_options(interface, hook, options)
            .map(drop)
            .with_context(|| format!("attaching {program} to {interface}"))
    }

    fn program(&self, name: &str) -> Result<&SchedClassifier> {
        let program = self.object.program(name).with_context(|| format!("the object has no program {name}"))?;
        program.try_into().with_context(|| format!("{name} is no TC program"))
    }

    /// Sets what is permitted.
    pub fn set_gate(&mut self, gate: &Gate) -> Result<()> {
        let mut map: Array<_, Gate> = self.object.map_mut("gate").context("a map of the gate")?.try_into()?;
        map.set(0, gate, 0).context("writing the gate")
    }

    /// Puts a remote end on the allow-list.
    pub fn allow(&mut self, key: AllowKey) -> Result<()> {
        let mut map: HashMap<_, AllowKey, u8> = self.object.map_mut("allow").context("an allow-list")?.try_into()?;
        map.insert(key, 1, 0).context("writing the allow-list")
    }

    /// The words that the programs decide by.
    pub fn word(&self) -> Result<Word> {
        let map: Array<_, Word> = self.object.map("word").context("a map of the word")?.try_into()?;
        map.get(&0, 0).context("reading the word")
    }

    /// What was counted, on all processors together.
    pub fn counters(&self) -> Result<Counters> {
        let map: PerCpuArray<_, Counters> = self.object.map("counters").context("a map of counters")?.try_into()?;
        let mut sum = Counters::default();
        for one in map.get(&0, 0).context("reading the counters")?.iter() {
            add(&mut sum.uplink, &one.uplink);
            add(&mut sum.downlink, &one.downlink);
            sum.parse_errors += one.parse_errors;
        }
        Ok(sum)
    }
}

/// Has this thread run on one processor alone.
pub fn pin_to(processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor)?;
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("run on processor {processor}"))
}

/// The processors that this process may run on.
pub fn processors() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0)).context("ask for the processors")?;
    Ok((0..CpuSet::count()).filter(|processor| set.is_set(*processor).unwrap_or(false)).collect())
}

fn add(sum: &mut DirectionCounters, one: &DirectionCounters) {
    let DirectionCounters { passed, refused, control, throttled, policed, non_ip } = one;
    for (sum, one) in [
        (&mut sum.passed, passed),
        (&mut sum.refused, refused),
        (&mut sum.control, control),
        (&mut sum.throttled, throttled),
        (&mut sum.policed, policed),
        (&mut sum.non_ip, non_ip),
    ] {
        let Tally { octets, packets } = one;
        sum.octets += octets;
        sum.packets += packets;
    }
}
