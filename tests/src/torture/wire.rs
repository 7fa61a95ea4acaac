//! One metered link through all its lives: every capture at its far end and every meter it ever had, held against each other.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use agent::datapath::Datapath;
use agent_common::{Counters, DirectionCounters, Tally};
use anyhow::{Context as _, Result, ensure};

use crate::capture::{Capture, Classifier, End, Totals};
use crate::scenario::{Crossed, World};

/// The books of one link, from before its first meter.
pub(super) struct Wire {
    link: usize,
    server: SocketAddr,
    /// What the captures of the link's earlier lives have seen.
    earlier: Totals,
    capture: Option<Capture>,
    /// Every meter there ever was: its counters can be read even when its pins are gone.
    meters: BTreeMap<u32, Datapath>,
    /// Packets that the devices have lost in earlier lives, by their own counters.
    lost: u64,
}

impl Wire {
    /// Opens the books of a link that has no meter yet.
    pub(super) fn open(world: &World, link: usize, server: SocketAddr) -> Result<Self> {
        let mut wire =
            Self { link, server, earlier: Totals::default(), capture: None, meters: BTreeMap::new(), lost: 0 };
        wire.listen(world)?;
        Ok(wire)
    }

    /// Listens at the far end; the link must be down, or quiet.
    pub(super) fn listen(&mut self, world: &World) -> Result<()> {
        let far = &world.topology.uplinks[self.link].far;
        let classifier = Classifier::control(&[self.server]);
        self.capture = Some(Capture::start(&world.topology.internet, far, End::Far, classifier)?);
        Ok(())
    }

    /// Before the devices go: keeps their counters of lost packets, which go with them.
    pub(super) fn remember_lost(&mut self, world: &World) -> Result<()> {
        self.lost += world.topology.lost(self.link)?;
        Ok(())
    }

    /// After the devices have gone: ends the capture and keeps what it has seen.
    pub(super) fn end_life(&mut self) -> Result<()> {
        let capture = self.capture.take().context("the link was listened to")?;
        self.earlier += &capture.end()?;
        Ok(())
    }

    /// Takes the present meter into the books, if it is a new one.
    pub(super) fn look(&mut self, world: &World) {
        // Half made pins are looked at again.
        if let Ok(meter) = world.datapath(&world.topology.uplinks[self.link].near) {
            self.meters.entry(meter.epoch_id()).or_insert(meter);
        }
    }

    /// Whether a meter sits on the link as it is now.
    pub(super) fn is_metered(&self, world: &World) -> Result<()> {
        let near = &world.topology.uplinks[self.link].near;
        let ifindex = world.topology.gateway.ifindex(near)?;
        ensure!(world.datapath(near)?.is_attached(ifindex), "{near} is not metered yet");
        Ok(())
    }

    /// Everything that has crossed the link, by the far end.
    pub(super) fn seen(&self) -> Totals {
        let mut all = self.earlier.clone();
        if let Some(capture) = &self.capture {
            all += &capture.so_far();
        }
        all
    }

    /// Everything that the kernel has counted on it, over all meters.
    pub(super) fn counted(&self) -> Result<Counters> {
        let mut all = Counters::default();
        for meter in self.meters.values() {
            add(&mut all, &meter.read()?);
        }
        Ok(all)
    }

    /// Octets that have passed under its ceilings.
    pub(super) fn passed(&self) -> Result<u64> {
        let counted = self.counted()?;
        Ok(counted.uplink.passed.octets + counted.downlink.passed.octets)
    }

    /// How many meters it had.
    pub(super) fn epochs(&self) -> usize {
        self.meters.len()
    }

    /// Fails unless wire and kernel say the same at this moment, which must be a quiet one.
    pub(super) fn agrees(&self, world: &World) -> Result<()> {
        let (seen, counted) = (self.seen(), self.counted()?);
        Crossed::seen(&seen).is_as_counted(&counted).with_context(|| {
            let lost = world.topology.lost(self.link).unwrap_or_default() + self.lost;
            format!("wan{}, whose devices have lost {lost} packets", self.link)
        })
    }

    /// Ends the capture for good; fails when its figures are no oracle.
    pub(super) fn close(&mut self, world: &World) -> Result<Totals> {
        self.remember_lost(world)?;
        self.end_life()?;
        self.earlier.trustworthy().with_context(|| format!("the captures at wan{}", self.link))?;
        Ok(self.earlier.clone())
    }

    /// Packets that the devices say they have dropped. Some of these were dropped before they were captured or metered; but where wire and
    /// kernel differ, here may be why.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }
}

fn add(sum: &mut Counters, other: &Counters) {
    direction(&mut sum.uplink, &other.uplink);
    direction(&mut sum.downlink, &other.downlink);
    sum.parse_errors += other.parse_errors;
}

fn direction(sum: &mut DirectionCounters, other: &DirectionCounters) {
    let tally = |sum: &mut Tally, other: Tally| {
        sum.octets += other.octets;
        sum.packets += other.packets;
    };
    tally(&mut sum.passed, other.passed);
    tally(&mut sum.refused, other.refused);
    tally(&mut sum.control, other.control);
    tally(&mut sum.throttled, other.throttled);
    tally(&mut sum.policed, other.policed);
    tally(&mut sum.non_ip, other.non_ip);
}
