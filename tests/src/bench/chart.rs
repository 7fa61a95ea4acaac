//! The chart of a report: a panel for each unit of each bench, a bar for each figure, its quartiles and its target on it.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::figure::{Figure, Outcome};

/// Sizes in pixels.
const WIDTH: u32 = 1000;
const BAR: u32 = 26;
const AROUND_BARS: u32 = 80;
const NAMES: u32 = 380;

const MET: RGBColor = RGBColor(78, 154, 106);
const MISSED: RGBColor = RGBColor(200, 90, 70);
const WITHOUT_TARGET: RGBColor = RGBColor(120, 140, 165);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The figures of one bench that can be compared, because they have the same unit.
struct Panel<'a> {
    title: String,
    figures: Vec<&'a Figure>,
}

impl Panel<'_> {
    fn height(&self) -> u32 {
        u32::try_from(self.figures.len()).unwrap_or(u32::MAX / BAR) * BAR + AROUND_BARS
    }

    /// A little more than the largest number on it.
    fn reach(&self) -> f64 {
        let numbers = self.figures.iter().flat_map(|figure| [Some(figure.value), figure.upper_quartile, figure.bound]);
        let largest = numbers.flatten().fold(0.0, f64::max);
        if largest > 0.0 { largest * 1.12 } else { 1.0 }
    }
}

/// The chart of these figures, as the text of an SVG file.
pub(super) fn draw(outcomes: &[Outcome]) -> Result<String> {
    let panels: Vec<Panel<'_>> = outcomes.iter().flat_map(panels).collect();
    let heights: Vec<u32> = panels.iter().map(Panel::height).collect();
    let mut text = String::new();
    {
        let mut rest =
            SVGBackend::with_string(&mut text, (WIDTH, heights.iter().sum::<u32>().max(1))).into_drawing_area();
        rest.fill(&WHITE).map_err(failed)?;
        let whole = rest.clone();
        for (panel, height) in panels.iter().zip(heights) {
            let (area, below) = rest.split_vertically(height);
            draw_panel(&area, panel)?;
            rest = below;
        }
        whole.present().map_err(failed)?;
    }
    Ok(text)
}

fn panels(outcome: &Outcome) -> Vec<Panel<'_>> {
    let mut panels: Vec<(&str, Panel<'_>)> = Vec::new();
    for figure in &outcome.figures {
        let unit = figure.unit.as_str();
        match panels.iter_mut().find(|(of, _)| *of == unit) {
            Some((_, panel)) => panel.figures.push(figure),
            None => {
                let shown = if unit.is_empty() { "ratio" } else { unit };
                panels.push((unit, Panel { title: format!("{}: {shown}", outcome.bench), figures: vec![figure] }));
            }
        }
    }
    panels.into_iter().map(|(_, panel)| panel).collect()
}

fn draw_panel(area: &Area<'_>, panel: &Panel<'_>) -> Result<()> {
    let count = f64::from(u32::try_from(panel.figures.len())?);
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 18))
        .margin(8)
        .margin_right(24)
        .x_label_area_size(24)
        .y_label_area_size(NAMES)
        .build_cartesian_2d(0.0..panel.reach(), count..0.0)
        .map_err(failed)?;
    let mut mesh = chart.configure_mesh();
    mesh.disable_y_mesh().y_labels(0).light_line_style(TRANSPARENT).label_style(("sans-serif", 13));
    mesh.draw().map_err(failed)?;
    let style = TextStyle::from(("sans-serif", 13)).pos(Pos::new(HPos::Right, VPos::Center));
    for (row, figure) in (0_u32..).map(f64::from).zip(&panel.figures) {
        let (x, y) = chart.plotting_area().map_coordinate(&(0.0, row + 0.5));
        let origin = area.get_base_pixel();
        let label = format!("{}  {}", figure.name, figure.text());
        area.draw_text(&label, &style, (x - origin.0 - 8, y - origin.1)).map_err(failed)?;
        let bar = Rectangle::new([(0.0, row + 0.2), (figure.value, row + 0.8)], colour(figure).filled());
        chart.draw_series([bar]).map_err(failed)?;
        let quartiles = figure.lower_quartile.zip(figure.upper_quartile);
        let whisker = quartiles.map(|(lower, upper)| [(lower, row + 0.5), (upper, row + 0.5)]);
        let target = figure.bound.map(|bound| [(bound, row + 0.05), (bound, row + 0.95)]);
        for line in [whisker, target].into_iter().flatten() {
            chart.draw_series([PathElement::new(line, BLACK.stroke_width(2))]).map_err(failed)?;
        }
    }
    Ok(())
}

fn colour(figure: &Figure) -> RGBColor {
    match figure.met {
        Some(true) => MET,
        Some(false) => MISSED,
        None => WITHOUT_TARGET,
    }
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("drawing the chart: {error}")
}
