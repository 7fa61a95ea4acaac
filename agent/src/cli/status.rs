//! `weir status`: what a running agent holds, for people or as JSON.

use std::process::ExitCode;

use anyhow::Result;

use super::words::Screen;
use super::{as_json, print, runtime, socket};
use crate::args;
use crate::local::{self, LinkStatus, Status};

/// Asks the agent for its status and prints it.
pub fn run(asked: &args::Status) -> Result<ExitCode> {
    let status = runtime()?.block_on(local::fetch(&socket(&asked.whom)?))?;
    print(&if asked.look.json { as_json(&status)? } else { render(&status, &Screen::of_stdout(asked.look)) })?;
    Ok(ExitCode::SUCCESS)
}

/// The status in lines that fit.
#[must_use]
pub fn render(status: &Status, screen: &Screen) -> String {
    let mut text = String::new();
    let unsynced = if status.clock_synced { "" } else { " (clock not synchronised)" };
    screen.add(&mut text, 0, &format!("weir {} · device {} · server {}", status.version, status.device, status.server));
    screen.add(&mut text, 0, &format!("at {}{unsynced} · onboarding: {}", status.at, status.onboarding));
    for link in &status.links {
        render_link(&mut text, link, screen);
    }
    text.push('\n');
    screen.add(
        &mut text,
        0,
        &format!(
            "unacknowledged {} in {} containers · past sessions settling {} · ledger drift {} octets",
            screen.octets(status.unacknowledged_octets),
            status.buffered_containers,
            status.draining_sessions,
            status.ledger_drift_octets
        ),
    );
    if status.uncertain_octets > 0 {
        screen.add(
            &mut text,
            0,
            &format!(
                "NOT KNOWN: up to {} may have passed after the last record before the power went; they are not billed",
                screen.octets(status.uncertain_octets)
            ),
        );
    }
    if status.set_aside_octets > 0 {
        screen.add(
            &mut text,
            0,
            &format!("REFUSED BY THE SERVER, kept aside: {}", screen.octets(status.set_aside_octets)),
        );
    }
    if status.in_doubt_octets > 0 {
        let sum = screen.octets(status.in_doubt_octets);
        screen.add(&mut text, 0, &format!("IN DOUBT, sent once without an answer and not again: {sum}"));
    }
    if let Some(draining) = &status.draining {
        let acknowledged = draining.total_containers.saturating_sub(draining.left_containers);
        let left = draining.seconds_left.map_or_else(|| "not moving".to_owned(), |s| format!("about {s} s left"));
        screen.add(
            &mut text,
            0,
            &format!("draining: {acknowledged} of {} containers acknowledged, {left}", draining.total_containers),
        );
    }
    if let Some(trouble) = &status.ledger_trouble {
        screen.add(
            &mut text,
            0,
            &format!("{}; nothing more is granted until it can", trouble.replace("cannot", "CANNOT")),
        );
    }
    if !status.ledger_persistent {
        screen.add(&mut text, 0, "THE LEDGER LIES IN MEMORY: a reboot loses what is not yet acknowledged");
    }
    for damage in &status.ledger_damage {
        screen.add(&mut text, 0, &format!("DAMAGE: {damage}"));
    }
    text
}

fn render_link(text: &mut String, link: &LinkStatus, screen: &Screen) {
    let sim = link.subscriber.as_deref().unwrap_or("no SIM yet");
    let used = link.session_uplink_octets.saturating_add(link.session_downlink_octets);
    text.push('\n');
    screen.add(text, 0, &format!("{}  {}  {}", link.link, sim, link.state.to_uppercase()));
    screen.add(text, 2, &link.explanation);
    screen.add(
        text,
        2,
        &format!(
            "session: used {} of {} granted, {} left, {} grants, {}, {} unreported",
            screen.octets(used),
            screen.octets(link.ceiling_octets),
            screen.octets(link.remaining_octets),
            link.grants,
            screen.rate(link.rate_octets_per_second),
            screen.octets(link.unreported_octets)
        ),
    );
    if link.unmetered_prefix_octets > 0 {
        screen.add(text, 2, &format!("NOT METERED: {} passed the link before its meter was attached (as the interface counts, headers included)",
            screen.octets(link.unmetered_prefix_octets)));
    }
    if link.meter_gaps > 0 {
        screen.add(
            text,
            2,
            &format!("somebody else took the meter off {} times; it was attached again", link.meter_gaps),
        );
    }
    let kernel = &link.kernel;
    screen.add(text, 2, &format!("kernel:  passed {} up, {} down · refused {} up, {} down · control {} up, {} down · throttled {} up, {} down",
        screen.octets(kernel.passed_uplink_octets),
        screen.octets(kernel.passed_downlink_octets),
        screen.octets(kernel.refused_uplink_octets),
        screen.octets(kernel.refused_downlink_octets),
        screen.octets(kernel.control_uplink_octets),
        screen.octets(kernel.control_downlink_octets),
        screen.octets(kernel.throttled_uplink_octets),
        screen.octets(kernel.throttled_downlink_octets)));
    if kernel.policed_uplink_octets > 0 || kernel.policed_downlink_octets > 0 {
        screen.add(text, 2, &format!("throttle: of the refused, {} up were too fast and never sent; {} down were too fast and PAID FOR NOTHING",
            screen.octets(kernel.policed_uplink_octets),
            screen.octets(kernel.policed_downlink_octets)));
    }
    if kernel.guessed_packets > 0 {
        screen.add(
            text,
            2,
            &format!(
                "{} packets were counted by what is known of them, because not all of their headers could be read",
                kernel.guessed_packets
            ),
        );
    }
}
