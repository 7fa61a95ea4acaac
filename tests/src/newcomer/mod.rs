//! A newcomer's walk in a clean Debian: install the package, write five lines, start, look; then upgrade under traffic, remove, purge.

mod machine;
mod steps;
mod terminal;
mod views;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::cleanup;
use crate::scenario::{Plot, Transport, World, chunked};
use machine::Machine;

/// What `weir-newcomer` is told.
#[derive(Debug, Parser)]
pub struct Options {
    /// A clean Debian in a directory
    root: PathBuf,
    /// The package
    package: PathBuf,
    /// The same with a higher version, beside it
    newer: PathBuf,
}

/// Walks; an error where the newcomer would be stuck, or where an octet is missing.
pub fn run(options: &Options) -> Result<()> {
    cleanup::sweep();
    let plot = Plot { transport: Transport::Tls, ..Plot::of(chunked(steps::PLENTY, 10 << 20)) };
    let world = World::build(&plot)?;
    let packages = options.package.parent().context("a package is in a directory")?;
    let machine = Machine::boot(&options.root, packages, &world.topology.gateway, &world.workdir)?;
    let name = |path: &PathBuf| path.file_name().map(|name| format!("/packages/{}", name.to_string_lossy()));
    let walk = steps::Walk {
        world: &world,
        machine: &machine,
        package: name(&options.package).context("a package has a name")?,
        newer: name(&options.newer).context("a package has a name")?,
    };
    walk.all()?;
    machine.shut_down()
}
