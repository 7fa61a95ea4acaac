//! Scripts for what happens seldom: units taken back, packets larger than a grant, a SIM or a meter that changes at the wrong moment.

use std::time::Duration;

use super::hand::{
    Hand, acknowledged, answered, at, epoch, gate, granted, kinds, last, nothing, passed, sealed, sealed_maybe, sim,
    terms,
};
use crate::quota::{
    Command, Event, GrantedUnit, Operation, Quota, Reading, Record, SessionOpening, State, StoredSession, Trigger,
    Usable,
};
use crate::units::{ChargingId, Epoch, InvocationSequenceNumber, LocalSequenceNumber, Octets, SessionRef, UsedUnit};

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
fn a_top_up_smaller_than_what_was_taken_back_opens_the_gate() {
    let mut hand = Hand::new();
    hand.usable(terms());
    hand.answer(answered(last(500_000)));
    // 40,000 octets are left, and a packet that is larger than that.
    let commands = hand.read(refused(64_000, 460_000));
    assert_eq!(sealed(&commands).trigger, Some(Trigger::QuotaExhausted));
    let commands = hand.answer(answered(nothing()));
    assert_eq!(gate(&commands).map(|gate| gate.ceiling), Some(Octets::new(460_000)), "the rest is taken back");
    hand.wait(6_000);
    hand.tell(Event::Reauthorise(sim(1)));
    let commands = hand.answer(answered(last(30_000)));
    assert_eq!(gate(&commands).map(|gate| gate.ceiling), Some(Octets::new(490_000)));
    assert_eq!(hand.state(), State::Final);
}

#[test]
fn what_was_refused_before_the_gate_was_raised_does_not_use_up_the_last_units() {
    let mut hand = Hand::active();
    hand.read(refused(0, 900_000));
    // What the meter has refused until the gate is raised was not read yet.
    hand.reading = refused(9_000, 1_000_000);
    hand.answer(answered(last(200_000)));
    assert_eq!(hand.state(), State::Final);
    hand.read(refused(9_000, 1_010_000));
    assert_eq!(hand.state(), State::Final);
    // This does not fit into what is left.
    hand.read(refused(73_000, 1_010_000));
    assert_eq!(hand.state(), State::Exhausted);
}

#[test]
fn a_gate_that_was_raised_over_a_stalled_flow_is_not_taken_for_one_at_rest() {
    let mut hand = Hand::active();
    hand.read(passed(1_000_000));
    hand.answer(answered(granted(500_000)));
    let next = hand.quota.poll_timeout().expect("a timer").since(hand.now);
    assert!(next <= Duration::from_secs(1), "the flow goes on: {next:?}");
}

#[test]
fn what_was_refused_during_the_least_dwell_does_not_use_up_what_was_held_back() {
    let mut hand = Hand::new();
    hand.usable(terms());
    hand.answer(answered(last(500_000)));
    hand.read(passed(500_000));
    hand.answer(answered(last(100_000)));
    hand.read(refused(9_000, 500_000));
    assert_eq!(hand.state(), State::Exhausted, "the gate opens after the dwell");
    hand.reading = refused(20_000, 500_000);
    hand.wait(6_000);
    assert_eq!(hand.state(), State::Final);
    hand.read(refused(20_000, 510_000));
    assert_eq!(hand.state(), State::Final);
    hand.read(refused(90_000, 510_000));
    assert_eq!(hand.state(), State::Exhausted, "a packet that does not fit");
}

#[test]
fn what_was_refused_under_the_old_ceiling_does_not_use_up_the_new_one() {
    let mut hand = Hand::active();
    hand.read(refused(9_000, 1_000_000));
    assert!(sealed_maybe(&hand.answer(answered(last(60_000)))).is_none(), "60,000 octets are there to be used");
    assert_eq!(hand.state(), State::Final);
    hand.read(refused(73_000, 1_000_000));
    assert_eq!(hand.state(), State::Exhausted, "a packet that does not fit under the new one does");
}

#[test]
fn a_grant_smaller_than_the_packet_that_waits_is_asked_for_again_once_a_second_at_most() {
    let mut hand = Hand::new();
    hand.usable(terms());
    hand.answer(answered(granted(50_000)));
    let mut asked = 0;
    for round in 1..=100_u64 {
        let commands = [hand.read(refused(round * 64_000, 0)), hand.wait(50)].concat();
        if sealed_maybe(&commands).is_some() {
            asked += 1;
            hand.answer(answered(granted(50_000)));
        }
    }
    assert!((2..=6).contains(&asked), "{asked} times in five seconds");
}

#[test]
fn another_sim_does_not_wait_for_the_idle_session_of_the_one_before() {
    let mut hand = idled_out(700);
    let commands = hand.tell(other_sim(hand.reading));
    assert_eq!(opening(&commands).map(|opening| &opening.subscriber), Some(&sim(2)));
    hand.answer(acknowledged());
    hand.tell(Event::Abort(sim(2)));
    hand.wait(60);
    let commands = hand.tell(Event::Reauthorise(sim(2)));
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
    assert_eq!(kinds(&commands), ["uncertain", "closing", "container", "settled", "sealed", "send"]);
    hand.answer(acknowledged());
    assert!(hand.quota.is_settled());
    assert!(opening(&hand.wait(600_000)).is_none());
}

