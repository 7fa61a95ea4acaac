//! Another link carries the default route: the old session is settled, whatever is in flight, and however often it happens.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::eventually::eventually;
use e2e::scenario::{Books, Plot, SOON, World, chunked, meanwhile};
use e2e::topology::{Layout, Medium};
use serde_json::json;

/// Octets a second.
const RATE: u64 = 400_000;

const PLENTY: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_secs(30);

fn online() -> Result<World> {
    let layout = Layout::with_uplinks(&[Medium::Veth, Medium::Veth]);
    let plot = Plot::of(chunked(PLENTY, 2 << 20)).and(chunked(PLENTY, 2 << 20)).over(layout);
    let mut world = World::build(&plot.agent("follow_default_route = true"))?;
    world.start_agent(&[])?;
    world.reaches(0, &["active"])?;
    world.reaches(1, &["idle"])?;
    Ok(world)
}

/// The sessions of a SIM that are not released yet.
fn open(world: &World, sim: usize) -> Result<usize> {
    Ok(world.account(sim)?.sessions.iter().filter(|session| session["state"] != "released").count())
}

/// After the end: each SIM has paid for what its link has passed, and the wire agrees.
fn ends_well(mut world: World, books: [Books; 2]) -> Result<()> {
    world.stop_agent()?;
    for (link, books) in books.into_iter().enumerate() {
        books.close(&world)?;
        let account = world.account(link)?;
        account.is_settled()?;
        assert_eq!(account.debited(), world.passed(link)?, "link {link}: {account:?}");
    }
    Ok(())
}

#[test]
fn a_switch_while_a_message_is_in_flight_is_settled_to_the_octet() -> Result<()> {
    let world = online()?;
    let books = [Books::open(&world, 0)?, Books::open(&world, 1)?];
    let delay = json!({ "kind": "update", "fault": "delay-ms", "delayMs": 2000, "times": 1 });
    world.admin.put("/admin/v1/faults", &json!({ "rules": [delay] }))?;
    let flow = world.stream(RATE)?;
    eventually("an update to be held up", SOON, || {
        ensure!(world.struck()? == 1, "not yet");
        Ok(())
    })?;
    world.topology.prefer(1)?;
    world.reaches(1, &["active", "renewing"])?;
    flow.carries(500_000, PATIENCE)?;
    eventually("the first SIM's session to be released", PATIENCE, || world.account(0)?.is_settled())?;
    flow.stop()?;
    ends_well(world, books)
}

#[test]
fn ten_switches_in_ten_seconds_and_one_within_a_moment_pile_up_no_session_and_lose_no_octet() -> Result<()> {
    let world = online()?;
    let books = [Books::open(&world, 0)?, Books::open(&world, 1)?];
    let flow = world.stream(RATE)?;
    for switch in 0..10 {
        world.topology.prefer(1 - switch % 2)?;
        meanwhile(Duration::from_millis(if switch == 4 { 100 } else { 900 }))?;
        for sim in 0..2 {
            // One that is in use, and one that is just being settled.
            let open = open(&world, sim)?;
            assert!(open <= 2, "SIM {sim} has {open} open sessions after {switch} switches");
        }
    }
    world.reaches(0, &["active", "renewing"])?;
    eventually("one open session", PATIENCE, || {
        let open = (open(&world, 0)?, open(&world, 1)?);
        ensure!(open == (1, 0), "{open:?}");
        Ok(())
    })?;
    flow.carries(300_000, PATIENCE)?;
    flow.stop()?;
    ends_well(world, books)
}
