//! What the server wants while the agent runs, or while it does not: top-ups, aborts, sessions it has forgotten.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::eventually::eventually;
use e2e::scenario::{Books, PACKET, Plot, SOON, World, chunked, subscriber};
use e2e::topology::HOST_V6;
use serde_json::json;

/// Nothing delivered for so long: the gate is shut.
const SILENCE: Duration = Duration::from_millis(1500);

/// Time for retries and the least dwell.
const PATIENCE: Duration = Duration::from_secs(30);

const PLENTY: u64 = 1 << 30;

/// Has the server order something of the first SIM.
fn order(world: &World, command: &str) -> Result<()> {
    let command = json!({ "deviceId": "gw-1", "command": command, "subscriberIdentifier": subscriber(0) });
    world.admin.post("/admin/v1/commands", &command).map(drop)
}

/// Settles, and holds the wire, the kernel and the server's debit together.
fn settles_to_the_octet(world: &mut World, books: Books) -> Result<()> {
    world.stop_agent()?;
    books.close(world)?;
    let (passed, account) = (world.passed(0)?, world.account(0)?);
    account.is_settled()?;
    ensure!(account.debited() == passed, "{passed} passed, {account:?}");
    Ok(())
}

#[test]
fn a_top_up_while_nobody_is_there_opens_the_gate_at_the_next_start() -> Result<()> {
    let total = 500_000;
    let mut world = World::online(&Plot::of(chunked(total, 250_000)))?;
    let books = Books::open(&world, 0)?;
    let flow = world.stream(300_000)?;
    world.reaches(0, &["exhausted"])?;
    world.kill_agent()?;
    // Nobody is there, and the gate stays shut.
    flow.stalls(SILENCE, SOON)?;
    world.top_up(0, 400_000)?;
    let shut = world.passed(0)?;
    assert!(shut <= total, "{shut} of {total}");
    world.start_agent(&[])?;
    flow.carries(300_000, PATIENCE)?;
    flow.stalls(SILENCE, SOON)?;
    flow.stop()?;
    let passed = world.passed(0)?;
    assert!(passed <= total + 400_000 && passed + PACKET > total + 400_000, "{passed}");
    settles_to_the_octet(&mut world, books)
}

#[test]
fn a_throttled_link_is_fast_again_after_a_top_up() -> Result<()> {
    let package =
        json!({ "totalVolume": 400_000, "chunk": 200_000, "whenUsedUp": "throttle", "throttleRate": 400_000 });
    let mut world = World::online(&Plot::of(package))?;
    let books = Books::open(&world, 0)?;
    let flow = world.stream(400_000)?;
    eventually("octets to pass throttled", PATIENCE, || {
        ensure!(world.kernel(0)?.uplink.throttled.octets > 100_000, "{:?}", world.kernel(0)?.uplink);
        Ok(())
    })?;
    let before = world.passed(0)?;
    world.top_up(0, 50_000_000)?;
    eventually("octets to pass under a ceiling again", PATIENCE, || {
        ensure!(world.passed(0)? > before + 1_000_000, "{} passed", world.passed(0)?);
        Ok(())
    })?;
    flow.stop()?;
    let throttled = world.kernel(0)?.uplink.throttled.octets;
    settles_to_the_octet(&mut world, books)?;
    let account = world.account(0)?;
    assert_eq!(account.offline, throttled, "{account:?}");
    Ok(())
}

#[test]
fn an_abort_shuts_the_gate_until_the_server_asks_again() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 2 << 20)))?;
    let (books, flow) = world.under_traffic(300_000, 500_000)?;
    order(&world, "ABORT")?;
    flow.stalls(SILENCE, SOON)?;
    eventually("the session to be settled", SOON, || world.account(0)?.is_settled())?;
    order(&world, "REAUTHORISE")?;
    flow.carries(500_000, PATIENCE)?;
    flow.stop()?;
    let sessions = world.account(0)?.sessions.len();
    assert_eq!(sessions, 2, "a new session after the abort");
    settles_to_the_octet(&mut world, books)
}

#[test]
fn an_order_to_abort_holds_over_a_crash_until_the_server_asks_again() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 2 << 20)))?;
    let (books, flow) = world.under_traffic(300_000, 500_000)?;
    order(&world, "ABORT")?;
    flow.stalls(SILENCE, SOON)?;
    eventually("the session to be settled", SOON, || world.account(0)?.is_settled())?;
    world.kill_agent()?;
    world.start_agent(&[])?;
    eventually("the next agent to know of the order", SOON, || {
        let status = world.link_status("wan0")?;
        let explanation = status["explanation"].as_str().unwrap_or_default();
        ensure!(explanation.contains("ended by order of the server"), "{status}");
        ensure!(status["aborted"] == true, "{status}");
        Ok(())
    })?;
    flow.stalls(SILENCE, SOON)?;
    assert_eq!(world.account(0)?.sessions.len(), 1, "nothing was asked for");
    order(&world, "REAUTHORISE")?;
    flow.carries(500_000, PATIENCE)?;
    flow.stop()?;
    settles_to_the_octet(&mut world, books)?;
    assert_eq!(world.account(0)?.sessions.len(), 2);
    Ok(())
}

#[test]
fn an_exhausted_sim_reaches_a_server_over_ipv6() -> Result<()> {
    let total = 400_000;
    let mut plot = Plot::of(chunked(total, 200_000));
    plot.host = HOST_V6;
    let mut world = World::online(&plot)?;
    let books = Books::open(&world, 0)?;
    let flow = world.stream(300_000)?;
    world.reaches(0, &["exhausted"])?;
    flow.stalls(SILENCE, SOON)?;
    world.top_up(0, 500_000)?;
    flow.carries(400_000, PATIENCE)?;
    flow.stop()?;
    let counted = books.counted(&world)?;
    assert!(counted.uplink.control.octets > 0, "{counted:?}");
    settles_to_the_octet(&mut world, books)
}

#[test]
fn usage_of_a_session_that_the_server_has_forgotten_is_billed_once() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 4 << 20)))?;
    let (books, flow) = world.under_traffic(500_000, 1_000_000)?;
    let status = world.link_status("wan0")?;
    let forgotten = status["charging_id"].as_u64().context("a session")?;
    let address = world.kill_server()?;
    // As if it had released the session on its own.
    let books_of_the_server = rusqlite::Connection::open(world.workdir.path().join("server.db"))?;
    let changed = books_of_the_server
        .execute("UPDATE sessions SET released_at = created_at WHERE charging_id = ?1", [forgotten.cast_signed()])?;
    assert_eq!(changed, 1);
    books_of_the_server.execute("DELETE FROM reservations", [])?;
    drop(books_of_the_server);
    world.restart_server(address)?;
    eventually("a session that the server knows", PATIENCE, || {
        let status = world.link_status("wan0")?;
        ensure!(status["charging_id"] != forgotten && status["state"] == "active", "{status}");
        Ok(())
    })?;
    flow.carries(500_000, SOON)?;
    flow.stop()?;
    settles_to_the_octet(&mut world, books)?;
    let account = world.account(0)?;
    let one_time = account.of_kind("debit").find(|entry| entry["ref"].is_null());
    assert_eq!(one_time.context("a one-time event")?["chargingId"], forgotten);
    Ok(())
}
