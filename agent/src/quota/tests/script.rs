//! One script for each line of the state table: events in, exact commands out.

use std::time::Duration;

use super::hand::{
    Hand, acknowledged, answered, at, epoch, gate, granted, kinds, last, nothing, passed, sealed, sealed_maybe,
    session_of, sim, terms, unanswered,
};
use crate::quota::{
    Answer, Command, Event, Exceptions, FailureHandling, GateMode, Grant, GrantedUnit, Operation, Outcome, Quota,
    QuotaManagement, Reading, Record, ResultCode, Route, State, StoredSession, Terms, Trigger, Usable, WhenUsedUp,
};
use crate::units::{ChargingId, OctetRate, Octets, UsedUnit};

#[test]
fn a_usable_link_asks_for_its_first_units_behind_a_shut_gate() {
    let mut hand = Hand::new();
    let commands = hand.usable(terms());
    assert_eq!(kinds(&commands), ["gate", "opened", "sealed", "send"]);
    assert_eq!(sealed(&commands).operation, Operation::Create);
    assert_eq!(sealed(&commands).requested, Some(Octets::new(1_000_000)));
    assert_eq!(gate(&commands).map(|gate| gate.ceiling), Some(Octets::ZERO));
    assert_eq!(hand.state(), State::Requesting);
}

#[test]
fn a_session_bears_the_name_it_was_given_and_a_name_of_no_use_is_let_go() {
    let mut quota = Quota::new(7, at(0));
    let drain = |quota: &mut Quota| std::iter::from_fn(|| quota.poll_command()).collect::<Vec<_>>();
    quota.handle_event(Event::Named(ChargingId::new(3)), at(0));
    assert_eq!(drain(&mut quota), [], "nothing is to be named yet");
    let usable = Usable { subscriber: sim(1), epoch: epoch(1), terms: terms(), reading: Reading::default() };
    quota.handle_event(Event::Usable(usable), at(0));
    assert_eq!(kinds(&drain(&mut quota)), ["name", "gate"], "the name from before may be another's by now");
    quota.handle_event(Event::Named(ChargingId::new(4)), at(0));
    assert_eq!(session_of(&drain(&mut quota)), ChargingId::new(4));
    quota.handle_event(Event::Named(ChargingId::new(5)), at(0));
    assert_eq!(drain(&mut quota), [], "one session at a time");
}

#[test]
fn a_grant_is_recorded_before_the_gate_opens_to_reported_plus_granted() {
    let mut hand = Hand::new();
    hand.usable(terms());
    let commands = hand.answer(answered(granted(1_000_000)));
    assert_eq!(kinds(&commands), ["acknowledged", "gate"]);
    let gate = gate(&commands).expect("a gate");
    assert_eq!((gate.ceiling, gate.threshold), (Octets::new(1_000_000), Some(Octets::new(800_000))));
    assert_eq!(hand.state(), State::Active);
}

#[test]
fn at_the_threshold_it_reports_and_asks_while_the_old_ceiling_stays() {
    let mut hand = Hand::active();
    assert_eq!(kinds(&hand.read(passed(799_999))), Vec::<&str>::new());
    let commands = hand.read(passed(800_000));
    assert_eq!(kinds(&commands), ["container", "sealed", "send"]);
    let message = sealed(&commands);
    assert_eq!((message.operation, message.trigger), (Operation::Update, Some(Trigger::QuotaThreshold)));
    assert_eq!((message.reported, message.number.get()), (Octets::new(800_000), 1));
    assert_eq!(hand.state(), State::Renewing);
    // What passes in the meantime is not in the answer's ceiling twice: it is absolute.
    hand.read(passed(950_000));
    let commands = hand.answer(answered(granted(1_000_000)));
    assert_eq!(gate(&commands).map(|gate| gate.ceiling), Some(Octets::new(1_800_000)));
}

