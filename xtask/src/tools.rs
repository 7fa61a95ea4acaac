//! Programs of cargo's that a verb needs: built once, into the target directory, in a version of our choice.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    children::{complain, run_logged, say},
    workspace::Workspace,
};

/// A program that `cargo install` brings.
pub(crate) struct Tool {
    /// The crate, and the program in it.
    pub(crate) name: &'static str,
    /// Its version; another one may ask for another compiler.
    pub(crate) version: &'static str,
    /// What it is for.
    pub(crate) what_for: &'static str,
}

impl Tool {
    /// The program; built when it is not there yet.
    pub(crate) fn get(&self, workspace: &Workspace) -> anyhow::Result<PathBuf> {
        let Self { name, version, what_for } = self;
        let root = workspace.target.join("tools").join(name);
        let program = root.join("bin").join(name);
        if !program.exists() {
            say(&format!("  building {name} {version} into the target directory: {what_for} (some minutes, once)"));
            fs::create_dir_all(&root)?;
            let mut install = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            install.args(["install", name, "--version", version, "--locked", "--root"]).arg(&root);
            // It runs for moments: to be built quickly is what counts.
            install.envs([("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"), ("CARGO_PROFILE_RELEASE_LTO", "off")]);
            install.envs([("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"), ("CARGO_PROFILE_RELEASE_DEBUG", "0")]);
            install.arg("--target-dir").arg(root.join("build")).current_dir(&workspace.root);
            run_logged(&format!("building {name}"), &mut install, &root.join("build.log"))?;
            remove_build_directory(&root.join("build"));
        }
        Ok(program)
    }
}

/// Removes what a tool was built in.
pub(crate) fn remove_build_directory(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path) {
        complain(&format!("  {} stays behind: {error}", path.display()));
    }
}
