//! `cargo xtask test`: every test of the workspace, and proof that nothing is left behind.

use std::{
    env,
    ffi::OsString,
    num::NonZero,
    thread::{self, available_parallelism},
    time::Duration,
};

use anyhow::ensure;

use crate::{
    build,
    children::{complain, say, status},
    clean, leftovers, mutants,
    privilege::Root,
    signals, sim, system_packages, vm,
    workspace::Workspace,
};

/// Tenths of a second that interrupted tests get for cleaning up after themselves.
const CLEANING_UP: u32 = 150;

/// Builds, then runs the pure tests as the caller and the rest as root. Returns the exit code.
pub(crate) fn test(workspace: &Workspace, arguments: &[OsString]) -> anyhow::Result<u8> {
    build::build(workspace)?;
    let before = leftovers::listed(workspace)?;
    say("\ntest: tier 0, pure: simulator, state machine, meter, ledger, wire, server");
    let mut passed = tier_0(workspace, arguments)?;
    if signals::received().is_none() {
        passed &= tiers_1_and_2(workspace, arguments)?;
    }
    if signals::received().is_none() && !name_tests(arguments) {
        passed &= vm::essentials(workspace)?;
    }
    if signals::received().is_some() {
        // cargo is gone; what it ran is still cleaning up after itself.
        for _ in 0..CLEANING_UP {
            if leftovers::left_since(&before, workspace)?.is_empty() {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
        clean::clean()?;
    }
    let left = leftovers::left_since(&before, workspace)?;
    for remainder in &left {
        complain(&format!("test: left behind: {remainder}"));
    }
    Ok(u8::from(!passed || !left.is_empty()))
}

fn tier_0(workspace: &Workspace, arguments: &[OsString]) -> anyhow::Result<bool> {
    let simulated = simulated(workspace, arguments)?;
    if signals::received().is_some() {
        return Ok(simulated);
    }
    let mut command = workspace.cargo("test");
    command.args(["--workspace", "--exclude", "e2e", "--exclude", "agent-ebpf", "--no-fail-fast", "--"]);
    Ok(status(command.args(arguments))?.success() && simulated)
}

/// The simulator, unless it is tests of a certain name that are asked for.
fn simulated(workspace: &Workspace, arguments: &[OsString]) -> anyhow::Result<bool> {
    if name_tests(arguments) {
        say("test: the simulator is not run: tests of a certain name are asked for");
        return Ok(true);
    }
    say("test: simulated schedules, then bugs planted in the core that they have to catch");
    Ok(sim::schedules(workspace, sim::IN_TESTS, 0)? == 0 && mutants::mutants(workspace)? == 0)
}

/// Whether it is tests of a certain name that are asked for.
fn name_tests(arguments: &[OsString]) -> bool {
    arguments.iter().any(|argument| !argument.to_string_lossy().starts_with('-'))
}

fn tiers_1_and_2(workspace: &Workspace, arguments: &[OsString]) -> anyhow::Result<bool> {
    let root = Root::of_caller();
    if root == Root::Unreachable {
        complain("\ntest: tiers 1 and 2 NOT RUN: they load BPF programs and make namespaces, which needs root or sudo");
        ensure!(env::var_os("CI").is_none(), "CI is set, so a tier that cannot run is a failure");
        return Ok(true);
    }
    let missing = system_packages::missing_for_the_page();
    system_packages::install(workspace, &missing, "a browser and a reader of metrics, for the scenarios of the page")?;
    say("\ntest: tiers 1 and 2, as root: packets through the BPF programs, real traffic in namespaces");
    let mut command = workspace.cargo("test");
    command.args(["--package", "e2e", "--no-fail-fast"]);
    if root == Root::Sudo {
        command.args(["--config", r#"target."cfg(unix)".runner = ["sudo", "--preserve-env", "--"]"#]);
    }
    command.arg("--");
    if !arguments.iter().any(|argument| argument.to_string_lossy().starts_with("--test-threads")) {
        // Every scenario is several processes under load: more at once would only measure the machine.
        let processors = available_parallelism().map_or(2, NonZero::get);
        command.arg(format!("--test-threads={}", processors.clamp(2, 4)));
    }
    Ok(status(command.args(arguments))?.success())
}
