//! The history as a chart: an SVG that needs no script and no font of its own, and is light or dark as its reader is.

use svg::Document;
use svg::node::element::{Group, Line, Rectangle, Style, Text, Title};

use super::table::{civil, label, title};
use crate::args::Units;
use crate::cli::words::Screen;
use crate::usage::{SpanUsage, UsageDocument};

const WIDTH: usize = 960;
const HEIGHT: usize = 360;
const LEFT: usize = 90;
const RIGHT: usize = 20;
const TOP: usize = 60;
const BOTTOM: usize = 50;
/// A label below the axis takes about so much.
const LABEL: usize = 90;
/// Lines across at most.
const LINES: u64 = 5;

const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#333}.title{font-size:15px}.line{stroke:#ccc}\
    .down{fill:#2a7fb8}.up{fill:#e08a1e}.page{fill:#fff}\
    @media(prefers-color-scheme:dark){text{fill:#ddd}.line{stroke:#444}.page{fill:#181a1b}}";

/// The chart of a document.
#[must_use]
pub fn chart(document: &UsageDocument, screen: &Screen) -> String {
    let most = document.spans.iter().map(|span| span.sums.total()).max().unwrap_or(0).max(1);
    let step = step(most, screen.units);
    let top = most.div_ceil(step).saturating_mul(step);
    let mut drawing = Document::new()
        .set("viewBox", (0, 0, WIDTH, HEIGHT))
        .set("role", "img")
        .add(Title::new(title(document)))
        .add(Style::new(STYLE))
        .add(Rectangle::new().set("class", "page").set("width", WIDTH).set("height", HEIGHT))
        .add(words((LEFT, 24), "title", title(document)));
    for (at, class, name) in [(LEFT, "down", "downlink"), (LEFT + 110, "up", "uplink")] {
        let mark = Rectangle::new().set("class", class).set("x", at).set("y", 36).set("width", 10).set("height", 10);
        drawing = drawing.add(mark).add(words((at + 16, 46), "key", name.to_owned()));
    }
    for line in 0..=top / step {
        let octets = line * step;
        let y = HEIGHT - BOTTOM - height(octets, top);
        let across =
            Line::new().set("class", "line").set("x1", LEFT).set("x2", WIDTH - RIGHT).set("y1", y).set("y2", y);
        let told = words((LEFT - 8, y + 4), "octets", screen.octets(octets)).set("text-anchor", "end");
        drawing = drawing.add(across).add(told);
    }
    let count = document.spans.len().max(1);
    let every = (count * LABEL).div_ceil(WIDTH - LEFT - RIGHT);
    for (at, span) in document.spans.iter().enumerate() {
        drawing = drawing.add(column(document, span, (at, count), top, screen));
        if at % every == 0 {
            let middle = usize::midpoint(left(at, count), left(at + 1, count));
            let told = words((middle, HEIGHT - BOTTOM + 20), "span", below(&document.by, span));
            drawing = drawing.add(told.set("text-anchor", "middle"));
        }
    }
    format!("{drawing}\n")
}

/// Downlink, and uplink on top of it; with what it says where a pointer rests on it.
fn column(document: &UsageDocument, span: &SpanUsage, (at, count): (usize, usize), top: u64, screen: &Screen) -> Group {
    let (up, down) = (span.sums.uplink_octets, span.sums.downlink_octets);
    let (x, next) = (left(at, count), left(at + 1, count));
    let width = (next - x).saturating_sub(2).max(1);
    let (of_down, of_all) = (height(down, top), height(span.sums.total(), top));
    let bar = |class: &str, y: usize, height: usize| {
        let bar = Rectangle::new().set("class", class).set("x", x + 1).set("y", HEIGHT - BOTTOM - y);
        bar.set("width", width).set("height", height)
    };
    let name = label(&document.by, span);
    let told = format!("{name}: {} down, {} up", screen.octets(down), screen.octets(up));
    Group::new().add(Title::new(told)).add(bar("down", of_down, of_down)).add(bar(
        "up",
        of_all,
        of_all - of_down.min(of_all),
    ))
}

fn words((x, y): (usize, usize), class: &str, words: String) -> Text {
    Text::new(words).set("class", class).set("x", x).set("y", y)
}

fn below(by: &str, span: &SpanUsage) -> String {
    let begin = civil(&span.begin);
    let form = match by {
        "5min" | "hour" => "%H:%M",
        "month" => "%b %Y",
        _ => "%-d %b",
    };
    begin.strftime(form).to_string()
}

/// Where the column of that number begins.
fn left(at: usize, count: usize) -> usize {
    LEFT + at * (WIDTH - LEFT - RIGHT) / count
}

fn height(octets: u64, top: u64) -> usize {
    let height = u128::from(octets) * (HEIGHT - TOP - BOTTOM) as u128 / u128::from(top.max(1));
    usize::try_from(height).unwrap_or(HEIGHT - TOP - BOTTOM)
}

/// A round number of octets between two lines, so that there are no more than a few.
fn step(most: u64, units: Units) -> u64 {
    let (base, rounds): (u64, &[u64]) = match units {
        Units::Binary => (1024, &[1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]),
        Units::Decimal | Units::Octets => (1000, &[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]),
    };
    let mut unit = 1_u64;
    while most / LINES >= unit.saturating_mul(base) {
        unit = unit.saturating_mul(base);
    }
    let mut steps = rounds.iter().map(|times| unit.saturating_mul(*times));
    steps.find(|step| most.div_ceil(*step) <= LINES).unwrap_or(u64::MAX)
}
