//! What tests and demo have on this machine: namespaces, directories with mounts, pins and processes.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail};

use crate::{privilege::Root, workspace::Workspace};

/// Where `ip netns` and the test harness keep named network namespaces.
pub(crate) const NAMESPACES: &str = "/run/netns";

/// A namespace or a directory that carries the pid of its maker in its name: `weir-<pid>-…`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Owned {
    /// The namespace's file or the directory.
    pub(crate) path: PathBuf,
    /// Who made it.
    pub(crate) pid: u32,
}

impl Owned {
    /// Whether its maker is no longer alive; what belongs to a running test or demo is nobody else's business.
    pub(crate) fn is_orphan(&self) -> bool {
        !Path::new(&format!("/proc/{}", self.pid)).exists()
    }
}

/// The entries of a directory that are named by the convention; none when it doesn't exist.
pub(crate) fn owned_in(directory: &Path) -> Vec<Owned> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| Some(Owned { pid: maker(&entry.file_name().to_string_lossy())?, path: entry.path() }))
        .collect()
}

/// Mount points under a directory, the deepest first.
pub(crate) fn mounts_under(directory: &Path) -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|point| PathBuf::from(point.replace("\\040", " ")))
        .filter(|point| point.starts_with(directory))
        .collect();
    points.sort_unstable_by(|one, other| other.cmp(one));
    points
}

/// Every process's pid, this one's and its ancestors' left out.
pub(crate) fn other_processes() -> Vec<u32> {
    let mut own = BTreeSet::new();
    let mut next = Some(std::process::id());
    while let Some(pid) = next.filter(|pid| *pid > 0 && own.insert(*pid)) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        next = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok());
    }
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(|pid| !own.contains(pid)).collect()
}

/// One line for each thing without a living maker that is there now, as far as this process may see.
pub(crate) fn seen(workspace: &Workspace) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for namespace in owned_in(Path::new(NAMESPACES)).iter().filter(|owned| owned.is_orphan()) {
        lines.insert(format!("network namespace {}", namespace.path.display()));
    }
    for directory in owned_in(&env::temp_dir()).iter().filter(|owned| owned.is_orphan()) {
        lines.extend(mounts_under(&directory.path).iter().map(|point| format!("mount {}", point.display())));
        lines.insert(format!("directory {}", directory.path.display()));
    }
    for pid in other_processes() {
        if let Ok(executable) = fs::read_link(format!("/proc/{pid}/exe"))
            && executable.starts_with(&workspace.target)
        {
            lines.insert(format!("process {pid} {}", executable.display()));
        }
    }
    // Tests mount a bpffs of their own; a pin here would be one that missed it.
    for pin in fs::read_dir("/sys/fs/bpf").into_iter().flatten().flatten() {
        if pin.file_name().to_string_lossy().starts_with("weir") {
            lines.insert(format!("pin {}", pin.path().display()));
        }
    }
    lines
}

/// As `seen`, with root's eyes where the caller can have them: the tests' processes are root's.
pub(crate) fn listed(workspace: &Workspace) -> anyhow::Result<BTreeSet<String>> {
    let root = Root::of_caller();
    if root != Root::Sudo {
        return Ok(seen(workspace));
    }
    let output = root.command(env::current_exe()?).arg("leftovers").output().context("list through sudo")?;
    if !output.status.success() {
        bail!("listing what tests leave behind failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter(|line| !line.is_empty()).map(ToOwned::to_owned).collect())
}

/// What is there and wasn't before; what is just going away gets two seconds to be gone.
pub(crate) fn left_since(before: &BTreeSet<String>, workspace: &Workspace) -> anyhow::Result<BTreeSet<String>> {
    let mut left = BTreeSet::new();
    for _ in 0..20 {
        left = listed(workspace)?.difference(before).cloned().collect();
        if left.is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(left)
}

/// The pid in a name of the form `weir-<pid>-…`.
fn maker(name: &str) -> Option<u32> {
    let (pid, rest) = name.strip_prefix("weir-")?.split_once('-')?;
    if rest.is_empty() { None } else { pid.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_with_a_pid_are_ours() {
        assert_eq!(maker("weir-417-client"), Some(417));
        for foreign in ["weir", "weir-client", "weir-417", "weir-417-", "vpn-417-a", "weir--a"] {
            assert_eq!(maker(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn the_caller_and_its_ancestors_are_not_left_behind() {
        let others = other_processes();
        assert!(!others.contains(&std::process::id()));
        assert!(!others.contains(&std::os::unix::process::parent_id()));
    }
}
