//! Nobody forgets a command: all that the command line knows are walked, and each has its files, or stands here with the reason why not.

use std::collections::BTreeSet;

use clap::{Command, CommandFactory as _};

use super::goldens;
use crate::args::Cli;

/// What has no view of its own.
const WITHOUT_VIEW: [(&str, &str); 2] = [
    ("run", "what it prints is its log"),
    ("datapath-load", "it is started by the agent, and answers it in a line that datapath/load.rs holds"),
];

/// What is the same for every width, and has no colour.
const ONE_LINE: [(&str, &str); 1] = [("check", "the plugin rules of Nagios: one line, figures behind a bar")];

/// What answers no programs.
const WITHOUT_JSON: [(&str, &str); 1] = [("watch", "it draws; `weir status --json` holds the same")];

fn is_of(list: &[(&str, &str)], name: &str) -> bool {
    list.iter().any(|(command, _)| *command == name)
}

/// Every command that does something, by what is typed: `config check`.
pub(super) fn leaves(command: &Command) -> Vec<(String, Command)> {
    let mut found = Vec::new();
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        if sub.has_subcommands() {
            let below = leaves(sub).into_iter();
            found.extend(below.map(|(name, leaf)| (format!("{} {name}", sub.get_name()), leaf)));
        } else {
            found.push((sub.get_name().to_owned(), sub.clone()));
        }
    }
    found
}

#[test]
fn every_command_has_its_files_or_a_reason_why_not() {
    let listed = std::fs::read_dir(goldens()).expect("the directory");
    let files: BTreeSet<String> =
        listed.map(|entry| entry.expect("a file").file_name().to_string_lossy().into_owned()).collect();
    let leaves = leaves(&Cli::command());
    for (name, leaf) in leaves.iter().filter(|(name, _)| !is_of(&WITHOUT_VIEW, name)) {
        let stem = name.replace(' ', "-");
        let takes = |flag: &str| leaf.get_arguments().any(|argument| argument.get_long() == Some(flag));
        let has = |end: &str| {
            let is_it = |file: &String| {
                file.strip_prefix(&stem).is_some_and(|rest| rest.starts_with(['-', '.']) && rest.ends_with(end))
            };
            assert!(files.iter().any(is_it), "nothing holds what `weir {name}` prints: no {stem}…{end} in cli/golden");
        };
        if is_of(&ONE_LINE, name) {
            has(".txt");
        } else {
            has("wide.txt");
            has("narrow.txt");
        }
        if takes("color") {
            has("colour.txt");
        }
        assert_ne!(takes("json"), is_of(&WITHOUT_JSON, name), "`weir {name}`: --json, or a reason why not");
        if takes("json") {
            has(".json");
        }
    }
    for (name, reason) in WITHOUT_VIEW.iter().chain(&ONE_LINE).chain(&WITHOUT_JSON) {
        assert!(leaves.iter().any(|(leaf, _)| leaf == name) && !reason.is_empty(), "there is no {name} to be excused");
    }
}

#[test]
fn a_command_that_is_new_is_found_wherever_it_hangs() {
    let command = Command::new("weir")
        .subcommand(Command::new("fly"))
        .subcommand(Command::new("config").subcommand(Command::new("check")).subcommand(Command::new("show")));
    let names: Vec<String> = leaves(&command).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["fly", "config check", "config show"]);
}
