//! The simulator: the core compiled as a crate of its own, and what plays schedules on it.

use std::{
    env,
    fmt::Write as _,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::PathBuf,
    process::Command,
};

use anyhow::Context as _;

use crate::{
    children::{answer_of, run},
    rules::collect_rust_files,
    workspace::Workspace,
};

/// For how many schedules a simulator is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Build {
    /// For very many.
    Optimised,
    /// For a few, so as to be there soon.
    Quick,
}

/// Where a simulator is made, and out of what.
pub(crate) struct Simulator<'a> {
    workspace: &'a Workspace,
    /// The sources of the core: `units.rs` and `quota`.
    core: PathBuf,
    directory: PathBuf,
}

impl<'a> Simulator<'a> {
    /// The simulator of the core as it is.
    pub(crate) fn of(workspace: &'a Workspace) -> Self {
        Self { workspace, core: workspace.root.join("agent/src"), directory: workspace.target.join("sim") }
    }

    /// The simulator of a copy of the core, made in a directory of its own.
    pub(crate) const fn of_copy(workspace: &'a Workspace, core: PathBuf, directory: PathBuf) -> Self {
        Self { workspace, core, directory }
    }

    pub(crate) fn binary(&self) -> PathBuf {
        self.directory.join("weir-sim")
    }

    fn stamp(&self) -> PathBuf {
        self.directory.join("sources")
    }

    pub(crate) fn is_stale(&self) -> anyhow::Result<bool> {
        let now = self.fingerprint()?;
        Ok(!self.binary().exists() || fs::read_to_string(self.stamp()).map_or(true, |stamp| stamp != now))
    }

    /// What the binary depends on: the compiler, and every source by its content.
    fn fingerprint(&self) -> anyhow::Result<String> {
        let mut files = vec![self.core.join("units.rs")];
        collect_rust_files(&self.core.join("quota"), &mut files)?;
        collect_rust_files(&self.workspace.root.join("tests/src/sim"), &mut files)?;
        files.sort();
        let mut hasher = DefaultHasher::new();
        for file in &files {
            file.hash(&mut hasher);
            fs::read(file).with_context(|| format!("read {}", file.display()))?.hash(&mut hasher);
        }
        let compiler = answer_of(self.rustc().arg("-vV")).unwrap_or_default();
        Ok(format!("{:016x}\n{compiler}\n", hasher.finish()))
    }

    /// Compiles the core as a crate of its own, and the simulator with it: both need nothing but `std`.
    pub(crate) fn compile(&self, build: Build) -> anyhow::Result<()> {
        fs::create_dir_all(&self.directory).with_context(|| format!("create {}", self.directory.display()))?;
        let fingerprint = self.fingerprint()?;
        let core =
            self.root("agent.rs", &[("units", self.core.join("units.rs")), ("quota", self.core.join("quota/mod.rs"))])?;
        let main = self.root("weir_sim.rs", &[("sim", self.workspace.root.join("tests/src/sim/mod.rs"))])?;
        let mut text = fs::read_to_string(&main)?;
        text.push_str("fn main() -> std::process::ExitCode { sim::cli::main() }\n");
        fs::write(&main, text)?;
        let library = self.directory.join("libagent.rlib");
        let mut command = self.compiler(build);
        command.args(["--crate-type", "rlib", "--crate-name", "agent", "-o"]).arg(&library).arg(core);
        run(command)?;
        let mut command = self.compiler(build);
        command.args(["--crate-name", "weir_sim", "-o"]).arg(self.binary());
        command.arg("--extern").arg(format!("agent={}", library.display())).arg(main);
        run(command)?;
        fs::write(self.stamp(), fingerprint).with_context(|| format!("write {}", self.stamp().display()))
    }

    /// Writes the root of a crate that takes its modules from elsewhere.
    fn root(&self, name: &str, modules: &[(&str, PathBuf)]) -> anyhow::Result<PathBuf> {
        let mut text = String::new();
        for (module, path) in modules {
            let path = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
            writeln!(text, "#[path = {path:?}]\npub mod {module};")?;
        }
        let root = self.directory.join(name);
        fs::write(&root, text).with_context(|| format!("write {}", root.display()))?;
        Ok(root)
    }

    fn compiler(&self, build: Build) -> Command {
        let mut command = self.rustc();
        match build {
            Build::Optimised => command.arg("-O"),
            // What has not changed since the last one is not compiled again.
            Build::Quick => {
                command.arg("-C").arg(format!("incremental={}", self.directory.join("incremental").display()))
            }
        };
        // A sum that overflows is a failure here, too. The lints are those of the workspace, which knows these sources as well.
        command.args([
            "--edition",
            "2024",
            "-C",
            "overflow-checks=on",
            "-C",
            "debug-assertions=on",
            "--cap-lints",
            "allow",
        ]);
        command
    }

    fn rustc(&self) -> Command {
        let mut command = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
        command.current_dir(&self.workspace.root);
        command
    }
}
