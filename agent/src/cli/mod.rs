//! The commands beside `run`, one file each.

pub mod attach;
pub mod check;
pub mod config;
pub mod doctor;
pub mod ledger;
pub mod renew;
pub mod replay;
pub mod status;
#[cfg(test)]
mod tests;
pub mod usage;
pub mod version;
pub mod watch;
pub mod words;

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::args::Whom;
use crate::config::Config;
use crate::local::Status;

/// A command was asked for in a way that cannot be done: said as it is, and ended with status 64.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// That there is no such link, and which there are.
fn no_such_link(asked: Option<&str>, status: &Status) -> String {
    let known: Vec<&str> = status.links.iter().map(|link| link.link.as_str()).collect();
    match (asked, &known[..]) {
        (None, _) | (_, []) => "no link of the configuration is there yet; `ip link` shows those that are".to_owned(),
        (Some(name), [known]) => format!("there is no metered link {name:?}; there is {known}"),
        (Some(name), known) => format!("there is no metered link {name:?}; there are {}", known.join(", ")),
    }
}

/// Reads the configuration; what is wrong with it is wrong usage.
pub fn load(path: &Path) -> Result<Config> {
    Config::load(path).map_err(|error| Usage(error.to_string()).into())
}

/// The socket of the agent that was meant.
pub fn socket(whom: &Whom) -> Result<PathBuf> {
    match &whom.socket {
        Some(socket) => Ok(socket.clone()),
        None => Ok(load(&whom.config)?.agent.socket),
    }
}

/// One thread: whoever asks, and the agent too, waits far more than it works.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")
}

/// A document for machines.
pub fn as_json(document: &impl Serialize) -> Result<String> {
    Ok(format!("{}\n", serde_json::to_string_pretty(document).context("writing JSON")?))
}

/// Prints to standard output. Whoever reads it may have read enough (`weir status | head -1`).
pub fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("writing to standard output"),
        Ok(()) | Err(_) => Ok(()),
    }
}
