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
    // Writing to a string cannot fail.
    let _ = writeln!(text, "weir doctor {} · {device} · {}\n", env!("CARGO_PKG_VERSION"), report.at);
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
    let _ = writeln!(text, "\n{}", counted.join(" · "));
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
    use crate::cli::words::Units;
    use crate::doctor::finding::Check;

    fn report() -> Report {
        Report {
            device: Some("van-17".to_owned()),
            at: "2026-11-28T19:00:00Z".to_owned(),
            findings: vec![
                Finding::ok(Check::KernelJit, "programs run as machine code"),
                Finding::not_checked(Check::PinsLeft, "the pins may not be looked at", "run it as root"),
                Finding::problem(
                    Check::LinkMeter,
                    "it has no meter, so its traffic is neither counted nor stopped",
                    "start the agent: systemctl start weir",
                )
                .of("wwan0"),
                Finding::warning(Check::ClockSynced, "the clock is not synchronised", "let NTP run"),
            ],
        }
    }

    const WIDE: &str = "\
weir doctor VERSION · van-17 · 2026-11-28T19:00:00Z

ok       programs run as machine code
?        the pins may not be looked at
         fix: run it as root
PROBLEM  wwan0: it has no meter, so its traffic is neither counted nor stopped
         why: no meter counts nothing; two count every packet twice
         fix: start the agent: systemctl start weir
WARNING  the clock is not synchronised
         why: hours and days of the history are labelled by this clock, and certificates held against it
         fix: let NTP run

1 problem · 1 warning · 1 not checked · 1 ok
";

    const NARROW: &str = "\
weir doctor VERSION · van-17 · 2026-11-28T19:00:00Z

ok       programs run as machine code
?        the pins may not be looked at
         fix: run it as root
PROBLEM  wwan0: it has no meter, so its
         traffic is neither counted nor
         stopped
         why: no meter counts nothing;
              two count every packet
              twice
         fix: start the agent: systemctl
              start weir
WARNING  the clock is not synchronised
         why: hours and days of the
              history are labelled by
              this clock, and
              certificates held against
              it
         fix: let NTP run

1 problem · 1 warning · 1 not checked · 1 ok
";

    const fn screen(width: usize) -> Screen {
        Screen { width, colour: false, units: Units::Binary }
    }

    #[test]
    fn the_text_is_wrapped_to_the_terminal_and_says_why_only_where_something_is_to_be_done() {
        let version = |text: &str| text.replace("VERSION", env!("CARGO_PKG_VERSION"));
        assert_eq!(render(&report(), &screen(120)), version(WIDE));
        assert_eq!(render(&report(), &screen(40)), version(NARROW));
    }

    #[test]
    fn colour_changes_the_verdicts_and_nothing_else() {
        let screen = Screen { colour: true, ..screen(120) };
        let text = render(&report(), &screen);
        let mut plain = text.clone();
        for (tone, word) in
            [(Tone::Good, "ok"), (Tone::Quiet, "?"), (Tone::Bad, "PROBLEM"), (Tone::Doubtful, "WARNING")]
        {
            let painted = screen.paint(tone, word);
            assert!(painted.len() > word.len() && text.contains(&painted), "{text:?}");
            plain = plain.replace(&painted, word);
        }
        assert_eq!(plain, render(&report(), &Screen { colour: false, ..screen }));
    }

    #[test]
    fn the_json_has_every_member_under_a_name_that_stays() {
        let mut report = report();
        report.findings.drain(..2);
        let expected = json!({
            "schema": 1,
            "version": env!("CARGO_PKG_VERSION"),
            "at": "2026-11-28T19:00:00Z",
            "device": "van-17",
            "verdict": "problem",
            "findings": [
                {
                    "id": "link.meter",
                    "subject": "wwan0",
                    "verdict": "problem",
                    "what": "it has no meter, so its traffic is neither counted nor stopped",
                    "why": "no meter counts nothing; two count every packet twice",
                    "fix": "start the agent: systemctl start weir",
                },
                {
                    "id": "clock.synced",
                    "subject": null,
                    "verdict": "warning",
                    "what": "the clock is not synchronised",
                    "why": "hours and days of the history are labelled by this clock, and certificates held against it",
                    "fix": "let NTP run",
                },
            ],
        });
        assert_eq!(as_json(&report), expected);
        report.findings.clear();
        assert_eq!(as_json(&report)["verdict"], "ok");
        let blind = Finding::not_checked(Check::PinsLeft, "", "");
        assert_eq!(as_json(&Report { findings: vec![blind], ..report })["verdict"], "not checked");
    }
}
