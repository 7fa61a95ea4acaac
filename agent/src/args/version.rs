//! `weir version`.

use clap::Args;

/// `weir version`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Version {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
