//! `weir check`.

use std::path::PathBuf;

use clap::Args;

use super::Units;
use super::Whom;

/// `weir check`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Check {
    /// Share of the package that may be used before it is a warning
    #[arg(long, value_name = "PERCENT", default_value = "80%", value_parser = percent)]
    pub warn: u8,
    /// Share of the package that may be used before it is critical
    #[arg(long, value_name = "PERCENT", default_value = "95%", value_parser = percent)]
    pub crit: u8,
    /// The link to check; without it all of them
    #[arg(long, value_name = "LINK")]
    pub link: Option<String>,
    /// Run this by `sh -c` whenever the outcome has become another one, once each time; `WEIR_STATE`, `WEIR_BEFORE` and `WEIR_MESSAGE` tell it which
    #[arg(long, value_name = "COMMAND", requires = "state")]
    pub hook: Option<String>,
    /// Keep the outcome of the last check here, for the hook
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Units in which amounts of data are shown
    #[arg(long, value_enum, default_value_t, value_name = "UNITS")]
    pub units: Units,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Which agent.
    #[command(flatten)]
    pub whom: Whom,
}

/// A share in whole hundredths, with or without the sign.
fn percent(text: &str) -> Result<u8, String> {
    let number = text.strip_suffix('%').unwrap_or(text).parse::<u8>().ok().filter(|number| (1..=100).contains(number));
    number.ok_or_else(|| "a share from 1% to 100% is wanted".to_owned())
}
