//! What `weir watch` shows, from one status after the other: a pure function of what it was told.

use std::collections::{BTreeMap, VecDeque};

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Sparkline};

use crate::args::Units;
use crate::cli::status::{next, package, tone, troubles};
use crate::cli::words::{Screen, Tone, before, time};
use crate::local::{LinkStatus, Status};

/// Seconds of which the rate is remembered.
const REMEMBERED: usize = 300;
/// Rows of the line of sparks.
const SPARKS: u16 = 2;

/// What is shown.
pub(super) struct View {
    status: Option<Status>,
    /// Why there is no newer status.
    missing: Option<String>,
    /// The rates of each link, oldest first.
    rates: BTreeMap<String, VecDeque<Rate>>,
    selected: usize,
    /// What it is drawn for: the width is that of the terminal at each drawing.
    screen: Screen,
    shows_help: bool,
}

/// Octets per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rate {
    uplink: u64,
    downlink: u64,
}

impl View {
    pub(super) const fn new(screen: Screen) -> Self {
        Self { status: None, missing: None, rates: BTreeMap::new(), selected: 0, screen, shows_help: false }
    }

    /// Takes a new status.
    pub(super) fn take(&mut self, status: Status) {
        if let Some(last) = &self.status {
            let millis = before(&status.at, &last.at).map_or(0, |span| span.as_millis());
            for link in &status.links {
                let Some(old) = last.links.iter().find(|old| old.link == link.link) else { continue };
                let Some(rate) = rate(old, link, millis) else { continue };
                let rates = self.rates.entry(link.link.clone()).or_default();
                rates.push_back(rate);
                while rates.len() > REMEMBERED {
                    rates.pop_front();
                }
            }
        }
        self.selected = self.selected.min(status.links.len().saturating_sub(1));
        self.status = Some(status);
        self.missing = None;
    }

    /// There is no new status, for this reason. What was told last stays, and is said to be old.
    pub(super) fn miss(&mut self, why: String) {
        self.missing = Some(why);
    }

    pub(super) const fn toggle_help(&mut self) {
        self.shows_help = !self.shows_help;
    }

    /// True when there was help to close.
    pub(super) const fn closes_help(&mut self) -> bool {
        std::mem::replace(&mut self.shows_help, false)
    }

    pub(super) const fn next_units(&mut self) {
        self.screen.units = match self.screen.units {
            Units::Binary => Units::Decimal,
            Units::Decimal => Units::Octets,
            Units::Octets => Units::Binary,
        };
    }

    fn links(&self) -> usize {
        self.status.as_ref().map_or(0, |status| status.links.len())
    }

    pub(super) fn select_next(&mut self) {
        self.selected = (self.selected + 1).checked_rem(self.links()).unwrap_or(0);
    }

    pub(super) fn select_previous(&mut self) {
        let links = self.links();
        self.selected = (self.selected + links).checked_sub(1).and_then(|at| at.checked_rem(links)).unwrap_or(0);
    }

