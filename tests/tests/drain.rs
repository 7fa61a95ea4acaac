//! A long backlog drains in order, and the session in use never waits for it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::backlog::Backlog;
use e2e::eventually::eventually;
use e2e::scenario::{SOON, World};
use e2e::topology::HOST_V4;
use e2e::traffic::{Datagrams, udp};

const PATIENCE: Duration = Duration::from_mins(2);

#[test]
fn forty_thousand_containers_drain_in_order_while_the_session_in_use_is_renewed() -> Result<()> {
    let backlog = Backlog { sessions: 10, containers: 4000 };
    let mut world = World::build(&Backlog::plot(256 << 10))?;
    backlog.fill(&world)?;
    world.start_agent(&[])?;
    world.agent.as_mut().context("an agent")?.actor.wait_for_line("40,000 containers are to be acknowledged", SOON)?;
    world.reaches(0, &["active", "renewing", "final"])?;
    let status = world.status()?;
    assert_eq!(status["draining"]["total_containers"], 40_000, "{status}");
    let flow = udp(&world.topology.client, (&world.topology.internet, HOST_V4), Datagrams::endless(500_000, 1000))?;
    // Four chunks while it drains: the ceiling is raised in time, again and again.
    flow.carries(1 << 20, SOON)?;
    let left = world.status()?["buffered_containers"].as_u64().context("containers")?;
    ensure!(left > 100, "it drained too quickly to prove anything");
    eventually("everything to be acknowledged", PATIENCE, || {
        let arrived = backlog.arrived(&world)?;
        ensure!(arrived.containers == backlog.total(), "{arrived:?} of {}", backlog.total());
        Ok(())
    })?;
    flow.stop()?;
    // How far it is, is said every few seconds; a fast machine is done before.
    world.agent.as_mut().context("an agent")?.actor.wait_for_line("drained: all 40,", SOON)?;
    world.stop_agent()?;
    backlog.is_all_there(&world)?;
    // What passed meanwhile is the rest of the debit.
    let books = rusqlite::Connection::open(world.workdir.path().join("server.db"))?;
    let debited: i64 = books.query_row("SELECT used FROM packages", [], |row| row.get(0))?;
    assert_eq!(u64::try_from(debited)?, backlog.octets() + world.passed(0)?);
    Ok(())
}
