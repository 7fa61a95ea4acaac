//! The acts, in order: each says what happens and what to look at, makes it happen, and waits until it has been seen.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;

use super::books::{self, Books};
use super::observer::Figures;
use super::panel;
use super::stage::{self, DEVICE, LINK, PACKAGE, SUBSCRIBER, Stage, Traffic};
use crate::clock::{now, pause};
use crate::eventually::eventually;
use crate::reconciliation::Reconciliation;
use crate::words::{about, exactly};

/// How long anything awaited may take; far more than it takes, so that a busy machine shows the same play.
const PATIENCE: Duration = Duration::from_secs(45);

/// Octets of the top-up.
const TOP_UP: u64 = 24 << 20;

/// Octets that must pass for traffic to be seen to flow.
const SEEN_TO_FLOW: u64 = 1 << 20;

/// Octets that must pass for a gate to be seen to be open: more than was left in it for small packets.
const SEEN_TO_BE_OPEN: u64 = 64 << 10;

/// Octets that must be refused for the gate to be seen to be shut.
const SEEN_TO_BE_SHUT: u64 = 32 << 10;

/// Plays all acts to their end, and reconciles.
pub(super) fn play(mut stage: Stage<'_>) -> Result<()> {
    register(&mut stage).context("act 1, register")?;
    let traffic = Traffic::start(&stage.world)?;
    first_grant(&mut stage).context("act 2, first grant")?;
    renewals(&mut stage).context("act 3, renewals")?;
    lost_answer(&mut stage).context("act 4, an answer is lost")?;
    used_up(&mut stage).context("act 5, used up")?;
    top_up(&mut stage).context("act 6, top-up")?;
    kill_and_restart(&mut stage).context("act 7, killed")?;
    settle(&mut stage).context("act 8, settle")?;
    traffic.stop()?;
    reconcile(stage)
}

fn register(stage: &mut Stage<'_>) -> Result<()> {
    let text = "register: the gateway makes a key, the meter is attached, the modem connects, the server lends a SIM";
    act(stage, 1, text, "link and SIM");
    stage.start_agent()?;
    stage.connect_modem()?;
    let sim = until(stage, "a SIM", |figures| figures.link.as_ref()?.subscriber.clone())?;
    let devices = stage.admin.get("/admin/v1/devices")?;
    ensure!(devices["devices"][0]["deviceId"] == DEVICE, "the server does not know {DEVICE}: {devices}");
    done(
        stage,
        &format!("{DEVICE} is registered and logged in; {sim} is bound to {LINK}, with {} bought", about(PACKAGE)),
    );
    Ok(())
}

fn first_grant(stage: &mut Stage<'_>) -> Result<()> {
    act(
        stage,
        2,
        "first grant: TCP and UDP start both ways; the gate is shut until units are granted",
        "ceiling and rate",
    );
    until(stage, "the first grant", |figures| (figures.grants() > 0).then_some(()))?;
    flows(stage)?;
    let figures = stage.observer.figures();
    let reserved = figures.package.unwrap_or_default().reserved;
    done(
        stage,
        &format!("{} reserved at the server, the gate is open to that ceiling and no further", about(reserved)),
    );
    Ok(())
}

fn renewals(stage: &mut Stage<'_>) -> Result<()> {
    act(
        stage,
        3,
        "renewals under load: more is asked for while the old ceiling still lasts",
        "grants rise, the rate stays",
    );
    let before = stage.observer.figures();
    let after =
        until(stage, "two more grants", |figures| (figures.grants() >= before.grants() + 2).then(|| figures.clone()))?;
    done(
        stage,
        &format!(
            "{} grants; refused while renewing: {} octets",
            after.grants(),
            exactly(after.refused() - before.refused())
        ),
    );
    Ok(())
}

fn lost_answer(stage: &mut Stage<'_>) -> Result<()> {
    let text =
        "an answer is lost on purpose: the server debits, then hangs up; the agent sends the very same octets again";
    act(stage, 4, text, "package left falls once, traffic goes on");
    let rules = json!({ "rules": [{ "kind": "update", "fault": "drop-answer" }] });
    stage.admin.put("/admin/v1/faults", &rules)?;
    let admin = stage.admin.clone();
    eventually("the fault to strike", PATIENCE, || {
        pause(Duration::from_millis(100));
        let rules = admin.get("/admin/v1/faults")?;
        ensure!(rules["rules"][0]["fired"] == 1, "{rules}");
        Ok(())
    })?;
    let before = stage.observer.figures();
    let after =
        until(stage, "the next grant", |figures| (figures.grants() > before.grants()).then(|| figures.clone()))?;
    let (debits, doubles) = debits_and_doubles(stage)?;
    ensure!(doubles == 0, "{doubles} containers were debited twice");
    done(
        stage,
        &format!(
            "the answer to the repetition was taken; {debits} debits in the ledger, {doubles} of them double; refused meanwhile {} octets",
            exactly(after.refused() - before.refused()),
        ),
    );
    Ok(())
}

