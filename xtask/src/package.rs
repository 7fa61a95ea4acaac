//! `cargo xtask package`: the Debian package, and an archive with a static binary for machines without dpkg.

mod archive;
mod needs;
mod notices;
mod root;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use crate::{
    build,
    children::{run, say},
    cross, run as play, system_packages,
    tools::Tool,
    workspace::{Workspace, forget_outer_package, on_path},
};

const CARGO_DEB: Tool = Tool { name: "cargo-deb", version: "3.8.0", what_for: "makes Debian packages" };

/// What this machine's own packages are made for.
const HOST: &str = if cfg!(target_arch = "aarch64") { cross::TARGET } else { "x86_64-unknown-linux-gnu" };

/// The file with the licences of others; `.gz` is put behind it.
const NOTICES: &str = "third-party.txt";

/// `cargo xtask package`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Make it for another machine than this one
    #[arg(long, value_name = "TRIPLE", value_parser = [cross::TARGET])]
    target: Option<String>,
    /// Make the archive with the static binary instead of the Debian package
    #[arg(long)]
    archive: bool,
    /// Make it, then use it: the Debian package in a clean Debian, under its systemd; the static binary in an empty root
    #[arg(long = "try", conflicts_with = "target")]
    is_tried: bool,
}

/// Builds, and says where the result is. Returns the exit code.
pub(crate) fn package(workspace: &Workspace, arguments: &Arguments) -> anyhow::Result<u8> {
    fs::create_dir_all(workspace.target.join("package")).context("make target/package")?;
    if arguments.archive {
        let archive = archive::archive(workspace, arguments.target.is_some())?;
        return if arguments.is_tried {
            play::play(workspace, "weir-newcomer", &["bare".into(), archive.into()])
        } else {
            Ok(0)
        };
    }
    let package = if arguments.target.is_some() { for_arm(workspace)? } else { for_this_machine(workspace)? };
    if !arguments.is_tried {
        return Ok(0);
    }
    let newer = debian(workspace, &workspace.target, &["--deb-revision", "2"])?;
    let root = root::root(workspace)?;
    let browser = system_packages::missing_for_the_page();
    system_packages::install(workspace, &browser, "a browser, to look at the page")?;
    play::play(workspace, "weir-newcomer", &["debian".into(), root.into(), package.into(), newer.into()])
}

fn for_this_machine(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    build::release(workspace)?;
    needs::are_met(&workspace.target.join("release/weir"))?;
    pages(workspace, HOST)?;
    debian(workspace, &workspace.target, &["--deb-revision", "1"])
}

fn for_arm(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let cross = build::cross(workspace)?;
    let weir = cross.binary("release", "weir");
    build::optimised(cross.cargo(workspace, "build"), &weir)?;
    needs::are_met(&weir)?;
    runs_emulated(workspace, &weir)?;
    pages(workspace, cross::TARGET)?;
    debian(workspace, &cross.target, &["--deb-revision", "1", "--target", cross::TARGET])
}

/// Has an emulator run an agent for aarch64, as far as that goes without its kernel: it knows its version and reads the configuration.
fn runs_emulated(workspace: &Workspace, weir: &Path) -> anyhow::Result<()> {
    const EMULATOR: &str = "qemu-aarch64-static";
    if on_path(EMULATOR).is_none() {
        system_packages::install(workspace, &["qemu-user-static"], "an emulator that runs the aarch64 agent once")?;
    }
    let sample = workspace.root.join("docs/weir.sample.toml");
    let sample = sample.to_str().context("the workspace's path is no text")?;
    for arguments in [&["--version"][..], &["config", "check", "--config", sample]] {
        let mut command = Command::new(EMULATOR);
        // Where Debian's cross compiler has the libraries for it; a static one asks for none.
        command.args(["-L", "/usr/aarch64-linux-gnu"]).arg(weir).args(arguments);
        run(command)?;
    }
    Ok(())
}

/// Man pages and completions, made from the command line's own description, and the notices of what is linked for this target, where
/// the table in `agent/Cargo.toml` looks for them.
fn pages(workspace: &Workspace, target: &str) -> anyhow::Result<()> {
    let pages = workspace.root.join("target/pages");
    if pages.exists() {
        fs::remove_dir_all(&pages).with_context(|| format!("remove {}", pages.display()))?;
    }
    let mut command = workspace.cargo("run");
    command.args(["--quiet", "--package", "agent", "--example", "pages", "--"]).arg(&pages);
    run(command)?;
    notices::write(workspace, target, &pages.join(NOTICES))
}

/// Packs what a build has left in this target directory.
fn debian(workspace: &Workspace, target: &Path, arguments: &[&str]) -> anyhow::Result<PathBuf> {
    let made = workspace.target.join("package/new");
    if made.exists() {
        fs::remove_dir_all(&made).with_context(|| format!("remove {}", made.display()))?;
    }
    fs::create_dir_all(&made).with_context(|| format!("make {}", made.display()))?;
    let mut command = Command::new(CARGO_DEB.get(workspace)?);
    forget_outer_package(&mut command);
    command.current_dir(&workspace.root).env("CARGO_TARGET_DIR", target);
    command
        .args(["--package", "agent", "--no-build", "--no-strip", "--locked", "--quiet", "--output"])
        .arg(&made)
        .args(arguments);
    run(command)?;
    let packages: Vec<_> =
        fs::read_dir(&made)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    ensure!(packages.len() == 1, "cargo-deb made {packages:?}, not one package");
    let package = workspace.target.join("package").join(packages[0].file_name().context("a package without a name")?);
    fs::rename(&packages[0], &package).with_context(|| format!("put {} in place", package.display()))?;
    say(&format!("package: {}", package.display()));
    Ok(package)
}
