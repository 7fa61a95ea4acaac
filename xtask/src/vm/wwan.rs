//! The kernel's own simulator of WWAN modems: Debian leaves it out, so it is built from the source and the headers of the very same version.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use crate::{
    apt::{self, Apt, Present},
    children::{run_logged, say},
    system_packages,
    workspace::Workspace,
};

/// The module, and where its one file is in the kernel's source.
const MODULE: &str = "wwan_hwsim";
const PLACE: &str = "drivers/net/wwan";

/// The directory with the module for the kernel of this release; built unless it is there.
pub(super) fn simulator(workspace: &Workspace, suite: &str, release: &str) -> anyhow::Result<PathBuf> {
    let directory = workspace.target.join("vm/built").join(release);
    apt::once(&directory, |draft| build(workspace, suite, release, draft)).with_context(|| {
        format!(
            "there is no {MODULE}, the simulator of WWAN modems, for Linux {release}: it takes that version's source and headers out \
             of {suite}; where there are only newer ones by now, remove that kernel from target/vm/kernels to have it fetched anew"
        )
    })?;
    Ok(directory)
}

fn build(workspace: &Workspace, suite: &str, release: &str, draft: &Path) -> anyhow::Result<()> {
    say(&format!("vm: building {MODULE} for Linux {release} (150 MB of source are fetched, once)"));
    if ["gcc", "make"].into_iter().any(system_packages::is_absent) {
        system_packages::install(workspace, &["gcc", "libc6-dev", "make"], "what builds a module of the kernel")?;
    }
    let apt = Apt::update(workspace, "amd64", &[suite], Present::Nothing)?;
    let parts = draft.join("parts");
    let version = apt.headers(&format!("linux-headers-{release}"), &parts)?;
    let source = format!("linux-source-{}", line_of(release)?);
    apt.packages(&[&format!("{source}={version}")], &parts)?;
    let module = parts.join("module");
    fs::create_dir(&module).with_context(|| format!("make {}", module.display()))?;
    let mut unpack = Command::new("tar");
    // Nothing is looked for behind it.
    unpack.args(["--extract", "--occurrence=1", "--strip-components=4", "--file"]);
    unpack.arg(parts.join(format!("usr/src/{source}.tar.xz"))).arg("--directory").arg(&module);
    unpack.arg(format!("{source}/{PLACE}/{MODULE}.c"));
    run_logged("unpacking one file of the source", &mut unpack, &draft.join("unpack.log"))?;
    fs::write(module.join("Kbuild"), format!("obj-m := {MODULE}.o\n")).context("write what is to be built")?;
    let headers = parts.join("usr/src").join(format!("linux-headers-{release}"));
    mend(&headers.join("Makefile"), &parts)?;
    let mut make = Command::new("make");
    // The compiler of this machine, whichever version the kernel was built with; and no description of types, which takes another program.
    make.args(["CC=gcc", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"]);
    make.arg("-C").arg(&headers).arg(format!("M={}", module.display()));
    run_logged(&format!("building {MODULE}"), &mut make, &draft.join("build.log"))?;
    let built = format!("{MODULE}.ko");
    fs::rename(module.join(&built), draft.join(&built)).with_context(|| format!("keep {built}"))?;
    fs::remove_dir_all(&parts).with_context(|| format!("remove {}", parts.display()))
}

/// Debian's directories of headers name each other by the places where they would be installed.
fn mend(makefile: &Path, root: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(makefile).with_context(|| format!("read {}", makefile.display()))?;
    ensure!(text.contains(INSTALLED), "{} names no directory below {INSTALLED}: look at it", makefile.display());
    fs::write(makefile, moved(&text, root)).with_context(|| format!("write {}", makefile.display()))
}

const INSTALLED: &str = "/usr/src/";

fn moved(makefile: &str, root: &Path) -> String {
    makefile.replace(INSTALLED, &format!("{}{INSTALLED}", root.display()))
}

/// The first two numbers of a release, by which Debian names the source: `6.12` of `6.12.117+deb12-amd64`.
fn line_of(release: &str) -> anyhow::Result<String> {
    let mut numbers = release.split('.');
    let line = numbers.next().zip(numbers.next()).map(|(major, minor)| format!("{major}.{minor}"));
    line.with_context(|| format!("{release} is no release of a kernel"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_named_after_the_line_of_the_release() {
        assert_eq!(line_of("6.12.117+deb12-amd64").unwrap(), "6.12");
        line_of("6").unwrap_err();
    }

    #[test]
    fn headers_name_each_other_where_they_lie() {
        let installed = "include /usr/src/linux-headers-6.12.117+deb12-common/Makefile\n";
        let here = "include /x/parts/usr/src/linux-headers-6.12.117+deb12-common/Makefile\n";
        assert_eq!(moved(installed, Path::new("/x/parts")), here);
    }
}
