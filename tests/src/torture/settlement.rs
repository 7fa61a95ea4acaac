//! The end of a run: the blows cease, service comes back, everything is settled, and the same octets are counted five times.

use std::collections::BTreeMap;
use std::time::Duration;

use agent::clock::boot_id;
use agent::ledger::{Granularity, Ledger, Scope};
use anyhow::{Context as _, Result, ensure};

use super::plan::{METERED, SIMS, SMALL};
use super::stage::{Ends, LEDGER, Stage};
use crate::eventually::eventually;
use crate::reconciliation::{Booked, Octets, Reconciliation};
use crate::scenario::{Account, ClockWord, subscriber};

/// How long service may take to come back after the last blow.
const BACK: Duration = Duration::from_secs(90);

/// Octets that must pass for a link to be in service.
const SEEN_TO_FLOW: u64 = 200_000;

/// Agents that may follow each other to settle what the first one has left.
const ROUNDS: usize = 4;

/// What came out.
pub(super) struct Outcome {
    /// The five figures of each link, `wan0` first, and of both together.
    pub(super) links: Vec<Reconciliation>,
    pub(super) sum: Reconciliation,
    /// Each thing that is not as it must be; empty when nothing is wrong.
    pub(super) wrong: Vec<String>,
    /// Sessions there were.
    pub(super) sessions: usize,
    /// Containers that came once more and were recognised.
    pub(super) duplicates: usize,
    /// Meters there were, over all links.
    pub(super) epochs: usize,
}

/// Ends the blows, waits for service, settles, and compares.
pub(super) fn settle(stage: &mut Stage) -> Result<Outcome> {
    calm(stage).context("after the last blow")?;
    for link in 0..METERED {
        if link == 0 || stage.setting.follows_default_route {
            stage.prefer(link)?;
        }
        flows(stage, link)?;
    }
    if let Some(traffic) = stage.traffic.take() {
        stage.tally.flow_restarts = traffic.restarts;
        traffic.stop();
    }
    stop_until_settled(stage)?;
    stage.audit().context("in the end")?;
    compare(stage)
}

/// No faults, all links up, everybody there, everything allowed.
fn calm(stage: &mut Stage) -> Result<()> {
    stage.mend_all()?;
    stage.world.shift_wall(0, ClockWord::Synced)?;
    stage.admin("no faults", |admin| admin.delete("/admin/v1/faults"))?;
    stage.bring_agent_up()?;
    stage.agent_answers()?;
    for link in 0..METERED {
        stage.raise(link)?;
        stage.is_metered(link)?;
    }
    stage.top_up(16 << 20)?;
    SIMS.concat().into_iter().try_for_each(|sim| stage.command("REAUTHORISE", sim))
}

/// Waits until a link carries traffic again.
fn flows(stage: &mut Stage, link: usize) -> Result<()> {
    let before = stage.wires[link].passed()?;
    eventually(&format!("service on wan{link} after the last blow"), BACK, || {
        stage.tick()?;
        let passed = stage.wires[link].passed()? - before;
        ensure!(passed >= SEEN_TO_FLOW, "{passed} octets; {}", stage.world.link_status(&format!("wan{link}"))?);
        Ok(())
    })
}

/// Asks the agent to end; what it could not settle in time, or was to keep, the next ones do.
fn stop_until_settled(stage: &mut Stage) -> Result<()> {
    let mut outcome = Ok(());
    for _ in 0..ROUNDS {
        stage.stop_agent()?;
        stage.agent_ends()?;
        outcome = SIMS.concat().into_iter().try_for_each(|sim| stage.world.account(sim)?.is_settled());
        if outcome.is_ok() {
            return Ok(());
        }
        stage.start_agent_that(Ends::Settles, None)?;
        stage.agent_answers()?;
    }
    outcome.with_context(|| format!("{ROUNDS} agents could not settle what there was"))
}