#[test]
fn an_answer_that_comes_twice_changes_nothing() {
    let mut hand = Hand::active();
    hand.read(passed(800_000));
    let key = hand.outstanding();
    hand.answer(answered(granted(1_000_000)));
    assert_eq!(kinds(&hand.answer_to(key, answered(granted(1_000_000)))), Vec::<&str>::new());
    assert_eq!(kinds(&hand.answer_to(key, unanswered())), Vec::<&str>::new());
}

#[test]
fn a_late_answer_is_still_taken_after_the_message_was_sent_again() {
    let mut hand = Hand::active();
    hand.read(passed(800_000));
    let key = hand.outstanding();
    hand.answer(unanswered());
    let commands = hand.wait(2_000);
    let again = commands.iter().find_map(|command| match command {
        Command::Send { key, attempt, route } => Some((*key, *attempt, *route)),
        _ => None,
    });
    assert_eq!(again, Some((key, 2, Route::Detour(0))));
    assert!(sealed_maybe(&commands).is_none(), "the same message goes again, not another: {commands:?}");
    let late = Event::Answer { key, attempt: 1, outcome: answered(granted(1_000_000)) };
    assert_eq!(gate(&hand.tell(late)).map(|gate| gate.ceiling), Some(Octets::new(1_800_000)));
}

#[test]
fn the_interval_reports_what_little_was_used_and_nothing_when_nothing_was() {
    let mut hand = Hand::active();
    assert!(sealed_maybe(&hand.wait(59_000)).is_none());
    hand.read(passed(10));
    let commands = hand.wait(61_000);
    let message = sealed(&commands);
    assert_eq!((message.trigger, message.reported), (Some(Trigger::TimeLimit), Octets::new(10)));
    hand.answer(answered(granted(1_000_000)));
    assert!(sealed_maybe(&hand.wait(600_000)).is_none(), "an idle link has nothing to say");
}

#[test]
fn a_grant_is_renewed_before_its_validity_ends_and_the_kernel_is_told_the_deadline() {
    let mut hand = Hand::new();
    hand.usable(terms());
    let grant = GrantedUnit { validity_time: Some(Duration::from_mins(5)), ..granted(1_000_000) };
    let commands = hand.answer(answered(grant));
    assert_eq!(gate(&commands).and_then(|gate| gate.deadline), Some(at(300_000)));
    assert!(sealed_maybe(&hand.wait(289_000)).is_none());
    let commands = hand.wait(2_000);
    assert_eq!(sealed(&commands).trigger, Some(Trigger::ValidityTime));
}

#[test]
fn the_last_units_are_used_up_then_reported_and_the_gate_stays_at_its_ceiling() {
    let mut hand = Hand::new();
    hand.usable(terms());
    hand.answer(answered(last(500_000)));
    assert_eq!(hand.state(), State::Final);
    assert!(sealed_maybe(&hand.read(passed(499_000))).is_none(), "the last units are not asked for again");
    let commands = hand.read(passed(500_000));
    assert_eq!(hand.state(), State::Exhausted);
    assert_eq!(sealed(&commands).trigger, Some(Trigger::QuotaExhausted));
    let commands = hand.answer(answered(nothing()));
    assert_eq!(gate(&commands).map_or(Octets::new(500_000), |gate| gate.ceiling), Octets::new(500_000));
    assert_eq!(hand.state(), State::Exhausted);
}

#[test]
fn too_little_for_the_packet_that_came_is_used_up_as_well() {
    let mut hand = Hand::new();
    hand.usable(terms());
    hand.answer(answered(last(500_000)));
    hand.read(passed(460_000));
    assert_eq!(hand.state(), State::Final);
    hand.read(Reading { refused: UsedUnit::new(64_000, 0), ..passed(460_000) });
    assert_eq!(hand.state(), State::Exhausted);
}

