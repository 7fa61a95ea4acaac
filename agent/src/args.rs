//! The command line: what `weir` can be asked to do.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::EXIT_USAGE;

/// Where the configuration file is unless said otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/weir/weir.toml";

/// Meters paid uplinks to the octet, asks for units before they run out, and settles.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(name = "weir", version, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Meter the configured links until told to stop (SIGTERM or SIGINT), then settle and shut the gates
    Run(Run),
    /// Show what the running agent is doing
    Status(Status),
    /// Play what `weir run --record` has recorded through this version's core, and say where the two part
    Replay(Replay),
    /// Look at the configuration file without running
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Load, attach and pin the programs of one link, then exit (the agent starts this itself)
    #[command(hide = true)]
    DatapathLoad(DatapathLoad),
}

/// `weir run`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Run {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
    /// Log one JSON object a line
    #[arg(long)]
    pub log_json: bool,
    /// At a stop leave programs, counters and gates as they are, for the next version to adopt (an upgrade)
    #[arg(long)]
    pub keep: bool,
    /// Record what the core is told and what it answers, for `weir replay`; goes on where FILE ends, up to 64 MiB
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

/// `weir replay`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Replay {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The recording
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// `weir status`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Status {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The agent's socket; else the one its configuration names
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    pub socket: Option<PathBuf>,
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

/// `weir config …`.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum ConfigCommand {
    /// Say whether the configuration file is right, and if not, where
    Check(Check),
}

/// `weir config check`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Check {
    /// Configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

/// `weir datapath-load`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DatapathLoad {
    /// Interface name
    #[arg(long, value_name = "NAME")]
    pub link: String,
    /// Directory in bpffs for the pins
    #[arg(long, value_name = "DIR")]
    pub pin_root: PathBuf,
    /// Epoch of a meter that may be replaced although it is not pinned in DIR
    #[arg(long, value_name = "EPOCH")]
    pub retire: Vec<u32>,
}

/// A command line that asks for nothing to be done: what to print, and the exit status to end with.
#[derive(Debug)]
pub struct Ended {
    /// Help, version, or what is wrong: print with [`clap::Error::print`].
    pub message: clap::Error,
    /// 0 for help and version, else 64.
    pub status: u8,
}

/// Reads a command line, the program's name first.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, Ended> {
    Cli::try_parse_from(args).map_err(|message| {
        let status = if message.exit_code() == 0 { 0 } else { EXIT_USAGE };
        Ended { message, status }
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn given(line: &str) -> Result<Command, u8> {
        parse(line.split_whitespace().map(OsString::from)).map(|cli| cli.command).map_err(|ended| ended.status)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn run_takes_its_flags() {
        let expected = Run { config: "w.toml".into(), log_json: true, keep: true, record: Some("r.jsonl".into()) };
        let line = "weir run --config w.toml --log-json --keep --record r.jsonl";
        assert_eq!(given(line), Ok(Command::Run(expected)));
        let plain = Run { config: DEFAULT_CONFIG.into(), log_json: false, keep: false, record: None };
        assert_eq!(given("weir run"), Ok(Command::Run(plain)));
    }

    #[test]
    fn the_other_commands_are_known() {
        let status = Status { json: true, socket: Some("/s".into()), config: DEFAULT_CONFIG.into() };
        assert_eq!(given("weir status --json --socket /s"), Ok(Command::Status(status)));
        let replay = Replay { json: true, file: "r.jsonl".into() };
        assert_eq!(given("weir replay --json r.jsonl"), Ok(Command::Replay(replay)));
        let check = Check { config: "w.toml".into() };
        assert_eq!(given("weir config check --config w.toml"), Ok(Command::Config(ConfigCommand::Check(check))));
        let load = DatapathLoad { link: "wwan0".into(), pin_root: "/p".into(), retire: vec![7, 9] };
        let line = "weir datapath-load --link wwan0 --pin-root /p --retire 7 --retire 9";
        assert_eq!(given(line), Ok(Command::DatapathLoad(load)));
    }

    #[test]
    fn help_and_version_end_well_and_bad_usage_with_64() {
        for line in ["weir --help", "weir --version", "weir run --help", "weir status --version"] {
            assert_eq!(given(line), Err(0), "{line}");
        }
        for line in [
            "weir",
            "weir fly",
            "weir run --fast",
            "weir run --config",
            "weir run --record",
            "weir replay",
            "weir replay a b",
            "weir status --socket a --config b",
            "weir config",
        ] {
            assert_eq!(given(line), Err(64), "{line}");
        }
    }
}
