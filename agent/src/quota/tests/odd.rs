//! Scripts for what happens seldom: a SIM or a meter that changes at the wrong moment.

use std::time::Duration;

use super::hand::{Hand, acknowledged, answered, epoch, granted, kinds, passed, sealed, sim, terms};
use crate::quota::{Command, Event, GrantedUnit, Operation, Reading, Record, SessionOpening, State, Usable};
use crate::units::UsedUnit;

fn refused(octets: u64, passed_octets: u64) -> Reading {
    Reading { refused: UsedUnit::new(octets, 0), ..passed(passed_octets) }
}

fn other_sim(reading: Reading) -> Event {
    Event::Usable(Usable { subscriber: sim(2), epoch: epoch(1), terms: terms(), reading })
}

fn metered(generation: u32, reading: Reading) -> Event {
    Event::Metered { epoch: epoch(generation), reading, control_reserve: terms().control_reserve }
}

fn opening(commands: &[Command]) -> Option<&SessionOpening> {
    commands.iter().find_map(|command| match command {
        Command::Record(Record::SessionOpened(opening)) => Some(opening),
        _ => None,
    })
}

/// A link whose session idled out: its release is under way, at 5,000 octets passed and `refused_octets` refused.
fn idled_out(refused_octets: u64) -> Hand {
    let mut hand = Hand::new();
    hand.usable(terms());
    let holding = Some(Duration::from_secs(20));
    hand.answer(answered(GrantedUnit { quota_holding_time: holding, ..granted(1_000_000) }));
    hand.read(refused(refused_octets, 5_000));
    assert_eq!(sealed(&hand.wait(21_000)).operation, Operation::Release);
    hand
}

#[test]
fn another_sim_does_not_wait_for_the_idle_session_of_the_one_before() {
    let mut hand = idled_out(700);
    let commands = hand.tell(other_sim(hand.reading));
    assert_eq!(opening(&commands).map(|opening| &opening.subscriber), Some(&sim(2)));
    hand.answer(acknowledged());
    hand.tell(Event::Abort);
    hand.wait(60);
    let commands = hand.tell(Event::Reauthorise);
    assert_eq!(opening(&commands).map(|opening| &opening.subscriber), Some(&sim(2)), "nor does it rest in its place");
}

#[test]
fn another_sim_does_not_wait_until_what_was_lost_of_the_one_before_is_booked() {
    let mut hand = Hand::active();
    hand.read(passed(800_000));
    hand.answer(crate::quota::Outcome::ContextNotFound);
    assert_eq!(sealed(&hand.wait(50)).operation, Operation::Event);
    let commands = hand.tell(other_sim(hand.reading));
    assert_eq!(opening(&commands).map(|opening| &opening.subscriber), Some(&sim(2)));
}

#[test]
fn a_link_that_rests_forgets_what_the_meter_before_had_refused() {
    let mut hand = idled_out(70_000);
    hand.answer(acknowledged());
    assert_eq!(hand.state(), State::Idle);
    hand.reading = Reading::default();
    let commands = hand.tell(metered(2, hand.reading));
    assert_eq!(opening(&commands).map(|opening| &opening.epoch), Some(&epoch(2)));
}

#[test]
fn no_session_is_opened_on_a_meter_that_is_lost() {
    let mut hand = Hand::active();
    hand.read(passed(300_000));
    let commands = hand.tell(Event::MeterLost);
    assert_eq!(kinds(&commands), ["closing", "settled", "container", "sealed", "send"]);
    hand.answer(acknowledged());
    assert!(hand.quota.is_settled());
    assert!(opening(&hand.wait(600_000)).is_none());
}

#[test]
fn a_session_bears_the_epoch_of_the_meter_that_counts_it() {
    let mut hand = Hand::active();
    hand.reading = passed(77);
    let commands = hand.tell(metered(2, hand.reading));
    let opening = opening(&commands).expect("the link is still in use");
    assert_eq!((&opening.epoch, opening.base), (&epoch(2), UsedUnit::new(77, 0)));
}
