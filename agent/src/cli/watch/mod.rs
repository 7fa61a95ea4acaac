//! `weir watch`: the status all the time, on a terminal, with the rate of each link as a line of sparks.

mod view;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::{SigHandler, Signal, signal};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use self::view::View;
use super::words::Screen;
use super::{Usage, runtime, socket};
use crate::args::{self, Look};
use crate::clock::{boot_now, until};
use crate::local;

/// How often the agent is asked.
const EVERY: Duration = Duration::from_secs(1);
/// The agent has this long to answer before that is said.
const PATIENCE: Duration = Duration::from_secs(3);
/// Keys and signals are looked at this often at least.
const LOOK: Duration = Duration::from_millis(200);

/// Set by a signal that ends the program: the terminal is given back first.
static ENDED: AtomicBool = AtomicBool::new(false);

extern "C" fn end(_: i32) {
    ENDED.store(true, Ordering::Relaxed);
}

/// Shows the status until `q`, Ctrl-C or a signal. The terminal is given back as it was, also after a panic.
pub fn run(asked: &args::Watch) -> Result<ExitCode> {
    if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() {
        let words = "weir watch needs a terminal; `weir status` prints once, `weir status --json` for programs";
        return Err(Usage(words.to_owned()).into());
    }
    let socket = socket(&asked.whom)?;
    let runtime = runtime()?;
    for number in [Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler does no more than to store a flag.
        unsafe { signal(number, SigHandler::Handler(end)) }.with_context(|| format!("taking {number}"))?;
    }
    let look = Look { json: false, units: asked.units, color: asked.color };
    let mut view = View::new(Screen::of_stdout(look));
    // This one has a panic give the terminal back, too.
    let mut terminal = ratatui::try_init().context("taking the terminal")?;
    let shown = (|| {
        let mut ask_at = boot_now()?;
        while !ENDED.load(Ordering::Relaxed) {
            if boot_now()? >= ask_at {
                ask_at = boot_now()?.plus(EVERY);
                let asking = async { tokio::time::timeout(PATIENCE, local::fetch(&socket)).await };
                match runtime.block_on(asking) {
                    Ok(Ok(status)) => view.take(status),
                    Ok(Err(error)) => view.miss(format!("{error:#}")),
                    Err(_) => view
                        .miss("the agent does not answer; its log says at what it is: journalctl -u weir".to_owned()),
                }
            }
            terminal.draw(|frame| view.draw(frame)).context("drawing")?;
            if event::poll(until(ask_at, boot_now()?).min(LOOK)).context("waiting for a key")?
                && !obey(&event::read().context("reading a key")?, &mut view)
            {
                break;
            }
        }
        Ok(ExitCode::SUCCESS)
    })();
    ratatui::restore();
    shown
}

/// Does what a key says; false when that is to end. A new size is met by the next drawing.
fn obey(event: &Event, view: &mut View) -> bool {
    let Event::Key(key) = event else { return true };
    if key.kind != KeyEventKind::Press {
        return true;
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
        KeyCode::Char('q') => return false,
        KeyCode::Esc if !view.closes_help() => return false,
        KeyCode::Char('?' | 'h') => view.toggle_help(),
        KeyCode::Char('u') => view.next_units(),
        KeyCode::Down | KeyCode::Right | KeyCode::Tab | KeyCode::Char('j') => view.select_next(),
        KeyCode::Up | KeyCode::Left | KeyCode::BackTab | KeyCode::Char('k') => view.select_previous(),
        _ => {}
    }
    true
}

#[cfg(test)]
mod tests;
