//! The archive for machines without dpkg: one static binary, and what is laid beside it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use super::{HOST, NOTICES, notices};
use crate::{
    build,
    children::{answer_of, run, say},
    cross,
    workspace::Workspace,
};

/// No library of the machine is needed; the resolver of the C library finds names by /etc/hosts and DNS alone then.
const STATIC: &str = "-Ctarget-feature=+crt-static";

/// What lies in it beside the binary, and under which name.
const BESIDE: [(&str, &str); 6] = [
    ("docs/weir.sample.toml", "weir.sample.toml"),
    ("packaging/openwrt/weir.init", "weir.init"),
    ("docs/operations.md", "operations.md"),
    ("docs/commands.md", "commands.md"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("LICENSE-MIT", "LICENSE-MIT"),
];

/// Builds it for this machine, or for aarch64.
pub(super) fn archive(workspace: &Workspace, is_for_arm: bool) -> anyhow::Result<PathBuf> {
    let (target, weir) =
        if is_for_arm { (cross::TARGET, for_arm(workspace)?) } else { (HOST, for_this_machine(workspace)?) };
    let said = answer_of(Command::new("file").arg("--brief").arg(&weir)).unwrap_or_default();
    ensure!(said.is_empty() || said.contains("static"), "{} is not static: {said}", weir.display());
    let machine = target.split('-').next().context("a target begins with its machine")?;
    let name = format!("weir-{}-{machine}", env!("CARGO_PKG_VERSION"));
    let directory = workspace.target.join("package").join(&name);
    if directory.exists() {
        fs::remove_dir_all(&directory).with_context(|| format!("remove {}", directory.display()))?;
    }
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    copy(&weir, &directory.join("weir"))?;
    for (from, to) in BESIDE {
        copy(&workspace.root.join(from), &directory.join(to))?;
    }
    notices::write(workspace, target, &directory.join(NOTICES))?;
    let archive = workspace.target.join("package").join(format!("{name}.tar.gz"));
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "--numeric-owner", "-C"]).arg(workspace.target.join("package"));
    tar.arg("-czf").arg(&archive).arg(&name);
    run(tar)?;
    say(&format!("package: {}", archive.display()));
    Ok(archive)
}

fn for_this_machine(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    ensure!(cfg!(target_arch = "x86_64"), "the archive is made on an x86_64 machine, for it or for {}", cross::TARGET);
    let toolchain = crate::setup::setup(workspace)?;
    build::object(workspace, &toolchain)?;
    let mut command = workspace.cargo("build");
    command.args(["--target", HOST]).env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", STATIC);
    let weir = workspace.target.join(HOST).join("release/weir");
    build::optimised(command, &weir)?;
    Ok(weir)
}

fn for_arm(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let cross = build::cross(workspace)?;
    let weir = cross.binary("release", "weir");
    build::optimised(cross.cargo_with(workspace, "build", &[STATIC]), &weir)?;
    super::runs_emulated(workspace, &weir)?;
    Ok(weir)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::copy(from, to).map(drop).with_context(|| format!("copy {} to {}", from.display(), to.display()))
}