#[test]
fn only_a_strictly_larger_ceiling_opens_an_exhausted_link_and_not_before_the_least_dwell() {
    let mut hand = Hand::new();
    hand.usable(terms());
    hand.answer(answered(last(500_000)));
    hand.read(passed(500_000));
    hand.answer(answered(nothing()));
    hand.wait(1_000);
    let commands = hand.tell(Event::Reauthorise(sim(1)));
    assert_eq!(sealed(&commands).trigger, Some(Trigger::ForcedReauthorisation));
    let commands = hand.answer(answered(granted(200_000)));
    assert_eq!(gate(&commands).map_or(Octets::new(500_000), |gate| gate.ceiling), Octets::new(500_000));
    assert_eq!(hand.state(), State::Exhausted);
    let commands = hand.wait(4_000);
    assert_eq!(gate(&commands).map(|gate| gate.ceiling), Some(Octets::new(700_000)));
    assert_eq!(hand.state(), State::Active);
}

#[test]
fn an_exhausted_link_asks_again_after_a_minute_at_first_and_a_quarter_of_an_hour_at_last() {
    let mut hand = Hand::new();
    hand.usable(terms());
    hand.answer(answered(nothing()));
    let mut gaps = Vec::new();
    let mut since = hand.now;
    for _ in 0..9 {
        let commands = hand.wait_for_message(Duration::from_mins(16));
        assert_eq!(sealed(&commands).trigger, Some(Trigger::QuotaExhausted));
        gaps.push(hand.now.since(since).as_secs());
        since = hand.now;
        hand.answer(answered(nothing()));
    }
    assert!(gaps.iter().all(|gap| (60..=900).contains(gap)), "{gaps:?}");
    assert!(gaps.iter().any(|gap| *gap > 300), "the pauses grow: {gaps:?}");
}

#[test]
fn a_throttled_link_lets_on_and_tells_those_octets_apart() {
    let mut hand = Hand::new();
    let rate = OctetRate::per_second(8_000);
    hand.usable(Terms { when_used_up: WhenUsedUp::Throttle(rate), ..terms() });
    let commands = hand.answer(answered(last(1_000)));
    assert_eq!(gate(&commands).map(|gate| gate.mode), Some(GateMode::Block));
    let commands = hand.read(passed(1_000));
    assert_eq!(gate(&commands).map(|gate| gate.mode), Some(GateMode::Throttle(rate)));
    hand.answer(answered(nothing()));
    hand.read(Reading { throttled: UsedUnit::new(300, 400), ..passed(1_000) });
    let commands = hand.wait(61_000);
    let offline = commands.iter().find_map(|command| match command {
        Command::Record(Record::ContainerClosed { container, .. }) => Some(container.clone()),
        _ => None,
    });
    let offline = offline.expect("a container");
    assert_eq!((offline.quota_management, offline.used), (QuotaManagement::Offline, UsedUnit::new(300, 400)));
    assert_eq!(sealed(&commands).reported, Octets::new(1_000), "they are no quota octets");
}

#[test]
fn an_idle_link_is_returned_and_opens_again_when_a_packet_is_refused() {
    let mut hand = Hand::new();
    hand.usable(terms());
    let grant = GrantedUnit { quota_holding_time: Some(Duration::from_secs(20)), ..granted(1_000_000) };
    hand.answer(answered(grant));
    hand.read(passed(5_000));
    let commands = hand.wait(21_000);
    assert_eq!(gate(&commands).map(|gate| gate.ceiling), Some(Octets::ZERO));
    assert_eq!(sealed(&commands).operation, Operation::Release);
    hand.answer(acknowledged());
    assert_eq!(hand.state(), State::Idle);
    assert!(sealed_maybe(&hand.wait(600_000)).is_none());
    let commands = hand.read(Reading { refused: UsedUnit::new(60, 0), ..passed(5_000) });
    assert_eq!(sealed(&commands).operation, Operation::Create);
}

