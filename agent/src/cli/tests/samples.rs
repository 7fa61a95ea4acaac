//! Documents with something of everything.

use crate::cli::attach::{Attached, Removed};
use crate::doctor::{Check, Finding, Report};
use crate::ledger::{Accounts, Amount, MessageAccount, SessionAccount, SetAsideAccount};
use crate::local::{
    DrainStatus, KernelStatus, LinkStatus, NextStatus, PackageStatus, RENEWED_SCHEMA, Renewed, RenewedLink, SCHEMA,
    Status,
};
use crate::recording::{End, Parting, Replay, Tally, Verdict};
use crate::units::BootInstant;

const AT: &str = "2026-11-28T19:40:02.5Z";

fn link(name: &str, state: &str, explanation: &str) -> LinkStatus {
    LinkStatus {
        link: name.to_owned(),
        exists: true,
        metered: true,
        in_use: true,
        state: state.to_owned(),
        explanation: explanation.to_owned(),
        ..LinkStatus::default()
    }
}

fn active() -> LinkStatus {
    LinkStatus {
        subscriber: Some("imsi-001010000000001".to_owned()),
        charging_id: Some(3_735_928_559),
        session_uplink_octets: 3_000_000,
        session_downlink_octets: 100_000_000,
        ceiling_octets: 115_343_360,
        remaining_octets: 12_343_360,
        grants: 11,
        rate_octets_per_second: 1_258_291,
        average_octets_per_second: Some(358_400),
        unreported_octets: 1_200_000,
        last_report: Some("2026-11-28T19:39:50.5Z".to_owned()),
        next: NextStatus {
            what: "renewal".to_owned(),
            at: Some("2026-11-28T19:44:02.5Z".to_owned()),
            left_octets: Some(2_097_152),
        },
        package: PackageStatus {
            id: Some("p-1".to_owned()),
            bought_octets: Some(10 << 30),
            left_octets: Some(4_000_000_000),
            told_at: Some("2026-11-28T18:00:00Z".to_owned()),
            valid_until: None,
            runs_out_seconds: Some(11_160),
        },
        kernel: KernelStatus {
            passed_uplink_octets: 3_000_000,
            passed_downlink_octets: 100_000_000,
            control_uplink_octets: 1_234,
            control_downlink_octets: 2_345,
            guessed_packets: 3,
            ..KernelStatus::default()
        },
        ..link("wan0", "active", "traffic passes; more is asked for in time")
    }
}

fn exhausted() -> LinkStatus {
    LinkStatus {
        subscriber: Some("imsi-001010000000002".to_owned()),
        charging_id: Some(7),
        session_uplink_octets: 200_000,
        session_downlink_octets: 300_000,
        ceiling_octets: 500_000,
        grants: 1,
        last_report: Some("2026-11-28T17:40:02.5Z".to_owned()),
        next: NextStatus { what: "ask".to_owned(), at: Some("2026-11-28T19:44:12.5Z".to_owned()), left_octets: None },
        package: PackageStatus {
            id: Some("p-2".to_owned()),
            bought_octets: Some(500_000),
            left_octets: Some(0),
            told_at: Some("2026-11-28T17:00:00Z".to_owned()),
            ..PackageStatus::default()
        },
        kernel: KernelStatus {
            passed_uplink_octets: 200_000,
            passed_downlink_octets: 300_000,
            refused_downlink_octets: 44_000,
            policed_downlink_octets: 12_000,
            ..KernelStatus::default()
        },
        unmetered_prefix_octets: 15_000,
        meter_gaps: 1,
        ..link("wwan1", "exhausted", "the package is used up; traffic is blocked until a top-up")
    }
}

fn offline() -> LinkStatus {
    LinkStatus {
        subscriber: Some("imsi-001010000000003".to_owned()),
        next: NextStatus { what: "retry".to_owned(), at: Some(AT.to_owned()), left_octets: None },
        ..link("wwan2", "offline", "the server does not answer; it is tried again over every link")
    }
}

