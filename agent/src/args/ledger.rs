//! `weir ledger`.

use clap::Args;

use super::{Look, Whom};

/// `weir ledger`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Ledger {
    /// Which agent.
    #[command(flatten)]
    pub whom: Whom,
    /// How to show it.
    #[command(flatten)]
    pub look: Look,
}
