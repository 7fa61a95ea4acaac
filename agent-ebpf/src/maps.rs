//! The maps of one metered link; their names are the names of the pins.

use agent_common::{AllowKey, Counters, Filters, Gate, HINTS_OCTETS, MAX_ALLOW_ENTRIES, REFUSALS_OCTETS, Word};
use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf},
};

/// `BPF_F_MMAPABLE`: the agent stores each field of the gate by itself, so no program ever sees half a number.
const MMAPABLE: u32 = 1 << 10;

#[map(name = "counters")]
pub(crate) static COUNTERS: PerCpuArray<Counters> = PerCpuArray::with_max_entries(1, 0);

#[map(name = "word")]
pub(crate) static WORD: Array<Word> = Array::with_max_entries(1, 0);

#[map(name = "gate")]
pub(crate) static GATE: Array<Gate> = Array::with_max_entries(1, MMAPABLE);

#[map(name = "allow")]
pub(crate) static ALLOW: HashMap<AllowKey, u8> = HashMap::with_max_entries(MAX_ALLOW_ENTRIES, 0);

#[map(name = "filters")]
pub(crate) static FILTERS: Array<Filters> = Array::with_max_entries(1, 0);

#[map(name = "hints")]
pub(crate) static HINTS: RingBuf = RingBuf::with_byte_size(HINTS_OCTETS, 0);

#[map(name = "refusals")]
pub(crate) static REFUSALS: RingBuf = RingBuf::with_byte_size(REFUSALS_OCTETS, 0);
