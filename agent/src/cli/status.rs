//! `weir status`: what a running agent holds, for people or as JSON.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use super::words::{Screen, Tone, before, counted, duration, grouped, percent, time, times};
use super::{as_json, print, runtime, socket};
use crate::args;
use crate::local::{self, LinkStatus, NextStatus, PackageStatus, Status};

/// Columns of the bar that shows how much of a package is used.
const BAR: usize = 20;
/// What runs out after so long is not worth a word.
const FAR: Duration = Duration::from_hours(24 * 366);

/// Asks the agent for its status and prints it.
pub fn run(asked: &args::Status) -> Result<ExitCode> {
    let status = runtime()?.block_on(local::fetch(&socket(&asked.whom)?))?;
    print(&if asked.look.json { as_json(&status)? } else { render(&status, &Screen::for_text(asked.look)) })?;
    Ok(ExitCode::SUCCESS)
}

/// The status in lines that fit.
#[must_use]
pub fn render(status: &Status, screen: &Screen) -> String {
    let mut page = String::new();
    let unsynced = if status.clock_synced { "" } else { " (clock not synchronised)" };
    let who = format!("weir {} · device {} · server {}", status.version, status.device, status.server);
    screen.add(&mut page, 0, &who);
    screen.add(&mut page, 0, &format!("at {}{unsynced} · onboarding: {}", time(&status.at), status.onboarding));
    if status.links.is_empty() {
        screen.add(&mut page, 0, "no link of the configuration is there yet; `ip link` shows those that are");
    }
    for link in &status.links {
        page.push('\n');
        render_link(&mut page, link, &status.at, screen);
    }
    page.push('\n');
    screen.add(&mut page, 0, &books(status, screen));
    for trouble in troubles(status, screen) {
        screen.add(&mut page, 0, &screen.paint(Tone::Bad, &trouble));
    }
    if let Some(draining) = &status.draining {
        let (total, left) = (draining.total_containers, draining.left_containers);
        let time = draining.seconds_left.map(|seconds| format!("about {} left", span(seconds)));
        let time = time.unwrap_or_else(|| "not moving".to_owned());
        let acknowledged = grouped(total.saturating_sub(left) as u64);
        let total = grouped(total as u64);
        screen.add(&mut page, 0, &format!("draining: {acknowledged} of {total} containers acknowledged, {time}"));
    }
    page
}

/// What is recorded and not acknowledged, and whether the books close.
fn books(status: &Status, screen: &Screen) -> String {
    let oldest = status.oldest_unreported.as_deref().and_then(|oldest| before(&status.at, oldest));
    let oldest = oldest.map(|age| format!(", the oldest from {} ago", duration(age))).unwrap_or_default();
    let waiting = match status.buffered_containers {
        // The oldest usage is then in the open interval of a link, where nothing is recorded of it yet.
        0 => "all that is recorded is acknowledged".to_owned(),
        count => {
            let octets = screen.octets(status.unacknowledged_octets);
            format!("unacknowledged {octets} in {}{oldest}", counted(count, "container"))
        }
    };
    let settling = match status.draining_sessions {
        0 => String::new(),
        count => format!(" · {} settling", counted(count, "past session")),
    };
    let drift = format!("ledger drift {} octets", status.ledger_drift_octets);
    let tone = if status.ledger_drift_octets == 0 { Tone::Good } else { Tone::Bad };
    format!("{waiting}{settling} · {}", screen.paint(tone, &drift))
}

