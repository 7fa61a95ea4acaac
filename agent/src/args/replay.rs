//! `weir replay`.

use std::path::PathBuf;

use clap::Args;

/// `weir replay`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Replay {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The recording
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}
