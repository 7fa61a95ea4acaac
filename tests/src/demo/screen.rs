//! Where the demo is watched: a panel under scrolling lines on a terminal, plain lines everywhere else.

use std::io::{IsTerminal as _, Stdout, Write as _, stdout};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::terminal::disable_raw_mode;
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Paragraph, Widget as _};
use ratatui::{Terminal, TerminalOptions, Viewport};

use super::observer::Figures;
use super::panel;
use crate::cleanup;
use crate::clock::now;
use crate::words::wrap;

/// Between two plain lines of figures.
const PLAIN_EVERY: Duration = Duration::from_secs(2);

/// Rows a terminal needs for the panel and some lines above it.
const ROWS: u16 = panel::HEIGHT + 5;

/// The one place that writes to standard output. Clones show on the same.
#[derive(Clone)]
pub(super) struct Screen(Arc<Mutex<Surface>>);

enum Surface {
    Live(Box<Live>),
    Plain {
        last: Instant,
    },
    /// Lines only: the figures have been shown.
    Ended,
    /// After an interrupt nobody writes any more.
    Silent,
}

struct Live {
    terminal: Terminal<CrosstermBackend<Stdout>>,
    figures: Figures,
}

/// How a line looks on a terminal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    Bold,
    Normal,
}

impl Screen {
    /// Takes standard output, beginning with a line; a terminal is given back as it was at [`Screen::close`] and on an interrupt.
    pub(super) fn open(first: &str) -> Self {
        // Before the terminal is asked anything: its answer may take a while.
        print(first);
        let surface = live().map_or_else(|| Surface::Plain { last: now() }, |live| Surface::Live(Box::new(live)));
        let screen = Self(Arc::new(Mutex::new(surface)));
        let ours = screen.clone();
        cleanup::before_interrupt_exit(move || {
            let mut surface = ours.surface();
            surface.end();
            *surface = Surface::Silent;
        });
        screen
    }

    /// Announces an act.
    pub(super) fn announce(&self, text: &str) {
        self.surface().lines(&format!("\n{text}"), Weight::Bold);
    }

    /// Says something.
    pub(super) fn say(&self, text: &str) {
        self.surface().lines(text, Weight::Normal);
    }

    /// Shows what was seen last.
    pub(super) fn show(&self, figures: &Figures) {
        let mut surface = self.surface();
        match &mut *surface {
            Surface::Live(live) => {
                live.figures.clone_from(figures);
                if live.draw().is_err() {
                    surface.end();
                    *surface = Surface::Plain { last: now() };
                }
            }
            Surface::Plain { last } => {
                if now() - *last >= PLAIN_EVERY {
                    *last = now();
                    print(&panel::plain(figures));
                }
            }
            Surface::Ended | Surface::Silent => {}
        }
    }

    /// Takes the panel away; what is said afterwards is plain.
    pub(super) fn close(&self) {
        self.surface().end();
    }

    fn surface(&self) -> MutexGuard<'_, Surface> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Surface {
    fn lines(&mut self, text: &str, weight: Weight) {
        match self {
            Self::Live(live) => {
                if live.insert(text, weight).is_err() {
                    self.end();
                    *self = Self::Plain { last: now() };
                    print(text);
                }
            }
            Self::Plain { .. } | Self::Ended => print(text),
            Self::Silent => {}
        }
    }

    fn end(&mut self) {
        match self {
            Self::Live(live) => live.restore(),
            Self::Plain { .. } | Self::Ended => {}
            Self::Silent => return,
        }
        *self = Self::Ended;
    }
}

impl Live {
    fn draw(&mut self) -> std::io::Result<()> {
        self.terminal.draw(|frame| panel::draw(frame, &self.figures)).map(drop)
    }

    /// Puts lines above the panel.
    fn insert(&mut self, text: &str, weight: Weight) -> std::io::Result<()> {
        self.terminal.autoresize()?;
        let lines = wrap(text, self.terminal.size()?.width.into());
        let style = match weight {
            Weight::Bold => Style::new().add_modifier(Modifier::BOLD),
            Weight::Normal => Style::new(),
        };
        let height = u16::try_from(lines.len()).unwrap_or(u16::MAX);
        let paragraph = Paragraph::new(lines.into_iter().map(Line::from).collect::<Vec<_>>()).style(style);
        self.terminal.insert_before(height, |buffer| paragraph.render(buffer.area, buffer))?;
        self.draw()
    }

    /// Takes the panel off and gives the cursor back. Nothing is left to do about a terminal that refuses.
    fn restore(&mut self) {
        let top = self.terminal.get_frame().area().as_position();
        let _ = self.terminal.clear();
        let _ = self.terminal.set_cursor_position(top);
        let _ = self.terminal.show_cursor();
        // Raw mode is on only while the terminal is asked for its cursor; an interrupt may fall into that moment.
        let _ = disable_raw_mode();
    }
}

/// The terminal with the panel, if standard output is one that is fit for it and nobody asked for plain lines.
fn live() -> Option<Live> {
    let said = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    if !stdout().is_terminal() || said("NO_COLOR") || said("CI") || dumb {
        return None;
    }
    let rows = ratatui::crossterm::terminal::size().map_or(0, |(_, rows)| rows);
    if rows < ROWS {
        return None;
    }
    let options = TerminalOptions { viewport: Viewport::Inline(panel::HEIGHT) };
    // It is asked where its cursor is; one that does not answer gets plain lines.
    let terminal = Terminal::with_options(CrosstermBackend::new(stdout()), options).ok()?;
    Some(Live { terminal, figures: Figures::default() })
}

/// One or more lines to standard output, at once. A reader that went away (`| head`) is no error of the demo.
fn print(text: &str) {
    let _ = writeln!(stdout(), "{text}");
    let _ = stdout().flush();
}
