//! The demo: one package from purchase to settlement on real traffic, and at its end the same octets counted five ways.

mod acts;
mod books;
mod keep;
mod observer;
mod panel;
mod screen;
mod stage;

use std::path::PathBuf;

use anyhow::{Result, ensure};

use self::screen::Screen;
use self::stage::Stage;
use crate::bpffs::Workdir;
use crate::{netns, process};

/// The first line, within a moment of the start.
const GREETING: &str = "weir demo: client - gateway - internet, all on this machine; about a minute.";

/// What is to be kept of a run.
#[derive(Debug, Clone, Default, clap::Parser)]
#[command(
    name = "weir-demo",
    version,
    about = "Meters real traffic from a purchase to its settlement, and proves it to the octet"
)]
pub struct Options {
    /// Keep the charging messages, as the server recorded them, in this directory
    #[arg(long, value_name = "DIR")]
    pub record: Option<PathBuf>,
    /// Keep the logs of agent and server and the agent's configuration in this directory
    #[arg(long, value_name = "DIR")]
    pub keep_logs: Option<PathBuf>,
}

/// Plays all acts and reconciles; an error if anything failed or any two figures differ. Needs root.
pub fn run(options: &Options) -> Result<()> {
    ensure!(
        netns::require_root().is_ok(),
        "it makes network namespaces and loads BPF programs, which needs root: run `cargo xtask run`"
    );
    process::keep_logs_silent();
    let screen = Screen::open(GREETING);
    let outcome = play(&screen, options);
    screen.close();
    outcome
}

fn play(screen: &Screen, options: &Options) -> Result<()> {
    let workdir = Workdir::with_bpffs("demo")?;
    let outcome = Stage::build(screen, &workdir).and_then(acts::play);
    let kept = keep::files(&workdir, options);
    match outcome {
        Ok(()) => kept,
        Err(error) => Err(keep::evidence(&workdir, &error)),
    }
}
