//! Scripts against a server that charges whatever comes again: what may have been taken is in doubt, and everything goes on.

use std::time::Duration;

use super::hand::{
    Hand, acknowledged, answered, at, epoch, gate, granted, kinds, passed, sealed, sealed_maybe, session_of, terms,
    unanswered,
};
use crate::quota::{
    Command, Event, Operation, Outcome, Quota, Record, Repetition, SessionOpening, State, StoredSession, Terms, Trigger,
};
use crate::units::{ChargingId, InvocationSequenceNumber, Octets, SessionRef, UsedUnit};

fn foreign() -> Terms {
    Terms { repetition: Repetition::Charged, ..terms() }
}

fn not_taken() -> Outcome {
    Outcome::NotTaken { retry_after: None, reason: "refused".to_owned() }
}

/// A link whose session has its first grant of 1,000,000 octets from a server that charges what comes again.
fn active() -> Hand {
    let mut hand = Hand::new();
    hand.usable(foreign());
    hand.answer(answered(granted(1_000_000)));
    hand
}

fn sends(commands: &[Command]) -> usize {
    commands.iter().filter(|command| matches!(command, Command::Send { .. })).count()
}

#[test]
fn an_update_that_may_have_been_taken_is_in_doubt_and_the_next_number_goes_on() {
    let mut hand = active();
    hand.read(passed(800_000));
    hand.read(passed(900_000));
    let commands = hand.answer(unanswered());
    assert_eq!(kinds(&commands), ["in doubt"], "not at once: one failure must not chase the other");
    let commands = hand.wait_for_message(Duration::from_secs(2));
    let message = sealed(&commands);
    assert_eq!((message.operation, message.number.get()), (Operation::Update, 2));
    assert_eq!(
        message.containers.iter().map(|number| number.get()).collect::<Vec<_>>(),
        [2],
        "the first is not sent again"
    );
    // The ceiling is counted from all that was reported, in doubt or not.
    let commands = hand.answer(answered(granted(1_000_000)));
    assert_eq!(gate(&commands).map(|gate| gate.ceiling), Some(Octets::new(1_900_000)));
    assert_eq!(hand.state(), State::Active);
}

#[test]
fn what_was_certainly_not_taken_is_sent_again_as_often_as_it_needs() {
    let mut hand = active();
    hand.read(passed(800_000));
    for _ in 0..5 {
        assert_eq!(kinds(&hand.answer(not_taken())), ["not taken"]);
        let commands = hand.wait_for_send(Duration::from_mins(5));
        assert!(
            kinds(&commands).ends_with(&["attempted", "send"]),
            "before it leaves again, it counts as possibly taken"
        );
    }
    assert_eq!(gate(&hand.answer(answered(granted(1_000_000)))).map(|gate| gate.ceiling), Some(Octets::new(1_800_000)));
}

#[test]
fn no_second_attempt_is_made_beside_one_that_may_still_be_taken() {
    let mut hand = Hand::new();
    hand.usable(Terms { failure_handling: crate::quota::FailureHandling::RetryAndTerminate, ..foreign() });
    hand.answer(answered(granted(1_000_000)));
    hand.read(passed(800_000));
    assert_eq!(sends(&hand.wait(110_000)), 0);
    assert_eq!(hand.state(), State::Offline);
}

#[test]
fn a_server_that_never_answers_is_asked_less_and_less_and_counts_as_away() {
    let mut hand = active();
    hand.read(passed(900_000));
    let mut times = Vec::new();
    while hand.now < at(3_600_000) {
        hand.reading = passed(hand.reading.passed.total().get() + 1);
        hand.answer(unanswered());
        hand.wait_for_message(Duration::from_mins(6));
        times.push(hand.now);
        // The gate is at its old ceiling, whatever happens.
        assert!(hand.quota.overview(hand.now).grant.is_some_and(|grant| grant.ceiling == Octets::new(1_000_000)));
    }
    assert!(times.len() < 60, "{} messages in an hour", times.len());
    let first_minute = times.iter().filter(|time| **time < at(60_000)).count();
    assert!(first_minute <= 10, "{first_minute} messages in the first minute");
    assert_eq!(hand.state(), State::Offline);
}

#[test]
fn the_grace_opens_although_each_message_is_given_up_at_once() {
    let mut hand = Hand::new();
    hand.usable(Terms { failure_handling: crate::quota::FailureHandling::Continue, ..foreign() });
    hand.answer(answered(granted(1_000_000)));
    hand.read(passed(900_000));
    let mut graces = 0;
    for _ in 0..12 {
        let commands = hand.answer(unanswered());
        let more = hand.wait_for_message(Duration::from_mins(6));
        let rest = hand.wait(0);
        graces += kinds(&[commands, more, rest].concat()).iter().filter(|kind| **kind == "grace").count();
    }
    assert_eq!(graces, 1, "once, after ten seconds");
}

#[test]
fn a_create_in_doubt_gives_the_session_up_and_opens_another() {
    let mut hand = Hand::new();
    let first = session_of(&hand.usable(foreign()));
    let commands = hand.answer(unanswered());
    assert_eq!(kinds(&commands), ["in doubt", "orphaned", "closing"]);
    let commands = hand.wait_for_message(Duration::from_mins(2));
    assert_ne!(session_of(&commands), first);
    assert_eq!(sealed(&commands).operation, Operation::Create);
    assert!(hand.now >= at(2_000), "not at once: {:?}", hand.now);
}

#[test]
fn a_release_in_doubt_ends_the_session() {
    let mut hand = active();
    hand.read(passed(400_000));
    hand.tell(Event::Settle);
    assert_eq!(sealed(&hand.wait(50)).operation, Operation::Release);
    assert_eq!(kinds(&hand.answer(unanswered())), ["in doubt", "closed"]);
    assert!(hand.quota.is_settled());
}

