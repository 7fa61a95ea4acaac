//! What a run has shown: a table for people, the same as JSON for machines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::plan::Setting;
use super::settlement::Outcome;
use super::tally::Tally;
use crate::reconciliation::Reconciliation;

/// Everything that is to be known of a run.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) seconds: u64,
    /// The world in one line, and what its packages were sold as.
    pub(super) world: String,
    pub(super) setting: Setting,
    pub(super) blows: BTreeMap<&'static str, u64>,
    pub(super) agent_kills: u64,
    pub(super) server_kills: u64,
    pub(super) agent_starts: u64,
    /// How often each fault of the server struck, by its log.
    pub(super) faults: BTreeMap<String, u64>,
    pub(super) flow_restarts: u64,
    pub(super) audits: u64,
    pub(super) longest_standstill_seconds: f32,
    /// Messages that were sent once more, by the agent's log.
    pub(super) resent: u64,
    pub(super) epochs: usize,
    pub(super) sessions: usize,
    pub(super) duplicates: usize,
    /// `wan0`, `wan1`, and both together.
    pub(super) figures: BTreeMap<String, Reconciliation>,
    /// What is not as it must be; empty when all is well.
    pub(super) wrong: Vec<String>,
}

impl Report {
    pub(super) fn new(seed: u64, seconds: u64, setting: Setting, tally: &Tally) -> Self {
        Self {
            seed,
            seconds,
            world: setting.words(),
            setting,
            blows: tally.blows.clone(),
            agent_kills: tally.agent_kills,
            server_kills: tally.server_kills,
            agent_starts: tally.agent_starts,
            faults: BTreeMap::new(),
            flow_restarts: tally.flow_restarts,
            audits: tally.audits,
            longest_standstill_seconds: tally.longest_standstill.as_secs_f32(),
            resent: 0,
            epochs: 0,
            sessions: 0,
            duplicates: 0,
            figures: BTreeMap::new(),
            wrong: Vec::new(),
        }
    }

    /// Takes in what was compared in the end.
    pub(super) fn add(&mut self, outcome: &Outcome) {
        self.epochs = outcome.epochs;
        self.sessions = outcome.sessions;
        self.duplicates = outcome.duplicates;
        self.wrong.clone_from(&outcome.wrong);
        for (link, figures) in outcome.links.iter().enumerate() {
            self.figures.insert(format!("wan{link}"), *figures);
        }
        self.figures.insert("sum".into(), outcome.sum);
    }

    /// Takes in what only the logs tell.
    pub(super) fn read_logs(&mut self, directory: &Path) {
        // Nothing is decided by these counts; a log that cannot be read counts nothing.
        let server = fs::read_to_string(directory.join("weir-server.err")).unwrap_or_default();
        self.faults = faults(&server);
        let agent = fs::read_to_string(directory.join("weir.err")).unwrap_or_default();
        self.resent = resent(&agent);
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        let list = |counts: &mut dyn Iterator<Item = (&str, u64)>| {
            counts.map(|(name, count)| format!("{count} {name}")).collect::<Vec<_>>().join(", ")
        };
        let mut line = |name: &str, words: String| {
            let _ = writeln!(text, "{name:<22}{words}");
        };
        line("kills", format!("{} agent, {} server", self.agent_kills, self.server_kills));
        line("blows", list(&mut self.blows.iter().map(|(name, count)| (*name, *count))));
        line("faults that struck", list(&mut self.faults.iter().map(|(name, count)| (name.as_str(), *count))));
        line(
            "agent started",
            format!("{} times; {} meters, {} sessions", self.agent_starts, self.epochs, self.sessions),
        );
        line("messages sent again", format!("{}; containers recognised as known: {}", self.resent, self.duplicates));
        line("client's flows", format!("begun anew {} times", self.flow_restarts));
        line("longest standstill", format!("{:.1} s without a packet on any link", self.longest_standstill_seconds));
        line("wire against kernel", format!("agreed {} times on the way", self.audits));
        for (name, figures) in &self.figures {
            let name = if name == "sum" { "both links" } else { name };
            let _ = writeln!(text, "\n{name}\n{}", figures.table());
        }
        text
    }

    /// Writes `<seed>.json` into a directory, and answers where.
    pub(super) fn write(&self, directory: &Path) -> Result<PathBuf> {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        let path = directory.join(format!("{}.json", self.seed));
        let text = serde_json::to_string_pretty(self).context("the report as JSON")?;
        fs::write(&path, text + "\n").with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }
}

/// How often each kind of fault struck, by the server's log.
fn faults(log: &str) -> BTreeMap<String, u64> {
    let mut faults = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains("a fault strikes")) {
        let plain = without_colours(line);
        if let Some((_, rest)) = plain.split_once("fault=") {
            let name: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
            *faults.entry(name).or_default() += 1;
        }
    }
    faults
}

/// How many messages were sent that had been sent before, by the agent's log.
fn resent(log: &str) -> u64 {
    let again = |line: &&str| line.contains("Send {") && !without_colours(line).contains("attempt: 1,");
    u64::try_from(log.lines().filter(again).count()).unwrap_or(u64::MAX)
}

/// A line without the control sequences that colour it.
fn without_colours(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('\u{1b}') {
        text.push_str(before);
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_counted_by_kind_in_a_log_with_and_without_colours() {
        let log = "WARN a fault strikes kind=\"update\" fault=DropAnswer\n\
                   \u{1b}[33mWARN\u{1b}[0m a fault strikes \u{1b}[3mkind\u{1b}[0m=\"any\" \u{1b}[3mfault\u{1b}[0m\u{1b}[2m=\u{1b}[0mDropAnswer\n\
                   WARN a fault strikes kind=\"plan\" fault=Garbage\nINFO answered\n";
        let counted = faults(log);
        assert_eq!(counted.get("DropAnswer"), Some(&2), "{counted:?}");
        assert_eq!(counted.get("Garbage"), Some(&1), "{counted:?}");
    }
}
