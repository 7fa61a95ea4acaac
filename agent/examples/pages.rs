//! Writes man pages and completions of `weir` into the directory that is named: `cargo xtask package` packs them.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use agent::args::Cli;
use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap_complete::{Shell, generate_to};

fn main() -> Result<()> {
    let directory: OsString = std::env::args_os().nth(1).context("usage: pages DIRECTORY")?;
    let directory = PathBuf::from(directory);
    let (man, completions) = (directory.join("man"), directory.join("completions"));
    for made in [&man, &completions] {
        fs::create_dir_all(made).with_context(|| format!("make {}", made.display()))?;
    }
    clap_mangen::generate_to(Cli::command(), &man).with_context(|| format!("write man pages to {}", man.display()))?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        generate_to(shell, &mut Cli::command(), "weir", &completions)
            .with_context(|| format!("write completions to {}", completions.display()))?;
    }
    Ok(())
}
