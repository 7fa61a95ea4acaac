//! The wall clock steps, is not set, or comes late: it is a label, and nothing else changes.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::eventually::eventually;
use e2e::scenario::{Books, ClockWord, Plot, SOON, Transport, World, chunked};
use serde_json::{Value, json};

/// Octets a second.
const RATE: u64 = 400_000;

const PLENTY: u64 = 1 << 30;

const FIVE_WEEKS: i64 = 5 * 7 * 86_400;

/// Time for retries with their back-off.
const PATIENCE: Duration = Duration::from_secs(40);

/// The agent's ledger, read as any other program would.
fn ledger(world: &World) -> Result<rusqlite::Connection> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    Ok(rusqlite::Connection::open_with_flags(world.workdir.path().join("ledger.db"), flags)?)
}

/// The true time, in seconds since 1970.
fn now() -> Result<i64> {
    Ok(rusqlite::Connection::open_in_memory()?.query_row("SELECT unixepoch()", [], |row| row.get(0))?)
}

/// Seconds since 1970 of a time as it stands on the wire.
fn seconds(time: &Value) -> Result<i64> {
    let text = time.as_str().with_context(|| format!("a time, not {time}"))?;
    Ok(rusqlite::Connection::open_in_memory()?.query_row("SELECT unixepoch(?1)", [text], |row| row.get(0))?)
}

fn settles_to_the_octet(mut world: World, books: Books) -> Result<World> {
    world.stop_agent()?;
    books.close(&world)?;
    let (account, passed) = (world.account(0)?, world.passed(0)?);
    account.is_settled()?;
    ensure!(passed > 0 && account.debited() == passed, "{passed} passed: {account:?}");
    Ok(world)
}

/// Waits until the server has debited so many containers more.
fn goes_on_reporting(world: &World, more: usize) -> Result<()> {
    let before = world.account(0)?.of_kind("debit").count();
    eventually("reports to go on", SOON, || {
        let debits = world.account(0)?.of_kind("debit").count();
        ensure!(debits >= before + more, "{debits} after {before}");
        Ok(())
    })
}

#[test]
fn a_step_of_five_weeks_in_either_direction_changes_no_interval_and_no_octet() -> Result<()> {
    let plot = Plot::of(chunked(PLENTY, 2 << 20)).agent("report_interval = \"1s\"\n");
    let world = World::online(&plot)?;
    let books = Books::open(&world, 0)?;
    let flow = world.stream(RATE)?;
    goes_on_reporting(&world, 1)?;
    for step in [FIVE_WEEKS, -FIVE_WEEKS, 0] {
        let before = world.account(0)?.of_kind("debit").count();
        world.shift_wall(step, ClockWord::Synced)?;
        flow.carries(1_200_000, SOON)?;
        goes_on_reporting(&world, 1)?;
        // Some four seconds: an interval that went by the wall would be over at once, again and again, or never.
        let reports = world.account(0)?.of_kind("debit").count() - before;
        ensure!((2..=10).contains(&reports), "{reports} reports after a step of {step} s");
        ensure!(world.status()?["ledger_drift_octets"] == 0);
    }
    flow.stop()?;
    let world = settles_to_the_octet(world, books)?;
    ensure!(world.account(0)?.sessions.len() == 1, "{:?}", world.account(0)?);
    Ok(())
}

/// The times in the message that waits in the ledger: of the message, and of all usage in it.
fn times_that_wait(world: &World) -> Result<Vec<i64>> {
    let body: Vec<u8> = ledger(world)?
        .query_row("SELECT body FROM message WHERE state = 'outstanding' AND containers > 0", [], |row| row.get(0))
        .context("a message with usage that waits")?;
    let body: Value = serde_json::from_slice(&body)?;
    let mut times = vec![seconds(&body["invocationTimeStamp"])?];
    for container in body["multipleUnitUsage"][0]["usedUnitContainer"].as_array().context("containers")? {
        let usage = &container["pDUContainerInformation"];
        let (first, last) = (seconds(&usage["timeofFirstUsage"])?, seconds(&usage["timeofLastUsage"])?);
        ensure!(first <= last, "{container}");
        times.extend([first, last]);
    }
    Ok(times)
}

