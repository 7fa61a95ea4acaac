//! `weir status`: what a running agent holds, for people or as JSON.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::local::{self, LinkStatus, Status};

/// How to print the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

/// Asks the agent behind `socket` and prints its status to standard output.
pub async fn run(socket: &Path, format: Format) -> Result<()> {
    let status = local::fetch(socket).await?;
    let text = match format {
        Format::Text => render(&status),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&status).context("writing JSON")?),
    };
    std::io::stdout().write_all(text.as_bytes()).context("writing to standard output")
}

/// The status in lines of at most about 100 characters.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut text = String::new();
    let unsynced = if status.clock_synced { "" } else { " (clock not synchronised)" };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "weir {} · device {} · server {}", status.version, status.device, status.server);
    let _ = writeln!(text, "at {}{unsynced} · onboarding: {}", status.at, status.onboarding);
    for link in &status.links {
        render_link(&mut text, link);
    }
    let _ = writeln!(
        text,
        "\nunacknowledged {} in {} containers · past sessions settling {} · ledger drift {} octets",
        octets(status.unacknowledged_octets),
        status.buffered_containers,
        status.draining_sessions,
        status.ledger_drift_octets,
    );
    if status.uncertain_octets > 0 {
        let _ = writeln!(
            text,
            "NOT KNOWN: up to {} may have passed after the last record before the power went; they are not billed",
            octets(status.uncertain_octets)
        );
    }
    if status.set_aside_octets > 0 {
        let _ = writeln!(text, "REFUSED BY THE SERVER, kept aside: {}", octets(status.set_aside_octets));
    }
    if status.in_doubt_octets > 0 {
        let sum = octets(status.in_doubt_octets);
        let _ = writeln!(text, "IN DOUBT, sent once without an answer and not again: {sum}");
    }
    if let Some(draining) = &status.draining {
        let acknowledged = draining.total_containers.saturating_sub(draining.left_containers);
        let left = draining.seconds_left.map_or_else(|| "not moving".to_owned(), |s| format!("about {s} s left"));
        let _ =
            writeln!(text, "draining: {acknowledged} of {} containers acknowledged, {left}", draining.total_containers);
    }
    if let Some(trouble) = &status.ledger_trouble {
        let _ = writeln!(text, "{}; nothing more is granted until it can", trouble.replace("cannot", "CANNOT"));
    }
    if !status.ledger_persistent {
        let _ = writeln!(text, "THE LEDGER LIES IN MEMORY: a reboot loses what is not yet acknowledged");
    }
    for damage in &status.ledger_damage {
        let _ = writeln!(text, "DAMAGE: {damage}");
    }
    text
}

fn render_link(text: &mut String, link: &LinkStatus) {
    let sim = link.subscriber.as_deref().unwrap_or("no SIM yet");
    let used = link.session_uplink_octets.saturating_add(link.session_downlink_octets);
    let _ = writeln!(text, "\n{}  {}  {}", link.link, sim, link.state.to_uppercase());
    let _ = writeln!(text, "  {}", link.explanation);
    let _ = writeln!(
        text,
        "  session: used {} of {} granted, {} left, {} grants, {}/s, {} unreported",
        octets(used),
        octets(link.ceiling_octets),
        octets(link.remaining_octets),
        link.grants,
        octets(link.rate_octets_per_second),
        octets(link.unreported_octets),
    );
    if link.unmetered_prefix_octets > 0 {
        let _ = writeln!(
            text,
            "  NOT METERED: {} passed the link before its meter was attached (as the interface counts, headers included)",
            octets(link.unmetered_prefix_octets),
        );
    }
    if link.meter_gaps > 0 {
        let _ = writeln!(text, "  somebody else took the meter off {} times; it was attached again", link.meter_gaps);
    }
    let kernel = &link.kernel;
    let _ = writeln!(
        text,
        "  kernel:  passed {} up, {} down · refused {} up, {} down · control {} up, {} down · throttled {} up, {} down",
        octets(kernel.passed_uplink_octets),
        octets(kernel.passed_downlink_octets),
        octets(kernel.refused_uplink_octets),
        octets(kernel.refused_downlink_octets),
        octets(kernel.control_uplink_octets),
        octets(kernel.control_downlink_octets),
        octets(kernel.throttled_uplink_octets),
        octets(kernel.throttled_downlink_octets),
    );
    if kernel.policed_uplink_octets > 0 || kernel.policed_downlink_octets > 0 {
        let _ = writeln!(
            text,
            "  throttle: of the refused, {} up were too fast and never sent; {} down were too fast and PAID FOR NOTHING",
            octets(kernel.policed_uplink_octets),
            octets(kernel.policed_downlink_octets),
        );
    }
    if kernel.guessed_packets > 0 {
        let _ = writeln!(
            text,
            "  {} packets were counted by what is known of them, because not all of their headers could be read",
            kernel.guessed_packets
        );
    }
}

/// Octets with a binary unit, or plain below 10 KiB.
#[must_use]
pub fn octets(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 10 * 1024 {
        return format!("{count} octets");
    }
    let mut tenths = u128::from(count) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}
