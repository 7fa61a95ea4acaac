//! `cargo xtask sim`: compiles the core and its simulator by themselves, optimised, and plays schedules.

use std::process::Command;

use crate::{
    children::{say, status},
    mutants,
    simulator::{Build, Simulator},
    workspace::Workspace,
};

/// Schedules in `cargo xtask test`: some seconds.
pub(crate) const IN_TESTS: u64 = 10_000;

/// What `cargo xtask sim` is asked to do.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many schedules
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    schedules: u64,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Play this one, and show every event and command
    #[arg(long, conflicts_with_all = ["schedules", "from", "mutants"])]
    seed: Option<u64>,
    /// Plant bugs into copies of the core, one at a time: each has to be caught
    #[arg(long, conflicts_with_all = ["schedules", "from"])]
    mutants: bool,
}

/// Runs what the arguments ask for. Returns the exit code.
pub(crate) fn sim(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<u8> {
    if arguments.mutants {
        return mutants::mutants(workspace);
    }
    match arguments.seed {
        Some(seed) => play(workspace, &["seed".to_owned(), seed.to_string()]),
        None => schedules(workspace, arguments.schedules, arguments.from),
    }
}

/// Plays so many schedules from a seed on. Returns the exit code.
pub(crate) fn schedules(workspace: &Workspace, count: u64, from: u64) -> anyhow::Result<u8> {
    play(workspace, &["schedules".to_owned(), count.to_string(), from.to_string()])
}

fn play(workspace: &Workspace, arguments: &[String]) -> anyhow::Result<u8> {
    let simulator = Simulator::of(workspace);
    if simulator.is_stale()? {
        say("sim: compiling the core and the simulator (some seconds)");
        simulator.compile(Build::Optimised)?;
    }
    let status = status(Command::new(simulator.binary()).args(arguments))?;
    Ok(u8::from(!status.success()))
}
