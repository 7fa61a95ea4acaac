//! What is left of a link's speed: the same traffic through a gateway with one thing after the other on its uplink, in turn.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use agent::datapath::{Datapath, LoadSpec, load_and_pin};
use agent_common::{Gate, LINK_ETHERNET};
use anyhow::{Context as _, Result, ensure};
use aya::programs::TcAttachType;
use serde_json::json;

use crate::Direction::Uplink;
use crate::bench::machine::Processors;
use crate::bench::{Figure, Measured};
use crate::bpffs::Workdir;
use crate::clock::now;
use crate::eventually::eventually;
use crate::netns::Namespace;
use crate::offload::Switch;
use crate::testrun::{Programs, pin_to, processors};
use crate::topology::{HOST_V4, Layout, Topology};
use crate::traffic::{Datagrams, Flow, TcpServer, Transfer, flood};

/// Octets of a stream in one measurement: a second or two.
const STREAM: u64 = 800_000_000;
/// Packets of a flood in one measurement: a quarter of a second, and so many times as often. The flood never ends, and what sits on the
/// uplink changes under it: what a machine does from one second to the next is more than what is to be told.
const SMALL: u64 = 80_000;
const MORE_OFTEN: u32 = 4;
/// Nobody is there: the far end throws away what comes for it. A program that received it would be woken for a packet or not, as it
/// happens to be slower or faster than the path, and that decides more than what sits on the uplink.
const NOBODY: &str = "192.0.2.99";
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

/// What sits on the uplink for as long as this lives.
type Kept = Box<dyn std::any::Any>;

