//! Torture: sustained traffic over two metered links while everything that can break does, again and again, and then the proof that
//! not one octet was lost, charged twice, or passed over a ceiling.

mod plan;
mod progress;
mod report;
mod settlement;
mod stage;
mod strikes;
mod tally;
mod traffic;
mod wire;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use fastrand::Rng;

use self::plan::{Plan, Setting};
use self::progress::{Progress, say};
use self::report::Report;
use self::settlement::Outcome;
use self::stage::Stage;
use crate::bpffs::copy_tree;
use crate::clock::{Deadline, now};
use crate::reconciliation::Reconciliation;
use crate::words::exactly;
use crate::{netns, process};

/// Time for what follows the last blow.
const AFTERWARDS: Duration = Duration::from_mins(10);

/// How long, and with which luck.
#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "weir-torture",
    version,
    about = "Kills, faults and broken links under sustained traffic, then the books to the octet"
)]
pub struct Options {
    /// How many minutes the blows go on
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub minutes: u32,
    /// Plays the blows of an earlier run again; drawn and printed when left out
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Plays a run; an error if any two figures differ by one octet, or anybody did not come back. Needs root.
pub fn run(options: &Options) -> Result<()> {
    ensure!(
        netns::require_root().is_ok(),
        "it makes network namespaces and loads BPF programs, which needs root: run `cargo xtask torture`"
    );
    process::keep_logs_silent();
    progress::heed_interrupts();
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    say(&format!("torture: seed {seed}, {} min of blows, then the reckoning", options.minutes));
    let lasts = Duration::from_secs(u64::from(options.minutes) * 60);
    torture(seed, lasts)
        .with_context(|| format!("play it again with: cargo xtask torture --minutes {} --seed {seed}", options.minutes))
}

/// One run from its beginning to the report.
pub fn torture(seed: u64, lasts: Duration) -> Result<()> {
    let begin = now();
    let mut random = Rng::with_seed(seed);
    let setting = Setting::draw(&mut random);
    say(&format!("torture: {}", setting.words()));
    let mut stage = Stage::build(setting.clone(), random.fork(), lasts + AFTERWARDS)?;
    let outcome = play(&mut stage, Plan::new(random), lasts);
    progress::stay_if_interrupted();
    let mut report = Report::new(seed, (now() - begin).as_secs(), setting, &stage.tally);
    report.read_logs(stage.world.workdir.path());
    match outcome {
        Ok(outcome) => report.add(&outcome),
        Err(error) => report.wrong.push(format!("{error:#}")),
    }
    say(&report.text());
    let directory = directory()?;
    say(&format!("torture: the report as JSON: {}", report.write(&directory)?.display()));
    if report.wrong.is_empty() {
        let billed = report.figures.get("sum").map_or(0, Reconciliation::billed);
        say(&format!("torture: not one octet of difference: {} octets, {} s.", exactly(billed), report.seconds));
        return Ok(());
    }
    let evidence = directory.join(seed.to_string());
    copy_tree(stage.world.workdir.path(), &evidence)?;
    say(&format!("torture: logs, databases and the journal of the blows: {}", evidence.display()));
    Err(anyhow!("{}", report.wrong.join("\n")))
}

fn play(stage: &mut Stage, plan: Plan, lasts: Duration) -> Result<Outcome> {
    let (end, mut progress) = (Deadline::after(lasts), Progress::new());
    for (pause, blow) in plan {
        let pause = Deadline::after(pause.min(end.remaining()));
        while !pause.passed() {
            stage.go_on_for(pause.remaining().min(Duration::from_millis(100)))?;
            progress.show(end.remaining(), &stage.tally, stage.last_blow());
        }
        if end.passed() {
            break;
        }
        stage.strike(&blow).with_context(|| format!("{blow:?}"))?;
        progress.show(end.remaining(), &stage.tally, blow.kind());
    }
    progress.end();
    say("torture: the blows are over; waiting for service, settling, comparing");
    settlement::settle(stage)
}

/// `target/torture`, beside the folder that this program is in.
fn directory() -> Result<PathBuf> {
    let here = std::env::current_exe().context("where this program is")?;
    let tag = here.ancestors().find(|directory| directory.join("CACHEDIR.TAG").exists());
    Ok(tag.map_or_else(std::env::temp_dir, PathBuf::from).join("torture"))
}