#[test]
fn without_a_clock_it_logs_in_over_tls_and_labels_by_the_servers_time_until_ntp_comes() -> Result<()> {
    let mut plot = Plot::of(chunked(PLENTY, 2 << 20)).agent("report_interval = \"1s\"\n");
    plot.transport = Transport::Tls;
    let mut world = World::build(&plot)?;
    // It is 1970; the server's certificate is of 1975.
    let start = now()?;
    world.shift_wall(-start, ClockWord::Unsynced)?;
    let books = Books::before_the_agent(&world, 0)?;
    world.start_agent(&[])?;
    world.reaches(0, &["active", "renewing"])?;
    let flow = world.stream(RATE)?;
    goes_on_reporting(&world, 1)?;
    let status = world.status()?;
    ensure!(status["clock_synced"] == false && (seconds(&status["at"])? - now()?).abs() < 5, "{status}");

    let address = world.kill_server()?;
    let times = eventually("a report to wait", SOON, || times_that_wait(&world))?;
    let near = |times: &[i64]| times.iter().all(|time| (start - 5..=start + 120).contains(time));
    ensure!(near(&times), "started at {start}, labelled {times:?}");
    let synced = |world: &World| -> Result<i64> {
        Ok(ledger(world)?.query_row("SELECT sealed_synced FROM message", [], |row| row.get(0))?)
    };
    ensure!(synced(&world)? == 0);

    world.shift_wall(0, ClockWord::Synced)?;
    world.restart_server(address)?;
    goes_on_reporting(&world, 2)?;
    flow.stop()?;
    let world = settles_to_the_octet(world, books)?;
    let hours: Vec<i64> = ledger(&world)?
        .prepare("SELECT start / 1000000 FROM history WHERE granularity = 'hour'")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    ensure!(!hours.is_empty() && hours.iter().all(|hour| (start - 3600..=start + 3600).contains(hour)), "{hours:?}");
    Ok(())
}

#[test]
fn usage_of_a_time_without_a_clock_is_labelled_right_once_there_is_one() -> Result<()> {
    let mut plot = Plot::of(chunked(PLENTY, 4 << 20)).agent("report_interval = \"1s\"\n");
    plot.transport = Transport::Tls;
    let mut world = World::online(&plot)?;
    // The agent starts anew with units in hand, the server away and the clock not set: nobody tells the time.
    let address = world.kill_server()?;
    world.kill_agent()?;
    let start = now()?;
    world.shift_wall(-start, ClockWord::Unsynced)?;
    world.start_agent(&[])?;
    let flow = world.stream(RATE)?;
    let waiting = |least: i64| -> Result<()> {
        let sql = "SELECT count(*), coalesce(max(container.closed_wall / 1000000), 0) FROM container JOIN session \
                   USING (charging_id) WHERE number >= next_unsealed";
        let (count, latest): (i64, i64) = ledger(&world)?.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        ensure!(count >= least, "{count} containers wait");
        ensure!(latest < 86_400, "labelled {latest}: nobody has told the time");
        Ok(())
    };
    eventually("containers that are in no message", SOON, || waiting(2))?;
    flow.stop()?;
    let sealed = times_that_wait(&world)?;
    ensure!(sealed.iter().all(|time| *time < 86_400), "{sealed:?}");

    world.shift_wall(0, ClockWord::Synced)?;
    let rules = json!({ "rules": [{ "kind": "update", "fault": "status", "status": 503, "after": 1, "times": 1000 }] });
    world.restart_server(address)?;
    world.admin.put("/admin/v1/faults", &rules)?;
    // The sealed message went as it was; the next one holds the rest of that time.
    let times = eventually("the next message", PATIENCE, || {
        let times = times_that_wait(&world)?;
        ensure!(times != sealed, "still the first one");
        Ok(times)
    })?;
    ensure!(times.iter().all(|time| (start - 5..=start + 120).contains(time)), "started at {start}: {times:?}");
    world.admin.delete("/admin/v1/faults")?;
    world.stop_agent()?;
    let (account, passed) = (world.account(0)?, world.passed(0)?);
    account.is_consistent()?;
    ensure!(account.debited() == passed, "{passed} passed: {account:?}");
    Ok(())
}

#[test]
fn a_certificate_that_does_not_fit_the_clock_is_told_with_what_the_clock_says() -> Result<()> {
    let mut plot = Plot::of(chunked(PLENTY, 2 << 20));
    plot.transport = Transport::Tls;
    let mut world = World::build(&plot)?;
    // A clock that holds itself for right is believed; one that runs ahead of the certificate's end is of no use.
    for (shift, word, said) in [
        (-now()?, ClockWord::Synced, "this machine's clock says 1970-01-01"),
        (2_100 * 365 * 86_400, ClockWord::Unsynced, "and is not synchronised: set it"),
    ] {
        world.shift_wall(shift, word)?;
        world.start_agent(&[])?;
        world.agent.as_mut().context("an agent")?.actor.wait_for_line(said, SOON)?;
        world.kill_agent()?;
    }
    ensure!(world.admin.get("/admin/v1/devices")?["devices"] == json!([]), "nobody has logged in");
    Ok(())
}
