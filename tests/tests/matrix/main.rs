//! The exactness matrix: each kind of traffic over each kind of link, whole and in super-packets, both ways, held against the far end.
//!
//! A cell is one kind one way over one link. It holds when the programs have counted to the octet and to the packet what the capture at
//! the far end saw, both ways, and when that is what the test itself has sent, where the test knows it.

mod craft;
mod flows;
mod overlay;
mod table;

use std::time::Duration;

use agent::datapath::{Datapath, LoadSpec, load_and_pin};
use agent_common::{Gate, LINK_ETHERNET, LINK_RAW_IP, Tally};
use anyhow::{Context as _, Result, bail};
use e2e::Direction::{self, Downlink, Uplink};
use e2e::bpffs::Workdir;
use e2e::capture::{Capture, Classifier, End, Totals};
use e2e::clock::Deadline;
use e2e::offload::{Switch, hold_gro, set_gro, set_segmentation, set_udp_gro};
use e2e::topology::{CLIENT, LAN, Layout, Medium, Topology};

use self::table::{Row, Table};

/// Silence after which nothing of a cell is on its way any more.
const SILENCE: Duration = Duration::from_millis(50);
/// Longer than that a capture is never behind; what still differs then stays different.
const PATIENCE: Duration = Duration::from_secs(4);
/// What the devices lose between the two ends one of them rightly does not count; then the cell is played once more.
const ATTEMPTS: u32 = 5;

/// A metered link, and who listens where.
struct Link {
    topology: Topology,
    medium: Medium,
    /// On: packets reach the hooks merged, where the kernel can.
    merging: Switch,
    datapath: Datapath,
    /// The oracle.
    far: Capture,
    /// Where what was merged is seen so: towards the client, and what comes in over the metered link itself.
    merged: [Capture; 2],
    _workdir: Workdir,
}

/// Where everything stood.
struct Moment {
    wire: Totals,
    kernel: agent_common::Counters,
    super_packets: u64,
}

impl Link {
    fn build(medium: Medium, merging: Switch) -> Result<Self> {
        let topology = Topology::build(&Layout { uplinks: vec![medium], gro: merging, ..Layout::default() })?;
        for interface in [LAN, "wan0"] {
            set_udp_gro(&topology.gateway, interface, merging)?;
        }
        set_gro(&topology.gateway, LAN, merging)?;
        // What the client sends stays whole on its way to the gateway, or is cut before.
        set_segmentation(&topology.client, CLIENT, merging)?;
        if merging == Switch::On {
            hold_gro(&topology.gateway, LAN)?;
            hold_gro(&topology.gateway, "wan0")?;
        }
        craft::route_sinks(&topology)?;
        let workdir = Workdir::with_bpffs("matrix")?;
        let spec = LoadSpec { link: "wan0".to_owned(), pin_root: workdir.bpf().join("weir"), retire: Vec::new() };
        topology.gateway.run_in(|| load_and_pin(&spec))??;
        let mut datapath = Datapath::open(&spec.pin_root, "wan0")?;
        let link_type = if medium == Medium::Veth { LINK_ETHERNET } else { LINK_RAW_IP };
        datapath.set_gate(&Gate { ceiling: u64::MAX, link_type, ..Gate::default() })?;
        topology.settle()?;
        let listen = |namespace, interface| Capture::start(namespace, interface, End::Near, Classifier::default());
        let merged = [listen(&topology.gateway, LAN)?, listen(&topology.gateway, "wan0")?];
        let far = Capture::start(&topology.internet, &topology.uplinks[0].far, End::Far, Classifier::default())?;
        Ok(Self { topology, medium, merging, datapath, far, merged, _workdir: workdir })
    }

    fn now(&self) -> Result<Moment> {
        Ok(Moment {
            wire: self.far.quiet_for(SILENCE)?,
            kernel: self.datapath.read()?,
            super_packets: self.merged.iter().map(|capture| capture.so_far().super_packets).sum(),
        })
    }

    /// Plays one cell: `play` sends, and answers how many octets and packets went in `direction`, if it knows.
    fn cell(&self, kind: &str, direction: Direction, play: impl Fn() -> Result<Option<Tally>>) -> Result<Row> {
        for _ in 0..ATTEMPTS {
            let (before, lost) = (self.now()?, self.topology.lost(0)?);
            let sent = play().with_context(|| format!("{kind}, {direction:?}"))?;
            let row = self.compare(kind, direction, &before, sent)?;
            // (A frame with a tag that nobody knows is dropped as well, behind both.) A stray packet of the cell before, counted by both,
            // is none of this one's.
            let is_stray = row.wire == row.kernel && row.parse_errors == 0;
            if row.is_exact() || (!is_stray && self.topology.lost(0)? == lost) {
                return Ok(row);
            }
        }
        bail!("{kind}, {direction:?}: wan0 lost packets, or others crossed it, in each of {ATTEMPTS} attempts")
    }

    /// What has happened since `before`, at the latest moment at which wire and kernel agree.
    fn compare(&self, kind: &str, direction: Direction, before: &Moment, sent: Option<Tally>) -> Result<Row> {
        let deadline = Deadline::after(PATIENCE);
        loop {
            let after = self.now()?;
            let row = Row {
                kind: kind.to_owned(),
                direction,
                wire: [Uplink, Downlink].map(|way| {
                    let (after, before) = (after.wire.ip(way), before.wire.ip(way));
                    Tally { octets: after.octets - before.octets, packets: after.packets - before.packets }
                }),
                kernel: [
                    less(after.kernel.uplink.passed, before.kernel.uplink.passed),
                    less(after.kernel.downlink.passed, before.kernel.downlink.passed),
                ],
                parse_errors: after.kernel.parse_errors - before.kernel.parse_errors,
                super_packets: after.super_packets - before.super_packets,
                sent,
            };
            if row.is_exact() || deadline.passed() {
                return Ok(row);
            }
        }
    }
}

fn less(later: Tally, earlier: Tally) -> Tally {
    Tally { octets: later.octets - earlier.octets, packets: later.packets - earlier.packets }
}

/// Plays all kinds over one link.
fn matrix(medium: Medium, merging: Switch) -> Result<()> {
    let link = Link::build(medium, merging)?;
    let mut table = Table::new(format!("{medium:?}, merging {merging:?}"));
    for direction in [Uplink, Downlink] {
        flows::play(&link, direction, &mut table)?;
        overlay::play(&link, direction, &mut table)?;
        craft::play(&link, direction, &mut table)?;
    }
    let [lan, near] = link.merged;
    lan.end()?;
    near.end()?;
    link.far.stop()?;
    table.close()
}

#[test]
fn each_kind_of_traffic_is_counted_to_the_octet_on_ethernet() -> Result<()> {
    matrix(Medium::Veth, Switch::Off)
}

#[test]
fn each_kind_of_traffic_is_counted_to_the_octet_on_ethernet_in_super_packets() -> Result<()> {
    matrix(Medium::Veth, Switch::On)
}

#[test]
fn each_kind_of_traffic_is_counted_to_the_octet_on_raw_ip() -> Result<()> {
    matrix(Medium::RawIp, Switch::Off)
}

#[test]
fn each_kind_of_traffic_is_counted_to_the_octet_on_raw_ip_in_super_packets() -> Result<()> {
    matrix(Medium::RawIp, Switch::On)
}
