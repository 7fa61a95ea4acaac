//! A clean Debian in a directory, with systemd and nothing of ours: what a newcomer installs the package into.

use std::{fs, path::PathBuf, process::Command};

use anyhow::Context as _;

use crate::{
    apt,
    children::{run_logged, say},
    privilege::Root,
    system_packages,
    workspace::Workspace,
};

/// What makes it, and what boots it.
const PROGRAMS: [&str; 2] = ["mmdebstrap", "systemd-container"];

/// systemd itself; what a newcomer has at hand; and what looks at the service from outside.
const INCLUDED: &str = "systemd,systemd-sysv,init-system-helpers,iproute2,curl,ca-certificates,man-db";

/// The directory; fetched once.
pub(super) fn root(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let root = workspace.target.join("package/root");
    if root.join("usr/bin/systemctl").exists() {
        return Ok(root);
    }
    system_packages::install(workspace, &PROGRAMS, "a clean Debian to install the package into")?;
    say("package: fetching a clean Debian (about two minutes, once)");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("remove {}", root.display()))?;
    }
    let mut command: Command = Root::of_caller().command("mmdebstrap");
    command.args(["--variant=minbase", &format!("--include={INCLUDED}"), &apt::release()]).arg(&root);
    run_logged("mmdebstrap", &mut command, &workspace.target.join("package/root.log"))?;
    Ok(root)
}