#[test]
fn without_an_answer_terminate_stays_at_the_ceiling() {
    let mut hand = Hand::active();
    hand.read(passed(800_000));
    let commands = hand.wait(11_000);
    assert_eq!(hand.state(), State::Offline);
    assert!(gate(&commands).is_none_or(|gate| gate.ceiling == Octets::new(1_000_000)), "{commands:?}");
    assert!(kinds(&commands).iter().all(|kind| *kind != "send"), "{commands:?}");
}

#[test]
fn without_an_answer_continue_opens_the_grace_once_and_records_it_first() {
    let mut hand = Hand::new();
    hand.usable(Terms { failure_handling: FailureHandling::Continue, ..terms() });
    hand.answer(answered(granted(1_000_000)));
    hand.read(passed(800_000));
    let commands = hand.wait(10_000);
    let order = kinds(&commands);
    let grace = order.iter().position(|kind| *kind == "grace").expect("a grace");
    assert!(order[grace + 1..].contains(&"gate"), "{order:?}");
    assert_eq!(gate(&commands).map(|gate| gate.ceiling), Some(Octets::new(1_050_000)));
    hand.read(passed(1_050_000));
    let commands = hand.wait(120_000);
    assert!(!kinds(&commands).contains(&"grace"));
    let commands = hand.answer(answered(granted(1_000_000)));
    assert_eq!(gate(&commands).map(|gate| gate.ceiling), Some(Octets::new(1_800_000)));
}

#[test]
fn without_an_answer_retry_and_terminate_tries_another_route_at_once() {
    let mut hand = Hand::new();
    hand.usable(Terms { failure_handling: FailureHandling::RetryAndTerminate, ..terms() });
    hand.answer(answered(granted(1_000_000)));
    hand.read(passed(800_000));
    let sends: Vec<_> = hand.wait(10_000).into_iter().filter(|c| matches!(c, Command::Send { .. })).collect();
    let [Command::Send { attempt: 2, route: Route::Detour(0), .. }] = sends.as_slice() else {
        panic!("one detour: {sends:?}");
    };
}

#[test]
fn a_sealed_message_is_tried_for_ever_with_pauses_of_five_minutes_at_most() {
    let mut hand = Hand::active();
    hand.read(passed(800_000));
    let key = hand.outstanding();
    for round in 2..40 {
        let since = hand.now;
        hand.answer(unanswered());
        let commands = hand.wait_for_send(Duration::from_mins(6));
        assert!(hand.now.since(since) <= Duration::from_mins(5));
        let Some(Command::Send { key: again, attempt, .. }) = commands.last() else { panic!("{commands:?}") };
        assert_eq!((*again, *attempt), (key, round));
    }
}

#[test]
fn another_sim_settles_the_old_session_before_the_new_one_begins() {
    let mut hand = Hand::active();
    hand.read(passed(300_000));
    let usable = Usable { subscriber: sim(2), epoch: epoch(1), terms: terms(), reading: passed(300_000) };
    let commands = hand.tell(Event::Usable(usable));
    assert_eq!(kinds(&commands), ["closing", "gate"]);
    assert_eq!(gate(&commands).map(|gate| gate.ceiling), Some(Octets::ZERO));
    hand.reading = passed(300_500);
    let commands = hand.wait(50);
    assert_eq!(kinds(&commands), ["container", "settled", "sealed", "send", "opened", "sealed", "send"]);
    assert_eq!((sealed(&commands).operation, sealed(&commands).reported), (Operation::Release, Octets::new(300_500)));
    let Some(Command::Record(Record::SessionOpened(opening))) = commands.get(4) else { panic!("{commands:?}") };
    assert_eq!((&opening.subscriber, opening.base), (&sim(2), UsedUnit::new(300_500, 0)));
    hand.answer(acknowledged());
    let commands = hand.answer(answered(granted(10_000)));
    assert_eq!(gate(&commands).map(|gate| gate.ceiling), Some(Octets::new(310_500)), "base + reported + granted");
}

