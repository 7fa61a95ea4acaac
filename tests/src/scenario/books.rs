//! The books of one link: what crossed its wire by the far-end capture, held against what the kernel has counted.

use std::time::Duration;

use agent::datapath::counters_of;
use agent_common::{Counters, DirectionCounters, Tally};
use anyhow::{Context as _, Result, ensure};
use aya::maps::MapData;

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
    /// Epochs of meters that were replaced since, and their counters, which live as long as somebody has them open.
    replaced: Vec<(u32, MapData)>,
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

    /// What the kernel says that has crossed.
    #[must_use]
    pub const fn counted(counted: &Counters) -> Self {
        let (up, down) = (&counted.uplink, &counted.downlink);
        // Uplink that is refused was never sent; downlink that is refused has crossed the wire.
        let uplink = up.passed.octets + up.control.octets + up.throttled.octets;
        let downlink = down.passed.octets
            + down.control.octets
            + down.throttled.octets
            + down.refused.octets
            + down.policed.octets;
        Self { uplink, downlink }
    }

    /// Fails unless the kernel has counted just that.
    pub fn is_as_counted(&self, counted: &Counters) -> Result<()> {
        let Self { uplink, downlink } = Self::counted(counted);
        ensure!(
            (self.uplink, self.downlink) == (uplink, downlink),
            "the capture saw {} up, {} down; the kernel counted {uplink} up, {downlink} down: {counted:?}",
            self.uplink,
            self.downlink,
        );
        Ok(())
    }

    /// Fails unless the kernel has counted just that, but for at most so many octets that found no link when they arrived. Answers with
    /// what it has counted.
    pub fn is_as_counted_but_for(self, met_no_link: u64, counted: &Counters) -> Result<Self> {
        let known = Self::counted(counted);
        let lost = self.downlink.checked_sub(known.downlink);
        ensure!(
            self.uplink == known.uplink && lost.is_some_and(|lost| lost <= met_no_link),
            "the capture saw {self:?}, {met_no_link} down perhaps for nothing; the kernel counted {known:?}"
        );
        Ok(known)
    }
}

impl Books {
    /// Opens them before there is a meter: from the first packet that any agent has sent.
    pub fn before_the_agent(world: &World, link: usize) -> Result<Self> {
        let capture = listen(world, link)?;
        let wire = capture.quiet()?;
        Ok(Self { link, capture, wire, kernel: Counters::default(), replaced: Vec::new() })
    }

    /// Opens them at a quiet moment. The link must be metered already.
    pub fn open(world: &World, link: usize) -> Result<Self> {
        let capture = listen(world, link)?;
        let (wire, kernel) = at_rest(&capture, || world.kernel(link))?;
        Ok(Self { link, capture, wire, kernel, replaced: Vec::new() })
    }

    /// What the kernel has counted since the books were opened: each figure of the one less the same of the other.
    pub fn counted(&self, world: &World) -> Result<Counters> {
        Ok(difference(&self.kernel(world)?, &self.kernel))
    }

    /// Keeps the meter that the link has now: it is about to be replaced, and its counts go on belonging to these books.
    pub fn keep_meter(&mut self, world: &World) -> Result<()> {
        let epoch_id = world.datapath(&world.topology.uplinks[self.link].near)?.epoch_id();
        self.replaced.push((epoch_id, MapData::from_id(epoch_id)?));
        Ok(())
    }

    /// What all meters of the link have counted, from the beginning of each.
    pub fn kernel(&self, world: &World) -> Result<Counters> {
        let present = world.datapath(&world.topology.uplinks[self.link].near)?;
        let earlier = self.replaced.iter().map(|(epoch_id, _)| *epoch_id).filter(|epoch| *epoch != present.epoch_id());
        earlier.map(counters_of).try_fold(present.read()?, |all, meter| Ok(sum(&all, &meter?)))
    }

    /// What was seen on the wire, the time before the books were opened included.
    #[must_use]
    pub fn seen(&self) -> Totals {
        self.capture.so_far()
    }

    /// Waits for a quiet moment, then holds the wire against the kernel, to the octet, in both directions.
    pub fn agree(&self, world: &World) -> Result<Crossed> {
        let (wire, crossed, counted) = self.balance(world)?;
        crossed.is_as_counted(&counted).with_context(|| format!("{wire:?}"))?;
        Ok(crossed)
    }

