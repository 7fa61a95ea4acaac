//! A throttled link keeps its rate, whoever sends and however far away; what came too fast is told.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::Direction::{Downlink, Uplink};
use e2e::eventually::eventually;
use e2e::scenario::{Plot, World};
use e2e::throttle::{Cell, Fared, Lab, Means, Protocol};
use e2e::topology::CLIENT_V4;
use e2e::traffic::{Datagrams, udp};
use serde_json::{Value, json};

/// Time for a package to be used up and its last octets to be reported.
const PATIENCE: Duration = Duration::from_secs(25);

/// How long a flow is watched.
const LENGTH: Duration = Duration::from_secs(5);

/// What somebody who begins on an idle link is given at once, in seconds of sending at the rate.
const AT_ONCE: f64 = 0.15;

fn fares(rate: u64, protocol: Protocol, direction: e2e::Direction, milliseconds: u64) -> Result<Fared> {
    let round_trip = Duration::from_millis(milliseconds);
    Lab::build(Cell { rate, protocol, direction, round_trip, means: Means::Policer })?.measure(LENGTH)
}

/// How much may be delivered, by what the rate allows: what is given at once included, and one packet of so many octets more.
fn most(rate: u32, packet: u32) -> f64 {
    1.0 + (AT_ONCE + f64::from(packet) * 8.0 / f64::from(rate)) / LENGTH.as_secs_f64()
}

#[test]
fn a_download_over_a_distance_has_the_rate_and_no_more() -> Result<()> {
    let fared = fares(1_000_000, Protocol::Tcp("cubic"), Downlink, 50)?;
    // The counted headers are no payload, so that the exact rate is below 1.
    ensure!((0.5..most(1_000_000, 1500)).contains(&fared.goodput), "{fared:?}");
    ensure!(fared.first_second < 1.5 && fared.dropped > 0.0, "{fared:?}");
    Ok(())
}

#[test]
fn super_packets_that_cost_seconds_get_through_a_slow_link() -> Result<()> {
    let fared = fares(256_000, Protocol::UdpTrains, Uplink, 0)?;
    // Each is two seconds of sending: the first passes at once, the others when they are paid for.
    ensure!((0.5..most(256_000, 65_536)).contains(&fared.goodput), "{fared:?}");
    Ok(())
}

fn kernel(world: &World, name: &str) -> Result<u64> {
    let status: Value = world.link_status("wan0")?;
    status["kernel"][name].as_u64().with_context(|| format!("no {name} in {status}"))
}

#[test]
fn what_came_too_fast_for_a_throttled_downlink_is_told_as_paid_for_nothing() -> Result<()> {
    let package =
        json!({ "totalVolume": 300_000, "chunk": 150_000, "whenUsedUp": "throttle", "throttleRate": 400_000 });
    let mut world = World::online(&Plot::of(package))?;
    let (client, internet) = (&world.topology.client, &world.topology.internet);
    let flow = udp(internet, (client, CLIENT_V4), Datagrams::endless(200_000, 1000))?;
    eventually("datagrams to come too fast", PATIENCE, || {
        let policed = kernel(&world, "policed_downlink_octets")?;
        ensure!(policed > 100_000, "{policed}");
        Ok(())
    })?;
    let report = flow.stop()?;
    // The oracle: what the far end has sent and the client did not get, with IP and UDP headers.
    let lost = (report.datagrams_sent - report.datagrams_delivered) * 1028;
    let (refused, policed) = (kernel(&world, "refused_downlink_octets")?, kernel(&world, "policed_downlink_octets")?);
    assert_eq!(refused, lost, "{report:?}");
    assert!(policed <= refused && kernel(&world, "policed_uplink_octets")? == 0, "{policed} of {refused}");
    let text = String::from_utf8(world.weir_status(&[])?.stdout)?;
    assert!(text.contains("PAID FOR NOTHING"), "{text}");
    world.stop_agent()
}
