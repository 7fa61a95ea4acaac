//! Where the meter of one link is pinned, and what its pins run.

use std::{
    fmt, fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use agent_common::LAYOUT_VERSION;
use anyhow::{Context as _, Result};
use aya::programs::ProgramInfo;

use super::{
    direction::Direction,
    sys::{get_pinned, link_state},
};
use crate::drill;

/// The layout of this agent.
pub(super) fn layout() -> u32 {
    drill::layout(LAYOUT_VERSION)
}

/// Where the meter of one link is pinned: `<pin_root>/v<LAYOUT_VERSION>/<link>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    directory: PathBuf,
}

impl Pins {
    /// The pins of `link` under `pin_root`, in the layout of this agent.
    #[must_use]
    pub fn new(pin_root: &Path, link: &str) -> Self {
        Self::of_layout(pin_root, layout(), link)
    }

    /// The same in another layout.
    #[must_use]
    pub fn of_layout(pin_root: &Path, version: u32, link: &str) -> Self {
        Self::within(&pin_root.join(format!("v{version}")), link)
    }

    /// Where a new meter is pinned until it has taken the place of the one before it.
    pub(super) fn staged(pin_root: &Path, link: &str) -> Self {
        Self::within(&pin_root.join("new"), link)
    }

    fn within(directory: &Path, link: &str) -> Self {
        // A BPF file system refuses names with a dot; an interface (`eth0.5`) cannot have a colon in its name.
        Self { directory: directory.join(link.replace('.', ":")) }
    }

    /// The links that have pins under `pin_root`, in the layout of this agent, whether or not these still do anything.
    #[must_use]
    pub fn names(pin_root: &Path) -> Vec<String> {
        names_in(&pin_root.join(format!("v{}", layout())))
    }

    /// The directory that holds them all.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(super) fn program(&self, direction: Direction) -> PathBuf {
        self.directory.join(format!("prog_{direction}"))
    }

    pub(super) fn link(&self, direction: Direction) -> PathBuf {
        self.directory.join(format!("link_{direction}"))
    }
}

/// The links that have a directory of pins in this one.
pub(super) fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| Some(entry.file_name().to_str()?.replace(':', "."))).collect();
    // As people count, not as the kernel keeps them.
    names.sort_unstable();
    names
}

impl fmt::Display for Pins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.directory.display().fmt(f)
    }
}

/// `None` where there is no such pin.
pub(super) fn pinned_link(pins: &Pins, direction: Direction) -> Result<Option<OwnedFd>> {
    let path = pins.link(direction);
    match get_pinned(&path) {
        Ok(link) => Ok(Some(link)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("opening the pinned link {}", path.display())),
    }
}

/// The program that runs for these pins at a hook: the link's, or else the pinned one.
pub(super) fn running(pins: &Pins, direction: Direction) -> Result<u32> {
    if let Some(link) = pinned_link(pins, direction)? {
        let state =
            link_state(&link).with_context(|| format!("asking the kernel about {}", pins.link(direction).display()));
        return Ok(state?.program_id);
    }
    let path = pins.program(direction);
    let program =
        ProgramInfo::from_pin(&path).with_context(|| format!("opening the pinned program {}", path.display()));
    Ok(program?.id())
}

/// Removes a pin; one that is not there is fine.
pub(super) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing the pin {}", path.display()))
        }
        _ => Ok(()),
    }
}
