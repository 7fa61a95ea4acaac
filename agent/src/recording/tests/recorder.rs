//! The file: whose it is, how it goes on, and where it ends.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use super::{Hand, fresh, live, record};
use crate::quota::Event;
use crate::recording::{Line, Recorder};
use crate::units::BootId;

fn lines(path: &std::path::Path) -> Vec<Line> {
    let text = fs::read_to_string(path).expect("reads");
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn refusal(path: &std::path::Path) -> String {
    let opened = Recorder::open(path, BootId::new("boot-1"), super::at(1), super::BOUND);
    format!("{:#}", opened.expect_err("is refused"))
}

#[test]
fn the_next_life_goes_on_where_the_recording_ends() {
    let (_directory, path) = fresh();
    live(&path);
    let first = lines(&path);
    live(&path);
    let both = lines(&path);
    assert_eq!(both.len(), 2 * first.len());
    assert_eq!(both[..first.len()], both[first.len()..], "the same life again, its cores numbered from 0");
    assert!(matches!(both[..2], [Line::Life(_), Line::Core { core: 0, .. }]), "{:?}", &both[..2]);
}

#[test]
fn a_recording_is_for_the_owner_alone() {
    let (_directory, path) = fresh();
    drop(record(&path));
    assert_eq!(fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_a_power_cut_has_left_of_a_line_is_taken_off() {
    let (_directory, path) = fresh();
    live(&path);
    let whole = lines(&path);
    // Once in the middle, and once at the very beginning.
    for beginning in [&b"{\"lif"[..], b"{\"life\":{\"schema\":1,\"ver", &[0; 500], b""] {
        let cut = path.with_extension("cut");
        fs::write(&cut, beginning).expect("writes");
        drop(record(&cut));
        assert!(matches!(lines(&cut)[..], [Line::Life(_)]), "{beginning:?}");
    }
    for rest in [b"{\"event\":{\"core\":0,\"at\":1".to_vec(), vec![0; 200_000]] {
        OpenOptions::new().append(true).open(&path).and_then(|mut file| file.write_all(&rest)).expect("writes");
        drop(record(&path));
        let again = lines(&path);
        assert_eq!(again[..whole.len()], whole[..]);
        assert!(again[whole.len()..].iter().all(|line| matches!(line, Line::Life(_))));
    }
}

#[test]
fn at_its_bound_a_recording_ends_with_a_whole_line_and_the_core_goes_on() {
    let (_directory, path) = fresh();
    live(&path);
    let whole = fs::metadata(&path).expect("metadata").len();
    fs::remove_file(&path).expect("removes");
    let bound = whole / 2;
    let recorder = Recorder::open(&path, BootId::new("boot-1"), super::at(1), bound).expect("opens");
    let mut hand = Hand::begin(&recorder, "wan0");
    hand.use_link();
    for _ in 0..50 {
        hand.pass(100_000);
    }
    let length = fs::metadata(&path).expect("metadata").len();
    assert!(length <= bound && length + 2_000 > bound, "{length} of {bound}");
    lines(&path);
    // Small enough to find room, but then there would be a gap before it.
    hand.tell(Event::Hint);
    assert_eq!(fs::metadata(&path).expect("metadata").len(), length);
}

#[test]
fn a_file_that_is_no_recording_is_refused_and_left_alone() {
    let (_directory, path) = fresh();
    for text in [
        "a letter\nto somebody\n",
        "one line without an end",
        "{\"timeout\":{\"core\":0,\"at\":1}}\n",
        "{\"life\":7}\n",
    ] {
        fs::write(&path, text).expect("writes");
        let error = refusal(&path);
        assert!(error.contains("it is no recording") && error.contains(&path.display().to_string()), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("reads"), text);
    }
    fs::write(&path, "{\"life\":{\"schema\":99,\"version\":\"9\",\"boot\":\"b\",\"at\":1}}\n").expect("writes");
    assert!(refusal(&path).contains("schema 99"));
}

#[test]
fn two_agents_do_not_record_into_one_file() {
    let (_directory, path) = fresh();
    let first = record(&path);
    assert!(refusal(&path).contains("another agent records into it"));
    drop(first);
    drop(record(&path));
}

#[test]
fn an_idle_recorder_leaves_no_file() {
    let (directory, _) = fresh();
    let mut hand = Hand::begin(&Recorder::idle(), "wan0");
    hand.use_link();
    assert_eq!(fs::read_dir(directory.path()).expect("lists").count(), 0);
}
