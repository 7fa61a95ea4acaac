//! `weir replay`: plays a recording through this binary's core, for people or as JSON.

use std::fs::File;
use std::io::{BufReader, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::words::{Screen, counted, octets};
use super::{Usage, as_json, print};
use crate::args;
use crate::clock::boot_now;
use crate::recording::{End, Parting, Replay, Tally, Verdict, replay};
use crate::units::BootInstant;

/// How often a word of how far it has come is said.
const WORD: Duration = Duration::from_secs(1);

/// Plays the recording and prints what came of it. Success when this core did the same.
pub fn run(asked: &args::Replay) -> Result<ExitCode> {
    let path = &asked.file;
    let unread = |error: std::io::Error| {
        Usage(format!("{}: cannot be read: {error}; `weir run --record FILE` writes one", path.display()))
    };
    let file = File::open(path).map_err(unread)?;
    let length = file.metadata().with_context(|| format!("looking at {}", path.display()))?.len();
    let mut progress = Progress::new(path, length, !asked.json && std::io::stderr().is_terminal())?;
    let replayed = replay(BufReader::with_capacity(1 << 20, file), &mut |done| progress.at(done))?;
    print(&if asked.json { as_json(&document(&replayed))? } else { render(path, &replayed, &Screen::plain()) })?;
    Ok(match replayed.verdict {
        Verdict::Same { .. } => ExitCode::SUCCESS,
        Verdict::Damaged { .. } | Verdict::Parts(_) => ExitCode::FAILURE,
    })
}

/// What came of it, in lines that fit; long words of what was recorded stay whole.
#[must_use]
pub fn render(path: &Path, replayed: &Replay, screen: &Screen) -> String {
    let (file, played) = (path.display(), words(replayed.tally));
    let mut page = String::new();
    match &replayed.verdict {
        Verdict::Same { end: End::Whole } => screen.add(&mut page, 0, &format!("{played}: the same")),
        Verdict::Same { end: End::Cut } => {
            let cut = "the last line is cut, as by a loss of power, or is still being written";
            screen.add(&mut page, 0, &format!("{played}: the same; {cut}"));
        }
        Verdict::Damaged { line, what } => {
            screen.add(&mut page, 0, &format!("{file}:{line}: damaged: {what}"));
            screen.add(&mut page, 0, &format!("{played} until there"));
        }
        Verdict::Parts(parting) => {
            let Parting { line, label, at, told_line, told, recorded, instead } = &**parting;
            let or_none = |command: &Option<String>| command.clone().unwrap_or_else(|| "no further command".to_owned());
            let parts = "this core does not do what was recorded";
            screen.add(&mut page, 0, &format!("{file}:{line}: {label} at {at:?} after boot: {parts}"));
            screen.item(&mut page, "told", &format!("{told} (line {told_line})"));
            screen.item(&mut page, "recorded", &or_none(recorded));
            screen.item(&mut page, "this core", &or_none(instead));
            screen.add(&mut page, 0, &format!("{played} until there"));
        }
    }
    page
}

fn words(tally: Tally) -> String {
    let lives = if tally.lives == 1 { "1 life".to_owned() } else { format!("{} lives", tally.lives) };
    format!("{lives}, {}, {}", counted(tally.events, "event"), counted(tally.commands, "command"))
}

/// The same as one JSON document: `same`, the counts, and what else there is to say.
#[must_use]
pub fn document(replayed: &Replay) -> Value {
    let Tally { lives, events, commands } = replayed.tally;
    let mut document = json!({ "schema": 1, "lives": lives, "events": events, "commands": commands });
    let more = match &replayed.verdict {
        Verdict::Same { end } => json!({ "same": true, "cut": *end == End::Cut }),
        Verdict::Damaged { line, what } => json!({ "same": false, "line": line, "damaged": what }),
        Verdict::Parts(parting) => json!({
            "same": false,
            "line": parting.line,
            "link": parting.label,
            "at_nanos": parting.at.as_nanos(),
            "told_line": parting.told_line,
            "told": parting.told,
            "recorded": parting.recorded,
            "instead": parting.instead,
        }),
    };
    if let (Value::Object(document), Value::Object(more)) = (&mut document, more) {
        document.extend(more);
    }
    document
}

/// How far it has come, on standard error, where somebody is watching.
struct Progress {
    length: u64,
    last: BootInstant,
    watched: bool,
}

impl Progress {
    fn new(path: &Path, length: u64, watched: bool) -> Result<Self> {
        if watched {
            say(&format!("replaying {}, {}", path.display(), octets(length)));
        }
        Ok(Self { length, last: boot_now()?, watched })
    }

    fn at(&mut self, done: u64) {
        let Ok(now) = boot_now() else { return };
        if self.watched && now >= self.last.plus(WORD) {
            self.last = now;
            say(&format!("{} of {}", octets(done), octets(self.length)));
        }
    }
}

#[expect(clippy::print_stderr, reason = "progress is no part of the answer on standard output")]
fn say(words: &str) {
    eprintln!("{words}");
}
