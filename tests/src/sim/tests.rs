//! The simulator under test: what it reaches, that it is the same every time, and that a failure becomes short.

use std::sync::LazyLock;

use super::Broken;
use super::kernel::Direction;
use super::play::{Failure, many, one};
use super::shrink::shrink_with;
use super::step::Step;
use super::tally::{Tally, wanted};

/// What a thousand schedules reach; they are played once, for all who ask.
static THOUSAND: LazyLock<Tally> = LazyLock::new(|| played(0, 1_000, 2));

fn played(from: u64, count: u64, threads: usize) -> Tally {
    let (tally, failure) = many(from, count, threads, &|_| ());
    assert!(failure.is_none(), "{failure:?}");
    tally
}

#[test]
fn a_thousand_schedules_reach_every_step_record_state_and_outcome_and_break_nothing() {
    let tally = &*THOUSAND;
    for (group, names) in wanted() {
        for name in &names {
            assert!(tally.of(group, name) > 0, "{group}: {name} does not occur");
        }
        let unknown = tally.group(group).find(|(name, _)| !names.contains(name));
        assert_eq!(unknown, None, "{group}: a kind that is in no list");
    }
}

#[test]
fn the_agent_dies_before_and_after_the_commit_of_every_kind_of_record() {
    let tally = &*THOUSAND;
    let died: Vec<String> = tally.crashes().map(|(at, _)| at).collect();
    // A record that is always followed by another in the same commit is never the last of one.
    let last =
        ["session closed", "message sealed", "message acknowledged", "checkpoint", "grace opened", "session settled"];
    for record in last {
        for when in ["before", "after"] {
            let at = format!("{when} the commit of {record}");
            assert!(died.contains(&at), "{at} does not occur: {died:?}");
        }
    }
    for at in ["a message is sent", "a gate is set", "a meter is read", "a meter is loaded"] {
        assert!(died.contains(&format!("after {at}")), "{at}: {died:?}");
    }
}

#[test]
fn the_result_does_not_depend_on_the_number_of_threads() {
    assert_eq!(played(7, 60, 1), played(7, 60, 3));
}

#[test]
fn a_seed_plays_the_same_schedule_every_time() {
    let (mut first, mut second) = (Vec::new(), Vec::new());
    let (tally, _) = one(5, Some(&mut first));
    assert_eq!(tally, one(5, Some(&mut second)).0);
    assert!(first.len() > 300, "a trace has every step: {}", first.len());
    assert_eq!(first, second);
}

#[test]
fn a_failing_schedule_is_shrunk_to_what_it_takes() {
    // Breaks when more than 5,000 octets have passed at some time before a power cut.
    let play = |steps: &[Step]| {
        let mut passed = 0;
        for step in steps {
            match step {
                Step::Packets { count, octets, .. } => passed += count * octets,
                Step::PowerCut if passed > 5_000 => return Err(Broken::new("planted", passed.to_string())),
                _ => {}
            }
        }
        Ok(())
    };
    let noise = [Step::Timer, Step::Hint { link: 3 }, Step::Wait { millis: 3_217 }, Step::PowerCut];
    let packets = Step::Packets { link: 2, count: 11, octets: 8_731, direction: Direction::Uplink };
    let steps: Vec<Step> = noise.into_iter().cycle().take(90).chain([packets]).chain(noise).collect();
    let failure = Failure { seed: 1, broken: play(&steps).expect_err("planted"), steps };

    let short = shrink_with(&failure, &play);
    let [Step::Packets { link: 0, count: 1, octets: 5_001..=8_731, .. }, Step::PowerCut] = short.steps[..] else {
        panic!("not short: {:?}", short.steps)
    };
}