#[test]
fn settling_ends_with_everything_acknowledged() {
    let mut hand = Hand::active();
    hand.read(passed(100));
    hand.tell(Event::Settle);
    assert_eq!(hand.state(), State::Returning);
    let commands = hand.wait(60);
    assert_eq!(sealed(&commands).operation, Operation::Release);
    assert_eq!(hand.state(), State::Draining);
    assert!(!hand.quota.is_settled());
    assert_eq!(kinds(&hand.answer(acknowledged())), ["acknowledged", "closed"]);
    assert!(hand.quota.is_settled());
}

#[test]
fn at_a_stop_what_backs_off_is_tried_at_once() {
    let mut hand = Hand::active();
    hand.read(passed(800_000));
    for _ in 0..12 {
        hand.answer(unanswered());
        hand.wait_for_send(Duration::from_mins(6));
    }
    hand.answer(unanswered());
    assert_eq!(kinds(&hand.tell(Event::Settle)), ["closing", "send", "gate"]);
    // The first may have gone a dead way.
    hand.answer(unanswered());
    hand.wait_for_send(Duration::from_secs(1));
}

#[test]
fn an_aborted_link_stays_shut_until_it_is_reauthorised() {
    let mut hand = Hand::active();
    assert_eq!(
        kinds(&hand.tell(Event::Abort(sim(1)))),
        ["aborted", "closing", "gate"],
        "recorded before it is followed"
    );
    hand.wait(60);
    hand.answer(acknowledged());
    assert_eq!(kinds(&hand.tell(Event::Abort(sim(1)))), Vec::<&str>::new(), "the same order changes nothing");
    assert!(sealed_maybe(&hand.wait(3_600_000)).is_none());
    assert!(hand.quota.overview(hand.now).aborted);
    let commands = hand.tell(Event::Reauthorise(sim(1)));
    assert_eq!(kinds(&commands), ["reauthorised", "gate", "opened", "sealed", "send"]);
    assert!(!hand.quota.overview(hand.now).aborted);
}

#[test]
fn an_order_to_abort_holds_over_a_restart_until_it_is_reauthorised() {
    let mut hand = Hand::new();
    hand.quota = Quota::restore(Vec::new(), &terms(), None, 9, at(0)).with_aborted([sim(1)]);
    hand.usable(terms());
    assert!(sealed_maybe(&hand.wait(3_600_000)).is_none());
    let commands = hand.tell(Event::Reauthorise(sim(1)));
    assert_eq!(kinds(&commands), ["reauthorised", "gate", "opened", "sealed", "send"]);
}

#[test]
fn a_session_that_an_order_to_abort_did_not_reach_before_a_crash_is_closed_after_it() {
    let session = stored(&mut Hand::new());
    let meter = (epoch(1), passed(456_789));
    let mut hand = Hand::new();
    hand.reading = passed(456_789);
    hand.quota = Quota::restore(vec![session], &terms(), Some(&meter), 9, at(0)).with_aborted([sim(1)]);
    let commands = hand.usable(terms());
    assert_eq!(kinds(&commands), ["closing", "gate"]);
    assert_eq!(gate(&commands).map(|gate| gate.ceiling), Some(Octets::ZERO));
    assert_eq!(sealed(&hand.wait(60)).operation, Operation::Release);
}

#[test]
fn an_order_to_abort_is_about_a_sim_and_not_about_a_link() {
    let mut hand = Hand::active();
    hand.tell(Event::Abort(sim(1)));
    let usable = |number| Usable { subscriber: sim(number), epoch: epoch(1), terms: terms(), reading: passed(0) };
    hand.wait(60);
    hand.answer(acknowledged());
    let commands = hand.tell(Event::Usable(usable(2)));
    assert_eq!(sealed(&commands).operation, Operation::Create, "another SIM may be used");
    hand.tell(Event::Abort(sim(3)));
    assert_eq!(hand.state(), State::Requesting, "it was not meant");
    hand.answer(answered(granted(1_000_000)));
    hand.tell(Event::Usable(usable(3)));
    hand.wait(60);
    hand.answer(acknowledged());
    assert!(sealed_maybe(&hand.wait(3_600_000)).is_none(), "the order was known before the SIM came");
    let other = hand.tell(Event::Reauthorise(sim(1)));
    assert_eq!(kinds(&other), ["reauthorised"]);
    assert_eq!(sealed(&hand.tell(Event::Reauthorise(sim(3)))).operation, Operation::Create);
}

