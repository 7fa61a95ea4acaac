//! Links that get another name: the meter follows the link, and every octet is paid by the SIM of the name it crossed under.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::eventually::eventually;
use e2e::scenario::{Account, Plot, SOON, World, chunked, iccid};
use e2e::topology::{Layout, Medium};
use e2e::traffic::{Datagrams, udp};

/// Octets a second.
const RATE: u64 = 300_000;

const PLENTY: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_secs(30);

fn by_pattern() -> Plot {
    let mut plot = Plot::of(chunked(PLENTY, 2 << 20));
    plot.links = vec![format!("name = \"wan*\"\nslot = \"modem\"\niccid = \"{}\"", iccid(0))];
    plot
}

fn by_name() -> Plot {
    let layout = Layout::with_uplinks(&[Medium::Veth, Medium::Veth]);
    Plot::of(chunked(PLENTY, 2 << 20)).and(chunked(PLENTY, 2 << 20)).over(layout)
}

/// So many datagrams of 1028 octets to the far end of an uplink.
fn send(world: &World, link: usize, datagrams: u64) -> Result<()> {
    let (topology, to) = (&world.topology, world.topology.uplinks[link].far_v4);
    let report = udp(&topology.client, (&topology.internet, to), Datagrams::of(datagrams, 1000))?.join()?;
    ensure!(report.datagrams_delivered == datagrams, "{report:?}");
    Ok(())
}

fn is_released(world: &World, sim: usize) -> Result<Account> {
    eventually(&format!("the sessions of SIM {sim} to be released"), PATIENCE, || {
        let account = world.account(sim)?;
        account.is_settled()?;
        Ok(account)
    })
}

/// The agent's own messages and their answers, at most.
const MESSAGES: u64 = 60_000;

fn is_about(debited: u64, expected: u64) -> Result<()> {
    ensure!((expected..expected + MESSAGES).contains(&debited), "{debited} debited, {expected} crossed");
    Ok(())
}

#[test]
fn a_rename_within_the_pattern_keeps_epoch_session_and_octets_without_a_gap() -> Result<()> {
    let mut world = World::online(&by_pattern())?;
    let before = world.link_status("wan0")?;
    let epoch = world.datapath("wan0")?.epoch_id();
    let (books, flow) = world.under_traffic(RATE, 300_000)?;
    world.topology.rename(0, "wan9")?;
    let after = world.reaches(0, &["active", "renewing"])?;
    assert_eq!((&after["charging_id"], &after["in_use"]), (&before["charging_id"], &true.into()));
    flow.carries(300_000, SOON)?;
    flow.stop()?;
    assert_eq!(world.datapath("wan9")?.epoch_id(), epoch);
    assert!(world.datapath("wan0").is_err(), "nothing is pinned under the old name");
    let counted = books.counted(&world)?;
    assert_eq!((counted.uplink.refused.packets, counted.downlink.refused.packets), (0, 0), "{counted:?}");
    assert!(world.link_status("wan0").is_err(), "nobody waits for the old name");
    assert_eq!(world.settles_to_the_octet(books)?.sessions.len(), 1);
    Ok(())
}

#[test]
fn a_link_renamed_while_the_agent_is_dead_is_adopted_under_its_new_name() -> Result<()> {
    is_adopted_under_its_new_name(&by_pattern())
}

#[test]
fn a_link_renamed_while_the_agent_is_dead_is_adopted_under_its_new_name_where_there_is_no_tcx() -> Result<()> {
    is_adopted_under_its_new_name(&by_pattern().by_clsact())
}

fn is_adopted_under_its_new_name(plot: &Plot) -> Result<()> {
    let mut world = World::online(plot)?;
    let before = world.link_status("wan0")?;
    let (books, flow) = world.under_traffic(RATE, 300_000)?;
    world.kill_agent()?;
    world.topology.rename(0, "wan.9")?;
    flow.carries(300_000, SOON)?;
    world.start_agent(&[])?;
    let after = world.reaches(0, &["active", "renewing"])?;
    assert_eq!(after["charging_id"], before["charging_id"], "the same session goes on");
    flow.carries(300_000, SOON)?;
    flow.stop()?;
    assert_eq!(world.settles_to_the_octet(books)?.sessions.len(), 1);
    Ok(())
}

#[test]
fn a_link_renamed_to_a_name_that_nobody_wants_is_settled_and_let_go() -> Result<()> {
    is_let_go(&by_name())
}

