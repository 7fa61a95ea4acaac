//! A newcomer's walk with what `cargo xtask package` has made: through the life of the Debian package, or with the static binary alone.

mod bare;
mod machine;
mod steps;
mod terminal;
mod views;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::cleanup;
use crate::scenario::{Plot, Transport, World, chunked};
use machine::Machine;

/// What `weir-newcomer` is told.
#[derive(Debug, Parser)]
pub struct Options {
    #[command(subcommand)]
    walk: Walk,
}

#[derive(Debug, Subcommand)]
enum Walk {
    /// Install the package in a clean Debian, write five lines, start, look; upgrade under traffic, remove, purge
    Debian {
        /// A clean Debian in a directory
        root: PathBuf,
        /// The package
        package: PathBuf,
        /// The same with a higher version, beside it
        newer: PathBuf,
    },
    /// Meter with the static binary in a root that holds nothing else
    Bare {
        /// The archive that it comes in
        archive: PathBuf,
    },
}

/// Walks; an error where the newcomer would be stuck, or where an octet is missing.
pub fn run(options: &Options) -> Result<()> {
    cleanup::sweep();
    let plot = Plot { transport: Transport::Tls, ..Plot::of(chunked(steps::PLENTY, 10 << 20)) };
    let world = World::build(&plot)?;
    match &options.walk {
        Walk::Debian { root, package, newer } => debian(&world, root, package, newer),
        Walk::Bare { archive } => bare::all(&world, archive),
    }
}

fn debian(world: &World, root: &Path, package: &Path, newer: &Path) -> Result<()> {
    let packages = package.parent().context("a package is in a directory")?;
    let machine = Machine::boot(root, packages, &world.topology.gateway, &world.workdir)?;
    let name = |path: &Path| path.file_name().map(|name| format!("/packages/{}", name.to_string_lossy()));
    let walk = steps::Walk {
        world,
        machine: &machine,
        package: name(package).context("a package has a name")?,
        newer: name(newer).context("a package has a name")?,
    };
    walk.all()?;
    machine.shut_down()
}
