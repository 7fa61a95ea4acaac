//! `weir`: parse, validate, run, settle.

use std::fs::File;
use std::io::{IsTerminal, Write as _};
use std::path::Path;
use std::process::ExitCode;

use agent::args::{self, Check, Command, ConfigCommand, DatapathLoad, Replay, Run, Status};
use agent::cli::replay;
use agent::cli::status::{self, Format};
use agent::config::{Config, EXIT_USAGE};
use agent::datapath::{LoadSpec, load_and_pin};
use agent::drill;
use agent::eventloop::{self, OnStop};
use anyhow::{Context, Result};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

fn main() -> ExitCode {
    let command = match args::parse(std::env::args_os()) {
        Ok(cli) => cli.command,
        Err(ended) => {
            // Help that cannot be printed is no reason to fail differently.
            let _ = ended.message.print();
            return ExitCode::from(ended.status);
        }
    };
    match obey(command) {
        Ok(code) => code,
        Err(error) => {
            complain(&format!("weir: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn obey(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(Run { config, log_json, keep, record }) => {
            drill::prepare()?;
            let Some(config) = load(&config) else { return Ok(ExitCode::from(EXIT_USAGE)) };
            begin_logging(log_json);
            let on_stop = if keep { OnStop::Keep } else { OnStop::Settle };
            runtime()?.block_on(eventloop::run(config, on_stop, record.as_deref()))?;
        }
        Command::Status(Status { json, socket, config }) => {
            let socket = match socket {
                Some(socket) => socket,
                None => match load(&config) {
                    Some(config) => config.agent.socket,
                    None => return Ok(ExitCode::from(EXIT_USAGE)),
                },
            };
            runtime()?.block_on(status::run(&socket, format(json)))?;
        }
        Command::Replay(Replay { json, file: path }) => {
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(error) => {
                    complain(&format!("{}: cannot be read: {error}", path.display()));
                    return Ok(ExitCode::from(EXIT_USAGE));
                }
            };
            if !replay::run(&path, file, format(json))? {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Config(ConfigCommand::Check(Check { config })) => {
            if load(&config).is_none() {
                return Ok(ExitCode::from(EXIT_USAGE));
            }
        }
        Command::DatapathLoad(DatapathLoad { link, pin_root, retire }) => {
            drill::prepare()?;
            let loaded = load_and_pin(&LoadSpec { link, pin_root, retire })?;
            std::io::stdout().write_all(loaded.to_line().as_bytes()).context("telling the agent what was loaded")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

const fn format(json: bool) -> Format {
    if json { Format::Json } else { Format::Text }
}

/// Reads the configuration; says what is wrong with it and answers `None` if anything is.
fn load(path: &Path) -> Option<Config> {
    match Config::load(path) {
        Ok(config) => Some(config),
        Err(error) => {
            complain(&error.to_string());
            None
        }
    }
}

/// One thread: the agent waits far more than it works.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")
}

/// Logs go to standard error: for people on a terminal, as JSON on demand. `RUST_LOG` changes what is shown: a level, or
/// `target=level` with commas between. (The filter that knows spans and fields as well carries half a megabyte of regular expressions.)
fn begin_logging(json: bool) {
    let asked = std::env::var("RUST_LOG").ok().and_then(|words| words.parse::<Targets>().ok());
    let filter = asked.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    let subscriber = tracing_subscriber::registry().with(filter);
    if json {
        subscriber.with(lines.json()).init();
    } else {
        subscriber.with(lines).init();
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a command that failed belongs on standard error")]
fn complain(message: &str) {
    eprintln!("{message}");
}
