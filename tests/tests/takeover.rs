//! An agent meets a meter that is not of its own making, or a second agent: nothing is metered twice, nothing goes unmetered or unbilled.

use std::fs;
use std::time::Duration;

use agent::datapath::{Meter, meters_on};
use anyhow::{Context as _, Result, ensure};
use e2e::eventually::eventually;
use e2e::process::Weir;
use e2e::scenario::{Books, Plot, SOON, World, chunked, iccid};
use e2e::topology::{Layout, Medium};
use nix::sys::signal::Signal;

const PLENTY: u64 = 1 << 30;

/// Small enough that reports follow each other at [`RATE`].
const CHUNK: u64 = 512 << 10;

/// Octets a second.
const RATE: u64 = 800_000;

const PATIENCE: Duration = Duration::from_secs(30);

const DIE_AT: &str = "WEIR_DRILL_DIE_AT";
const HALT_AT: &str = "WEIR_DRILL_HALT_AT";
const LAYOUT: &str = "WEIR_DRILL_LAYOUT";
/// The layout before the one that is; its counters are today's.
const OLDER: &str = "1";
/// What it did not have.
const NOT_YET: [&str; 2] = ["filters", "refusals"];
/// The layout after the one that is.
const NEWER: &str = "3";

fn plot() -> Plot {
    Plot::of(chunked(PLENTY, CHUNK))
}

/// The only meter on the link.
fn only_meter(world: &World) -> Result<Meter> {
    let meters = world.topology.gateway.run_in(|| meters_on("wan0"))??;
    let [meter] = meters.as_slice() else { anyhow::bail!("not one meter: {meters:?}") };
    Ok(meter.clone())
}

/// A session of the meter that is gone, and one of the meter that is there now.
fn is_two_sessions(world: &mut World, books: Books) -> Result<()> {
    only_meter(world)?;
    let account = world.settles_to_the_octet(books)?;
    ensure!(account.sessions.len() == 2, "{account:?}");
    let ledger = rusqlite::Connection::open(world.workdir.path().join("ledger.db"))?;
    let uncertain: i64 = ledger.query_row("SELECT count(uncertain) FROM session", [], |row| row.get(0))?;
    ensure!(uncertain == 0, "a meter that was read to its end leaves no rest");
    Ok(())
}

#[test]
fn a_meter_of_an_older_layout_is_read_for_the_last_time_and_makes_way_without_a_gap() -> Result<()> {
    makes_way_without_a_gap(&plot())
}

#[test]
fn a_meter_of_an_older_layout_makes_way_without_a_gap_where_there_is_no_tcx() -> Result<()> {
    makes_way_without_a_gap(&plot().by_clsact())
}

fn makes_way_without_a_gap(plot: &Plot) -> Result<()> {
    let mut world = World::build(plot)?;
    world.start_agent_with(&[], &[(LAYOUT, OLDER)])?;
    world.reaches(0, &["active", "renewing"])?;
    let (mut books, flow) = world.under_traffic(RATE, CHUNK)?;
    books.keep_meter(&world)?;
    world.kill_agent()?;
    let pins = world.pin_root().join("v1/wan0");
    for map in NOT_YET {
        fs::remove_file(pins.join(map)).with_context(|| format!("removing {map}"))?;
    }
    flow.carries(CHUNK / 8, SOON)?;
    let older = only_meter(&world)?;
    world.start_agent(&[])?;
    world.reaches(0, &["active", "renewing"])?;
    flow.carries(CHUNK, SOON)?;
    flow.stop()?;
    assert_ne!(only_meter(&world)?.epoch_id, older.epoch_id);
    assert!(!pins.exists(), "the older layout is gone");
    is_two_sessions(&mut world, books)
}

/// Wherever the loader dies while it replaces one meter by another, the next agent ends what it began.
#[test]
fn a_death_in_the_middle_of_a_change_of_layout_loses_nothing() -> Result<()> {
    dies_in_the_middle(&plot())
}

#[test]
fn a_death_in_the_middle_of_a_change_of_layout_loses_nothing_where_there_is_no_tcx() -> Result<()> {
    dies_in_the_middle(&plot().by_clsact())
}

