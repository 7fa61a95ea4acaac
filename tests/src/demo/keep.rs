//! What stays of a run: what was asked for, and after a failure everything that may explain it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Error, Result, anyhow};

use super::Options;
use super::stage::RECORD;
use crate::bpffs::{MOUNT_NAME, Workdir};

/// How many lines of each log a failure shows.
const TAIL: usize = 25;

/// Copies what the options ask for out of the directory, which goes away.
pub(super) fn files(workdir: &Workdir, options: &Options) -> Result<()> {
    if let Some(to) = &options.record {
        copy(&workdir.path().join(RECORD), to).with_context(|| format!("keep the messages in {}", to.display()))?;
    }
    if let Some(to) = &options.keep_logs {
        for file in plain_files(workdir.path())? {
            let text = matches!(file.extension().and_then(|kind| kind.to_str()), Some("out" | "err" | "toml"));
            if text {
                copy_file(&file, to).with_context(|| format!("keep the logs in {}", to.display()))?;
            }
        }
    }
    Ok(())
}

/// Adds the ends of the logs to the error, copies the whole directory to where it stays, and says where that is.
pub(super) fn evidence(workdir: &Workdir, error: &Error) -> Error {
    let mut text = format!("{error:#}");
    for name in ["weir-server.err", "weir.err"] {
        if let Ok(log) = fs::read_to_string(workdir.path().join(name)) {
            // What the demo itself asks the server for all the time explains nothing.
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("/admin/v1/packages")).collect();
            let _ = write!(text, "\n\n--- the end of {name}\n{}", lines[lines.len().saturating_sub(TAIL)..].join("\n"));
        }
    }
    let kept = tempfile::Builder::new().prefix("weir-demo-failed-").tempdir().map(tempfile::TempDir::keep);
    let outcome = kept.context("make a directory").and_then(|to| copy(workdir.path(), &to).map(|()| to));
    let _ = match outcome {
        Ok(to) => write!(text, "\n\nlogs, databases and messages of this run: {}", to.display()),
        Err(error) => write!(text, "\n\nthe files of this run could not be kept: {error:#}"),
    };
    anyhow!(text)
}

/// Copies a directory with all it holds, but for the BPF file system in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    for file in plain_files(from)? {
        copy_file(&file, to)?;
    }
    for entry in fs::read_dir(from).with_context(|| format!("list {}", from.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.file_name() != MOUNT_NAME {
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

fn copy_file(file: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
    let name = file.file_name().with_context(|| format!("{} has no name", file.display()))?;
    fs::copy(file, to.join(name)).with_context(|| format!("copy {} to {}", file.display(), to.display())).map(drop)
}

/// The regular files right in a directory.
fn plain_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            files.push(entry.path());
        }
    }
    Ok(files)
}