/// A name, and how it is put there.
type Arrangement = (&'static str, fn(&Topology) -> Result<Kept>);

/// All on one gateway: two that are made alike differ by more than what is to be measured. That with nothing comes twice, for the
/// difference between the two is what the bench cannot tell.
const ARRANGEMENTS: [Arrangement; 5] = [
    ("nothing", |_| Ok(Box::new(()))),
    ("weir", metered),
    ("nft", filtered),
    ("counting alone", counted),
    ("nothing, once more", |_| Ok(Box::new(()))),
];

/// What a stream gave.
#[derive(Clone, Copy)]
struct Stream {
    /// Octets a second.
    speed: f64,
    /// Processor seconds of the whole machine for a gigabyte.
    processor: f64,
}

/// Measures every arrangement so often, in turn.
pub(super) fn measure(rounds: u32) -> Result<Measured> {
    let world = Topology::build(&Layout { segmentation: Switch::On, gro: Switch::On, ..Layout::default() })?;
    world.internet.ip(&format!("route add blackhole {NOBODY}"))?;
    let streams = in_turn(&world, rounds, || stream(&world))?;
    let flood = on(last_processor()?, || {
        flood(&world.client, SocketAddr::new(NOBODY.parse()?, 9), Datagrams::endless(UNPACED, SMALL_PAYLOAD))
    })?;
    let floods = in_turn(&world, rounds * MORE_OFTEN, || packets_a_second(&world))?;
    flood.stop()?;
    let of = |value: fn(&Stream) -> f64| -> Vec<Vec<f64>> {
        streams.iter().map(|streams| streams.iter().map(value).collect()).collect()
    };
    let kinds = [
        ("TCP", "Mbit/s", of(|stream| stream.speed * 8e-6), true),
        ("UDP of 64 octets", "packets/s", floods, true),
        ("processor for a gigabyte of TCP", "s", of(|stream| stream.processor), false),
    ];
    let mut figures = Vec::new();
    for (kind, unit, samples, _) in &kinds {
        for ((name, _), samples) in ARRANGEMENTS.iter().zip(samples) {
            figures.push(Figure::median_of(format!("{kind}, {name}"), unit, samples)?);
        }
    }
    // What is held against what; the last is the bench's own error.
    let pairs = [(1, 0, "with weir to without"), (1, 2, "with weir to with nft"), (4, 0, "without to without")];
    for (kind, _, samples, is_held) in &kinds {
        for (one, other, name) in pairs {
            let ratios: Vec<f64> = samples[one].iter().zip(&samples[other]).map(|(one, other)| one / other).collect();
            let figure = Figure::median_of(format!("{kind}, {name}"), "", &ratios)?;
            figures.push(if *is_held && one == 1 { figure.at_least(TARGET) } else { figure });
        }
    }
    Ok(Measured { figures, details: json!({ "rounds": rounds }) })
}

/// Puts each arrangement on the uplink so often, in turn, and measures: what came out, by arrangement.
fn in_turn<T>(world: &Topology, rounds: u32, mut measure: impl FnMut() -> Result<T>) -> Result<Vec<Vec<T>>> {
    let mut samples: Vec<Vec<T>> = ARRANGEMENTS.iter().map(|_| Vec::new()).collect();
    // The first round warms caches and is not counted.
    for round in 0..=rounds {
        // Each begins a round as often as any other.
        for turn in 0..ARRANGEMENTS.len() {
            let index = (turn + round as usize) % ARRANGEMENTS.len();
            let (name, put) = ARRANGEMENTS[index];
            let kept = put(world)?;
            let sample = measure().with_context(|| format!("the gateway with {name}"))?;
            drop(kept);
            if round > 0 {
                samples[index].push(sample);
            }
        }
    }
    Ok(samples)
}

fn stream(world: &Topology) -> Result<Stream> {
    let first = *processors()?.first().context("a processor")?;
    // Who sends and who receives stay where they are: where the scheduler puts them decides more than what sits on the uplink.
    let server = on(first, || TcpServer::start(&world.internet, HOST_V4))?;
    let flow = on(last_processor()?, || server.flow(&world.client, Transfer::endless(Uplink, UNPACED)))?;
    let before = Processors::now()?;
    let speed = octets_a_second(&flow, STREAM)?;
    let octets = flow.stop()?.delivered;
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let processor = (Processors::now()?.worked - before.worked) * 1e9 / octets as f64;
    Ok(Stream { speed, processor })
}

/// Packets of 64 octets a second that arrive at the far end. One processor sends and carries them, as one queue of a gateway does.
fn packets_a_second(world: &Topology) -> Result<f64> {
    let wait_for = |packets: u64| -> Result<(Instant, u64)> {
        let goal = world.arrived(0)? + packets;
        eventually("packets to arrive", PATIENCE, || {
            let (when, arrived) = (now(), world.arrived(0)?);
            ensure!(arrived >= goal, "{arrived} of {goal}");
            Ok((when, arrived))
        })
    };
    let (begin, first) = wait_for(SMALL / 10)?;
    let (end, last) = wait_for(SMALL)?;
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let packets = (last - first) as f64;
    Ok(packets / end.duration_since(begin).as_secs_f64())
}

fn last_processor() -> Result<usize> {
    processors()?.last().copied().context("a processor")
}

/// Starts something on one processor: the threads that it starts stay there.
fn on<T: Send>(processor: usize, start: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let pinned = || pin_to(processor).and_then(|()| start());
    let started = std::thread::scope(|scope| scope.spawn(pinned).join());
    started.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
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

fn metered(world: &Topology) -> Result<Kept> {
    let workdir = Workdir::with_bpffs("speed")?;
    let spec = LoadSpec { link: "wan0".to_owned(), pin_root: workdir.bpf().join("weir"), retire: Vec::new() };
    world.gateway.run_in(|| load_and_pin(&spec))??;
    let mut datapath = Datapath::open(&spec.pin_root, "wan0")?;
    datapath.set_gate(&Gate { ceiling: u64::MAX, link_type: LINK_ETHERNET, ..Gate::default() })?;
    Ok(Box::new((datapath, workdir)))
}

/// Rules of nft, which go with this.
struct Rules(Namespace);

impl Drop for Rules {
    fn drop(&mut self) {
        let _ = self.0.command("nft").args(["delete", "table", "netdev", "weir"]).status();
    }
}

fn filtered(world: &Topology) -> Result<Kept> {
    let mut command = world.gateway.command("nft");
    let mut nft =
        command.args(["-f", "-"]).stdin(Stdio::piped()).spawn().context("start nft: apt-get install nftables")?;
    nft.stdin.take().context("a way to nft")?.write_all(NFT.as_bytes())?;
    ensure!(nft.wait()?.success(), "nft does not take the rules: the kernel needs nf_tables with its netdev family");
    Ok(Box::new(Rules(world.gateway.clone())))
}

fn counted(world: &Topology) -> Result<Kept> {
    let mut programs = Programs::yardstick()?;
    for hook in [TcAttachType::Egress, TcAttachType::Ingress] {
        world.gateway.run_in(|| programs.attach("count_only", "wan0", hook))??;
    }
    Ok(Box::new(programs))
}
