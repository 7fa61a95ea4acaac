//! What the meter costs: nanoseconds a packet over a program that does nothing, instructions, and what is left of a link's speed.

mod packets;
mod speed;

use anyhow::Result;
use serde_json::json;

use super::{Measured, say};

/// How long it is looked at.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How often each program is measured, all of them in turn
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(3..=1000))]
    rounds: u32,
    /// Packets in each of these measurements
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u32).range(1000..=100_000_000))]
    packets: u32,
    /// How often traffic goes through each gateway
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(3..=1000))]
    pairs: u32,
}

/// Measures all of it.
pub(super) fn measure(options: &Options) -> Result<Measured> {
    say("each program by itself, in turn");
    let packets = packets::measure(options.rounds, options.packets)?;
    say("traffic through gateways with nothing, weir, nft and a counter on the uplink, in turn");
    let speed = speed::measure(options.pairs)?;
    let details = json!({ "packets": packets.details, "speed": speed.details });
    Ok(Measured { figures: [packets.figures, speed.figures].concat(), details })
}