#[test]
fn what_a_server_has_lost_goes_as_one_time_events_under_the_same_name() {
    let mut hand = Hand::new();
    let old = session_of(&hand.usable(terms()));
    hand.answer(answered(granted(1_000_000)));
    hand.read(passed(800_000));
    hand.read(passed(850_000));
    let commands = hand.answer(Outcome::ContextNotFound);
    assert_eq!(kinds(&commands), ["orphaned", "closing", "gate"]);
    assert_eq!(gate(&commands).map(|gate| gate.ceiling), Some(Octets::ZERO));
    hand.reading = passed(850_040);
    let commands = hand.wait(50);
    assert_eq!(kinds(&commands), ["container", "settled", "sealed", "send"]);
    let Some(Command::Record(Record::MessageSealed { session, message })) = commands.get(2) else {
        panic!("{commands:?}")
    };
    assert_eq!((*session, message.operation), (old, Operation::Event));
    assert_eq!(message.containers.iter().map(|number| number.get()).collect::<Vec<_>>(), [1, 2]);
    // Only when that is debited does the next session ask, and no octet falls between the two.
    let commands = hand.answer(acknowledged());
    let opening = commands.iter().find_map(|command| match command {
        Command::Record(Record::SessionOpened(opening)) => Some(opening.clone()),
        _ => None,
    });
    assert_eq!(opening.map(|opening| opening.base), Some(UsedUnit::new(850_040, 0)));
}

#[test]
fn a_refused_message_is_set_aside_and_a_new_session_waits() {
    let mut hand = Hand::active();
    hand.read(passed(800_000));
    hand.read(passed(850_000));
    let refused = Outcome::Rejected { status: 400, cause: "MANDATORY_IE_INCORRECT".to_owned() };
    let commands = hand.answer(refused);
    assert_eq!(kinds(&commands), ["set aside", "orphaned", "closing", "gate"]);
    let commands = hand.wait(50);
    assert_eq!(kinds(&commands), ["container", "settled", "sealed", "send", "gate"]);
    let Some(Command::Record(Record::MessageSealed { message, .. })) = commands.get(2) else { panic!("{commands:?}") };
    assert_eq!(message.containers.iter().map(|number| number.get()).collect::<Vec<_>>(), [2]);
    hand.answer(acknowledged());
    let commands = hand.wait_for_message(Duration::from_mins(2));
    assert_eq!(sealed(&commands).operation, Operation::Create);
}

#[test]
fn a_backlog_goes_fifty_containers_at_a_time_and_the_release_comes_last() {
    let mut hand = Hand::active();
    hand.read(passed(800_000));
    for minute in 1..=60_u64 {
        hand.reading = passed(800_000 + minute);
        hand.wait(61_000);
    }
    hand.tell(Event::Settle);
    hand.wait(60);
    let mut sizes = Vec::new();
    while !hand.quota.is_settled() {
        let commands = hand.answer(acknowledged());
        if let Some(message) = sealed_maybe(&commands) {
            sizes.push((message.operation, message.containers.len()));
        }
    }
    assert_eq!(sizes.first().map(|(operation, size)| (*operation, *size)), Some((Operation::Update, 50)));
    assert_eq!(sizes.last().map(|(operation, _)| *operation), Some(Operation::Release));
    assert_eq!(sizes.len(), 2);
}

