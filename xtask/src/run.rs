//! `cargo xtask run`: the demo, or the agent on real links.

use std::{ffi::OsString, os::unix::process::ExitStatusExt as _};

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
    let root = Root::of_caller();
    ensure!(
        root != Root::Unreachable,
        "metering needs root (BPF programs, namespaces), and this account has no sudo: run `cargo xtask run` as root"
    );
    build::build(workspace)?;
    let demo = arguments.is_empty();
    let mut command = root.command(workspace.binary(if demo { "weir-demo" } else { "weir" }));
    if !demo {
        command.arg("run").args(arguments);
    }
    say(if demo { "run: the demo" } else { "run: the agent" });
    let status = status(&mut command)?;
    if demo && (signals::received().is_some() || !status.success()) {
        clean::clean()?;
    }
    Ok(status.code().or_else(|| status.signal().map(|signal| 128 + signal)).map_or(1, |code| code.to_le_bytes()[0]))
}
