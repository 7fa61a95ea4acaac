//! What the live view shows, drawn into memory.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};

use super::obey;
use super::view::View;
use crate::cli::words::Units;
use crate::local::{KernelStatus, LinkStatus, PackageStatus, Status};

fn link(name: &str, state: &str, passed: u64) -> LinkStatus {
    LinkStatus {
        link: name.to_owned(),
        exists: true,
        metered: true,
        state: state.to_owned(),
        explanation: format!("{name} is {state}"),
        subscriber: Some("imsi-001010000000001".to_owned()),
        package: PackageStatus { bought_octets: Some(1 << 20), left_octets: Some(1 << 18), ..PackageStatus::default() },
        kernel: KernelStatus { passed_downlink_octets: passed, ..KernelStatus::default() },
        ..LinkStatus::default()
    }
}

fn status(second: u64, links: Vec<LinkStatus>) -> Status {
    Status {
        version: "0.1.0".to_owned(),
        device: "van-17".to_owned(),
        at: format!("2026-11-28T19:40:{second:02}Z"),
        ledger_persistent: true,
        links,
        ..Status::default()
    }
}

fn drawn(view: &View, columns: u16, rows: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| view.draw(frame)).unwrap();
    terminal.backend().to_string()
}

fn press(view: &mut View, key: KeyCode) -> bool {
    obey(&Event::Key(KeyEvent::new(key, KeyModifiers::NONE)), view)
}

/// Two links, of which the first carries 20 KiB more each second.
fn watched() -> View {
    let mut view = View::new(Units::Binary);
    for second in 0..10 {
        let links = vec![link("wan0", "active", second * second * 20_480), link("wwan1", "exhausted", 0)];
        view.take(status(second, links));
    }
    view
}

#[test]
fn links_their_rates_and_what_is_left_are_shown_where_there_is_room() {
    let text = drawn(&watched(), 100, 40);
    for words in ["wan0", "ACTIVE", "wwan1", "EXHAUSTED", "75% used", "340.0 KiB/s down", "█"] {
        assert!(text.contains(words), "{words} in\n{text}");
    }
}

#[test]
fn where_there_is_little_room_the_chosen_link_is_whole_and_the_others_are_a_line() {
    let mut view = watched();
    let text = drawn(&view, 60, 14);
    assert!(text.contains("wan0 is active") && !text.contains("wwan1 is exhausted"), "{text}");
    assert!(text.contains("wwan1 EXHAUSTED"), "{text}");
    assert!(press(&mut view, KeyCode::Tab));
    let text = drawn(&view, 60, 14);
    assert!(text.contains("wwan1 is exhausted") && !text.contains("wan0 is active"), "{text}");
}

#[test]
fn it_is_drawn_at_any_size() {
    let view = watched();
    for columns in [1, 2, 10, 39, 60, 200] {
        for rows in [1, 2, 3, 7, 24, 100] {
            drawn(&view, columns, rows);
        }
    }
}

#[test]
fn an_agent_that_does_not_answer_is_told_and_what_it_said_last_stays_until_it_is_back() {
    let mut view = watched();
    view.miss("no agent answers at /run/weir/weir.sock".to_owned());
    let text = drawn(&view, 100, 40);
    assert!(text.contains("NO ANSWER: no agent answers") && text.contains("wan0 is active"), "{text}");
    // Its counters begin anew with another meter: that is no flood.
    view.take(status(20, vec![link("wan0", "active", 5)]));
    let text = drawn(&view, 100, 40);
    assert!(!text.contains("NO ANSWER") && text.contains("340.0 KiB/s down"), "{text}");
    assert!(!text.contains("wwan1"), "{text}");
}

#[test]
fn keys_choose_help_units_and_end() {
    let mut view = watched();
    assert!(press(&mut view, KeyCode::Char('?')));
    assert!(drawn(&view, 100, 40).contains("another link"));
    assert!(press(&mut view, KeyCode::Esc), "closes the help");
    assert!(!drawn(&view, 100, 40).contains("another link"));
    assert!(press(&mut view, KeyCode::Char('u')));
    assert!(drawn(&view, 100, 40).contains("348.1 kB/s"));
    assert!(press(&mut view, KeyCode::Up), "round and round");
    assert!(!press(&mut view, KeyCode::Esc));
    assert!(!press(&mut view, KeyCode::Char('q')));
    assert!(!obey(&Event::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), &mut view));
}
