//! Debian packages that are fetched and laid out apart: nothing is installed, and the machine's own lists are left alone.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};

use crate::{
    children::{answer_of, run_logged, say},
    system_packages,
    workspace::Workspace,
};

/// What counts as installed already when dependencies are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Present {
    /// Nothing: what is fetched is to stand by itself.
    Nothing,
    /// What this machine has: what is fetched is to run on it.
    ThisMachine,
}

/// Debian's packages of one architecture out of certain suites, with lists of the project's own.
pub(crate) struct Apt {
    directory: PathBuf,
}

impl Apt {
    /// Reads the lists of these suites anew (a few seconds).
    pub(crate) fn update(
        workspace: &Workspace,
        architecture: &str,
        suites: &[&str],
        present: Present,
    ) -> anyhow::Result<Self> {
        ensure!(
            system_packages::are_possible(),
            "other kernels are run with Debian's packages, and this machine has no apt: run this on Debian"
        );
        let directory = workspace.target.join("apt").join(format!("{architecture}-{}-{present:?}", suites.join("-")));
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(part)).with_context(|| format!("make {}", directory.display()))?;
        }
        let shown = directory.display();
        let status = match present {
            Present::Nothing => directory.join("status"),
            Present::ThisMachine => PathBuf::from("/var/lib/dpkg/status"),
        };
        let settings = format!(
            "APT::Architecture \"{architecture}\";\nAPT::Architectures {{ \"{architecture}\"; }};\n\
             APT::Install-Recommends \"false\";\nAPT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n\
             Debug::NoLocking \"true\";\nDir::State \"{shown}\";\nDir::State::lists \"{shown}/lists\";\n\
             Dir::State::status \"{}\";\nDir::Cache \"{shown}/cache\";\nDir::Etc::sourcelist \"{shown}/sources.list\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\nDir::Etc::preferences \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\n",
            status.display()
        );
        let sources: Vec<String> =
            suites.iter().map(|suite| format!("deb {} {suite} main", server_of(suite))).collect();
        let files = [("apt.conf", settings), ("sources.list", sources.join("\n") + "\n")];
        for (name, text) in files {
            fs::write(directory.join(name), text).with_context(|| format!("write {shown}/{name}"))?;
        }
        if present == Present::Nothing {
            fs::write(directory.join("status"), "").with_context(|| format!("write {shown}/status"))?;
        }
        let apt = Self { directory };
        let mut update = apt.command("apt-get");
        run_logged("apt-get update", update.args(["-q", "update"]), &apt.directory.join("update.log"))?;
        Ok(apt)
    }

    /// Fetches what a kernel consists of, newest version, and lays it out in `into`. Which ABI that is, its metapackage knows.
    pub(crate) fn kernel(&self, metapackage: &str, into: &Path) -> anyhow::Result<()> {
        let mut packages = BTreeSet::new();
        self.parts_of_kernel(metapackage, &mut packages)?;
        // What only names others is empty, and sometimes gone before them. A part is named after its version.
        packages.retain(|package| package != metapackage && package.contains('.'));
        ensure!(
            !packages.is_empty(),
            "{metapackage} is not (or no longer) to be had from {}",
            self.directory.display()
        );
        self.packages(&packages.iter().map(String::as_str).collect::<Vec<_>>(), into)
    }

    /// Fetches the headers of a kernel with those that they stand on, and lays them out in `into`. Answers with their version.
    pub(crate) fn headers(&self, package: &str, into: &Path) -> anyhow::Result<String> {
        let record = self.record(package)?;
        let version = field(&record, "Version: ").with_context(|| format!("{package} has no version"))?;
        let parts = parts_named(&record, &PARTS_OF_HEADERS).chain([package]);
        let wanted: Vec<String> = parts.map(|part| format!("{part}={version}")).collect();
        self.packages(&wanted.iter().map(String::as_str).collect::<Vec<_>>(), into)?;
        Ok(version.to_owned())
    }

    /// Fetches these packages and nothing that they depend on, and lays them out in `into`.
    pub(crate) fn packages(&self, packages: &[&str], into: &Path) -> anyhow::Result<()> {
        say(&format!("  fetching {}", packages.join(" ")));
        let archives = self.directory.join("download");
        fs::create_dir_all(&archives).with_context(|| format!("make {}", archives.display()))?;
        let mut download = self.command("apt-get");
        download.args(["-q", "download"]).args(packages).current_dir(&archives);
        run_logged("fetching", &mut download, &self.directory.join("download.log"))?;
        lay_out(&archives, into)?;
        fs::remove_dir_all(&archives).with_context(|| format!("remove {}", archives.display()))
    }

    /// Fetches these packages with all that they depend on, out of this suite first, and lays them out in `into`.
    pub(crate) fn with_dependencies(&self, suite: &str, packages: &[&str], into: &Path) -> anyhow::Result<()> {
        say(&format!("  fetching {} and what they need; nothing is installed", packages.join(" ")));
        let mut download = self.command("apt-get");
        download.args(["-q", "-y", "-t", suite, "install", "--download-only"]);
        run_logged("fetching", download.args(packages), &self.directory.join("download.log"))?;
        let archives = self.directory.join("cache/archives");
        lay_out(&archives, into)?;
        fs::remove_dir_all(&archives).with_context(|| format!("remove {}", archives.display()))
    }

    fn parts_of_kernel(&self, package: &str, found: &mut BTreeSet<String>) -> anyhow::Result<()> {
        let record = self.record(package)?;
        found.insert(package.to_owned());
        for needed in parts_named(&record, &PARTS_OF_KERNEL) {
            if !found.contains(needed) {
                self.parts_of_kernel(needed, found)?;
            }
        }
        Ok(())
    }

    /// What the lists say of a package.
    fn record(&self, package: &str) -> anyhow::Result<String> {
        let mut show = self.command("apt-cache");
        match answer_of(show.args(["show", "--no-all-versions", package])) {
            Some(record) if !record.is_empty() => Ok(record),
            _ => bail!("{package} is not (or no longer) to be had; the lists are in {}", self.directory.display()),
        }
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", self.directory.join("apt.conf")).env("LC_ALL", "C");
        command
    }
}

