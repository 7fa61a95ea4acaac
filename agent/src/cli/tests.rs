//! What the commands print, held against files: wide and narrow, with and without colour, and as JSON.
//!
//! `WEIR_BLESS=1 cargo test -p agent --lib cli::` writes the files anew; then look at what has changed.

mod checks;
mod samples;

use std::path::Path;

use self::samples::{accounts, status};
use super::words::{Screen, Units, shown};
use super::{as_json, ledger, status as status_command};
use crate::args;

/// Columns of a screen.
const WIDE: usize = 120;
const NARROW: usize = 60;

pub(super) const fn screen(width: usize, units: Units) -> Screen {
    Screen { width, colour: false, units }
}

/// Holds a text against a file of that name.
pub(super) fn golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/golden").join(name);
    if std::env::var_os("WEIR_BLESS").is_some() {
        std::fs::write(&path, text).expect("written");
    }
    let expected = std::fs::read_to_string(&path).expect("the golden file");
    assert_eq!(text, expected, "{}", path.display());
}

fn fits(text: &str, width: usize) {
    for line in text.lines() {
        assert!(shown(line) <= width, "{} columns: {line}", shown(line));
        assert!(!line.ends_with(' '), "{line:?}");
    }
}

#[test]
fn status_is_told_wide_and_narrow_and_in_colour() {
    let status = status();
    for (name, screen) in [
        ("status-wide.txt", screen(WIDE, Units::Binary)),
        ("status-narrow.txt", screen(NARROW, Units::Decimal)),
        ("status-colour.txt", Screen { colour: true, ..screen(100, Units::Octets) }),
    ] {
        let text = status_command::render(&status, &screen);
        fits(&text, screen.width);
        golden(name, &text);
    }
}

#[test]
fn status_as_json_has_its_members_and_is_read_again() {
    let text = as_json(&status()).expect("JSON");
    golden("status.json", &text);
    let again: crate::local::Status = serde_json::from_str(&text).expect("a status");
    assert_eq!(as_json(&again).expect("JSON"), text);
}

#[test]
fn what_an_older_agent_answers_is_shown_as_far_as_it_goes() {
    let mut document = serde_json::to_value(status()).expect("JSON");
    document.as_object_mut().expect("an object").remove("oldest_unreported");
    for link in document["links"].as_array_mut().expect("links") {
        for member in ["package", "next", "last_report", "average_octets_per_second"] {
            link.as_object_mut().expect("a link").remove(member);
        }
    }
    let older: crate::local::Status = serde_json::from_value(document).expect("a status");
    let text = status_command::render(&older, &screen(WIDE, Units::Binary));
    assert!(text.contains("not known: the server does not say what was bought"), "{text}");
}

#[test]
fn the_ledger_is_told_wide_and_narrow_and_in_colour() {
    let accounts = accounts();
    for (name, screen) in [
        ("ledger-wide.txt", screen(WIDE, Units::Binary)),
        ("ledger-narrow.txt", screen(NARROW, Units::Decimal)),
        ("ledger-colour.txt", Screen { colour: true, ..screen(100, Units::Octets) }),
    ] {
        let text = ledger::render(&accounts, &screen);
        fits(&text, screen.width);
        golden(name, &text);
    }
    golden("ledger.json", &as_json(&accounts).expect("JSON"));
}

#[test]
fn books_that_do_not_close_are_told_at_the_end() {
    let mut accounts = accounts();
    accounts.drift_octets = 7;
    let text = ledger::render(&accounts, &screen(WIDE, Units::Binary));
    assert!(text.ends_with("THE BOOKS DO NOT CLOSE: 7 octets are astray\n"), "{text}");
}

#[test]
fn the_help_of_every_command_says_what_it_is_for_and_lists_them() {
    use clap::CommandFactory as _;
    let mut command = args::Cli::command().term_width(100);
    golden("help.txt", &command.render_long_help().to_string());
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        assert!(sub.get_about().is_some(), "{}", sub.get_name());
        for argument in sub.get_arguments() {
            assert!(argument.get_help().is_some(), "{} of {}", argument.get_id(), sub.get_name());
        }
    }
}
