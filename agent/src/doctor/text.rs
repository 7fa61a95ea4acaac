//! The report on a terminal of any width, and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::finding::{Finding, Report, SCHEMA, Verdict};
use crate::cli::words::{Screen, Tone};

/// Columns of the verdict at the beginning of a line.
const MARGIN: usize = 9;

/// The report in lines.
#[must_use]
pub fn render(report: &Report, screen: &Screen) -> String {
    let mut text = String::new();
    let device = report.device.as_deref().unwrap_or("no device");
    screen.add(&mut text, 0, &format!("weir doctor {} · {device} · {}", env!("CARGO_PKG_VERSION"), report.at));
    text.push('\n');
    for finding in &report.findings {
        render_finding(&mut text, finding, screen);
    }
    let counts = [
        (Verdict::Problem, "problem", "problems"),
        (Verdict::Warning, "warning", "warnings"),
        (Verdict::NotChecked, "not checked", "not checked"),
        (Verdict::Ok, "ok", "ok"),
    ];
    let counted = counts.map(|(verdict, one, many)| {
        let count = report.count(verdict);
        let word = if count == 1 { one } else { many };
        format!("{count} {word}")
    });
    text.push('\n');
    screen.add(&mut text, 0, &counted.join(" · "));
    text
}

fn render_finding(text: &mut String, finding: &Finding, screen: &Screen) {
    let (word, tone) = match finding.verdict {
        Verdict::Ok => ("ok", Tone::Good),
        Verdict::NotChecked => ("?", Tone::Quiet),
        Verdict::Warning => ("WARNING", Tone::Doubtful),
        Verdict::Problem => ("PROBLEM", Tone::Bad),
    };
    let subject = finding.subject.as_ref().map(|subject| format!("{subject}: ")).unwrap_or_default();
    let columns = screen.width.saturating_sub(MARGIN);
    let mut lines = wrapped(&format!("{subject}{}", finding.what), columns);
    if finding.verdict >= Verdict::Warning {
        lines.extend(labelled("why: ", finding.check.why(), columns));
    }
    if let Some(fix) = &finding.fix {
        lines.extend(labelled("fix: ", fix, columns));
    }
    for (number, line) in lines.iter().enumerate() {
        let word = if number == 0 { word } else { "" };
        let margin = format!("{}{}", screen.paint(tone, word), " ".repeat(MARGIN - word.len()));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{margin}{line}");
    }
}

fn labelled(label: &str, words: &str, columns: usize) -> Vec<String> {
    let lines = wrapped(words, columns.saturating_sub(label.len()));
    let hang = " ".repeat(label.len());
    lines.iter().enumerate().map(|(at, line)| format!("{}{line}", if at == 0 { label } else { &hang })).collect()
}

/// Lines of at most so many characters, broken at blanks; a longer word has a line of its own. Breaks in the text are kept.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in paragraph.split(' ') {
            let both = line.chars().count() + 1 + word.chars().count();
            if !line.is_empty() && both > columns {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// The report as one JSON document: `schema`, `version`, `at`, `device`, `verdict`, and `findings` with `id`, `subject`, `verdict`,
/// `what`, `why` and `fix`.
#[must_use]
pub fn as_json(report: &Report) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "id": finding.check,
            "subject": finding.subject,
            "verdict": finding.verdict,
            "what": finding.what,
            "why": finding.check.why(),
            "fix": finding.fix,
        })
    };
    json!({
        "schema": SCHEMA,
        "version": env!("CARGO_PKG_VERSION"),
        "at": report.at,
        "device": report.device,
        "verdict": report.verdict(),
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Check;

    #[test]
    fn what_could_not_be_looked_at_is_no_warning() {
        let report = |findings| Report { device: None, at: "2026-11-28T19:00:00Z".to_owned(), findings };
        assert_eq!(as_json(&report(Vec::new()))["verdict"], "ok");
        let blind = Finding::not_checked(Check::PinsLeft, "", "");
        assert_eq!(as_json(&report(vec![blind]))["verdict"], "not checked");
    }
}