    /// Draws all of it, for whatever size the terminal has now.
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let [head, body, foot] =
            Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)]).areas(frame.area());
        // Text here has styles and no sequences.
        let screen = Screen { width: usize::from(body.width.saturating_sub(2)), colour: false, ..self.screen };
        frame.render_widget(Paragraph::new(self.head()), head);
        let body = self.complaint(frame, body, &screen);
        match (&self.status, &self.missing) {
            (Some(status), _) => self.body(frame, body, status, &screen),
            (None, None) => frame.render_widget(Paragraph::new("  asking the agent …"), body),
            (None, Some(_)) => {}
        }
        let keys = "q quit · ? help · Tab link · u units";
        frame.render_widget(Paragraph::new(Line::styled(keys, self.style(Tone::Quiet))), foot);
        if self.shows_help {
            help(frame, frame.area());
        }
    }

    fn head(&self) -> Line<'_> {
        match (&self.status, &self.missing) {
            (None, None) => Line::default(),
            (None, Some(_)) => Line::styled("NO ANSWER", self.style(Tone::Bad)),
            (Some(status), Some(_)) => {
                Line::styled(format!("NO ANSWER · as of {}", time(&status.at)), self.style(Tone::Bad))
            }
            (Some(Status { version, device, at, .. }), None) => {
                let at = time(at);
                // Today is today; a narrow screen has room for the time of day.
                let clock = at.split(' ').next_back().unwrap_or_default();
                Line::styled(format!("weir {version} · {device} · {clock}"), self.style(Tone::Strong))
            }
        }
    }

    /// Why there is no newer status, above everything else. Answers with the place that is left.
    fn complaint(&self, frame: &mut Frame<'_>, area: Rect, screen: &Screen) -> Rect {
        let Some(why) = &self.missing else { return area };
        let lines = self.bad_lines(why, screen);
        let [told, rest] = Layout::vertical([Constraint::Length(rows(lines.len())), Constraint::Min(0)]).areas(area);
        frame.render_widget(Paragraph::new(lines), told);
        rest
    }

    fn bad_lines(&self, words: &str, screen: &Screen) -> Vec<Line<'static>> {
        let mut page = String::new();
        screen.add(&mut page, 0, words);
        page.lines().map(|line| Line::styled(line.to_owned(), self.style(Tone::Bad))).collect()
    }

    /// Every link as large as it goes; where they do not all fit, the one that is selected alone. What is wrong with the agent has its
    /// place first: all of it, or where that is too much the worst.
    fn body(&self, frame: &mut Frame<'_>, area: Rect, status: &Status, screen: &Screen) {
        let told: Vec<Vec<Line<'_>>> =
            troubles(status, screen).iter().map(|words| self.bad_lines(words, screen)).collect();
        let worst = told.last().cloned().unwrap_or_default();
        let all = told.concat();
        let bad = if rows(all.len()) <= area.height / 3 { all } else { worst };
        let [area, below] = Layout::vertical([Constraint::Min(0), Constraint::Length(rows(bad.len()))]).areas(area);
        frame.render_widget(Paragraph::new(bad), below);
        let lines: Vec<Vec<Line<'_>>> = status.links.iter().map(|link| self.lines(link, &status.at, screen)).collect();
        let heights: Vec<u16> = lines.iter().map(|lines| rows(lines.len()) + SPARKS + 2).collect();
        let all_fit = heights.iter().sum::<u16>() <= area.height;
        let height = |index: usize| if all_fit || index == self.selected { heights[index] } else { 1 };
        let wanted = (0..lines.len()).map(|index| Constraint::Length(height(index)));
        let areas = Layout::vertical(wanted.chain([Constraint::Min(0)])).split(area);
        for (index, (link, lines)) in status.links.iter().zip(lines).enumerate() {
            if all_fit || index == self.selected {
                self.card(frame, areas[index], link, lines, index == self.selected);
            } else {
                frame.render_widget(Paragraph::new(self.summary(link, screen)), areas[index]);
            }
        }
    }

    fn card(&self, frame: &mut Frame<'_>, area: Rect, link: &LinkStatus, lines: Vec<Line<'_>>, is_selected: bool) {
        let sim = link.subscriber.as_deref().unwrap_or("no SIM yet");
        let title = Line::from(vec![
            Span::styled(format!(" {} ", link.link), self.style(Tone::Strong)),
            Span::raw(format!("{sim} ")),
            Span::styled(format!("{} ", link.state.to_uppercase()), self.style_of(tone(link))),
        ]);
        let edge = if is_selected { Style::new() } else { self.style(Tone::Quiet) };
        let block = Block::bordered().title(title).border_style(edge);
        let inner = block.inner(area);
        frame.render_widget(block, area);
        let [text, sparks] = Layout::vertical([Constraint::Length(rows(lines.len())), Constraint::Min(0)]).areas(inner);
        frame.render_widget(Paragraph::new(lines), text);
        let columns = usize::from(sparks.width);
        let rates = self.rates.get(&link.link).into_iter().flatten();
        let sums: Vec<u64> = rates.map(|rate| rate.uplink.saturating_add(rate.downlink)).collect();
        let shown = sums[sums.len().saturating_sub(columns)..].to_vec();
        frame.render_widget(Sparkline::default().data(shown).style(self.style_of(tone(link))), sparks);
    }

    /// What there is to say of a link.
    fn lines(&self, link: &LinkStatus, at: &str, screen: &Screen) -> Vec<Line<'static>> {
        let mut page = String::new();
        screen.add(&mut page, 0, &link.explanation);
        if let Some(next) = next(&link.next, at, screen) {
            screen.add(&mut page, 0, &format!("next: {next}"));
        }
        screen.add(&mut page, 0, &format!("package: {}", package(&link.package, screen)));
        let used = link.session_uplink_octets.saturating_add(link.session_downlink_octets);
        let (used, ceiling) = (screen.octets(used), screen.octets(link.ceiling_octets));
        let unreported = screen.octets(link.unreported_octets);
        screen.add(&mut page, 0, &format!("granted: {ceiling}, {used} of it used · unreported {unreported}"));
        let Rate { uplink, downlink } = self.rate(link);
        screen.add(&mut page, 0, &format!("rate: {} up, {} down", screen.rate(uplink), screen.rate(downlink)));
        page.lines().map(|line| Line::raw(line.to_owned())).collect()
    }

    fn rate(&self, link: &LinkStatus) -> Rate {
        self.rates.get(&link.link).and_then(|rates| rates.back().copied()).unwrap_or_default()
    }

    fn summary(&self, link: &LinkStatus, screen: &Screen) -> Line<'static> {
        Line::from(vec![
            Span::raw(format!("  {} ", link.link)),
            Span::styled(link.state.to_uppercase(), self.style_of(tone(link))),
            Span::raw(format!(" {}", screen.rate(self.rate(link).uplink.saturating_add(self.rate(link).downlink)))),
        ])
    }

    /// What is old stands back.
    fn style_of(&self, tone: Tone) -> Style {
        self.style(if self.missing.is_some() { Tone::Quiet } else { tone })
    }

    /// Without colour a tone is told by bold and dim alone; the words say the rest.
    const fn style(&self, tone: Tone) -> Style {
        let (style, colour) = match tone {
            Tone::Good => (Style::new(), Color::Green),
            Tone::Doubtful => (Style::new(), Color::Yellow),
            Tone::Bad => (Style::new().add_modifier(Modifier::BOLD), Color::Red),
            Tone::Strong => return Style::new().add_modifier(Modifier::BOLD),
            Tone::Quiet => return Style::new().add_modifier(Modifier::DIM),
        };
        if self.screen.colour { style.fg(colour) } else { style }
    }
}

