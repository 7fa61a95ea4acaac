//! What several commands take: which agent to ask, and how to show what it says.

use std::path::PathBuf;

use clap::{Args, ColorChoice, ValueEnum};

use super::DEFAULT_CONFIG;

/// Which agent to ask.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Whom {
    /// The agent's socket; else the one its configuration names
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    pub socket: Option<PathBuf>,
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

/// How to show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct Look {
    /// Print JSON: raw octets, RFC 3339 times, and the number of its schema
    #[arg(long)]
    pub json: bool,
    /// Units in which amounts of data are shown
    #[arg(long, value_enum, default_value_t, value_name = "UNITS")]
    pub units: Units,
    /// Whether to use colour; auto: on a terminal, unless `NO_COLOR` is set
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    pub color: ColorChoice,
}

/// What amounts of data are told in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Units {
    /// KiB, MiB, GiB: powers of 1024
    #[default]
    Binary,
    /// kB, MB, GB: powers of 1000, as carriers count
    Decimal,
    /// All digits
    Octets,
}
