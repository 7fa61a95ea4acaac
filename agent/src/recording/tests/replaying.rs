//! What a replay says of a recording that is right, changed, cut or damaged.

use std::fs;
use std::path::Path;

use super::samples::{at, sessions};
use super::{Hand, birth, fresh, live, record};
use crate::args::Units;
use crate::cli::replay::render;
use crate::cli::words::Screen;
use crate::quota::Event;
use crate::recording::{Birth, Core, End, Parting, Replay, Tally, Verdict, replay};

const UNBROKEN: Screen = Screen { width: usize::MAX, colour: false, units: Units::Binary };

fn played(path: &Path) -> Replay {
    let file = fs::File::open(path).expect("opens");
    replay(std::io::BufReader::new(file), &mut |_| {}).expect("reads")
}

fn same(end: End) -> Verdict {
    Verdict::Same { end }
}

fn parting(replayed: Replay) -> Parting {
    match replayed.verdict {
        Verdict::Parts(parting) => *parting,
        Verdict::Same { .. } | Verdict::Damaged { .. } => panic!("{replayed:?}"),
    }
}

/// Plays the recording with one text in it changed, which must be there.
fn changed(path: &Path, from: &str, to: &str) -> Replay {
    let text = fs::read_to_string(path).expect("reads");
    assert!(text.contains(from), "{from} in {text}");
    replay(text.replacen(from, to, 1).as_bytes(), &mut |_| {}).expect("reads")
}

#[test]
fn what_was_recorded_is_done_again_life_for_life() {
    let (_directory, path) = fresh();
    live(&path);
    live(&path);
    let Replay { tally, verdict } = played(&path);
    assert_eq!(verdict, same(End::Whole));
    assert!(tally.lives == 2 && tally.events > 20 && tally.commands > 30, "{tally:?}");
    let words = render(&path, &played(&path), &UNBROKEN);
    let Tally { lives, events, commands } = tally;
    assert_eq!(words, format!("{lives} lives, {events} events, {commands} commands: the same\n"));
}

#[test]
fn several_cores_are_told_apart_and_stored_sessions_taken_up() {
    let (_directory, path) = fresh();
    let recorder = record(&path);
    let mut past = Core::begin(Birth { sessions: sessions(), ..birth("past") }, &recorder);
    let (mut one, mut other) = (Hand::begin(&recorder, "wan0"), Hand::begin(&recorder, "wan1"));
    one.use_link();
    past.handle_timeout(at(20));
    other.use_link();
    while past.poll_command().is_some() {
        one.pass(200_000);
        other.pass(300_000);
    }
    assert_eq!(played(&path).verdict, same(End::Whole));
}

#[test]
fn an_octet_more_is_noticed_at_the_command_where_it_matters() {
    let (_directory, path) = fresh();
    live(&path);
    let Parting { label, told, recorded, instead, line, told_line, .. } =
        parting(changed(&path, "\"passed\":{\"uplink\":300000", "\"passed\":{\"uplink\":300001"));
    assert_eq!(label, "wan0");
    assert!(told_line < line && told.contains("Reading"), "{told_line} {line} {told}");
    let (recorded, instead) = (recorded.expect("a command"), instead.expect("a command"));
    assert!(recorded.contains("300000") && instead.contains("300001"), "{recorded}\n{instead}");
    let changed = changed(&path, "\"passed\":{\"uplink\":300000", "\"passed\":{\"uplink\":300001");
    let words = render(&path, &changed, &UNBROKEN);
    assert!(words.contains(&format!("weir.jsonl:{line}: wan0 at ")) && words.contains("this core Record("), "{words}");
}

#[test]
fn a_command_that_was_never_given_and_one_that_is_missing_are_noticed() {
    let (_directory, path) = fresh();
    live(&path);
    let text = fs::read_to_string(&path).expect("reads");
    let read = "{\"command\":{\"core\":0,\"command\":\"Read\"}}\n";
    let (head, tail) = text.split_once(read).expect("a reading was asked for");
    let doubled = format!("{head}{read}{read}{tail}");
    let found = parting(replay(doubled.as_bytes(), &mut |_| {}).expect("reads"));
    assert_eq!((found.recorded.as_deref(), found.instead), (Some("Read"), None));
    // The last command before the core is told of something else.
    let lines: Vec<_> = text.lines().collect();
    let last = (1..lines.len())
        .find(|at| {
            lines[*at].starts_with("{\"event") && lines[*at - 1].contains("SetGate") && !lines[*at].contains("pending")
        })
        .expect("a gate is set last");
    let mut without = lines.clone();
    without.remove(last - 1);
    let missing = without.join("\n") + "\n";
    let found = parting(replay(missing.as_bytes(), &mut |_| {}).expect("reads"));
    assert_eq!(found.recorded, None);
    assert!(found.instead.expect("a command").starts_with("SetGate"));
}

#[test]
fn what_an_agent_died_over_is_no_difference() {
    let (_directory, path) = fresh();
    let recorder = record(&path);
    let mut hand = Hand::begin(&recorder, "wan0");
    // Killed with commands in hand: one was taken, the others never.
    hand.core.handle_event(
        Event::Metered {
            epoch: super::epoch(),
            reading: super::reading(0),
            control_reserve: super::terms().control_reserve,
        },
        at(20),
    );
    hand.use_link();
    hand.core.handle_event(Event::Settle, at(30));
    hand.core.poll_command().expect("a command");
    drop((hand, recorder));
    live(&path);
    let Replay { tally, verdict } = played(&path);
    assert_eq!((tally.lives, verdict), (2, same(End::Whole)));
}

#[test]
fn a_last_line_that_was_cut_is_passed_over_with_a_word() {
    let (_directory, path) = fresh();
    live(&path);
    let text = fs::read(&path).expect("reads");
    let cut = replay(&text[..text.len() - 5], &mut |_| {}).expect("reads");
    assert_eq!(cut.verdict, same(End::Cut));
    assert!(render(&path, &cut, &UNBROKEN).contains("the last line is cut"));
}

#[test]
fn a_damaged_line_is_named() {
    let (_directory, path) = fresh();
    live(&path);
    let damaged = |replayed: Replay| match replayed.verdict {
        Verdict::Damaged { line, what } => (line, what),
        Verdict::Same { .. } | Verdict::Parts(_) => panic!("{replayed:?}"),
    };
    let garbled = changed(&path, "{\"core\":{\"core\":0,", "{\"core\":{\"core\":0;");
    assert!(render(&path, &garbled, &UNBROKEN).contains("weir.jsonl:2: damaged: "));
    assert_eq!(damaged(garbled).0, 2);
    let foreign = changed(&path, "\"max_unrecorded\"", "\"least_unrecorded\"");
    let (line, what) = damaged(foreign);
    assert!(
        line == 2 && what.starts_with("unknown to this weir") && what.contains("least_unrecorded"),
        "{line} {what}"
    );
    let (line, what) = damaged(changed(&path, "\"schema\":1", "\"schema\":2"));
    assert!(line == 1 && what.contains("schema 2"), "{what}");
    let (line, what) = damaged(changed(&path, "\"event\":{\"core\":0", "\"event\":{\"core\":5"));
    assert!(line == 3 && what.contains("core 5 has not begun"), "{line} {what}");
    let (line, what) = damaged(replay(&b""[..], &mut |_| {}).expect("reads"));
    assert!(line == 1 && what.contains("nothing is recorded"), "{what}");
    let orphan = "{\"timeout\":{\"core\":0,\"at\":1}}\n";
    assert!(damaged(replay(orphan.as_bytes(), &mut |_| {}).expect("reads")).1.contains("begins with the life"));
}
