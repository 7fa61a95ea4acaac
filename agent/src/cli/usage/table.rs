//! The history as lines that fit: a row with a bar for each span, what all of it comes to, and what is to be expected.

use jiff::civil::{Date, DateTime};

use crate::cli::words::{Screen, Tone, percent, shown};
use crate::usage::{SimOfUsage, SpanUsage, UsageDocument};

/// From so many columns on, uplink and downlink are told apart.
const WIDE: usize = 64;
/// A shorter bar says nothing.
const BAR_LEAST: usize = 6;
/// Between two columns.
const GAP: usize = 2;

/// The history in lines.
#[must_use]
pub fn render(document: &UsageDocument, screen: &Screen) -> String {
    let mut page = String::new();
    screen.add(&mut page, 0, &screen.paint(Tone::Strong, &title(document)));
    page.push('\n');
    rows(&mut page, document, screen);
    page.push('\n');
    expectations(&mut page, document, screen);
    notes(&mut page, document, screen);
    page
}

/// What is shown: `usage by day · imsi-001010000000001 in wwan0 · Europe/Berlin`.
pub(super) fn title(document: &UsageDocument) -> String {
    let spans = match document.by.as_str() {
        "5min" => "usage by five minutes",
        "hour" => "usage by hour",
        "month" => "usage by month",
        "period" => "usage by billing period",
        "top" => "the days with the most usage",
        _ => "usage by day",
    };
    let sims = match &document.sims[..] {
        [] => "no SIM yet".to_owned(),
        [sim] => named(sim),
        sims => format!("{} SIMs", sims.len()),
    };
    format!("{spans} · {sims} · {}", document.time_zone)
}

fn named(sim: &SimOfUsage) -> String {
    if sim.links.is_empty() {
        sim.subscriber.clone()
    } else {
        format!("{} in {}", sim.subscriber, sim.links.join(", "))
    }
}

/// One span's cells; the bar is made of the numbers.
struct Row {
    label: String,
    cells: [String; 3],
    octets: (u64, u64),
}

fn rows(page: &mut String, document: &UsageDocument, screen: &Screen) {
    let total = &document.total;
    let cells = |up: u64, down: u64| [screen.octets(up), screen.octets(down), screen.octets(up.saturating_add(down))];
    let row = |span: &SpanUsage| Row {
        label: label(&document.by, span),
        cells: cells(span.sums.uplink_octets, span.sums.downlink_octets),
        octets: (span.sums.uplink_octets, span.sums.downlink_octets),
    };
    let mut rows: Vec<Row> = document.spans.iter().map(row).collect();
    let most = document.spans.iter().map(|span| span.sums.total()).max().unwrap_or(0);
    rows.push(Row {
        label: "total".to_owned(),
        cells: cells(total.uplink_octets, total.downlink_octets),
        octets: (0, 0),
    });
    let heads = ["uplink", "downlink", "total"];
    let width =
        |cell: usize| rows.iter().map(|row| shown(&row.cells[cell])).chain([heads[cell].len()]).max().unwrap_or(0);
    let first = rows.iter().map(|row| shown(&row.label)).max().unwrap_or(0);
    let columns_of =
        |columns: std::ops::Range<usize>| first + columns.map(|cell| GAP + width(cell)).sum::<usize>() + GAP;
    // All digits take more room than a narrow screen has.
    let columns = if screen.width >= WIDE.max(columns_of(0..3)) { 0..3 } else { 2..3 };
    let taken = columns_of(columns.clone());
    let line = |label: &str, cells: &[String], bar: &str| {
        let told = columns.clone().map(|cell| format!("{:GAP$}{:>2$}", "", cells[cell], width(cell)));
        format!("{label:<first$}{}{:GAP$}{bar}", told.collect::<String>(), "").trim_end().to_owned()
    };
    let head = line("", &heads.map(str::to_owned), "");
    page.push_str(&(screen.paint(Tone::Quiet, &head) + "\n"));
    let bar = screen.width.saturating_sub(taken);
    for (at, row) in rows.iter().enumerate() {
        if at + 1 == rows.len() {
            page.push_str(&(screen.paint(Tone::Quiet, &"─".repeat(taken - GAP)) + "\n"));
        }
        let bar = if bar < BAR_LEAST { String::new() } else { bar_of(row.octets, most, bar, screen) };
        page.push_str(&(line(&row.label, &row.cells, &bar) + "\n"));
    }
}

/// Downlink full, and uplink behind it half, together as long as they are of the most.
fn bar_of((uplink, downlink): (u64, u64), most: u64, columns: usize, screen: &Screen) -> String {
    let part = |octets: u64| {
        let most = u128::from(most.max(1));
        usize::try_from((u128::from(octets) * columns as u128 + most / 2) / most).unwrap_or(columns).min(columns)
    };
    let (down, all) = (part(downlink), part(uplink.saturating_add(downlink)));
    let (down, up) = (down.min(all), all - down.min(all));
    format!("{}{}", screen.paint(Tone::Good, &"█".repeat(down)), screen.paint(Tone::Doubtful, &"▒".repeat(up)))
}

