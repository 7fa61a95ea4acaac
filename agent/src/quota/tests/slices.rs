//! Slices: how far the gate opens beyond what is committed, and what is uncertain when the counters are lost.

use std::time::Duration;

use super::hand::{
    Hand, answered, at, epoch, gate, granted, kinds, last, passed, sealed, sealed_maybe, sim, terms, unanswered,
};
use crate::quota::{
    Command, Event, Exceptions, FailureHandling, GateMode, Grant, Quota, Reading, Record, ResultCode, State,
    StoredSession, Terms, Trigger, Usable, WhenUsedUp,
};
use crate::units::{OctetRate, Octets, UsedUnit};

const SLICE: u64 = 100_000;

fn sliced(octets: u64) -> Terms {
    Terms { max_unrecorded: Some(Octets::new(octets)), ..terms() }
}

/// A link with slices whose session has its first grant of 1,000,000 octets.
fn active() -> Hand {
    let mut hand = Hand::new();
    hand.usable(sliced(SLICE));
    hand.answer(answered(granted(1_000_000)));
    hand
}

fn refused(reading: Reading, octets: u64) -> Reading {
    Reading { refused: UsedUnit::new(octets, 0), ..reading }
}

fn ceiling(commands: &[Command]) -> Option<u64> {
    gate(commands).map(|gate| gate.ceiling.get())
}

fn uncertain(commands: &[Command]) -> Option<u64> {
    commands.iter().find_map(|command| match command {
        Command::Record(Record::RestUncertain { octets, .. }) => Some(octets.get()),
        _ => None,
    })
}

#[test]
fn the_gate_opens_no_further_than_a_slice_beyond_what_is_committed() {
    let mut hand = Hand::new();
    let commands = hand.usable(sliced(SLICE));
    assert_eq!(kinds(&commands), ["gate", "opened", "slice", "sealed", "send"]);
    let commands = hand.answer(answered(granted(1_000_000)));
    let set = gate(&commands).expect("a gate");
    assert_eq!((set.ceiling.get(), set.threshold), (SLICE, Some(Octets::new(SLICE / 2))));
}

#[test]
fn half_a_slice_is_recorded_before_the_next_one_opens() {
    let mut hand = active();
    assert_eq!(kinds(&hand.read(passed(49_999))), Vec::<&str>::new());
    let commands = hand.read(passed(60_000));
    assert_eq!(kinds(&commands), ["checkpoint", "gate"], "in this order");
    let set = gate(&commands).expect("a gate");
    assert_eq!((set.ceiling.get(), set.threshold), (160_000, Some(Octets::new(110_000))));
}

#[test]
fn a_slice_that_is_used_up_moves_on_at_the_refusal_and_is_no_want_of_units() {
    let mut hand = active();
    hand.read(passed(45_000));
    let commands = hand.read(refused(passed(45_000), 70_000));
    assert_eq!(kinds(&commands), ["checkpoint", "gate"]);
    assert_eq!(ceiling(&commands), Some(145_000));
    // Less than the largest packet is left of the grant, but that is not what refused it.
    let mut reading = Reading::default();
    for octets in (90_000..=880_000).step_by(10_000) {
        reading = refused(passed(octets), octets);
        let commands = hand.read(reading);
        assert!(sealed_maybe(&commands).is_none_or(|message| message.trigger == Some(Trigger::QuotaThreshold)));
        if sealed_maybe(&commands).is_some() {
            hand.answer(unanswered());
        }
    }
    assert_eq!(hand.quota.overview(hand.now).remaining, Octets::new(120_000), "of {reading:?}");
    assert_eq!(hand.state(), State::Renewing);
}

#[test]
fn at_the_end_of_the_grant_its_own_ceiling_holds_and_used_up_is_used_up() {
    let mut hand = Hand::new();
    hand.usable(sliced(SLICE));
    hand.answer(answered(last(250_000)));
    assert_eq!(hand.state(), State::Final);
    let mut set = SLICE;
    for octets in [50_000, 100_000, 150_000] {
        set = ceiling(&hand.read(passed(octets))).unwrap_or(set);
        assert_eq!(set, octets + SLICE);
    }
    assert_eq!(kinds(&hand.read(passed(240_000))), Vec::<&str>::new(), "nothing to move: {set}");
    let commands = hand.read(refused(passed(240_000), 20_000));
    assert_eq!(sealed(&commands).trigger, Some(Trigger::QuotaExhausted));
    assert_eq!(hand.state(), State::Exhausted);
}