fn compare(stage: &mut Stage) -> Result<Outcome> {
    let mut wrong = Vec::new();
    let mut outcome = Outcome {
        links: Vec::new(),
        sum: Reconciliation::default(),
        wrong: Vec::new(),
        sessions: 0,
        duplicates: 0,
        epochs: stage.wires.iter().map(super::wire::Wire::epochs).sum(),
    };
    let closed = closed(stage, &mut wrong)?;
    for (link, sims) in SIMS.into_iter().enumerate() {
        let mut booked = Booked::default();
        let mut offline = 0;
        for sim in sims {
            let account = stage.world.account(*sim)?;
            let sealed = closed.get(&subscriber(*sim)).copied().unwrap_or_default();
            let checked = check_account(stage, *sim, &account, sealed);
            wrong.extend(checked.err().map(|error| format!("SIM {sim}: {error:#}")));
            booked.sealed += sealed;
            booked.debited += Octets { uplink: account.uplink, downlink: account.downlink };
            booked.package += i128::from(account.total) - i128::from(account.balance);
            offline += account.offline;
            outcome.sessions += account.sessions.len();
            outcome.duplicates += account.of_kind("duplicate").count();
        }
        let counted = stage.wires[link].counted()?;
        let seen = stage.wires[link].close(&stage.world)?;
        let figures = Reconciliation::new(&seen, &counted, &booked);
        let throttled = counted.uplink.throttled.octets + counted.downlink.throttled.octets;
        if throttled != offline {
            wrong.push(format!("wan{link}: {throttled} octets passed throttled, {offline} were told to the server"));
        }
        if counted.parse_errors > 0 {
            wrong.push(format!("wan{link}: {} packets could not be read", counted.parse_errors));
        }
        if let Err(error) = figures.check() {
            let lost = stage.wires[link].lost();
            wrong.push(format!("wan{link}: {error:#}\n  (its devices say they have dropped {lost} packets)"));
        }
        outcome.links.push(figures);
        outcome.sum += figures;
    }
    wrong.extend(stage.world.is_replayed_alike().err().map(|error| format!("{error:#}")));
    outcome.wrong = wrong;
    Ok(outcome)
}

/// What the agent's own ledger says of each SIM: closed containers inside the quota. Adds what is not in order in it.
fn closed(stage: &Stage, wrong: &mut Vec<String>) -> Result<BTreeMap<String, Octets>> {
    let ledger = Ledger::open(stage.world.workdir.path().join(LEDGER), boot_id()?).context("the agent's ledger")?;
    let buffered = ledger.buffered()?;
    if buffered.containers > 0 {
        wrong.push(format!("the agent's ledger still holds {buffered:?}"));
    }
    for aside in ledger.set_aside()? {
        wrong.push(format!("the server refused a message for good: {aside:?}"));
    }
    let mut closed: BTreeMap<String, Octets> = BTreeMap::new();
    for bucket in ledger.usage_history(Granularity::Month, Scope::Recorded)? {
        let online = bucket.usage.online;
        *closed.entry(bucket.subscriber.as_str().into()).or_default() +=
            Octets { uplink: online.uplink.get(), downlink: online.downlink.get() };
    }
    Ok(closed)
}

/// One SIM: everything settled, the two parties' books the same, and nothing over what was bought.
fn check_account(stage: &Stage, sim: usize, account: &Account, sealed: Octets) -> Result<()> {
    account.is_settled()?;
    let debited = Octets { uplink: account.uplink, downlink: account.downlink };
    ensure!(sealed == debited, "the agent has closed {sealed:?}, the server has debited {debited:?}");
    if sim == SMALL {
        ensure!(account.total == stage.bought, "{} bought, the package has {}", stage.bought, account.total);
    }
    let grace = stage.setting.packages[sim]["failureHandling"] == "CONTINUE";
    ensure!(grace || account.balance >= 0, "used beyond what was bought: {} left", account.balance);
    Ok(())
}
