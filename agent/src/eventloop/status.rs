//! Puts together what `weir status` shows.

use std::time::Duration;

use agent_common::Counters;
use anyhow::Result;
use tokio::sync::mpsc;

use super::station::{Attachment, Station, reading};
use super::{Agent, Message};
use crate::clock::boot_now;
use crate::config::Config;
use crate::ledger::{Buffered, Verdict, is_persistent};
use crate::local::{
    self, Asker, Desk, DrainStatus, KernelStatus, LinkStatus, NextStatus, PackageStatus, Question, SCHEMA, Served,
    Status, Timeline,
};
use crate::quota::{GateMode, Next, Overview, State};
use crate::units::BootInstant;

/// Up to so many buffered containers the books are added up anew whenever somebody asks …
const SHORT_BACKLOG: usize = 20_000;
/// … and else as often as this.
const AUDIT_AGAIN: Duration = Duration::from_mins(1);

/// The ledger's books as they were last read.
#[derive(Debug, Default)]
pub(super) struct Books {
    buffered: Buffered,
    /// Octets by which the books do not close.
    drift: u64,
    /// When they were added up.
    audited_at: Option<BootInstant>,
    /// Octets in messages the server refused for good.
    set_aside: u64,
    /// Octets in messages that were sent once without an answer, to a server that knows none again.
    in_doubt: u64,
    /// Octets that may have passed after the last record before a power cut.
    uncertain: u64,
    damage: Vec<String>,
}

/// Serves the local API on the configured socket, and over TCP where it is configured: whoever reads the inbox answers.
pub(super) fn serve(config: &Config, inbox: mpsc::UnboundedSender<Message>, timeline: &Timeline) -> Result<Served> {
    // When the loop has gone the question is dropped, and so answered.
    let asker = Asker::new(move |question| drop(inbox.send(Message::Asked(question))));
    let desk = Desk::new(asker.clone(), timeline.clone());
    let served = local::serve(&config.agent.socket, desk.clone())?;
    if let Some(listen) = config.captive_portal {
        local::tell_captives(listen, asker);
    }
    if let Some(api) = config.api.clone() {
        local::listen(api, desk);
    }
    Ok(served)
}

impl Agent {
    /// Answers what somebody asks over the local API. The ledger may be out of reach.
    pub(super) fn answer(&mut self, question: Question) -> Result<()> {
        match question {
            // Whoever asked may have gone.
            Question::Status(reply) => drop(reply.send(self.status()?)),
            Question::Account(reply) => self.send_account(reply),
            Question::Renew(link, reply) => drop(reply.send(self.renew(link.as_deref())?)),
            Question::Outlooks(reply) => drop(reply.send(self.outlooks()?)),
            Question::Usage(wish, reply) => self.tell_usage(wish, reply)?,
        }
        Ok(())
    }

    /// Reads the ledger's books. To add up every container of a long backlog takes its time: that is done once in a while then.
    pub(super) fn read_books(&mut self) -> Result<()> {
        let now = boot_now()?;
        let buffered = self.ledger.buffered()?;
        let is_short = buffered.containers <= SHORT_BACKLOG;
        if is_short || self.books.audited_at.is_none_or(|at| now >= at.plus(AUDIT_AGAIN)) {
            self.books.drift = self.ledger.audit()?.iter().map(|audit| audit.drift().get()).sum();
            self.books.audited_at = Some(now);
        }
        let set_aside = self.ledger.set_aside()?;
        let octets_of = |verdict: Verdict| -> u64 {
            let messages = set_aside.iter().filter(|message| message.verdict == verdict);
            messages.map(|message| message.usage.total().get()).sum()
        };
        (self.books.set_aside, self.books.in_doubt) = (octets_of(Verdict::Refused), octets_of(Verdict::InDoubt));
        self.books.uncertain = self.ledger.uncertain()?.get();
        self.books.damage = self.ledger.damage_notices()?;
        self.books.buffered = buffered;
        Ok(())
    }

