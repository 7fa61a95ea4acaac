//! Figures as a table for the terminal, and all of them together as Markdown, JSON and a chart.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::chart;
use super::figure::{Figure, Outcome};

/// The report's own name; no bench has it.
const REPORT: &str = "report";

/// The columns of a table.
const HEAD: [&str; 5] = ["figure", "value", "quartiles", "target", ""];

/// The figures of one bench as lines of equal columns.
#[must_use]
pub fn table(outcome: &Outcome) -> String {
    let rows: Vec<[String; 5]> =
        std::iter::once(HEAD.map(str::to_owned)).chain(outcome.figures.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths = [0, 1, 2, 3, 4].map(width);
    let title = format!("{}: {}", outcome.bench, outcome.circumstances());
    let line = |row: &[String; 5]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    std::iter::once(title).chain(rows.iter().map(line)).collect::<Vec<_>>().join("\n") + "\n"
}

/// Reads what benches have left in `directory` and writes `report.md`, `report.json` and `report.svg` beside it.
pub fn write(directory: &Path) -> Result<Vec<Outcome>> {
    let outcomes = read(directory)?;
    ensure!(!outcomes.is_empty(), "there are no figures in {}: run a bench first", directory.display());
    put(directory, "md", &markdown(&outcomes))?;
    put(directory, "json", &serde_json::to_string_pretty(&serde_json::json!({ "benches": outcomes }))?)?;
    put(directory, "svg", &chart::draw(&outcomes)?)?;
    Ok(outcomes)
}

/// Every bench's figures, by name.
fn read(directory: &Path) -> Result<Vec<Outcome>> {
    let entries = fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    let mut outcomes = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_figures = path.extension().is_some_and(|kind| kind == "json");
        if !is_figures || path.file_stem().is_some_and(|name| name == REPORT) {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let outcome: Outcome = serde_json::from_str(&text).with_context(|| {
            format!("{} is not in the form of a bench: measure again, or remove it", path.display())
        })?;
        outcomes.push(outcome);
    }
    outcomes.sort_by(|one: &Outcome, other| one.bench.cmp(&other.bench));
    Ok(outcomes)
}

fn put(directory: &Path, kind: &str, text: &str) -> Result<()> {
    let path = directory.join(format!("{REPORT}.{kind}"));
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

fn markdown(outcomes: &[Outcome]) -> String {
    let figures = || outcomes.iter().flat_map(|outcome| &outcome.figures);
    let (met, held) = (
        figures().filter(|figure| figure.met == Some(true)).count(),
        figures().filter_map(|figure| figure.met).count(),
    );
    let title = format!(
        "# Figures\n\n{met} of {held} targets met. Medians, and in the column beside them the quartiles.\n\n![chart]({REPORT}.svg)\n"
    );
    std::iter::once(title).chain(outcomes.iter().map(section)).collect()
}

fn section(outcome: &Outcome) -> String {
    let title = format!("\n## {}\n\n{}\n\n", outcome.bench, outcome.circumstances());
    let head = format!("| {} |\n|---|---:|---|---|---|\n", HEAD.join(" | "));
    let rows = outcome.figures.iter().map(|figure| format!("| {} |\n", row(figure).join(" | ")));
    [title, head].into_iter().chain(rows).collect()
}

fn row(figure: &Figure) -> [String; 5] {
    let target = figure.target.clone().unwrap_or_default();
    [figure.name.clone(), figure.text(), figure.spread(), target, figure.verdict().to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::machine::Machine;

    fn outcome(bench: &str, figures: Vec<Figure>) -> Outcome {
        let machine = Machine {
            cpu: "A Processor".into(),
            processors: 2,
            kernel: "6.1".into(),
            architecture: "aarch64".into(),
            load: 0.1,
        };
        let measured = "2026-01-01T00:00:00Z".into();
        Outcome { bench: bench.into(), measured, machine, stolen: 0.256, figures, details: serde_json::Value::Null }
    }

    #[test]
    fn a_report_holds_every_figure_of_every_bench_with_its_target_and_its_machine() {
        let directory = tempfile::tempdir().unwrap();
        let outcomes = [
            outcome("one", vec![Figure::median_of("open gate", "ns", &[7.0, 9.0, 8.5]).unwrap().at_most(8.0)]),
            outcome(
                "two",
                vec![Figure::single("memory & more", "MiB", 19.0), Figure::single("ratio", "", 0.995).at_least(0.99)],
            ),
        ];
        for outcome in &outcomes {
            let text = serde_json::to_string(outcome).unwrap();
            fs::write(directory.path().join(format!("{}.json", outcome.bench)), text).unwrap();
        }
        assert_eq!(write(directory.path()).unwrap(), outcomes);
        // A report is no bench: a second one reads the same.
        assert_eq!(write(directory.path()).unwrap(), outcomes);
        let read = |kind: &str| fs::read_to_string(directory.path().join(format!("report.{kind}"))).unwrap();
        let text = read("md");
        assert!(text.contains("1 of 2 targets met"), "{text}");
        assert!(text.contains("| open gate | 8.5 ns | 7.75 to 8.75 | at most 8 ns | MISSED |"), "{text}");
        let machine = "2 × A Processor, Linux 6.1 aarch64, load average 0.1 before, 26 % of its time stolen by others";
        assert!(text.contains(machine), "{text}");
        let chart = read("svg");
        assert!(
            chart.starts_with("<svg") && chart.contains("open gate") && chart.contains("memory &amp; more"),
            "{chart}"
        );
        let json: serde_json::Value = serde_json::from_str(&read("json")).unwrap();
        assert_eq!(json["benches"][1]["figures"][1]["met"], true);
    }

    #[test]
    fn a_file_that_is_not_in_the_form_is_named() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("old.json"), "{}").unwrap();
        let error = format!("{:#}", write(directory.path()).unwrap_err());
        assert!(error.contains("old.json"), "{error}");
    }
}
