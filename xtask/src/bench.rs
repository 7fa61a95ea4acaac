//! `cargo xtask bench`: measures the release build, one bench or all of them, and reports.

use std::ffi::OsString;

use anyhow::ensure;
use clap::{Args, ValueEnum};

use crate::{
    build,
    children::{run, say, status},
    clean,
    privilege::Root,
    run::{as_root, exit_code},
    signals, system_packages,
    workspace::Workspace,
};

/// What is measured.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Which bench; all of them and then the report when left out
    name: Option<Bench>,
    /// Arguments of the bench; `--` in front of `--help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// The benches of `weir-bench` (tests/src/bench).
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Bench {
    /// The packet path: nanoseconds, instructions, throughput
    Datapath,
    /// A million buffered containers, while a session in use is renewed
    Drain,
    /// How exactly a throttled link keeps its rate: rates, protocols, directions and distances
    Throttle,
    /// Goodput of a governed link over an ungoverned one, near the server and far from it
    Renewal,
    /// What the agent itself costs: time, memory, wake-ups, syncs, size, start
    Agent,
    /// Tables and chart of the figures that there are
    Report,
}

impl Bench {
    fn name(self) -> &'static str {
        match self {
            Self::Datapath => "datapath",
            Self::Drain => "drain",
            Self::Throttle => "throttle",
            Self::Renewal => "renewal",
            Self::Agent => "agent",
            Self::Report => "report",
        }
    }
}

/// Builds what is measured and what measures, and runs that; the figures stay in target/bench. Returns the exit code of the first
/// bench that failed: the others run all the same, and the report tells what there is.
pub(crate) fn bench(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<u8> {
    let root = as_root()?;
    build::release(workspace)?;
    say("build: what measures them");
    let mut command = workspace.cargo("build");
    command.args(["--release", "--package", "e2e", "--bin", "weir-bench"]);
    run(command)?;
    let Some(only) = arguments.name else {
        ensure!(arguments.arguments.is_empty(), "arguments are one bench's: name it in front of them");
        let mut failed = 0;
        // The report is the last of them.
        for bench in Bench::value_variants() {
            let code = measure(workspace, root, *bench, &[])?;
            failed = if failed == 0 { code } else { failed };
            if signals::received().is_some() {
                break;
            }
        }
        return Ok(failed);
    };
    measure(workspace, root, only, &arguments.arguments)
}

fn measure(workspace: &Workspace, root: Root, bench: Bench, arguments: &[OsString]) -> anyhow::Result<u8> {
    say(&format!("bench: {}", bench.name()));
    if bench == Bench::Datapath && system_packages::is_absent("nft") {
        system_packages::install(workspace, &["nftables"], "nft, which the meter is compared with,")?;
    }
    let mut command = root.command(workspace.target.join("release/weir-bench"));
    command.arg("--figures").arg(workspace.target.join("bench")).arg(bench.name()).args(arguments);
    let status = status(&mut command)?;
    if signals::received().is_some() || !status.success() {
        clean::clean()?;
    }
    Ok(exit_code(status))
}