    /// What there is to show now. While the ledger is in trouble its books may be out of reach: then they are shown as last read.
    pub(super) fn status(&mut self) -> Result<Status> {
        let moment = self.clock.now()?;
        match (self.read_books(), &self.trouble) {
            (Err(_), Some(_)) => {}
            (read, _) => read?,
        }
        let mut links = Vec::new();
        let mut draining = 0;
        for station in &self.stations {
            let overview = station.quota.overview(boot_now()?);
            draining += overview.draining;
            let unmetered = station.epoch(&self.boot).map(|epoch| self.unmetered.of(&epoch)).unwrap_or_default();
            let Some(name) = &station.name else {
                draining += usize::from(overview.session.is_some());
                continue;
            };
            // A session that was opened just now may be in no ledger.
            let grants = overview.session.and_then(|session| self.ledger.grants(session).ok()).unwrap_or(0);
            let label = |instant: BootInstant| moment.label(instant).wall.to_string();
            links.push(LinkStatus {
                unmetered_prefix_octets: unmetered.prefix_octets,
                package: self.package_status(station, &overview).unwrap_or_default(),
                next: next_status(overview.next, label),
                last_report: station.answered_at.map(label),
                ..link_status(name, station, &overview, grants)
            });
        }
        let open = self.stations.iter().filter_map(|station| station.quota.overview(moment.boot).open_since);
        let open = open.map(|since| moment.label(since));
        let oldest = open.chain(self.books.buffered.oldest).min_by_key(|label| label.wall);
        Ok(Status {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            device: self.config.device.id.clone(),
            server: self.config.server.url.to_string(),
            onboarding: self.onboarding.clone(),
            onboarding_trouble: self.onboarding_trouble.clone(),
            at: moment.label.wall.to_string(),
            clock_synced: moment.label.synced,
            links,
            unacknowledged_octets: self.books.buffered.octets.get(),
            buffered_containers: self.books.buffered.containers,
            oldest_unreported: oldest.map(|label| label.wall.to_string()),
            ledger_drift_octets: self.books.drift,
            uncertain_octets: self.books.uncertain,
            set_aside_octets: self.books.set_aside,
            in_doubt_octets: self.books.in_doubt,
            draining_sessions: draining,
            draining: self.progress.draining().map(|draining| DrainStatus {
                total_containers: draining.total,
                left_containers: draining.left,
                seconds_left: draining.seconds_left,
            }),
            ledger_trouble: self.trouble.clone(),
            ledger_persistent: is_persistent(&self.config.ledger),
            ledger_damage: self.books.damage.clone(),
        })
    }
}

impl Agent {
    /// How things stand, in a line: what `systemctl status` shows.
    pub(super) fn in_words(&self, now: BootInstant) -> String {
        let mut links = Vec::new();
        for station in &self.stations {
            let Some(name) = &station.name else { continue };
            let state = match station.attachment {
                Attachment::None => "no such link yet",
                Attachment::Pending(_) => "being attached",
                Attachment::Failed(_) | Attachment::Refused => "NOT METERED",
                Attachment::On(_) => state_word(station.quota.overview(now).state),
            };
            links.push(format!("{name}: {state}"));
        }
        if links.is_empty() {
            links.push("no link of the configuration is there yet".to_owned());
        }
        let trouble = self.trouble.iter().cloned();
        trouble.chain(links).collect::<Vec<_>>().join("; ")
    }
}

fn link_status(name: &str, station: &Station, overview: &Overview, grants: u32) -> LinkStatus {
    let metered = matches!(station.attachment, Attachment::On(_));
    LinkStatus {
        link: name.to_owned(),
        exists: station.attachment != Attachment::None,
        metered,
        in_use: station.in_use,
        subscriber: station.sim.as_ref().map(|sim| sim.subscriber.to_string()),
        state: state_word(overview.state).to_owned(),
        explanation: explain(station, overview, metered),
        aborted: overview.aborted,
        refused: overview.is_refused(),
        charging_id: overview.session.map(crate::units::ChargingId::get),
        session_uplink_octets: overview.used.uplink.get(),
        session_downlink_octets: overview.used.downlink.get(),
        ceiling_octets: overview.grant.as_ref().map_or(0, |grant| grant.ceiling.get()),
        remaining_octets: overview.remaining.get(),
        grants,
        rate_octets_per_second: overview.rate.get(),
        unreported_octets: overview.unreported.get(),
        average_octets_per_second: station.trend.rate(),
        package: PackageStatus::default(),
        next: NextStatus::default(),
        last_report: None,
        unmetered_prefix_octets: 0,
        meter_gaps: station.gaps,
        kernel: station
            .counters()
            .ok()
            .flatten()
            .map_or_else(KernelStatus::default, |counters| kernel_status(&counters)),
    }
}

fn next_status(next: Next, label: impl Fn(BootInstant) -> String) -> NextStatus {
    let (what, at, left) = match next {
        Next::Nothing => ("nothing", None, None),
        Next::Answer => ("answer", None, None),
        Next::Renewal { left, by } => ("renewal", by, Some(left.get())),
        Next::Ask(at) => ("ask", Some(at), None),
        Next::Retry(at) => ("retry", Some(at), None),
        Next::Reopen(at) => ("reopen", Some(at), None),
    };
    NextStatus { what: what.to_owned(), at: at.map(label), left_octets: left }
}

fn kernel_status(counters: &Counters) -> KernelStatus {
    let reading = reading(counters);
    KernelStatus {
        passed_uplink_octets: reading.passed.uplink.get(),
        passed_downlink_octets: reading.passed.downlink.get(),
        refused_uplink_octets: reading.refused.uplink.get(),
        refused_downlink_octets: reading.refused.downlink.get(),
        control_uplink_octets: reading.control.uplink.get(),
        control_downlink_octets: reading.control.downlink.get(),
        throttled_uplink_octets: reading.throttled.uplink.get(),
        throttled_downlink_octets: reading.throttled.downlink.get(),
        policed_uplink_octets: counters.uplink.policed.octets,
        policed_downlink_octets: counters.downlink.policed.octets,
        guessed_packets: counters.parse_errors,
    }
}

