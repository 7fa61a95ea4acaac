//! The emulator: where it is, how a guest is started in it, and what the guest says on its serial line.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

use super::kernels::Machine;
use crate::{
    apt::{self, Apt, Present},
    children::watched,
    workspace::{Workspace, on_path},
};

/// Seconds that a guest may take in all; each of its tests has deadlines of its own.
const LIMIT: &str = "2400";

/// QEMU, on this machine or laid out apart.
pub(crate) struct Emulator {
    program: PathBuf,
    /// Where it lies with its libraries and firmware, when it is not the machine's own.
    apart: Option<PathBuf>,
}

/// What a guest is started with.
pub(crate) struct Boot<'a> {
    /// Its machine.
    pub(crate) machine: Machine,
    /// The kernel's compressed image.
    pub(crate) image: &'a Path,
    /// Its first root.
    pub(crate) root: &'a Path,
    /// Where all that it says is kept.
    pub(crate) log: &'a Path,
}

impl Emulator {
    /// The machine's own, or one that is fetched: installing QEMU could take other programs away.
    pub(crate) fn find(workspace: &Workspace, machine: Machine) -> anyhow::Result<Self> {
        let (name, package) = match machine {
            Machine::Amd64 => ("qemu-system-x86_64", "qemu-system-x86"),
            Machine::Arm64 => ("qemu-system-aarch64", "qemu-system-arm"),
        };
        if let Some(program) = on_path(name) {
            return Ok(Self { program, apart: None });
        }
        let apart = workspace.target.join("vm/qemu").join(machine.debian());
        apt::once(&apart, |draft| {
            let release = apt::release();
            // The backported one is faster.
            let newer = format!("{release}-backports");
            let apt = Apt::update(workspace, "amd64", &[&release, &newer], Present::ThisMachine)?;
            apt.with_dependencies(&newer, &[package], draft)
        })?;
        Ok(Self { program: apart.join("usr/bin").join(name), apart: Some(apart) })
    }

    /// Runs a guest to its end; `hear` is told each line that it says as soon as it is there.
    pub(crate) fn run(&self, boot: &Boot<'_>, mut hear: impl FnMut(&str)) -> anyhow::Result<()> {
        fs::write(boot.log, "").with_context(|| format!("write {}", boot.log.display()))?;
        let mut tail = Tail { file: File::open(boot.log)?, at: 0, line: Vec::new() };
        let mut failed = None;
        let status = watched(&mut self.command(boot), |_| {
            if let Err(error) = tail.follow(&mut hear) {
                failed.get_or_insert(error);
            }
        })?;
        tail.follow(&mut hear)?;
        failed.map_or(Ok(()), Err).with_context(|| format!("read {}", boot.log.display()))?;
        ensure!(status.code() != Some(124), "the guest has not ended after {LIMIT} s");
        ensure!(status.success(), "{} ended with {status}", self.program.display());
        Ok(())
    }

    fn command(&self, boot: &Boot<'_>) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--foreground", "--kill-after=5", LIMIT]).arg(&self.program).stdin(Stdio::null());
        if let Some(apart) = &self.apart {
            let libraries = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|place| apart.join(place));
            let libraries = libraries.map(|place| place.display().to_string()).join(":");
            command.env("LD_LIBRARY_PATH", libraries);
            for place in ["usr/share/qemu", "usr/share/seabios"] {
                command.arg("-L").arg(apart.join(place));
            }
        }
        // Emulated to the last instruction: what a machine may have in hardware is often not there, or of no use.
        command.args([
            "-accel",
            "tcg",
            "-smp",
            "2",
            "-m",
            "2048",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
        ]);
        command.args(["-no-reboot", "-serial"]).arg(format!("file:{}", boot.log.display()));
        let console = match boot.machine {
            Machine::Amd64 => {
                // Newer processors cost twice the time: what they can do has to be emulated as well.
                command.args(["-M", "q35", "-cpu", "Nehalem"]);
                "console=ttyS0 reboot=t mitigations=off nokaslr"
            }
            Machine::Arm64 => {
                command.args(["-M", "virt", "-cpu", "max,pauth-impdef=on"]);
                "console=ttyAMA0"
            }
        };
        command.arg("-kernel").arg(boot.image).arg("-initrd").arg(boot.root);
        // Quiet: a word of the kernel in the middle of a test's line would make it unreadable. It is asked at the end.
        command.arg("-append").arg(format!("{console} panic=-1 random.trust_cpu=on loglevel=1"));
        command
    }
}

/// What is added to a file, line by line.
struct Tail {
    file: File,
    at: u64,
    line: Vec<u8>,
}

impl Tail {
    fn follow(&mut self, hear: &mut impl FnMut(&str)) -> std::io::Result<()> {
        self.file.seek(SeekFrom::Start(self.at))?;
        let mut added = Vec::new();
        self.at += self.file.read_to_end(&mut added)? as u64;
        for octet in added {
            match octet {
                b'\n' => {
                    hear(String::from_utf8_lossy(&self.line).trim_end());
                    self.line.clear();
                }
                octet => self.line.push(octet),
            }
        }
        Ok(())
    }
}
