//! The compilers that can build `core` for BPF, and how each is called.

use std::{path::Path, process::Command};

use crate::children::answer_of;

/// Where Debian's `rustc-web` puts the compiler; rustup's comes earlier on `PATH` and stays what it was.
pub(crate) const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// The two kinds of compiler that can build `core` for BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compiler {
    /// rustup's nightly with its component `rust-src`.
    Nightly,
    /// Debian's `rustc-web` with `rust-web-src`; a stable compiler, so unstable flags are unlocked by environment.
    Debian,
}

impl Compiler {
    /// Whether compiler and source are on this machine.
    pub(crate) fn is_complete(self) -> bool {
        let sysroot = answer_of(self.rustc().args(["--print", "sysroot"]));
        sysroot.is_some_and(|root| Path::new(&root).join("lib/rustlib/src/rust/library/core/Cargo.toml").exists())
    }

    /// The compiler itself, without the libraries of the cargo that runs this.
    pub(crate) fn rustc(self) -> Command {
        let mut command = match self {
            Self::Nightly => nightly("rustc"),
            Self::Debian => Command::new(DEBIAN_RUSTC),
        };
        command.env_remove("LD_LIBRARY_PATH");
        command
    }
}

/// A program of rustup's nightly; never fetches a toolchain that isn't there.
pub(crate) fn nightly(program: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", program]).env("RUSTUP_AUTO_INSTALL", "0").env_remove("RUSTUP_TOOLCHAIN");
    command
}
