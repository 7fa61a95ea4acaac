//! How things are said on a terminal: amounts, spans of time, shares, bars, colour, and lines that fit.

use std::fmt::Display;
use std::io::IsTerminal as _;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use clap::ColorChoice;
use jiff::Timestamp;

use crate::args::{Look, Units};

/// Columns where nothing says how many there are.
const WIDTH: usize = 100;
/// No view is made for fewer columns than this …
const WIDTH_LEAST: usize = 40;
/// … nor are lines longer than this, which no eye follows.
const WIDTH_MOST: usize = 160;

/// How good or bad something is that is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Somebody should look at it before long.
    Doubtful,
    /// Somebody should look at it now.
    Bad,
    /// Stands out.
    Strong,
    /// Stands back.
    Quiet,
}

/// What text is written for: so many columns, with or without colour, in these units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen {
    /// Columns, 40 ..= 160; more for running text that is not to be broken.
    pub width: usize,
    /// Whether colour is used.
    pub colour: bool,
    /// What amounts of data are told in.
    pub units: Units,
}

impl Screen {
    /// The screen that standard output is.
    #[must_use]
    pub fn of_stdout(look: Look) -> Self {
        Self { width: columns().unwrap_or(WIDTH), colour: has_colour(look.color), units: look.units }
    }

    /// The same for running text: where nothing says how wide it is, a line is broken by nobody, so that a program finds all of it.
    #[must_use]
    pub fn for_text(look: Look) -> Self {
        Self { width: columns().unwrap_or(usize::MAX), ..Self::of_stdout(look) }
    }

    /// The same for what has no colour, in the usual units.
    #[must_use]
    pub fn plain() -> Self {
        Self { width: columns().unwrap_or(usize::MAX), colour: false, units: Units::default() }
    }

    /// An amount of data.
    #[must_use]
    pub fn octets(&self, count: u64) -> String {
        match self.units {
            Units::Binary => octets(count),
            Units::Decimal => scaled(count, 1000, &["kB", "MB", "GB", "TB", "PB", "EB"]),
            Units::Octets => format!("{} octets", grouped(count)),
        }
    }

    /// A rate, in octets a second.
    #[must_use]
    pub fn rate(&self, octets_per_second: u64) -> String {
        format!("{}/s", self.octets(octets_per_second))
    }

    /// The text in the colour of its tone, where there is colour.
    #[must_use]
    pub fn paint(&self, tone: Tone, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let style = match tone {
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Doubtful => AnsiColor::Yellow.on_default(),
            Tone::Bad => AnsiColor::Red.on_default().bold(),
            Tone::Strong => Style::new().bold(),
            Tone::Quiet => Style::new().dimmed(),
        };
        format!("{style}{text}{style:#}")
    }

    /// Adds the text as lines that fit, all but the first further in. Breaks between words only, and not between a number and its unit.
    pub fn add(&self, page: &mut String, indent: usize, text: &str) {
        self.fold(page, &" ".repeat(indent), indent + 2, text);
    }

    /// The same behind a word that says what it is about; further lines stand below the text.
    pub fn item(&self, page: &mut String, about: &str, text: &str) {
        let first = format!("  {} ", self.paint(Tone::Quiet, &format!("{about:<9}")));
        self.fold(page, &first, 12, text);
    }

    fn fold(&self, page: &mut String, first: &str, hang: usize, text: &str) {
        page.push_str(first);
        let mut column = shown(first);
        for (index, phrase) in phrases(text).into_iter().enumerate() {
            let length = shown(&phrase);
            if index > 0 && column + 1 + length > self.width {
                page.push('\n');
                page.push_str(&" ".repeat(hang));
                column = hang;
            } else if index > 0 {
                page.push(' ');
                column += 1;
            }
            page.push_str(&phrase);
            column += length;
        }
        page.push('\n');
    }

