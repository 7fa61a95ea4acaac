//! What `weir check` makes of a status.

use super::samples::status;
use super::screen;
use crate::args::Units;
use crate::args::{self, Command};
use crate::cli::check::{Level, Verdict, judge};
use crate::local::{LinkStatus, PackageStatus, Status};

fn asked(line: &str) -> args::Check {
    let words = format!("weir check {line}");
    let parsed = args::parse(words.split_whitespace().map(Into::into)).expect("a command line");
    let Command::Check(check) = parsed.command else { panic!("{words}") };
    check
}

/// One link alone, of an agent with which all is well.
fn healthy(change: impl FnOnce(&mut LinkStatus)) -> Status {
    let mut whole = status();
    whole.links.truncate(1);
    (whole.ledger_trouble, whole.ledger_persistent, whole.set_aside_octets) = (None, true, 0);
    (whole.ledger_damage, whole.in_doubt_octets) = (Vec::new(), 0);
    change(&mut whole.links[0]);
    whole
}

fn judged(status: &Status, line: &str) -> Verdict {
    judge(status, &asked(line), &screen(usize::MAX, Units::Binary))
}

/// One of each outcome, and what it is that makes it so.
pub(super) fn verdicts() -> Vec<(&'static str, Verdict)> {
    let nearly = |link: &mut LinkStatus| link.package.left_octets = Some(1 << 30);
    let untold = |link: &mut LinkStatus| link.package = PackageStatus::default();
    vec![
        ("ok", judged(&healthy(|_| {}), "")),
        ("warning", judged(&healthy(nearly), "--units decimal")),
        ("critical", judged(&status(), "")),
        ("unknown", judged(&healthy(untold), "")),
        ("no-such-link", judged(&status(), "--link wwan9")),
    ]
}

#[test]
fn the_thresholds_are_met_to_the_octet() {
    for (used, level) in [
        (0, Level::Ok),
        (799, Level::Ok),
        (800, Level::Warning),
        (949, Level::Warning),
        (950, Level::Critical),
        (1000, Level::Critical),
    ] {
        let status = healthy(|link| {
            (link.package.bought_octets, link.package.left_octets) = (Some(1000), Some(1000 - used));
        });
        assert_eq!(judged(&status, "").level, level, "{used} of 1000");
    }
}

#[test]
fn what_is_wrong_comes_first_and_what_is_well_is_left_out() {
    let mut status = status();
    let verdict = judged(&status, "");
    assert_eq!(verdict.level, Level::Critical);
    status.links.truncate(1);
    let words = judged(&status, "").message;
    assert!(words.starts_with("the ledger cannot be written") && !words.contains("wan0"), "{words}");
}

#[test]
fn states_are_judged_and_what_the_server_does_not_say_is_unknown() {
    let level = |change: fn(&mut LinkStatus)| judged(&healthy(change), "").level;
    assert_eq!(level(|_| {}), Level::Ok);
    assert_eq!(level(|link| link.state = "exhausted".to_owned()), Level::Critical);
    assert_eq!(level(|link| link.state = "offline".to_owned()), Level::Warning);
    assert_eq!(level(|link| link.metered = false), Level::Critical);
    assert_eq!(level(|link| (link.exists, link.metered) = (false, false)), Level::Warning);
    assert_eq!(level(|link| link.package.bought_octets = None), Level::Unknown);
    assert_eq!(judged(&healthy(|_| {}), "--link wwan9").level, Level::Unknown);
}

#[test]
fn a_damaged_ledger_is_critical_and_octets_in_doubt_are_a_warning() {
    let mut status = healthy(|_| {});
    status.in_doubt_octets = 2048;
    let verdict = judged(&status, "");
    let words = "2048 octets in doubt: sent once without an answer, and not again";
    assert_eq!((verdict.level, verdict.message.as_str()), (Level::Warning, words));
    status.ledger_damage = vec!["ledger.db.damaged-1 was set aside".to_owned()];
    let verdict = judged(&status, "");
    assert_eq!(verdict.level, Level::Critical);
    assert!(verdict.message.starts_with("ledger.db.damaged-1 was set aside; "), "{}", verdict.message);
}

#[test]
fn an_uplink_that_the_server_has_ended_is_critical_however_much_is_left() {
    let status = healthy(|link| {
        (link.state, link.aborted) = ("idle".to_owned(), true);
        link.explanation = "ended by order of the server".to_owned();
    });
    let verdict = judged(&status, "");
    assert_eq!((verdict.level, verdict.message.as_str()), (Level::Critical, "wan0: ended by order of the server"));
}

#[test]
fn a_link_without_a_sim_is_critical_once_onboarding_has_failed_and_not_while_it_begins() {
    let mut status = healthy(|link| {
        (link.subscriber, link.state, link.package) = (None, "idle".to_owned(), PackageStatus::default());
        link.explanation = "waiting for a SIM".to_owned();
    });
    status.onboarding = "registering the device".to_owned();
    let verdict = judged(&status, "");
    let words = "wan0: waiting for a SIM; onboarding: registering the device";
    assert_eq!((verdict.level, verdict.message.as_str()), (Level::Unknown, words));
    // A try is under way again: what the last one failed at still holds.
    status.onboarding_trouble = Some("no such claim code; trying again".to_owned());
    let verdict = judged(&status, "");
    let words = "wan0: waiting for a SIM; onboarding: no such claim code; trying again";
    assert_eq!((verdict.level, verdict.message.as_str()), (Level::Critical, words));
    (status.links[0].exists, status.links[0].metered) = (false, false);
    assert_eq!(judged(&status, "").level, Level::Warning, "a link that is not there is only that");
}

#[test]
fn shares_are_read_with_and_without_the_sign_and_within_their_range() {
    let check = asked("--warn 50% --crit 70");
    assert_eq!((check.warn, check.crit), (50, 70));
    for line in ["--warn 0", "--warn 101%", "--crit many", "--hook true"] {
        let words = format!("weir check {line}");
        assert_eq!(
            args::parse(words.split_whitespace().map(Into::into)).expect_err(line).status,
            3,
            "monitoring knows no 64"
        );
    }
}