#[test]
fn a_container_stays_below_two_to_the_thirty_first() {
    let mut hand = Hand::new();
    hand.usable(terms());
    hand.answer(answered(granted(1 << 40)));
    let commands = hand.read(Reading { passed: UsedUnit::new(5 << 30, 1 << 31), ..Reading::default() });
    hand.tell(Event::Settle);
    let commands = [commands, hand.wait(60)].concat();
    let used: Vec<_> = commands
        .iter()
        .filter_map(|command| match command {
            Command::Record(Record::ContainerClosed { container, .. }) => Some(container.used),
            _ => None,
        })
        .collect();
    assert!(used.iter().all(|used| used.total().get() < 1 << 31), "{used:?}");
    let sum = used.iter().fold(UsedUnit::ZERO, |sum, used| sum.saturating_add(*used));
    assert_eq!(sum, UsedUnit::new(5 << 30, 1 << 31));
}

#[test]
fn counters_that_go_back_end_the_session_and_bill_what_was_known() {
    let mut hand = Hand::active();
    hand.read(passed(500_000));
    let commands = hand.read(passed(20));
    let container = commands.iter().find_map(|command| match command {
        Command::Record(Record::ContainerClosed { container, .. }) => Some(container.clone()),
        _ => None,
    });
    let container = container.expect("a container");
    assert_eq!((container.used, container.trigger), (UsedUnit::new(500_000, 0), Trigger::AbnormalRelease));
}

#[test]
fn control_has_a_reserve_that_is_renewed_every_hour() {
    let mut hand = Hand::new();
    let commands = hand.usable(terms());
    assert_eq!(gate(&commands).map(|gate| gate.control_ceiling), Some(Octets::new(100_000)));
    hand.answer(answered(nothing()));
    let used = Reading { control: UsedUnit::new(60_000, 10_000), ..Reading::default() };
    hand.read(used);
    let before = hand.wait(3_500_000);
    assert!(gate(&before).is_none_or(|gate| gate.control_ceiling == Octets::new(100_000)));
    let commands = hand.wait(200_000);
    assert_eq!(gate(&commands).map(|gate| gate.control_ceiling), Some(Octets::new(170_000)));
}

#[test]
fn the_failure_handling_that_the_server_asked_for_holds_over_a_restart() {
    let mut hand = Hand::new();
    let opened = hand.usable(terms());
    let asked = Answer {
        session_ref: None,
        granted: Some(granted(1_000_000)),
        failure_handling: Some(FailureHandling::Continue),
    };
    let recorded = hand.answer(Outcome::Answered(asked)).into_iter().find_map(|command| match command {
        Command::Record(Record::MessageAcknowledged { grant, failure_handling, .. }) => Some((grant, failure_handling)),
        _ => None,
    });
    let (grant, failure_handling) = recorded.expect("the answer is recorded");
    assert_eq!(failure_handling, Some(FailureHandling::Continue));
    let Some(Command::Record(Record::SessionOpened(opening))) = opened.get(1) else { panic!("{opened:?}") };
    let session = StoredSession {
        next_message: crate::units::InvocationSequenceNumber::new(1),
        grant,
        failure_handling,
        ..StoredSession::opened(opening.clone())
    };
    let meter = (epoch(1), passed(0));
    hand.quota = Quota::restore(vec![session], &terms(), Some(&meter), 9, hand.now);
    hand.usable(terms());
    hand.read(passed(800_000));
    assert!(kinds(&hand.wait(10_000)).contains(&"grace"), "the terms alone would terminate");
}

/// A session that had a grant of 1,000,000, has reported 300,000 and was read last at 400,000.
fn stored(hand: &mut Hand) -> StoredSession {
    let commands = hand.usable(terms());
    let Some(Command::Record(Record::SessionOpened(opening))) = commands.get(1) else { panic!("{commands:?}") };
    StoredSession {
        session_ref: Some(crate::units::SessionRef::new("ref-1")),
        closed: UsedUnit::new(300_000, 0),
        reported: Octets::new(300_000),
        next_container: crate::units::LocalSequenceNumber::new(2),
        next_message: crate::units::InvocationSequenceNumber::new(2),
        grant: Some(Grant {
            ceiling: Octets::new(1_300_000),
            octets: Octets::new(1_000_000),
            threshold: Octets::new(200_000),
            valid_until: None,
            holding: None,
            final_unit: None,
            exceptions: Exceptions::default(),
            result: ResultCode::Success,
        }),
        checkpoint: Some((UsedUnit::new(400_000, 0), UsedUnit::ZERO)),
        ..StoredSession::opened(opening.clone())
    }
}

