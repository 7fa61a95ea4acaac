//! Past sessions take turns: a few at once, the oldest first, and never before the one in use.

use std::time::Duration;

use super::hand::{Hand, acknowledged, answered, at, epoch, granted, sim, terms, unanswered};
use crate::quota::{Command, Event, MessageKey, Outcome, Quota, Record, SessionOpening, StoredSession, Trigger};
use crate::units::{ChargingId, LocalSequenceNumber, Octets, SessionRef, UsedUnit};

/// So many past sessions with so many containers each, named in the order of their opening.
fn past(sessions: u32, containers: u32) -> Vec<StoredSession> {
    let session = |number| StoredSession {
        session_ref: Some(SessionRef::new("ref")),
        settled: true,
        closing: Some(Trigger::AbnormalRelease),
        closed: UsedUnit::new(u64::from(containers) * 10, 0),
        next_container: LocalSequenceNumber::new(containers + 1),
        pending: vec![Octets::new(10); usize::try_from(containers).expect("a few")],
        ..StoredSession::opened(SessionOpening {
            session: ChargingId::new(100 + number),
            subscriber: sim(1),
            epoch: epoch(9),
            base: UsedUnit::ZERO,
            base_throttled: UsedUnit::ZERO,
            opened_at: at(0),
        })
    };
    (0..sessions).map(session).collect()
}

fn restored(sessions: u32, containers: u32) -> Hand {
    let mut hand = Hand::new();
    hand.quota = Quota::restore(past(sessions, containers), &terms(), None, 7, at(0));
    hand
}

/// The messages that are sent, and the attempt of each.
fn sent(commands: &[Command]) -> Vec<(MessageKey, u32)> {
    let sent = |command: &Command| match command {
        Command::Send { key, attempt, .. } => Some((*key, *attempt)),
        Command::Record(_) | Command::SetGate(_) | Command::DrawName | Command::Read => None,
    };
    commands.iter().filter_map(sent).collect()
}

fn answer(hand: &mut Hand, (key, attempt): (MessageKey, u32), outcome: Outcome) -> Vec<Command> {
    hand.tell(Event::Answer { key, attempt, outcome })
}

#[test]
fn four_past_sessions_drain_at_once_and_the_oldest_are_done_first() {
    let mut hand = restored(10, 120);
    assert_eq!(hand.quota.backlog(), 1200);
    let mut out = sent(&hand.tell(Event::RouteUp));
    let mut closed = Vec::new();
    while !out.is_empty() {
        assert!(out.len() <= 4, "{out:?}");
        let commands = answer(&mut hand, out.remove(0), acknowledged());
        let ended = |command: &Command| match command {
            Command::Record(Record::SessionClosed { session }) => Some(session.get()),
            Command::Record(_) | Command::Send { .. } | Command::SetGate(_) | Command::DrawName | Command::Read => None,
        };
        closed.extend(commands.iter().filter_map(ended));
        out.extend(sent(&commands));
    }
    assert_eq!(closed, (100..110).collect::<Vec<_>>());
    assert!(hand.quota.is_settled() && hand.quota.backlog() == 0);
}

#[test]
fn what_the_session_in_use_has_to_send_goes_before_the_backlog() {
    let mut hand = restored(10, 120);
    let past = sent(&hand.tell(Event::RouteUp));
    let live = sent(&hand.usable(terms()))[0];
    assert!(live.0.session.get() < 100, "{live:?}");
    answer(&mut hand, live, answered(granted(1_000_000)));
    for one in past {
        answer(&mut hand, one, unanswered());
    }
    // At one and the same instant it asks again, and four past sessions may try again.
    let order = sent(&hand.tell(Event::Reauthorise(sim(1))));
    assert_eq!(order.len(), 5, "{order:?}");
    assert_eq!(order[0].0.session, live.0.session, "{order:?}");
    assert_eq!(hand.quota.overview(hand.now).draining, 10);
}

#[test]
fn a_past_session_that_gets_no_answer_makes_room_when_another_gets_one() {
    let mut hand = restored(6, 60);
    let mut out = sent(&hand.tell(Event::RouteUp));
    assert_eq!(out.len(), 4);
    let mut stuck = out.remove(0);
    for _ in 0..4 {
        answer(&mut hand, stuck, unanswered());
        let again = sent(&hand.wait_for_send(Duration::from_mins(6)));
        assert_eq!(again.len(), 1, "{again:?}");
        stuck = again[0];
    }
    answer(&mut hand, stuck, unanswered());
    let next = sent(&answer(&mut hand, out[0], acknowledged()));
    assert!(next.iter().any(|(key, _)| key.session.get() == 104), "its place is taken: {next:?}");
    // It is not forgotten: its turn comes again.
    let mut ended = 0;
    out = next.into_iter().chain(out.into_iter().skip(1)).collect();
    for _ in 0..100 {
        let commands = match out.pop() {
            Some(one) => answer(&mut hand, one, acknowledged()),
            None if hand.quota.is_settled() => break,
            None => hand.wait_for_send(Duration::from_mins(6)),
        };
        ended += commands.iter().filter(|c| matches!(c, Command::Record(Record::SessionClosed { .. }))).count();
        out.extend(sent(&commands));
    }
    assert_eq!((ended, hand.quota.is_settled()), (6, true));
}

#[test]
fn a_session_for_which_a_link_waits_makes_room_after_the_others_that_get_no_answer() {
    let mut stored = past(6, 60);
    stored[0].orphaned = true;
    let mut hand = Hand::new();
    hand.quota = Quota::restore(stored, &terms(), None, 7, at(0));
    let mut out = sent(&hand.tell(Event::RouteUp));
    assert_eq!(out.iter().map(|(key, _)| key.session.get()).collect::<Vec<_>>(), [100, 101, 102, 103]);
    let answers = out.remove(1);
    for _ in 0..12 {
        for one in std::mem::take(&mut out) {
            answer(&mut hand, one, unanswered());
        }
        out = sent(&hand.wait_for_send(Duration::from_mins(6)));
    }
    for one in std::mem::take(&mut out) {
        answer(&mut hand, one, unanswered());
    }
    let next = sent(&answer(&mut hand, answers, acknowledged()));
    assert!(next.iter().any(|(key, _)| key.session.get() == 104), "somebody has made room: {next:?}");
    // It is tried again all the time, while one of the others has gone to the end of the line.
    let mut tried = Vec::new();
    out = next;
    for _ in 0..12 {
        for one in std::mem::take(&mut out) {
            tried.push(one.0.session.get());
            answer(&mut hand, one, unanswered());
        }
        out = sent(&hand.wait_for_send(Duration::from_mins(6)));
    }
    assert!(tried.contains(&100) && !tried.contains(&102), "{tried:?}");
}
