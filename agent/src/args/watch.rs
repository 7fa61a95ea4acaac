//! `weir watch`.

use clap::Args;

use super::Whom;
use crate::cli::words::Units;

/// `weir watch`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Watch {
    /// Which agent.
    #[command(flatten)]
    pub whom: Whom,
    /// What amounts of data are told in; `u` changes it
    #[arg(long, value_enum, default_value_t, value_name = "UNITS")]
    pub units: Units,
}
