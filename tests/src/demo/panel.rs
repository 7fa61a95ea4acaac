//! The figures as a panel of a terminal, and as one plain line.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Gauge, Paragraph};

use super::observer::Figures;
use crate::words::about;

/// Rows of the panel, its border included.
pub(super) const HEIGHT: u16 = 11;

/// Draws the panel.
pub(super) fn draw(frame: &mut Frame<'_>, figures: &Figures) {
    let block = Block::bordered()
        .title(format!(" weir - {} ", figures.act))
        .title_top(Line::from(format!(" {} s ", figures.elapsed.as_secs())).right_aligned());
    let inner = block.inner(frame.area());
    frame.render_widget(block, frame.area());
    let rows = Layout::vertical([Constraint::Length(1); HEIGHT as usize - 2]).split(inner);
    let [link, state, rate, session, session_bar, package, package_bar, refused, control] = *rows else { return };
    for (row, name, text) in [
        (link, "link", link_words(figures)),
        (rate, "rate", format!("{}/s", about(figures.rate))),
        (session, "session", session_words(figures)),
        (package, "package", package_words(figures)),
        (refused, "refused", refused_words(figures)),
        (control, "control", control_words(figures)),
    ] {
        frame.render_widget(Paragraph::new(Line::from(vec![name_of(name), Span::raw(text)])), row);
    }
    frame.render_widget(Paragraph::new(state_line(figures)), state);
    let (used, ceiling) = session_of(figures);
    bar(frame, session_bar, (used, ceiling), state_colour(figures));
    let bought = figures.package.map_or((0, 0), |package| (left(package.balance), package.total));
    bar(frame, package_bar, bought, Color::Blue);
}

/// The figures in one line without any control sequence.
pub(super) fn plain(figures: &Figures) -> String {
    let (used, ceiling) = session_of(figures);
    let sim = figures.link.as_ref().and_then(|link| link.subscriber.as_deref()).unwrap_or("-");
    format!(
        "{:>4} s  wan0 {sim} {:<10} rate {}/s | used {} of ceiling {}, {} grants | package left {} | refused {} control {}",
        figures.elapsed.as_secs(),
        figures.state(),
        about(figures.rate),
        about(used),
        about(ceiling),
        figures.grants(),
        figures.package.map_or_else(|| "-".into(), |package| about(left(package.balance))),
        about(figures.refused()),
        about(figures.control()),
    )
}

fn name_of(name: &str) -> Span<'static> {
    Span::styled(format!("{name:<9}"), Style::new().add_modifier(Modifier::DIM))
}

fn state_line(figures: &Figures) -> Line<'static> {
    let explanation =
        figures.link.as_ref().map_or("the kernel counts and enforces without it", |link| &link.explanation);
    let word = figures.state().to_uppercase();
    let style = Style::new().fg(state_colour(figures)).add_modifier(Modifier::BOLD);
    Line::from(vec![name_of("state"), Span::styled(word, style), Span::raw(format!("  {explanation}"))])
}

fn state_colour(figures: &Figures) -> Color {
    match figures.state() {
        "active" | "renewing" => Color::Green,
        "final" | "requesting" | "idle" => Color::Yellow,
        "exhausted" | "offline" | "no agent" => Color::Red,
        _ => Color::Cyan,
    }
}

fn link_words(figures: &Figures) -> String {
    let sim = figures.link.as_ref().and_then(|link| link.subscriber.as_deref()).unwrap_or("not bound yet");
    format!("wan0    SIM {sim}")
}

fn session_words(figures: &Figures) -> String {
    let (used, ceiling) = session_of(figures);
    format!("used {} of ceiling {}    grants so far {}", about(used), about(ceiling), figures.grants())
}

fn package_words(figures: &Figures) -> String {
    figures.package.map_or_else(
        || "not bought yet".into(),
        |package| {
            let (left, total, reserved) = (about(left(package.balance)), about(package.total), about(package.reserved));
            format!("left {left} of {total}    reserved for the session {reserved}")
        },
    )
}

fn refused_words(figures: &Figures) -> String {
    let counters = figures.kernel.unwrap_or_default();
    let (up, down) = (counters.uplink.refused.octets, counters.downlink.refused.octets);
    format!("uplink {}  downlink {}    at the shut gate", about(up), about(down))
}

fn control_words(figures: &Figures) -> String {
    let counters = figures.kernel.unwrap_or_default();
    let (up, down) = (counters.uplink.control.octets, counters.downlink.control.octets);
    format!("uplink {}  downlink {}    through the shut gate, to the charging server", about(up), about(down))
}

/// Octets used and the ceiling. The demo has one session only, so that what the kernel has passed is what the session has used; the
/// kernel knows it at this moment, the agent as of its last reading.
fn session_of(figures: &Figures) -> (u64, u64) {
    (figures.passed(), figures.ceiling)
}

fn left(balance: i64) -> u64 {
    u64::try_from(balance).unwrap_or(0)
}

fn bar(frame: &mut Frame<'_>, row: Rect, (part, whole): (u64, u64), colour: Color) {
    #[expect(clippy::cast_precision_loss, reason = "a bar is no account")]
    let ratio = if whole == 0 { 0.0 } else { (part as f64 / whole as f64).min(1.0) };
    let gauge =
        Gauge::default().ratio(ratio).use_unicode(true).gauge_style(Style::new().fg(colour).bg(Color::DarkGray));
    let indented = Rect { x: row.x + 9, width: row.width.saturating_sub(9), ..row };
    frame.render_widget(gauge, indented.intersection(row));
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;
    use crate::demo::books::Package;

    #[test]
    fn the_panel_fits_terminals_of_any_width_and_shows_the_package() {
        let package = Some(Package { total: 32 << 20, used: 12 << 20, reserved: 8 << 20, balance: 20 << 20 });
        let figures = Figures { act: "2/8 first grant".into(), package, ..Figures::default() };
        for width in [1, 9, 10, 40, 80, 300] {
            let mut terminal = Terminal::new(TestBackend::new(width, HEIGHT)).unwrap();
            terminal.draw(|frame| draw(frame, &figures)).unwrap();
            let text = terminal.backend().to_string();
            assert!(
                width < 80 || text.contains("left 20.00 MiB of 32.00 MiB    reserved for the session 8.00 MiB"),
                "{text}"
            );
            assert!(width < 80 || text.contains("NO AGENT"), "{text}");
        }
    }

    #[test]
    fn the_plain_line_holds_no_control_sequence() {
        let line = plain(&Figures::default());
        assert!(line.chars().all(|letter| !letter.is_control()), "{line:?}");
        assert!(line.contains("no agent") && line.contains("package left -"), "{line}");
    }
}