#[test]
fn a_link_renamed_to_a_name_that_nobody_wants_is_settled_and_let_go_where_there_is_no_tcx() -> Result<()> {
    is_let_go(&by_name().by_clsact())
}

fn is_let_go(plot: &Plot) -> Result<()> {
    let mut world = World::online(plot)?;
    world.topology.prefer(1)?;
    send(&world, 0, 400)?;
    let first = world.passed(0)?;
    world.topology.rename(0, "other0")?;
    let account = is_released(&world, 0)?;
    assert_eq!(account.debited(), first, "{account:?}");
    eventually("the meter to be taken off", SOON, || {
        ensure!(world.datapath("other0").is_err() && world.datapath("wan0").is_err(), "it is still pinned");
        Ok(())
    })?;
    assert_eq!(world.link_status("wan0")?["metered"], false);
    // Nobody meters it, nobody blocks it.
    send(&world, 0, 100)?;

    world.topology.rename(0, "wan0")?;
    world.reaches(0, &["active", "renewing"])?;
    assert_eq!(world.passed(0)?, 0, "a new epoch");
    send(&world, 0, 300)?;
    world.stop_agent()?;
    let account = world.account(0)?;
    account.is_settled()?;
    assert_eq!(account.debited(), first + world.passed(0)?, "{account:?}");
    Ok(())
}

#[test]
fn a_link_renamed_to_a_name_that_nobody_wants_while_the_agent_is_dead_is_settled_and_let_go() -> Result<()> {
    let mut world = World::online(&by_name())?;
    world.topology.prefer(1)?;
    send(&world, 0, 300)?;
    world.kill_agent()?;
    send(&world, 0, 200)?;
    let passed = world.passed(0)?;
    world.topology.rename(0, "other0")?;
    world.start_agent(&[])?;
    let account = is_released(&world, 0)?;
    assert_eq!(account.debited(), passed, "{account:?}");
    eventually("the meter to be taken off", SOON, || {
        ensure!(world.datapath("other0").is_err() && world.datapath("wan0").is_err(), "it is still pinned");
        Ok(())
    })?;
    send(&world, 0, 100)?;
    world.stop_agent()
}

/// What each SIM has to pay after the names were swapped: what crossed under its name.
fn pays_by_name(world: &mut World, before: [u64; 2]) -> Result<()> {
    // By uplink: the first is wan1 now, the second wan0.
    world.reaches(0, &["active", "renewing"])?;
    world.reaches(1, &["active", "renewing"])?;
    send(world, 0, 100)?;
    send(world, 1, 800)?;
    world.stop_agent()?;
    let after = [world.passed(0)?, world.passed(1)?];
    let accounts = [world.account(0)?, world.account(1)?];
    for account in &accounts {
        account.is_settled()?;
    }
    let debited = [accounts[0].debited(), accounts[1].debited()];
    // The name in between is wanted by nobody: an agent that sees it lets the link go, and meters it anew under the next one.
    let replaced = [0, before[0], before[1], before[0] + before[1]];
    let beside = debited[0] + debited[1] - (after[0] + after[1]);
    ensure!(replaced.contains(&beside), "{beside} octets that no meter has: {before:?}, {after:?}, {accounts:?}");
    is_about(debited[0], before[0] + 800 * 1028)?;
    is_about(debited[1], before[1] + 100 * 1028)
}

#[test]
fn two_links_that_swap_their_names_swap_their_sims() -> Result<()> {
    let mut world = World::online(&by_name())?;
    send(&world, 0, 400)?;
    send(&world, 1, 200)?;
    let before = [world.passed(0)?, world.passed(1)?];
    world.topology.swap_names()?;
    for sim in 0..2 {
        eventually("a second session", PATIENCE, || {
            ensure!(world.account(sim)?.sessions.len() >= 2, "SIM {sim} is where it was");
            Ok(())
        })?;
    }
    pays_by_name(&mut world, before)
}

#[test]
fn two_links_that_swapped_their_names_while_the_agent_was_dead_swap_their_sims() -> Result<()> {
    let mut world = World::online(&by_name())?;
    send(&world, 0, 400)?;
    world.kill_agent()?;
    send(&world, 1, 200)?;
    let before = [world.passed(0)?, world.passed(1)?];
    world.topology.swap_names()?;
    world.start_agent(&[])?;
    pays_by_name(&mut world, before)
}
