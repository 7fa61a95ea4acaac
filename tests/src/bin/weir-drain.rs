//! Measures how fast a long backlog drains: the release agent against the release server, over links of their own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use e2e::backlog::Backlog;
use e2e::clock::{Deadline, now};
use e2e::eventually::eventually;
use e2e::process::keep_logs_silent;
use e2e::scenario::{SOON, World};
use e2e::topology::HOST_V4;
use e2e::traffic::{Datagrams, udp};
use serde_json::json;

/// Between two looks at the server's books.
const LOOK: Duration = Duration::from_secs(10);

/// Drains a backlog and says how fast.
#[derive(Debug, Parser)]
struct Args {
    /// Past sessions.
    #[arg(long, default_value_t = 20)]
    sessions: u32,
    /// Containers of each.
    #[arg(long, default_value_t = 50_000)]
    containers: u32,
    /// Where the figures go, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> Result<()> {
    keep_logs_silent();
    let args = Args::parse();
    let backlog = Backlog { sessions: args.sessions, containers: args.containers };
    let mut world = World::build(&Backlog::plot(1 << 20))?;
    say(&format!("filling {} containers in {} sessions", backlog.total(), backlog.sessions));
    backlog.fill(&world)?;
    let begun = now();
    world.start_agent(&[])?;
    world.reaches(0, &["active", "renewing", "final"])?;
    let flow = udp(&world.topology.client, (&world.topology.internet, HOST_V4), Datagrams::endless(1_000_000, 1000))?;
    let pid = world.agent.as_ref().context("an agent")?.actor.pid();
    let mut rates = Vec::new();
    let mut before = 0;
    loop {
        let next = Deadline::after(LOOK);
        let arrived = eventually("a look at the books", LOOK + SOON, || {
            let arrived = backlog.count(&world)?;
            ensure!(next.passed() || arrived >= backlog.total(), "not yet");
            Ok(arrived)
        })?;
        if arrived >= backlog.total() {
            // Some of what was counted are grants: the last containers are a moment behind.
            eventually("the last of them", SOON, || {
                ensure!(backlog.arrived(&world)?.containers == backlog.total(), "not yet");
                Ok(())
            })?;
            break;
        }
        ensure!(arrived > before, "nothing moves: {arrived} of {}", backlog.total());
        rates.push((arrived - before) / LOOK.as_secs());
        before = arrived;
        say(&format!("{arrived} of {} containers, {} a second", backlog.total(), rates.last().copied().unwrap_or(0)));
    }
    let seconds = now().duration_since(begun).as_secs_f64();
    let memory = high_water_mark(pid)?;
    flow.stop()?;
    backlog.is_all_there(&world)?;
    world.stop_agent()?;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = backlog.total() as f64 / seconds;
    let figures = json!({
        "containers": backlog.total(), "sessions": backlog.sessions, "seconds": seconds,
        "containersPerSecond": rate, "ratesPerTenSeconds": rates, "agentHighWaterMarkKiB": memory,
    });
    say(&serde_json::to_string_pretty(&figures)?);
    args.json.map_or(Ok(()), |path| std::fs::write(&path, figures.to_string()).context("write the figures"))
}

/// The largest memory a process has had, in KiB (proc(5), `VmHWM`).
fn high_water_mark(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    line.trim().trim_end_matches("kB").trim().parse().context("a number of KiB")
}

#[expect(clippy::print_stdout, reason = "what the program is for")]
fn say(line: &str) {
    println!("{line}");
}