/// What passed a link between two statuses; `None` when its counters are others now, or no time has passed.
fn rate(old: &LinkStatus, new: &LinkStatus, millis: u128) -> Option<Rate> {
    let each = |old: [u64; 2], new: [u64; 2]| {
        let moved = new.iter().sum::<u64>().checked_sub(old.iter().sum::<u64>())?;
        u64::try_from((u128::from(moved) * 1000).checked_div(millis)?).ok()
    };
    let (before, now) = (&old.kernel, &new.kernel);
    Some(Rate {
        uplink: each(
            [before.passed_uplink_octets, before.throttled_uplink_octets],
            [now.passed_uplink_octets, now.throttled_uplink_octets],
        )?,
        downlink: each(
            [before.passed_downlink_octets, before.throttled_downlink_octets],
            [now.passed_downlink_octets, now.throttled_downlink_octets],
        )?,
    })
}

fn help(frame: &mut Frame<'_>, area: Rect) {
    let lines = [
        "q, Esc, Ctrl-C  quit",
        "?, h            this help",
        "↑ ↓, Tab, j k   another link",
        "u               KiB, kB or all digits",
        "",
        "The sparks are what passed each",
        "second, both directions together.",
        "`weir status` prints this once, and",
        "the kernel's counters with it.",
    ];
    let (width, height) = (area.width.min(42), area.height.min(rows(lines.len()) + 2));
    let place = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    let lines: Vec<Line<'_>> = lines.into_iter().map(Line::raw).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" weir watch ")), place);
}

fn rows(lines: usize) -> u16 {
    u16::try_from(lines).unwrap_or(u16::MAX / 4)
}
