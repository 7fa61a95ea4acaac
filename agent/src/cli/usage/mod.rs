//! `weir usage`: the history of what was used, as a table with bars, as JSON, or as a chart.

mod chart;
mod table;
#[cfg(test)]
pub(in crate::cli) mod tests;

use std::io::ErrorKind;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, anyhow};

use super::words::Screen;
use super::{Usage, as_json, print, runtime};
use crate::args;
use crate::clock::Moment;
use crate::config::Config;
use crate::local::{self, NoAgent};
use crate::usage::{Calendar, Refusal, Source, UsageDocument, Wish, read};

pub use chart::chart;
pub use table::render;

/// Asks the agent for its history, or reads the ledger where none is running, and shows it.
pub fn run(asked: &args::Usage) -> Result<ExitCode> {
    let document = match history(asked) {
        Err(error) if error.is::<Refusal>() => return Err(Usage(format!("weir usage: --{error}")).into()),
        answered => answered?,
    };
    let screen = Screen::of_stdout(asked.look);
    match &asked.svg {
        Some(file) => draw(file, &chart(&document, &screen))?,
        None if asked.look.json => print(&as_json(&document)?)?,
        None => print(&render(&document, &screen))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn history(asked: &args::Usage) -> Result<UsageDocument> {
    let wish = asked.wish();
    let (socket, config) = match &asked.whom.socket {
        Some(socket) => (socket.clone(), None),
        None => {
            let config = super::load(&asked.whom.config)?;
            (config.agent.socket.clone(), Some(config))
        }
    };
    match (runtime()?.block_on(local::usage(&socket, &wish)), config) {
        (Err(error), Some(config)) if is_away(&error) => {
            let explained = |at_rest: anyhow::Error| at_rest.context(format!("{error:#}; and without an agent"));
            at_rest(&config, &wish).map_err(|error| if error.is::<Refusal>() { error } else { explained(error) })
        }
        (answer, _) => answer,
    }
}

/// Whether there is nobody who could be asked: the file may be read in the place of the agent.
fn is_away(error: &anyhow::Error) -> bool {
    error.downcast_ref::<NoAgent>().is_some_and(|nobody| nobody.kind != ErrorKind::PermissionDenied)
}

/// Reads the ledger of an agent that does not run.
fn at_rest(config: &Config, wish: &Wish) -> Result<UsageDocument> {
    let calendar = Calendar::of(config.usage.time_zone.as_deref(), config.usage.billing_day);
    read(&config.ledger, &calendar, wish, (Source::File, Moment::now()?.label))
}

fn draw(file: &Path, chart: &str) -> Result<()> {
    let unwritten = |error: std::io::Error| {
        anyhow!("the chart cannot be written to {}: {error}; name another place (--svg FILE)", file.display())
    };
    std::fs::write(file, chart).map_err(unwritten)
}
