//! How fast a long backlog drains: the release agent against the release server, over links of their own.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{Figure, Measured, say};
use crate::backlog::Backlog;
use crate::clock::{Deadline, now};
use crate::eventually::eventually;
use crate::scenario::{SOON, World};
use crate::topology::HOST_V4;
use crate::traffic::{Datagrams, udp};

/// Between two looks at the server's books.
const LOOK: Duration = Duration::from_secs(10);

/// How long a backlog.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Past sessions
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    sessions: u32,
    /// Containers of each
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    containers: u32,
}

/// Drains a backlog and says how fast; it is all there at the end, or that is an error.
pub(super) fn measure(options: &Options) -> Result<Measured> {
    let backlog = Backlog { sessions: options.sessions, containers: options.containers };
    let mut world = World::build(&Backlog::plot(1 << 20))?;
    say(&format!("filling {} containers in {} sessions", backlog.total(), backlog.sessions));
    backlog.fill(&world)?;
    let begun = now();
    world.start_agent(&[])?;
    world.reaches(0, &["active", "renewing", "final"])?;
    let flow = udp(&world.topology.client, (&world.topology.internet, HOST_V4), Datagrams::endless(1_000_000, 1000))?;
    let pid = world.agent.as_ref().context("an agent")?.actor.pid();
    let rates = watch(backlog, &world)?;
    let seconds = now().duration_since(begun).as_secs_f64();
    let memory = high_water_mark(pid)?;
    flow.stop()?;
    backlog.is_all_there(&world)?;
    world.stop_agent()?;
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let (rate, mebibytes, spans) = (
        backlog.total() as f64 / seconds,
        memory as f64 / 1024.0,
        rates.iter().map(|rate| *rate as f64).collect::<Vec<_>>(),
    );
    let mut figures = vec![Figure::single("containers drained a second, over all", "1/s", rate)];
    if !spans.is_empty() {
        figures.push(Figure::median_of("containers drained a second, in ten seconds", "1/s", &spans)?);
    }
    figures.push(Figure::single("agent's memory at the most", "MiB", mebibytes));
    let details = json!({
        "containers": backlog.total(), "sessions": backlog.sessions, "seconds": seconds, "ratesPerTenSeconds": rates,
    });
    Ok(Measured { figures, details })
}

/// Waits until all has arrived; how many containers a second that were, for each span between two looks.
fn watch(backlog: Backlog, world: &World) -> Result<Vec<u64>> {
    let mut rates = Vec::new();
    let mut before = 0;
    loop {
        let next = Deadline::after(LOOK);
        let arrived = eventually("a look at the books", LOOK + SOON, || {
            let arrived = backlog.count(world)?;
            ensure!(next.passed() || arrived >= backlog.total(), "not yet");
            Ok(arrived)
        })?;
        if arrived >= backlog.total() {
            break;
        }
        ensure!(arrived > before, "nothing moves: {arrived} of {}", backlog.total());
        rates.push((arrived - before) / LOOK.as_secs());
        before = arrived;
        say(&format!("{arrived} of {} containers, {} a second", backlog.total(), rates.last().copied().unwrap_or(0)));
    }
    // Some of what was counted are grants: the last containers are a moment behind.
    eventually("the last of them", SOON, || {
        ensure!(backlog.arrived(world)?.containers == backlog.total(), "not yet");
        Ok(())
    })?;
    Ok(rates)
}

/// The largest memory a process has had, in KiB (proc(5), `VmHWM`).
fn high_water_mark(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    line.trim().trim_end_matches("kB").trim().parse().context("a number of KiB")
}
