//! `weir-demo`: what `cargo xtask run` starts.

use std::process::ExitCode;

use clap::Parser as _;
use e2e::demo::{self, Options};

fn main() -> ExitCode {
    match demo::run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("\nthe demo failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a command that failed belongs on standard error")]
fn complain(message: &str) {
    eprintln!("{message}");
}
