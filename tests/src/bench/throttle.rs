//! How exactly a throttled link keeps its rate: rates, protocols, directions and distances, each flow alone on a link of its own.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::figure::number;
use super::{Figure, Measured, say};
use crate::Direction::{Downlink, Uplink};
use crate::throttle::{Cell, Fared, Lab, Means, Protocol, Rate};

/// Kilobits per second.
const RATES: [u32; 5] = [64, 256, 1000, 10_000, 100_000];

/// There and back, in milliseconds.
const ROUND_TRIPS: [u64; 3] = [0, 50, 200];

/// What a flow has of the rate over all the time, at least …
const LEAST: f64 = 0.90;
/// … and at most; and at most in the first second.
const MOST: f64 = 1.02;
const MOST_AT_FIRST: f64 = 1.5;

/// Which part of the matrix.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Only this rate, in kbit/s; may be said again
    #[arg(long = "rate", value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    rates: Vec<u32>,
    /// For so many seconds each
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(2..=60))]
    seconds: u8,
}

/// Measures every cell.
pub(super) fn measure(options: &Options) -> Result<Measured> {
    let rates = if options.rates.is_empty() { RATES.to_vec() } else { options.rates.clone() };
    let mut all = Vec::new();
    for rate in rates {
        for cells in cells(u64::from(rate) * 1000)?.chunks(together(rate)) {
            for (cell, fared) in measure_together(cells, Duration::from_secs(options.seconds.into()))? {
                let Fared { goodput, first_second, dropped } = fared;
                let figures = [goodput, first_second, dropped].map(number);
                let [goodput, first_second, dropped] = figures;
                say(&format!("{cell}: goodput {goodput}, first second {first_second}, dropped {dropped}"));
                all.push((cell, fared));
            }
        }
    }
    let details = all.iter().map(|(cell, fared)| {
        json!({
            "cell": cell.to_string(), "rate": cell.rate, "goodput": fared.goodput,
            "firstSecond": fared.first_second, "dropped": fared.dropped,
        })
    });
    Ok(Measured { details: details.collect(), figures: figures(&all) })
}

/// How many flows of a rate do not disturb each other.
const fn together(kilobits: u32) -> usize {
    match kilobits {
        ..=2000 => 18,
        2001..=20_000 => 3,
        _ => 1,
    }
}

/// All cells of a rate: the policer with each protocol, and for comparison flows that agree on ECN and the kernel's shaper.
fn cells(rate: u64) -> Result<Vec<Cell>> {
    let mut protocols = vec![Protocol::Tcp("cubic"), Protocol::Udp, Protocol::UdpTrains, Protocol::TcpEcn("cubic")];
    if has_bbr()? {
        protocols.insert(1, Protocol::Tcp("bbr"));
    }
    let mut cells = Vec::new();
    for means in [Means::Policer, Means::Shaper] {
        for protocol in &protocols {
            for direction in [Uplink, Downlink] {
                for milliseconds in ROUND_TRIPS {
                    let round_trip = Duration::from_millis(milliseconds);
                    cells.push(Cell { rate, protocol: *protocol, direction, round_trip, means });
                }
            }
        }
    }
    cells.retain(is_of_interest);
    Ok(cells)
}

/// What is there for comparison needs no whole matrix.
fn is_of_interest(cell: &Cell) -> bool {
    let milliseconds = cell.round_trip.as_millis();
    match (cell.means, cell.protocol) {
        (Means::Policer, Protocol::Tcp(_) | Protocol::Udp) => true,
        (Means::Policer, Protocol::UdpTrains) => milliseconds == 0,
        (Means::Policer, Protocol::TcpEcn(_)) => cell.direction == Downlink,
        (Means::Shaper, Protocol::Tcp(control)) => milliseconds == 50 && control == "cubic",
        (Means::Shaper, Protocol::Udp | Protocol::UdpTrains | Protocol::TcpEcn(_)) => false,
    }
}

fn has_bbr() -> Result<bool> {
    let path = "/proc/sys/net/ipv4/tcp_available_congestion_control";
    let names = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    Ok(names.split_whitespace().any(|name| name == "bbr"))
}

fn measure_together(cells: &[Cell], length: Duration) -> Result<Vec<(Cell, Fared)>> {
    let labs = cells.iter().map(|cell| Ok((*cell, Lab::build(*cell)?))).collect::<Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let measure = |(cell, lab): &(Cell, Lab)| {
            let fared = lab.measure(length).with_context(|| cell.to_string())?;
            Ok((*cell, fared))
        };
        let threads: Vec<_> = labs.iter().map(|lab| scope.spawn(move || measure(lab))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect()
    })
}

type Row = (Cell, Fared);

/// Of each rate: the worst of its cells, protocol by protocol, held against the targets; and what is dropped.
fn figures(all: &[Row]) -> Vec<Figure> {
    let mut rates: Vec<u64> = all.iter().map(|(cell, _)| cell.rate).collect();
    rates.dedup();
    let mut figures = Vec::new();
    for rate in rates {
        let of_rate = |row: &&Row| row.0.rate == rate && row.0.means == Means::Policer;
        let rows: Vec<&Row> = all.iter().filter(of_rate).collect();
        let mut protocols: Vec<Protocol> = rows.iter().map(|(cell, _)| cell.protocol).collect();
        protocols.dedup();
        for protocol in protocols {
            let goodputs = rows.iter().filter(|(cell, _)| cell.protocol == protocol).map(|(_, fared)| fared.goodput);
            let name = format!("{}, {protocol}: least goodput", Rate(rate));
            let least = Figure::single(name, "", goodputs.fold(f64::INFINITY, f64::min));
            figures.push(if protocol == Protocol::UdpTrains { least } else { least.at_least(LEAST) });
        }
        // A super-packet is let through in one piece: at low rates that is more than the rate of any second.
        let rows = rows.iter().filter(|(cell, _)| cell.protocol != Protocol::UdpTrains);
        let most = |figure: fn(&Fared) -> f64| rows.clone().map(|(_, fared)| figure(fared)).fold(0.0, f64::max);
        let (goodput, first) = (most(|fared| fared.goodput), most(|fared| fared.first_second));
        figures.push(Figure::single(format!("{}: most goodput", Rate(rate)), "", goodput).at_most(MOST));
        figures.push(
            Figure::single(format!("{}: most in the first second", Rate(rate)), "", first).at_most(MOST_AT_FIRST),
        );
        figures.extend(all.iter().filter(|(cell, _)| cell.rate == rate && is_compared(cell)).map(dropped));
    }
    figures
}

/// What policer, policer with ECN, and shaper drop of what has crossed the air.
fn is_compared(cell: &Cell) -> bool {
    let is_cubic = matches!(cell.protocol, Protocol::Tcp("cubic") | Protocol::TcpEcn("cubic"));
    is_cubic && cell.direction == Downlink && cell.round_trip == Duration::from_millis(50)
}

fn dropped((cell, fared): &Row) -> Figure {
    Figure::single(format!("{cell}: dropped"), "", fared.dropped)
}
