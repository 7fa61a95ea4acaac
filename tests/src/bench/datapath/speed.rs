//! What is left of a link's speed: the same traffic through gateways that differ in what sits on the uplink, in turn.

use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

use agent::datapath::{Datapath, LoadSpec, load_and_pin};
use agent_common::{Gate, LINK_ETHERNET};
use anyhow::{Context as _, Result, ensure};
use aya::programs::TcAttachType;
use serde_json::json;

use crate::Direction::Uplink;
use crate::bench::{Figure, Measured};
use crate::bpffs::Workdir;
use crate::clock::now;
use crate::offload::Switch;
use crate::testrun::Programs;
use crate::topology::{HOST_V4, Layout, Topology};
use crate::traffic::{Datagrams, Flow, TcpServer, Transfer, udp};

/// Octets in one measurement of each kind: some tenths of a second.
const STREAM: u64 = 200_000_000;
const SMALL: u64 = 3_000_000;
/// Payload of a packet of 64 octets.
const SMALL_PAYLOAD: u16 = 36;
/// Faster than any machine: the senders never wait.
const UNPACED: u64 = 1 << 50;
const PATIENCE: Duration = Duration::from_mins(1);

/// What may be lost: a hundredth.
const TARGET: f64 = 0.99;

/// The same gate in nftables, as near as it comes: a quota and a counter each way.
const NFT: &str = "table netdev weir {
  chain uplink {
    type filter hook egress device wan0 priority 0
    quota over 1000000 mbytes drop
    counter
  }
  chain downlink {
    type filter hook ingress device wan0 priority 0
    quota over 1000000 mbytes drop
    counter
  }
}
";

/// A gateway, and what keeps its uplink as it is for as long as it lives.
struct Gateway {
    name: &'static str,
    world: Topology,
    _kept: Box<dyn std::any::Any>,
}

/// What one run through one gateway gave.
#[derive(Clone, Copy)]
struct Run {
    /// Octets a second.
    stream: f64,
    /// Packets a second.
    small: f64,
    /// Processor seconds of the whole machine for a gigabyte of the stream.
    processor: f64,
}

/// Measures every gateway so often, in turn.
pub(super) fn measure(rounds: u32) -> Result<Measured> {
    let gateways = [bare()?, metered()?, filtered()?, counted()?];
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); gateways.len()];
    // The first round warms caches and is not counted.
    for round in 0..=rounds {
        // Each begins a round as often as any other.
        for turn in 0..gateways.len() {
            let index = (turn + round as usize) % gateways.len();
            let gateway = &gateways[index];
            let run = run(&gateway.world).with_context(|| format!("the gateway with {}", gateway.name))?;
            if round > 0 {
                runs[index].push(run);
            }
        }
    }
    let mut figures = Vec::new();
    for (gateway, runs_of) in gateways.iter().zip(&runs) {
        let name = gateway.name;
        let of = |value: fn(&Run) -> f64| runs_of.iter().map(value).collect::<Vec<_>>();
        figures.push(Figure::median_of(format!("TCP, {name}"), "Mbit/s", &of(|run| run.stream * 8e-6))?);
        figures.push(Figure::median_of(format!("UDP of 64 octets, {name}"), "packets/s", &of(|run| run.small))?);
        figures.push(Figure::median_of(format!("processor for a gigabyte, {name}"), "s", &of(|run| run.processor))?);
    }
    for (other, name) in [(0, "without"), (2, "with nft")] {
        let ratio = |value: fn(&Run) -> f64| -> Vec<f64> {
            runs[1].iter().zip(&runs[other]).map(|(with, without)| value(with) / value(without)).collect()
        };
        figures.push(
            Figure::median_of(format!("TCP, with weir to {name}"), "", &ratio(|run| run.stream))?.at_least(TARGET),
        );
        figures.push(
            Figure::median_of(format!("UDP, with weir to {name}"), "", &ratio(|run| run.small))?.at_least(TARGET),
        );
        figures.push(Figure::median_of(format!("processor, with weir to {name}"), "", &ratio(|run| run.processor))?);
    }
    Ok(Measured { figures, details: json!({ "rounds": rounds }) })
}

fn run(world: &Topology) -> Result<Run> {
    let server = TcpServer::start(&world.internet, HOST_V4)?;
    let flow = server.flow(&world.client, Transfer::endless(Uplink, UNPACED))?;
    let before = processor_seconds()?;
    let stream = octets_a_second(&flow, STREAM)?;
    let octets = flow.stop()?.delivered;
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let processor = (processor_seconds()? - before) * 1e9 / octets as f64;
    let flow = udp(&world.client, (&world.internet, HOST_V4), Datagrams::endless(UNPACED, SMALL_PAYLOAD))?;
    let small = octets_a_second(&flow, SMALL)? / f64::from(SMALL_PAYLOAD);
    flow.stop()?;
    Ok(Run { stream, small, processor })
}

/// After a tenth of it to get going.
fn octets_a_second(flow: &Flow, octets: u64) -> Result<f64> {
    flow.carries(octets / 10, PATIENCE)?;
    let (begin, first) = (now(), flow.so_far().delivered);
    flow.carries(octets, PATIENCE)?;
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let delivered = (flow.so_far().delivered - first) as f64;
    Ok(delivered / begin.elapsed().as_secs_f64())
}

/// What all processors together have worked, whoever for (proc(5), `/proc/stat`: hundredths of a second).
fn processor_seconds() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
    let line = text.lines().next().context("a line for all processors")?;
    let times: Vec<f64> = line.split_whitespace().skip(1).map_while(|time| time.parse().ok()).collect();
    ensure!(times.len() >= 7, "times of the processors: {line}");
    // User, nice, system; then idle and waiting for input; then interrupts, hard and soft.
    Ok([0, 1, 2, 5, 6].iter().map(|index| times[*index]).sum::<f64>() / 100.0)
}

fn world() -> Result<Topology> {
    Topology::build(&Layout { segmentation: Switch::On, gro: Switch::On, ..Layout::default() })
}

fn bare() -> Result<Gateway> {
    Ok(Gateway { name: "nothing", world: world()?, _kept: Box::new(()) })
}

fn metered() -> Result<Gateway> {
    let (world, workdir) = (world()?, Workdir::with_bpffs("speed")?);
    let spec = LoadSpec { link: "wan0".to_owned(), pin_root: workdir.bpf().join("weir"), retire: Vec::new() };
    world.gateway.run_in(|| load_and_pin(&spec))??;
    let mut datapath = Datapath::open(&spec.pin_root, "wan0")?;
    datapath.set_gate(&Gate { ceiling: u64::MAX, link_type: LINK_ETHERNET, ..Gate::default() })?;
    Ok(Gateway { name: "weir", world, _kept: Box::new((datapath, workdir)) })
}

fn filtered() -> Result<Gateway> {
    let world = world()?;
    let mut command = world.gateway.command("nft");
    let mut nft =
        command.args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("start nft: apt-get install nftables")?;
    nft.stdin.take().context("a way to nft")?.write_all(NFT.as_bytes())?;
    ensure!(nft.wait()?.success(), "nft does not take the rules: the kernel needs nf_tables with its netdev family");
    Ok(Gateway { name: "nft", world, _kept: Box::new(()) })
}

fn counted() -> Result<Gateway> {
    let (world, mut programs) = (world()?, Programs::yardstick()?);
    for hook in [TcAttachType::Egress, TcAttachType::Ingress] {
        world.gateway.run_in(|| programs.attach("count_only", "wan0", hook))??;
    }
    Ok(Gateway { name: "counting alone", world, _kept: Box::new(programs) })
}
