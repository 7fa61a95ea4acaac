//! `weir check`: one line and an exit status for monitoring (Nagios, Icinga, a script), and a command at each crossing.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

use super::words::{Screen, percent};
use super::{as_json, no_such_link, print, runtime, socket};
use crate::args;
use crate::failure::EXIT_UNKNOWN;
use crate::local::{self, LinkStatus, Status};

/// The outcomes that monitoring knows, from the harmless to what it wants looked at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Level {
    /// All is well.
    Ok,
    /// What was to be checked is not known.
    Unknown,
    /// Somebody should look before long.
    Warning,
    /// Somebody should look now.
    Critical,
}

impl Level {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Unknown => "UNKNOWN",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
        }
    }

    /// The exit status by the plugin rules of Nagios.
    const fn status(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => EXIT_UNKNOWN,
        }
    }
}

/// What a check comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    schema: u32,
    /// The outcome.
    pub level: Level,
    /// Why, in one line.
    pub message: String,
    /// Figures for graphs, as monitoring wants them written.
    pub figures: Vec<String>,
}

impl Verdict {
    /// The line that monitoring reads.
    #[must_use]
    pub fn line(&self) -> String {
        let figures = if self.figures.is_empty() { String::new() } else { format!(" | {}", self.figures.join(" ")) };
        format!("WEIR {} - {}{figures}\n", self.level.word(), self.message)
    }
}

/// Checks, prints, and runs the hook where the outcome has become another one. Monitoring reads standard output and knows four exit
/// statuses: whatever goes wrong is said there, and is UNKNOWN.
pub fn run(asked: &args::Check) -> Result<ExitCode> {
    let screen = Screen { width: usize::MAX, colour: false, units: asked.units };
    let mut verdict = if asked.warn > asked.crit {
        let (warn, crit) = (asked.warn, asked.crit);
        unknown(&format!("--warn {warn}% is above --crit {crit}%: a warning comes before what is critical"))
    } else {
        let asking = runtime().and_then(|runtime| runtime.block_on(local::fetch(&socket(&asked.whom)?)));
        asking.map_or_else(|error| unknown(&format!("{error:#}")), |status| judge(&status, asked, &screen))
    };
    if let (Some(hook), Some(state)) = (&asked.hook, &asked.state)
        && let Err(error) = cross(hook, state, &verdict)
    {
        verdict.level = verdict.level.max(Level::Unknown);
        verdict.message = format!("{}; {error:#}", verdict.message);
    }
    print(&if asked.json { as_json(&verdict)? } else { verdict.line() })?;
    Ok(ExitCode::from(verdict.level.status()))
}

/// A check that could not be made.
#[must_use]
pub fn unknown(message: &str) -> Verdict {
    Verdict { schema: 1, level: Level::Unknown, message: in_one_line(message), figures: Vec::new() }
}

/// What stands behind a bar is taken for figures, and a second line is left out.
fn in_one_line(message: &str) -> String {
    message.replace(['|', '\n'], " ")
}

/// What the status comes to.
#[must_use]
pub fn judge(status: &Status, asked: &args::Check, screen: &Screen) -> Verdict {
    let meant = |link: &&LinkStatus| asked.link.as_deref().is_none_or(|name| name == link.link);
    let links: Vec<&LinkStatus> = status.links.iter().filter(meant).collect();
    if links.is_empty() {
        return unknown(&no_such_link(asked.link.as_deref(), status));
    }
    let mut found = of_agent(status, screen);
    let mut figures = Vec::new();
    for link in links {
        found.push(of_link(link, status, asked, screen));
        figures.extend(figures_of(link, asked));
    }
    let level = found.iter().map(|(level, _)| *level).max().unwrap_or(Level::Ok);
    // The worst first; what is well is left out beside what is not.
    found.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
    let told = found.iter().filter(|(each, _)| level == Level::Ok || *each != Level::Ok);
    let message = told.map(|(_, words)| words.as_str()).collect::<Vec<_>>().join("; ");
    Verdict { schema: 1, level, message: in_one_line(&message), figures }
}

