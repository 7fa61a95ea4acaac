//! A compiler and a linker for BPF: which are here, how they are called, and the proof that they fit together.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{
    children::{self, answer_of},
    compiler::{Compiler, DEBIAN_RUSTC, nightly},
    workspace::{Workspace, forget_outer_package, on_path},
};

/// As aya builds its programs, and the first instruction set with fetching atomics (Linux 5.12).
const RUST_FLAGS: &str = "-Ctarget-cpu=v3\x1f-Cdebuginfo=2\x1f-Clink-arg=--btf";
/// The smallest program that needs everything: the compiler, the source of `core`, and the linker. Its profile is the
/// workspace's own, so that `core` is compiled once for both.
const PROBE: [(&str, &str); 2] =
    [("Cargo.toml", include_str!("probe/manifest.txt")), ("src/main.rs", include_str!("probe/program.txt"))];

/// A compiler and a linker that are meant to work together.
#[derive(Debug)]
pub(crate) struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rustc = answer_of(self.compiler.rustc().arg("--version")).unwrap_or_default();
        write!(f, "{rustc}, {}", self.linker.display())
    }
}

impl Toolchain {
    /// Cargo with this toolchain, building for BPF into the target directory's `bpf`.
    pub(crate) fn cargo_build(&self, workspace: &Workspace) -> Command {
        let mut command = match self.compiler {
            Compiler::Nightly => nightly("cargo"),
            Compiler::Debian => {
                let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
                cargo.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1");
                cargo
            }
        };
        forget_outer_package(&mut command);
        let foreign =
            ["RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO_BUILD_TARGET", "LD_LIBRARY_PATH"];
        for name in foreign {
            command.env_remove(name);
        }
        if self.compiler == Compiler::Nightly {
            command.env_remove("RUSTC").env_remove("CARGO");
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let directories = self.linker.parent().map(Path::to_owned).into_iter().chain(env::split_paths(&path));
        if let Ok(path) = env::join_paths(directories) {
            command.env("PATH", path);
        }
        command.env("CARGO_ENCODED_RUSTFLAGS", RUST_FLAGS).current_dir(&workspace.root);
        command.args(["build", "--release", "--target", "bpfel-unknown-none", "-Z", "build-std=core", "--target-dir"]);
        command.arg(workspace.target.join("bpf"));
        command
    }

    /// Compiles the probe; the toolchain that can is remembered, so that the next call only compares versions.
    pub(crate) fn prove(self, workspace: &Workspace) -> anyhow::Result<Self> {
        let probe = workspace.target.join("bpf/probe");
        for (name, text) in PROBE {
            let path = probe.join(name);
            fs::create_dir_all(path.parent().context("a file of the probe has no directory")?)?;
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        let mut command = self.cargo_build(workspace);
        command.current_dir(&probe);
        children::run_logged("proving the toolchain", &mut command, &workspace.target.join("bpf/probe.log"))?;
        fs::write(stamp(workspace), self.identity()).context("remember the proven toolchain")?;
        Ok(self)
    }

    /// What has to stay the same for an earlier proof to hold.
    fn identity(&self) -> String {
        let rustc = answer_of(self.compiler.rustc().arg("-vV")).unwrap_or_default();
        let linker = answer_of(Command::new(&self.linker).arg("--version")).unwrap_or_default();
        format!("{:?}\n{rustc}\n{linker}\n{}\n{}", self.compiler, self.linker.display(), RUST_FLAGS.escape_default())
    }
}

/// Every pair of a complete compiler and a linker on this machine, in the order of preference.
pub(crate) fn candidates(workspace: &Workspace) -> impl Iterator<Item = Toolchain> {
    let linkers: Vec<PathBuf> = [Some(own_linker(workspace)).filter(|path| path.exists()), on_path("bpf-linker")]
        .into_iter()
        .flatten()
        .collect();
    let compilers = [Compiler::Nightly, Compiler::Debian].into_iter().filter(|compiler| compiler.is_complete());
    compilers.flat_map(move |compiler| linkers.clone().into_iter().map(move |linker| Toolchain { compiler, linker }))
}

/// The toolchain that an earlier call has proven, if nothing about it has changed.
pub(crate) fn proven(workspace: &Workspace) -> Option<Toolchain> {
    let known = fs::read_to_string(stamp(workspace)).ok()?;
    candidates(workspace).find(|toolchain| toolchain.identity() == known)
}

/// Where `setup` installs a linker of the project's own.
pub(crate) fn own_linker(workspace: &Workspace) -> PathBuf {
    workspace.target.join("tools/bpf-linker/bin/bpf-linker")
}

/// Fetches the source of `core` for an installed nightly. Quiet when it can't be had: there is another way.
pub(crate) fn add_source_to_nightly(log: &Path) -> bool {
    if answer_of(nightly("rustc").arg("--version")).is_none() {
        return false;
    }
    let mut command = Command::new("timeout");
    command.args(["90", "rustup", "component", "add", "rust-src", "--toolchain", "nightly"]);
    children::run_logged("fetching rust-src", &mut command, log).is_ok()
}

fn stamp(workspace: &Workspace) -> PathBuf {
    workspace.target.join("bpf/toolchain.proven")
}
