//! `weir watch`.

use clap::{Args, ColorChoice};

use super::Units;
use super::Whom;

/// `weir watch`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Watch {
    /// Which agent.
    #[command(flatten)]
    pub whom: Whom,
    /// Units in which amounts of data are shown; `u` changes them
    #[arg(long, value_enum, default_value_t, value_name = "UNITS")]
    pub units: Units,
    /// Whether to use colour; auto: on a terminal, unless `NO_COLOR` is set
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub color: ColorChoice,
}