/// What is wrong with the agent as a whole.
fn of_agent(status: &Status, screen: &Screen) -> Vec<(Level, String)> {
    let mut found = Vec::new();
    if let Some(trouble) = &status.ledger_trouble {
        found.push((Level::Critical, trouble.clone()));
    }
    if status.ledger_drift_octets > 0 {
        found.push((
            Level::Critical,
            format!("the ledger's books do not close: {} octets are astray", status.ledger_drift_octets),
        ));
    }
    found.extend(status.ledger_damage.iter().map(|damage| (Level::Critical, damage.clone())));
    if status.set_aside_octets > 0 {
        let octets = screen.octets(status.set_aside_octets);
        found.push((Level::Warning, format!("{octets} refused by the server (`weir ledger` says why)")));
    }
    if status.in_doubt_octets > 0 {
        let octets = screen.octets(status.in_doubt_octets);
        found.push((Level::Warning, format!("{octets} in doubt: sent once without an answer, and not again")));
    }
    if !status.ledger_persistent {
        found.push((Level::Warning, "the ledger lies in memory".to_owned()));
    }
    found
}

fn of_link(link: &LinkStatus, status: &Status, asked: &args::Check, screen: &Screen) -> (Level, String) {
    let name = &link.link;
    if !link.exists {
        return (Level::Warning, format!("{name}: {}", link.explanation));
    }
    if !link.metered {
        return (Level::Critical, format!("{name} is not metered: {}", link.explanation));
    }
    if link.subscriber.is_none() {
        // At the start that is so for a moment. It stays so where onboarding fails, and then nothing passes.
        let (level, why) = match &status.onboarding_trouble {
            Some(trouble) => (Level::Critical, trouble),
            None => (Level::Unknown, &status.onboarding),
        };
        return (level, format!("{name}: {}; onboarding: {why}", link.explanation));
    }
    if link.aborted {
        return (Level::Critical, format!("{name}: {}", link.explanation));
    }
    match link.state.as_str() {
        "exhausted" => return (Level::Critical, format!("{name}: {}", link.explanation)),
        "offline" => return (Level::Warning, format!("{name}: {}", link.explanation)),
        _ => {}
    }
    let Some((bought, left)) = link.package.bought_octets.zip(link.package.left_octets) else {
        let words = format!("{name} is {}, and the server does not say what is left of the package", link.state);
        return (Level::Unknown, words);
    };
    let used = bought.saturating_sub(left);
    let is_above = |share: u8| u128::from(used) * 100 >= u128::from(bought) * u128::from(share);
    let level = match () {
        () if is_above(asked.crit) => Level::Critical,
        () if is_above(asked.warn) => Level::Warning,
        () => Level::Ok,
    };
    (level, format!("{name}: {} of the package used, {} left", percent(used, bought), screen.octets(left)))
}

fn figures_of(link: &LinkStatus, asked: &args::Check) -> Vec<String> {
    let name = &link.link;
    let mut figures = vec![format!("'{name} unreported'={}B;;;0", link.unreported_octets)];
    if let Some((bought, left)) = link.package.bought_octets.zip(link.package.left_octets) {
        let used = percent(bought.saturating_sub(left), bought);
        figures.push(format!("'{name} used'={used};{};{};0;100", asked.warn, asked.crit));
        figures.push(format!("'{name} left'={left}B;;;0;{bought}"));
    }
    figures
}

/// Runs the hook when the outcome is not the one of the last check; a hook that fails is run again by the next one.
fn cross(hook: &str, state: &Path, verdict: &Verdict) -> Result<()> {
    let before = match fs::read_to_string(state) {
        Ok(text) => {
            let text = text.trim();
            let level = serde_json::from_value(text.into()).ok();
            let other = || {
                format!(
                    "{} holds no outcome of a check but {text:?}; remove it, or name another file (--state)",
                    state.display()
                )
            };
            Some(level.with_context(other)?)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("reading {}", state.display())),
    };
    // The first check ever crosses nothing when all is well.
    let before: Level = before.unwrap_or(Level::Ok);
    if before != verdict.level {
        let ended = Command::new("sh")
            .args(["-c", hook])
            .env("WEIR_STATE", verdict.level.word())
            .env("WEIR_BEFORE", before.word())
            .env("WEIR_MESSAGE", &verdict.message)
            .status()
            .with_context(|| format!("running the hook {hook:?}"))?;
        ensure!(ended.success(), "the hook {hook:?} ended with {ended}; it is run again by the next check");
    }
    let fresh = state.with_extension("new");
    let unkept = |error: std::io::Error| {
        anyhow!("the outcome cannot be kept in {}: {error}; name another file (--state)", state.display())
    };
    let word = format!("{}\n", verdict.level.word());
    fs::write(&fresh, word).and_then(|()| fs::rename(&fresh, state)).map_err(unkept)
}
