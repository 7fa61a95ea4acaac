//! What an operator types, against the real agent, the real kernel and the real server.

use std::process::Output;
use std::time::Duration;

use agent::datapath::meters_on;
use anyhow::{Context as _, Result, ensure};
use e2e::eventually::eventually;
use e2e::scenario::{Plot, SOON, World, chunked, subscriber};
use serde_json::Value;

const PLENTY: u64 = 1 << 30;

/// Time for a second order, which has to wait for ten seconds.
const PATIENCE: Duration = Duration::from_secs(30);

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json(output: &Output) -> Result<Value> {
    serde_json::from_slice(&output.stdout).with_context(|| format!("{}{}", out(output), err(output)))
}

/// A world whose server tells the agent nothing by itself.
fn foreign(package: Value) -> Result<World> {
    let mut plot = Plot::of(package);
    plot.server = "onboarding = \"static\"\n".into();
    plot.server_args = vec!["--no-auth".into()];
    plot.links = vec![format!(
        "name = \"wan0\"\nsubscriber = \"{}\"\nrating_group = 10\napn = \"internet\"\nchunk = \"1 MiB\"",
        subscriber(0)
    )];
    World::online(&plot)
}

/// What a check of an agent with which all is well comes to: where tests live in memory, so does the ledger, and that is a warning.
fn wellness(world: &World) -> Result<(i32, &'static str)> {
    let persistent = world.status()?["ledger_persistent"] == true;
    Ok(if persistent { (0, "OK") } else { (1, "WARNING") })
}

#[test]
fn a_top_up_that_nobody_told_the_gateway_of_is_used_as_soon_as_the_operator_asks() -> Result<()> {
    let mut world = foreign(chunked(500_000, 1 << 20))?;
    let flow = world.stream(300_000)?;
    world.reaches(0, &["exhausted"])?;

    let status = out(&world.weir("status", &["--color", "always"])?);
    ensure!(status.contains("\u{1b}[31mEXHAUSTED") && status.contains("`weir renew` asks now"), "{status}");
    let check = world.weir("check", &[])?;
    ensure!(check.status.code() == Some(2) && out(&check).starts_with("WEIR CRITICAL - wan0: "), "{}", out(&check));

    eventually("the server to say that there is nothing more", PATIENCE, || {
        let renewed = world.weir("renew", &["--json"])?;
        let document = json(&renewed)?;
        ensure!(document["links"][0]["outcome"] == "nothing-more" && renewed.status.success(), "{document}");
        Ok(())
    })?;
    let soon = world.weir("renew", &["wan0"])?;
    ensure!(soon.status.code() == Some(1) && out(&soon).contains("try again in"), "{}{}", out(&soon), err(&soon));
    let nowhere = world.weir("top-up", &["wan7"])?;
    ensure!(!nowhere.status.success() && err(&nowhere).contains("there is wan0"), "{}", err(&nowhere));

    world.top_up(0, 5_000_000)?;
    eventually("the top-up to be granted by order", PATIENCE, || {
        let renewed = world.weir("top-up", &["--json"])?;
        ensure!(json(&renewed)?["links"][0]["outcome"] == "granted", "{}", out(&renewed));
        Ok(())
    })?;
    flow.carries(400_000, SOON)?;
    flow.stop()?;

    let ledger = json(&world.weir("ledger", &["--json"])?)?;
    let session = &ledger["sessions"][0];
    ensure!(ledger["drift_octets"] == 0 && session["state"] == "open", "{ledger}");
    world.stop_agent()?;
    let account = world.account(0)?;
    account.is_settled()?;
    ensure!(account.debited() == world.passed(0)?, "{account:?}");
    Ok(())
}

#[test]
fn what_is_left_of_a_package_is_what_the_server_sold_less_what_has_passed() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 2 << 20)))?;
    let (books, flow) = world.under_traffic(300_000, 1_500_000)?;
    flow.stop()?;
    books.agree(&world)?;
    eventually("status and kernel to say the same of the package", SOON, || {
        let link = world.link_status("wan0")?;
        let passed = world.passed(0)?;
        ensure!(link["package"]["left_octets"] == PLENTY - passed, "{passed} passed: {}", link["package"]);
        ensure!(link["package"]["bought_octets"] == PLENTY && link["last_report"].is_string(), "{link}");
        Ok(())
    })?;
    let check = world.weir("check", &["--crit", "1%", "--warn", "1%"])?;
    ensure!(check.status.code() == Some(wellness(&world)?.0), "{}", out(&check));
    // After a restart it is told anew, and the usage of the life before is in it.
    world.kill_agent()?;
    world.start_agent(&[])?;
    world.reaches(0, &["active", "renewing"])?;
    eventually("the next agent to know it as well", SOON, || {
        let (link, passed) = (world.link_status("wan0")?, world.passed(0)?);
        ensure!(link["package"]["left_octets"] == PLENTY - passed, "{passed} passed: {}", link["package"]);
        Ok(())
    })?;
    world.settles_to_the_octet(books).map(drop)
}

