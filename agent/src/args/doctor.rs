//! `weir doctor`.

use std::path::PathBuf;

use clap::{Args, ColorChoice};

use super::DEFAULT_CONFIG;

/// `weir doctor`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Doctor {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Do not ask the server: nothing leaves the machine
    #[arg(long)]
    pub offline: bool,
    /// Print JSON: every finding with its name, and the number of its schema
    #[arg(long)]
    pub json: bool,
    /// Whether to use colour; auto: on a terminal, unless `NO_COLOR` is set
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub color: ColorChoice,
}
