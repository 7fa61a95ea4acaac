//! `cargo xtask ci`: everything a submission has to pass.

use crate::{lint, test, workspace::Workspace};

/// Lint, then test; the tests run even when lint found something, so that one round tells all. Returns the exit code.
pub(crate) fn ci(workspace: &Workspace) -> anyhow::Result<u8> {
    let lint = lint::lint(workspace)?;
    let test = test::test(workspace, &[])?;
    Ok(lint.max(test))
}
