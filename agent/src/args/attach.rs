//! `weir attach` and `weir detach`.

use std::path::PathBuf;

use clap::Args;

use super::DEFAULT_CONFIG;

/// `weir attach`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Attach {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `weir detach`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Detach {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Take the meters off even where what they have counted cannot be recorded: that is told, and then billed by nobody
    #[arg(long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
