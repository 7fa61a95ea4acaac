//! `weir config …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::DEFAULT_CONFIG;

/// `weir config …`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum ConfigCommand {
    /// Say whether the configuration file is right, and if not, where
    Check(ConfigCheck),
}

/// `weir config check`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct ConfigCheck {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Print JSON: whether it is right, and what is wrong in which line
    #[arg(long)]
    pub json: bool,
}
