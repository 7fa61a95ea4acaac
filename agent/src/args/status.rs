//! `weir status`.

use clap::Args;

use super::{Look, Whom};

/// `weir status`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Status {
    /// Which agent.
    #[command(flatten)]
    pub whom: Whom,
    /// How to show it.
    #[command(flatten)]
    pub look: Look,
}
