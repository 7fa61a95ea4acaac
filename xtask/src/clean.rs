//! `cargo xtask clean`: removes what tests and demo left behind when they were interrupted or killed.

use std::{env, fs, os::unix::fs::MetadataExt as _, path::Path, thread, time::Duration};

use anyhow::Context as _;
use nix::{
    mount::{MntFlags, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    children::{run, say},
    leftovers::{NAMESPACES, Owned, mounts_under, other_processes, owned_in},
    privilege::Root,
};

/// Ends the processes, unmounts and removes the directories and the namespaces whose maker is no longer alive.
pub(crate) fn clean() -> anyhow::Result<()> {
    let root = Root::of_caller();
    if root == Root::Sudo && !dead(Path::new(NAMESPACES)).is_empty() {
        let mut command = root.command(env::current_exe()?);
        command.arg("clean");
        return run(command);
    }
    for namespace in dead(Path::new(NAMESPACES)) {
        end_inhabitants(&namespace.path)?;
    }
    for directory in dead(&env::temp_dir()) {
        remove_directory(&directory.path)?;
    }
    for namespace in dead(Path::new(NAMESPACES)) {
        remove_namespace(&namespace.path)?;
    }
    Ok(())
}

fn dead(directory: &Path) -> Vec<Owned> {
    owned_in(directory).into_iter().filter(Owned::is_orphan).collect()
}

/// SIGTERM, and SIGKILL after two seconds, to the processes that live in the namespace, by pid.
fn end_inhabitants(namespace: &Path) -> anyhow::Result<()> {
    for (signal, rounds) in [(Signal::SIGTERM, 20), (Signal::SIGKILL, 20)] {
        for pid in inhabitants(namespace)? {
            say(&format!("clean: {signal} to process {pid} in {}", namespace.display()));
            // An error means that it is gone already; whether it is, is looked at below.
            let _ = kill(Pid::from_raw(pid.try_into().context("a pid above 2^31")?), signal);
        }
        for _ in 0..rounds {
            if inhabitants(namespace)?.is_empty() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(())
}

/// A process lives in a namespace when both are the same inode of nsfs.
fn inhabitants(namespace: &Path) -> anyhow::Result<Vec<u32>> {
    let wanted = fs::metadata(namespace).with_context(|| format!("look at {}", namespace.display()))?;
    let lives_there = |pid: &u32| {
        fs::metadata(format!("/proc/{pid}/ns/net"))
            .is_ok_and(|actual| actual.ino() == wanted.ino() && actual.dev() == wanted.dev())
    };
    Ok(other_processes().into_iter().filter(lives_there).collect())
}

fn remove_directory(directory: &Path) -> anyhow::Result<()> {
    say(&format!("clean: removing {}", directory.display()));
    for point in mounts_under(directory) {
        umount2(&point, MntFlags::MNT_DETACH).with_context(|| format!("unmount {}", point.display()))?;
    }
    let removed = if directory.is_dir() { fs::remove_dir_all(directory) } else { fs::remove_file(directory) };
    removed.with_context(|| format!("remove {}", directory.display()))
}

fn remove_namespace(namespace: &Path) -> anyhow::Result<()> {
    say(&format!("clean: removing network namespace {}", namespace.display()));
    // The harness may have died between making the file and mounting the namespace on it.
    for _ in mounts_under(namespace) {
        umount2(namespace, MntFlags::MNT_DETACH).with_context(|| format!("unmount {}", namespace.display()))?;
    }
    fs::remove_file(namespace).with_context(|| format!("remove {}", namespace.display()))
}
