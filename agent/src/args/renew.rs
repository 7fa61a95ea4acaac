//! `weir renew`, also known as `weir top-up`.

use clap::Args;

use super::{Look, Whom};

/// `weir renew`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Renew {
    /// The link to ask for; without it all of them
    #[arg(value_name = "LINK")]
    pub link: Option<String>,
    /// Seconds to wait for the server's answer
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = seconds)]
    pub wait: u16,
    /// Which agent.
    #[command(flatten)]
    pub whom: Whom,
    /// How to show it.
    #[command(flatten)]
    pub look: Look,
}

/// Whole seconds, 0 to 600.
fn seconds(text: &str) -> Result<u16, String> {
    let seconds = text.parse().ok().filter(|seconds| *seconds <= 600);
    seconds.ok_or_else(|| "a number of seconds from 0 to 600 is wanted, without a unit: 15".to_owned())
}
