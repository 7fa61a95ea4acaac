//! `weir`: parse, validate, run, settle.

use std::io::{IsTerminal, Write as _};
use std::process::ExitCode;

use agent::args::{self, Command, DatapathLoad, Run};
use agent::cli::{self, Usage};
use agent::clock::Clock;
use agent::datapath::{LoadSpec, load_and_pin};
use agent::drill;
use agent::eventloop::{self, OnStop};
use agent::failure::{EXIT_FAILED, EXIT_UNKNOWN, EXIT_USAGE, Failure};
use agent::local::{Problems, Timeline};
use anyhow::{Context, Result};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

fn main() -> ExitCode {
    let command = match args::parse(std::env::args_os()) {
        Ok(cli) => cli.command,
        Err(ended) => {
            // Help that cannot be printed is no reason to fail differently.
            let _ = ended.message.print();
            if let Some(failure) = ended.failure() {
                tell_wrong_usage(&failure);
            }
            return ExitCode::from(ended.status);
        }
    };
    match obey(&command) {
        Ok(code) => code,
        Err(error) if error.is::<Usage>() => fail(&error.to_string(), "", EXIT_USAGE),
        Err(error) => fail(&format!("{error:#}"), "weir: ", EXIT_FAILED),
    }
}

/// The last word of a command: for people, and for programs where they have asked.
fn fail(words: &str, who: &str, status: u8) -> ExitCode {
    complain(&format!("{who}{words}"));
    tell_programs(&Failure::new(words, status));
    ExitCode::from(status)
}

/// Whoever has asked for JSON gets a document of what went wrong, too.
fn tell_programs(failure: &Failure) {
    if asks_for_json() {
        // What cannot be written has been said on standard error.
        let _ = cli::as_json(failure).and_then(|document| cli::print(&document));
    }
}

/// The same of a command line that cannot be read; monitoring, which reads standard output alone, gets the line or document that it knows.
fn tell_wrong_usage(failure: &Failure) {
    if failure.exit_status != EXIT_UNKNOWN {
        return tell_programs(failure);
    }
    let verdict = cli::check::unknown(&failure.error);
    let said = if asks_for_json() { cli::as_json(&verdict) } else { Ok(verdict.line()) };
    // As above.
    let _ = said.and_then(|said| cli::print(&said));
}

fn asks_for_json() -> bool {
    std::env::args_os().any(|word| word == "--json")
}

fn obey(command: &Command) -> Result<ExitCode> {
    match command {
        Command::Run(asked) => run(asked),
        Command::Status(asked) => cli::status::run(asked),
        Command::Watch(asked) => cli::watch::run(asked),
        Command::Ledger(asked) => cli::ledger::run(asked),
        Command::Renew(asked) => cli::renew::run(asked),
        Command::Check(asked) => cli::check::run(asked),
        Command::Attach(asked) => cli::attach::attach(asked),
        Command::Detach(asked) => cli::attach::detach(asked),
        Command::Version(asked) => cli::version::run(asked),
        Command::Usage(asked) => cli::usage::run(asked),
        Command::Doctor(asked) => cli::doctor::run(asked),
        Command::Replay(asked) => cli::replay::run(asked),
        Command::Config(asked) => cli::config::run(asked),
        Command::DatapathLoad(asked) => load_datapath(asked),
    }
}

fn run(Run { config, log_json, keep, record }: &Run) -> Result<ExitCode> {
    drill::prepare()?;
    let config = cli::load(config)?;
    let timeline = Timeline::new(Clock::default());
    begin_logging(*log_json, timeline.clone());
    let on_stop = if *keep { OnStop::Keep } else { OnStop::Settle };
    cli::runtime()?.block_on(eventloop::run(config, on_stop, record.as_deref(), timeline))?;
    Ok(ExitCode::SUCCESS)
}

fn load_datapath(DatapathLoad { link, pin_root, retire }: &DatapathLoad) -> Result<ExitCode> {
    drill::prepare()?;
    let spec = LoadSpec { link: link.clone(), pin_root: pin_root.clone(), retire: retire.clone() };
    let loaded = load_and_pin(&spec)?;
    std::io::stdout().write_all(loaded.to_line().as_bytes()).context("telling the agent what was loaded")?;
    Ok(ExitCode::SUCCESS)
}

/// Logs go to standard error: for people on a terminal, as JSON on demand. `RUST_LOG` changes what is shown: a level, or
/// `target=level` with commas between. (The filter that knows spans and fields as well carries half a megabyte of regular expressions.)
fn begin_logging(json: bool, timeline: Timeline) {
    let asked = std::env::var("RUST_LOG").ok().and_then(|words| words.parse::<Targets>().ok());
    let filter = asked.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    // What is wrong is told to whoever looks at the page, whatever the log shows.
    let subscriber = tracing_subscriber::registry().with(Problems::new(timeline).with_filter(LevelFilter::WARN));
    if json {
        subscriber.with(lines.json().with_filter(filter)).init();
    } else {
        subscriber.with(lines.with_filter(filter)).init();
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a command that failed belongs on standard error")]
fn complain(message: &str) {
    eprintln!("{message}");
}