const fn state_word(state: State) -> &'static str {
    match state {
        State::Idle => "idle",
        State::Requesting => "requesting",
        State::Active => "active",
        State::Renewing => "renewing",
        State::Final => "final",
        State::Exhausted => "exhausted",
        State::Offline => "offline",
        State::Returning => "returning",
        State::Draining => "draining",
    }
}

/// Plain words: what is so, why, and what happens next.
fn explain(station: &Station, overview: &Overview, metered: bool) -> String {
    if let (Attachment::Refused, Some(refusal)) = (station.attachment, &station.refusal) {
        return format!("not metered: {refusal}");
    }
    let words = match (station.attachment, overview.state) {
        (Attachment::None, _) => "the link does not exist; it is metered from its first packet once it does",
        (Attachment::Failed(_), _) => "the meter could not be attached; see the log, it is tried again",
        _ if metered && station.sim.is_none() => "waiting for a SIM from onboarding; only control traffic passes",
        // Whatever the session has still to do: this is what keeps the gate shut.
        _ if overview.aborted => {
            "ended by order of the server; the gate stays shut until the server asks for the SIM again"
        }
        (_, State::Idle) if !station.in_use => "not in use (down, or another link carries the default route); shut",
        (_, State::Idle) if station.is_kept_waiting => {
            "waiting until an earlier session of the SIM, which the server has lost, is booked; the gate is shut"
        }
        (_, State::Idle) => "idle; the gate is shut and opens when traffic asks for it",
        (_, State::Requesting) => "waiting for the first units; the gate is shut",
        (_, State::Active) => "traffic passes; more is asked for in time",
        (_, State::Renewing) => "traffic passes up to the present ceiling while the server is asked",
        (_, State::Final) => "the last of the package; traffic passes until it is used up",
        (_, State::Exhausted) => return explain_exhausted(overview),
        (_, State::Offline) => "the server does not answer; it is tried again over every link",
        (_, State::Returning) => "the gate is shut; the last octets are being counted",
        (_, State::Draining) => "waiting for the server to acknowledge the last reports",
    };
    words.to_owned()
}

/// What becomes of traffic after the last of a package, or after a refusal.
fn explain_exhausted(overview: &Overview) -> String {
    let (cause, until) = match (overview.next, overview.is_refused()) {
        (Next::Reopen(_), _) => {
            let words = "the server has refused the session, or it is in doubt; traffic is blocked and another is tried; the log has the server's cause";
            return words.to_owned();
        }
        (_, true) => ("the server refuses units", "until it grants some"),
        (_, false) => ("the package is used up", "until a top-up"),
    };
    let used_up = overview.used_up.as_ref();
    let what = match used_up.map(|used_up| &used_up.mode) {
        Some(GateMode::Throttle(_)) => "traffic is throttled".to_owned(),
        Some(GateMode::Restrict(_)) => "only what the filters permit passes".to_owned(),
        Some(GateMode::Redirect(portal)) => format!("only the portal {} is reached", portal.url),
        Some(GateMode::Block) | None => "traffic is blocked".to_owned(),
    };
    let why = used_up.and_then(|used_up| used_up.not_followed.as_ref());
    let why = why.map(|why| format!(" (what was asked for cannot be followed: {why})")).unwrap_or_default();
    format!("{cause}; {what} {until}{why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::{Exceptions, Grant, ResultCode, UsedUp};
    use crate::units::{OctetRate, Octets, UsedUnit};

    /// A link whose last grant brought nothing.
    fn exhausted(result: ResultCode, next: Next) -> Overview {
        let grant = Grant {
            ceiling: Octets::ZERO,
            octets: Octets::ZERO,
            threshold: Octets::ZERO,
            valid_until: None,
            holding: None,
            final_unit: None,
            exceptions: Exceptions::default(),
            result,
        };
        Overview {
            state: State::Exhausted,
            session: None,
            used: UsedUnit::ZERO,
            unreported: Octets::ZERO,
            open_since: None,
            grant: Some(grant),
            remaining: Octets::ZERO,
            rate: OctetRate::default(),
            draining: 0,
            used_up: Some(UsedUp { mode: GateMode::Block, not_followed: None }),
            at_the_end: None,
            aborted: false,
            next,
        }
    }

    #[test]
    fn a_server_that_refuses_is_not_told_as_a_package_that_is_used_up() {
        let at = BootInstant::from_nanos(1);
        let used_up = exhausted(ResultCode::QuotaLimitReached, Next::Ask(at));
        assert_eq!(explain_exhausted(&used_up), "the package is used up; traffic is blocked until a top-up");
        let denied = exhausted(ResultCode::Denied, Next::Ask(at));
        assert_eq!(explain_exhausted(&denied), "the server refuses units; traffic is blocked until it grants some");
        let refused = Overview { grant: None, used_up: None, ..exhausted(ResultCode::Success, Next::Reopen(at)) };
        let words = explain_exhausted(&refused);
        assert!(
            words.starts_with("the server has refused the session, or it is in doubt; traffic is blocked"),
            "{words}"
        );
    }
}
