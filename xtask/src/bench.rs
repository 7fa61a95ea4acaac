//! `cargo xtask bench`: how fast a long backlog drains, with the release build of agent and server.

use std::fs;

use anyhow::Context as _;
use clap::{Args, Subcommand};

use crate::{
    build,
    children::{run, say, status},
    run::{exit_code, ready},
    workspace::Workspace,
};

/// What is measured.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A million buffered containers, while a session in use is renewed
    Drain {
        /// Past sessions
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        sessions: u32,
        /// Containers of each
        #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        containers: u32,
    },
}

/// Builds what is measured and what measures, and runs that; the figures stay in target/bench. Returns the program's exit code.
pub(crate) fn bench(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<u8> {
    let What::Drain { sessions, containers } = arguments.what;
    let root = ready(workspace)?;
    build::release(workspace)?;
    say("build: what measures them");
    let mut command = workspace.cargo("build");
    command.args(["--release", "--package", "e2e", "--bin", "weir-drain"]);
    run(command)?;
    let figures = workspace.target.join("bench");
    fs::create_dir_all(&figures).with_context(|| format!("make {}", figures.display()))?;
    let mut command = root.command(workspace.target.join("release/weir-drain"));
    command.args(["--sessions", &sessions.to_string(), "--containers", &containers.to_string(), "--json"]);
    command.arg(figures.join("drain.json"));
    Ok(exit_code(status(&mut command)?))
}
