//! Benches: each measures one thing of the release build and answers in the same form; the report puts all of them together.

mod chart;
pub mod datapath;
pub mod drain;
pub mod figure;
pub mod machine;
pub mod own_cost;
pub mod renewal;
pub mod report;
pub mod throttle;

use std::fs;
use std::path::PathBuf;

use agent::clock::Moment;
use anyhow::{Context as _, Result};

pub use self::figure::{Figure, Measured, Outcome};
use self::machine::{Machine, Processors};
use crate::{netns, process};

/// What is measured, and where the figures go.
#[derive(Debug, clap::Parser)]
#[command(
    name = "weir-bench",
    version,
    about = "Measures weir; `cargo xtask bench` builds all that is needed and starts it"
)]
pub struct Options {
    /// Directory of the figures, one file a bench
    #[arg(long)]
    pub figures: PathBuf,
    /// Which bench.
    #[command(subcommand)]
    pub what: What,
}

/// The benches, and the report on what they have left.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// The packet path: nanoseconds, instructions, throughput
    Datapath(datapath::Options),
    /// A million buffered containers, while a session in use is renewed
    Drain(drain::Options),
    /// How exactly a throttled link keeps its rate: rates, protocols, directions and distances
    Throttle(throttle::Options),
    /// Goodput of a governed link over an ungoverned one, near the server and far from it
    Renewal(renewal::Options),
    /// What the agent itself costs: time, memory, wake-ups, syncs, size, start
    Agent(own_cost::Options),
    /// Tables and chart of the figures that there are
    Report,
}

/// Measures, writes the figures down and shows them. Needs root.
pub fn run(options: &Options) -> Result<()> {
    fs::create_dir_all(&options.figures).with_context(|| format!("make {}", options.figures.display()))?;
    let (bench, measure): (_, &dyn Fn() -> Result<Measured>) = match &options.what {
        What::Datapath(arguments) => ("datapath", &|| datapath::measure(arguments)),
        What::Drain(arguments) => ("drain", &|| drain::measure(arguments)),
        What::Throttle(arguments) => ("throttle", &|| throttle::measure(arguments)),
        What::Renewal(arguments) => ("renewal", &|| renewal::measure(arguments)),
        What::Agent(arguments) => ("agent", &|| own_cost::measure(arguments)),
        What::Report => return show_report(options),
    };
    netns::require_root()?;
    process::keep_logs_silent();
    let (machine, measured) = (Machine::look()?, format!("{:.0}", Moment::now()?.label.wall));
    let before = Processors::now()?;
    let Measured { figures, details } = measure().with_context(|| format!("bench {bench}"))?;
    let stolen = Processors::now()?.stolen_since(&before);
    let outcome = Outcome { bench: bench.into(), measured, machine, stolen, figures, details };
    let path = options.figures.join(format!("{bench}.json"));
    fs::write(&path, serde_json::to_string_pretty(&outcome)?).with_context(|| format!("write {}", path.display()))?;
    say(&report::table(&outcome));
    Ok(())
}

fn show_report(options: &Options) -> Result<()> {
    for outcome in report::write(&options.figures)? {
        say(&report::table(&outcome));
    }
    say(&format!("report: {}, .json and .svg beside it", options.figures.join("report.md").display()));
    Ok(())
}

/// One line for whoever waits.
#[expect(clippy::print_stdout, reason = "what the program is for")]
pub(crate) fn say(line: &str) {
    println!("{line}");
}
