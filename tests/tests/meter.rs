//! The kernel meter on real traffic, without an agent: what it counts is what the far end captures, to the octet.

use std::net::IpAddr;

use agent::datapath::{Datapath, LoadSpec, load_and_pin};
use agent_common::{Gate, LINK_ETHERNET, LINK_RAW_IP, Tally};
use anyhow::{Context as _, Result, bail};
use e2e::Direction::{self, Downlink, Uplink};
use e2e::bpffs::Workdir;
use e2e::capture::{Capture, Classifier, End};
use e2e::topology::{CLIENT_V4, CLIENT_V6, HOST_V4, HOST_V6, Layout, Medium, Topology};
use e2e::traffic::{Datagrams, TcpServer, Transfer, udp};

fn open(link_type: u64) -> Gate {
    Gate { ceiling: u64::MAX, link_type, ..Gate::default() }
}

/// Meters `wan0` of a new world, sends TCP and UDP both ways, and compares.
fn meter_agrees_with_the_far_end(layout: &Layout, link_type: u64, segment: Option<u16>) -> Result<()> {
    let world = Topology::build(layout)?;
    let workdir = Workdir::with_bpffs("meter")?;
    let spec = LoadSpec { link: "wan0".to_owned(), pin_root: workdir.bpf().join("weir"), retire: Vec::new() };
    world.gateway.run_in(|| load_and_pin(&spec))??;
    let mut datapath = Datapath::open(&spec.pin_root, "wan0")?;
    datapath.set_gate(&open(link_type))?;
    for ends in [(CLIENT_V4, HOST_V4), (CLIENT_V6, HOST_V6)] {
        compare(&world, &datapath, ends, segment)?;
    }
    Ok(())
}

/// What the devices lose between the two ends one of them rightly does not count; then it is done once more.
const ATTEMPTS: u32 = 5;

fn compare(world: &Topology, datapath: &Datapath, ends: (IpAddr, IpAddr), segment: Option<u16>) -> Result<()> {
    for _ in 0..ATTEMPTS {
        world.settle()?;
        let (before, lost) = (datapath.read()?, world.lost(0)?);
        let capture = Capture::start(&world.internet, &world.uplinks[0].far, End::Far, Classifier::default())?;
        for direction in [Uplink, Downlink] {
            send(world, direction, ends, segment)?;
        }
        let totals = capture.stop()?;
        let after = datapath.read()?;
        if world.lost(0)? != lost {
            continue;
        }
        assert_eq!(after.parse_errors, 0);
        for (direction, before, after) in [
            (Uplink, before.uplink.passed, after.uplink.passed),
            (Downlink, before.downlink.passed, after.downlink.passed),
        ] {
            let captured = totals.ip(direction);
            let counted = Tally { octets: after.octets - before.octets, packets: after.packets - before.packets };
            let captured = Tally { octets: captured.octets, packets: captured.packets };
            assert_eq!(counted, captured, "{direction:?} of {ends:?}");
            assert!(counted.octets > 1_000_000);
        }
        return Ok(());
    }
    bail!("wan0 lost packets in each of {ATTEMPTS} attempts")
}

fn send(world: &Topology, direction: Direction, (client, host): (IpAddr, IpAddr), segment: Option<u16>) -> Result<()> {
    let server = TcpServer::start(&world.internet, host)?;
    server
        .transfer(&world.client, Transfer { segment, rate: Some(10_000_000), ..Transfer::of(direction, 1_000_000) })?;
    let datagrams = Datagrams::of(160, 1200).with_segments(16);
    let flow = match direction {
        Uplink => udp(&world.client, (&world.internet, host), datagrams)?,
        Downlink => udp(&world.internet, (&world.client, client), datagrams)?,
    };
    flow.join().context("datagrams")?;
    Ok(())
}

#[test]
fn every_octet_is_counted_on_ethernet() -> Result<()> {
    meter_agrees_with_the_far_end(&Layout::default(), LINK_ETHERNET, None)
}

#[test]
fn every_octet_is_counted_where_the_gateway_merges_what_it_receives() -> Result<()> {
    meter_agrees_with_the_far_end(&Layout::with_gro(), LINK_ETHERNET, None)
}

#[test]
fn every_octet_is_counted_in_small_segments() -> Result<()> {
    meter_agrees_with_the_far_end(&Layout::with_gro(), LINK_ETHERNET, Some(536))
}

#[test]
fn every_octet_is_counted_on_raw_ip() -> Result<()> {
    meter_agrees_with_the_far_end(&Layout::with_uplinks(&[Medium::RawIp]), LINK_RAW_IP, None)
}

#[test]
fn every_octet_is_counted_when_the_link_type_is_set_wrong() -> Result<()> {
    meter_agrees_with_the_far_end(&Layout::with_gro(), LINK_RAW_IP, None)?;
    meter_agrees_with_the_far_end(&Layout::with_uplinks(&[Medium::RawIp]), LINK_ETHERNET, None)
}
