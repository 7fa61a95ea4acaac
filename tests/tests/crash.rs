//! The agent dies at each point between reading, recording, sending, answering and opening: nothing is lost, nothing is charged twice.

use std::ops::RangeInclusive;

use anyhow::{Context as _, Result, ensure};
use e2e::eventually::eventually;
use e2e::scenario::{Books, Plot, SOON, World, chunked};

const PLENTY: u64 = 1 << 30;

/// Small enough that reports follow each other several times a second at [`RATE`].
const CHUNK: u64 = 256 << 10;

/// Octets a second.
const RATE: u64 = 800_000;

const DIE_AT: &str = "WEIR_DRILL_DIE_AT";

/// An agent that is ordered to die there has died.
fn dies_at(world: &mut World, point: &str) -> Result<()> {
    world.start_agent_with(&[], &[(DIE_AT, point)])?;
    world.wait_for_death().with_context(|| format!("ordered to die at {point}"))
}

/// Every agent begins where the one before it has died, with the first units still to be asked for.
#[test]
fn an_agent_that_dies_while_it_asks_for_its_first_units_has_asked_once() -> Result<()> {
    let mut world = World::build(&Plot::of(chunked(PLENTY, CHUNK)))?;
    let books = Books::before_the_agent(&world, 0)?;
    dies_at(&mut world, "before-commit")?;
    // The link is metered, and shut: whatever passes from now on is counted.
    let flow = world.stream(RATE)?;
    for point in ["after-commit", "before-send", "replied", "answer-in", "before-gate:2"] {
        dies_at(&mut world, point)?;
    }
    world.start_agent(&[])?;
    flow.carries(2 * CHUNK, SOON)?;
    flow.stop()?;
    let account = world.settles_to_the_octet(books)?;
    ensure!(account.sessions.len() == 1, "one create is one create: {account:?}");
    Ok(())
}

#[test]
fn an_agent_that_dies_at_any_point_of_its_work_loses_nothing_and_charges_nothing_twice() -> Result<()> {
    dies_at_any_point(&Plot::of(chunked(PLENTY, CHUNK)), 1..=3)
}

#[test]
fn an_agent_that_dies_where_there_is_no_tcx_loses_nothing_and_charges_nothing_twice() -> Result<()> {
    dies_at_any_point(&Plot::of(chunked(PLENTY, CHUNK)).by_clsact(), 1..=1)
}

fn dies_at_any_point(plot: &Plot, times: RangeInclusive<u32>) -> Result<()> {
    let mut world = World::online(plot)?;
    let books = Books::open(&world, 0)?;
    let flow = world.stream(RATE)?;
    world.kill_agent()?;
    for point in ["before-commit", "after-commit", "before-send", "replied", "answer-in", "before-gate", "after-gate"] {
        for nth in times.clone() {
            dies_at(&mut world, &format!("{point}:{nth}"))?;
        }
    }
    for point in ["restored", "attached"] {
        dies_at(&mut world, point)?;
    }
    world.start_agent(&[])?;
    flow.carries(2 * CHUNK, SOON)?;
    flow.stop()?;
    let account = world.settles_to_the_octet(books)?;
    ensure!(account.sessions.len() == 1, "the session goes on over every death: {account:?}");
    Ok(())
}

#[test]
fn an_agent_that_dies_while_it_settles_is_settled_by_the_next() -> Result<()> {
    let mut world = World::build(&Plot::of(chunked(PLENTY, CHUNK)))?;
    let books = Books::before_the_agent(&world, 0)?;
    // The turns of its last loop: the gate is shut, the last reading is due, the release is out.
    for turn in 1..=3 {
        world.start_agent_with(&[], &[(DIE_AT, &format!("settling:{turn}"))])?;
        world.reaches(0, &["active", "renewing"])?;
        let flow = world.stream(RATE)?;
        flow.carries(CHUNK / 2, SOON)?;
        world.agent.as_mut().context("an agent")?.actor.signal(nix::sys::signal::Signal::SIGTERM)?;
        world.wait_for_death().with_context(|| format!("turn {turn}"))?;
        flow.stop()?;
    }
    world.start_agent(&[])?;
    world.reaches(0, &["active"])?;
    world.settles_to_the_octet(books).map(drop)
}

/// The message has left to its last octet, and its answer is not there yet.
#[test]
fn an_agent_that_dies_while_it_waits_for_an_answer_is_not_charged_twice() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, CHUNK)))?;
    let books = Books::open(&world, 0)?;
    let flow = world.stream(RATE)?;
    for _ in 0..2 {
        world.fault("update", "drop-answer", 1)?;
        eventually("a message without an answer", SOON, || {
            ensure!(world.struck()? == 1, "not yet");
            Ok(())
        })?;
        world.kill_agent()?;
        world.start_agent(&[])?;
        flow.carries(CHUNK, SOON)?;
    }
    flow.stop()?;
    world.settles_to_the_octet(books).map(drop)
}

#[test]
fn an_order_to_die_at_no_known_point_is_refused_with_those_that_there_are() -> Result<()> {
    let mut world = World::build(&Plot::of(chunked(PLENTY, CHUNK)))?;
    world.start_agent_with(&[], &[(DIE_AT, "between-gates")])?;
    let agent = &mut world.agent.as_mut().context("an agent")?.actor;
    ensure!(!agent.wait(SOON)?.success());
    let said = agent.stderr();
    ensure!(said.contains("WEIR_DRILL_DIE_AT") && said.contains("before-gate, after-gate"), "{said}");
    ensure!(!world.workdir.path().join("ledger.db").exists(), "it has begun");
    Ok(())
}
