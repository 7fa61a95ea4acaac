//! Loads the programs without attaching them and sends packets through them one at a time.

use agent::datapath::{Counting, load::OBJECT};
use agent_common::{AllowKey, Counters, DirectionCounters, Filters, Gate, Hint, Refusal, Tally, Word};
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, PerCpuArray, PerCpuValues, RingBuf},
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};

/// Which program gets the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Uplink,
    Downlink,
}

/// What the program said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Pass,
    Drop,
}

/// What the kernel knows of an skb beside its octets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Skb {
    pub(crate) gso_size: u32,
    pub(crate) gso_segs: u32,
    /// 0 = as long as the data.
    pub(crate) wire_len: u32,
    /// Index of the interface by which it came in; 0 = it was made here.
    pub(crate) ingress_ifindex: u32,
}

/// Both programs with maps of their own, all at zero.
pub(crate) struct Bench {
    object: Ebpf,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let mut object =
            Counting::of_this_kernel().loader().load(OBJECT).expect("maps of the object (these tests run as root)");
        for name in ["weir_uplink", "weir_downlink"] {
            program(&mut object, name).load().expect("the kernel's verifier accepts the program");
        }
        Self { object }
    }

    pub(crate) fn with_gate(gate: Gate) -> Self {
        let mut bench = Self::new();
        bench.set_gate(gate);
        bench
    }

    pub(crate) fn set_gate(&mut self, gate: Gate) {
        let mut map: Array<_, Gate> = self.object.map_mut("gate").unwrap().try_into().unwrap();
        map.set(0, gate, 0).unwrap();
    }

    /// Sets everything that the kernel writes back to zero, as in a new epoch.
    pub(crate) fn forget(&mut self) {
        self.set_word(Word::default());
        let mut map: PerCpuArray<_, Counters> = self.object.map_mut("counters").unwrap().try_into().unwrap();
        let zeros = vec![Counters::default(); aya::util::nr_cpus().unwrap()];
        map.set(0, PerCpuValues::try_from(zeros).unwrap(), 0).unwrap();
    }

    /// Writes the filters that these rules come to.
    pub(crate) fn set_filters(&mut self, texts: &[&str]) {
        let rules = agent::quota::rules(texts.iter().copied()).expect("rules");
        let filters = agent::datapath::filters::filters(&rules).expect("filters");
        let mut map: Array<_, Filters> = self.object.map_mut("filters").unwrap().try_into().unwrap();
        map.set(0, filters, 0).unwrap();
    }

    pub(crate) fn allow(&mut self, key: AllowKey) {
        let mut map: HashMap<_, AllowKey, u8> = self.object.map_mut("allow").unwrap().try_into().unwrap();
        map.insert(key, 1, 0).unwrap();
    }

    /// Overwrites the words, to begin at a point that packets alone would take long to reach.
    pub(crate) fn set_word(&mut self, word: Word) {
        let mut map: Array<_, Word> = self.object.map_mut("word").unwrap().try_into().unwrap();
        map.set(0, word, 0).unwrap();
    }

    pub(crate) fn send(&mut self, direction: Direction, packet: &[u8]) -> Verdict {
        self.send_skb(direction, packet, Skb::default())
    }

    pub(crate) fn send_skb(&mut self, direction: Direction, packet: &[u8], skb: Skb) -> Verdict {
        self.run(direction, packet, skb, &mut vec![0; packet.len()])
    }

    /// The same; answers also with what has become of the packet.
    pub(crate) fn send_through(&mut self, direction: Direction, packet: &[u8]) -> (Verdict, Vec<u8>) {
        let mut after = vec![0; packet.len()];
        (self.run(direction, packet, Skb::default(), &mut after), after)
    }

    fn run(&mut self, direction: Direction, packet: &[u8], skb: Skb, after: &mut [u8]) -> Verdict {
        let name = match direction {
            Direction::Uplink => "weir_uplink",
            Direction::Downlink => "weir_downlink",
        };
        let context = context(skb);
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(after),
            ctx_in: Some(&context),
            ..TestRunOptions::new()
        };
        let result = program(&mut self.object, name).test_run(options).expect("the kernel runs the program");
        match result.return_value.cast_signed() {
            -1 => Verdict::Pass,
            2 => Verdict::Drop,
            other => panic!("the program said {other}, which is neither NEXT nor SHOT"),
        }
    }

    pub(crate) fn word(&self) -> Word {
        let map: Array<_, Word> = self.object.map("word").unwrap().try_into().unwrap();
        map.get(&0, 0).unwrap()
    }

    pub(crate) fn counters(&self) -> Counters {
        let map: PerCpuArray<_, Counters> = self.object.map("counters").unwrap().try_into().unwrap();
        let mut sum = Counters::default();
        for one in map.get(&0, 0).unwrap().iter() {
            add(&mut sum.uplink, &one.uplink);
            add(&mut sum.downlink, &one.downlink);
            sum.parse_errors += one.parse_errors;
        }
        sum
    }

    /// How many instructions the verifier has followed to accept the larger program.
    pub(crate) fn verified(&mut self) -> u32 {
        let count = |name| program(&mut self.object, name).info().unwrap().verified_instruction_count().unwrap();
        ["weir_uplink", "weir_downlink"].map(count).into_iter().max().unwrap()
    }

    /// What the ring buffer of hints holds; it can be asked for once.
    pub(crate) fn hints(&mut self) -> Vec<Hint> {
        let map = self.object.take_map("hints").expect("asked for once");
        let mut ring: RingBuf<MapData> = map.try_into().unwrap();
        let mut hints = vec![];
        while let Some(item) = ring.next() {
            let octets: [u8; 24] = (*item).try_into().unwrap();
            let word = |at: usize| u32::from_ne_bytes(octets[at..at + 4].try_into().unwrap());
            let long = |at: usize| u64::from_ne_bytes(octets[at..at + 8].try_into().unwrap());
            hints.push(Hint { kind: word(0), direction: word(4), generation: long(8), boot_ns: long(16) });
        }
        hints
    }
}