#[test]
fn a_restart_in_the_same_epoch_goes_on_to_the_octet() {
    let session = stored(&mut Hand::new());
    let meter = (epoch(1), passed(456_789));
    let mut hand = Hand::new();
    hand.reading = passed(456_789);
    hand.quota = Quota::restore(vec![session], &terms(), Some(&meter), 9, at(0));
    let commands = hand.usable(terms());
    assert_eq!(kinds(&commands), ["gate"], "no new session, only the gate as it was");
    assert_eq!(gate(&commands).map(|gate| gate.ceiling), Some(Octets::new(1_300_000)));
    hand.tell(Event::Settle);
    assert_eq!(sealed(&hand.wait(60)).reported, Octets::new(456_789));
}

#[test]
fn a_session_taken_up_and_settled_at_once_has_its_pinned_gate_shut_before_the_last_reading() {
    let session = stored(&mut Hand::new());
    let meter = (epoch(1), passed(456_789));
    let mut hand = Hand::new();
    hand.reading = passed(456_789);
    hand.quota = Quota::restore(vec![session], &terms(), Some(&meter), 9, at(0));
    // Nobody has said yet that the link is metered or usable.
    let commands = hand.tell(Event::Settle);
    let shut = gate(&commands).expect("the gate is written");
    assert_eq!((shut.ceiling, shut.control_ceiling), (Octets::ZERO, Octets::new(100_000)));
    assert_eq!(sealed(&hand.wait(60)).reported, Octets::new(456_789));
}

#[test]
fn a_restart_in_another_epoch_bills_the_last_recorded_reading() {
    let session = stored(&mut Hand::new());
    let mut hand = Hand::new();
    hand.quota = Quota::restore(vec![session], &terms(), None, 9, at(0));
    let usable = Usable { subscriber: sim(1), epoch: epoch(2), terms: terms(), reading: Reading::default() };
    let commands = hand.tell(Event::Usable(usable));
    let messages: Vec<_> = commands
        .iter()
        .filter_map(|command| match command {
            Command::Record(Record::MessageSealed { message, .. }) => Some((message.operation, message.reported)),
            _ => None,
        })
        .collect();
    assert_eq!(messages, [(Operation::Release, Octets::new(400_000)), (Operation::Create, Octets::ZERO)]);
}

#[test]
fn a_message_that_was_out_at_the_crash_goes_again_as_a_retransmission() {
    let mut before = Hand::new();
    let mut session = stored(&mut before);
    let message = crate::quota::Message {
        number: crate::units::InvocationSequenceNumber::new(1),
        operation: Operation::Update,
        requested: Some(Octets::new(1_000_000)),
        containers: vec![crate::units::LocalSequenceNumber::new(1)],
        trigger: Some(Trigger::QuotaThreshold),
        reported: Octets::new(300_000),
        sealed_at: at(0),
    };
    session.outstanding = Some(message);
    let meter = (epoch(1), passed(400_000));
    let mut hand = Hand::new();
    hand.reading = passed(400_000);
    hand.quota = Quota::restore(vec![session], &terms(), Some(&meter), 9, at(0));
    let commands = hand.usable(terms());
    let attempts: Vec<_> = commands
        .iter()
        .filter_map(|command| match command {
            Command::Send { key, attempt, .. } => Some((key.number.get(), *attempt)),
            _ => None,
        })
        .collect();
    assert_eq!(attempts.len(), 1);
    assert!(attempts[0].0 == 1 && attempts[0].1 > 1, "{attempts:?}");
}