/// Four links, each in another state, and everything that can be wrong with an agent.
pub(super) fn status() -> Status {
    let absent = "the link does not exist; it is metered from its first packet once it does";
    let waiting = LinkStatus { exists: false, metered: false, in_use: false, ..link("usb0", "idle", absent) };
    Status {
        schema: SCHEMA,
        version: "0.1.0".to_owned(),
        device: "van-17".to_owned(),
        server: "https://charging.example/".to_owned(),
        onboarding: "done; waiting for commands".to_owned(),
        onboarding_trouble: None,
        at: AT.to_owned(),
        clock_synced: false,
        links: vec![active(), exhausted(), offline(), waiting],
        unacknowledged_octets: 2_400_000,
        buffered_containers: 3,
        oldest_unreported: Some("2026-11-28T19:36:02.5Z".to_owned()),
        ledger_drift_octets: 0,
        uncertain_octets: 65_536,
        set_aside_octets: 1_000,
        in_doubt_octets: 20_480,
        draining_sessions: 1,
        draining: Some(DrainStatus { total_containers: 9_000, left_containers: 3_000, seconds_left: Some(95) }),
        ledger_trouble: Some("the ledger cannot be written: no space left".to_owned()),
        ledger_persistent: false,
        ledger_damage: vec!["ledger.db.damaged-1 was set aside".to_owned()],
    }
}

/// An agent that has just begun, on a gateway whose modem is not there yet.
pub(super) fn fresh() -> Status {
    Status {
        schema: SCHEMA,
        version: "0.1.0".to_owned(),
        device: "van-17".to_owned(),
        server: "https://charging.example/".to_owned(),
        onboarding: "registering".to_owned(),
        at: AT.to_owned(),
        clock_synced: true,
        ledger_persistent: true,
        ..Status::default()
    }
}

/// A ledger in which nothing has happened.
pub(super) fn no_accounts() -> Accounts {
    Accounts { schema: 1, ledger: "/var/lib/weir/ledger.db".to_owned(), ..Accounts::default() }
}

const fn amount(uplink_octets: u64, downlink_octets: u64, offline_octets: u64) -> Amount {
    Amount { uplink_octets, downlink_octets, offline_octets }
}

/// An open session, an orphaned one, a closed one, and two messages that are not sent again.
pub(super) fn accounts() -> Accounts {
    let open = SessionAccount {
        charging_id: 3_735_928_559,
        subscriber: "imsi-001010000000001".to_owned(),
        session_ref: Some("ref-1".to_owned()),
        state: "open".to_owned(),
        opened_at: "2026-11-28T18:02:03.123456Z".to_owned(),
        grants: 11,
        granted_octets: 115_343_360,
        ceiling_octets: Some(115_343_360),
        last_grant_octets: Some(10_485_760),
        last_result: Some("success".to_owned()),
        closed: amount(2_900_000, 99_000_000, 0),
        acknowledged: amount(2_000_000, 90_000_000, 0),
        in_message: amount(800_000, 8_000_000, 0),
        message: Some(MessageAccount {
            number: 12,
            operation: "update".to_owned(),
            containers: 2,
            sealed_at: "2026-11-28T19:39:50.5Z".to_owned(),
        }),
        waiting: amount(100_000, 1_000_000, 0),
        waiting_containers: 1,
        interval: amount(100_000, 1_000_000, 0),
        ..SessionAccount::default()
    };
    let orphaned = SessionAccount {
        charging_id: 7,
        subscriber: "imsi-001010000000002".to_owned(),
        state: "orphaned".to_owned(),
        opened_at: "2026-11-27T08:00:00Z".to_owned(),
        grants: 1,
        ceiling_octets: Some(500_000),
        last_grant_octets: Some(0),
        last_result: Some("quota limit reached".to_owned()),
        final_unit: Some("terminate".to_owned()),
        closed: amount(200_000, 300_000, 44_000),
        acknowledged: amount(200_000, 200_000, 44_000),
        set_aside: amount(0, 100_000, 0),
        uncertain_octets: Some(65_536),
        ..SessionAccount::default()
    };
    let closed = SessionAccount {
        charging_id: 6,
        subscriber: "imsi-001010000000002".to_owned(),
        state: "closed".to_owned(),
        opened_at: "2026-11-26T08:00:00Z".to_owned(),
        closed_at: Some("2026-11-26T09:30:00.25Z".to_owned()),
        closed: amount(20_480, 30_720, 0),
        acknowledged: amount(20_480, 30_720, 0),
        ..SessionAccount::default()
    };
    let set_aside = |number, verdict: &str, cause: &str| SetAsideAccount {
        charging_id: 7,
        number,
        subscriber: "imsi-001010000000002".to_owned(),
        verdict: verdict.to_owned(),
        cause: cause.to_owned(),
        usage: amount(0, 100_000, 0),
        set_aside_at: "2026-11-27T09:00:00Z".to_owned(),
    };
    Accounts {
        schema: 1,
        ledger: "/var/lib/weir/ledger.db".to_owned(),
        open_sessions: 2,
        closed_sessions: 41,
        drift_octets: 0,
        uncertain_octets: 65_536,
        sessions: vec![open, orphaned, closed],
        set_aside: vec![
            set_aside(3, "refused", "MANDATORY_IE_INCORRECT"),
            set_aside(4, "in doubt", "the connection broke"),
        ],
    }
}

