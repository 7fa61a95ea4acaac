//! Namespaces, captures, traffic and actors: what the scenarios and the demo are built on.

pub mod alone;
pub mod backlog;
pub mod bench;
pub mod bpffs;
pub mod browser;
pub mod capture;
pub mod cleanup;
pub mod clock;
pub mod contention;
pub mod demo;
pub mod disk;
pub mod eventually;
pub mod http;
pub mod inject;
pub mod modem;
pub mod netns;
pub mod newcomer;
pub mod offload;
pub mod packet;
pub mod page;
pub mod process;
mod reconciliation;
pub mod scenario;
pub mod sim;
mod sockets;
pub mod stranger;
pub mod testrun;
pub mod throttle;
pub mod topology;
pub mod torture;
pub mod traffic;
pub mod tun;
mod words;
pub mod wwan;

/// Which way a packet crosses the metered link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the gateway to the internet.
    Uplink,
    /// From the internet to the gateway.
    Downlink,
}

/// Packets or datagrams, and the octets they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count {
    /// How many packets (or datagrams).
    pub packets: u64,
    /// How many octets; of what, the field that holds this count says.
    pub octets: u64,
}

impl Count {
    /// Adds one packet of `octets` octets.
    pub const fn add(&mut self, octets: u64) {
        self.packets += 1;
        self.octets += octets;
    }
}

impl std::ops::Add for Count {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, octets: self.octets + other.octets }
    }
}

impl std::iter::Sum for Count {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, count| sum + count)
    }
}
