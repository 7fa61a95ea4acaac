//! Renewal without a stall: the goodput of a governed link over that of one without a meter, near the server and far from it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{Figure, Measured, say};
use crate::Direction::{self, Downlink, Uplink};
use crate::clock::now;
use crate::scenario::{Plot, World, chunked, meanwhile};
use crate::topology::HOST_V4;
use crate::traffic::{TcpServer, Transfer};

/// What is granted at a time on a link that is slow, in octets.
const CHUNK: u64 = 8 << 20;

/// A package that does not end.
const PLENTY: u64 = 1 << 50;

/// How often, and for how long.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Pairs of a governed and an ungoverned flow, at each distance to the server
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pairs: u32,
    /// Seconds that are measured of each flow
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Seconds of each flow before that: then the rate is known
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=600))]
    warm_up: u64,
}

/// Goodput of one flow, and packets refused to it before its rate was known and after.
#[derive(Debug, Clone, Copy)]
struct Flowed {
    octets_per_second: f64,
    refused_before: u64,
    refused: u64,
}

impl Flowed {
    fn megabits(&self) -> f64 {
        self.octets_per_second * 8e-6
    }
}

/// Flows on one link, with an agent and without, take turns: two links that are made alike differ by more than what is to be told.
pub(super) fn measure(options: &Options) -> Result<Measured> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, CHUNK)))?;
    let (mut figures, mut details) = (Vec::new(), Vec::new());
    for millis in [0, 200] {
        world.delay("update", Duration::from_millis(millis))?;
        let mut pairs = Vec::new();
        for number in 0..options.pairs {
            let direction = if number % 2 == 0 { Uplink } else { Downlink };
            let (mut with, mut without) = (None, None);
            // Neither of the two always goes first.
            for turn in [number / 2 % 2, 1 - number / 2 % 2] {
                if turn == 0 {
                    govern(&mut world)?;
                    with = Some(flow(&world, direction, options)?);
                } else {
                    let_go(&mut world)?;
                    without = Some(flow(&world, direction, options)?);
                }
            }
            let (with, without) = with.zip(without).context("two flows")?;
            say(&format!(
                "{millis} ms, pair {} of {}: {:.0} Mbit/s governed ({} packets refused at first, {} later), {:.0} ungoverned",
                number + 1,
                options.pairs,
                with.megabits(),
                with.refused_before,
                with.refused,
                without.megabits(),
            ));
            pairs.push((with, without));
        }
        ensure!(world.struck()? > 0, "nothing was renewed");
        figures.extend(figures_of(millis, &pairs)?);
        let told = pairs.iter().map(|(with, without)| [with.octets_per_second, without.octets_per_second]);
        details.push(json!({
            "millisecondsToTheServer": millis, "octetsPerSecond": told.collect::<Vec<_>>(), "renewals": world.struck()?,
        }));
    }
    Ok(Measured { figures, details: details.into() })
}

/// Has an agent meter the link, unless one does.
fn govern(world: &mut World) -> Result<()> {
    if world.agent.is_none() {
        world.start_agent(&[])?;
        world.reaches(0, &["active", "renewing"])?;
    }
    Ok(())
}

/// Has nobody meter the link: neither an agent nor what one leaves in the kernel.
fn let_go(world: &mut World) -> Result<()> {
    if world.agent.is_some() {
        world.stop_agent()?;
        let removed = world.weir("detach", &[])?;
        ensure!(removed.status.success(), "weir detach: {}", String::from_utf8_lossy(&removed.stderr));
    }
    Ok(())
}

fn figures_of(millis: u64, pairs: &[(Flowed, Flowed)]) -> Result<[Figure; 4]> {
    let figures_of = |of: fn(&(Flowed, Flowed)) -> f64| pairs.iter().map(of).collect::<Vec<_>>();
    let ratios = figures_of(|(with, without)| with.octets_per_second / without.octets_per_second);
    let megabits = figures_of(|(with, _)| with.megabits());
    let refused = |of: fn(&Flowed) -> u64| pairs.iter().map(|(with, _)| of(with)).sum::<u64>();
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let [refused, refused_before] =
        [refused(|flowed| flowed.refused), refused(|flowed| flowed.refused_before)].map(|packets| packets as f64);
    let name = |what: &str| format!("{what}, {millis} ms to the server");
    Ok([
        Figure::median_of(name("goodput, governed over ungoverned"), "", &ratios)?.at_least(0.98),
        Figure::single(name("packets refused once the rate is known"), "packets", refused).at_most(0.0),
        Figure::single(name("packets refused before that, in all flows"), "packets", refused_before),
        Figure::median_of(name("goodput, governed"), "Mbit/s", &megabits)?,
    ])
}

fn flow(world: &World, direction: Direction, options: &Options) -> Result<Flowed> {
    let refused = || -> Result<u64> {
        // A link without an agent has nothing that refuses.
        if world.agent.is_none() {
            return Ok(0);
        }
        let kernel = world.kernel(0)?;
        Ok(kernel.uplink.refused.packets + kernel.downlink.refused.packets)
    };
    let server = TcpServer::start(&world.topology.internet, HOST_V4)?;
    let before = refused()?;
    let limit = Duration::from_secs(options.warm_up + options.seconds + 60);
    let transfer = Transfer::endless(direction, 1).unpaced().within(limit);
    let flow = server.flow(&world.topology.client, transfer)?;
    meanwhile(Duration::from_secs(options.warm_up))?;
    let (known, begun, octets) = (refused()?, now(), flow.so_far().delivered);
    meanwhile(Duration::from_secs(options.seconds))?;
    let (octets, length) = (flow.so_far().delivered - octets, now().duration_since(begun));
    let after = refused()?;
    flow.stop()?;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let octets_per_second = octets as f64 / length.as_secs_f64();
    Ok(Flowed { octets_per_second, refused_before: known - before, refused: after - known })
}
