//! `weir-newcomer`: what `cargo xtask package --try` starts.

use std::process::ExitCode;

use clap::Parser as _;
use e2e::newcomer::{self, Options};

fn main() -> ExitCode {
    match newcomer::run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("\nthe newcomer got stuck: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a command that failed belongs on standard error")]
fn complain(message: &str) {
    eprintln!("{message}");
}
