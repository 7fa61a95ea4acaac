//! Keys and values of the BPF maps: plain integers with a fixed layout, shared by the TC programs and the agent.
//!
//! Every map has one writer. The kernel writes [`Counters`] and [`Word`], which only grow inside an epoch; the agent
//! writes [`Gate`] and the allow-list. A value is never shared between the two, because the kernel's map update
//! copies the whole value over counts that a program may be adding to at that moment.
#![no_std]

#[cfg(feature = "user")]
mod pod;

/// Version of the layout below; it names the directory of the pins, so an agent never adopts a layout it does not know.
pub const LAYOUT_VERSION: u32 = 2;

/// Ceilings above this value are taken as this value. The word of a gate can therefore never wrap: it would have to
/// hold 2^63 octets of packets that are in flight at the same moment.
pub const MAX_CEILING: u64 = i64::MAX as u64;

/// Most entries the allow-list can hold.
pub const MAX_ALLOW_ENTRIES: u32 = 256;

/// Most entries the list of filters can hold.
pub const MAX_FILTERS: usize = 32;

/// Size of the ring buffer of hints, in octets; the loader rounds it up to a page.
pub const HINTS_OCTETS: u32 = 4096;

/// Size of the ring buffer of refusals, in octets: more than is told at once.
pub const REFUSALS_OCTETS: u32 = 32_768;

/// Octets of a refused packet that are told at most: its IP header, and what its sender knows it by.
pub const REFUSAL_OCTETS: usize = 120;

/// [`Gate::mode`]: a packet that finds the gate shut is dropped.
pub const MODE_BLOCK: u64 = 0;
/// [`Gate::mode`]: a packet that finds the gate shut passes at [`Gate::throttle_rate`].
pub const MODE_THROTTLE: u64 = 1;

/// [`Gate::mode`]: a packet that finds the gate shut passes if the [`Filters`] permit it.
pub const MODE_RESTRICT: u64 = 2;

/// [`Filter::verdict`]: the list has ended; what has come here is refused.
pub const FILTER_END: u32 = 0;
/// [`Filter::verdict`]: a packet that fits passes.
pub const FILTER_PERMIT: u32 = 1;
/// [`Filter::verdict`]: a packet that fits is refused.
pub const FILTER_DENY: u32 = 2;
/// [`Filter::protocol`]: any.
pub const ANY_PROTOCOL: u32 = 256;

/// [`Gate::link_type`]: frames begin with the IP header (`ARPHRD_NONE`, `ARPHRD_RAWIP`, `ARPHRD_PPP`, tun).
pub const LINK_RAW_IP: u64 = 0;
/// [`Gate::link_type`]: frames begin with an Ethernet header.
pub const LINK_ETHERNET: u64 = 1;

/// [`Hint::kind`]: the word of the gate has reached [`Gate::threshold`].
pub const HINT_THRESHOLD: u32 = 1;
/// [`Hint::kind`]: the first packet was refused or throttled since the gate was last written.
pub const HINT_REFUSAL: u32 = 2;

/// [`Hint::direction`]: out of the gateway, the egress hook.
pub const UPLINK: u32 = 0;
/// [`Hint::direction`]: into the gateway, the ingress hook.
pub const DOWNLINK: u32 = 1;

/// [`AllowKey::family`] of IPv4.
pub const FAMILY_V4: u8 = 4;
/// [`AllowKey::family`] of IPv6.
pub const FAMILY_V6: u8 = 6;

/// What the agent permits; all zero is shut. Written by the agent alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    /// Octets that may have passed in total, in the same count as [`Word::gate`]: absolute, only ever compared.
    pub ceiling: u64,
    /// `CLOCK_BOOTTIME` in nanoseconds after which nothing more passes; 0 = no deadline.
    pub deadline_boot_ns: u64,
    /// Value of [`Word::gate`] at which a hint is sent; 0 = none.
    pub threshold: u64,
    /// Octets that control traffic may have used in total, in the same count as [`Word::control`].
    pub control_ceiling: u64,
    /// What happens to a packet that finds the gate shut: [`MODE_BLOCK`], [`MODE_THROTTLE`] or
    /// [`MODE_RESTRICT`].
    pub mode: u64,
    /// Octets a second that pass a shut gate in [`MODE_THROTTLE`]; 0 = none.
    pub throttle_rate: u64,
    /// Debt within which a packet passes the policer, in nanoseconds of sending at [`Gate::throttle_rate`]; what is larger than it never does.
    pub throttle_tolerance_ns: u64,
    /// What frames begin with: [`LINK_RAW_IP`] or [`LINK_ETHERNET`]. A hint, verified on every packet.
    pub link_type: u64,
    /// Changes with every write and is never 0 after the first; one refusal is hinted for each value.
    pub generation: u64,
    /// Not 0: those behind the gateway are to hear when their packets are refused, by [`Refusal`]s.
    pub tells_refusals: u64,
}

/// The words that the programs decide by. Written by the kernel alone.
///
/// `gate` and `control` are briefly above the truth while a packet is being refused, so reports never read them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// Octets admitted under the ceiling, both directions together.
    pub gate: u64,
    /// Octets admitted by the allow-list after a refusal, both directions together.
    pub control: u64,
    /// Theoretical arrival time of the policer, `CLOCK_BOOTTIME` in nanoseconds.
    pub tat: u64,
    /// Last [`Gate::generation`] under which a refusal was hinted.
    pub hinted_generation: u64,
    /// Last [`Gate::generation`] under which a frame of the other link type was logged.
    pub logged_generation: u64,
    /// When the next refused connection may be told, `CLOCK_BOOTTIME` in nanoseconds.
    pub next_answer: u64,
    /// The same for packets of other kinds.
    pub next_other_answer: u64,
}