    /// A bar of `columns` columns, filled as far as `part` goes into `whole`.
    #[must_use]
    pub fn bar(&self, part: u64, whole: u64, columns: usize) -> String {
        const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
        let eighths = columns as u128 * 8;
        let filled = if whole == 0 { 0 } else { (u128::from(part) * eighths / u128::from(whole)).min(eighths) };
        let (full, rest) = (usize::try_from(filled / 8).unwrap_or(columns), usize::try_from(filled % 8).unwrap_or(0));
        let bar = format!("{}{}", "█".repeat(full), EIGHTHS[rest]);
        let empty = columns - full - usize::from(rest > 0);
        format!("{bar}{}", self.paint(Tone::Quiet, &"░".repeat(empty)))
    }
}

/// Whether standard output is to have colour: as was asked for, else as terminal and environment say.
fn has_colour(choice: ColorChoice) -> bool {
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            let dumb = says("TERM").is_some_and(|terminal| terminal == "dumb");
            std::io::stdout().is_terminal() && says("NO_COLOR").is_none() && !dumb
        }
    }
}

/// What the environment says of it, unless it says nothing.
fn says(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// How wide standard output is, by the environment or by the terminal.
fn columns() -> Option<usize> {
    let seen = || terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0));
    let columns = says("COLUMNS").and_then(|columns| columns.parse().ok()).or_else(seen);
    columns.map(|columns| columns.clamp(WIDTH_LEAST, WIDTH_MOST))
}

/// Octets with a binary unit, or plain below 10 KiB.
#[must_use]
pub fn octets(count: u64) -> String {
    scaled(count, 1024, &["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// How often: "once", "3 times".
#[must_use]
pub fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// How many: "1 container", "3 containers".
#[must_use]
pub fn counted(count: impl Display, what: &str) -> String {
    let count = count.to_string();
    format!("{count} {what}{}", if count == "1" { "" } else { "s" })
}

/// A number in groups of three digits.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A span in its two largest units: "45 s", "3 h 12 min", "2 d 4 h".
#[must_use]
pub fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |large: u64, unit: &str, small: u64, lesser: &str| match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {lesser}"),
    };
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => two(minutes, "min", seconds % 60, "s"),
        (0, hours, minutes) => two(hours, "h", minutes % 60, "min"),
        (days, hours, _) => two(days, "d", hours % 24, "h"),
    }
}

/// A time of RFC 3339 for people, to the second: `2026-11-28 19:40:02Z`.
#[must_use]
pub fn time(text: &str) -> String {
    let whole = text.split('.').next().unwrap_or(text).trim_end_matches('Z');
    format!("{}Z", whole.replace('T', " "))
}

/// How long before `at` this was, both RFC 3339: nothing when it was later, `None` when one is no time.
#[must_use]
pub fn before(at: &str, then: &str) -> Option<Duration> {
    let (at, then): (Timestamp, Timestamp) = (at.parse().ok()?, then.parse().ok()?);
    Some(Duration::try_from(at.duration_since(then)).unwrap_or_default())
}

/// How much of `whole` the part is, in whole hundredths rounded down: "37%". Of nothing: "-".
#[must_use]
pub fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{}%", u128::from(part) * 100 / u128::from(whole))
}

fn scaled(count: u64, step: u64, units: &[&str]) -> String {
    if count < 10 * step {
        return format!("{count} octets");
    }
    let step = u128::from(step);
    let mut tenths = u128::from(count) * 10 / step;
    let mut unit = 0;
    while tenths >= 10 * step && unit + 1 < units.len() {
        tenths /= step;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, units[unit])
}

/// Words that stay on one line: a number takes the word behind it along.
fn phrases(text: &str) -> Vec<String> {
    let mut phrases: Vec<String> = Vec::new();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        match phrases.last_mut() {
            Some(last) if ends_with_a_number(last) || word == "·" => {
                last.push(' ');
                last.push_str(word);
            }
            Some(_) | None => phrases.push(word.to_owned()),
        }
    }
    phrases
}

/// A number, and no name that ends with a digit.
fn ends_with_a_number(phrase: &str) -> bool {
    let word = phrase.rsplit(' ').next().unwrap_or_default().trim_start_matches('(');
    let is_digit = |letter: char| letter.is_ascii_digit();
    word.starts_with(is_digit) && word.ends_with(is_digit)
}

