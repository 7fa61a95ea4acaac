//! `cargo xtask fuzz`: the targets of `fuzz/`, one after the other, each for so many minutes; a crash ends it and its input is kept.
//!
//! The package is laid out as cargo-fuzz wants it, and can be used with it. What it would do here is a dozen flags; they stand here.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use crate::{
    build,
    children::{answer_of, run, say, status},
    setup, signals,
    workspace::{Workspace, forget_outer_package},
};

/// Every branch is counted and every comparison told to the fuzzer (libFuzzer); reads beyond what is allocated are found. A stable
/// compiler has the sanitizer's library too, and builds for it when it is told to by its environment.
const FLAGS: [&str; 8] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Zsanitizer=address",
    "-Ccodegen-units=1",
];

/// A target, and where octets to begin with lie.
struct Target {
    name: &'static str,
    seeds: &'static [&'static str],
}

const TARGETS: &[Target] = &[
    Target { name: "answers", seeds: &["docs/wire/golden"] },
    Target { name: "config", seeds: &["docs/weir.sample.toml", "fuzz/seeds/config"] },
    Target { name: "filter", seeds: &["fuzz/seeds/filter"] },
    Target { name: "netlink", seeds: &["fuzz/seeds/netlink"] },
    Target { name: "packet", seeds: &["fuzz/seeds/packet"] },
    Target { name: "recording", seeds: &["fuzz/seeds/recording"] },
];

/// `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// One of them: answers, config, filter, netlink, packet, recording; else all, one after the other
    #[arg(value_name = "NAME", value_parser = TARGETS.iter().map(|target| target.name).collect::<Vec<_>>())]
    name: Option<String>,
    /// How long each goes on
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1440))]
    minutes: u32,
}

/// Builds, then feeds each target. Returns the exit code: 1 when one has crashed.
pub(crate) fn fuzz(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<u8> {
    let toolchain = setup::setup(workspace)?;
    build::object(workspace, &toolchain)?;
    let programs = programs(workspace)?;
    let mut crashed = Vec::new();
    for target in TARGETS.iter().filter(|target| arguments.name.as_deref().is_none_or(|name| name == target.name)) {
        say(&format!("fuzz: {}, {} min", target.name, arguments.minutes));
        if !status(&mut fed(workspace, &programs, target, arguments.minutes)?)?.success() {
            ensure!(signals::received().is_none(), "interrupted");
            crashed.push(target.name);
        }
    }
    if crashed.is_empty() {
        say("fuzz: nothing broke");
        return Ok(0);
    }
    say(&format!(
        "fuzz: FAILED: {}; the input is in {}; mend it and keep the input as a test",
        crashed.join(", "),
        workspace.target.join("fuzz/artifacts").display()
    ));
    Ok(1)
}

/// Builds the targets; answers with the directory that they are in.
fn programs(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let mut command = cargo(workspace, "build", &FLAGS)?;
    command.arg("--release");
    run(command)?;
    Ok(workspace.target.join("fuzz").join(host()?).join("release"))
}

/// Cargo in the workspace of the targets, with the verb given and these flags for the compiler.
pub(crate) fn cargo(workspace: &Workspace, verb: &str, flags: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    forget_outer_package(&mut command);
    command.env("RUSTC_BOOTSTRAP", "1").env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    // Naming the target keeps the flags away from build scripts and macros.
    command.args([verb, "--locked", "--target", &host()?, "--target-dir"]);
    command.arg(workspace.target.join("fuzz")).current_dir(workspace.root.join("fuzz"));
    Ok(command)
}

/// What the compiler runs on.
fn host() -> anyhow::Result<String> {
    let version = answer_of(Command::new("rustc").arg("-vV")).unwrap_or_default();
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not say what it runs on")
}

fn fed(workspace: &Workspace, programs: &Path, target: &Target, minutes: u32) -> anyhow::Result<Command> {
    let corpus = directory(workspace, "corpus", target.name)?;
    let artifacts = directory(workspace, "artifacts", target.name)?;
    sow(workspace, target, &corpus)?;
    let mut command = Command::new(programs.join(target.name));
    command.arg(&corpus).args(["-rss_limit_mb=1024", "-timeout=20", "-print_final_stats=1", "-print_funcs=0"]);
    command.arg(format!("-max_total_time={}", u64::from(minutes) * 60));
    command.arg(format!("-artifact_prefix={}/", artifacts.display())).current_dir(&artifacts);
    Ok(command)
}

fn directory(workspace: &Workspace, kind: &str, name: &str) -> anyhow::Result<PathBuf> {
    let path = workspace.target.join("fuzz").join(kind).join(name);
    fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
    Ok(path)
}

/// Puts what it begins with into the corpus, and what once broke it (`fuzz/kept/NAME`).
fn sow(workspace: &Workspace, target: &Target, corpus: &Path) -> anyhow::Result<()> {
    let kept = workspace.root.join("fuzz/kept").join(target.name);
    let seeds = target.seeds.iter().map(|seed| workspace.root.join(seed)).chain([kept]);
    for seed in seeds.filter(|seed| seed.exists()) {
        let files = if seed.is_dir() {
            fs::read_dir(&seed)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?
        } else {
            vec![seed]
        };
        for file in files {
            let name = file.file_name().context("a seed without a name")?;
            let octets = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
            // The first octets of an answer choose what was asked.
            let octets = if target.name == "answers" { [b"\0\0\0".as_slice(), &octets].concat() } else { octets };
            fs::write(corpus.join(name), octets).with_context(|| format!("sow {}", file.display()))?;
        }
    }
    Ok(())
}
