//! What goes wrong on the way or dies in the middle: nothing is lost, nothing is billed twice.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::eventually::eventually;
use e2e::scenario::{Books, Plot, SOON, World, chunked, iccid};
use serde_json::json;

/// Time for retries with their back-off.
const PATIENCE: Duration = Duration::from_secs(40);

const PLENTY: u64 = 1 << 30;

/// After the agent's end: the wire, the kernel and the server agree to the octet, nothing is open.
fn is_settled_to_the_octet(world: &World, books: Books) -> Result<()> {
    books.close(world)?;
    let (kernel, account) = (world.kernel(0)?, world.account(0)?);
    account.is_settled()?;
    let (up, down) = (kernel.uplink.passed.octets, kernel.downlink.passed.octets);
    ensure!((account.uplink, account.downlink) == (up, down), "{up} up, {down} down passed: {account:?}");
    Ok(())
}

#[test]
fn an_answer_to_a_create_that_is_lost_is_not_billed_twice() -> Result<()> {
    let mut world = World::build(&Plot::of(chunked(PLENTY, 1 << 20)))?;
    world.fault("create", "drop-answer", 2)?;
    world.start_agent(&[])?;
    eventually("units after two lost answers", PATIENCE, || {
        let status = world.link_status("wan0")?;
        ensure!(status["state"] == "active", "{status}");
        Ok(())
    })?;
    let (books, flow) = world.under_traffic(500_000, 1_000_000)?;
    flow.stop()?;
    world.stop_agent()?;
    assert_eq!(world.struck()?, 2);
    is_settled_to_the_octet(&world, books)?;
    let account = world.account(0)?;
    assert_eq!(account.sessions.len(), 1, "the create was one create: {account:?}");
    Ok(())
}

#[test]
fn an_answer_to_an_update_that_is_lost_is_not_billed_twice() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 1 << 20)))?;
    let books = Books::open(&world, 0)?;
    world.fault("update", "drop-answer", 2)?;
    let flow = world.stream(400_000)?;
    eventually("two answers to be lost", PATIENCE, || {
        ensure!(world.struck()? == 2, "not yet");
        Ok(())
    })?;
    let so_far = flow.so_far().delivered;
    eventually("units after two lost answers", PATIENCE, || {
        ensure!(flow.so_far().delivered > so_far + 2_000_000, "{:?}", flow.so_far());
        Ok(())
    })?;
    flow.stop()?;
    world.stop_agent()?;
    is_settled_to_the_octet(&world, books)
}

#[test]
fn an_answer_to_a_release_that_is_lost_is_not_billed_twice() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 4 << 20)))?;
    let (books, flow) = world.under_traffic(400_000, 800_000)?;
    flow.stop()?;
    world.fault("release", "drop-answer", 1)?;
    world.stop_agent()?;
    assert_eq!(world.struck()?, 1);
    is_settled_to_the_octet(&world, books)
}

#[test]
fn a_wrong_or_unreadable_answer_is_asked_for_again_and_not_billed_twice() -> Result<()> {
    for fault in ["garbage", "wrong-sequence", "duplicate"] {
        let mut world = World::online(&Plot::of(chunked(PLENTY, 1 << 20)))?;
        let books = Books::open(&world, 0)?;
        world.fault("update", fault, 1)?;
        let flow = world.stream(600_000)?;
        flow.carries(2_500_000, PATIENCE)?;
        flow.stop()?;
        world.stop_agent()?;
        assert_eq!(world.struck()?, 1, "{fault}");
        is_settled_to_the_octet(&world, books)?;
    }
    Ok(())
}

