//! `weir config check`: says whether the configuration is right, and if not, where.

use std::process::ExitCode;

use anyhow::Result;

use super::load;
use crate::args::{ConfigCheck, ConfigCommand};

/// Looks at the configuration.
pub fn run(asked: &ConfigCommand) -> Result<ExitCode> {
    match asked {
        ConfigCommand::Check(ConfigCheck { config }) => load(config).map(|_| ExitCode::SUCCESS),
    }
}
