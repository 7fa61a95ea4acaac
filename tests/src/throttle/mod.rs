//! How exactly a throttled link keeps its rate: one flow at a time through a meter whose gate is shut, at a distance from its server.

mod lab;
mod shaper;

use std::fmt;
use std::time::Duration;

pub use self::lab::{Fared, Lab};
use crate::Direction;

/// What carries the octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TCP with the kernel's congestion control of this name.
    Tcp(&'static str),
    /// The same between two ends that agree on ECN.
    TcpEcn(&'static str),
    /// Datagrams of 1400 octets, sent half as fast again as the link is throttled.
    Udp,
    /// The same in super-packets of 45 segments, which are close to 64 KiB.
    UdpTrains,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(control) => write!(f, "TCP {control}"),
            Self::TcpEcn(control) => write!(f, "TCP {control} ECN"),
            Self::Udp => f.write_str("UDP"),
            Self::UdpTrains => f.write_str("UDP 64 KiB"),
        }
    }
}

/// What holds the flow at its rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Means {
    /// The meter's own policer.
    Policer,
    /// A queue of the kernel's in its place (`tbf`, behind an `ifb` for the downlink), with the gate open.
    Shaper,
}

impl fmt::Display for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Policer => "policer",
            Self::Shaper => "tbf",
        })
    }
}

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    /// What the link is throttled to, in bits per second.
    pub rate: u64,
    /// Who sends.
    pub protocol: Protocol,
    /// Which way.
    pub direction: Direction,
    /// There and back, without any queue.
    pub round_trip: Duration,
    /// By what it is throttled.
    pub means: Means,
}

impl Cell {
    /// The rate in octets per second.
    #[must_use]
    pub const fn octets_per_second(&self) -> u64 {
        self.rate / 8
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Uplink => "uplink",
            Direction::Downlink => "downlink",
        };
        write!(
            f,
            "{}, {} {direction}, {} ms, {}",
            Rate(self.rate),
            self.protocol,
            self.round_trip.as_millis(),
            self.means
        )
    }
}

/// Bits per second, for people.
#[derive(Debug, Clone, Copy)]
pub struct Rate(
    /// How many.
    pub u64,
);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 >= 1_000_000 {
            write!(f, "{} Mbit/s", self.0 / 1_000_000)
        } else {
            write!(f, "{} kbit/s", self.0 / 1000)
        }
    }
}