#[test]
fn server_down_then_back() -> Result<()> {
    let chunk = 2 << 20;
    let mut world = World::online(&Plot::of(chunked(PLENTY, chunk)))?;
    let (books, flow) = world.under_traffic(700_000, 3_000_000)?;
    let address = world.kill_server()?;
    // Without the server the ceiling stands: what was granted is used up, and no more.
    flow.stalls(Duration::from_millis(1500), SOON)?;
    let status = world.link_status("wan0")?;
    let kernel = world.passed(0)?;
    let ceiling = status["ceiling_octets"].as_u64().unwrap_or_default();
    assert!(kernel <= ceiling && kernel + 2000 > ceiling, "{kernel} of {ceiling}");
    let buffered = world.status()?["unacknowledged_octets"].as_u64().unwrap_or_default();
    assert!(buffered > 0, "usage is kept for the server: {status}");

    world.restart_server(address)?;
    flow.carries(2_000_000, PATIENCE)?;
    flow.stop()?;
    world.stop_agent()?;
    is_settled_to_the_octet(&world, books)?;
    assert!(world.account(0)?.debited() > 5_000_000);
    Ok(())
}

#[test]
fn goes_on_without_the_server_as_far_as_the_grace_reaches() -> Result<()> {
    let (chunk, grace) = (500_000, 1_000_000);
    let package = json!({
        "totalVolume": PLENTY, "chunk": chunk, "failureHandling": "CONTINUE",
        "offlineGrace": { "octets": grace, "seconds": 600 },
    });
    // However fast it goes, no grant is larger than what the bound below reckons with.
    let link = format!("name = \"wan0\"\niccid = \"{}\"\nchunk = {chunk}\nlargest_chunk = {chunk}", iccid(0));
    let mut world = World::online(&Plot { links: vec![link], ..Plot::of(package) })?;
    let (books, flow) = world.under_traffic(500_000, 600_000)?;
    let address = world.kill_server()?;
    let before = world.passed(0)?;
    // More than the old grant could hold …
    eventually("traffic beyond the ceiling", PATIENCE, || {
        let passed = world.passed(0)?;
        ensure!(passed > before + chunk + grace / 2, "{passed}, {before} when the server died");
        Ok(())
    })?;
    // … and an end all the same.
    let report = flow.stalls(Duration::from_millis(1500), SOON)?;
    let passed = world.passed(0)?;
    assert!(passed <= before + chunk + grace, "{passed}, {before} when the server died");
    world.restart_server(address)?;
    eventually("traffic with the server", PATIENCE, || {
        ensure!(flow.so_far().delivered > report.delivered + 500_000, "{:?}", flow.so_far());
        Ok(())
    })?;
    flow.stop()?;
    world.stop_agent()?;
    is_settled_to_the_octet(&world, books)
}

#[test]
fn what_a_dead_server_was_not_told_is_told_by_the_next_agent() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 4 << 20)).agent("shutdown_wait = \"1s\""))?;
    let (books, flow) = world.under_traffic(400_000, 800_000)?;
    let address = world.kill_server()?;
    flow.carries(200_000, SOON)?;
    flow.stop()?;
    world.stop_agent()?;
    world.restart_server(address)?;
    assert!(world.account(0)?.debited() < world.passed(0)?, "the server cannot know yet");
    world.start_agent(&[])?;
    all_is_debited_but_the_present(&world)?;
    world.reaches(0, &["active"])?;
    world.stop_agent()?;
    is_settled_to_the_octet(&world, books)?;
    assert_eq!(world.account(0)?.sessions.len(), 2);
    Ok(())
}

/// Waits until the first session is released: what was left of it has arrived.
fn all_is_debited_but_the_present(world: &World) -> Result<()> {
    eventually("the old session to be released", PATIENCE, || {
        let account = world.account(0)?;
        ensure!(account.sessions.iter().any(|session| session["state"] == "released"), "{account:?}");
        Ok(())
    })
}

/// The server plays a restart in the middle of an update.
#[test]
fn a_server_that_restarts_has_forgotten_nothing() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 1 << 20)))?;
    let books = Books::open(&world, 0)?;
    world.fault("update", "restart", 1)?;
    let flow = world.stream(600_000)?;
    flow.carries(2_500_000, PATIENCE)?;
    flow.stop()?;
    assert_eq!(world.struck()?, 1);
    world.stop_agent()?;
    is_settled_to_the_octet(&world, books)
}
