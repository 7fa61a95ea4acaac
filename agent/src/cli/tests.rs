//! What the commands print, held against files that somebody can read: wide and narrow, with and without colour, and as JSON.
//!
//! `WEIR_BLESS=1 cargo test -p agent --lib cli::` writes the files anew; then look at what has changed.

mod checks;
mod coverage;
mod samples;
mod views;

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;

use self::samples::{accounts, status};
use super::words::Screen;
use super::{as_json, ledger, status as status_command};
use crate::args::{self, Units};

/// Columns of a screen.
const WIDE: usize = 120;

pub(super) const fn screen(width: usize, units: Units) -> Screen {
    Screen { width, colour: false, units }
}

/// Where the files are.
fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/golden")
}

/// Holds a text against a file of that name.
pub(super) fn golden(name: &str, text: &str) {
    let path = goldens().join(name);
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::write(&path, text).expect("written");
    }
    let expected = std::fs::read_to_string(&path).expect("the golden file");
    assert_eq!(text, expected, "{}", path.display());
}

/// A text without the sequences that colour it.
fn uncoloured(text: &str) -> String {
    let (mut plain, mut hidden) = (String::new(), false);
    for letter in text.chars() {
        match letter {
            '\u{1b}' => hidden = true,
            'm' if hidden => hidden = false,
            _ if hidden => {}
            shown => plain.push(shown),
        }
    }
    plain
}

#[test]
fn status_as_json_is_read_again() {
    let text = as_json(&status()).expect("JSON");
    let again: crate::local::Status = serde_json::from_str(&text).expect("a status");
    assert_eq!(as_json(&again).expect("JSON"), text);
}

#[test]
fn what_an_older_agent_answers_is_shown_as_far_as_it_goes() {
    let mut document = serde_json::to_value(status()).expect("JSON");
    for member in ["oldest_unreported", "onboarding_trouble"] {
        document.as_object_mut().expect("an object").remove(member);
    }
    for link in document["links"].as_array_mut().expect("links") {
        for member in ["package", "next", "last_report", "average_octets_per_second", "aborted", "refused"] {
            link.as_object_mut().expect("a link").remove(member);
        }
    }
    let older: crate::local::Status = serde_json::from_value(document).expect("a status");
    let text = status_command::render(&older, &screen(WIDE, Units::Binary));
    assert!(text.contains("not known: the server does not say what was bought"), "{text}");
}

#[test]
fn what_is_acknowledged_is_of_no_age() {
    let mut status = status();
    (status.unacknowledged_octets, status.buffered_containers) = (0, 0);
    let words = |status: &crate::local::Status| status_command::render(status, &screen(WIDE, Units::Binary));
    let text = words(&status);
    assert!(
        text.contains("\nall that is recorded is acknowledged · 1 past session settling · ledger drift 0"),
        "{text}"
    );
    assert!(!text.contains("the oldest"), "{text}");
    (status.unacknowledged_octets, status.buffered_containers, status.draining_sessions) = (7, 1, 0);
    let text = words(&status);
    assert!(
        text.contains("\nunacknowledged 7 octets in 1 container, the oldest from 4 min ago · ledger drift"),
        "{text}"
    );
}

#[test]
fn books_that_do_not_close_are_told_at_the_end() {
    let mut accounts = accounts();
    accounts.drift_octets = 7;
    let text = ledger::render(&accounts, &screen(WIDE, Units::Binary));
    assert!(text.ends_with("THE BOOKS DO NOT CLOSE: 7 octets are astray\n"), "{text}");
}

#[test]
fn the_help_of_every_command_says_what_it_is_for_and_how_it_is_asked() {
    let mut command = args::Cli::command().term_width(100);
    command.build();
    golden("help.txt", &command.render_long_help().to_string());
    let help = |(name, mut leaf): (String, clap::Command)| {
        assert!(leaf.get_about().is_some(), "{name}");
        for argument in leaf.get_arguments() {
            assert!(argument.get_help().is_some(), "{} of {name}", argument.get_id());
        }
        format!("$ weir {name} --help\n{}\n", leaf.render_long_help())
    };
    let helps: String = coverage::leaves(&command).into_iter().map(help).collect();
    // Between a text and its default clap leaves a line of blanks.
    let helps: String = helps.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    golden("help-of-commands.txt", &helps);
}
