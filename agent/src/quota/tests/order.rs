//! What the operator's order to ask now does, and what is told of what comes next.

use std::time::Duration;

use super::hand::{
    Hand, acknowledged, answered, granted, kinds, last, nothing, passed, sealed, sim, terms, unanswered,
};
use crate::quota::{Event, Next, Operation, Outcome, Overview, Renewal, State, Trigger};
use crate::units::Octets;

fn overview(hand: &Hand) -> Overview {
    hand.quota.overview(hand.now)
}

fn renewal(hand: &Hand) -> Renewal {
    hand.quota.renewal(hand.now)
}

/// A link whose package is used up, a second ago.
fn exhausted() -> Hand {
    let mut hand = Hand::new();
    hand.usable(terms());
    hand.answer(answered(last(500_000)));
    hand.read(passed(500_000));
    hand.answer(answered(nothing()));
    hand.wait(1_000);
    assert_eq!(hand.state(), State::Exhausted);
    assert!(!overview(&hand).is_refused(), "it is used up");
    hand
}

#[test]
fn an_exhausted_link_asks_at_once_when_the_operator_wants_it() {
    let mut hand = exhausted();
    let Next::Ask(poll) = overview(&hand).next else { panic!("{:?}", overview(&hand).next) };
    assert!(poll > hand.now.plus(Duration::from_secs(30)), "it would have waited for its poll");
    assert_eq!(renewal(&hand), Renewal::Asks);
    let commands = hand.tell(Event::Renew);
    assert_eq!(sealed(&commands).trigger, Some(Trigger::ForcedReauthorisation));
    assert_eq!(overview(&hand).next, Next::Answer);
    hand.wait(5_000);
    hand.answer(answered(granted(200_000)));
    hand.wait(1);
    assert_eq!(hand.state(), State::Active);
}

#[test]
fn an_order_to_ask_comes_through_once_in_ten_seconds() {
    let mut hand = exhausted();
    assert!(sealed_by(&mut hand), "the first");
    hand.answer(answered(nothing()));
    let Renewal::TooSoon(soonest) = renewal(&hand) else { panic!("{:?}", renewal(&hand)) };
    assert_eq!(soonest.since(hand.now), Duration::from_secs(10));
    hand.wait(9_000);
    assert!(!sealed_by(&mut hand), "a storm of orders is none at the server");
    hand.wait(1_001);
    assert!(sealed_by(&mut hand), "the next");
}

fn sealed_by(hand: &mut Hand) -> bool {
    kinds(&hand.tell(Event::Renew)).contains(&"sealed")
}

#[test]
fn an_order_to_ask_does_not_take_back_what_the_server_has_ended() {
    let mut hand = Hand::active();
    hand.tell(Event::Abort(sim(1)));
    hand.wait(1_000);
    hand.answer(acknowledged());
    assert_eq!(renewal(&hand), Renewal::Aborted);
    assert!(!sealed_by(&mut hand));
    assert!(overview(&hand).aborted, "and it stays so");
}

#[test]
fn an_order_to_ask_sends_at_once_what_waits_to_be_sent_again() {
    let mut hand = Hand::active();
    hand.read(passed(800_000));
    hand.answer(unanswered());
    assert!(matches!(overview(&hand).next, Next::Retry(_)), "{:?}", overview(&hand).next);
    assert_eq!(renewal(&hand), Renewal::Asks);
    assert!(kinds(&hand.tell(Event::Renew)).contains(&"send"));
    assert_eq!(renewal(&hand), Renewal::TooSoon(hand.now.plus(Duration::from_secs(10))));
}

#[test]
fn a_refused_link_tries_another_session_at_once_when_the_operator_wants_it() {
    let mut hand = Hand::new();
    hand.usable(terms());
    hand.answer(Outcome::Rejected { status: 403, cause: "no".to_owned() });
    hand.wait(1_000);
    assert!(matches!(overview(&hand).next, Next::Reopen(_)), "{:?}", overview(&hand).next);
    assert!(overview(&hand).is_refused() && overview(&hand).used_up.is_none(), "no package is used up");
    assert_eq!(sealed(&hand.tell(Event::Renew)).operation, Operation::Create);
}

#[test]
fn without_a_link_or_a_session_there_is_nothing_to_ask_for() {
    let mut hand = Hand::new();
    assert_eq!(renewal(&hand), Renewal::NotInUse);
    assert!(!sealed_by(&mut hand));
    hand.usable(terms());
    assert_eq!(renewal(&hand), Renewal::AfterAnswer, "the first units are asked for already");
}

#[test]
fn what_comes_next_is_told() {
    let mut hand = Hand::new();
    assert_eq!(overview(&hand).next, Next::Nothing);
    hand.usable(terms());
    assert_eq!(overview(&hand).next, Next::Answer);
    hand.answer(answered(granted(1_000_000)));
    assert_eq!(overview(&hand).next, Next::Renewal { left: Octets::new(200_000), by: None });
    assert_eq!(overview(&hand).open_since, None);
    hand.wait(2_000);
    hand.read(passed(1_000));
    assert_eq!(overview(&hand).open_since, Some(hand.now));
}