#[test]
fn the_threshold_is_met_while_the_slice_binds_and_a_container_moves_it_on_too() {
    let mut hand = active();
    for octets in (50_000..800_000).step_by(50_000) {
        let commands = hand.read(passed(octets));
        assert_eq!(kinds(&commands), ["checkpoint", "gate"], "{octets}");
    }
    let commands = hand.read(passed(800_000));
    assert_eq!(kinds(&commands), ["container", "sealed", "send", "gate"]);
    assert_eq!(ceiling(&commands), Some(900_000), "what is in a container is committed");
}

#[test]
fn a_larger_grant_opens_the_gate_by_a_slice_after_what_is_read_is_recorded() {
    let mut hand = active();
    for octets in (50_000..=800_000).step_by(50_000) {
        hand.read(passed(octets));
    }
    // At the end of the grant the slice does not bind, and nothing was recorded.
    hand.read(passed(920_000));
    let commands = hand.read(passed(990_000));
    assert_eq!(kinds(&commands), Vec::<&str>::new());
    let commands = hand.answer(answered(granted(1_000_000)));
    assert_eq!(kinds(&commands), ["acknowledged", "checkpoint", "gate"]);
    assert_eq!(ceiling(&commands), Some(990_000 + SLICE));
}

#[test]
fn the_grace_is_given_slice_by_slice() {
    let mut hand = Hand::new();
    hand.usable(Terms { failure_handling: FailureHandling::Continue, ..sliced(SLICE / 4) });
    hand.answer(answered(granted(100_000)));
    let mut passes = 0;
    while passes < 80_000 {
        passes += 10_000;
        hand.read(passed(passes));
    }
    let commands = hand.wait(10_000);
    assert!(kinds(&commands).contains(&"grace"), "{commands:?}");
    assert_eq!(ceiling(&commands), Some(105_000), "80,000 are committed");
    let commands = hand.read(passed(100_000));
    assert_eq!(kinds(&commands), ["checkpoint", "gate"]);
    assert_eq!(ceiling(&commands), Some(125_000), "of 150,000");
    let deadline = gate(&commands).and_then(|gate| gate.deadline);
    assert_eq!(deadline, Some(at(10_000).plus(Duration::from_mins(5))));
}

#[test]
fn a_fast_link_is_read_before_half_a_slice_is_through() {
    let mut hand = active();
    let mut passes = 0;
    // 400,000 octets a second.
    for _ in 0..20 {
        passes += 10_000;
        hand.now = hand.now.plus(Duration::from_millis(25));
        hand.read(passed(passes));
    }
    let next = hand.quota.poll_timeout().expect("a timer").since(hand.now);
    assert!(next <= Duration::from_millis(125), "half a slice takes 125 ms: {next:?}");
}

#[test]
fn a_slice_that_is_configured_later_is_relied_on_only_after_a_reading_behind_the_narrower_gate() {
    let mut hand = Hand::active();
    hand.read(passed(300_000));
    let usable = Usable { subscriber: sim(1), epoch: epoch(1), terms: sliced(SLICE), reading: passed(300_000) };
    hand.quota.handle_event(Event::Usable(usable), hand.now);
    let mut seen = Vec::new();
    while let Some(command) = hand.quota.poll_command() {
        if command == Command::Read {
            hand.quota.handle_event(Event::Reading(passed(320_000)), hand.now);
        }
        seen.push(command);
    }
    assert_eq!(kinds(&seen), ["checkpoint", "gate", "read", "checkpoint", "slice", "gate"]);
    assert_eq!(ceiling(&seen), Some(420_000));
}

#[test]
fn a_wider_slice_is_recorded_before_the_gate_opens_by_it() {
    let mut hand = active();
    assert_eq!(kinds(&hand.usable(sliced(2 * SLICE))), ["slice", "gate"]);
    assert_eq!(kinds(&hand.usable(terms())), ["slice", "gate"]);
}

