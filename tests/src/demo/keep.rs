//! What stays of a run: what was asked for, and after a failure everything that may explain it.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Error, Result, anyhow};

use super::Options;
use super::stage::RECORD;
use crate::bpffs::{Workdir, copy_file, copy_tree, plain_files};

/// How many lines of each log a failure shows.
const TAIL: usize = 25;

/// Copies what the options ask for out of the directory, which goes away.
pub(super) fn files(workdir: &Workdir, options: &Options) -> Result<()> {
    if let Some(to) = &options.record {
        copy_tree(&workdir.path().join(RECORD), to)
            .with_context(|| format!("keep the messages in {}", to.display()))?;
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
    let outcome = kept.context("make a directory").and_then(|to| copy_tree(workdir.path(), &to).map(|()| to));
    let _ = match outcome {
        Ok(to) => write!(text, "\n\nlogs, databases and messages of this run: {}", to.display()),
        Err(error) => write!(text, "\n\nthe files of this run could not be kept: {error:#}"),
    };
    anyhow!(text)
}
