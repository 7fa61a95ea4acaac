//! What the binary asks of the C library, held against what the package says that it depends on.

use std::{path::Path, process::Command};

use anyhow::{Context as _, ensure};

use crate::children::answer_of;

/// The table that the package's dependencies are in.
const MANIFEST: &str = include_str!("../../../agent/Cargo.toml");

/// How readelf names a version of the C library.
const VERSION: &str = "GLIBC_";

/// A version of the C library: 2 and 34.
type Version = (u32, u32);

/// An error where the binary wants a newer C library than the package does: it would install, and not start.
pub(super) fn are_met(binary: &Path) -> anyhow::Result<()> {
    let told = answer_of(Command::new("readelf").args(["--version-info", "--wide"]).arg(binary));
    let told = told.context("readelf (package binutils) does not read the binary")?;
    let (wanted, promised) = (wanted(&told).context("the binary names no C library")?, promised(MANIFEST)?);
    ensure!(
        wanted <= promised,
        "{} wants libc6 {}.{}, and the package asks for {}.{}: correct `depends` in agent/Cargo.toml",
        binary.display(),
        wanted.0,
        wanted.1,
        promised.0,
        promised.1
    );
    Ok(())
}

/// The newest one that a binary asks for, in the words of readelf.
fn wanted(told: &str) -> Option<Version> {
    told.split_whitespace().filter_map(|word| version(word.strip_prefix(VERSION)?)).max()
}

fn promised(manifest: &str) -> anyhow::Result<Version> {
    let (_, rest) = manifest.split_once("libc6 (>= ").context("the package does not ask for libc6")?;
    rest.split(')').next().and_then(version).context("the version of libc6 that the package asks for")
}

/// `2.34`, or `2.2.5` of the oldest ones.
fn version(text: &str) -> Option<Version> {
    let mut numbers = text.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_is_asked_for_is_found() {
        let told = "  0x0010:   Name: GLIBC_2.9  Flags: none  Version: 5\n  0x0020:   Name: GLIBC_2.34  Flags: none\n \
                    0x0030:   Name: GLIBC_2.2.5  Flags: none\n  Name: GCC_3.0  Flags: none";
        assert_eq!(wanted(told), Some((2, 34)));
        assert_eq!(wanted("no version information found"), None);
        assert_eq!(promised("depends = \"libc6 (>= 2.36), systemd (>= 247)\"").unwrap(), (2, 36));
        assert!(promised(MANIFEST).is_ok());
    }
}
