//! `cargo xtask lint`: formatting, clippy with warnings as errors, house rules, licences and sources of the dependencies.

use std::{env, process::Command};

use anyhow::{Context as _, bail, ensure};

use crate::{
    build,
    children::{complain, run, run_logged, say},
    fuzz, rules, setup, signals,
    tools::Tool,
    workspace::{Workspace, forget_outer_package},
};

const CARGO_DENY: Tool =
    Tool { name: "cargo-deny", version: "0.20.2", what_for: "checks licences and sources of the dependencies" };

type Check = (&'static str, fn(&Workspace) -> anyhow::Result<()>);

const CHECKS: [Check; 6] = [
    ("formatting", formatting),
    ("house rules", house_rules),
    ("clippy, host crates", clippy_host),
    ("clippy, BPF programs", clippy_bpf),
    ("clippy, fuzz targets", clippy_fuzz),
    ("dependencies", dependencies),
];

/// Runs every check, so that one round tells all. Returns the exit code.
pub(crate) fn lint(workspace: &Workspace) -> anyhow::Result<u8> {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        say(&format!("lint: {name}"));
        if let Err(error) = check(workspace) {
            complain(&format!("lint: {name}: {error:#}"));
            failed.push(name);
        }
        if signals::received().is_some() {
            bail!("interrupted");
        }
    }
    say(&if failed.is_empty() { "lint: all clean".to_owned() } else { format!("lint: FAILED: {}", failed.join("; ")) });
    Ok(u8::from(!failed.is_empty()))
}

fn formatting(workspace: &Workspace) -> anyhow::Result<()> {
    for package in [workspace.root.clone(), workspace.root.join("fuzz")] {
        let mut command = Command::new("cargo");
        command.current_dir(package).args(["fmt", "--all", "--check"]);
        run(command)?;
    }
    Ok(())
}

fn house_rules(workspace: &Workspace) -> anyhow::Result<()> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&workspace.root).args(["tree", "--locked", "--package", "server-mock", "--prefix", "none"]);
    let tree = command.args(["--edges", "all", "--target", "all"]).output().context("start cargo tree")?;
    let mut found = rules::in_server_dependencies(&String::from_utf8_lossy(&tree.stdout));
    found.extend(rules::in_sources(workspace)?);
    if !found.is_empty() {
        bail!("\n  {}", found.join("\n  "));
    }
    Ok(())
}

fn clippy_host(workspace: &Workspace) -> anyhow::Result<()> {
    // The agent embeds the BPF object, so there has to be one.
    let toolchain = setup::setup(workspace)?;
    build::object(workspace, &toolchain)?;
    // What no run of this machine's kernel plays is not among all targets.
    let all: &[&str] = &["--workspace", "--exclude", "agent-ebpf", "--all-targets"];
    for targets in [all, &["--package", "e2e", "--test", "modem"]] {
        let mut command = workspace.cargo("clippy");
        command.args(targets).args(["--", "-D", "warnings"]);
        run(command)?;
    }
    Ok(())
}

/// The BPF target has no clippy of its own: the same code is checked as a program of the host, which needs the
/// unstable intrinsics unlocked and, having no standard library, no unwinding.
fn clippy_bpf(workspace: &Workspace) -> anyhow::Result<()> {
    // A directory of its own: these settings would rebuild what the other checks share.
    let apart = Workspace { root: workspace.root.clone(), target: workspace.target.join("bpf/clippy") };
    let mut command = apart.cargo("clippy");
    command.env("RUSTC_BOOTSTRAP", "1").env("CARGO_PROFILE_DEV_PANIC", "abort");
    command.args(["--package", "agent-ebpf", "--", "-D", "warnings"]);
    run(command)
}

/// They see what only they may (`cfg(fuzzing)`), so all is built once more for them.
fn clippy_fuzz(workspace: &Workspace) -> anyhow::Result<()> {
    let mut command = fuzz::cargo(workspace, "clippy", &["--cfg=fuzzing"])?;
    command.args(["--", "-D", "warnings"]);
    run(command)
}

/// Licences, sources and bans always; known weaknesses where their database can be fetched.
fn dependencies(workspace: &Workspace) -> anyhow::Result<()> {
    let program = CARGO_DENY.get(workspace)?;
    let deny = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        forget_outer_package(&mut command);
        command.current_dir(&workspace.root).args(["--locked", "--log-level", "error"]).args(arguments);
        command
    };
    run(deny(&["check", "bans", "licenses", "sources"]))?;
    let log = workspace.target.join("tools/advisories.log");
    let mut fetch = Command::new("timeout");
    let wanted = deny(&["fetch", "db"]);
    fetch.arg("60").arg(wanted.get_program()).args(wanted.get_args()).current_dir(&workspace.root);
    if let Err(error) = run_logged("fetching the advisories", &mut fetch, &log) {
        ensure!(env::var_os("CI").is_none(), "CI is set, and the advisories cannot be fetched: {error:#}");
        say("  advisories NOT CHECKED: their database (github.com/rustsec/advisory-db) cannot be fetched from here");
        return Ok(());
    }
    run(deny(&["check", "--disable-fetch", "advisories"]))
}