/// How much of one kind: L3 octets after segmentation, and packets after segmentation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Octets at layer 3, as they are on the air.
    pub octets: u64,
    /// Packets, as they are on the air.
    pub packets: u64,
}

/// Everything that happened in one direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionCounters {
    /// Admitted under the ceiling: the billable usage.
    pub passed: Tally,
    /// Dropped at a shut gate. Downlink counted here has been paid for on the air all the same.
    pub refused: Tally,
    /// Admitted by the allow-list after a refusal, out of the reserve.
    pub control: Tally,
    /// Admitted beyond the ceiling after a refusal: by the policer, or by the filters.
    pub throttled: Tally,
    /// Dropped by the policer after a refusal.
    pub policed: Tally,
    /// Frames that carry no IP (ARP and others), passed or not: never billable. Octets without the Ethernet header.
    pub non_ip: Tally,
}

/// Everything that happened on one CPU. Written by the kernel alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Out of the gateway, the egress hook.
    pub uplink: DirectionCounters,
    /// Into the gateway, the ingress hook.
    pub downlink: DirectionCounters,
    /// IP packets whose headers could not be read; they were counted by their length.
    pub parse_errors: u64,
}

/// A remote end that may be reached through a shut gate. Written by the agent alone; only the presence counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AllowKey {
    /// Remote address in network order, IPv4 in the first four octets; all zero = any.
    pub address: [u8; 16],
    /// Remote port in host order; for `ICMPv6` the type of the message.
    pub port: u16,
    /// [`FAMILY_V4`] or [`FAMILY_V6`].
    pub family: u8,
    /// Protocol number (IANA): 6 TCP, 17 UDP, 58 `ICMPv6`.
    pub protocol: u8,
}

/// What a packet beyond the ceiling has to be like to fit, and what becomes of it then. Only compared: all zero fits nothing.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// [`FILTER_END`], [`FILTER_PERMIT`] or [`FILTER_DENY`].
    pub verdict: u32,
    /// [`UPLINK`] or [`DOWNLINK`].
    pub direction: u32,
    /// 4 or 6; 0 = any.
    pub family: u32,
    /// Protocol number (IANA), or [`ANY_PROTOCOL`].
    pub protocol: u32,
    /// Address of this end, as words in network order, IPv4 in the first; only the bits of the mask count.
    pub local: [u32; 4],
    /// Which bits of [`Filter::local`] count.
    pub local_mask: [u32; 4],
    /// Address of the far end, in the same form.
    pub remote: [u32; 4],
    /// Which bits of [`Filter::remote`] count.
    pub remote_mask: [u32; 4],
    /// First and last port of this end.
    pub local_ports: [u16; 2],
    /// First and last port of the far end.
    pub remote_ports: [u16; 2],
    /// Not 0 = the ports count, and a packet without ports does not fit.
    pub has_ports: u32,
}

/// What passes beyond the ceiling in [`MODE_RESTRICT`]: the first filter that fits decides. Written by the agent alone, and never while
/// the gate is in that mode.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filters {
    /// In their order, up to [`FILTER_END`].
    pub list: [Filter; MAX_FILTERS],
}

/// Something the agent should look at soon. A hint beside a timer, never the only signal: it may be lost.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    /// [`HINT_THRESHOLD`] or [`HINT_REFUSAL`].
    pub kind: u32,
    /// [`UPLINK`] or [`DOWNLINK`].
    pub direction: u32,
    /// [`Gate::generation`] that the packet met.
    pub generation: u64,
    /// `CLOCK_BOOTTIME` in nanoseconds when it happened.
    pub boot_ns: u64,
}

/// The head of a packet from behind the gateway that was refused. Now and then one is lost; its sender tries again.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// How many of the octets are the packet's, at most [`REFUSAL_OCTETS`].
    pub length: u32,
    /// The index of the interface by which it came into the gateway.
    pub came_in_by: u32,
    /// From the IP header on.
    pub octets: [u8; REFUSAL_OCTETS],
}

impl Refusal {
    /// The octets that are the packet's.
    #[must_use]
    pub fn head(&self) -> &[u8] {
        self.octets.get(..self.length as usize).unwrap_or_default()
    }
}

// The layout is the contract between two compilers: a change here is a new `LAYOUT_VERSION`.
const _: () = {
    assert!(size_of::<Gate>() == 80 && align_of::<Gate>() == 8);
    assert!(size_of::<Word>() == 56 && align_of::<Word>() == 8);
    assert!(size_of::<Tally>() == 16);
    assert!(size_of::<DirectionCounters>() == 6 * 16);
    assert!(size_of::<Counters>() == 2 * 6 * 16 + 8 && align_of::<Counters>() == 8);
    assert!(size_of::<Filter>() == 92 && align_of::<Filter>() == 4);
    assert!(size_of::<Filters>() == MAX_FILTERS * 92);
    assert!(size_of::<AllowKey>() == 20 && align_of::<AllowKey>() == 2);
    assert!(size_of::<Refusal>() == 128 && align_of::<Refusal>() == 4);
    assert!(size_of::<Hint>() == 24 && align_of::<Hint>() == 8);
};
