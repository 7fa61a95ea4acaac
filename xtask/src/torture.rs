//! `cargo xtask torture`: kills, faults and broken links under sustained traffic, then the books to the octet.

use std::ffi::OsString;

use crate::{run, workspace::Workspace};

/// Builds, then plays so many minutes of blows, those of `seed` if one is given. Returns the program's exit code.
pub(crate) fn torture(workspace: &Workspace, minutes: u32, seed: Option<u64>) -> anyhow::Result<u8> {
    let mut arguments: Vec<OsString> = vec!["--minutes".into(), minutes.to_string().into()];
    if let Some(seed) = seed {
        arguments.extend(["--seed".into(), seed.to_string().into()]);
    }
    run::play(workspace, "weir-torture", &arguments)
}
