//! What `weir usage` shows is what the far end of each link has seen, for each SIM, whoever reads it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::eventually::eventually;
use e2e::process::binary;
use e2e::scenario::{Books, Crossed, Plot, SOON, World, chunked, subscriber};
use e2e::topology::{Layout, Medium};
use serde_json::Value;

/// Octets a second.
const RATE: u64 = 400_000;

const PLENTY: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_secs(30);

/// What `weir usage ARGS` says.
fn usage(world: &World, args: &[&str]) -> Result<String> {
    let mut command = Command::new(binary("weir")?);
    command.args(["usage", "--color", "never", "--config"]).arg(&world.config).args(args);
    let output = command.output().context("run weir usage")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn document(world: &World, args: &[&str]) -> Result<Value> {
    serde_json::from_str(&usage(world, &[&["--json"], args].concat())?).context("the usage is no JSON")
}

/// Uplink and downlink octets of a SIM in all spans together.
fn of_sim(document: &Value, sim: usize) -> Result<(u64, u64)> {
    let spans = document["spans"].as_array().context("spans")?;
    let sims = spans.iter().filter_map(|span| span["sims"].as_array()).flatten();
    let mut own = sims.filter(|used| used["subscriber"] == subscriber(sim));
    own.try_fold((0, 0), |(up, down), used| {
        let octets = |key: &str| used[key].as_u64().with_context(|| format!("{key} in {used}"));
        Ok((up + octets("uplink_octets")?, down + octets("downlink_octets")?))
    })
}

/// What the far end has seen of a link, less what passed its gate while that was shut.
fn billed(world: &World, link: usize, crossed: Crossed) -> Result<(u64, u64)> {
    let (up, down) = (world.kernel(link)?.uplink, world.kernel(link)?.downlink);
    let apart = down.control.octets + down.refused.octets;
    Ok((crossed.uplink - up.control.octets, crossed.downlink - apart))
}

#[test]
fn after_a_switch_each_sim_has_used_what_the_far_end_of_its_link_has_seen() -> Result<()> {
    let layout = Layout::with_uplinks(&[Medium::Veth, Medium::Veth]);
    let plot = Plot::of(chunked(PLENTY, 2 << 20)).and(chunked(PLENTY, 2 << 20)).over(layout);
    let mut world = World::build(&plot.agent("follow_default_route = true"))?;
    let books = [Books::before_the_agent(&world, 0)?, Books::before_the_agent(&world, 1)?];
    world.start_agent(&[])?;
    world.reaches(0, &["active"])?;
    let flow = world.stream(RATE)?;
    flow.carries(1_000_000, PATIENCE)?;
    world.topology.prefer(1)?;
    world.reaches(1, &["active", "renewing"])?;
    flow.carries(1_000_000, PATIENCE)?;
    flow.stop()?;
    // While the agent runs: what has not been reported, and what is in no container yet, is in it.
    eventually("the agent to tell what its kernel has counted", SOON, || {
        for link in 0..2 {
            let passed = world.kernel(link)?;
            let told = of_sim(&document(&world, &["--5min"])?, link)?;
            let passed = (passed.uplink.passed.octets, passed.downlink.passed.octets);
            ensure!(told == passed, "link {link}: {told:?} told, {passed:?} passed");
        }
        Ok(())
    })?;
    let of_link = document(&world, &["--hours", "--link", "wan1"])?;
    ensure!(of_sim(&of_link, 0)? == (0, 0) && of_sim(&of_link, 1)?.0 > 500_000, "{of_link}");
    assert_eq!((&of_link["source"], &of_link["sims"][0]["links"][0]), (&"agent".into(), &"wan1".into()));
    world.stop_agent()?;
    for (link, books) in books.into_iter().enumerate() {
        let billed = billed(&world, link, books.close(&world)?)?;
        ensure!(billed.0 > 500_000, "nothing was tried on link {link}");
        // Nobody is there to ask any more: the ledger is read.
        for spans in ["--5min", "--hours", "--days", "--months", "--period"] {
            let document = document(&world, &[spans])?;
            assert_eq!(of_sim(&document, link)?, billed, "link {link}, {spans}: {document}");
            assert_eq!((&document["source"], &document["total"]["unacknowledged_octets"]), (&"file".into(), &0.into()));
        }
    }
    let told = usage(&world, &["--days"])?;
    for words in ["usage by day", &subscriber(0), &subscriber(1), "no agent is running", "this period"] {
        ensure!(told.contains(words), "{words} is not in {told}");
    }
    let chart = world.workdir.path().join("usage.svg");
    usage(&world, &["--svg", chart.to_str().context("a name")?])?;
    ensure!(std::fs::read_to_string(chart)?.starts_with("<svg"), "a chart was asked for");
    Ok(())
}
