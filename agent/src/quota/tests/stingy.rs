//! Scripts against a server that grants nothing, next to nothing, far too much, or takes back: no storm, no stall, no wrap.

use std::time::Duration;

use super::hand::{Hand, answered, at, gate, granted, last, nothing, passed, sealed, sealed_maybe, terms};
use crate::quota::{Event, GateSetting, GrantedUnit, Operation, Outcome, Reading, ResultCode, State, Trigger};
use crate::units::{Octets, UsedUnit};

/// A link whose first request was answered with this.
fn first(grant: GrantedUnit) -> (Hand, Option<GateSetting>) {
    let mut hand = Hand::new();
    hand.usable(terms());
    let commands = hand.answer(answered(grant));
    (hand, gate(&commands))
}

/// How often the server is asked in `minutes` in which somebody wants to send packets of `packet` octets all the time, and it answers
/// each time with the same grant; and how much passed.
fn asked_within(minutes: u64, packet: u64, grant: impl Fn() -> GrantedUnit) -> (usize, u64) {
    let (mut hand, mut setting) = first(grant());
    let (mut asked, mut refused, mut used) = (0, 0, 0);
    while hand.now < at(minutes * 60_000) {
        let ceiling = setting.as_ref().map_or(0, |gate| gate.ceiling.get());
        let open = setting.as_ref().is_some_and(|gate| gate.deadline.is_none_or(|deadline| hand.now < deadline));
        if open && used + packet <= ceiling {
            used += packet;
        } else {
            refused += packet;
        }
        let reading = Reading { refused: UsedUnit::new(refused, 0), ..passed(used) };
        let mut commands = hand.read(reading);
        commands.extend(hand.wait(20));
        if sealed_maybe(&commands).is_some() {
            asked += 1;
            commands.extend(hand.answer(answered(grant())));
        }
        setting = gate(&commands).or(setting);
    }
    (asked, used)
}

#[test]
fn a_zero_grant_shuts_the_gate_and_is_asked_again_after_a_minute_and_then_less_often() {
    let zero = GrantedUnit { final_unit: None, ..granted(0) };
    for grant in [zero, nothing(), GrantedUnit::none()] {
        let (hand, gate) = first(grant.clone());
        assert_eq!((hand.state(), gate.map_or(Octets::ZERO, |gate| gate.ceiling)), (State::Exhausted, Octets::ZERO));
        let (asked, used) = asked_within(60, 1_000, || grant.clone());
        assert!((4..=12).contains(&asked), "{asked} times in an hour");
        assert_eq!(used, 0);
    }
}

#[test]
fn a_grant_smaller_than_a_packet_makes_no_storm_and_is_asked_for_again_for_ever() {
    for octets in [1, 100] {
        let (asked, used) = asked_within(1, 1_000, || granted(octets));
        assert!((2..=8).contains(&asked), "{octets} octets: {asked} times in the first minute");
        let (asked, _) = asked_within(60, 1_000, || granted(octets));
        assert!((30..=70).contains(&asked), "{octets} octets: {asked} times in an hour");
        assert_eq!(used, 0);
    }
}

#[test]
fn packets_that_fit_into_crumbs_make_no_storm_either() {
    for octets in [100, 1_500, 20_000] {
        let (asked, used) = asked_within(10, 60, || granted(octets));
        assert!(asked <= 20, "{octets} octets: {asked} times in ten minutes");
        assert!(used > 0 && used <= (octets * 21), "{used}");
    }
}

#[test]
fn last_units_that_are_crumbs_time_after_time_make_no_storm() {
    let (asked, _) = asked_within(10, 60, || last(100));
    assert!(asked <= 25, "{asked} times in ten minutes");
}

#[test]
fn after_crumbs_a_real_grant_is_used_and_renewed_without_waiting() {
    let (mut hand, _) = first(granted(100));
    let mut refused = 0;
    for number in 1..=6 {
        // Whoever wants to send tries again and again.
        let trigger = loop {
            refused += 1_000;
            let refusal = hand.read(Reading { refused: UsedUnit::new(refused, 0), ..passed(0) });
            let commands = [refusal, hand.wait(500)].concat();
            if let Some(message) = sealed_maybe(&commands) {
                break message.trigger;
            }
            assert!(hand.now < at(60_000), "it must not stall");
        };
        assert_eq!(trigger, Some(Trigger::QuotaExhausted));
        hand.answer(answered(granted(if number < 6 { 100 } else { 1_000_000 })));
    }
    for round in 1..=3_u64 {
        let commands = hand.read(Reading { refused: UsedUnit::new(refused, 0), ..passed(round * 800_000) });
        assert_eq!(sealed(&commands).trigger, Some(Trigger::QuotaThreshold));
        hand.answer(answered(granted(1_000_000)));
    }
}

