//! `cargo xtask test --kernel K`: the same tests and programs on another kernel, in a virtual machine that is emulated to the last instruction.

mod cpio;
mod kernels;
mod modules;
mod plan;
mod qemu;
mod root;
mod verdict;
mod wwan;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};

use serde_json::Value;

pub(crate) use self::kernels::Kernel;
use self::{
    kernels::{Machine, Ready},
    plan::Plan,
    qemu::{Boot, Emulator},
    root::Contents,
    verdict::Heard,
};
use crate::{
    build,
    children::{self, complain, say},
    signals, system_packages,
    workspace::{Workspace, on_path},
};

/// Lines of a failed guest's words that are shown.
const LAST_WORDS: usize = 120;

/// How programs for another machine are built: optimised, for every instruction of theirs is emulated, and obeying drills.
const PROFILE: &str = "guest";

/// The kernels that every run of all tests is taken to: without TCX and with it.
const ESSENTIAL: [Kernel; 2] = [Kernel::V6_1, Kernel::V6_12];

/// Everything that a guest is made of but the project's own.
struct Guest {
    kernel: Kernel,
    emulator: Emulator,
    ready: Ready,
    userland: PathBuf,
}

/// Builds, then runs the planned tests on this kernel. Returns the exit code.
pub(crate) fn test(workspace: &Workspace, kernel: Kernel) -> anyhow::Result<u8> {
    let guest = Guest::fetch(workspace, kernel)?;
    if kernel.machine() == Machine::Amd64 {
        build::build(workspace)?;
    }
    let plan = plan::of(kernel);
    let programs = programs(workspace, kernel.machine(), &plan.files)?;
    run(workspace, &guest, &plan, &programs)
}

/// Runs the essential tests, built by now, on the oldest kind of kernel and on a new one. Returns whether they passed.
pub(crate) fn essentials(workspace: &Workspace) -> anyhow::Result<bool> {
    say("\ntest: the essential ones on other kernels, in emulated machines (some minutes)");
    let guests: anyhow::Result<Vec<Guest>> =
        ESSENTIAL.into_iter().map(|kernel| Guest::fetch(workspace, kernel)).collect();
    let guests = match guests {
        Ok(guests) => guests,
        Err(error) => {
            complain(&format!("test: other kernels NOT RUN: {error:#}"));
            ensure!(env::var_os("CI").is_none(), "CI is set, so kernels that cannot be had are a failure");
            return Ok(true);
        }
    };
    let plan = plan::essentials();
    let programs = programs(workspace, Machine::Amd64, &plan.files)?;
    let mut passed = true;
    for guest in &guests {
        passed &= run(workspace, guest, &plan, &programs)? == 0;
    }
    Ok(passed)
}

impl Guest {
    /// Fetches what is not there yet.
    fn fetch(workspace: &Workspace, kernel: Kernel) -> anyhow::Result<Self> {
        ensure!(cfg!(target_arch = "x86_64"), "other kernels are run on x86-64 only, and this is another machine");
        if on_path("xz").is_none() {
            system_packages::install(workspace, &["xz-utils"], "what unpacks a kernel's modules")?;
        }
        let machine = kernel.machine();
        let emulator = Emulator::find(workspace, machine)?;
        Ok(Self { kernel, emulator, ready: kernel.fetch(workspace)?, userland: root::userland(workspace, machine)? })
    }
}

fn run(workspace: &Workspace, guest: &Guest, plan: &Plan, programs: &[(String, PathBuf)]) -> anyhow::Result<u8> {
    let Guest { kernel, emulator, ready, userland } = guest;
    let machine = kernel.machine();
    let directory = workspace.target.join("vm/run").join(kernel.name());
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    let (root, log) = (directory.join("root.cpio"), directory.join("serial.log"));
    let (modules, plan_script) = (&plan.modules, &plan.script);
    root::write(&Contents { machine, kernel: ready, userland, modules, programs, plan: plan_script }, &root)?;
    for line in &plan.left_out {
        say(&format!("  {line}"));
    }
    say(&format!("\nvm: Linux {kernel}: starting a guest"));
    let mut heard = Heard::default();
    let boot = Boot { machine, image: &ready.image, root: &root, log: &log };
    let ended = emulator.run(&boot, |line| {
        if heard.line(line) {
            say(&format!("  {line}"));
        }
    });
    if signals::received().is_some() {
        bail!("interrupted");
    }
    let mut complaints = heard.complaints(&plan.planned);
    complaints.extend(ended.err().map(|error| format!("{error:#}")));
    if complaints.is_empty() {
        let up = heard.up.as_deref().unwrap_or("a kernel that has not said its name");
        say(&format!("vm: Linux {up}: {} tests passed", heard.passed()));
        return Ok(0);
    }
    complain(&last_words(&log));
    for complaint in complaints {
        complain(&format!("vm: Linux {kernel}: {complaint}"));
    }
    Ok(1)
}

/// The project's programs and the files of tests, as this machine or the cross compiler builds them.
fn programs(workspace: &Workspace, machine: Machine, files: &[&str]) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let cross = match machine {
        Machine::Amd64 => None,
        Machine::Arm64 => Some(build::cross(workspace)?),
    };
    let cargo = |verb| match &cross {
        None => workspace.cargo(verb),
        Some(cross) => {
            let mut command = cross.cargo(workspace, verb);
            command.args(["--profile", PROFILE]);
            command
        }
    };
    say("build: what runs in a guest");
    if cross.is_some() {
        let mut actors = cargo("build");
        actors.args(["--bins", "--package", "agent", "--package", "server-mock"]);
        children::run(actors)?;
    }
    let mut programs = if files.is_empty() { Vec::new() } else { tests(cargo("test"), files)? };
    for name in ["weir", "weir-server"] {
        let binary = cross.as_ref().map_or_else(|| workspace.binary(name), |cross| cross.binary(PROFILE, name));
        programs.push((name.to_owned(), binary));
    }
    Ok(programs)
}

/// Builds these files of tests.
fn tests(mut command: Command, files: &[&str]) -> anyhow::Result<Vec<(String, PathBuf)>> {
    command.args(["--quiet", "--package", "e2e", "--no-run", "--message-format", "json"]);
    for file in files {
        command.args(["--test", file]);
    }
    let output = command.stderr(Stdio::inherit()).output().context("start cargo")?;
    ensure!(output.status.success(), "cargo test --no-run ended with {}", output.status);
    let built = executables(&String::from_utf8_lossy(&output.stdout));
    for file in files {
        ensure!(built.iter().any(|(name, _)| name == file), "cargo has built no tests of {file}");
    }
    Ok(built)
}

/// What cargo says that it has built and can be run: its target's name, and where it is.
fn executables(messages: &str) -> Vec<(String, PathBuf)> {
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        Some((message["target"]["name"].as_str()?.to_owned(), PathBuf::from(message["executable"].as_str()?)))
    };
    messages.lines().filter_map(executable).collect()
}

fn last_words(log: &Path) -> String {
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let end = &lines[lines.len().saturating_sub(LAST_WORDS)..];
    format!("\nthe end of {}:\n{}", log.display(), end.join("\n"))
}
