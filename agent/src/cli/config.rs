//! `weir config check`: says whether the configuration is right, and if not, where.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use super::words::Screen;
use super::{Usage, as_json, print};
use crate::args::{ConfigCheck, ConfigCommand};
use crate::config::{Config, ConfigError, Fault, OnboardingMode};
use crate::failure::EXIT_USAGE;

/// What is to be said of a configuration file, as JSON has it.
#[derive(Debug, Serialize)]
pub struct Verdict {
    schema: u32,
    /// The file.
    file: String,
    /// Whether an agent would start with it.
    right: bool,
    /// What is wrong, in the order of the lines.
    faults: Vec<Fault>,
}

impl Verdict {
    /// What came of reading the file at `path`.
    #[must_use]
    pub fn of(path: &Path, read: &Result<Config, ConfigError>) -> Self {
        let faults = read.as_ref().err().map(|error| error.faults.clone()).unwrap_or_default();
        Self { schema: 1, file: path.display().to_string(), right: read.is_ok(), faults }
    }
}

/// Looks at the configuration. One that is wrong is wrong usage: 64.
pub fn run(ConfigCommand::Check(ConfigCheck { config: path, json }): &ConfigCommand) -> Result<ExitCode> {
    let read = Config::load(path);
    if *json {
        print(&as_json(&Verdict::of(path, &read))?)?;
        return Ok(if read.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_USAGE) });
    }
    let config = read.map_err(|error| Usage(error.to_string()))?;
    print(&render(path, &config, &Screen::plain()))?;
    Ok(ExitCode::SUCCESS)
}

/// That it is right, and what was understood: whoever has named the wrong server or link sees it here.
#[must_use]
pub fn render(path: &Path, config: &Config, screen: &Screen) -> String {
    let mut page = String::new();
    screen.add(&mut page, 0, &format!("{} is right", path.display()));
    let onboarding = match config.server.onboarding {
        OnboardingMode::Server => "SIMs and packages come from it",
        OnboardingMode::Static => "SIMs are named in this file",
    };
    screen.item(&mut page, "device", &config.device.id);
    screen.item(&mut page, "server", &format!("{}; {onboarding}", config.server.url));
    let links: Vec<&str> = config.links.iter().map(|link| link.name.as_str()).collect();
    screen.item(&mut page, "links", &links.join(", "));
    screen.item(&mut page, "ledger", &config.ledger.display().to_string());
    page
}
