//! How the agent stops: it settles and returns what is unused, or leaves everything as it is to its successor.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::Direction::Downlink;
use e2e::eventually::eventually;
use e2e::scenario::{Books, Plot, SOON, World, chunked};
use e2e::topology::HOST_V4;
use e2e::traffic::{Datagrams, TcpServer, Transfer, udp};
use nix::sys::signal::Signal;
use serde_json::json;

const SILENCE: Duration = Duration::from_millis(1500);

const PLENTY: u64 = 100 << 20;

#[test]
fn returns_unused_on_sigterm() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 10 << 20)))?;
    let books = Books::open(&world, 0)?;
    let server = TcpServer::start(&world.topology.internet, HOST_V4)?;
    let flow = server.flow(&world.topology.client, Transfer::endless(Downlink, 500_000))?;
    flow.carries(700_000, SOON)?;
    let open = world.account(0)?;
    assert!(open.reserved > 0, "{open:?}");

    world.stop_agent()?;
    flow.stalls(SILENCE, SOON)?;
    flow.stop()?;
    drop(server);
    books.close(&world)?;
    let (account, passed) = (world.account(0)?, world.passed(0)?);
    account.is_settled()?;
    assert_eq!(account.debited(), passed, "{account:?}");
    assert_eq!(account.balance, i64::try_from(PLENTY - passed)?, "the rest is whole again: {account:?}");
    let returned: u64 = account.of_kind("release").filter_map(|entry| entry["totalVolume"].as_u64()).sum();
    assert!(returned > 0, "{account:?}");
    let gate = world.datapath("wan0")?.gate()?;
    assert_eq!(gate.ceiling, 0, "the gate is shut: {gate:?}");
    Ok(())
}

/// Told to stop between taking up its sessions and looking at its meter.
#[test]
fn an_agent_stopped_while_it_starts_shuts_the_gate_it_found_open() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 10 << 20)))?;
    let books = Books::open(&world, 0)?;
    let client = &world.topology.client;
    let flow = udp(client, (&world.topology.internet, HOST_V4), Datagrams::endless(400_000, 1000))?;
    flow.carries(400_000, SOON)?;
    world.kill_agent()?;
    flow.carries(400_000, SOON)?;
    world.start_agent_with(&[], &[("WEIR_DRILL_HALT_AT", "restored")])?;
    let agent = world.agent.as_mut().context("an agent")?;
    let stat = format!("/proc/{}/stat", agent.actor.pid());
    eventually("the agent to halt", SOON, || {
        ensure!(std::fs::read_to_string(&stat)?.contains(") T "), "it runs");
        Ok(())
    })?;
    agent.actor.signal(Signal::SIGTERM)?;
    agent.actor.signal(Signal::SIGCONT)?;
    let status = agent.actor.wait(SOON)?;
    ensure!(status.success(), "{status}");
    flow.stalls(SILENCE, SOON)?;
    flow.stop()?;
    books.close(&world)?;
    let (account, passed) = (world.account(0)?, world.passed(0)?);
    account.is_settled()?;
    assert_eq!(account.debited(), passed, "{account:?}");
    Ok(())
}

#[test]
fn returns_units_that_nobody_uses() -> Result<()> {
    let package = json!({ "totalVolume": PLENTY, "chunk": 1 << 20, "quotaHoldingTime": 2 });
    let mut world = World::online(&Plot::of(package).agent("follow_default_route = false"))?;
    // A holding time counts as at least ten seconds.
    eventually("the idle session to be returned", Duration::from_secs(30), || {
        let account = world.account(0)?;
        ensure!(account.reserved == 0 && account.sessions[0]["state"] == "released", "{account:?}");
        Ok(())
    })?;
    // Traffic asks for units again.
    let client = &world.topology.client;
    let flow = udp(client, (&world.topology.internet, HOST_V4), Datagrams::endless(100_000, 1000))?;
    flow.carries(300_000, Duration::from_secs(20))?;
    flow.stop()?;
    world.stop_agent()?;
    let account = world.account(0)?;
    account.is_settled()?;
    assert_eq!(account.debited(), world.passed(0)?, "{account:?}");
    assert!(account.sessions.len() >= 2, "{account:?}");
    Ok(())
}

#[test]
fn keep_leaves_pins_and_gates_and_the_next_agent_goes_on() -> Result<()> {
    let mut world = World::build(&Plot::of(chunked(PLENTY, 10 << 20)))?;
    world.start_agent(&["--keep"])?;
    let first = world.reaches(0, &["active"])?;
    let books = Books::open(&world, 0)?;
    let server = TcpServer::start(&world.topology.internet, HOST_V4)?;
    let flow = server.flow(&world.topology.client, Transfer::endless(Downlink, 300_000))?;
    flow.carries(500_000, SOON)?;
    world.stop_agent()?;
    // Nobody is there, and the traffic does not notice.
    flow.carries(500_000, SOON)?;
    let account = world.account(0)?;
    assert_eq!(account.sessions[0]["state"], "open", "{account:?}");

    world.start_agent(&[])?;
    world.goes_on_without_a_gap(&first, flow, books)
}

#[test]
fn a_grant_that_runs_out_of_time_is_renewed_in_time() -> Result<()> {
    let package = json!({ "totalVolume": PLENTY, "chunk": 10 << 20, "validityTime": 4 });
    let mut world = World::online(&Plot::of(package))?;
    let books = Books::open(&world, 0)?;
    let client = &world.topology.client;
    let flow = udp(client, (&world.topology.internet, HOST_V4), Datagrams::endless(100_000, 1000))?;
    let grants = |world: &World| -> Result<usize> { Ok(world.account(0)?.of_kind("grant").count()) };
    eventually("grants for the sake of time", SOON, || {
        let grants = grants(&world)?;
        ensure!(grants >= 4, "{grants}");
        Ok(())
    })?;
    let report = flow.stop()?;
    assert_eq!(report.datagrams_delivered, report.datagrams_sent, "{report:?}");
    world.stop_agent()?;
    books.close(&world)?;
    let account = world.account(0)?;
    account.is_settled()?;
    assert_eq!(account.debited(), world.passed(0)?, "{account:?}");
    let session = account.sessions.first().context("a session")?;
    assert!(session["lastSequenceNumber"].as_u64() >= Some(4), "{session}");
    Ok(())
}
