//! `cargo xtask build`: the BPF object first, then the host's binaries that embed it.

use std::{fs, path::PathBuf};

use anyhow::Context as _;

use crate::{
    children::{run, say},
    setup,
    toolchain::Toolchain,
    workspace::Workspace,
};

/// Builds everything that the tests and the demo start.
pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<()> {
    let toolchain = setup::setup(workspace)?;
    object(workspace, &toolchain)?;
    binaries(workspace)
}

/// Builds what is installed on a gateway, and on the machine that serves it.
pub(crate) fn release(workspace: &Workspace) -> anyhow::Result<()> {
    let toolchain = setup::setup(workspace)?;
    object(workspace, &toolchain)?;
    say("build: the agent and the server, optimised (some minutes)");
    let mut command = workspace.cargo("build");
    command.args(["--release", "--package", "agent", "--package", "server-mock"]);
    run(command)?;
    say(&format!("build: {} and weir-server beside it", workspace.target.join("release/weir").display()));
    Ok(())
}

/// Compiles the two TC programs and puts the object where the agent's build script looks for it.
///
/// Returns the path. The file is only written when its content has changed, so that the agent isn't built again.
pub(crate) fn object(workspace: &Workspace, toolchain: &Toolchain) -> anyhow::Result<PathBuf> {
    say("build: the BPF object (about half a minute the first time)");
    let mut command = toolchain.cargo_build(workspace);
    command.args(["--locked", "--package", "agent-ebpf", "--bin", "meter"]);
    run(command)?;
    let built = workspace.target.join("bpf/bpfel-unknown-none/release/meter");
    let stable = workspace.target.join("bpf/weir-meter.o");
    let fresh = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    if fs::read(&stable).ok().as_ref() != Some(&fresh) {
        // Renamed into place: a build script that reads at this moment sees the old object or the new one.
        let draft = stable.with_extension("new");
        fs::write(&draft, &fresh).with_context(|| format!("write {}", draft.display()))?;
        fs::rename(&draft, &stable).with_context(|| format!("put {} in place", stable.display()))?;
    }
    Ok(stable)
}

/// Builds `weir`, `weir-server` and the binaries of package `e2e` with the dev profile.
pub(crate) fn binaries(workspace: &Workspace) -> anyhow::Result<()> {
    say("build: the agent, the server and the demo (about two minutes the first time)");
    let mut command = workspace.cargo("build");
    command.args(["--bins", "--package", "agent", "--package", "server-mock", "--package", "e2e"]);
    run(command)
}
