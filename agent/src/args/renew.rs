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
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u16).range(0..=600))]
    pub wait: u16,
    /// Which agent.
    #[command(flatten)]
    pub whom: Whom,
    /// How to show it.
    #[command(flatten)]
    pub look: Look,
}
