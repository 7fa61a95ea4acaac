//! What the meter costs: nanoseconds a packet over a program that does nothing, instructions, and what is left of a link's speed.

mod packets;

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
}

/// Measures all of it.
pub(super) fn measure(options: &Options) -> Result<Measured> {
    say("each program by itself, in turn");
    let packets = packets::measure(options.rounds, options.packets)?;
    Ok(Measured { figures: packets.figures, details: json!({ "packets": packets.details }) })
}