#[test]
fn nothing_is_uncertain_of_a_meter_that_was_read_to_its_end() {
    let mut hand = Hand::active();
    hand.read(passed(300_000));
    let commands = hand.tell(Event::MeterRetired);
    assert_eq!(kinds(&commands), ["closing", "container", "settled", "sealed", "send"]);
    hand.answer(acknowledged());
    assert!(hand.quota.is_settled());
    assert!(opening(&hand.wait(600_000)).is_none(), "there is no meter for another session");
}

#[test]
fn a_retired_meter_of_an_earlier_run_is_billed_to_its_end_and_nothing_is_uncertain() {
    let stored = StoredSession {
        session_ref: Some(SessionRef::new("ref-9")),
        next_message: InvocationSequenceNumber::new(1),
        checkpoint: Some((UsedUnit::new(100, 0), UsedUnit::ZERO)),
        highest_ceiling: Octets::new(1_000_000),
        ..StoredSession::opened(opened_on(epoch(1)))
    };
    let mut hand = Hand::new();
    hand.quota = Quota::restore(vec![stored], &terms(), Some(&(epoch(1), passed(400))), 7, at(0));
    let commands = hand.tell(Event::MeterRetired);
    assert!(!kinds(&commands).contains(&"uncertain"), "{:?}", kinds(&commands));
    assert_eq!((sealed(&commands).operation, sealed(&commands).reported), (Operation::Release, Octets::new(400)));
}

fn opened_on(epoch: Epoch) -> SessionOpening {
    SessionOpening {
        session: ChargingId::new(9),
        subscriber: sim(1),
        epoch,
        base: UsedUnit::ZERO,
        base_throttled: UsedUnit::ZERO,
        opened_at: at(0),
    }
}

#[test]
fn what_the_server_has_lost_before_a_power_cut_is_booked_before_the_new_meter_is_granted_anything() {
    let used = UsedUnit::new(8_000_000, 0);
    let stored = StoredSession {
        session_ref: Some(SessionRef::new("ref-9")),
        next_message: InvocationSequenceNumber::new(1),
        next_container: LocalSequenceNumber::new(2),
        checkpoint: Some((used, UsedUnit::ZERO)),
        closed: used,
        pending: vec![used.total()],
        orphaned: true,
        closing: Some(Trigger::AbnormalRelease),
        settled: true,
        ..StoredSession::opened(opened_on(epoch(1)))
    };
    let mut hand = Hand::new();
    hand.quota = Quota::restore(vec![stored], &terms(), Some(&(epoch(2), passed(500))), 7, at(0));
    hand.reading = passed(700);
    let mut commands = hand.tell(metered(2, hand.reading));
    let usable = Usable { subscriber: sim(1), epoch: epoch(2), terms: terms(), reading: hand.reading };
    commands.extend(hand.tell(Event::Usable(usable)));
    assert!(opening(&commands).is_none(), "what is to be booked may be part of what would be granted");
    let message = sealed(&commands);
    let only = (Operation::Event, Octets::new(8_000_000), vec![LocalSequenceNumber::new(1)]);
    assert_eq!((message.operation, message.reported, message.containers.clone()), only);
    let commands = hand.read(passed(900));
    assert!(opening(&commands).is_none() && !kinds(&commands).contains(&"container"), "{:?}", kinds(&commands));
    let commands = hand.answer(acknowledged());
    let opening = opening(&commands).expect("now units are asked for");
    assert_eq!(
        (&opening.epoch, opening.base),
        (&epoch(2), UsedUnit::new(900, 0)),
        "the new meter is the new session's"
    );
}

#[test]
fn a_session_bears_the_epoch_of_the_meter_that_counts_it() {
    let mut hand = Hand::active();
    hand.reading = passed(77);
    let commands = hand.tell(metered(2, hand.reading));
    let opening = opening(&commands).expect("the link is still in use");
    assert_eq!((&opening.epoch, opening.base), (&epoch(2), UsedUnit::new(77, 0)));
}

#[test]
fn an_agent_that_stops_before_it_has_taken_over_its_meters_shuts_their_gates_all_the_same() {
    let mut stored = StoredSession::opened(opened_on(epoch(1)));
    stored.session_ref = Some(SessionRef::new("ref-9"));
    let meter = (epoch(1), passed(400));
    let mut hand = Hand::new();
    hand.quota = Quota::restore(vec![stored], &terms(), Some(&meter), 7, at(0));
    hand.reading = passed(400);
    let commands = hand.tell(Event::Settle);
    let shut = gate(&commands).expect("the gate is set");
    assert_eq!(shut.ceiling, Octets::ZERO, "what passed after the last reading would be nobody's");
    assert_eq!(shut.control_ceiling, terms().control_reserve, "the release still has to get out");
    assert_eq!(sealed(&hand.wait(60)).operation, Operation::Release);
}
