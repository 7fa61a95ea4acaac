//! The server's orders at any moment: units are taken back, and more are given, in each state that a session can be in.

use std::time::Duration;

use super::hand::{
    Hand, acknowledged, answered, gate, granted, last, nothing, passed, sealed_maybe, sim, terms, unanswered,
};
use crate::quota::{Command, Event, Outcome, State};
use crate::units::Octets;

/// Octets of each first grant.
const FIRST: u64 = 1_000_000;

/// Octets of the grant that is given then.
const MORE: u64 = 5_000_000;

/// A link in each state, some of its octets not told yet where it has used any.
fn each_state() -> Vec<(State, Hand)> {
    let requesting = || {
        let mut hand = Hand::new();
        hand.usable(terms());
        hand
    };
    let with = |first| {
        let mut hand = requesting();
        hand.answer(answered(first));
        hand
    };
    let mut active = with(granted(FIRST));
    active.read(passed(300_000));
    let mut renewing = with(granted(FIRST));
    renewing.read(passed(FIRST - 100_000));
    renewing.read(passed(FIRST - 50_000));
    let mut offline = with(granted(FIRST));
    offline.read(passed(FIRST - 100_000));
    offline.answer(unanswered());
    offline.wait(11_000);
    offline.read(passed(FIRST - 50_000));
    let mut final_units = with(last(FIRST));
    final_units.read(passed(300_000));
    let mut exhausted = with(last(FIRST));
    exhausted.read(passed(FIRST));
    let mut told = with(last(FIRST));
    told.read(passed(FIRST));
    told.answer(answered(nothing()));
    let mut returning = with(granted(FIRST));
    returning.read(passed(300_000));
    returning.tell(Event::Abort(sim(1)));
    let mut draining = with(granted(FIRST));
    draining.read(passed(300_000));
    draining.tell(Event::Abort(sim(1)));
    draining.wait(1_000);
    let mut ended = with(granted(FIRST));
    ended.read(passed(300_000));
    ended.tell(Event::Abort(sim(1)));
    ended.wait(1_000);
    ended.answer(acknowledged());
    vec![
        (State::Requesting, requesting()),
        (State::Active, active),
        (State::Renewing, renewing),
        (State::Offline, offline),
        (State::Final, final_units),
        (State::Exhausted, exhausted),
        (State::Exhausted, told),
        (State::Returning, returning),
        (State::Draining, draining),
        (State::Idle, ended),
    ]
}

/// Lets ten seconds pass in which the server answers everything so.
fn served(hand: &mut Hand, outcome: &Outcome) -> Vec<Command> {
    let mut all = Vec::new();
    for _ in 0..10 {
        all.extend(hand.wait(1_000));
        if hand.quota.sessions.iter().any(|session| session.outbox_key().is_some()) {
            all.extend(hand.answer(outcome.clone()));
        }
    }
    all
}

/// Quota octets that the last message has told of, and those before it.
fn told(commands: &[Command]) -> Option<Octets> {
    commands
        .iter()
        .rev()
        .find_map(|command| sealed_maybe(std::slice::from_ref(command)).map(|message| message.reported))
}

#[test]
fn an_order_to_abort_shuts_the_gate_in_each_state_and_the_last_octet_is_told() {
    for (state, mut hand) in each_state() {
        assert_eq!(hand.state(), state);
        let used = hand.reading.passed.total();
        let mut commands = hand.tell(Event::Abort(sim(1)));
        commands.extend(served(&mut hand, &answered(granted(MORE))));
        for command in &commands {
            if let Command::SetGate(gate) = command {
                assert!(gate.ceiling.is_zero(), "{state:?}: {gate:?}");
            }
        }
        assert!(hand.quota.is_settled(), "{state:?}: {:?}", hand.quota);
        assert_eq!(hand.state(), State::Idle, "{state:?}");
        if let Some(told) = told(&commands) {
            assert_eq!(told, used, "{state:?}");
        }
        // Nothing is asked for by itself, for as long as one waits.
        assert!(sealed_maybe(&hand.wait(3_600_000)).is_none(), "{state:?}");
    }
}

#[test]
fn a_top_up_opens_the_gate_in_each_state_to_what_it_grants_and_not_an_octet_more() {
    for (state, mut hand) in each_state() {
        let used = hand.reading.passed.total();
        let mut commands = hand.tell(Event::Reauthorise(sim(1)));
        commands.extend(served(&mut hand, &answered(granted(MORE))));
        let open = gate(&commands).expect("a gate");
        assert_eq!(open.ceiling, used.saturating_add(Octets::new(MORE)), "{state:?}");
        assert_eq!(hand.state(), State::Active, "{state:?}");
    }
}

#[test]
fn a_top_up_that_comes_as_an_order_to_abort_is_being_followed_takes_the_order_back_once_it_is_done() {
    let mut hand = Hand::active();
    hand.read(passed(300_000));
    hand.tell(Event::Abort(sim(1)));
    let commands = hand.tell(Event::Reauthorise(sim(1)));
    assert!(gate(&commands).is_none_or(|gate| gate.ceiling.is_zero()), "the old session ends all the same");
    let commands = hand.wait_for_message(Duration::from_secs(1));
    let is_last = |command: &Command| told(std::slice::from_ref(command)) == Some(Octets::new(300_000));
    assert!(commands.iter().any(is_last), "and tells of its last octet: {commands:?}");
    let commands = served(&mut hand, &answered(granted(MORE)));
    assert_eq!(gate(&commands).map(|gate| gate.ceiling), Some(Octets::new(300_000 + MORE)));
}
