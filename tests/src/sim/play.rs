//! Plays schedules: one, or many on all processors, with the same result whatever their number.

use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;

use super::Broken;
use super::chance::{Chance, mix};
use super::draw::draw;
use super::schedule::Setup;
use super::step::Step;
use super::tally::{Faults, Tally};
use super::world::World;

/// Steps of a schedule, before everything is settled.
const STEPS: u32 = 300;

/// A schedule that broke an invariant.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed of its world.
    pub seed: u64,
    /// Its steps, up to the one that broke it; all of them when it broke while settling.
    pub steps: Vec<Step>,
    /// What did not hold.
    pub broken: Broken,
}

/// Plays the schedule that the seed stands for; with a trace, every event and command is noted in it.
#[must_use]
pub fn one(seed: u64, trace: Option<&mut Vec<String>>) -> (Tally, Option<Failure>) {
    let mut chance = Chance::new(mix(seed, 2));
    let mut steps = Vec::new();
    let (tally, result) = guarded(seed, trace, |world| {
        for step in [Step::Start].into_iter().chain((0..world.setup.links).map(|_| Step::Attach { link: 0 })) {
            steps.push(step);
            world.play(&step)?;
        }
        for _ in 0..STEPS {
            let step = draw(&world.setup, world.sight(), &mut chance);
            steps.push(step);
            world.play(&step)?;
        }
        world.finish()
    });
    (tally, result.err().map(|broken| Failure { seed, steps, broken }))
}

/// Plays these steps in the world of the seed, then settles.
pub(super) fn replay(seed: u64, steps: &[Step], trace: Option<&mut Vec<String>>) -> Result<(), Broken> {
    let play = |world: &mut World| {
        steps.iter().try_for_each(|step| world.play(step))?;
        world.finish()
    };
    guarded(seed, trace, play).1
}

/// Plays the schedules of the seeds `from .. from + count` on so many threads. The failure is that of the lowest seed, whatever the number
/// of threads. `progress` is called after each schedule with what struck it.
pub fn many(from: u64, count: u64, threads: usize, progress: &(dyn Fn(Faults) + Sync)) -> (Tally, Option<Failure>) {
    let next = AtomicU64::new(0);
    let end = AtomicU64::new(count);
    let found: Mutex<(Tally, Option<Failure>)> = Mutex::default();
    let work = || {
        let mut own = Tally::default();
        let mut own_failure: Option<Failure> = None;
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            if at >= end.load(Ordering::Relaxed) {
                break;
            }
            let (tally, failure) = one(from.wrapping_add(at), None);
            let struck = tally.faults();
            own.add(&tally);
            if let Some(failure) = failure {
                // Seeds below this one are still played: one of them may fail as well.
                end.fetch_min(at, Ordering::Relaxed);
                own_failure = own_failure.take().filter(|other| other.seed < failure.seed).or(Some(failure));
            }
            progress(struck);
        }
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.0.add(&own);
        if let Some(failure) = own_failure {
            found.1 = found.1.take().filter(|other| other.seed < failure.seed).or(Some(failure));
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    static PLAYING: Cell<bool> = const { Cell::new(false) };
    static LAST_WORDS: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Plays in a new world. A panic of the core is a broken invariant like any other.
fn guarded(
    seed: u64,
    trace: Option<&mut Vec<String>>,
    play: impl FnOnce(&mut World) -> Result<(), Broken>,
) -> (Tally, Result<(), Broken>) {
    keep_panics_quiet();
    let mut world = World::new(Setup::of(seed));
    world.trace = trace.as_ref().map(|_| Vec::new());
    PLAYING.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(|| play(&mut world)));
    PLAYING.set(false);
    let result = result.unwrap_or_else(|_| Err(Broken::new("nothing panics", LAST_WORDS.take())));
    if let (Some(wanted), Some(noted)) = (trace, world.trace) {
        *wanted = noted;
    }
    (world.tally, result)
}

/// While a schedule is played, a panic is kept for whoever asked, not printed.
fn keep_panics_quiet() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if PLAYING.get() {
                LAST_WORDS.set(info.to_string());
            } else {
                usual(info);
            }
        }));
    });
}
