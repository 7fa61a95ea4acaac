//! The command line of the simulator: so many schedules, or one with all that happens in it.

use std::env;
use std::io::{self, IsTerminal as _, Write as _};
use std::num::NonZero;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use super::play::{Failure, many, one, replay};
use super::schedule::Setup;
use super::shrink::shrink;
use super::tally::{Faults, Tally, wanted};

/// How often a sign of life is shown where there is no terminal.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// Characters of what was found that are shown: a whole core is long.
const FOUND: usize = 800;

/// `schedules COUNT FROM` plays so many from that seed on; `seed SEED` plays one and says everything; `caught COUNT` ends
/// with 0 when one of so many fails, without a word but that.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let numbers: Option<Vec<u64>> = arguments.iter().skip(1).map(|text| text.parse().ok()).collect();
    match (arguments.first().map(String::as_str), numbers.as_deref()) {
        (Some("schedules"), Some([count, from])) => schedules(*count, *from),
        (Some("seed"), Some([seed])) => seed_of(*seed),
        (Some("caught"), Some([count])) => caught(*count),
        _ => {
            say("usage: weir-sim schedules COUNT FROM | seed SEED | caught COUNT");
            ExitCode::from(64)
        }
    }
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

#[expect(clippy::disallowed_methods, reason = "the seconds shown to the reader; nothing is decided by them")]
fn schedules(count: u64, from: u64) -> ExitCode {
    let start = Instant::now();
    let seen = Mutex::new((0_u64, Faults::default(), Duration::ZERO));
    let terminal = io::stdout().is_terminal();
    let progress = |struck: Faults| {
        let Ok(mut seen) = seen.lock() else { return };
        let (done, faults, last) = &mut *seen;
        *done += 1;
        faults.add(struck);
        let elapsed = start.elapsed();
        let pause = if terminal { Duration::from_millis(200) } else { SIGN_OF_LIFE };
        if elapsed < *last + pause {
            return;
        }
        *last = elapsed;
        let Faults { deaths, network, server, links, power } = *faults;
        let line = format!(
            "{done} of {count} schedules, {} a second; struck: agent {deaths}, network {network}, server {server}, \
             links {links}, power {power}",
            rate(*done, elapsed)
        );
        if terminal {
            let _ = write!(io::stdout(), "\r    {line} ");
            let _ = io::stdout().flush();
        } else {
            say(&format!("    {line}"));
        }
    };
    let (tally, failure) = many(from, count, threads(), &progress);
    if terminal {
        say("");
    }
    if let Some(failure) = failure {
        tell(&failure);
        return ExitCode::FAILURE;
    }
    summary(&tally);
    let elapsed = start.elapsed();
    say(&format!(
        "{count} schedules from seed {from}, {} steps, {} s ({} a second): no invariant was broken",
        tally.total("steps"),
        elapsed.as_secs(),
        rate(count, elapsed)
    ));
    ExitCode::SUCCESS
}

fn rate(done: u64, elapsed: Duration) -> u128 {
    u128::from(done) * 1_000 / elapsed.as_millis().max(1)
}

/// How often each thing was really reached.
fn summary(tally: &Tally) {
    for (group, kinds) in wanted() {
        let all: Vec<String> = kinds.iter().map(|kind| format!("{kind} {}", tally.of(group, kind))).collect();
        say(&format!("{group}: {}", all.join(", ")));
    }
    let crashes: Vec<String> = tally.crashes().map(|(at, count)| format!("{at} {count}")).collect();
    say(&format!("died: {}", crashes.join(", ")));
}

/// The seed, what broke, and a short schedule that breaks the same.
fn tell(failure: &Failure) {
    say(&format!("seed {}: BROKEN: {}", failure.seed, failure.broken.rule));
    say(&format!("  {}", beginning(&failure.broken.found)));
    let short = shrink(failure);
    say(&format!("shrunk from {} steps to {}:", failure.steps.len(), short.steps.len()));
    let setup = Setup::of(short.seed);
    say(&format!("    a world of {} links; packages: {:?}", setup.links, setup.sims));
    for (at, step) in short.steps.iter().enumerate() {
        say(&format!("    {:2}  {step}", at + 1));
    }
    say(&format!("  {}", beginning(&short.broken.found)));
    say(&format!("replay: cargo xtask sim --seed {}", failure.seed));
}

/// As much as a reader looks at.
fn beginning(text: &str) -> String {
    let shown: String = text.chars().take(FOUND).collect();
    if shown.len() < text.len() { shown + " …" } else { shown }
}

/// Plays one schedule with all that happens in it; when it fails, the short one.
fn seed_of(seed: u64) -> ExitCode {
    let mut trace = Vec::new();
    let (tally, failure) = one(seed, Some(&mut trace));
    let Some(failure) = failure else {
        say(&trace.join("\n"));
        summary(&tally);
        say(&format!("seed {seed}: no invariant was broken"));
        return ExitCode::SUCCESS;
    };
    let short = shrink(&failure);
    let broken = replay(seed, &short.steps, Some(&mut trace));
    say(&trace.join("\n"));
    if broken.is_err() {
        say("");
    }
    tell(&failure);
    ExitCode::FAILURE
}

/// For a core with a bug planted: 0 when one of the first schedules catches it.
fn caught(count: u64) -> ExitCode {
    let (_, failure) = many(0, count, 1, &|_| ());
    let Some(failure) = failure else {
        say(&format!("not caught in {count} schedules"));
        return ExitCode::FAILURE;
    };
    let short = shrink(&failure);
    say(&format!("seed {}, {} steps: {}", failure.seed, short.steps.len(), failure.broken.rule));
    ExitCode::SUCCESS
}

/// One line for the reader; a closed pipe (`| head`) is the reader's choice.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
