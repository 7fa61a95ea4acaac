//! `weir-torture`: what `cargo xtask torture` starts.

use std::process::ExitCode;

use clap::Parser as _;
use e2e::torture::{self, Options};

fn main() -> ExitCode {
    match torture::run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("\nthe torture has found something: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a command that failed belongs on standard error")]
fn complain(message: &str) {
    eprintln!("{message}");
}
