//! A link that comes and goes: its sessions do not pile up, and another session is not another grace.

use std::time::Duration;

use super::hand::{Hand, answered, gate, granted, passed, terms};
use crate::quota::{Command, Event, FailureHandling, OfflineGrace, Operation, Record, Terms};
use crate::units::{BootInstant, Octets};

/// The grace of [`terms`]: 50,000 octets for five minutes.
fn going_on() -> Terms {
    Terms { failure_handling: FailureHandling::Continue, ..terms() }
}

fn opened(commands: &[Command]) -> bool {
    commands.iter().any(|command| matches!(command, Command::Record(Record::SessionOpened(_))))
}

fn grace(commands: &[Command]) -> Option<(Octets, BootInstant)> {
    commands.iter().find_map(|command| match command {
        Command::Record(Record::GraceOpened { ceiling, until, .. }) => Some((*ceiling, *until)),
        _ => None,
    })
}

/// The link goes, its last reading is taken, and it comes back.
fn flap(hand: &mut Hand, terms: &Terms) -> Vec<Command> {
    hand.tell(Event::Gone);
    hand.wait(60);
    let reading = hand.reading;
    hand.read(reading);
    hand.usable(terms.clone())
}

#[test]
fn another_session_while_the_server_is_away_has_what_is_left_of_the_grace_and_ends_with_it() {
    let mut hand = Hand::new();
    hand.usable(going_on());
    hand.answer(answered(granted(1_000_000)));
    hand.read(passed(1_000_000));
    let (ceiling, until) = grace(&hand.wait(10_000)).expect("a grace");
    assert_eq!(ceiling, Octets::new(1_050_000));
    hand.read(passed(1_030_000));

    assert!(opened(&flap(&mut hand, &going_on())));
    let commands = hand.wait(10_000);
    assert_eq!(grace(&commands), Some((Octets::new(20_000), until)), "what is left, and no longer");
    assert_eq!(gate(&commands).map(|gate| gate.ceiling), Some(Octets::new(1_050_000)));
    hand.read(passed(1_050_000));

    assert!(opened(&flap(&mut hand, &going_on())));
    let commands = hand.wait(60_000);
    assert_eq!(grace(&commands), None, "it is used up");
    assert!(gate(&commands).is_none_or(|gate| gate.ceiling.is_zero()), "{commands:?}");
}

#[test]
fn a_grace_that_is_over_is_over_for_the_next_session_as_well() {
    let mut hand = Hand::new();
    hand.usable(going_on());
    hand.answer(answered(granted(1_000_000)));
    hand.read(passed(1_000_000));
    assert!(grace(&hand.wait(10_000)).is_some());
    hand.wait(5 * 60_000);
    flap(&mut hand, &going_on());
    assert_eq!(grace(&hand.wait(60_000)), None);
}

#[test]
fn a_server_that_answers_gives_the_grace_back() {
    let mut hand = Hand::new();
    let terms = Terms {
        offline_grace: OfflineGrace { octets: Octets::new(50_000), duration: Duration::from_mins(5) },
        ..going_on()
    };
    hand.usable(terms.clone());
    hand.answer(answered(granted(1_000_000)));
    hand.read(passed(1_000_000));
    assert!(grace(&hand.wait(10_000)).is_some());
    hand.read(passed(1_050_000));
    hand.answer(answered(granted(1_000_000)));
    hand.read(passed(2_000_000));
    assert_eq!(grace(&hand.wait(10_000)).map(|(ceiling, _)| ceiling), Some(Octets::new(2_050_000)));
}

#[test]
fn a_link_that_flaps_while_the_server_is_away_does_not_pile_up_sessions() {
    let mut hand = Hand::new();
    assert!(opened(&hand.usable(terms())));
    let opened_again = (0..10).filter(|_| opened(&flap(&mut hand, &terms()))).count();
    assert_eq!(opened_again, 2, "three wait for the server, and no more");

    // It is back: the first is heard, returned, and makes room for one that the link can use.
    let commands = hand.answer(answered(granted(1_000_000)));
    let released = |command: &Command| matches!(command, Command::Record(Record::MessageSealed { message, .. }) if message.operation == Operation::Release);
    assert!(commands.iter().any(released) && opened(&commands), "{commands:?}");
    assert!(hand.quota.needs_meter(), "a session that the link can use");
}