#[test]
fn what_is_detached_after_a_crash_is_recorded_and_the_next_start_bills_it_to_the_octet() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 2 << 20)))?;
    let (mut books, flow) = world.under_traffic(300_000, 800_000)?;
    let running = world.weir("detach", &[])?;
    ensure!(!running.status.success() && err(&running).contains("stop that agent"), "{}", err(&running));
    world.kill_agent()?;
    // Counted by the kernel alone.
    flow.carries(500_000, SOON)?;
    flow.stop()?;
    books.agree(&world)?;
    books.keep_meter(&world)?;
    let passed = world.kernel(0)?;

    let gone = world.weir("status", &[])?;
    ensure!(
        gone.status.code() == Some(1) && err(&gone).contains("start the agent (systemctl start weir, or weir run)"),
        "{}",
        err(&gone)
    );
    let unknown = world.weir("check", &[])?;
    ensure!(unknown.status.code() == Some(3), "{}", out(&unknown));
    let ledger = world.weir("ledger", &["--json"])?;
    ensure!(json(&ledger)?["open_sessions"] == 1, "{}{}", out(&ledger), err(&ledger));

    let removed = json(&world.weir("detach", &["--json"])?)?;
    let meter = &removed["removed"][0];
    let counted = (passed.uplink.passed.octets, passed.downlink.passed.octets);
    ensure!(
        (&meter["passed_uplink_octets"], &meter["passed_downlink_octets"]) == (&counted.0.into(), &counted.1.into()),
        "{meter}"
    );
    ensure!(meter["link"] == "wan0" && meter["lost_octets"] == 0, "{meter}");
    ensure!(meter["recorded_octets"].as_u64() >= Some(400_000), "{meter}");
    let left = world.topology.gateway.run_in(|| meters_on("wan0"))??;
    ensure!(left.is_empty() && !world.pin_root().exists(), "{left:?}");
    let again = out(&world.weir("detach", &[])?);
    ensure!(again.contains("nothing of weir"), "{again}");

    world.start_agent(&[])?;
    world.reaches(0, &["active", "renewing"])?;
    eventually("the first session to be billed whole", SOON, || {
        let account = world.account(0)?;
        ensure!((account.uplink, account.downlink) >= counted, "{account:?}, {counted:?} passed");
        Ok(())
    })?;
    let status = world.status()?;
    ensure!(status["uncertain_octets"] == 0, "{status}");
    world.stop_agent()?;
    let (account, kernel) = (world.account(0)?, books.kernel(&world)?);
    account.is_settled()?;
    let all = (kernel.uplink.passed.octets, kernel.downlink.passed.octets);
    ensure!((account.uplink, account.downlink) == all, "{all:?} passed: {account:?}");
    Ok(())
}

#[test]
fn a_link_that_was_attached_by_hand_stays_shut_until_the_agent_takes_it_over() -> Result<()> {
    let mut world = World::build(&Plot::of(chunked(PLENTY, 2 << 20)))?;
    let attached = world.weir("attach", &[])?;
    ensure!(out(&attached).contains("wan0: metered; its gate is shut"), "{}{}", out(&attached), err(&attached));
    let epoch = world.datapath("wan0")?.epoch_id();
    let flow = world.stream(200_000)?;
    eventually("octets to be refused", SOON, || {
        ensure!(world.kernel(0)?.uplink.refused.octets > 10_000, "{:?}", world.kernel(0)?);
        Ok(())
    })?;
    let again = out(&world.weir("attach", &[])?);
    ensure!(again.contains("was metered already"), "{again}");
    ensure!(world.passed(0)? == 0, "{:?}", world.kernel(0)?);
    world.start_agent(&[])?;
    flow.carries(300_000, PATIENCE)?;
    flow.stop()?;
    ensure!(world.datapath("wan0")?.epoch_id() == epoch, "it was adopted");
    world.stop_agent()
}

#[test]
fn a_hook_is_run_once_for_each_crossing() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 2 << 20)))?;
    let check = |world: &World| -> Result<Option<i32>> {
        let hook = "echo \"$WEIR_BEFORE $WEIR_STATE\" >> crossings";
        Ok(world.weir("check", &["--state", "check.state", "--hook", hook])?.status.code())
    };
    let crossings = |world: &World| -> Result<String> {
        // The hook has been run at the first check where a ledger in memory is a warning.
        let file = world.workdir.path().join("crossings");
        Ok(if file.exists() { std::fs::read_to_string(file)? } else { String::new() })
    };
    let (code, well) = wellness(&world)?;
    ensure!((check(&world)?, check(&world)?) == (Some(code), Some(code)));
    let first = crossings(&world)?;
    ensure!(first == if code == 0 { "" } else { "OK WARNING\n" }, "{first}");
    world.kill_agent()?;
    ensure!((check(&world)?, check(&world)?) == (Some(3), Some(3)));
    let second = format!("{first}{well} UNKNOWN\n");
    ensure!(crossings(&world)? == second, "{}", crossings(&world)?);
    world.start_agent(&[])?;
    world.reaches(0, &["active", "renewing"])?;
    ensure!((check(&world)?, check(&world)?) == (Some(code), Some(code)));
    ensure!(crossings(&world)? == format!("{second}UNKNOWN {well}\n"), "{}", crossings(&world)?);
    world.stop_agent()
}

#[test]
fn what_cannot_be_done_is_told_with_what_to_type_instead() -> Result<()> {
    let world = World::build(&Plot::of(chunked(PLENTY, 2 << 20)))?;
    for (command, args, status, words) in [
        ("watch", &[][..], 64, "`weir status` prints once"),
        ("status", &[][..], 1, "start the agent (systemctl start weir, or weir run)"),
        ("renew", &[][..], 1, "start the agent (systemctl start weir, or weir run)"),
        ("ledger", &[][..], 1, "ledger.db cannot be read"),
        ("status", &["--units", "pints"][..], 64, "binary, decimal, octets"),
    ] {
        let output = world.weir(command, args)?;
        let said = err(&output);
        ensure!(output.status.code() == Some(status) && said.contains(words), "weir {command}: {said}");
    }
    Ok(())
}
