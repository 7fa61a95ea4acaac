//! The command line: what `weir` can be asked to do, one file a command.

mod attach;
mod check;
mod config;
mod doctor;
mod ledger;
mod renew;
mod replay;
mod run;
mod shared;
mod status;
#[cfg(test)]
mod tests;
mod usage;
mod version;
mod watch;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

pub use attach::{Attach, Detach};
pub use check::Check;
pub use config::{ConfigCheck, ConfigCommand};
pub use doctor::Doctor;
pub use ledger::Ledger;
pub use renew::Renew;
pub use replay::Replay;
pub use run::{DatapathLoad, Run};
pub use shared::{Look, Units, Whom};
pub use status::Status;
pub use usage::{Spans, Usage};
pub use version::Version;
pub use watch::Watch;

use crate::failure::{EXIT_UNKNOWN, EXIT_USAGE, Failure};

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
    /// Show it all the time, on a terminal
    Watch(Watch),
    /// Show what the ledger holds: sessions, grants, messages that wait, and whether the books close
    Ledger(Ledger),
    /// Ask the server for more now, as after a top-up, and say what comes of it
    #[command(visible_alias = "top-up")]
    Renew(Renew),
    /// Say in one line, and by the exit status that monitoring knows, whether the packages last and all is well
    Check(Check),
    /// Meter the configured links that are there behind shut gates, for `weir run` to take over
    Attach(Attach),
    /// Take off and unpin everything weir has put into the kernel; what was counted is recorded for the next start
    Detach(Detach),
    /// Show what was used by five minutes, hours, days, months or billing periods, and what to expect
    Usage(Usage),
    /// Look for what is wrong with metering on this machine, and say what to type; ends with 0 (all well), 1 (warnings) or 2 (problems)
    Doctor(Doctor),
    /// Play what `weir run --record` has recorded through this version's core, and say where the two part
    Replay(Replay),
    /// Look at the configuration file without running
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show the version, and those of map layout, ledger and wire
    Version(Version),
    /// Load, attach and pin the programs of one link, then exit (the agent starts this itself)
    #[command(hide = true)]
    DatapathLoad(DatapathLoad),
}

/// A command line that asks for nothing to be done: what to print, and the exit status to end with.
#[derive(Debug)]
pub struct Ended {
    /// Help, version, or what is wrong: print with [`clap::Error::print`].
    pub message: clap::Error,
    /// 0 for help and version, else 64; of `weir check` 3, which is what monitoring knows.
    pub status: u8,
}

impl Ended {
    /// What is wrong, for programs; `None` where nothing is.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        let whole = self.message.to_string();
        let said = whole.split("\n\n").next().unwrap_or_default();
        (self.status != 0).then(|| Failure::new(said.strip_prefix("error: ").unwrap_or(said), self.status))
    }
}

/// Reads a command line, the program's name first.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, Ended> {
    let args: Vec<OsString> = args.into_iter().collect();
    let is_check = args.get(1).is_some_and(|command| command == "check");
    Cli::try_parse_from(args).map_err(|message| {
        let status = match message.exit_code() {
            0 => 0,
            _ if is_check => EXIT_UNKNOWN,
            _ => EXIT_USAGE,
        };
        Ended { message, status }
    })
}
