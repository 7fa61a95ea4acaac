//! The form in which every bench answers: figures with their spread and their target.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::machine::Machine;

/// One figure. Where it was measured often, its value is the median.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figure {
    /// What was measured, in a few words; unique within the bench.
    pub name: String,
    /// The unit of the four numbers; empty for a ratio.
    pub unit: String,
    /// The figure.
    pub value: f64,
    /// A quarter of what was measured is below.
    pub lower_quartile: Option<f64>,
    /// A quarter of what was measured is above.
    pub upper_quartile: Option<f64>,
    /// What it shall be, in words.
    pub target: Option<String>,
    /// The number in the target, in the same unit.
    pub bound: Option<f64>,
    /// Whether it is so.
    pub met: Option<bool>,
}

impl Figure {
    /// A figure that was measured once.
    #[must_use]
    pub fn single(name: impl Into<String>, unit: &str, value: f64) -> Self {
        Self {
            name: name.into(),
            unit: unit.to_owned(),
            value,
            lower_quartile: None,
            upper_quartile: None,
            target: None,
            bound: None,
            met: None,
        }
    }

    /// The median and the quartiles of what was measured.
    pub fn median_of(name: impl Into<String>, unit: &str, samples: &[f64]) -> Result<Self> {
        let name = name.into();
        ensure!(!samples.is_empty(), "{name}: nothing was measured");
        ensure!(samples.iter().all(|sample| sample.is_finite()), "{name}: not all of {samples:?} are numbers");
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let spread = [1, 3].map(|quarters| Some(quantile(&sorted, quarters)));
        Ok(Self {
            lower_quartile: spread[0],
            upper_quartile: spread[1],
            ..Self::single(name, unit, quantile(&sorted, 2))
        })
    }

    /// Has it be no more than `bound`.
    #[must_use]
    pub fn at_most(self, bound: f64) -> Self {
        let met = self.value <= bound;
        self.held_against("at most", bound, met)
    }

    /// Has it be no less than `bound`.
    #[must_use]
    pub fn at_least(self, bound: f64) -> Self {
        let met = self.value >= bound;
        self.held_against("at least", bound, met)
    }

    fn held_against(self, relation: &str, bound: f64, met: bool) -> Self {
        let target = format!("{relation} {}", with_unit(bound, &self.unit));
        Self { target: Some(target), bound: Some(bound), met: Some(met), ..self }
    }

    /// The value and its unit, as people write them.
    #[must_use]
    pub fn text(&self) -> String {
        with_unit(self.value, &self.unit)
    }

    /// The quartiles, or nothing where it was measured once.
    #[must_use]
    pub fn spread(&self) -> String {
        let both = self.lower_quartile.zip(self.upper_quartile);
        both.map_or_else(String::new, |(lower, upper)| format!("{} to {}", number(lower), number(upper)))
    }

    /// Whether the target is met, in a word.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        }
    }
}

/// What a bench has measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// What the report shows.
    pub figures: Vec<Figure>,
    /// What they were made of, for whoever looks closer; any shape.
    pub details: Value,
}

/// What a bench leaves in `NAME.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its name.
    pub bench: String,
    /// When it began, RFC 3339.
    pub measured: String,
    /// Where.
    pub machine: Machine,
    /// Of the time in which the processors had work, the part that other machines on the same iron had instead: 0 to 1. Figures of speed
    /// mean little where it is not near 0.
    pub stolen: f64,
    /// What the report shows.
    pub figures: Vec<Figure>,
    /// What they were made of.
    pub details: Value,
}

impl Outcome {
    /// When and where it was measured, in one line for people.
    #[must_use]
    pub fn circumstances(&self) -> String {
        let Self { measured, machine, stolen, .. } = self;
        format!("{measured}, {}, {:.0} % of its time stolen by others", machine.text(), stolen * 100.0)
    }
}

/// The value below which so many quarters of the sorted samples lie; between two samples it is interpolated.
fn quantile(sorted: &[f64], quarters: usize) -> f64 {
    let quarter_steps = (sorted.len() - 1) * quarters;
    let (below, rest) = (quarter_steps / 4, quarter_steps % 4);
    let above = (below + 1).min(sorted.len() - 1);
    #[expect(clippy::cast_precision_loss, reason = "0 to 3")]
    let part = rest as f64 / 4.0;
    sorted[below] + (sorted[above] - sorted[below]) * part
}

fn with_unit(value: f64, unit: &str) -> String {
    let number = number(value);
    if unit.is_empty() { number } else { format!("{number} {unit}") }
}

/// A number with as many digits as say something: four, and all in front of the point.
#[must_use]
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 1000.0 => 0,
        size if size >= 100.0 => 1,
        size if size >= 10.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let Some((whole, part)) = text.split_once('.') else { return grouped(&text) };
    let part = part.trim_end_matches('0');
    if part.is_empty() { grouped(whole) } else { format!("{whole}.{part}") }
}

fn grouped(whole: &str) -> String {
    let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("-", digits));
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_what_was_measured_lies_between_the_quartiles() {
        let figure = Figure::median_of("x", "ns", &[9.0, 1.0, 5.0, 3.0, 7.0]).unwrap();
        assert_eq!((figure.lower_quartile, figure.value, figure.upper_quartile), (Some(3.0), 5.0, Some(7.0)));
        let figure = Figure::median_of("x", "ns", &[4.0, 1.0, 2.0, 3.0]).unwrap();
        assert_eq!((figure.lower_quartile, figure.value, figure.upper_quartile), (Some(1.75), 2.5, Some(3.25)));
        let figure = Figure::median_of("x", "ns", &[4.0]).unwrap();
        assert_eq!((figure.lower_quartile, figure.value, figure.upper_quartile), (Some(4.0), 4.0, Some(4.0)));
    }

    #[test]
    fn what_was_not_measured_is_no_figure() {
        assert!(Figure::median_of("x", "ns", &[]).is_err());
        assert!(Figure::median_of("x", "ns", &[1.0, f64::NAN]).is_err());
    }

    #[test]
    fn a_target_is_met_at_its_very_bound_and_missed_beyond() {
        let figure = |value| Figure::single("x", "ns", value);
        assert_eq!(figure(8.0).at_most(8.0).met, Some(true));
        assert_eq!(figure(8.1).at_most(8.0).met, Some(false));
        assert_eq!(figure(0.99).at_least(0.99).met, Some(true));
        assert_eq!(figure(0.98).at_least(0.99).met, Some(false));
        assert_eq!(figure(8.1).at_most(8.0).target.as_deref(), Some("at most 8 ns"));
    }

    #[test]
    fn numbers_are_written_as_people_write_them() {
        let written = [0.0, 0.9912, 8.0, 27.456, 940.25, 24_247.3, -1_234_567.0].map(number);
        assert_eq!(written, ["0", "0.991", "8", "27.46", "940.2", "24,247", "-1,234,567"]);
    }
}