#[test]
fn the_largest_grants_are_no_ceiling_and_nothing_wraps() {
    for octets in [1 << 63, u64::MAX - 1, u64::MAX] {
        let (mut hand, gate) = first(granted(octets));
        assert_eq!(gate.map(|gate| gate.ceiling), Some(Octets::new(octets)));
        let commands = hand.read(passed(1 << 30));
        assert!(sealed_maybe(&commands).is_none(), "there is plenty left");
        assert_eq!(hand.state(), State::Active);
        // Reported and granted together would be beyond the range.
        hand.tell(Event::Reauthorise(super::hand::sim(1)));
        let commands = hand.answer(answered(granted(octets)));
        let ceiling = super::hand::gate(&commands).map_or(Octets::new(octets), |gate| gate.ceiling);
        assert_eq!(ceiling, Octets::new(octets).saturating_add(Octets::new(1 << 30)));
        // And back to what a person might buy.
        hand.tell(Event::Reauthorise(super::hand::sim(1)));
        let commands = hand.answer(answered(granted(1_000)));
        assert_eq!(super::hand::gate(&commands).map(|gate| gate.ceiling), Some(Octets::new((1 << 30) + 1_000)));
    }
}

#[test]
fn final_units_without_a_grant_are_used_up_at_once() {
    let (hand, gate) = first(last(0));
    assert_eq!(hand.state(), State::Exhausted);
    assert_eq!(gate.map_or(Octets::ZERO, |gate| gate.ceiling), Octets::ZERO);
}

#[test]
fn a_validity_of_zero_is_none_and_one_of_a_second_makes_no_storm() {
    let (mut hand, gate) = first(GrantedUnit { validity_time: None, ..granted(1_000_000) });
    assert_eq!(gate.and_then(|gate| gate.deadline), None);
    assert!(sealed_maybe(&hand.wait(3_600_000)).is_none(), "nothing is to be renewed");
    let brief = || GrantedUnit { validity_time: Some(Duration::from_secs(1)), ..granted(1_000_000) };
    let (asked, used) = asked_within(1, 1_000, brief);
    assert!((3..=9).contains(&asked), "{asked} times in a minute");
    assert!(used > 0);
    let (asked, _) = asked_within(60, 1_000, brief);
    assert!((30..=80).contains(&asked), "{asked} times in an hour");
}

#[test]
fn the_longest_validity_and_holding_time_are_no_end() {
    let for_ever = Some(Duration::from_secs(u64::MAX));
    let (mut hand, gate) =
        first(GrantedUnit { validity_time: for_ever, quota_holding_time: for_ever, ..granted(1_000_000) });
    assert!(gate.and_then(|gate| gate.deadline).is_some_and(|deadline| deadline.as_nanos() > u64::MAX / 2));
    assert!(sealed_maybe(&hand.wait(86_400_000)).is_none());
    assert_eq!(hand.state(), State::Active);
}

#[test]
fn a_smaller_ceiling_shuts_the_gate_at_once_and_a_larger_one_opens_it_again() {
    let mut hand = Hand::active();
    hand.read(passed(800_000));
    hand.read(passed(950_000));
    // Counted from the 800,000 reported: less than has passed since.
    let commands = hand.answer(answered(granted(100_000)));
    assert_eq!(gate(&commands).map(|gate| gate.ceiling), Some(Octets::new(900_000)));
    assert_eq!(hand.quota.overview(hand.now).remaining, Octets::ZERO);
    let commands = hand.wait_for_message(Duration::from_secs(2));
    assert_eq!(
        (sealed(&commands).trigger, sealed(&commands).reported),
        (Some(Trigger::QuotaExhausted), Octets::new(950_000))
    );
    let commands = hand.answer(answered(granted(1_000_000)));
    assert_eq!(gate(&commands).map(|gate| gate.ceiling), Some(Octets::new(1_950_000)));
    assert_eq!(hand.state(), State::Active);
}

