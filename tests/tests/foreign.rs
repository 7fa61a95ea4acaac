//! A charging server that does not recognise a message that comes again: nothing is charged twice, and what is in doubt is shown.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::eventually::eventually;
use e2e::scenario::{Books, Plot, SOON, World, chunked};
use e2e::traffic::Flow;
use serde_json::json;

/// Time for retries with their back-off.
/// Octets a second.
const RATE: u64 = 500_000;

const PATIENCE: Duration = Duration::from_secs(40);

const PLENTY: u64 = 1 << 30;

/// A server that charges whatever comes, and an agent that knows it or does not.
fn plot(deduplicates: &str) -> Plot {
    let mut plot = Plot::of(chunked(PLENTY, 1 << 20));
    plot.server_args = vec!["--no-dedup".to_owned()];
    plot.server = format!("deduplicates = {deduplicates}\n");
    plot
}

fn in_doubt(world: &World) -> Result<u64> {
    world.status()?["in_doubt_octets"].as_u64().context("in_doubt_octets")
}

/// Waits until so many faults have struck and traffic flows on.
fn goes_on_after(world: &World, flow: &Flow, strikes: u64) -> Result<()> {
    eventually("the fault to strike", PATIENCE, || {
        ensure!(world.struck()? == strikes, "{}", world.struck()?);
        Ok(())
    })?;
    flow.carries(1_500_000, PATIENCE)
}

/// The figures once the agent has settled: octets that passed, and the server's debit.
fn settled(world: &mut World, books: Books) -> Result<(u64, u64)> {
    ensure!(world.status()?["ledger_drift_octets"] == 0, "{}", world.status()?);
    world.stop_agent()?;
    books.close(world)?;
    let account = world.account(0)?;
    account.is_consistent()?;
    Ok((world.passed(0)?, account.debited()))
}

/// What an agent finds in its ledger after it was started again.
fn in_doubt_of_the_next_agent(world: &mut World) -> Result<u64> {
    world.start_agent(&[])?;
    world.reaches(0, &["active"])?;
    in_doubt(world)
}

#[test]
fn an_agent_that_does_not_know_it_is_charged_twice_by_such_a_server() -> Result<()> {
    let mut world = World::online(&plot("true"))?;
    world.fault("update", "drop-answer", 1)?;
    let flow = world.stream(RATE)?;
    goes_on_after(&world, &flow, 1)?;
    flow.stop()?;
    world.stop_agent()?;
    // This is what the dialect is for; without it the scenarios below would show nothing.
    let (passed, account) = (world.passed(0)?, world.account(0)?);
    ensure!(account.debited() > passed + 100_000, "{passed} passed, {account:?}");
    Ok(())
}

#[test]
fn an_answer_that_is_lost_after_the_debit_is_not_charged_twice() -> Result<()> {
    let mut world = World::online(&plot("false"))?;
    let books = Books::open(&world, 0)?;
    world.fault("update", "drop-answer", 2)?;
    let flow = world.stream(RATE)?;
    goes_on_after(&world, &flow, 2)?;
    flow.stop()?;
    let doubtful = in_doubt(&world)?;
    ensure!(doubtful > 500_000, "two reports of almost a chunk each: {doubtful}");
    let text = String::from_utf8(world.weir_status(&[])?.stdout)?;
    ensure!(text.contains("IN DOUBT"), "{text}");
    let (passed, debited) = settled(&mut world, books)?;
    assert_eq!(debited, passed, "all of it was taken, each octet once; {doubtful} in doubt");
    assert_eq!(in_doubt_of_the_next_agent(&mut world)?, doubtful, "it stays in the ledger");
    Ok(())
}

#[test]
fn a_request_that_is_lost_before_the_debit_is_not_charged_at_all_and_shown_as_in_doubt() -> Result<()> {
    let mut world = World::online(&plot("false"))?;
    let books = Books::open(&world, 0)?;
    world.fault("update", "drop-request", 2)?;
    let flow = world.stream(RATE)?;
    goes_on_after(&world, &flow, 2)?;
    flow.stop()?;
    let doubtful = in_doubt(&world)?;
    let (passed, debited) = settled(&mut world, books)?;
    ensure!(doubtful > 500_000, "{doubtful}");
    assert_eq!(debited + doubtful, passed, "debited, and in doubt but not taken");
    Ok(())
}

#[test]
fn creates_and_releases_in_doubt_leave_no_octet_charged_twice() -> Result<()> {
    let mut world = World::build(&plot("false"))?;
    world.admin.put(
        "/admin/v1/faults",
        &json!({ "rules": [{ "kind": "create", "fault": "garbage" }, { "kind": "release", "fault": "drop-answer" }] }),
    )?;
    world.start_agent(&[])?;
    eventually("a second session after the first was given up", Duration::from_mins(2), || {
        let status = world.link_status("wan0")?;
        ensure!(status["state"] == "active", "{status}");
        Ok(())
    })?;
    let (books, flow) = world.under_traffic(RATE, 600_000)?;
    flow.stop()?;
    assert_eq!(in_doubt(&world)?, 0, "a create has nothing to report");
    let before = world.account(0)?;
    assert_eq!(before.sessions.len(), 2, "the server made the first one as well: {before:?}");
    let (passed, debited) = settled(&mut world, books)?;
    assert_eq!(debited, passed);
    let doubtful = in_doubt_of_the_next_agent(&mut world)?;
    assert_eq!(before.debited() + doubtful, passed, "the release alone is in doubt");
    Ok(())
}

#[test]
fn what_such_a_server_certainly_did_not_take_is_sent_again() -> Result<()> {
    let mut world = World::online(&plot("false"))?;
    let books = Books::open(&world, 0)?;
    let rules = json!({ "rules": [{ "kind": "update", "fault": "status", "status": 503, "times": 2 }] });
    world.admin.put("/admin/v1/faults", &rules)?;
    let flow = world.stream(RATE)?;
    goes_on_after(&world, &flow, 2)?;
    let address = world.kill_server()?;
    // Nobody listens: connections are refused until the ceiling is reached, and over a restart of the agent as well.
    flow.stalls(Duration::from_millis(1500), SOON)?;
    world.kill_agent()?;
    world.start_agent(&[])?;
    world.restart_server(address)?;
    flow.carries(1_500_000, PATIENCE)?;
    flow.stop()?;
    let doubtful = in_doubt(&world)?;
    let (passed, debited) = settled(&mut world, books)?;
    assert_eq!((debited, doubtful), (passed, 0), "nothing was in doubt, and nothing is missing");
    Ok(())
}

#[test]
fn what_was_on_its_way_when_the_agent_was_killed_is_not_sent_again() -> Result<()> {
    let mut world = World::online(&plot("false"))?;
    let books = Books::open(&world, 0)?;
    let rules = json!({ "rules": [{ "kind": "update", "fault": "delay-ms", "delayMs": 3000 }] });
    world.admin.put("/admin/v1/faults", &rules)?;
    let flow = world.stream(RATE)?;
    eventually("a report to be on its way", PATIENCE, || {
        ensure!(world.struck()? == 1, "not yet");
        Ok(())
    })?;
    world.kill_agent()?;
    world.start_agent(&[])?;
    flow.carries(1_500_000, PATIENCE)?;
    flow.stop()?;
    let doubtful = in_doubt(&world)?;
    let (passed, debited) = settled(&mut world, books)?;
    ensure!(doubtful > 100_000, "{doubtful}");
    ensure!(
        debited == passed || debited + doubtful == passed,
        "{debited} debited, {doubtful} in doubt, {passed} passed"
    );
    Ok(())
}
