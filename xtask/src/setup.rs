//! `cargo xtask setup`: finds a working BPF toolchain, or installs one; says each step, what it is for and how long it takes.

use std::{env, fs, process::Command};

use anyhow::{Context as _, bail};

use crate::{
    children::{run_logged, say},
    compiler::Compiler,
    signals, system_packages,
    toolchain::{self, Toolchain},
    tools,
    workspace::{Workspace, on_path},
};

/// The linker's version, and the LLVM of the compiler that it has to understand.
const LINKER_VERSION: &str = "0.13.0";
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";

/// A toolchain that has compiled a BPF program on this machine. The second call is instant.
pub(crate) fn setup(workspace: &Workspace) -> anyhow::Result<Toolchain> {
    fs::create_dir_all(workspace.target.join("bpf")).context("create the directory of the BPF build")?;
    fs::create_dir_all(workspace.target.join("tools")).context("create the directory of the build tools")?;
    require_programs(workspace)?;
    if let Some(toolchain) = toolchain::proven(workspace) {
        say(&format!("setup: BPF toolchain ready: {toolchain}"));
        return Ok(toolchain);
    }
    say("setup: looking for a compiler and a linker that build BPF programs");
    for attempt in [with_what_is_here, with_source_for_nightly, with_debian_compiler, with_own_linker] {
        if let Some(toolchain) = attempt(workspace)? {
            say(&format!("setup: BPF toolchain ready: {toolchain}"));
            return Ok(toolchain);
        }
        if signals::received().is_some() {
            bail!("interrupted");
        }
    }
    bail!(by_hand())
}

fn require_programs(workspace: &Workspace) -> anyhow::Result<()> {
    let missing = system_packages::missing_programs();
    system_packages::install(workspace, &missing, "network namespaces and C code of the dependencies")
}

fn with_what_is_here(workspace: &Workspace) -> anyhow::Result<Option<Toolchain>> {
    for candidate in toolchain::candidates(workspace) {
        say(&format!("  trying {candidate}: compiles a small BPF program (about 20 s)"));
        match candidate.prove(workspace) {
            Ok(proven) => return Ok(Some(proven)),
            Err(_) if signals::received().is_some() => bail!("interrupted"),
            Err(_) => say("  these two don't fit together; details in the target directory, bpf/probe.log"),
        }
    }
    Ok(None)
}

fn with_source_for_nightly(workspace: &Workspace) -> anyhow::Result<Option<Toolchain>> {
    let linker_here = on_path("bpf-linker").is_some() || toolchain::own_linker(workspace).exists();
    if !linker_here || Compiler::Nightly.is_complete() || on_path("rustup").is_none() {
        return Ok(None);
    }
    say("  asking rustup for the source of `core` for nightly (a few seconds)");
    if toolchain::add_source_to_nightly(&workspace.target.join("tools/rust-src.log")) {
        return with_what_is_here(workspace);
    }
    say("  not available here; going on with the distribution's compiler");
    Ok(None)
}

fn with_debian_compiler(workspace: &Workspace) -> anyhow::Result<Option<Toolchain>> {
    if !system_packages::are_possible() || Compiler::Debian.is_complete() {
        return Ok(None);
    }
    let linker_here = on_path("bpf-linker").is_some() || toolchain::own_linker(workspace).exists();
    let mut packages = system_packages::COMPILER.to_vec();
    if !linker_here {
        packages.extend(system_packages::LLVM);
    }
    system_packages::install(workspace, &packages, "a compiler that can build for BPF")?;
    with_what_is_here(workspace)
}

fn with_own_linker(workspace: &Workspace) -> anyhow::Result<Option<Toolchain>> {
    if !system_packages::are_possible() || toolchain::own_linker(workspace).exists() {
        return Ok(None);
    }
    system_packages::install(workspace, &system_packages::LLVM, "the LLVM that the BPF linker is built against")?;
    say(&format!(
        "  building bpf-linker {LINKER_VERSION} into the target directory: links BPF programs (1 to 3 minutes)"
    ));
    let mut install = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    install.args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked"]);
    install.args(["--no-default-features", "--features", "llvm-22", "--root"]);
    install.arg(workspace.target.join("tools/bpf-linker"));
    install.arg("--target-dir").arg(workspace.target.join("tools/bpf-linker/build"));
    install.env("LLVM_PREFIX", LLVM_PREFIX).current_dir(&workspace.root);
    run_logged("building bpf-linker", &mut install, &workspace.target.join("tools/bpf-linker.log"))?;
    tools::remove_build_directory(&workspace.target.join("tools/bpf-linker/build"));
    with_what_is_here(workspace)
}

fn by_hand() -> String {
    format!(
        "no BPF toolchain works on this machine, and none can be installed by this account.\n\
         With rustup (any distribution), type:\n\n    \
         rustup toolchain install nightly --component rust-src\n    \
         LLVM_PREFIX=/usr/lib/llvm-22 cargo install bpf-linker --version {LINKER_VERSION} --locked \
         --no-default-features --features llvm-22\n\n\
         (LLVM_PREFIX is where LLVM with its headers is; its major version must be that of `rustc +nightly -vV`, and \
         the feature is named after it.)\nOn Debian, as root, type:\n\n    {}\n\nThen run this command again.",
        system_packages::typed(&[&system_packages::COMPILER[..], &system_packages::LLVM].concat().join(" "))
    )
}
