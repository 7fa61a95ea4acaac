//! Plays a recording through the core of this very binary, and says where the two part.

use std::collections::BTreeMap;
use std::io::BufRead;

use anyhow::{Context, Result};

use super::{Birth, Life, Line, SCHEMA};
use crate::quota::{Event, Quota};
use crate::units::BootInstant;

/// What a replay has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// What was played, up to where it ended.
    pub tally: Tally,
    /// How it ended.
    pub verdict: Verdict,
}

/// How much was played.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Lives of the agent.
    pub lives: u64,
    /// What the cores were told.
    pub events: u64,
    /// Commands that were compared.
    pub commands: u64,
}

/// How a replay ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// At the end of the recording: this core did the same.
    Same {
        /// What follows the last whole line, if anything does.
        end: End,
    },
    /// This core did something else.
    Parts(Box<Parting>),
    /// A line cannot be read, or cannot be where it is.
    Damaged {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
}

/// How a recording ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a whole line.
    Whole,
    /// In the middle of a line: power was cut, or it is still being written.
    Cut,
}

/// Where recording and core part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parting {
    /// The line at which it shows, from 1.
    pub line: u64,
    /// The link.
    pub label: String,
    /// When.
    pub at: BootInstant,
    /// The line of what the core was told last.
    pub told_line: u64,
    /// What it was told.
    pub told: String,
    /// The command that was recorded; `None` = no further one.
    pub recorded: Option<String>,
    /// The command of this core; `None` = no further one.
    pub instead: Option<String>,
}

/// Plays a recording to its end, or to where it cannot go on. `progress` is called now and then with the octets played so far.
pub fn replay(mut recording: impl BufRead, progress: &mut dyn FnMut(u64)) -> Result<Replay> {
    let mut player = Player::default();
    let (mut number, mut octets, mut text) = (0_u64, 0_u64, Vec::new());
    loop {
        text.clear();
        let length = recording.read_until(b'\n', &mut text).context("reading the recording")?;
        octets += u64::try_from(length)?;
        number += 1;
        if length == 0 {
            return Ok(player.end(number, End::Whole));
        }
        let verdict = match serde_json::from_slice(&text) {
            Ok(line) => player.take(number, line),
            Err(_) if text.last() != Some(&b'\n') => return Ok(player.end(number, End::Cut)),
            Err(error) => Err(player.unreadable(number, &error)),
        };
        if let Err(verdict) = verdict {
            return Ok(Replay { tally: player.tally, verdict });
        }
        if number.is_multiple_of(1024) {
            progress(octets);
        }
    }
}

fn damaged(line: u64, what: &impl ToString) -> Verdict {
    Verdict::Damaged { line, what: what.to_string() }
}

/// The cores of the present life.
#[derive(Default)]
struct Player {
    tally: Tally,
    /// Who recorded it.
    version: String,
    cores: BTreeMap<u32, Played>,
}

struct Played {
    label: String,
    quota: Quota,
    at: BootInstant,
    told_line: u64,
    told: Told,
}

enum Told {
    Birth,
    Event(Box<Event>),
    Timeout,
}

impl Player {
    fn end(self, line: u64, end: End) -> Replay {
        let verdict =
            if self.tally.lives == 0 { damaged(line, &"nothing is recorded here") } else { Verdict::Same { end } };
        Replay { tally: self.tally, verdict }
    }

    fn take(&mut self, number: u64, line: Line) -> Result<(), Verdict> {
        if self.tally.lives == 0 && !matches!(line, Line::Life(_)) {
            return Err(damaged(number, &"a recording begins with the life of an agent"));
        }
        match line {
            Line::Life(beginning) => self.begin(number, &beginning),
            Line::Core { core, birth } => self.bear(number, core, birth),
            Line::Event { core, at, pending, event } => {
                self.tell(number, core, at, pending, Told::Event(Box::new(event)))
            }
            Line::Timeout { core, at, pending } => self.tell(number, core, at, pending, Told::Timeout),
            Line::Command { core, command } => self.compare(number, core, &command),
        }
    }

    /// Not JSON is damage; JSON that says something else may be the word of another version.
    fn unreadable(&self, number: u64, error: &serde_json::Error) -> Verdict {
        if self.version.is_empty() {
            return damaged(number, &format!("this is no recording, as `weir run --record FILE` writes it: {error}"));
        }
        if !error.is_data() {
            return damaged(number, error);
        }
        let (recorded, own) = (&self.version, env!("CARGO_PKG_VERSION"));
        damaged(number, &format!("unknown to this weir ({own}; the recording is of {recorded}): {error}"))
    }

    fn begin(&mut self, number: u64, life: &Life) -> Result<(), Verdict> {
        if life.schema != SCHEMA {
            let Life { schema, version, .. } = life;
            let what = format!(
                "recorded by weir {version} with schema {schema}, and this weir plays schema {SCHEMA}: use that version"
            );
            return Err(damaged(number, &what));
        }
        // What the agent died over was not taken any more: there is nothing to compare it with.
        self.cores.clear();
        self.version.clone_from(&life.version);
        self.tally.lives += 1;
        Ok(())
    }

    fn bear(&mut self, number: u64, core: u32, birth: Birth) -> Result<(), Verdict> {
        let (label, at) = (birth.label.clone(), birth.at);
        let played = Played { label, quota: birth.quota(), at, told_line: number, told: Told::Birth };
        match self.cores.insert(core, played) {
            None => Ok(()),
            Some(before) => Err(damaged(number, &format!("core {core} ({}) begins twice in one life", before.label))),
        }
    }

    fn core(&mut self, number: u64, core: u32) -> Result<&mut Played, Verdict> {
        self.cores.get_mut(&core).ok_or_else(|| damaged(number, &format!("core {core} has not begun in this life")))
    }

    fn tell(&mut self, number: u64, core: u32, at: BootInstant, pending: bool, told: Told) -> Result<(), Verdict> {
        let played = self.core(number, core)?;
        // The agent took commands until there were none, unless it says otherwise.
        if !pending && let Some(command) = played.quota.poll_command() {
            return Err(played.parts(number, None, Some(format!("{command:?}"))));
        }
        (played.at, played.told_line) = (at, number);
        match &told {
            Told::Birth => {}
            Told::Event(event) => played.quota.handle_event(Event::clone(event), at),
            Told::Timeout => played.quota.handle_timeout(at),
        }
        played.told = told;
        self.tally.events += 1;
        Ok(())
    }

    fn compare(&mut self, number: u64, core: u32, recorded: &str) -> Result<(), Verdict> {
        let played = self.core(number, core)?;
        let instead = played.quota.poll_command().map(|command| format!("{command:?}"));
        if instead.as_deref() != Some(recorded) {
            return Err(played.parts(number, Some(recorded.to_owned()), instead));
        }
        self.tally.commands += 1;
        Ok(())
    }
}

impl Played {
    fn parts(&self, line: u64, recorded: Option<String>, instead: Option<String>) -> Verdict {
        let told = match &self.told {
            Told::Birth => "it began".to_owned(),
            Told::Event(event) => format!("{event:?}"),
            Told::Timeout => "the time".to_owned(),
        };
        let (label, told_line) = (self.label.clone(), self.told_line);
        Verdict::Parts(Box::new(Parting { line, label, at: self.at, told_line, told, recorded, instead }))
    }
}