/// What is wrong with the agent as a whole, worst last: that is what is seen.
#[must_use]
pub fn troubles(status: &Status, screen: &Screen) -> Vec<String> {
    let mut found = Vec::new();
    if status.uncertain_octets > 0 {
        let octets = screen.octets(status.uncertain_octets);
        found.push(format!(
            "NOT KNOWN: up to {octets} may have passed after the last record before the power went; they are not billed"
        ));
    }
    if status.set_aside_octets > 0 {
        let octets = screen.octets(status.set_aside_octets);
        found.push(format!("REFUSED BY THE SERVER, kept aside: {octets} (`weir ledger` says why)"));
    }
    if status.in_doubt_octets > 0 {
        let octets = screen.octets(status.in_doubt_octets);
        found.push(format!("IN DOUBT, sent once without an answer and not again: {octets}"));
    }
    if !status.ledger_persistent {
        found.push("THE LEDGER LIES IN MEMORY: a reboot loses what is not yet acknowledged".to_owned());
    }
    found.extend(status.ledger_damage.iter().map(|damage| format!("DAMAGE: {damage}")));
    if let Some(trouble) = &status.ledger_trouble {
        found.push(format!("{}; nothing more is granted until it can", trouble.replace("cannot", "CANNOT")));
    }
    found
}

fn render_link(page: &mut String, link: &LinkStatus, at: &str, screen: &Screen) {
    let sim = link.subscriber.as_deref().map_or_else(|| "no SIM yet".to_owned(), |sim| format!("SIM {sim}"));
    let name = screen.paint(Tone::Strong, &link.link);
    let state = screen.paint(tone(link), &link.state.to_uppercase());
    screen.add(page, 0, &format!("{name} · {sim} · {state}"));
    screen.add(page, 2, &link.explanation);
    if let Some(next) = next(&link.next, at, screen) {
        screen.item(page, "next", &next);
    }
    if link.subscriber.is_some() {
        render_session(page, link, at, screen);
    }
    if link.metered {
        screen.item(page, "kernel", &kernel(link, screen));
    }
    for warning in warnings(link, screen) {
        screen.add(page, 2, &screen.paint(Tone::Doubtful, &warning));
    }
}

/// What is bought, granted, used and reported.
fn render_session(page: &mut String, link: &LinkStatus, at: &str, screen: &Screen) {
    screen.item(page, "package", &package(&link.package, screen));
    let used = link.session_uplink_octets.saturating_add(link.session_downlink_octets);
    let (ceiling, left) = (screen.octets(link.ceiling_octets), screen.octets(link.remaining_octets));
    let granted = match link.grants {
        0 if link.ceiling_octets == 0 => "nothing so far".to_owned(),
        grants => {
            let used = screen.octets(used);
            format!("used {used} of {ceiling} granted, {left} left, {}", counted(grants, "grant"))
        }
    };
    screen.item(page, "granted", &granted);
    let average = link.average_octets_per_second;
    let average = average.map(|rate| format!(", {} over some minutes", screen.rate(rate))).unwrap_or_default();
    screen.item(page, "rate", &format!("{} now{average}", screen.rate(link.rate_octets_per_second)));
    let last = link.last_report.as_deref().and_then(|last| before(at, last));
    let never = || "nothing since the agent began".to_owned();
    let last = last.map_or_else(never, |ago| format!("last {} ago", duration(ago)));
    screen.item(page, "reported", &format!("{last}; {} unreported", screen.octets(link.unreported_octets)));
}

/// How the state of a link is to be looked at.
#[must_use]
pub fn tone(link: &LinkStatus) -> Tone {
    match link.state.as_str() {
        _ if !link.exists => Tone::Quiet,
        _ if !link.metered || link.aborted => Tone::Bad,
        "active" | "renewing" => Tone::Good,
        "exhausted" => Tone::Bad,
        "idle" => Tone::Quiet,
        _ => Tone::Doubtful,
    }
}

