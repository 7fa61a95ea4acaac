//! What the model of a packet is told beside its octets.

/// Which program gets the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Uplink,
    Downlink,
}

/// What the kernel knows of an skb beside its octets.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Skb {
    pub(crate) gso_size: u32,
    pub(crate) gso_segs: u32,
}
