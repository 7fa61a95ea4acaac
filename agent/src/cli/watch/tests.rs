//! What the live view shows, drawn into memory.

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::{Buffer, Cell};
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};

use super::obey;
use super::view::View;
use crate::args::Units;
use crate::cli::tests::golden;
use crate::cli::words::Screen;
use crate::local::{KernelStatus, LinkStatus, NextStatus, PackageStatus, Status};

fn link(name: &str, state: &str, passed: u64) -> LinkStatus {
    LinkStatus {
        link: name.to_owned(),
        exists: true,
        metered: true,
        state: state.to_owned(),
        explanation: format!("{name} is {state}"),
        subscriber: Some("imsi-001010000000001".to_owned()),
        package: PackageStatus { bought_octets: Some(1 << 20), left_octets: Some(1 << 18), ..PackageStatus::default() },
        ceiling_octets: 1 << 19,
        session_downlink_octets: 400_000,
        unreported_octets: 12_000,
        next: NextStatus { what: "renewal".to_owned(), at: None, left_octets: Some(100_000) },
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

fn buffer(view: &View, columns: u16, rows: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| view.draw(frame)).unwrap();
    terminal.backend().buffer().clone()
}

/// What a screen shows, line by line, each cell told by a word.
fn picture(buffer: &Buffer, word: impl Fn(&Cell) -> String) -> String {
    let rows = buffer.content.chunks(usize::from(buffer.area.width));
    rows.map(|row| row.iter().map(&word).collect::<String>().trim_end().to_owned() + "\n").collect()
}

fn drawn(view: &View, columns: u16, rows: u16) -> String {
    picture(&buffer(view, columns, rows), |cell| cell.symbol().to_owned())
}

/// The same screen with a letter for what each cell is written in: Green, Yellow, Red, bold (*), dim (-), plain (.).
fn tones(view: &View, columns: u16, rows: u16) -> String {
    picture(&buffer(view, columns, rows), |cell| {
        let letter = match cell.fg {
            _ if cell.symbol() == " " => ' ',
            Color::Green => 'G',
            Color::Yellow => 'Y',
            Color::Red => 'R',
            _ if cell.modifier.contains(Modifier::BOLD) => '*',
            _ if cell.modifier.contains(Modifier::DIM) => '-',
            _ => '.',
        };
        letter.to_string()
    })
}

const COLOURED: Screen = Screen { width: 0, colour: true, units: Units::Binary };
const MONOCHROME: Screen = Screen { colour: false, ..COLOURED };

fn press(view: &mut View, key: KeyCode) -> bool {
    obey(&Event::Key(KeyEvent::new(key, KeyModifiers::NONE)), view)
}

/// Two links, of which the first carries 20 KiB more each second.
fn watched() -> View {
    watched_on(COLOURED)
}

fn watched_on(screen: Screen) -> View {
    let mut view = View::new(screen);
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

/// An agent in trouble with a link used up, which somebody watches from the first moment on.
fn troubled(screen: Screen) -> View {
    let mut view = watched_on(screen);
    let links = vec![link("wan0", "active", 1_900_000), link("wwan1", "exhausted", 0), link("wwan2", "offline", 0)];
    let trouble = Some("the ledger cannot be written: no space left on device".to_owned());
    view.take(Status { ledger_trouble: trouble, ledger_persistent: false, ..status(10, links) });
    view
}

#[test]
fn what_is_drawn_is_held_wide_and_narrow_and_tiny_and_in_its_colours() {
    golden("watch-wide.txt", &drawn(&watched(), 100, 24));
    golden("watch-colour.txt", &tones(&watched(), 100, 24));
    golden("watch-narrow.txt", &drawn(&watched(), 40, 24));
    golden("watch-tiny.txt", &drawn(&watched(), 24, 8));
    golden("watch-trouble-wide.txt", &drawn(&troubled(COLOURED), 100, 40));
    golden("watch-trouble-narrow.txt", &drawn(&troubled(COLOURED), 40, 20));
    golden("watch-trouble-colour.txt", &tones(&troubled(COLOURED), 100, 40));
    let mut away = troubled(COLOURED);
    away.miss("no agent answers at /run/weir/weir.sock: there is no such socket; start the agent".to_owned());
    golden("watch-away-narrow.txt", &drawn(&away, 40, 24));
    golden("watch-away-colour.txt", &tones(&away, 40, 24));
    let mut never = View::new(COLOURED);
    golden("watch-asking-narrow.txt", &drawn(&never, 40, 6));
    never.miss("no agent answers at /run/weir/weir.sock: there is no such socket; start the agent".to_owned());
    golden("watch-never-narrow.txt", &drawn(&never, 40, 6));
    never.toggle_help();
    golden("watch-help-narrow.txt", &drawn(&never, 40, 13));
}

#[test]
fn without_colour_the_same_words_are_bold_or_dim_and_nothing_is_coloured() {
    for (columns, rows) in [(100, 40), (40, 20)] {
        let (plain, coloured) = (troubled(MONOCHROME), troubled(COLOURED));
        assert_eq!(drawn(&plain, columns, rows), drawn(&coloured, columns, rows));
        let cells = buffer(&plain, columns, rows).content;
        assert!(cells.iter().all(|cell| (cell.fg, cell.bg) == (Color::Reset, Color::Reset)));
        let is_loud = |cell: &&Cell| cell.modifier.contains(Modifier::BOLD);
        assert!(cells.iter().filter(is_loud).count() > 20, "what is wrong stands out all the same");
    }
}

#[test]
fn what_is_wrong_with_the_agent_is_seen_however_little_room_there_is() {
    for rows in 12..40 {
        let text = drawn(&troubled(COLOURED), 40, rows);
        assert!(text.contains("CANNOT be") && text.contains("wan0"), "{rows} rows:\n{text}");
    }
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
    assert!(
        text.contains("NO ANSWER · as of")
            && text.contains("no agent answers at /run")
            && text.contains("wan0 is active"),
        "{text}"
    );
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
