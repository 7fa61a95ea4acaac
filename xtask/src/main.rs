//! `cargo xtask VERB`: the project's own commands, one file a verb.

mod apt;
mod bench;
mod build;
mod children;
mod ci;
mod clean;
mod compiler;
mod cross;
mod fuzz;
mod leftovers;
mod lint;
mod mutants;
mod package;
mod privilege;
mod purity;
mod rules;
mod run;
mod rust_paths;
mod rust_tokens;
mod setup;
mod signals;
mod sim;
mod simulator;
mod strip;
mod system_packages;
mod test;
mod toolchain;
mod tools;
mod torture;
mod vm;
mod workspace;

use std::{ffi::OsString, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::{children::say, workspace::Workspace};

/// The commands of the weir project.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Find a working BPF toolchain, or install one
    Setup,
    /// Build the BPF object, the agent, the server and the demo
    Build {
        /// Build `weir` and `weir-server` for a real gateway: small and optimised
        #[arg(long)]
        release: bool,
        /// Build them for another machine than this one
        #[arg(long, value_name = "TRIPLE", value_parser = [cross::TARGET], requires = "release")]
        target: Option<String>,
    },
    /// Build, then play the demo; `run -- --config FILE` meters real links instead
    Run {
        /// Arguments of `weir run`
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Build, then run every test, those in namespaces included
    Test {
        /// Run the essential ones in a virtual machine with this kernel instead
        #[arg(long, value_name = "VERSION", conflicts_with = "arguments")]
        kernel: Option<vm::Kernel>,
        /// Arguments of the test executables: a part of a test's name, `--nocapture`, …
        #[arg(last = true)]
        arguments: Vec<OsString>,
    },
    /// Build, then kill and break everything at random under traffic, and reconcile to the octet
    Torture {
        /// How long the blows go on
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
        minutes: u32,
        /// Plays the blows of an earlier run again
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Play random schedules of the core against models of all that surrounds it
    Sim(sim::Arguments),
    /// Measure the release build
    Bench(bench::Arguments),
    /// Make the Debian package and the archive for machines without dpkg
    Package(package::Arguments),
    /// Feed what a stranger's octets reach first with what coverage leads to, until something breaks
    Fuzz(fuzz::Arguments),
    /// Formatting, clippy, house rules, licences
    Lint,
    /// What a submission has to pass: lint, then test
    Ci,
    /// Remove what an interrupted test or demo left behind
    Clean,
    /// List what tests and demo have on this machine at the moment
    #[command(hide = true)]
    Leftovers,
}

fn main() -> ExitCode {
    match dispatch(Arguments::parse().verb) {
        _ if signals::received().is_some() => ExitCode::from(signals::exit_code()),
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            children::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn dispatch(verb: Option<Verb>) -> anyhow::Result<u8> {
    let Some(verb) = verb else {
        say(&Arguments::command().render_help().to_string());
        return Ok(0);
    };
    let workspace = Workspace::find()?;
    signals::install()?;
    match verb {
        Verb::Setup => setup::setup(&workspace).map(|_| 0),
        Verb::Build { target: Some(_), .. } => build::release_for_arm(&workspace).map(|()| 0),
        Verb::Build { release: true, target: None } => build::release(&workspace).map(|()| 0),
        Verb::Build { release: false, target: None } => build::build(&workspace).map(|()| 0),
        Verb::Run { arguments } => run::run(&workspace, &arguments),
        Verb::Test { kernel: Some(kernel), .. } => vm::test(&workspace, kernel),
        Verb::Test { kernel: None, arguments } => test::test(&workspace, &arguments),
        Verb::Torture { minutes, seed } => torture::torture(&workspace, minutes, seed),
        Verb::Sim(arguments) => sim::sim(&workspace, &arguments),
        Verb::Bench(arguments) => bench::bench(&workspace, &arguments),
        Verb::Package(arguments) => package::package(&workspace, &arguments),
        Verb::Fuzz(arguments) => fuzz::fuzz(&workspace, &arguments),
        Verb::Lint => lint::lint(&workspace),
        Verb::Ci => ci::ci(&workspace),
        Verb::Clean => clean::clean().map(|()| 0),
        Verb::Leftovers => {
            say(&Vec::from_iter(leftovers::seen(&workspace)).join("\n"));
            Ok(0)
        }
    }
}