fn dies_in_the_middle(plot: &Plot) -> Result<()> {
    let mut world = World::online(plot)?;
    let (mut books, flow) = world.under_traffic(RATE, CHUNK)?;
    world.kill_agent()?;
    books.keep_meter(&world)?;
    for point in ["maps-pinned", "uplink-attached", "staged", "kept", "superseded"] {
        world.start_agent_with(&[], &[(LAYOUT, NEWER), (DIE_AT, point)])?;
        let mut agent = world.agent.take().context("an agent")?.actor;
        ensure!(!agent.wait(SOON)?.success(), "it cannot begin without a meter");
        ensure!(agent.stderr().contains("the loader for wan0 ended with signal: 9"), "{point}: {}", agent.stderr());
    }
    world.start_agent_with(&[], &[(LAYOUT, NEWER)])?;
    world.reaches(0, &["active", "renewing"])?;
    flow.carries(CHUNK, SOON)?;
    flow.stop()?;
    is_two_sessions(&mut world, books)
}

#[test]
fn a_meter_of_a_newer_layout_is_refused_and_nothing_is_touched() -> Result<()> {
    let newer = [(LAYOUT, NEWER)];
    let mut world = World::build(&plot())?;
    world.start_agent_with(&[], &newer)?;
    world.reaches(0, &["active"])?;
    let (books, flow) = world.under_traffic(RATE, CHUNK)?;
    world.kill_agent()?;
    let before = only_meter(&world)?;

    world.start_agent(&[])?;
    let mut older = world.agent.take().context("an agent")?.actor;
    ensure!(!older.wait(SOON)?.success());
    let said = older.stderr();
    ensure!(said.contains("a newer agent's meter") && said.contains("v3/wan0 is of layout 3"), "{said}");
    drop(older);
    assert_eq!(only_meter(&world)?, before);
    flow.carries(CHUNK / 8, SOON)?;

    world.start_agent_with(&[], &newer)?;
    flow.carries(CHUNK, SOON)?;
    flow.stop()?;
    let account = world.settles_to_the_octet(books)?;
    ensure!(account.sessions.len() == 1, "the session goes on: {account:?}");
    Ok(())
}

/// The last reading that was recorded.
fn recorded(world: &World) -> Result<u64> {
    let ledger = rusqlite::Connection::open(world.workdir.path().join("ledger.db"))?;
    let sql = "SELECT sum(passed_uplink + passed_downlink) FROM checkpoint";
    Ok(u64::try_from(ledger.query_row(sql, [], |row| row.get::<_, Option<i64>>(0))?.unwrap_or_default())?)
}

#[test]
fn a_meter_of_a_layout_that_nobody_can_read_is_billed_up_to_the_last_record_and_never_runs_beside_the_new_one()
-> Result<()> {
    let mut world = World::build(&Plot::of(chunked(PLENTY, 4 << 20)))?;
    world.start_agent_with(&[], &[(LAYOUT, "7")])?;
    world.reaches(0, &["active"])?;
    let (mut books, flow) = world.under_traffic(RATE, CHUNK)?;
    flow.stop()?;
    let known = eventually("everything to be recorded", SOON, || {
        let (recorded, passed) = (recorded(&world)?, world.passed(0)?);
        ensure!(recorded == passed, "{recorded} recorded, {passed} passed");
        Ok(passed)
    })?;
    world.kill_agent()?;
    let unknown = world.stream(RATE)?;
    unknown.carries(CHUNK / 4, SOON)?;
    unknown.stop()?;
    books.keep_meter(&world)?;

    world.start_agent_with(&[], &[(LAYOUT, "9")])?;
    world.agent.as_mut().context("an agent")?.actor.wait_for_line("its layout 7 is unknown", SOON)?;
    world.reaches(0, &["active"])?;
    only_meter(&world)?;
    world.stop_agent()?;
    let present = world.passed(0)?;
    books.close(&world)?;
    let account = world.account(0)?;
    account.is_settled()?;
    assert_eq!(account.debited(), known + present, "{account:?}");
    Ok(())
}

