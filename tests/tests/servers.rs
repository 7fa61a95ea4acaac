//! Charging servers that misbehave on purpose: no octet is lost or charged twice, no gate opens too far, nothing storms, nothing grows.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::eventually::eventually;
use e2e::scenario::{Books, Plot, SOON, World, chunked, meanwhile, subscriber};
use serde_json::{Value, json};

/// Time for retries with their back-off.
const PATIENCE: Duration = Duration::from_secs(40);

const PLENTY: u64 = 1 << 30;

/// How long a server misbehaves without a break.
const MISBEHAVES: Duration = Duration::from_secs(4);

/// Requests of every kind that may go out in that time: the first retries and polls, which come close together.
const A_HANDFUL: u64 = 20;

/// How much the agent's memory may grow under it; a huge answer is 64 MiB, an endless one has no end.
const GROWTH_KIB: u64 = 8 << 10;

/// A server of whose answers two seconds are waited for.
fn plot() -> Plot {
    let mut plot = Plot::of(chunked(PLENTY, 1 << 20));
    "answer_timeout = \"2s\"\n".clone_into(&mut plot.server);
    plot
}

fn rules(world: &World, rules: &Value) -> Result<()> {
    world.admin.put("/admin/v1/faults", &json!({ "rules": rules })).map(drop)
}

/// How many requests have met each rule.
fn seen(world: &World) -> Result<Vec<u64>> {
    let faults = world.admin.get("/admin/v1/faults")?;
    let rules = faults["rules"].as_array().context("rules")?;
    rules.iter().map(|rule| rule["seen"].as_u64().context("seen")).collect()
}

/// Waits until so many requests were struck.
fn has_struck(world: &World, times: u64) -> Result<()> {
    eventually("the fault to strike", PATIENCE, || {
        ensure!(world.struck()? >= times, "{}", world.struck()?);
        Ok(())
    })
}

/// The most memory that the agent has ever had, in KiB.
fn most_memory(world: &World) -> Result<u64> {
    let pid = world.agent.as_ref().context("an agent")?.actor.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    line.trim().trim_end_matches(" kB").parse().with_context(|| line.to_owned())
}

/// Settles, and holds the wire, the kernel and the server's debit together; what the server says of its sessions is left out.
fn is_debited_to_the_octet(world: &mut World, books: Books) -> Result<()> {
    ensure!(world.status()?["ledger_drift_octets"] == 0, "{}", world.status()?);
    world.stop_agent()?;
    books.close(world)?;
    let (passed, account) = (world.passed(0)?, world.account(0)?);
    account.is_consistent()?;
    ensure!(account.debited() == passed, "{passed} passed, {account:?}");
    Ok(())
}

/// The same, with every session released.
fn settles_to_the_octet(mut world: World, books: Books) -> Result<()> {
    is_debited_to_the_octet(&mut world, books)?;
    world.account(0)?.is_settled()
}

#[test]
fn no_misbehaviour_makes_the_agent_storm_swell_or_stop_listening() -> Result<()> {
    let mut world = World::online(&plot())?;
    let books = Books::open(&world, 0)?;
    let flow = world.stream(400_000)?;
    for fault in ["malformed", "huge", "endless", "slow", "redirect", "garbage"] {
        let before = most_memory(&world)?;
        rules(&world, &json!([{ "kind": "any", "fault": fault, "times": 100_000 }]))?;
        meanwhile(MISBEHAVES)?;
        let seen = seen(&world)?[0];
        ensure!((1..=A_HANDFUL).contains(&seen), "{fault}: {seen} requests in {MISBEHAVES:?}");
        let grown = most_memory(&world)?.saturating_sub(before);
        ensure!(grown < GROWTH_KIB, "{fault}: {grown} KiB more");
        // The gate holds, and whoever asks is answered.
        let (link, passed) = (world.link_status("wan0")?, world.passed(0)?);
        let gate = world.datapath("wan0")?.gate()?;
        ensure!(link["metered"] == true && passed <= gate.ceiling, "{fault}: {passed} passed, {gate:?}, {link}");
        world.admin.delete("/admin/v1/faults")?;
        // Also for the next agent it is only a server that was away.
        world.kill_agent()?;
        world.start_agent(&[])?;
        flow.carries(600_000, PATIENCE)?;
    }
    flow.stop()?;
    settles_to_the_octet(world, books)
}

