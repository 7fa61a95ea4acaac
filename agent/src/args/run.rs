//! `weir run` and what it starts itself.

use std::path::PathBuf;

use clap::Args;

use super::DEFAULT_CONFIG;

/// `weir run`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Run {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Log one JSON object a line
    #[arg(long)]
    pub log_json: bool,
    /// At a stop leave programs, counters and gates as they are, for the next version to adopt (an upgrade)
    #[arg(long)]
    pub keep: bool,
    /// Record what the core is told and what it answers, for `weir replay`; goes on where FILE ends, up to 64 MiB
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

/// `weir datapath-load`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DatapathLoad {
    /// Interface name
    #[arg(long, value_name = "NAME")]
    pub link: String,
    /// Directory in bpffs for the pins
    #[arg(long, value_name = "DIR")]
    pub pin_root: PathBuf,
    /// Epoch of a meter that may be replaced although it is not pinned in DIR
    #[arg(long, value_name = "EPOCH")]
    pub retire: Vec<u32>,
}
