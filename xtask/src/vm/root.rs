//! The guest's root: Debian's `ip`, C library and busybox, the kernel's modules, the project's programs and tests.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use super::{
    cpio::Archive,
    kernels::{Machine, Ready},
    modules,
};
use crate::{
    apt::{self, Apt, Present},
    workspace::Workspace,
};

/// What the tests call, and a shell and the rest for the guest itself.
const PACKAGES: [&str; 2] = ["iproute2", "busybox-static"];
const INIT: &str = include_str!("guest.sh");

/// What a guest is given.
pub(crate) struct Contents<'a> {
    /// Its machine.
    pub(crate) machine: Machine,
    /// Its kernel.
    pub(crate) kernel: &'a Ready,
    /// Debian's programs for it.
    pub(crate) userland: &'a Path,
    /// Modules that the tests use.
    pub(crate) modules: &'a [&'static str],
    /// Programs for `/weir`: name there, and file here.
    pub(crate) programs: &'a [(String, PathBuf)],
    /// Shell lines that run them.
    pub(crate) plan: &'a str,
}

/// Writes the guest's first root to `path`.
pub(crate) fn write(contents: &Contents<'_>, path: &Path) -> anyhow::Result<()> {
    let directory = path.parent().context("the archive has no directory")?;
    let mut archive = Archive::create(path)?;
    archive.terminal("dev/console", 5, 1)?;
    archive.tree(contents.userland, "", is_wanted)?;
    // A release with a merged /usr keeps these links in a package that is not needed otherwise.
    for name in ["bin", "sbin", "lib", "lib64"] {
        if !contents.userland.join(name).exists() {
            archive.link(name, &format!("usr/{name}"))?;
        }
    }
    archive.file("init", 0o755, INIT.as_bytes())?;
    archive.file("weir/plan", 0o644, contents.plan.as_bytes())?;
    archive.directory("weir/modules")?;
    for (number, module) in modules::in_order(contents.kernel, contents.modules)?.iter().enumerate() {
        archive.file(&format!("weir/modules/{number:03}-{}.ko", module.name), 0o644, &module.content)?;
    }
    for (name, file) in contents.programs {
        archive.file(&format!("weir/{name}"), 0o755, &stripped(contents.machine, file, directory)?)?;
    }
    archive.finish().map(drop)
}

/// Debian's programs for a guest; fetched unless they are there.
pub(crate) fn userland(workspace: &Workspace, machine: Machine) -> anyhow::Result<PathBuf> {
    let directory = workspace.target.join("vm/userland").join(machine.debian());
    apt::once(&directory, |draft| {
        // The programs are linked against the C library of the release that they are built on.
        let release = apt::release();
        let apt = Apt::update(workspace, machine.debian(), &[&release], Present::Nothing)?;
        apt.with_dependencies(&release, &PACKAGES, draft)
    })?;
    Ok(directory)
}

/// Neither documentation nor what belongs to installing packages.
fn is_wanted(name: &str) -> bool {
    let is_share = name.starts_with("usr/share/") && !name.starts_with("usr/share/iproute2");
    !is_share && !name.ends_with("/gconv") && !name.ends_with("/perl5") && name != "var"
}

/// A program without what only a debugger reads: four fifths of it.
fn stripped(machine: Machine, file: &Path, directory: &Path) -> anyhow::Result<Vec<u8>> {
    let program = match machine {
        Machine::Amd64 => "strip",
        Machine::Arm64 => "aarch64-linux-gnu-strip",
    };
    let draft = directory.join("stripped");
    let output = Command::new(program).arg("--strip-all").arg("-o").arg(&draft).arg(file).output();
    let output = output.with_context(|| format!("run {program} (package binutils)"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {said}", file.display());
    let content = fs::read(&draft).with_context(|| format!("read {}", draft.display()))?;
    fs::remove_file(&draft).with_context(|| format!("remove {}", draft.display()))?;
    Ok(content)
}
