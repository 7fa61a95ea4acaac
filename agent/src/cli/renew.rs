//! `weir renew`: asks the server for more now, waits for its answer, and says what came of it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;

use super::words::{Screen, Tone, before, duration};
use super::{as_json, no_such_link, print, runtime, socket};
use crate::args;
use crate::clock::boot_now;
use crate::local::{LinkStatus, RENEW_PATH, RENEWED_SCHEMA, Renewed, RenewedLink, Status, fetch, post};

/// How often it is looked whether the answer has come.
const LOOK: Duration = Duration::from_millis(250);

/// What came of it on every link that was meant, as JSON has it.
#[derive(Debug, Serialize)]
pub struct Outcomes {
    schema: u32,
    links: Vec<Outcome>,
}

impl Outcomes {
    /// What the order and the status after it come to.
    #[must_use]
    pub fn of(renewed: Renewed, status: &Status, screen: &Screen) -> Self {
        let links = renewed.links.into_iter().map(|order| outcome(order, status, screen)).collect();
        Self { schema: RENEWED_SCHEMA, links }
    }

    fn all_answered(&self) -> bool {
        self.links.iter().all(|link| matches!(link.outcome, "granted" | "nothing-more"))
    }
}

/// What came of it on one link.
#[derive(Debug, Serialize)]
struct Outcome {
    #[serde(flatten)]
    order: RenewedLink,
    /// `granted`, `nothing-more`, `no-answer`, or `not-asked`.
    outcome: &'static str,
    /// Octets left of what is granted.
    remaining_octets: u64,
    /// The same in words.
    words: String,
}

/// Asks, waits, and says. Success when the server has answered for each link that was meant.
pub fn run(asked: &args::Renew) -> Result<ExitCode> {
    let socket = socket(&asked.whom)?;
    let screen = Screen::for_text(asked.look);
    let query = asked.link.as_deref().map(|link| format!("?link={}", encoded(link))).unwrap_or_default();
    let (renewed, status) = runtime()?.block_on(async {
        let renewed: Renewed = post(&socket, &format!("{RENEW_PATH}{query}")).await?;
        let give_up = boot_now()?.plus(Duration::from_secs(asked.wait.into()));
        loop {
            let status = fetch(&socket).await?;
            if renewed.links.iter().all(|order| !is_awaited(order, &status)) || boot_now()? >= give_up {
                return anyhow::Ok((renewed, status));
            }
            tokio::time::sleep(LOOK).await;
        }
    })?;
    if renewed.links.is_empty() {
        bail!(no_such_link(asked.link.as_deref(), &status));
    }
    let outcomes = Outcomes::of(renewed, &status, &screen);
    print(&if asked.look.json { as_json(&outcomes)? } else { render(&outcomes, &screen) })?;
    Ok(if outcomes.all_answered() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn of<'a>(order: &RenewedLink, status: &'a Status) -> Option<&'a LinkStatus> {
    status.links.iter().find(|link| link.link == order.link)
}

/// Whether the answer to what was asked is still to come.
fn is_awaited(order: &RenewedLink, status: &Status) -> bool {
    let Some(link) = of(order, status).filter(|_| order.asked) else { return false };
    link.grants <= order.grants && matches!(link.next.what.as_str(), "answer" | "retry" | "nothing")
}

fn outcome(order: RenewedLink, status: &Status, screen: &Screen) -> Outcome {
    let link = of(&order, status);
    let remaining = link.map_or(0, |link| link.remaining_octets);
    let explanation = link.map(|link| link.explanation.clone()).unwrap_or_default();
    let (outcome, words) = match link {
        _ if !order.asked => ("not-asked", why_not(&order, status)),
        None => ("no-answer", "the link has gone meanwhile".to_owned()),
        Some(link) if link.grants <= order.grants => {
            let why =
                if link.state == "offline" { &explanation } else { "it takes longer than was waited for (--wait)" };
            ("no-answer", format!("{why}; `weir status` shows when it has come"))
        }
        // A packet that was too large for the rest leaves some of it.
        Some(link) if link.state == "exhausted" && remaining <= order.had_octets => {
            ("nothing-more", format!("{explanation}; if there was a top-up, the server does not know of it yet"))
        }
        Some(link) if link.state == "active" => ("granted", format!("{} may pass now", screen.octets(remaining))),
        Some(_) => ("granted", format!("{} may pass now; {explanation}", screen.octets(remaining))),
    };
    Outcome { order, outcome, remaining_octets: remaining, words }
}

fn why_not(order: &RenewedLink, status: &Status) -> String {
    let wait = order.again_at.as_deref().and_then(|at| before(at, &status.at)).unwrap_or_default();
    match order.why.as_str() {
        "too-soon" => format!("the server was asked a moment ago; try again in {}", duration(wait)),
        "not-in-use" => {
            "the link is not in use, has no SIM yet, or is not metered: `weir status` says which".to_owned()
        }
        "aborted" => "the server has ordered this SIM's session ended; only the server can take that back".to_owned(),
        "no-session" => "nothing is to be asked for now: units are asked for when traffic comes".to_owned(),
        "ledger-trouble" => "the ledger cannot be written, and nothing is granted until it can".to_owned(),
        other => format!("the agent says why in a word that this weir does not know: {other}"),
    }
}

/// What came of it in lines that fit, one or more a link.
#[must_use]
pub fn render(outcomes: &Outcomes, screen: &Screen) -> String {
    let mut page = String::new();
    for outcome in &outcomes.links {
        let tone = match outcome.outcome {
            "granted" => Tone::Good,
            "nothing-more" => Tone::Bad,
            _ => Tone::Doubtful,
        };
        let name = screen.paint(Tone::Strong, &outcome.order.link);
        let word = screen.paint(tone, &outcome.outcome.replace('-', " "));
        screen.add(&mut page, 0, &format!("{name} · {word}: {}", outcome.words));
    }
    page
}

/// A link's name as a query has it.
fn encoded(name: &str) -> String {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_');
    name.bytes()
        .map(|octet| if plain(octet) { char::from(octet).to_string() } else { format!("%{octet:02X}") })
        .collect()
}
