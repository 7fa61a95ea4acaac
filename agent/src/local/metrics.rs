//! `/metrics`: the status in figures (`OpenMetrics`), for those who keep them over time.
//!
//! The kernel's counters belong to the link and not to its SIM: they go on when another one is put in. Which SIM a link has is said by
//! `weir_link_info`.

use std::sync::atomic::AtomicU64;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::ask::Question;
use super::timeline::{Kind, Tally};
use super::{Desk, LinkStatus, Status};
use crate::usage::{SpanUsage, Sums};

/// What the text is (`OpenMetrics` 1.0, section 3.1).
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Every state that a credit session can be in, as the status spells it.
const STATES: [&str; 9] =
    ["idle", "requesting", "active", "renewing", "final", "exhausted", "offline", "returning", "draining"];

type Labels = Vec<(&'static str, String)>;
type Counted = Family<Labels, Counter>;
type Measured = Family<Labels, Gauge<u64, AtomicU64>>;

/// The route.
pub(super) async fn metrics(State(desk): State<Desk>) -> Response {
    let status = match desk.asker.ask(Question::Status).await {
        Ok(status) => status,
        Err(not_now) => return not_now.into_response(),
    };
    let period = desk.period.running(&desk.asker).await;
    match render(&status, &desk.timeline.tallies(), period.as_ref()) {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// The text of one scrape. Of a billing period that cannot be read nothing is said.
pub(super) fn render(
    status: &Status,
    tallies: &[Tally],
    period: Option<&SpanUsage>,
) -> Result<String, std::fmt::Error> {
    let mut page = Page(Registry::with_prefix("weir"));
    page.agent(status);
    page.ledger(status);
    page.kernel(&status.links);
    page.sessions(&status.links);
    page.states(&status.links);
    page.happenings(tallies);
    if let Some(period) = period {
        page.period(period);
    }
    let mut text = String::new();
    text::encode(&mut text, &page.0)?;
    Ok(text)
}

struct Page(Registry);

impl Page {
    fn agent(&mut self, status: &Status) {
        let who = vec![("version", status.version.clone()), ("device", status.device.clone())];
        self.0.register("agent", "The agent that answers", Info::new(who));
        self.flag("clock_synced", "Whether the wall clock is synchronised", status.clock_synced);
        let in_trouble = status.ledger_trouble.is_some();
        self.flag(
            "ledger_trouble",
            "Whether the ledger cannot be written, so that nothing more is granted",
            in_trouble,
        );
        self.flag("ledger_persistent", "Whether the ledger outlives a reboot", status.ledger_persistent);
    }

    fn ledger(&mut self, status: &Status) {
        let octets = [
            ("unacknowledged", "Octets recorded and not yet acknowledged by the server", status.unacknowledged_octets),
            ("ledger_drift", "Octets by which the ledger does not close; has to be 0", status.ledger_drift_octets),
            (
                "uncertain",
                "Octets that may have passed after the last record before a power cut",
                status.uncertain_octets,
            ),
            ("set_aside", "Octets in messages that the server has refused for good", status.set_aside_octets),
            ("in_doubt", "Octets in messages sent once, not answered, and not sent again", status.in_doubt_octets),
        ];
        for (name, help, value) in octets {
            self.octets(name, help).get_or_create(&Labels::new()).set(value);
        }
        let age = self
            .gauge("oldest_unreported_seconds", "How long the oldest octets have not been acknowledged; 0 = all are");
        age.get_or_create(&Labels::new()).set(unreported_for(status));
        let counts = [
            ("buffered_containers", "Containers that wait for an acknowledgement", status.buffered_containers),
            ("draining_sessions", "Past sessions that are still being settled", status.draining_sessions),
        ];
        for (name, help, value) in counts {
            self.gauge(name, help).get_or_create(&Labels::new()).set(value as u64);
        }
    }

    /// What the kernel has counted of each link, from the attaching of its meter.
    fn kernel(&mut self, links: &[LinkStatus]) {
        type Both = fn(&LinkStatus) -> (u64, u64);
        let figures: [(&str, &str, Both); 5] = [
            ("passed", "Octets that passed under the ceiling", |link| {
                (link.kernel.passed_uplink_octets, link.kernel.passed_downlink_octets)
            }),
            ("refused", "Octets that were refused; downlink ones had been on the air", |link| {
                (link.kernel.refused_uplink_octets, link.kernel.refused_downlink_octets)
            }),
            ("control", "Octets of control traffic that passed a shut gate", |link| {
                (link.kernel.control_uplink_octets, link.kernel.control_downlink_octets)
            }),
            ("throttled", "Octets that passed throttled, beyond the package", |link| {
                (link.kernel.throttled_uplink_octets, link.kernel.throttled_downlink_octets)
            }),
            ("policed", "Refused octets that came too fast for a throttled link", |link| {
                (link.kernel.policed_uplink_octets, link.kernel.policed_downlink_octets)
            }),
        ];
        for (name, help, of) in figures {
            let counted = Counted::default();
            self.0.register_with_unit(name, help, Unit::Other("octets".to_owned()), counted.clone());
            for link in links {
                let (uplink, downlink) = of(link);
                for (direction, octets) in [("uplink", uplink), ("downlink", downlink)] {
                    let labels = vec![("link", link.link.clone()), ("direction", direction.to_owned())];
                    counted.get_or_create(&labels).inc_by(octets);
                }
            }
        }
    }

    fn sessions(&mut self, links: &[LinkStatus]) {
        type One = fn(&LinkStatus) -> u64;
        let octets: [(&str, &str, One); 5] = [
            ("session_used", "Octets that the link's credit session has used", |link| {
                link.session_uplink_octets.saturating_add(link.session_downlink_octets)
            }),
            ("ceiling", "Octets of the session at which the gate shuts", |link| link.ceiling_octets),
            ("grant_left", "Octets left until the gate shuts", |link| link.remaining_octets),
            ("unreported", "Octets used and not yet in a sealed message", |link| link.unreported_octets),
            ("unmetered", "Octets that had passed the link while it was not metered", |link| {
                link.unmetered_prefix_octets
            }),
        ];
        for (name, help, of) in octets {
            let measured = self.octets(name, help);
            for link in links {
                measured.get_or_create(&of_link(link)).set(of(link));
            }
        }
        let left = self.octets("package_left", "Octets left of the link's package, where the server tells of it");
        for link in links {
            if let Some(octets) = link.package.left_octets {
                left.get_or_create(&of_link(link)).set(octets);
            }
        }
        let others: [(&str, &str, One); 6] = [
            ("rate_octets_per_second", "Present rate, both directions", |link| link.rate_octets_per_second),
            ("link_metered", "Whether the link exists and is metered", |link| u64::from(link.metered)),
            ("link_in_use", "Whether the link is in use", |link| u64::from(link.in_use)),
            ("link_aborted", "Whether the server has ordered the sessions of the link's SIM ended", |link| {
                u64::from(link.aborted)
            }),
            (
                "link_refused",
                "Whether an exhausted link is refused by the server, and its package not used up",
                |link| u64::from(link.refused),
            ),
            ("meter_gaps", "How often somebody else has taken the meter off", |link| u64::from(link.meter_gaps)),
        ];
        for (name, help, of) in others {
            let measured = self.gauge(name, help);
            for link in links {
                measured.get_or_create(&of_link(link)).set(of(link));
            }
        }
    }

    /// Which state and which SIM: one series for each that there can be, 1 for the present one.
    fn states(&mut self, links: &[LinkStatus]) {
        let states = self.gauge("link_state", "State of the link's credit session: 1 for the present one");
        let sims = self.gauge("link_info", "The SIM that a link has");
        for link in links {
            for state in STATES {
                let labels = vec![("link", link.link.clone()), ("state", state.to_owned())];
                states.get_or_create(&labels).set(u64::from(link.state == state));
            }
            let sim = link.subscriber.clone().unwrap_or_default();
            sims.get_or_create(&vec![("link", link.link.clone()), ("sim", sim)]).set(1);
        }
    }

    fn happenings(&mut self, tallies: &[Tally]) {
        let figures = [
            (Kind::Grant, "grants", "Grants received"),
            (Kind::Exhausted, "refusals", "Times that the last units were granted, or none"),
            (Kind::Acknowledged, "acknowledgements", "Reports acknowledged that brought no units"),
            (Kind::Warning, "warnings", "Things that were not as they should be, and went on"),
            (Kind::Problem, "problems", "Things that went wrong"),
        ];
        for (kind, name, help) in figures {
            let counted = Counted::default();
            self.0.register(name, format!("{help}, since the agent was started"), counted.clone());
            for tally in tallies.iter().filter(|tally| tally.kind == kind) {
                let labels = vec![("link", tally.link.clone().unwrap_or_default())];
                counted.get_or_create(&labels).inc_by(tally.times);
            }
        }
    }

    /// What was used since the billing day, acknowledged or not, by whoever pays for it.
    fn period(&mut self, period: &SpanUsage) {
        type One = fn(&Sums) -> u64;
        let seconds = |time: &str| u64::try_from(time.parse::<Timestamp>().ok()?.as_second()).ok();
        for (name, help, time) in [
            ("period_begin_timestamp_seconds", "When the running billing period began", &period.begin),
            ("period_end_timestamp_seconds", "When the running billing period ends", &period.end),
        ] {
            if let Some(seconds) = seconds(time) {
                self.gauge(name, help).get_or_create(&Labels::new()).set(seconds);
            }
        }
        let directions: [(&str, One); 2] =
            [("uplink", |sums| sums.uplink_octets), ("downlink", |sums| sums.downlink_octets)];
        let used = self.octets("period_used", "Octets used in the running billing period, throttled ones among them");
        let estimates = self.octets("period_estimate", "What the billing period will come to at its present pace");
        for sim in &period.sims {
            for (direction, of) in directions {
                let labels = vec![("sim", sim.subscriber.clone()), ("direction", direction.to_owned())];
                used.get_or_create(&labels).set(of(&sim.sums));
            }
            if let Some(octets) = sim.estimate_octets {
                estimates.get_or_create(&vec![("sim", sim.subscriber.clone())]).set(octets);
            }
        }
    }

    fn octets(&mut self, name: &str, help: &str) -> Measured {
        let measured = Measured::default();
        self.0.register_with_unit(name, help, Unit::Other("octets".to_owned()), measured.clone());
        measured
    }

    fn gauge(&mut self, name: &str, help: &str) -> Measured {
        let measured = Measured::default();
        self.0.register(name, help, measured.clone());
        measured
    }

    fn flag(&mut self, name: &str, help: &str, value: bool) {
        self.gauge(name, help).get_or_create(&Labels::new()).set(u64::from(value));
    }
}

/// Seconds from the oldest usage that is not acknowledged until now.
fn unreported_for(status: &Status) -> u64 {
    let moment = |text: &str| text.parse::<Timestamp>().ok();
    let oldest = status.oldest_unreported.as_deref().and_then(moment);
    let age = oldest.zip(moment(&status.at)).map(|(oldest, now)| now.duration_since(oldest).as_secs());
    age.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or(0)
}

fn of_link(link: &LinkStatus) -> Labels {
    vec![("link", link.link.clone())]
}