/// Makes `directory` by `fill`, unless an earlier call has; half of one is never taken for the whole.
pub(crate) fn once(directory: &Path, fill: impl FnOnce(&Path) -> anyhow::Result<()>) -> anyhow::Result<()> {
    if directory.exists() {
        return Ok(());
    }
    let draft = directory.with_extension("new");
    if draft.exists() {
        fs::remove_dir_all(&draft).with_context(|| format!("remove {}", draft.display()))?;
    }
    fs::create_dir_all(&draft).with_context(|| format!("make {}", draft.display()))?;
    fill(&draft)?;
    fs::rename(&draft, directory).with_context(|| format!("put {} in place", directory.display()))
}

/// Debian's own name for this machine's release; of another distribution's, the one whose libraries are old enough for it.
pub(crate) fn release() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |key: &str| text.lines().find_map(|line| Some(line.strip_prefix(key)?.trim_matches('"').to_owned()));
    match (value("ID=").as_deref(), value("VERSION_CODENAME=")) {
        (Some("debian"), Some(name)) => name,
        _ => "bookworm".to_owned(),
    }
}

fn server_of(suite: &str) -> &'static str {
    if suite.ends_with("-security") { "http://deb.debian.org/debian-security" } else { "http://deb.debian.org/debian" }
}

/// How packages are called that are parts of a kernel, and of its headers.
const PARTS_OF_KERNEL: [&str; 4] = ["linux-image-", "linux-binary-", "linux-modules-", "linux-base-"];
const PARTS_OF_HEADERS: [&str; 2] = ["linux-headers-", "linux-kbuild-"];

/// Of the packages that a package depends on, those that are parts of the same whole.
fn parts_named<'a>(record: &'a str, parts: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let depends = field(record, "Depends: ").unwrap_or_default();
    let names = depends.split(',').filter_map(|dependency| dependency.split_whitespace().next());
    names.filter(move |name| parts.iter().any(|part| name.starts_with(part)))
}

fn field<'a>(record: &'a str, key: &str) -> Option<&'a str> {
    record.lines().find_map(|line| line.strip_prefix(key))
}

fn lay_out(archives: &Path, into: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(archives).with_context(|| format!("list {}", archives.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            let output = Command::new("dpkg-deb").arg("--extract").arg(&path).arg(into).output();
            let output = output.context("run dpkg-deb (package dpkg)")?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "unpack {}: {said}", path.display());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_kernel_are_told_from_what_installing_it_would_take() {
        let record = "Package: linux-image-7.3.4\nDepends: dracut | initramfs-tools (>= 0.120) | linux-initramfs-tool, \
                      linux-base-7.3.4 (= 7.3.4-1), linux-binary-7.3.4 (= 7.3.4-1), linux-modules-7.3.4 (= 7.3.4-1)\n";
        assert_eq!(
            parts_named(record, &PARTS_OF_KERNEL).collect::<Vec<_>>(),
            ["linux-base-7.3.4", "linux-binary-7.3.4", "linux-modules-7.3.4"]
        );
        assert_eq!(parts_named("Depends: kmod, linux-base (>= 4.3)\n", &PARTS_OF_KERNEL).count(), 0);
        assert_eq!(parts_named("Package: x\n", &PARTS_OF_KERNEL).count(), 0);
    }

    #[test]
    fn headers_stand_on_others_and_not_on_the_kernel() {
        let record = "Version: 6.12.117-1\nDepends: linux-base (>= 4.12~), linux-headers-6.12.117-common (= 6.12.117-1), \
                      linux-image-6.12.117 (= 6.12.117-1) | linux-image-6.12.117-unsigned, linux-kbuild-6.12.117, gcc-12\n";
        assert_eq!(
            parts_named(record, &PARTS_OF_HEADERS).collect::<Vec<_>>(),
            ["linux-headers-6.12.117-common", "linux-kbuild-6.12.117"]
        );
        assert_eq!(field(record, "Version: "), Some("6.12.117-1"));
    }

    #[test]
    fn half_of_a_directory_is_made_anew() {
        let directory = std::env::temp_dir().join(format!("weir-{}-once", std::process::id()));
        let failed = once(&directory, |draft| {
            fs::write(draft.join("half"), "")?;
            bail!("interrupted")
        });
        assert!(failed.is_err() && !directory.exists());
        once(&directory, |draft| Ok(fs::write(draft.join("whole"), "")?)).unwrap();
        once(&directory, |_| bail!("made twice")).unwrap();
        let names: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(names, ["whole"]);
    }
}
