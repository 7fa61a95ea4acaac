//! `weir renew`: asks the server for more now, waits for its answer, and says what came of it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;

use super::words::{Screen, Tone, before, duration};
use super::{as_json, print, runtime, socket};
use crate::args;
use crate::clock::boot_now;
use crate::local::{LinkStatus, RENEW_PATH, RENEWED_SCHEMA, Renewed, RenewedLink, Status, fetch, post};

/// How often it is looked whether the answer has come.
const LOOK: Duration = Duration::from_millis(250);

/// What came of it on one link, as JSON has it.
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
        let known: Vec<&str> = status.links.iter().map(|link| link.link.as_str()).collect();
        bail!("there is no metered link {}; there is {}", asked.link.as_deref().unwrap_or("at all"), known.join(", "));
    }
    let outcomes: Vec<Outcome> = renewed.links.into_iter().map(|order| outcome(order, &status, &screen)).collect();
    let all_answered = outcomes.iter().all(|outcome| matches!(outcome.outcome, "granted" | "nothing-more"));
    let text = if asked.look.json {
        as_json(&serde_json::json!({ "schema": RENEWED_SCHEMA, "links": outcomes }))?
    } else {
        render(&outcomes, &screen)
    };
    print(&text)?;
    Ok(if all_answered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
            ("no-answer", format!("the server has not answered yet; {explanation}"))
        }
        // A packet that was too large for the rest leaves some of it.
        Some(link) if link.state == "exhausted" && remaining <= order.had_octets => {
            ("nothing-more", format!("the server has nothing more for this SIM; {explanation}. Was the top-up booked?"))
        }
        Some(_) => ("granted", format!("{} may pass now; {explanation}", screen.octets(remaining))),
    };
    Outcome { order, outcome, remaining_octets: remaining, words }
}

fn why_not(order: &RenewedLink, status: &Status) -> String {
    let wait = order.again_at.as_deref().and_then(|at| before(at, &status.at)).unwrap_or_default();
    match order.why.as_str() {
        "too-soon" => format!("it was asked a moment ago; try again in {}", duration(wait)),
        "not-in-use" => "the link is in no use, has no SIM yet or is not metered; `weir status` says which".to_owned(),
        "aborted" => "the server has ordered this SIM's session ended; only the server can take that back".to_owned(),
        "no-session" => "nothing is to be asked for now: units are asked for when traffic comes".to_owned(),
        "ledger-trouble" => "the ledger cannot be written, and nothing is granted until it can".to_owned(),
        other => other.to_owned(),
    }
}

fn render(outcomes: &[Outcome], screen: &Screen) -> String {
    let mut page = String::new();
    for outcome in outcomes {
        let tone = match outcome.outcome {
            "granted" => Tone::Good,
            "nothing-more" => Tone::Bad,
            _ => Tone::Doubtful,
        };
        let name = screen.paint(Tone::Strong, &outcome.order.link);
        let word = screen.paint(tone, &outcome.outcome.replace('-', " "));
        screen.add(&mut page, 0, &format!("{name}: {word}: {}", outcome.words));
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