/// A session that had a grant of 1,000,000 octets and of which 300,000 are recorded.
fn stored(slice: Option<u64>) -> StoredSession {
    let mut hand = Hand::new();
    let commands = hand.usable(terms());
    let opening = commands.iter().find_map(|command| match command {
        Command::Record(Record::SessionOpened(opening)) => Some(opening.clone()),
        _ => None,
    });
    let grant = Grant {
        ceiling: Octets::new(1_000_000),
        octets: Octets::new(1_000_000),
        threshold: Octets::new(200_000),
        valid_until: None,
        holding: None,
        final_unit: None,
        exceptions: Exceptions::default(),
        result: ResultCode::Success,
    };
    StoredSession {
        grant: Some(grant),
        checkpoint: Some((UsedUnit::new(300_000, 0), UsedUnit::ZERO)),
        highest_ceiling: Octets::new(1_000_000),
        slice: slice.map(Octets::new),
        ..StoredSession::opened(opening.expect("a session"))
    }
}

fn restored(stored: StoredSession, meter: Option<Reading>) -> Vec<Command> {
    let meter = meter.map(|reading| (epoch(1), reading));
    let mut quota = Quota::restore(vec![stored], &terms(), meter.as_ref(), 7, at(0));
    quota.handle_event(Event::RouteUp, at(0));
    std::iter::from_fn(|| quota.poll_command()).collect()
}

#[test]
fn lost_counters_leave_the_last_record_billed_and_the_rest_up_to_the_gate_uncertain() {
    for (slice, expected) in [(None, 700_000), (Some(SLICE), SLICE), (Some(2_000_000), 700_000)] {
        let commands = restored(stored(slice), None);
        assert_eq!(uncertain(&commands), Some(expected), "{slice:?}");
        let container = commands.iter().find_map(|command| match command {
            Command::Record(Record::ContainerClosed { container, .. }) => Some(container),
            _ => None,
        });
        let container = container.expect("a container");
        assert_eq!((container.used.total().get(), container.trigger), (300_000, Trigger::AbnormalRelease));
    }
    // Also of one that was about to be closed: its last reading had not been taken.
    let closing = StoredSession { closing: Some(Trigger::Final), ..stored(Some(SLICE)) };
    assert_eq!(uncertain(&restored(closing, None)), Some(SLICE));
}

#[test]
fn nothing_is_uncertain_where_nothing_can_be() {
    let settled = StoredSession {
        closing: Some(Trigger::Final),
        settled: true,
        closed: UsedUnit::new(300_000, 0),
        ..stored(Some(SLICE))
    };
    assert_eq!(uncertain(&restored(settled, None)), None, "its last reading was taken");
    assert_eq!(uncertain(&restored(stored(None), Some(passed(400_000)))), None, "its meter is there");
    let told = StoredSession { uncertain: Some(Octets::new(7)), ..stored(None) };
    assert_eq!(uncertain(&restored(told, None)), None, "it was told before");
    let shut = StoredSession { grant: None, highest_ceiling: Octets::ZERO, checkpoint: None, ..stored(None) };
    assert_eq!(uncertain(&restored(shut, None)), None, "its gate was never open");
    let full = StoredSession { checkpoint: Some((UsedUnit::new(1_000_000, 0), UsedUnit::ZERO)), ..stored(Some(SLICE)) };
    assert_eq!(uncertain(&restored(full, None)), None, "its ceiling was reached");
}

#[test]
fn a_meter_lost_at_work_leaves_uncertain_what_the_gate_let_through_after_the_last_reading() {
    let mut hand = active();
    hand.read(passed(60_000));
    hand.read(passed(70_000));
    let commands = hand.tell(Event::MeterLost);
    assert_eq!(uncertain(&commands), Some(90_000), "recorded 60,000 and a slice, less what was read");
    // Counters that go back are lost as well; a meter that made way for another was read to the end.
    let mut hand = active();
    hand.read(passed(60_000));
    assert_eq!(uncertain(&hand.read(passed(10))), Some(100_000));
    let mut hand = active();
    hand.read(passed(60_000));
    let event =
        Event::Metered { epoch: epoch(2), reading: Reading::default(), control_reserve: terms().control_reserve };
    assert_eq!(uncertain(&hand.tell(event)), None);
}

#[test]
fn what_is_throttled_beyond_the_last_units_needs_no_slice() {
    let mut hand = Hand::new();
    hand.usable(Terms { when_used_up: WhenUsedUp::Throttle(OctetRate::per_second(1000)), ..sliced(SLICE) });
    hand.answer(answered(last(80_000)));
    let commands = hand.read(passed(80_000));
    assert_eq!(hand.state(), State::Exhausted);
    let set = gate(&commands).expect("a gate");
    assert_eq!((set.ceiling.get(), set.mode), (80_000, GateMode::Throttle(OctetRate::per_second(1000))));
}
