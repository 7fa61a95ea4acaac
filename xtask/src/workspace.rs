//! Where the workspace and its target directory are, and how cargo is called there.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

/// The two directories that every verb works in.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The directory with the workspace's `Cargo.toml`.
    pub(crate) root: PathBuf,
    /// Cargo's target directory, wherever the caller's settings have moved it.
    pub(crate) target: PathBuf,
}

impl Workspace {
    /// The workspace that this executable was compiled from.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has no parent directory")?;
        let executable = env::current_exe().context("find the executable of xtask")?;
        // Cargo marks every target directory with this tag, so it is found however it was moved.
        let target = executable.ancestors().find(|directory| directory.join("CACHEDIR.TAG").exists());
        Ok(Self { root: root.to_owned(), target: target.map_or_else(|| root.join("target"), Path::to_owned) })
    }

    /// Cargo in the workspace's root, with the verb given, locked, and the target directory of this workspace.
    pub(crate) fn cargo(&self, verb: &str) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root).arg(verb).arg("--locked").arg("--target-dir").arg(&self.target);
        forget_outer_package(&mut command);
        command
    }

    /// A binary of the dev profile, as `Workspace::cargo("build")` leaves it.
    pub(crate) fn binary(&self, name: &str) -> PathBuf {
        self.target.join("debug").join(name)
    }
}

/// Removes what the surrounding `cargo run` has set for the package `xtask`, so that an inner build doesn't see it.
pub(crate) fn forget_outer_package(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") || text == "OUT_DIR" {
            command.env_remove(&name);
        }
    }
}

/// Whether a program of this name is in one of the directories of `PATH`, and where.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(program)).find(|candidate| candidate.is_file())
}