#[test]
fn pins_that_went_out_of_sight_while_nobody_was_there_are_not_metered_beside() -> Result<()> {
    is_not_metered_beside(&plot())
}

#[test]
fn pins_that_went_out_of_sight_are_not_metered_beside_where_there_is_no_tcx() -> Result<()> {
    is_not_metered_beside(&plot().by_clsact())
}

fn is_not_metered_beside(plot: &Plot) -> Result<()> {
    let mut world = World::online(plot)?;
    let (mut books, flow) = world.under_traffic(RATE, CHUNK)?;
    world.kill_agent()?;
    books.keep_meter(&world)?;
    world.workdir.cover_bpffs()?;
    flow.carries(CHUNK / 8, SOON)?;
    world.start_agent(&[])?;
    // What the old meter may still let through could be as much as is waited for.
    world.reaches(0, &["active", "renewing"])?;
    flow.carries(CHUNK, SOON)?;
    flow.stop()?;
    is_two_sessions(&mut world, books)
}

#[test]
fn pins_that_go_out_of_sight_under_a_running_agent_are_noticed_and_made_anew() -> Result<()> {
    let mut world = World::online(&plot())?;
    let (mut books, flow) = world.under_traffic(RATE, CHUNK)?;
    books.keep_meter(&world)?;
    world.workdir.cover_bpffs()?;
    world.agent.as_mut().context("an agent")?.actor.wait_for_line("the pins of the meter are gone", PATIENCE)?;
    eventually("pins in the new file system", PATIENCE, || world.datapath("wan0").map(drop))?;
    flow.carries(CHUNK, SOON)?;
    // What is pinned now is what the next agent needs.
    world.kill_agent()?;
    world.start_agent(&[])?;
    flow.carries(CHUNK, SOON)?;
    flow.stop()?;
    is_two_sessions(&mut world, books)
}

/// Pins are what holds a meter when the agent is gone; while it lives it holds the meter itself.
#[test]
fn a_link_whose_pins_are_unmounted_stays_metered_and_is_pinned_again_when_that_is_possible() -> Result<()> {
    let mut world = World::online(&plot())?;
    let (mut books, flow) = world.under_traffic(RATE, CHUNK)?;
    books.keep_meter(&world)?;
    let before = only_meter(&world)?;
    world.workdir.unmount_bpffs();
    world.agent.as_mut().context("an agent")?.actor.wait_for_line("type: mount -t bpf bpf", PATIENCE)?;
    flow.carries(2 * CHUNK, SOON)?;
    assert_eq!(only_meter(&world)?, before, "counted, and renewed, without a pin");
    world.workdir.mount_bpffs_again()?;
    eventually("pins in the new file system", PATIENCE, || world.datapath("wan0").map(drop))?;
    flow.carries(CHUNK, SOON)?;
    flow.stop()?;
    is_two_sessions(&mut world, books)
}

#[test]
fn damaged_pins_are_taken_over_and_what_they_counted_is_billed() -> Result<()> {
    let mut world = World::online(&plot())?;
    let (mut books, flow) = world.under_traffic(RATE, CHUNK)?;
    world.kill_agent()?;
    books.keep_meter(&world)?;
    fs::remove_file(world.pin_root().join("v2/wan0/allow"))?;
    flow.carries(CHUNK / 8, SOON)?;
    world.start_agent(&[])?;
    world.reaches(0, &["active", "renewing"])?;
    flow.carries(CHUNK, SOON)?;
    flow.stop()?;
    is_two_sessions(&mut world, books)
}