#[test]
fn units_taken_back_to_nothing_shut_the_gate_and_a_top_up_opens_it() {
    let mut hand = Hand::active();
    hand.read(passed(300_000));
    hand.tell(Event::Reauthorise(super::hand::sim(1)));
    let commands = hand.answer(answered(nothing()));
    assert_eq!(gate(&commands).map(|gate| gate.ceiling), Some(Octets::new(300_000)), "700,000 are taken back");
    assert_eq!(hand.state(), State::Exhausted);
    hand.wait(6_000);
    hand.tell(Event::Reauthorise(super::hand::sim(1)));
    let commands = hand.answer(answered(granted(500_000)));
    assert_eq!(gate(&commands).map(|gate| gate.ceiling), Some(Octets::new(800_000)));
    assert_eq!(hand.state(), State::Active);
}

#[test]
fn a_threshold_larger_than_the_grant_counts_as_half_of_it() {
    let greedy = GrantedUnit { volume_quota_threshold: Some(Octets::MAX), ..granted(1_000_000) };
    let (mut hand, gate) = first(greedy);
    assert_eq!(gate.and_then(|gate| gate.threshold), Some(Octets::new(500_000)));
    assert!(sealed_maybe(&hand.read(passed(499_999))).is_none());
    assert_eq!(sealed(&hand.read(passed(500_000))).trigger, Some(Trigger::QuotaThreshold));
}

#[test]
fn a_holding_time_of_a_second_opens_and_returns_no_session_for_every_packet() {
    let hasty = || GrantedUnit { quota_holding_time: Some(Duration::from_secs(1)), ..granted(1_000_000) };
    let (mut hand, _) = first(hasty());
    let (mut messages, mut used, mut refused) = (0, 0, 0);
    let mut setting: Option<GateSetting> = None;
    while hand.now < at(600_000) {
        // A packet every two seconds.
        if setting.as_ref().is_none_or(|gate| gate.ceiling > Octets::new(used)) {
            used += 100;
        } else {
            refused += 100;
        }
        let mut commands = hand.read(Reading { refused: UsedUnit::new(refused, 0), ..passed(used) });
        commands.extend(hand.wait(2_000));
        if sealed_maybe(&commands).is_some() {
            messages += 1;
            commands.extend(hand.answer(answered(hasty())));
        }
        setting = gate(&commands).or(setting);
    }
    assert!(messages <= 15, "{messages} in ten minutes: the reports of each minute, and no more");
    let commands = hand.wait(11_000);
    assert_eq!(sealed(&commands).operation, Operation::Release, "a link that idles returns its units all the same");
}

#[test]
fn a_server_that_refuses_every_session_is_asked_less_and_less() {
    let mut hand = Hand::new();
    hand.usable(terms());
    let mut asked = 0;
    while hand.now < at(3 * 3_600_000) {
        hand.answer(Outcome::Rejected { status: 404, cause: "USER_UNKNOWN".to_owned() });
        assert_eq!(sealed(&hand.wait_for_message(Duration::from_mins(16))).operation, Operation::Create);
        asked += 1;
    }
    assert!((10..=30).contains(&asked), "{asked} times in three hours");
    // An answer that is none of that ends it.
    hand.answer(answered(granted(1_000_000)));
    hand.read(passed(800_000));
    hand.answer(Outcome::Rejected { status: 400, cause: "MANDATORY_IE_INCORRECT".to_owned() });
    let before = hand.now;
    hand.wait(60);
    while sealed(&hand.wait_for_message(Duration::from_mins(2))).operation != Operation::Create {
        hand.answer(super::hand::acknowledged());
    }
    assert!(hand.now <= before.plus(Duration::from_mins(1)));
}

#[test]
fn a_refusal_that_grants_all_the_same_grants_nothing() {
    let (hand, _) = first(GrantedUnit { result: ResultCode::Denied, ..granted(0) });
    assert_eq!(hand.state(), State::Exhausted);
    assert!(hand.quota.overview(hand.now).is_refused(), "no package is used up");
}
