//! `weir-bench`: what `cargo xtask bench` starts.

use clap::Parser as _;

fn main() -> anyhow::Result<()> {
    e2e::bench::run(&e2e::bench::Options::parse())
}