/// The old counters are out of the way, the new meter is attached, and nobody has written down yet what the old one said.
#[test]
fn what_a_deleted_link_had_counted_is_billed_although_the_agent_dies_when_the_new_one_is_metered() -> Result<()> {
    let mut plot = plot().over(Layout::with_uplinks(&[Medium::Veth, Medium::Veth]));
    plot.links = vec![format!("name = \"wan0\"\niccid = \"{}\"", iccid(0))];
    let mut world = World::build(&plot)?;
    world.start_agent(&[])?;
    world.reaches(0, &["active"])?;
    let (books, flow) = world.under_traffic(RATE, CHUNK)?;
    world.kill_agent()?;
    flow.carries(CHUNK / 8, SOON)?;
    flow.stop()?;
    books.close(&world)?;
    let (before, passed) = (world.datapath("wan0")?.epoch_id(), world.passed(0)?);

    let internet = world.topology.internet.name().to_owned();
    world.topology.prefer(1)?;
    world.topology.gateway.ip("link del wan0")?;
    world.topology.gateway.ip(&format!("link add wan0 type veth peer name modem0 netns {internet}"))?;
    world.start_agent_with(&[], &[(DIE_AT, "attached")])?;
    world.wait_for_death()?;
    assert_ne!(
        world.datapath("wan0")?.epoch_id(),
        before,
        "the old counters are not where the agent looks for its own"
    );

    world.start_agent(&[])?;
    eventually("the old session to be released", PATIENCE, || world.account(0)?.is_settled())?;
    assert_eq!(world.account(0)?.debited(), passed);
    assert_eq!(fs::read_dir(world.pin_root().join("retired/v2"))?.count(), 0, "what is recorded is not kept");
    world.stop_agent()
}

/// Process ids of the children of the agent.
fn loaders(world: &World) -> Result<Vec<u32>> {
    let pid = world.agent.as_ref().context("an agent")?.actor.pid();
    let mut children = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("children"))?;
        children.extend(text.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
    }
    Ok(children)
}

fn state_of(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.split(' ').next()?.to_owned())
}

#[test]
fn a_loader_does_not_outlive_its_agent_and_the_next_one_does_not_wait_for_it() -> Result<()> {
    let mut world = World::build(&plot())?;
    for point in ["maps-pinned", "uplink-attached", "staged"] {
        world.start_agent_with(&[], &[(HALT_AT, point)])?;
        let loader = eventually("a loader that stands still", SOON, || {
            let loaders = loaders(&world)?;
            let halted = loaders.into_iter().find(|pid| state_of(*pid).as_deref() == Some("T"));
            halted.context("not yet")
        })?;
        world.kill_agent()?;
        eventually("the loader to be gone", SOON, || {
            ensure!(!matches!(state_of(loader).as_deref(), Some("T" | "R" | "S" | "D")), "{:?}", state_of(loader));
            Ok(())
        })?;
    }
    world.start_agent(&[])?;
    world.reaches(0, &["active"])?;
    let (books, flow) = world.under_traffic(RATE, CHUNK)?;
    flow.stop()?;
    only_meter(&world)?;
    world.settles_to_the_octet(books).map(drop)
}

#[test]
fn a_loader_that_is_killed_is_said_and_the_link_is_metered_in_the_end() -> Result<()> {
    let mut world = World::build(&plot())?;
    for point in ["maps-pinned", "uplink-attached", "staged", "superseded"] {
        world.start_agent_with(&[], &[(DIE_AT, point)])?;
        let agent = &mut world.agent.as_mut().context("an agent")?.actor;
        agent.wait_for_line("the loader for wan0 ended with signal: 9", SOON)?;
        // It may have ended by itself: a take-over at the start that fails is an error.
        drop(world.agent.take());
    }
    world.start_agent(&[])?;
    world.reaches(0, &["active"])?;
    let (books, flow) = world.under_traffic(RATE, CHUNK)?;
    flow.stop()?;
    only_meter(&world)?;
    world.settles_to_the_octet(books).map(drop)
}

/// A loader that hangs is killed by somebody: the agent that waits for it tries again by itself.
#[test]
fn an_agent_whose_loader_was_killed_tries_again_by_itself() -> Result<()> {
    let mut world = World::build(&plot())?;
    world.start_agent_with(&[], &[(HALT_AT, "uplink-attached")])?;
    let loader = eventually("a loader that stands still", SOON, || {
        let halted = loaders(&world)?.into_iter().find(|pid| state_of(*pid).as_deref() == Some("T"));
        halted.context("not yet")
    })?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(loader.try_into()?), Signal::SIGKILL)?;
    let agent = &mut world.agent.as_mut().context("an agent")?.actor;
    agent.wait_for_line("the loader for wan0 ended with signal: 9", SOON)?;
    // The next one halts as well; told to go on, it ends its work.
    eventually("the link to be metered", PATIENCE, || {
        let halted = loaders(&world)?.into_iter().find(|pid| state_of(*pid).as_deref() == Some("T"));
        if let Some(pid) = halted {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.try_into()?), Signal::SIGCONT)?;
        }
        ensure!(world.link_status("wan0")?["state"] == "active", "not yet");
        Ok(())
    })?;
    only_meter(&world).map(drop)
}