/// The name of a span, by what the spans are; `*` = it is still running, `?` = told by a clock that was not set.
pub(super) fn label(by: &str, span: &SpanUsage) -> String {
    let begin = civil(&span.begin);
    let name = match by {
        "5min" | "hour" => begin.strftime("%m-%d %H:%M").to_string(),
        "month" => begin.strftime("%Y-%m").to_string(),
        "period" => format!("{} .. {}", begin.date(), last_day(span).strftime("%m-%d")),
        _ => begin.strftime("%a %Y-%m-%d").to_string(),
    };
    let running = if span.running { " *" } else { "" };
    let unsure = if span.sums.synced { "" } else { " ?" };
    format!("{name}{running}{unsure}")
}

/// What the running day, month and period have come to, and will at the present pace.
fn expectations(page: &mut String, document: &UsageDocument, screen: &Screen) {
    let running = &document.running;
    let so_far = |span: &SpanUsage| screen.octets(span.sums.total());
    let expected_by = |octets: Option<u64>, by: &str| {
        octets.map_or_else(String::new, |octets| format!(", about {} by {by} at this pace", screen.octets(octets)))
    };
    let end = |span: &SpanUsage| civil(&span.end).strftime("%-d %B").to_string();
    let day = &running.day;
    screen.add(page, 0, &format!("today {}{}", so_far(day), expected_by(day.estimate_octets, "midnight")));
    if document.billing_day != 1 {
        let month = &running.month;
        screen.add(
            page,
            0,
            &format!("this month {}{}", so_far(month), expected_by(month.estimate_octets, &end(month))),
        );
    }
    let period = &running.period;
    let [sim] = &document.sims[..] else {
        let since = civil(&period.begin).strftime("%-d %B").to_string();
        let all = expected_by(period.estimate_octets, &end(period));
        screen.add(page, 0, &format!("this period, since {since}: {}{all}", so_far(period)));
        for sim in &document.sims {
            let used = period.sims.iter().find(|used| used.subscriber == sim.subscriber);
            let (used, estimate) = used.map_or((0, None), |used| (used.sums.total(), used.estimate_octets));
            let words =
                format!("{}: {}{}", named(sim), of_package(used, sim, screen), expected_by(estimate, &end(period)));
            screen.add(page, 2, &(words + &too_little(estimate, sim, screen)));
        }
        return;
    };
    let since = civil(&period.begin).strftime("%-d %B");
    let used = of_package(period.sums.total(), sim, screen);
    let words = format!("this period, since {since}: {used}{}", expected_by(period.estimate_octets, &end(period)));
    screen.add(page, 0, &(words + &too_little(period.estimate_octets, sim, screen)));
}

fn of_package(used: u64, sim: &SimOfUsage, screen: &Screen) -> String {
    match sim.package_octets {
        Some(package) => {
            format!("{} of {} bought ({})", screen.octets(used), screen.octets(package), percent(used, package))
        }
        None => screen.octets(used),
    }
}

fn too_little(expected: Option<u64>, sim: &SimOfUsage, screen: &Screen) -> String {
    match (expected, sim.package_octets) {
        (Some(expected), Some(package)) if expected > package => screen.paint(Tone::Bad, ", MORE THAN WAS BOUGHT"),
        (_, _) => String::new(),
    }
}

/// What has to be known to read the rest right.
fn notes(page: &mut String, document: &UsageDocument, screen: &Screen) {
    let total = &document.total;
    let mut note = |tone: Tone, words: &str| screen.add(page, 0, &screen.paint(tone, words));
    if total.unacknowledged_octets > 0 {
        let octets = screen.octets(total.unacknowledged_octets);
        note(Tone::Quiet, &format!("{octets} of the total are not yet acknowledged by the server"));
    }
    if total.offline_octets > 0 {
        let octets = screen.octets(total.offline_octets);
        note(Tone::Quiet, &format!("{octets} of the total passed throttled, after the package was used up"));
    }
    if document.spans.iter().any(|span| span.running) {
        note(Tone::Quiet, "* still running");
    }
    if document.spans.iter().any(|span| !span.sums.synced) {
        note(Tone::Doubtful, "? recorded while the clock was not synchronised: it may belong to another time");
    }
    for sim in document.sims.iter().filter(|sim| sim.links.len() > 1) {
        let (sim, links) = (&sim.subscriber, sim.links.join(", "));
        note(
            Tone::Quiet,
            &format!("usage is recorded by SIM: that of {sim} is shown whole, whichever of {links} carried it"),
        );
    }
    if document.source == "file" {
        note(Tone::Doubtful, "no agent is running: this was read from its ledger");
    }
    if !document.clock_synced {
        note(Tone::Doubtful, "the clock is not synchronised");
    }
    if let Some(words) = &document.time_zone_note {
        note(Tone::Doubtful, words);
    }
}

/// The last day of a span.
fn last_day(span: &SpanUsage) -> Date {
    let end = civil(&span.end);
    // A period ends where a day begins.
    if end.time() == jiff::civil::Time::midnight() { end.date().yesterday().unwrap_or(end.date()) } else { end.date() }
}

/// A time as the document tells it, in its own zone: what stands before the offset.
pub(super) fn civil(told: &str) -> DateTime {
    told.get(..19).and_then(|told| told.parse().ok()).unwrap_or_default()
}