/// Columns that a text takes: its letters without the sequences that colour it.
#[must_use]
pub fn shown(text: &str) -> usize {
    let mut columns = 0;
    let mut hidden = false;
    for letter in text.chars() {
        match letter {
            '\u{1b}' => hidden = true,
            'm' if hidden => hidden = false,
            _ if hidden => {}
            _ => columns += 1,
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn screen(units: Units) -> Screen {
        Screen { width: 60, colour: false, units }
    }

    #[test]
    fn amounts_are_told_in_the_chosen_units() {
        for (count, binary, decimal, plain) in [
            (0, "0 octets", "0 octets", "0 octets"),
            (9_999, "9999 octets", "9999 octets", "9,999 octets"),
            (10_240, "10.0 KiB", "10.2 kB", "10,240 octets"),
            (1_048_575, "1023.9 KiB", "1.0 MB", "1,048,575 octets"),
            (1_048_576, "1.0 MiB", "1.0 MB", "1,048,576 octets"),
            (5_368_709_120, "5.0 GiB", "5.3 GB", "5,368,709,120 octets"),
            (u64::MAX, "15.9 EiB", "18.4 EB", "18,446,744,073,709,551,615 octets"),
        ] {
            assert_eq!(screen(Units::Binary).octets(count), binary);
            assert_eq!(screen(Units::Decimal).octets(count), decimal);
            assert_eq!(screen(Units::Octets).octets(count), plain);
        }
        assert_eq!(screen(Units::Binary).rate(20_480), "20.0 KiB/s");
    }

    #[test]
    fn spans_are_told_in_two_units_and_shares_are_rounded_down() {
        for (seconds, words) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (61, "1 min 1 s"),
            (3_600, "1 h"),
            (11_520, "3 h 12 min"),
            (86_399, "23 h 59 min"),
            (187_200, "2 d 4 h"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), words);
        }
        assert_eq!((percent(999, 1000), percent(0, 5), percent(7, 0)), ("99%".into(), "0%".into(), "-".into()));
        assert_eq!(percent(u64::MAX, u64::MAX), "100%");
    }

    #[test]
    fn a_bar_has_its_width_whatever_it_shows() {
        let screen = screen(Units::Binary);
        for (part, whole, bar) in
            [(0, 8, "░░░░"), (1, 32, "▏░░░"), (3, 8, "█▌░░"), (8, 8, "████"), (9, 8, "████"), (1, 0, "░░░░")]
        {
            assert_eq!(screen.bar(part, whole, 4), bar, "{part} of {whole}");
        }
        let coloured = Screen { colour: true, ..screen };
        assert_eq!(shown(&coloured.bar(1, 3, 20)), 20);
    }

    #[test]
    fn lines_fit_and_break_between_words_only_and_a_number_keeps_its_unit() {
        let screen = Screen { width: 40, colour: true, units: Units::Binary };
        let mut page = String::new();
        let bad = screen.paint(Tone::Bad, "exhausted");
        screen.add(&mut page, 2, &format!("wan0 is {bad} · used 12.5 MiB of 3 h 12 min granted"));
        let plain: Vec<String> =
            page.lines().map(|line| line.replace("\u{1b}[1m\u{1b}[31m", "").replace("\u{1b}[0m", "")).collect();
        assert_eq!(plain, ["  wan0 is exhausted · used 12.5 MiB of", "    3 h 12 min granted"]);
        assert!(page.lines().all(|line| shown(line) <= 40), "{page}");
        assert!(page.contains('\u{1b}'), "{page}");
    }

    #[test]
    fn a_name_that_ends_with_a_digit_keeps_nothing_on_its_line_and_a_date_keeps_its_time() {
        let mut page = String::new();
        let screen = Screen { width: 40, colour: false, units: Units::Binary };
        screen.add(&mut page, 0, "message 4 of imsi-001010000000002 (2026-11-27 09:00:00Z)");
        assert_eq!(page, "message 4 of imsi-001010000000002\n  (2026-11-27 09:00:00Z)\n");
    }
}