impl Bench {
    /// What the ring buffer of refusals holds; it can be asked for once.
    pub(crate) fn refusals(&mut self) -> Vec<Refusal> {
        let mut ring: RingBuf<MapData> = self.object.take_map("refusals").expect("asked for once").try_into().unwrap();
        let mut refusals = vec![];
        while let Some(item) = ring.next() {
            // SAFETY: any octets are a `Refusal`, as many as it has; the source need not be aligned.
            refusals.push(unsafe { item.as_ptr().cast::<Refusal>().read_unaligned() });
        }
        refusals
    }
}

fn program<'a>(object: &'a mut Ebpf, name: &str) -> &'a mut SchedClassifier {
    object.program_mut(name).unwrap().try_into().unwrap()
}

fn add(sum: &mut DirectionCounters, one: &DirectionCounters) {
    for (sum, one) in [
        (&mut sum.passed, one.passed),
        (&mut sum.refused, one.refused),
        (&mut sum.control, one.control),
        (&mut sum.throttled, one.throttled),
        (&mut sum.policed, one.policed),
        (&mut sum.non_ip, one.non_ip),
    ] {
        sum.octets += one.octets;
        sum.packets += one.packets;
    }
}

/// So many octets in so many packets.
pub(crate) fn tally(octets: u64, packets: u64) -> Tally {
    Tally { octets, packets }
}

/// `struct __sk_buff` with the fields that the kernel lets a test set (`include/uapi/linux/bpf.h`).
fn context(skb: Skb) -> [u8; 192] {
    let mut context = [0; 192];
    for (offset, value) in [(36, skb.ingress_ifindex), (160, skb.wire_len), (164, skb.gso_segs), (176, skb.gso_size)] {
        context[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    }
    context
}
