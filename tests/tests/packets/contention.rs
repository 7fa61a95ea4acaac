//! Every processor at one gate at once: nothing over the ceiling, every octet counted once, and what is refused although it would have
//! fitted is bounded. The same trials find out gates that are wrong.

use agent::datapath::Counting;
use anyhow::{Context as _, Result, ensure};
use e2e::contention::{METER, Trial, Trials, Way};
use e2e::testrun::Programs;

/// As many for each way of counting.
const TRIALS: u32 = 10_000;
/// Packets of each processor in a trial.
const TIMES: u32 = 200;

/// Rooms from a quarter to three quarters of what is sent: the ceiling is reached while all are at it.
fn room(trials: &Trials, random: &mut fastrand::Rng) -> u64 {
    random.u64(trials.sent() / 4..trials.sent() * 3 / 4)
}

#[test]
fn ten_thousand_times_all_processors_reach_the_ceiling_together_and_none_passes_it() -> Result<()> {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for counting in [Counting::of_this_kernel(), Counting::Locked] {
        let mut trials = Trials::new(Programs::meter(counting)?, METER, [1200, 60], TIMES)?;
        for trial in 1..=TRIALS {
            let room = room(&trials, &mut random);
            let Trial { passed, .. } =
                trials.play(room).with_context(|| format!("trial {trial}, {counting:?}, seed {seed}"))?;
            // A packet is only refused when it does not fit beside those that are under way.
            ensure!(room - passed < trials.under_way(), "trial {trial}, seed {seed}: {passed} of {room}");
        }
    }
    Ok(())
}

#[test]
fn what_would_have_fitted_is_refused_for_fewer_packets_than_there_are_processors() -> Result<()> {
    let mut trials = Trials::new(Programs::meter(Counting::of_this_kernel())?, METER, [100, 100], TIMES)?;
    let packet = trials.under_way() / trials.senders();
    for trial in 1..=TRIALS {
        // All that is sent but one packet.
        let Trial { refused_packets, .. } = trials.play(trials.sent() - packet)?;
        ensure!((1..=trials.senders()).contains(&refused_packets), "trial {trial}: {refused_packets} were refused");
    }
    Ok(())
}

/// Plays until something is found to be wrong.
fn is_found_out(program: &'static str) -> Result<()> {
    let way = Way { names: [program; 2], uncounted: 0 };
    let mut random = fastrand::Rng::new();
    let mut trials = Trials::new(Programs::yardstick()?, way, [60, 60], TIMES)?;
    for _ in 0..TRIALS {
        let room = room(&trials, &mut random);
        if trials.play(room).is_err() {
            return Ok(());
        }
    }
    anyhow::bail!("{program}: {TRIALS} trials, and nothing was found to be wrong")
}

#[test]
fn a_gate_that_checks_before_it_adds_is_found_out() -> Result<()> {
    is_found_out("check_then_add")
}

#[test]
fn a_gate_that_adds_without_a_lock_is_found_out() -> Result<()> {
    is_found_out("add_without_lock")
}

#[test]
fn a_gate_that_gives_nothing_back_is_found_out() -> Result<()> {
    is_found_out("add_then_check")
}
