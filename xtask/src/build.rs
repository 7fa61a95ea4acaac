//! `cargo xtask build`: the BPF object first, then the host's binaries that embed it.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};

use crate::{
    children::{run, say},
    cross::Cross,
    setup,
    strip::without_debugging,
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
    let mut command = workspace.cargo("build");
    command.args(["--package", "server-mock"]);
    optimised(command, &workspace.target.join("release/weir"))
}

/// The same for aarch64.
pub(crate) fn release_for_arm(workspace: &Workspace) -> anyhow::Result<()> {
    let cross = cross(workspace)?;
    let mut command = cross.cargo(workspace, "build");
    command.args(["--package", "server-mock"]);
    optimised(command, &cross.binary("release", "weir"))
}

/// What is needed to build for aarch64, the BPF object included: that is the same on all machines.
pub(crate) fn cross(workspace: &Workspace) -> anyhow::Result<Cross> {
    let toolchain = setup::setup(workspace)?;
    object(workspace, &toolchain)?;
    Cross::set_up(workspace)
}

/// Has this cargo build the agent beside what it builds already, optimised, and looks that the agent, which will be there, obeys no drills.
pub(crate) fn optimised(mut command: Command, agent: &Path) -> anyhow::Result<()> {
    say("build: what a gateway runs, optimised (some minutes)");
    command.args(["--release", "--package", "agent"]);
    run(command)?;
    let octets = fs::read(agent).with_context(|| format!("read {}", agent.display()))?;
    ensure!(
        !knows_drills(&octets),
        "{} obeys drills (agent/src/drill.rs), which only a debug build may",
        agent.display()
    );
    say(&format!("build: {}", agent.display()));
    Ok(())
}

/// Whether a binary knows a variable of the environment by which a debug build is made to die.
fn knows_drills(binary: &[u8]) -> bool {
    const NAME: &[u8] = b"WEIR_DRILL";
    binary.windows(NAME.len()).any(|octets| octets == NAME)
}

/// Compiles the two TC programs, and those that they are measured against, and puts each object where it is looked for.
///
/// A file is only written when its content has changed, so that the agent isn't built again.
pub(crate) fn object(workspace: &Workspace, toolchain: &Toolchain) -> anyhow::Result<()> {
    say("build: the BPF objects (about half a minute the first time)");
    let mut command = toolchain.cargo_build(workspace);
    command.args(["--locked", "--package", "agent-ebpf", "--bins"]);
    run(command)?;
    for name in ["meter", "yardstick"] {
        let built = workspace.target.join("bpf/bpfel-unknown-none/release").join(name);
        put(&built, &workspace.target.join(format!("bpf/weir-{name}.o")))?;
    }
    Ok(())
}

fn put(built: &Path, stable: &Path) -> anyhow::Result<()> {
    let fresh = without_debugging(&fs::read(built).with_context(|| format!("read {}", built.display()))?)?;
    if fs::read(stable).ok().as_ref() != Some(&fresh) {
        // Renamed into place: a build script that reads at this moment sees the old object or the new one.
        let draft = stable.with_extension("new");
        fs::write(&draft, &fresh).with_context(|| format!("write {}", draft.display()))?;
        fs::rename(&draft, stable).with_context(|| format!("put {} in place", stable.display()))?;
    }
    Ok(())
}

/// Builds `weir`, `weir-server` and the binaries of package `e2e` with the dev profile.
pub(crate) fn binaries(workspace: &Workspace) -> anyhow::Result<()> {
    say("build: the agent, the server and the demo (about two minutes the first time)");
    let mut command = workspace.cargo("build");
    command.args(["--bins", "--package", "agent", "--package", "server-mock", "--package", "e2e"]);
    run(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_that_obeys_drills_is_told_from_one_that_does_not() {
        assert!(knows_drills(b"\x7fELF\0WEIR_DRILL_DIE_AT\0"));
        assert!(!knows_drills(b"\x7fELF\0WEIR_BPF_OBJECT\0drill"));
    }
}