/// Starts a second agent with this change of the first one's configuration; it has to refuse, and its words are the answer.
fn second(world: &World, name: &str, change: impl Fn(&str) -> String) -> Result<String> {
    let text = fs::read_to_string(&world.config)?.replace("weir.sock", &format!("{name}.sock"));
    let text = text.replace("ledger.db", &format!("{name}.db")).replace("device.pem", &format!("{name}.pem"));
    let config = world.workdir.write(&format!("{name}.toml"), &change(&text))?;
    let mut second = Weir::start(&world.topology.gateway, &world.workdir, &config, &[])?;
    let status = second.actor.wait(SOON)?;
    ensure!(!status.success(), "{status}");
    let first = world.agent.as_ref().context("an agent")?.actor.pid();
    let said = second.actor.stderr();
    ensure!(said.contains(&format!("another agent (process {first})")), "whom to stop: {said}");
    Ok(said)
}

#[test]
fn a_second_agent_on_the_same_pins_or_the_same_link_is_refused_and_the_first_goes_on_to_the_octet() -> Result<()> {
    let mut world = World::online(&plot())?;
    let (books, flow) = world.under_traffic(RATE, CHUNK / 2)?;
    let before = only_meter(&world)?;
    let pin_root = world.pin_root();
    let said = second(&world, "same-pins", |text| text.replace("\"wan0\"", "\"wan7\""))?;
    ensure!(said.contains(&pin_root.display().to_string()), "{said}");
    let elsewhere = world.workdir.bpf().join("other");
    let said = second(&world, "same-link", |text| {
        text.replace(&pin_root.display().to_string(), &elsewhere.display().to_string())
    })?;
    ensure!(said.contains("meters the link wan0"), "{said}");
    ensure!(!elsewhere.join("v2").exists(), "it has pinned nothing");
    assert_eq!(only_meter(&world)?, before);
    flow.carries(CHUNK, SOON)?;
    flow.stop()?;
    let counted = books.counted(&world)?;
    assert_eq!((counted.uplink.refused.packets, counted.downlink.refused.packets), (0, 0), "{counted:?}");
    let account = world.settles_to_the_octet(books)?;
    ensure!(account.sessions.len() == 1, "{account:?}");
    Ok(())
}

/// The first was stopped with `--keep`: its meter and its session wait for it, and are nobody else's.
#[test]
fn an_agent_with_another_ledger_does_not_take_over_what_a_first_one_has_kept() -> Result<()> {
    let mut world = World::build(&plot())?;
    world.start_agent(&["--keep"])?;
    world.reaches(0, &["active"])?;
    let (books, flow) = world.under_traffic(RATE, CHUNK / 2)?;
    world.stop_agent()?;
    let before = only_meter(&world)?;

    let text = fs::read_to_string(&world.config)?.replace("weir.sock", "other.sock").replace("ledger.db", "other.db");
    let text =
        text.replace(&world.pin_root().display().to_string(), &world.workdir.bpf().join("other").display().to_string());
    let config = world.workdir.write("other.toml", &text)?;
    let mut other = Weir::start(&world.topology.gateway, &world.workdir, &config, &[])?;
    other.actor.wait_for_line("carries another meter at its uplink hook", SOON)?;
    other.actor.kill()?;
    drop(other);
    assert_eq!(only_meter(&world)?, before);

    world.start_agent(&[])?;
    flow.carries(CHUNK, SOON)?;
    flow.stop()?;
    let account = world.settles_to_the_octet(books)?;
    ensure!(account.sessions.len() == 1, "{account:?}");
    Ok(())
}
