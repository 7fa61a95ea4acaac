//! Root where it is needed: directly, through sudo, or not at all.

use std::{ffi::OsStr, io::IsTerminal as _, process::Command};

use nix::unistd::geteuid;

use crate::workspace::on_path;

/// How a command can be run as root on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Root {
    /// The caller is root.
    Already,
    /// The caller may use sudo: without a password, or with one typed on the terminal.
    Sudo,
    /// Neither.
    Unreachable,
}

impl Root {
    /// What this caller has.
    pub(crate) fn of_caller() -> Self {
        if geteuid().is_root() {
            return Self::Already;
        }
        let silent = || Command::new("sudo").args(["-n", "true"]).output().is_ok_and(|output| output.status.success());
        if on_path("sudo").is_some() && (std::io::stdin().is_terminal() || silent()) {
            Self::Sudo
        } else {
            Self::Unreachable
        }
    }

    /// The program as root; as the caller where root is unreachable.
    pub(crate) fn command(self, program: impl AsRef<OsStr>) -> Command {
        match self {
            Self::Sudo => {
                let mut command = Command::new("sudo");
                command.args(["--preserve-env", "--"]).arg(program);
                command
            }
            Self::Already | Self::Unreachable => Command::new(program),
        }
    }
}
