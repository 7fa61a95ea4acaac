//! `cargo xtask test --kernel K`: the same tests and programs on another kernel, in a virtual machine that is emulated to the last instruction.

mod cpio;
mod kernels;
mod modules;
mod plan;
mod qemu;
mod root;
mod verdict;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};

use serde_json::Value;

pub(crate) use self::kernels::Kernel;
use self::{
    kernels::Machine,
    plan::Plan,
    qemu::{Boot, Emulator},
    root::Contents,
    verdict::Heard,
};
use crate::{
    build,
    children::{self, complain, say},
    signals,
    workspace::Workspace,
};

/// Lines of a failed guest's words that are shown.
const LAST_WORDS: usize = 120;

/// Builds, then runs the planned tests on this kernel. Returns the exit code.
pub(crate) fn test(workspace: &Workspace, kernel: Kernel) -> anyhow::Result<u8> {
    ensure!(cfg!(target_arch = "x86_64"), "other kernels are run on x86-64 only, and this is another machine");
    if kernel.machine() == Machine::Amd64 {
        build::build(workspace)?;
    }
    let plan = plan::of(kernel);
    let programs = programs(workspace, kernel.machine(), &plan.files)?;
    run(workspace, kernel, &plan, &programs)
}

fn run(workspace: &Workspace, kernel: Kernel, plan: &Plan, programs: &[(String, PathBuf)]) -> anyhow::Result<u8> {
    let machine = kernel.machine();
    let emulator = Emulator::find(workspace, machine)?;
    let ready = kernel.fetch(workspace)?;
    let directory = workspace.target.join("vm/run").join(kernel.name());
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    let (root, log) = (directory.join("root.cpio"), directory.join("serial.log"));
    let contents = Contents { machine, kernel: &ready, modules: &plan.modules, programs, plan: &plan.script };
    root::write(workspace, &contents, &root)?;
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
            // Nobody debugs there, and linking is much of the work.
            command.env("CARGO_PROFILE_DEV_DEBUG", "0");
            command
        }
    };
    say("build: what runs in a guest");
    if cross.is_some() {
        let mut actors = cargo("build");
        actors.args(["--bins", "--package", "agent", "--package", "server-mock", "--package", "e2e"]);
        children::run(actors)?;
    }
    let mut programs = if files.is_empty() { Vec::new() } else { tests(cargo("test"), files)? };
    for name in ["weir", "weir-server"] {
        let binary = cross.as_ref().map_or_else(|| workspace.binary(name), |cross| cross.binary("debug", name));
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
