//! The books of one link: what crossed its wire by the far-end capture, held against what the kernel has counted.

use std::time::Duration;

use agent_common::{Counters, DirectionCounters};
use anyhow::{Context as _, Result, ensure};

use super::World;
use crate::Direction::{Downlink, Uplink};
use crate::capture::{Capture, Classifier, End, Totals};
use crate::eventually::eventually;

/// How long the last packets may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A capture at the far end of one metered link, and where wire and kernel stood when it began to count.
#[derive(Debug)]
pub struct Books {
    link: usize,
    capture: Capture,
    wire: Totals,
    kernel: Counters,
}

/// What has crossed since then, by the capture: IP octets of every class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crossed {
    /// From the gateway.
    pub uplink: u64,
    /// To the gateway, refused there or not.
    pub downlink: u64,
}

impl Crossed {
    /// What the far-end capture of a link has seen.
    #[must_use]
    pub fn seen(wire: &Totals) -> Self {
        Self { uplink: wire.ip(Uplink).octets, downlink: wire.ip(Downlink).octets }
    }

    /// Fails unless the kernel has counted just that.
    pub fn is_as_counted(&self, counted: &Counters) -> Result<()> {
        let (up, down) = (&counted.uplink, &counted.downlink);
        // Uplink that is refused was never sent; downlink that is refused has crossed the wire.
        let uplink = up.passed.octets + up.control.octets + up.throttled.octets;
        let downlink = down.passed.octets
            + down.control.octets
            + down.throttled.octets
            + down.refused.octets
            + down.policed.octets;
        ensure!(
            (self.uplink, self.downlink) == (uplink, downlink),
            "the capture saw {} up, {} down; the kernel counted {uplink} up, {downlink} down: {counted:?}",
            self.uplink,
            self.downlink,
        );
        Ok(())
    }
}

impl Books {
    /// Opens them before there is a meter: from the first packet that any agent has sent.
    pub fn before_the_agent(world: &World, link: usize) -> Result<Self> {
        let capture = listen(world, link)?;
        let wire = capture.quiet()?;
        Ok(Self { link, capture, wire, kernel: Counters::default() })
    }

    /// Opens them at a quiet moment. The link must be metered already.
    pub fn open(world: &World, link: usize) -> Result<Self> {
        let capture = listen(world, link)?;
        let (wire, kernel) = at_rest(world, link, &capture)?;
        Ok(Self { link, capture, wire, kernel })
    }

    /// What the kernel has counted since the books were opened: each figure of the one less the same of the other.
    pub fn counted(&self, world: &World) -> Result<Counters> {
        Ok(difference(&world.kernel(self.link)?, &self.kernel))
    }

    /// What was seen on the wire, the time before the books were opened included.
    #[must_use]
    pub fn seen(&self) -> Totals {
        self.capture.so_far()
    }

    /// Waits for a quiet moment, then holds the wire against the kernel, to the octet, in both directions.
    pub fn agree(&self, world: &World) -> Result<Crossed> {
        let (wire, kernel) = at_rest(world, self.link, &self.capture)?;
        let crossed = Crossed {
            uplink: wire.ip(Uplink).octets - self.wire.ip(Uplink).octets,
            downlink: wire.ip(Downlink).octets - self.wire.ip(Downlink).octets,
        };
        let counted = difference(&kernel, &self.kernel);
        crossed.is_as_counted(&counted).with_context(|| format!("{wire:?}"))?;
        wire.trustworthy()?;
        ensure!(kernel.parse_errors == 0, "{} packets could not be read", kernel.parse_errors);
        Ok(crossed)
    }

    /// The same for the last time: the capture ends, and fails if it may have been wrong.
    pub fn close(self, world: &World) -> Result<Crossed> {
        let crossed = self.agree(world)?;
        self.capture.stop()?;
        Ok(crossed)
    }
}

fn listen(world: &World, link: usize) -> Result<Capture> {
    let servers = world.server.as_ref().map(|server| server.address);
    let far = &world.topology.uplinks[link].far;
    Capture::start(&world.topology.internet, far, End::Far, Classifier::control(servers.as_slice()))
}

/// A moment at which nothing moved: the kernel said the same before and after the wire was quiet.
fn at_rest(world: &World, link: usize, capture: &Capture) -> Result<(Totals, Counters)> {
    eventually("wire and kernel to rest", PATIENCE, || {
        let before = world.kernel(link)?;
        let wire = capture.quiet()?;
        let kernel = world.kernel(link)?;
        ensure!(before == kernel, "still counting");
        Ok((wire, kernel))
    })
}

fn difference(later: &Counters, earlier: &Counters) -> Counters {
    Counters {
        uplink: direction(&later.uplink, &earlier.uplink),
        downlink: direction(&later.downlink, &earlier.downlink),
        parse_errors: later.parse_errors - earlier.parse_errors,
    }
}

fn direction(later: &DirectionCounters, earlier: &DirectionCounters) -> DirectionCounters {
    let tally = |later: agent_common::Tally, earlier: agent_common::Tally| agent_common::Tally {
        octets: later.octets - earlier.octets,
        packets: later.packets - earlier.packets,
    };
    DirectionCounters {
        passed: tally(later.passed, earlier.passed),
        refused: tally(later.refused, earlier.refused),
        control: tally(later.control, earlier.control),
        throttled: tally(later.throttled, earlier.throttled),
        policed: tally(later.policed, earlier.policed),
        non_ip: tally(later.non_ip, earlier.non_ip),
    }
}
