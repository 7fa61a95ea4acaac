//! Building for aarch64, what most gateways are: a compiler with its library, a C compiler, and how cargo is called with them.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::{
    apt::{self, Apt, Present},
    children::{answer_of, say},
    compiler::DEBIAN_RUSTC,
    system_packages,
    workspace::{Workspace, on_path},
};

/// The one target besides this machine's own.
pub(crate) const TARGET: &str = "aarch64-unknown-linux-gnu";
const C_COMPILER: &str = "aarch64-linux-gnu-gcc";

/// Everything that builds for [`TARGET`].
pub(crate) struct Cross {
    /// Where its cargo puts things: beside the other target directory, whose compiler may be another.
    pub(crate) target: PathBuf,
    /// Debian's compiler and a library for it; none where rustup has both.
    sysroot: Option<PathBuf>,
}

impl Cross {
    /// Finds what is needed, or installs and fetches it.
    pub(crate) fn set_up(workspace: &Workspace) -> anyhow::Result<Self> {
        let packages = ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"];
        if on_path(C_COMPILER).is_none() {
            system_packages::install(workspace, &packages, "a C compiler and a C library for aarch64")?;
        }
        let target = workspace.target.join("cross");
        fs::create_dir_all(&target).with_context(|| format!("make {}", target.display()))?;
        if rustup_has_it() {
            return Ok(Self { target, sysroot: None });
        }
        let sysroot = target.join("sysroot");
        apt::once(&sysroot, |draft| debian_library(workspace, draft))?;
        Ok(Self { target, sysroot: Some(sysroot) })
    }

    /// Cargo in the workspace's root with the verb given, for [`TARGET`].
    pub(crate) fn cargo(&self, workspace: &Workspace, verb: &str) -> Command {
        self.cargo_with(workspace, verb, &[])
    }

    /// The same with these flags for the compiler.
    pub(crate) fn cargo_with(&self, workspace: &Workspace, verb: &str, flags: &[&str]) -> Command {
        let apart = Workspace { root: workspace.root.clone(), target: self.target.clone() };
        let mut command = apart.cargo(verb);
        command.args(["--target", TARGET]);
        command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", C_COMPILER);
        command.env("CC_aarch64_unknown_linux_gnu", C_COMPILER);
        if self.sysroot.is_some() {
            command.env("RUSTC", DEBIAN_RUSTC).env_remove("LD_LIBRARY_PATH");
        }
        let sysroot = self.sysroot.iter().map(|sysroot| format!("--sysroot={}", sysroot.display()));
        let flags: Vec<String> = sysroot.chain(flags.iter().map(|flag| (*flag).to_owned())).collect();
        if !flags.is_empty() {
            command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS", flags.join(" "));
        }
        command
    }

    /// A binary of a profile's directory: `guest` or `release`.
    pub(crate) fn binary(&self, profile: &str, name: &str) -> PathBuf {
        self.target.join(TARGET).join(profile).join(name)
    }
}

/// Whether the compiler that is called by default has a library for the target, or rustup can fetch one.
fn rustup_has_it() -> bool {
    let is_here = || {
        let library = answer_of(Command::new("rustc").args(["--print", "target-libdir", "--target", TARGET]));
        library.is_some_and(|directory| holds_a_library(Path::new(&directory)))
    };
    if is_here() {
        return true;
    }
    if on_path("rustup").is_none() {
        return false;
    }
    say(&format!("  asking rustup for the library of {TARGET} (a few seconds)"));
    // Where it cannot be had, Debian's is taken; nobody has to know why.
    let mut command = Command::new("timeout");
    let _ = answer_of(command.args(["90", "rustup", "target", "add", TARGET]));
    is_here()
}

fn holds_a_library(directory: &Path) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
}

/// A sysroot for Debian's compiler: this machine's library by a link, and the other one out of Debian's package of the same version.
fn debian_library(workspace: &Workspace, draft: &Path) -> anyhow::Result<()> {
    let version = answer_of(Command::new("dpkg-query").args(["-W", "-f", "${Version}", "rustc-web"]));
    let Some(version) = version.filter(|version| !version.is_empty()) else {
        bail!("there is no Rust library for {TARGET} here; with rustup, type: rustup target add {TARGET}");
    };
    let release = apt::release();
    let suites = [release.clone(), format!("{release}-security")];
    let apt = Apt::update(workspace, "arm64", &suites.each_ref().map(String::as_str), Present::Nothing)?;
    let fetched = draft.join("fetched");
    apt.packages(&[&format!("libstd-rust-web-dev={version}")], &fetched)
        .context("the library must be of the version of the compiler (package rustc-web): upgrade that first")?;
    let libraries = draft.join("lib/rustlib");
    fs::create_dir_all(&libraries).with_context(|| format!("make {}", libraries.display()))?;
    let laid_out = fetched.join("usr/lib/rustlib").join(TARGET);
    fs::rename(&laid_out, libraries.join(TARGET)).with_context(|| format!("move {}", laid_out.display()))?;
    fs::remove_dir_all(&fetched).with_context(|| format!("remove {}", fetched.display()))?;
    let host = "x86_64-unknown-linux-gnu";
    symlink(Path::new("/usr/lib/rustlib").join(host), libraries.join(host)).context("link this machine's library")
}
