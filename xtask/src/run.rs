//! `cargo xtask run`: the demo, or the agent on real links.

use std::{ffi::OsString, os::unix::process::ExitStatusExt as _, process::ExitStatus};

use anyhow::ensure;

use crate::{
    build,
    children::{say, status},
    clean,
    privilege::Root,
    signals,
    workspace::Workspace,
};

/// Builds, then runs the demo; with arguments, `weir run` with those. Returns the program's exit code.
pub(crate) fn run(workspace: &Workspace, arguments: &[OsString]) -> anyhow::Result<u8> {
    if arguments.is_empty() {
        return play(workspace, "weir-demo", &[]);
    }
    let root = ready(workspace)?;
    say("run: the agent");
    let mut command = root.command(workspace.binary("weir"));
    Ok(exit_code(status(command.arg("run").args(arguments))?))
}

/// Builds, then runs as root a program that makes a world of its own and removes it; sweeps up after one that could not.
/// Returns the program's exit code.
pub(crate) fn play(workspace: &Workspace, program: &str, arguments: &[OsString]) -> anyhow::Result<u8> {
    let root = ready(workspace)?;
    say(&format!("run: {program}"));
    let status = status(root.command(workspace.binary(program)).args(arguments))?;
    if signals::received().is_some() || !status.success() {
        clean::clean()?;
    }
    Ok(exit_code(status))
}

/// Builds, and says how to become root.
pub(crate) fn ready(workspace: &Workspace) -> anyhow::Result<Root> {
    let root = as_root()?;
    build::build(workspace)?;
    Ok(root)
}

/// How this caller becomes root, or an error in plain words.
pub(crate) fn as_root() -> anyhow::Result<Root> {
    let root = Root::of_caller();
    ensure!(
        root != Root::Unreachable,
        "metering needs root (BPF programs, namespaces), and this account has no sudo: run `cargo xtask` as root"
    );
    Ok(root)
}

pub(crate) fn exit_code(status: ExitStatus) -> u8 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).map_or(1, |code| code.to_le_bytes()[0])
}