#[test]
fn onboarding_that_answers_at_once_or_with_nonsense_is_not_asked_in_a_loop() -> Result<()> {
    let mut world = World::online(&plot())?;
    let books = Books::open(&world, 0)?;
    let flow = world.stream(400_000)?;
    let nonsense = json!({ "packages": {
        "chunk": 0, "reportInterval": 0, "throttleRate": u64::MAX, "offlineGrace": { "octets": u64::MAX, "seconds": u64::MAX },
    } });
    let same_again =
        json!({ "commands": [{ "number": 7, "command": "REAUTHORISE" }, { "number": 8, "command": "PLAN_CHANGED" }] });
    for commands in [json!({ "commands": [] }), same_again] {
        rules(
            &world,
            &json!([
                { "kind": "commands", "fault": "answer", "status": 200, "body": commands, "times": 100_000 },
                { "kind": "plan", "fault": "rewrite", "patch": nonsense, "times": 100_000 },
                { "kind": "any", "fault": "delay-ms", "delayMs": 0, "times": 100_000 },
            ]),
        )?;
        // A question that is out already is held by the server as it was; the next agent asks anew.
        world.kill_agent()?;
        world.start_agent(&[])?;
        flow.carries(600_000, PATIENCE)?;
        meanwhile(MISBEHAVES)?;
        let seen = seen(&world)?;
        ensure!(seen[0] >= 2, "it goes on asking: {seen:?}");
        ensure!(seen.iter().all(|seen| *seen <= A_HANDFUL), "commands, plans, all others: {seen:?}");
    }
    world.admin.delete("/admin/v1/faults")?;
    flow.carries(600_000, PATIENCE)?;
    flow.stop()?;
    settles_to_the_octet(world, books)
}

#[test]
fn a_grant_beyond_all_measure_opens_the_gate_and_a_smaller_one_shuts_it_at_once() -> Result<()> {
    let mut world = World::build(&plot())?;
    let without_end = json!({ "multipleUnitInformation": {
        "grantedUnit": { "totalVolume": u64::MAX }, "validityTime": u64::MAX, "volumeQuotaThreshold": null,
    } });
    rules(&world, &json!([{ "kind": "create", "fault": "rewrite", "patch": without_end }]))?;
    world.start_agent(&[])?;
    world.reaches(0, &["active"])?;
    assert_eq!(world.datapath("wan0")?.gate()?.ceiling, u64::MAX);
    let (books, flow) = world.under_traffic(1_000_000, 3_000_000)?;
    let sequence = world.account(0)?.sessions[0]["lastSequenceNumber"].clone();
    assert_eq!(sequence, 0, "three chunks have passed, and nothing had to be asked for");

    let crumb = json!({ "multipleUnitInformation": { "grantedUnit": { "totalVolume": 100 } } });
    rules(&world, &json!([{ "kind": "update", "fault": "rewrite", "patch": crumb, "times": 100_000 }]))?;
    let order = json!({ "deviceId": "gw-1", "command": "REAUTHORISE", "subscriberIdentifier": subscriber(0) });
    world.admin.post("/admin/v1/commands", &order)?;
    flow.stalls(Duration::from_secs(3), SOON)?;
    let (gate, seen) = (world.datapath("wan0")?.gate()?, seen(&world)?[0]);
    ensure!(gate.ceiling <= world.passed(0)? + 100, "{gate:?}, {} passed", world.passed(0)?);
    ensure!((2..=8).contains(&seen), "asked {seen} times for more than 100 octets");

    world.admin.delete("/admin/v1/faults")?;
    flow.carries(1_000_000, PATIENCE)?;
    flow.stop()?;
    settles_to_the_octet(world, books)
}

