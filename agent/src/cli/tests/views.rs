//! Every view of every command, in one table: each is held against its files, and fits whatever screen there is.

use std::path::Path;

use serde::Serialize;

use super::samples::{accounts, attached, fresh, no_accounts, orders, removed, replays, report, status};
use super::{checks, golden, uncoloured};
use crate::args::Units;
use crate::cli::usage::tests::{days, none, of_two};
use crate::cli::words::{Screen, shown};
use crate::cli::{as_json, attach, config, ledger, renew, replay, status as status_command, usage, version};
use crate::config::Config;
use crate::doctor;

/// The screens that there are files for. Forty columns are the fewest that a view is made for.
const WIDE: Screen = Screen { width: 120, colour: false, units: Units::Binary };
const NARROW: Screen = Screen { width: 40, colour: false, units: Units::Decimal };
const COLOURED: Screen = Screen { width: 100, colour: true, units: Units::Octets };

/// Which texts a view has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Lines that fit, with and without colour.
    Coloured,
    /// Lines that fit; there is no colour to be had (`Screen::plain`).
    Plain,
    /// One line, for monitoring.
    Line,
}

/// What a command shows of one document.
struct View {
    /// The files are named so: the command, and what is shown where there is more than one thing.
    stem: String,
    kind: Kind,
    text: Box<dyn Fn(&Screen) -> String>,
    json: String,
}

fn view(stem: &str, kind: Kind, document: &impl Serialize, text: impl Fn(&Screen) -> String + 'static) -> View {
    View { stem: stem.to_owned(), kind, text: Box::new(text), json: as_json(document).expect("JSON") }
}

/// A version of this program changes no file.
fn unversioned(text: &str) -> String {
    text.replace(env!("CARGO_PKG_VERSION"), "0.1.0")
}

const RIGHT: &str = "[device]\nid = \"van-17\"\n[server]\nurl = \"https://charging.example\"\n[[link]]\nname = \"wwan0\"\n[[link]]\nname = \"usb*\"\nslot = \"dongle\"\n";
const WRONG: &str = "[device]\nid = \"van 17\"\n[server]\nurl = \"http://charging.example\"\n[agent]\nreport_intervall = \"60 s\"\n[[link]]\nname = \"wwan0\"\nchunk = \"1 KiB\"\n";

fn views() -> Vec<View> {
    use Kind::{Coloured, Line, Plain};
    let path = Path::new("/etc/weir/weir.toml");
    let (right, wrong) = (Config::parse(RIGHT, path), Config::parse(WRONG, path));
    let (right_verdict, wrong_verdict) = (config::Verdict::of(path, &right), config::Verdict::of(path, &wrong));
    let (config, faults) = (right.expect("a configuration"), wrong.expect_err("faults").to_string());
    let renewed = renew::Outcomes::of(orders(), &status(), &WIDE);
    let mut views = vec![
        view("status", Coloured, &status(), |screen| status_command::render(&status(), screen)),
        view("status-fresh", Coloured, &fresh(), |screen| status_command::render(&fresh(), screen)),
        view("ledger", Coloured, &accounts(), |screen| ledger::render(&accounts(), screen)),
        view("ledger-empty", Coloured, &no_accounts(), |screen| ledger::render(&no_accounts(), screen)),
        view("usage", Coloured, &days(), |screen| usage::render(&days(), screen)),
        view("usage-none", Coloured, &none(), |screen| usage::render(&none(), screen)),
        view("usage-two-sims", Coloured, &of_two(), |screen| usage::render(&of_two(), screen)),
        view("renew", Coloured, &renewed, |screen| {
            renew::render(&renew::Outcomes::of(orders(), &status(), screen), screen)
        }),
        view("doctor", Coloured, &doctor::as_json(&report()), |screen| doctor::render(&report(), screen)),
        view("version", Plain, &version::Versions::own(), |screen| version::render(&version::Versions::own(), screen)),
        view("config-check", Plain, &right_verdict, move |screen| config::render(path, &config, screen)),
        // One line a fault, for editors and for grep: they are not broken.
        view("config-check-wrong", Line, &wrong_verdict, move |_| faults.clone() + "\n"),
        view("attach", Plain, &attach::attached(&attached()), |screen| attach::render_attached(&attached(), screen)),
        view("detach", Plain, &attach::removed(&removed()), |screen| attach::render_removed(&removed(), screen)),
        view("detach-nothing", Plain, &attach::removed(&[]), |screen| attach::render_removed(&[], screen)),
    ];
    for (name, replayed) in replays() {
        let document = replay::document(&replayed);
        let file = Path::new("van-17.jsonl");
        let text = move |screen: &Screen| replay::render(file, &replayed, screen);
        views.push(view(&format!("replay-{name}"), Plain, &document, text));
    }
    for (name, verdict) in checks::verdicts() {
        let line = verdict.line();
        views.push(view(&format!("check-{name}"), Line, &verdict, move |_| line.clone()));
    }
    views
}

impl View {
    fn is_held(&self) {
        let Self { stem, kind, text, json } = self;
        let document: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert!(document["schema"].is_u64(), "{stem}: a document says its schema: {json}");
        golden(&format!("{stem}.json"), &unversioned(json));
        if *kind == Kind::Line {
            return golden(&format!("{stem}.txt"), &unversioned(&text(&WIDE)));
        }
        golden(&format!("{stem}-wide.txt"), &unversioned(&text(&WIDE)));
        golden(&format!("{stem}-narrow.txt"), &unversioned(&text(&NARROW)));
        if *kind == Kind::Coloured {
            let coloured = text(&COLOURED);
            assert_eq!(
                uncoloured(&coloured),
                text(&Screen { colour: false, ..COLOURED }),
                "{stem}: colour adds no words"
            );
            assert!(coloured.contains('\u{1b}'), "{stem}");
            golden(&format!("{stem}-colour.txt"), &unversioned(&coloured));
        }
        for width in 40..=160 {
            for units in [Units::Binary, Units::Decimal, Units::Octets] {
                fits(stem, &text(&Screen { width, colour: *kind == Kind::Coloured, units }), width);
            }
        }
    }
}

fn fits(stem: &str, text: &str, width: usize) {
    for line in text.lines() {
        assert!(shown(line) <= width, "{stem}: {} of {width} columns: {line}", shown(line));
        assert!(!line.ends_with(' '), "{stem}: {line:?}");
    }
}

#[test]
fn every_view_is_told_wide_and_narrow_and_in_colour_and_as_json() {
    for view in views() {
        view.is_held();
    }
}

#[test]
fn what_a_check_says_is_one_line_with_figures_behind_one_bar() {
    for (name, verdict) in checks::verdicts() {
        let line = verdict.line();
        assert_eq!((line.matches('\n').count(), line.ends_with('\n')), (1, true), "{name}: {line}");
        assert!(line.matches('|').count() <= 1 && !line.contains('\u{1b}'), "{name}: {line}");
    }
}
