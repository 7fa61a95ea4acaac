//! The kernels that can be run: where each comes from, and on which machine.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use clap::ValueEnum;

use super::wwan;
use crate::{
    apt::{self, Apt, Present},
    children::say,
    workspace::Workspace,
};

/// A kernel to run tests on, in a virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernel {
    /// Too old: the agent has to refuse it
    #[value(name = "5.10")]
    V5_10,
    /// The oldest that is run: no TCX
    #[value(name = "6.1")]
    V6_1,
    /// With TCX
    #[value(name = "6.12")]
    V6_12,
    /// The same with the drivers of modems
    #[value(name = "6.12-modem")]
    Modem6_12,
    /// The newest that Debian has
    #[value(name = "7.3")]
    V7_3,
    /// aarch64 without TCX
    #[value(name = "arm64-6.1")]
    Arm6_1,
    /// aarch64 with TCX
    #[value(name = "arm64-6.12")]
    Arm6_12,
}

/// An architecture of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    /// As this machine.
    Amd64,
    /// What most gateways are.
    Arm64,
}

/// Where a kernel is to be had.
struct Recipe {
    machine: Machine,
    suite: &'static str,
    /// It depends on the newest kernel of its line; the number of the ABI changes with every update.
    metapackage: &'static str,
}

/// A kernel that lies ready.
pub(crate) struct Ready {
    /// The compressed image, as a boot loader takes it.
    pub(crate) image: PathBuf,
    /// Its modules: the directory that is named after the release.
    pub(crate) modules: PathBuf,
    /// The directory with modules that were built for it here.
    pub(crate) built: Option<PathBuf>,
}

impl Kernel {
    /// How it is called on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Modem6_12 => "6.12-modem",
            Self::V7_3 => "7.3",
            Self::Arm6_1 => "arm64-6.1",
            Self::Arm6_12 => "arm64-6.12",
        }
    }

    /// Whether it is of the oldest line that is metered, Linux 6.1.
    pub(crate) fn is_old(self) -> bool {
        matches!(self, Self::V6_1 | Self::Arm6_1)
    }

    /// The machine that it runs on.
    pub(crate) fn machine(self) -> Machine {
        self.recipe().machine
    }

    /// Fetches it unless it is there.
    pub(crate) fn fetch(self, workspace: &Workspace) -> anyhow::Result<Ready> {
        let recipe = self.recipe();
        let directory = workspace.target.join("vm/kernels").join(self.name());
        apt::once(&directory, |draft| {
            say(&format!("vm: looking for Linux {self} ({} of {})", recipe.metapackage, recipe.suite));
            let apt = Apt::update(workspace, recipe.machine.debian(), &[recipe.suite], Present::Nothing)?;
            apt.kernel(recipe.metapackage, draft)
        })?;
        let lib = if directory.join("lib/modules").is_dir() { "lib/modules" } else { "usr/lib/modules" };
        let modules = only_entry(&directory.join(lib), "")?;
        let boot = directory.join("boot");
        let image = if boot.is_dir() { only_entry(&boot, "vmlinuz")? } else { modules.join("vmlinuz") };
        let built = match self {
            Self::Modem6_12 => Some(wwan::simulator(workspace, recipe.suite, &file_name(&modules))?),
            Self::V5_10 | Self::V6_1 | Self::V6_12 | Self::V7_3 | Self::Arm6_1 | Self::Arm6_12 => None,
        };
        Ok(Ready { image, modules, built })
    }

    fn recipe(self) -> Recipe {
        let (machine, suite, metapackage) = match self {
            Self::V5_10 => (Machine::Amd64, "bullseye-security", "linux-image-cloud-amd64"),
            Self::V6_1 => (Machine::Amd64, "bookworm-security", "linux-image-cloud-amd64"),
            Self::V6_12 => (Machine::Amd64, "bookworm-security", "linux-image-6.12-cloud-amd64"),
            Self::Modem6_12 => (Machine::Amd64, "bookworm-security", "linux-image-6.12-amd64"),
            Self::V7_3 => (Machine::Amd64, "trixie-backports", "linux-image-cloud-amd64"),
            Self::Arm6_1 => (Machine::Arm64, "bookworm-security", "linux-image-cloud-arm64"),
            Self::Arm6_12 => (Machine::Arm64, "bookworm-security", "linux-image-6.12-cloud-arm64"),
        };
        Recipe { machine, suite, metapackage }
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Machine {
    /// Debian's name.
    pub(crate) fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn only_entry(directory: &Path, prefix: &str) -> anyhow::Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    let mut found =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| file_name(path).starts_with(prefix));
    let one = found.next().with_context(|| format!("there is no {prefix}* in {}", directory.display()))?;
    ensure!(found.next().is_none(), "{} holds more than one {prefix}*: remove it", directory.display());
    Ok(one)
}