/// Debits so far, and how many of them have the charging id and number of another one.
fn debits_and_doubles(stage: &Stage<'_>) -> Result<(usize, usize)> {
    let answer = stage.admin.get(&format!("/admin/v1/ledger?subscriber={SUBSCRIBER}&kind=debit&limit=10000"))?;
    let entries = answer["entries"].as_array().context("entries of the ledger")?;
    let keys: std::collections::BTreeSet<String> =
        entries.iter().map(|entry| format!("{}/{}", entry["chargingId"], entry["localSequenceNumber"])).collect();
    Ok((entries.len(), entries.len() - keys.len()))
}

fn used_up(stage: &mut Stage<'_>) -> Result<()> {
    let text = "the package is used up: traffic stops at the last octet, control traffic goes on";
    act(stage, 5, text, "refused grows, control grows, used stands still");
    let shut =
        until(stage, "the state `exhausted`", |figures| (figures.state() == "exhausted").then(|| figures.clone()))?;
    let refusing = until(stage, "packets to be refused", |figures| {
        (figures.refused() >= shut.refused() + SEEN_TO_BE_SHUT).then(|| figures.clone())
    })?;
    stage.admin.post("/admin/v1/commands", &json!({ "deviceId": DEVICE, "command": "PLAN_CHANGED" }))?;
    let control = until(stage, "control traffic through the shut gate", |figures| {
        (figures.control() > refusing.control()).then(|| figures.clone())
    })?;
    let left = PACKAGE.checked_sub(control.passed());
    let left = left.with_context(|| format!("{} octets passed, only {PACKAGE} were bought", control.passed()))?;
    done(
        stage,
        &format!(
            "passed {} of {} bought: {left} octets are less than the next packet; refused so far {}; a command crossed the shut gate: control +{} octets",
            exactly(control.passed()),
            exactly(PACKAGE),
            about(control.refused()),
            control.control() - refusing.control(),
        ),
    );
    Ok(())
}

fn top_up(stage: &mut Stage<'_>) -> Result<()> {
    let text = format!(
        "top-up of {}: the server tells the agent, the gate opens, the same connections flow on",
        about(TOP_UP)
    );
    act(stage, 6, &text, "package left, rate");
    let from = now();
    stage.admin.post("/admin/v1/top-ups", &json!({ "subscriberIdentifier": SUBSCRIBER, "octets": TOP_UP }))?;
    let shut = stage.observer.figures();
    until(stage, "traffic after the top-up", |figures| {
        (figures.passed() > shut.passed() + SEEN_TO_BE_OPEN).then_some(())
    })?;
    let opened = now() - from;
    flows(stage)?;
    done(stage, &format!("open again {:.1} s after the payment", opened.as_secs_f32()));
    Ok(())
}

fn kill_and_restart(stage: &mut Stage<'_>) -> Result<()> {
    let text = "the agent is killed (kill -9) under traffic and started again: the kernel counts and enforces alone";
    act(stage, 7, text, "state says no agent, the rate stays");
    // Right after a grant there is the most to live on.
    let before = stage.observer.figures().grants();
    until(stage, "a fresh grant", |figures| (figures.grants() > before).then_some(()))?;
    stage.observer.forget_pauses();
    let from = stage.observer.figures();
    stage.agent()?.actor.kill()?;
    let dead = eventually("traffic without an agent", PATIENCE, || {
        let figures = stage.observer.figures();
        ensure!(figures.link.is_none(), "the agent still answers");
        ensure!(figures.passed() >= from.passed() + SEEN_TO_FLOW, "{}", panel::plain(&figures));
        Ok(figures)
    })?;
    stage.start_agent()?;
    let back = until(stage, "the agent to be back and to renew", |figures| {
        let working = figures.link.as_ref()?.metered && figures.passed() > dead.passed();
        (working && matches!(figures.state(), "active" | "renewing" | "final")).then(|| figures.clone())
    })?;
    flows(stage)?;
    done(
        stage,
        &format!(
            "{} passed while nobody was there, {} until the agent was back; no standstill over {:.2} s, refused meanwhile {} octets",
            about(dead.passed() - from.passed()),
            about(back.passed() - from.passed()),
            stage.observer.figures().longest_pause.as_secs_f32(),
            exactly(back.refused() - from.refused()),
        ),
    );
    Ok(())
}