#[test]
fn a_session_that_is_not_named_or_named_by_a_novel_is_asked_for_again() -> Result<()> {
    let mut world = World::build(&plot())?;
    rules(
        &world,
        &json!([
            { "kind": "create", "fault": "rewrite", "location": "" },
            { "kind": "create", "fault": "rewrite", "location": format!("/{}", "r".repeat(10_000)) },
        ]),
    )?;
    world.start_agent(&[])?;
    eventually("a session with a name", PATIENCE, || {
        let link = world.link_status("wan0")?;
        ensure!(link["state"] == "active", "{link}");
        Ok(())
    })?;
    let (books, flow) = world.under_traffic(400_000, 600_000)?;
    flow.stop()?;
    assert_eq!(world.account(0)?.sessions.len(), 1, "it was one create all the time");
    settles_to_the_octet(world, books)
}

#[test]
fn the_usage_of_a_session_that_is_unknown_at_its_update_or_release_arrives_once() -> Result<()> {
    for kind in ["update", "release"] {
        let mut world = World::online(&plot())?;
        let books = Books::open(&world, 0)?;
        let unknown = json!({ "cause": "CONTEXT_NOT_FOUND", "status": 404 });
        rules(&world, &json!([{ "kind": kind, "fault": "answer", "status": 404, "body": unknown }]))?;
        let flow = world.stream(500_000)?;
        if kind == "update" {
            has_struck(&world, 1)?;
        }
        flow.carries(700_000, PATIENCE)?;
        flow.stop()?;
        is_debited_to_the_octet(&mut world, books)?;
        assert_eq!(world.struck()?, 1, "{kind}");
        let account = world.account(0)?;
        let one_time: u64 = account
            .of_kind("debit")
            .filter(|entry| entry["ref"].is_null())
            .filter_map(|entry| entry["totalVolume"].as_u64())
            .sum();
        ensure!(one_time > 100_000, "{kind}: {one_time} octets came as one-time events: {account:?}");
    }
    Ok(())
}

#[test]
fn a_server_whose_clock_is_years_off_changes_no_interval() -> Result<()> {
    let mut plot = plot();
    plot.packages = vec![json!({ "totalVolume": PLENTY, "chunk": 10 << 20, "validityTime": 4 })];
    let mut world = World::build(&plot)?;
    rules(
        &world,
        &json!([
            { "kind": "create", "fault": "skew", "skewSeconds": 630_720_000, "times": 100_000 },
            { "kind": "update", "fault": "skew", "skewSeconds": -630_720_000, "times": 100_000 },
            { "kind": "plan", "fault": "skew", "skewSeconds": 1_000_000_000, "times": 100_000 },
        ]),
    )?;
    world.start_agent(&[])?;
    world.reaches(0, &["active", "renewing"])?;
    let books = Books::open(&world, 0)?;
    let flow = world.stream(100_000)?;
    let before = seen(&world)?[1];
    meanwhile(Duration::from_secs(7))?;
    let renewed = seen(&world)?[1] - before;
    ensure!((2..=5).contains(&renewed), "renewed {renewed} times in 7 s for a validity of 4 s");
    let report = flow.stop()?;
    assert_eq!(report.datagrams_delivered, report.datagrams_sent, "{report:?}");
    settles_to_the_octet(world, books)
}

#[test]
fn tokens_that_end_at_once_or_never_keep_nobody_from_charging() -> Result<()> {
    for life in [json!(0), json!(u64::MAX), Value::Null] {
        let mut world = World::build(&plot())?;
        rules(
            &world,
            &json!([{ "kind": "token", "fault": "rewrite", "patch": { "expires_in": life }, "times": 100_000 }]),
        )?;
        world.start_agent(&[])?;
        world.reaches(0, &["active"])?;
        let (books, flow) = world.under_traffic(800_000, 2_000_000)?;
        flow.stop()?;
        let logins = seen(&world)?[0];
        let most = if life == json!(0) { A_HANDFUL } else { 1 };
        ensure!(logins <= most, "{logins} logins with expires_in {life}");
        settles_to_the_octet(world, books)?;
    }
    Ok(())
}