/// What happens next, in words; `None` where the explanation says all there is.
#[must_use]
pub fn next(next: &NextStatus, at: &str, screen: &Screen) -> Option<String> {
    let wait = next.at.as_deref().and_then(|then| before(then, at)).filter(|wait| wait.as_secs() > 0).map(duration);
    let soon = wait.as_ref().map_or_else(|| "soon".to_owned(), |wait| format!("in {wait}"));
    Some(match next.what.as_str() {
        "answer" => "a message is under way; its answer is awaited".to_owned(),
        "renewal" => {
            let left = screen.octets(next.left_octets.unwrap_or_default());
            let latest = wait.map(|wait| format!(", in {wait} at the latest")).unwrap_or_default();
            format!("asks for more when {left} of the grant are left{latest}")
        }
        "ask" => format!("asks the server again {soon}; `weir renew` asks now"),
        "retry" => format!("sends the message again {soon}; `weir renew` sends it now"),
        "reopen" => format!("was refused; tries again {soon}; `weir renew` tries now"),
        _ => return None,
    })
}

/// How much of the package is left, and for how long.
#[must_use]
pub fn package(package: &PackageStatus, screen: &Screen) -> String {
    let left = package.left_octets.map(|left| (left, screen.octets(left)));
    let Some(bought) = package.bought_octets else {
        let left = left.map_or_else(String::new, |(_, left)| format!("; {left} left of it, by the last grant"));
        return format!("not known: the server does not say what was bought{left}");
    };
    let Some((left, words)) = left else {
        return format!("{} bought; what is left is not known yet", screen.octets(bought));
    };
    let used = bought.saturating_sub(left);
    let runs_out = package.runs_out_seconds.map(Duration::from_secs).filter(|span| *span < FAR && left > 0);
    let runs_out = runs_out.map(|time| format!("; used up in about {} at this pace", duration(time)));
    format!(
        "{} {} used, {words} of {} left{}",
        screen.bar(used, bought, BAR),
        percent(used, bought),
        screen.octets(bought),
        runs_out.unwrap_or_default()
    )
}

fn kernel(link: &LinkStatus, screen: &Screen) -> String {
    let kernel = &link.kernel;
    let both =
        |what: &str, up: u64, down: u64| format!("{what} {} up, {} down", screen.octets(up), screen.octets(down));
    let mut words = vec![both("passed", kernel.passed_uplink_octets, kernel.passed_downlink_octets)];
    let more = [
        ("refused", kernel.refused_uplink_octets, kernel.refused_downlink_octets),
        ("control", kernel.control_uplink_octets, kernel.control_downlink_octets),
        ("throttled", kernel.throttled_uplink_octets, kernel.throttled_downlink_octets),
    ];
    words.extend(more.iter().filter(|(_, up, down)| up + down > 0).map(|(what, up, down)| both(what, *up, *down)));
    words.join(" · ")
}

/// What somebody should know of a link beyond its state.
fn warnings(link: &LinkStatus, screen: &Screen) -> Vec<String> {
    let mut found = Vec::new();
    let kernel = &link.kernel;
    if link.unmetered_prefix_octets > 0 {
        let octets = screen.octets(link.unmetered_prefix_octets);
        found.push(format!(
            "NOT METERED: {octets} passed the link before its meter was attached (as the interface counts, headers included)"
        ));
    }
    if link.meter_gaps > 0 {
        found.push(format!("somebody else took the meter off {}; it was attached again", times(link.meter_gaps)));
    }
    if kernel.policed_uplink_octets > 0 || kernel.policed_downlink_octets > 0 {
        let (up, down) = (screen.octets(kernel.policed_uplink_octets), screen.octets(kernel.policed_downlink_octets));
        found.push(format!(
            "throttle: of the refused, {up} up were too fast and never sent; {down} down were too fast and PAID FOR NOTHING"
        ));
    }
    if kernel.guessed_packets > 0 {
        let verb = if kernel.guessed_packets == 1 { "was" } else { "were" };
        found.push(format!(
            "{} {verb} counted without all of the headers, which could not be read",
            counted(kernel.guessed_packets, "packet")
        ));
    }
    found
}

fn span(seconds: u64) -> String {
    duration(Duration::from_secs(seconds))
}