#[test]
fn one_time_events_in_doubt_do_not_hold_up_the_rest() {
    let mut hand = active();
    hand.read(passed(800_000));
    for minute in 1..=70_u64 {
        hand.reading = passed(800_000 + minute);
        hand.wait(61_000);
    }
    hand.answer(Outcome::ContextNotFound);
    let commands = hand.wait_for_message(Duration::from_secs(1));
    assert_eq!((sealed(&commands).operation, sealed(&commands).containers.len()), (Operation::Event, 50));
    assert_eq!(kinds(&hand.answer(unanswered())), ["in doubt"]);
    let commands = hand.wait_for_message(Duration::from_secs(2));
    assert_eq!((sealed(&commands).operation, sealed(&commands).containers.len()), (Operation::Event, 21));
    let commands = hand.answer(unanswered());
    assert_eq!(kinds(&commands)[..2], ["in doubt", "closed"]);
}

#[test]
fn an_order_to_ask_again_that_went_into_doubt_is_carried_out_by_the_next_message() {
    let mut hand = active();
    assert_eq!(
        sealed(&hand.tell(Event::Reauthorise(super::hand::sim(1)))).trigger,
        Some(Trigger::ForcedReauthorisation)
    );
    hand.answer(unanswered());
    let commands = hand.wait_for_message(Duration::from_secs(2));
    assert_eq!(sealed(&commands).trigger, Some(Trigger::ForcedReauthorisation));
}

/// A session that the ledger remembers with a report of 700 octets under way.
fn remembered(quota: &mut Hand, not_taken: bool) -> StoredSession {
    quota.usable(foreign());
    quota.answer(answered(granted(1_000_000)));
    let opening = SessionOpening {
        session: ChargingId::new(9),
        subscriber: super::hand::sim(1),
        epoch: epoch(1),
        base: UsedUnit::ZERO,
        base_throttled: UsedUnit::ZERO,
        opened_at: at(0),
    };
    let commands = quota.read(passed(800_000));
    let message = sealed(&commands).clone();
    let container = commands.iter().find_map(|command| match command {
        Command::Record(Record::ContainerClosed { container, .. }) => Some(container.clone()),
        _ => None,
    });
    StoredSession {
        session_ref: Some(SessionRef::new("ref-1")),
        closed: container.map(|container| container.used).unwrap_or_default(),
        reported: message.reported,
        next_container: crate::units::LocalSequenceNumber::new(2),
        next_message: InvocationSequenceNumber::new(2),
        outstanding: Some(message),
        not_taken,
        ..StoredSession::opened(opening)
    }
}

/// What the next life does first.
fn first_commands_of_the_next_life(not_taken: bool, terms: &Terms) -> Vec<Command> {
    let mut hand = Hand::new();
    let stored = remembered(&mut hand, not_taken);
    hand.quota = Quota::restore(vec![stored], terms, Some(&(epoch(1), hand.reading)), 3, hand.now);
    hand.wait(0)
}

#[test]
fn what_an_earlier_life_may_have_sent_is_in_doubt_and_never_leaves_again() {
    let commands = first_commands_of_the_next_life(false, &foreign());
    assert_eq!(kinds(&commands)[..1], ["in doubt"]);
    assert!(sealed_maybe(&commands).is_none_or(|message| message.containers.is_empty()));
}

#[test]
fn what_an_earlier_life_certainly_did_not_get_across_is_sent_again() {
    let commands = first_commands_of_the_next_life(true, &foreign());
    assert_eq!(kinds(&commands)[..2], ["attempted", "send"]);
}

#[test]
fn a_server_that_recognises_what_comes_again_gets_it_again_after_a_restart() {
    for not_taken in [false, true] {
        assert_eq!(kinds(&first_commands_of_the_next_life(not_taken, &terms()))[..1], ["send"]);
    }
}

#[test]
fn an_acknowledgement_ends_the_waiting() {
    let mut hand = active();
    hand.read(passed(800_000));
    for _ in 0..4 {
        hand.answer(unanswered());
        hand.wait_for_message(Duration::from_mins(1));
    }
    hand.answer(answered(granted(1_000_000)));
    hand.read(passed(1_700_000));
    hand.answer(unanswered());
    let before = hand.now;
    hand.wait_for_message(Duration::from_secs(2));
    assert!(hand.now <= before.plus(Duration::from_secs(1)), "as after the first failure");
    hand.answer(acknowledged());
}

#[test]
fn a_session_that_is_given_up_takes_its_part_of_the_grace_with_it() {
    let mut hand = Hand::new();
    hand.usable(Terms { failure_handling: crate::quota::FailureHandling::Continue, ..foreign() });
    let mut highest = Octets::ZERO;
    for _ in 0..5 {
        // A create that times out, and under the grace as much as the gate lets pass.
        let commands = hand.wait(20_000);
        highest = highest.max(gate(&commands).map_or(Octets::ZERO, |gate| gate.ceiling));
        hand.read(passed(highest.get()));
        hand.answer(unanswered());
        while sealed_maybe(&hand.wait_for_message(Duration::from_mins(20)))
            .is_none_or(|m| m.operation != Operation::Create)
        {
            hand.answer(unanswered());
        }
    }
    assert_eq!(highest, terms().offline_grace.octets, "one grace, however many sessions are given up meanwhile");
    // An answer makes it whole again.
    hand.answer(answered(granted(1_000_000)));
    hand.read(passed(highest.get() + 1_000_000));
    let commands = hand.wait(20_000);
    assert_eq!(gate(&commands).map(|gate| gate.ceiling), Some(Octets::new(2 * 50_000 + 1_000_000)));
}
