//! `weir ledger`: sessions, grants, and where every octet is; of the running agent, or from the file when none runs.

use std::io::ErrorKind;
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::words::{Screen, Tone, counted, time, times};
use super::{as_json, load, print, runtime, socket};
use crate::args;
use crate::ledger::{Accounts, Amount, SessionAccount, SetAsideAccount, account};
use crate::local::{LEDGER_PATH, get, reach};

/// Prints the account.
pub fn run(asked: &args::Ledger) -> Result<ExitCode> {
    let socket = socket(&asked.whom)?;
    let accounts: Accounts = match reach(&socket) {
        Err(nobody) if asked.whom.socket.is_none() && nobody.kind != ErrorKind::PermissionDenied => {
            account(&load(&asked.whom.config)?.ledger).with_context(|| format!("{nobody}; and without an agent"))?
        }
        Err(_) | Ok(()) => runtime()?.block_on(get(&socket, LEDGER_PATH))?,
    };
    print(&if asked.look.json { as_json(&accounts)? } else { render(&accounts, &Screen::for_text(asked.look)) })?;
    Ok(ExitCode::SUCCESS)
}

/// The account in lines that fit.
#[must_use]
pub fn render(accounts: &Accounts, screen: &Screen) -> String {
    let mut page = String::new();
    let counts = format!("{} open, {} closed sessions", accounts.open_sessions, accounts.closed_sessions);
    screen.add(&mut page, 0, &format!("ledger {} · {counts}", accounts.ledger));
    for session in &accounts.sessions {
        page.push('\n');
        if session.closed_at.is_some() {
            render_closed(&mut page, session, screen);
        } else {
            render_open(&mut page, session, screen);
        }
    }
    if !accounts.set_aside.is_empty() {
        page.push_str("\nnot sent again:\n");
    }
    for message in &accounts.set_aside {
        render_set_aside(&mut page, message, screen);
    }
    page.push('\n');
    if accounts.uncertain_octets > 0 {
        let octets = screen.octets(accounts.uncertain_octets);
        let words = format!("up to {octets} may have passed after the last record before the power went; not billed");
        screen.add(&mut page, 0, &screen.paint(Tone::Doubtful, &words));
    }
    screen.add(&mut page, 0, &verdict(accounts.drift_octets, screen));
    page
}

fn verdict(drift: u64, screen: &Screen) -> String {
    match drift {
        0 => screen.paint(Tone::Good, "the books close to the octet"),
        octets => screen.paint(Tone::Bad, &format!("THE BOOKS DO NOT CLOSE: {octets} octets are astray")),
    }
}

fn heading(session: &SessionAccount, screen: &Screen) -> String {
    let name = screen.paint(Tone::Strong, &format!("session {}", session.charging_id));
    format!("{name} · {} · {} · opened {}", session.subscriber, session.state, time(&session.opened_at))
}

fn render_closed(page: &mut String, session: &SessionAccount, screen: &Screen) {
    let closed = session.closed_at.as_deref().map(time).unwrap_or_default();
    screen.add(page, 0, &format!("{}, closed {closed}", heading(session, screen)));
    screen.item(page, "used", &amount(&session.closed, screen));
}

fn render_open(page: &mut String, session: &SessionAccount, screen: &Screen) {
    screen.add(page, 0, &heading(session, screen));
    screen.item(page, "granted", &granted(session, screen));
    screen.item(page, "used", &format!("{} in closed intervals", amount(&session.closed, screen)));
    let mut parts = vec![format!("acknowledged {}", screen.octets(session.acknowledged.total()))];
    if let Some(message) = &session.message {
        let octets = screen.octets(session.in_message.total());
        let what = format!("{} {}", message.operation, message.number);
        parts.push(format!("{octets} sealed in {what} ({}), not answered yet", time(&message.sealed_at)));
    }
    if session.waiting_containers > 0 {
        let octets = screen.octets(session.waiting.total());
        parts.push(format!("{octets} waiting in {}", counted(session.waiting_containers, "container")));
    }
    if session.set_aside.total() > 0 {
        parts.push(format!("{} set aside", screen.octets(session.set_aside.total())));
    }
    let sum = parts.join(" + ");
    let drift = match session.drift_octets {
        0 => String::new(),
        octets => format!(" · {}", screen.paint(Tone::Bad, &format!("{octets} OCTETS ASTRAY"))),
    };
    screen.item(page, "of it", &format!("{sum}{drift}"));
    screen.item(page, "and since", &format!("{} recorded in the open interval", amount(&session.interval, screen)));
    if let Some(uncertain) = session.uncertain_octets.filter(|octets| *octets > 0) {
        let octets = screen.octets(uncertain);
        screen.item(page, "unknown", &format!("up to {octets} may have passed after the last record; not billed"));
    }
}

fn granted(session: &SessionAccount, screen: &Screen) -> String {
    let Some((ceiling, last)) = session.ceiling_octets.zip(session.last_grant_octets) else {
        return "nothing so far".to_owned();
    };
    let result = session.last_result.as_deref().filter(|result| *result != "success");
    let result = result.map(|result| format!(" ({result})")).unwrap_or_default();
    let last_units = session.final_unit.as_deref().map(|action| format!("; the last units, then {action}"));
    format!(
        "{}, the last time {}{result}; the gate shuts at {}{}",
        times(session.grants),
        screen.octets(last),
        screen.octets(ceiling),
        last_units.unwrap_or_default()
    )
}

fn render_set_aside(page: &mut String, message: &SetAsideAccount, screen: &Screen) {
    let what = screen.paint(Tone::Doubtful, &message.verdict);
    screen.add(
        page,
        2,
        &format!(
            "{what}: {} of session {}, message {}, {} ({}): {}",
            amount(&message.usage, screen),
            message.charging_id,
            message.number,
            message.subscriber,
            time(&message.set_aside_at),
            message.cause
        ),
    );
}

fn amount(amount: &Amount, screen: &Screen) -> String {
    let (up, down) = (screen.octets(amount.uplink_octets), screen.octets(amount.downlink_octets));
    let offline = match amount.offline_octets {
        0 => String::new(),
        octets => format!(", {} throttled", screen.octets(octets)),
    };
    format!("{up} up, {down} down{offline}")
}