    /// The same for the last time: the capture ends, and fails if it may have been wrong.
    pub fn close(self, world: &World) -> Result<Crossed> {
        let crossed = self.agree(world)?;
        self.capture.stop()?;
        Ok(crossed)
    }

    /// The same of a link that was gone for a while: what the far end's kernel and the server have sent to it meanwhile
    /// has crossed for nothing. All that left the gateway has to agree, and of what was sent to it all that was the client's.
    pub fn close_with_gaps(self, world: &World) -> Result<Crossed> {
        let (wire, crossed, counted) = self.balance(world)?;
        let others = wire.ip(Downlink).octets - wire.payload(Downlink).octets;
        let counted = crossed.is_as_counted_but_for(others, &counted).with_context(|| format!("{wire:?}"))?;
        self.capture.stop()?;
        Ok(counted)
    }

    /// What has crossed and what was counted, at a quiet moment.
    fn balance(&self, world: &World) -> Result<(Totals, Crossed, Counters)> {
        let (wire, kernel) = at_rest(&self.capture, || self.kernel(world))?;
        let crossed = Crossed {
            uplink: wire.ip(Uplink).octets - self.wire.ip(Uplink).octets,
            downlink: wire.ip(Downlink).octets - self.wire.ip(Downlink).octets,
        };
        wire.trustworthy()?;
        ensure!(kernel.parse_errors == 0, "{} packets could not be read", kernel.parse_errors);
        Ok((wire, crossed, difference(&kernel, &self.kernel)))
    }
}

fn listen(world: &World, link: usize) -> Result<Capture> {
    let servers = world.server.as_ref().map(|server| server.address);
    let far = &world.topology.uplinks[link].far;
    Capture::start(&world.topology.internet, far, End::Far, Classifier::control(servers.as_slice()))
}

/// A moment at which nothing moved: the kernel said the same before and after the wire was quiet.
fn at_rest(capture: &Capture, kernel: impl Fn() -> Result<Counters>) -> Result<(Totals, Counters)> {
    eventually("wire and kernel to rest", PATIENCE, || {
        let before = kernel()?;
        let wire = capture.quiet()?;
        let after = kernel()?;
        ensure!(before == after, "still counting");
        Ok((wire, after))
    })
}

fn difference(later: &Counters, earlier: &Counters) -> Counters {
    each(later, earlier, |later, earlier| later - earlier)
}

fn sum(one: &Counters, other: &Counters) -> Counters {
    each(one, other, |one, other| one + other)
}

/// Figure by figure.
fn each(one: &Counters, other: &Counters, act: impl Fn(u64, u64) -> u64) -> Counters {
    let tally = |one: Tally, other: Tally| Tally {
        octets: act(one.octets, other.octets),
        packets: act(one.packets, other.packets),
    };
    let direction = |one: &DirectionCounters, other: &DirectionCounters| DirectionCounters {
        passed: tally(one.passed, other.passed),
        refused: tally(one.refused, other.refused),
        control: tally(one.control, other.control),
        throttled: tally(one.throttled, other.throttled),
        policed: tally(one.policed, other.policed),
        non_ip: tally(one.non_ip, other.non_ip),
    };
    Counters {
        uplink: direction(&one.uplink, &other.uplink),
        downlink: direction(&one.downlink, &other.downlink),
        parse_errors: act(one.parse_errors, other.parse_errors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_met_no_link_is_not_missed_and_anything_else_is() {
        let passed = |octets| Tally { octets, packets: 1 };
        let mut counted = Counters::default();
        (counted.uplink.passed, counted.downlink.passed) = (passed(1000), passed(5000));
        let crossed = Crossed { uplink: 1000, downlink: 5070 };
        assert_eq!(crossed.is_as_counted_but_for(70, &counted).unwrap(), Crossed { uplink: 1000, downlink: 5000 });
        crossed.is_as_counted_but_for(69, &counted).unwrap_err();
        Crossed { uplink: 1001, ..crossed }.is_as_counted_but_for(70, &counted).unwrap_err();
        Crossed { downlink: 4999, ..crossed }.is_as_counted_but_for(70, &counted).unwrap_err();
    }
}