/// An order to ask now on five links: what comes of it stands in [`status`]. Then, on the first link, every reason not to ask.
pub(super) fn orders() -> Renewed {
    let asked = |link: &str, grants| RenewedLink {
        link: link.to_owned(),
        asked: true,
        why: "asks".to_owned(),
        grants,
        ..RenewedLink::default()
    };
    let refused = |why: &str| RenewedLink {
        link: "wan0".to_owned(),
        why: why.to_owned(),
        again_at: (why == "too-soon").then(|| "2026-11-28T19:40:09.5Z".to_owned()),
        ..RenewedLink::default()
    };
    let reasons = ["too-soon", "not-in-use", "aborted", "no-session", "ledger-trouble"];
    let mut links = vec![asked("wan0", 10), asked("wwan1", 0), asked("wwan2", 0), asked("wwan7", 0)];
    links.extend(reasons.map(refused));
    Renewed { schema: RENEWED_SCHEMA, links }
}

pub(super) fn attached() -> Vec<Attached> {
    [("wan0", false), ("wwan1", true)].map(|(link, was_metered)| Attached { link: link.to_owned(), was_metered }).into()
}

/// A meter whose last octets were recorded just now, one that had nothing left to record, and one that no ledger knows.
pub(super) fn removed() -> Vec<Removed> {
    let meter = |link: Option<&str>, epoch, (recorded_octets, lost_octets)| Removed {
        link: link.map(str::to_owned),
        epoch,
        passed_uplink_octets: 3_000_000,
        passed_downlink_octets: 100_000_000,
        throttled_octets: lost_octets / 100,
        recorded_octets,
        lost_octets,
    };
    vec![meter(Some("wan0"), 11, (1_258_291, 0)), meter(Some("wwan1"), 12, (0, 0)), meter(None, 13, (0, 104_030_000))]
}

/// Every way in which a replay ends.
pub(super) fn replays() -> Vec<(&'static str, Replay)> {
    let replay = |verdict| Replay { tally: Tally { lives: 2, events: 4_711, commands: 1 }, verdict };
    let parting = Parting {
        line: 812,
        label: "wan0".to_owned(),
        at: BootInstant::from_nanos(93_000_250_000_000),
        told_line: 810,
        told: "Reading(Reading { passed: 300001 })".to_owned(),
        recorded: Some("SetGate(GateSetting { ceiling: 500000 })".to_owned()),
        instead: None,
    };
    let what = "core 3 has not begun in this life".to_owned();
    vec![
        ("same", replay(Verdict::Same { end: End::Whole })),
        ("cut", replay(Verdict::Same { end: End::Cut })),
        ("damaged", replay(Verdict::Damaged { line: 9, what })),
        ("parts", replay(Verdict::Parts(Box::new(parting)))),
    ]
}

/// A report with each verdict.
pub(super) fn report() -> Report {
    Report {
        device: Some("van-17".to_owned()),
        at: "2026-11-28T19:00:00Z".to_owned(),
        findings: vec![
            Finding::ok(Check::KernelJit, "programs run as machine code"),
            Finding::not_checked(Check::PinsLeft, "the pins may not be looked at", "run it as root"),
            Finding::problem(
                Check::LinkMeter,
                "it has no meter, so its traffic is neither counted nor stopped",
                "start the agent: systemctl start weir",
            )
            .of("wwan0"),
            Finding::warning(Check::ClockSynced, "the clock is not synchronised", "let NTP run"),
        ],
    }
}
