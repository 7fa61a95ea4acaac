//! Debian packages: which are missing, and installing them, or the words to type.

use std::{path::Path, process::Command};

use anyhow::bail;

use crate::{
    children::{answer_of, run_logged, say},
    privilege::Root,
    workspace::{Workspace, on_path},
};

/// A compiler for BPF and the source of its `core`; both from one source package, so they match.
pub(crate) const COMPILER: [&str; 2] = ["rustc-web", "rust-web-src"];
/// What `bpf-linker` is built against; the same LLVM as the compiler's.
pub(crate) const LLVM: [&str; 4] = ["llvm-22-dev", "libpolly-22-dev", "libzstd-dev", "zlib1g-dev"];

/// Whether this machine takes Debian packages at all.
pub(crate) fn are_possible() -> bool {
    Path::new("/etc/debian_version").exists() && on_path("apt-get").is_some()
}

/// Whether a program is neither on the path nor in a directory of the system.
pub(crate) fn is_absent(program: &str) -> bool {
    let system = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];
    on_path(program).is_none() && !system.iter().any(|directory| Path::new(directory).join(program).exists())
}

/// Programs that the tests and the demo call, and the package that brings each.
pub(crate) fn missing_programs() -> Vec<&'static str> {
    // `cc` compiles the SQLite and the cryptography that the agent carries; `ip` is for people who look at the demo.
    absent(&[("ip", "iproute2"), ("cc", "gcc"), ("cc", "libc6-dev")])
}

/// Programs that only the scenarios of the page call: a browser and what drives it, and a reader of `OpenMetrics`.
pub(crate) fn missing_for_the_page() -> Vec<&'static str> {
    let mut missing = absent(&[("chromium", "chromium"), ("chromedriver", "chromium-driver")]);
    if !is_installed(METRICS_READER) && are_possible() {
        missing.push(METRICS_READER);
    }
    missing
}

/// Brings the reference parser of `OpenMetrics`.
const METRICS_READER: &str = "python3-prometheus-client";

fn absent(programs: &[(&str, &'static str)]) -> Vec<&'static str> {
    programs.iter().filter(|(program, _)| is_absent(program)).map(|(_, package)| *package).collect()
}

/// Installs those of the packages that are not there yet, as root.
pub(crate) fn install(workspace: &Workspace, packages: &[&'static str], what_for: &str) -> anyhow::Result<()> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let root = Root::of_caller();
    if !are_possible() || root == Root::Unreachable {
        bail!(
            "{what_for} is missing, and this account may not install it here; as root, type:\n\n    {}\n",
            typed(&list)
        );
    }
    say(&format!("  installing {list}: {what_for} (about a minute)"));
    let mut update = root.command("apt-get");
    update.args(["-q", "update"]);
    run_logged("apt-get update", &mut update, &workspace.target.join("tools/apt-update.log"))?;
    let mut install = root.command("env");
    install.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "install", "--no-install-recommends"]);
    run_logged("apt-get install", install.args(&missing), &workspace.target.join("tools/apt-install.log"))
}

/// The line that installs these packages by hand.
pub(crate) fn typed(list: &str) -> String {
    format!("apt-get update && apt-get install --no-install-recommends {list}")
}

fn is_installed(package: &str) -> bool {
    answer_of(Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]))
        .is_some_and(|status| status == "installed")
}
