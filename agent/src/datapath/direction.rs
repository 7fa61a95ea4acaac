//! The two hooks of a link, and the program that belongs to each.

use std::fmt;

/// One of the two programs and where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// Out of the gateway: the egress hook.
    Uplink,
    /// Into the gateway: the ingress hook.
    Downlink,
}

/// Both, in the order in which they are attached: what is sent is metered before what comes back.
pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Uplink, Direction::Downlink];

impl Direction {
    /// Name of the program in the object, and in the kernel.
    #[must_use]
    pub(super) fn program_name(self) -> &'static str {
        match self {
            Self::Uplink => "weir_uplink",
            Self::Downlink => "weir_downlink",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Uplink => "uplink",
            Self::Downlink => "downlink",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}