fn settle(stage: &mut Stage<'_>) -> Result<()> {
    act(stage, 8, "SIGTERM: the gate shuts, the last octets are reported, unused units go back", "reserved falls to 0");
    let held = books::package(&stage.admin, SUBSCRIBER)?.reserved;
    let status = stage.agent()?.actor.terminate(PATIENCE)?;
    ensure!(status.success(), "the agent ended with {status}");
    let package = books::package(&stage.admin, SUBSCRIBER)?;
    ensure!(package.reserved == 0, "{} octets are still reserved", package.reserved);
    let releases = stage.admin.get(&format!("/admin/v1/ledger?subscriber={SUBSCRIBER}&kind=release"))?;
    let returned: u64 =
        releases["entries"].as_array().into_iter().flatten().filter_map(|entry| entry["totalVolume"].as_u64()).sum();
    done(
        stage,
        &format!("{} were reserved, {} returned unused, {} left for another day", about(held), about(returned), {
            about(u64::try_from(package.balance).unwrap_or(0))
        }),
    );
    Ok(())
}

/// Ends the capture, reads all five, shows them, and says whether they are equal.
fn reconcile(stage: Stage<'_>) -> Result<()> {
    stage.observer.begin_act("reconciliation");
    let (pin_root, recorded, screen) = (stage.pin_root(), stage.recorded(), stage.screen);
    let lost = stage.lost_on_the_link()?;
    let capture = stage.capture.stop()?;
    let kernel = stage::kernel(&pin_root)?;
    let books = Books::read(&recorded, &stage.admin, SUBSCRIBER, PACKAGE + TOP_UP)?;
    drop(stage.observer);
    screen.close();
    screen.say("\nReconciliation: the same octets, counted five times\n");
    let figures = Reconciliation::new(&capture, &kernel, &books.booked());
    screen.say(&figures.table());
    screen.say(&format!(
        "{} messages ({} repeated), {} containers, {} debits; lost on the link: {lost}; parse errors: {}",
        books.requests, books.retransmissions, books.containers, books.debits, kernel.parse_errors
    ));
    ensure!(
        lost == 0,
        "the link itself lost {lost} packets between its two ends, so that they cannot agree: run it again"
    );
    figures.check()?;
    ensure!(books.retransmissions > 0, "an answer was lost, but no message was sent again");
    let seconds = (now() - stage.begin).as_secs();
    screen.say(&format!("\nAll five are equal: {} octets, {seconds} s.", exactly(figures.billed())));
    Ok(())
}

/// Announces an act.
fn act(stage: &Stage<'_>, number: u8, text: &str, look_at: &str) {
    let title = text.split(':').next().unwrap_or(text);
    stage.observer.begin_act(&format!("act {number} of 8: {title}"));
    stage.screen.announce(&format!("{number}/8 {text} (look at: {look_at})"));
}

/// Says what has been seen.
fn done(stage: &Stage<'_>, text: &str) {
    stage.screen.say(&format!("    {text}"));
}

/// Waits until traffic is seen to flow.
fn flows(stage: &mut Stage<'_>) -> Result<()> {
    let before = stage.observer.figures().passed();
    until(stage, "traffic to flow", |figures| (figures.passed() >= before + SEEN_TO_FLOW).then_some(()))
}

/// Waits for something to be seen; fails at once when the agent is gone.
fn until<T>(stage: &mut Stage<'_>, what: &str, mut look: impl FnMut(&Figures) -> Option<T>) -> Result<T> {
    let seen = eventually(what, PATIENCE, || {
        let figures = stage.observer.figures();
        if let Some(seen) = look(&figures) {
            return Ok(Ok(seen));
        }
        match stage.agent()?.actor.exited()? {
            Some(status) => Ok(Err(status)),
            None => bail!("{}", panel::plain(&figures)),
        }
    })?;
    seen.map_err(|status| anyhow::anyhow!("waited for {what}, but the agent has ended: {status}"))
}
