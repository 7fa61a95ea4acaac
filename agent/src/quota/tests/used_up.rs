//! What becomes of a used-up link: each action, changed and ended at any moment.

use std::time::Duration;

use super::hand::{
    Hand, acknowledged, answered, at, epoch, gate, granted, kinds, last, nothing, passed, sealed, sim, terms,
    unanswered,
};
use crate::quota::{
    Command, Event, Exceptions, FinalUnitAction, GateMode, Grant, GrantedUnit, LocalFilters, Outcome, PortalHost,
    Quota, QuotaManagement, Reading, Record, Refusals, ResultCode, SessionOpening, State, StoredSession, Terms,
    WhenUsedUp, rules,
};
use crate::units::{InvocationSequenceNumber, OctetRate, Octets, SessionRef, UsedUnit};

const OUT: &str = "permit in 6 from any to 192.0.2.10 443";
const BACK: &str = "permit out 6 from 192.0.2.10 443 to any";

fn listed(texts: &[&str]) -> Exceptions {
    Exceptions { rules: texts.iter().map(|text| (*text).to_owned()).collect(), ..Exceptions::default() }
}

fn with(action: FinalUnitAction, exceptions: Exceptions, unit: &GrantedUnit) -> GrantedUnit {
    GrantedUnit { final_unit: Some(action), exceptions, ..unit.clone() }
}

fn restricted(unit: &GrantedUnit) -> GrantedUnit {
    with(FinalUnitAction::RestrictAccess, listed(&[OUT, BACK]), unit)
}

fn mode(commands: &[Command]) -> Option<GateMode> {
    gate(commands).map(|gate| gate.mode)
}

fn restrict(texts: &[&str]) -> GateMode {
    GateMode::Restrict(rules(texts.iter().copied()).expect("rules"))
}

/// A link that has used up its last 1,000 octets, under these terms; and the mode that its gate was given.
fn used_up(terms: Terms, action: FinalUnitAction, exceptions: &Exceptions) -> (Hand, Option<GateMode>) {
    let mut hand = Hand::new();
    hand.usable(terms);
    hand.answer(answered(with(action, exceptions.clone(), &last(1_000))));
    let commands = hand.read(passed(1_000));
    let mode = mode(&commands).or_else(|| gate_of(&hand));
    (hand, mode)
}

fn gate_of(hand: &Hand) -> Option<GateMode> {
    hand.quota.overview(hand.now).used_up.map(|used_up| used_up.mode)
}

fn why(hand: &Hand) -> String {
    hand.quota.overview(hand.now).used_up.and_then(|used_up| used_up.not_followed).unwrap_or_default()
}

#[test]
fn a_link_is_restricted_to_what_the_server_permits() {
    let (hand, mode) = used_up(terms(), FinalUnitAction::RestrictAccess, &listed(&[OUT, BACK]));
    assert_eq!(mode, Some(restrict(&[OUT, BACK])));
    assert_eq!((hand.state(), why(&hand)), (State::Exhausted, String::new()));
}

#[test]
fn a_rule_that_cannot_be_followed_blocks_and_says_why() {
    for rule in ["permit in 6 from any to any established", "permit in ip from any to portal.example", "", "\u{1}"] {
        let (hand, mode) = used_up(terms(), FinalUnitAction::RestrictAccess, &listed(&[OUT, rule, BACK]));
        assert_eq!(mode, Some(GateMode::Block), "{rule}");
        assert!(why(&hand).starts_with("filter rule"), "{rule}: {}", why(&hand));
    }
}

#[test]
fn filters_are_named_or_the_links_own() {
    let filters = LocalFilters {
        named: [("shop".to_owned(), vec![OUT.to_owned()]), ("news".to_owned(), vec![BACK.to_owned()])].into(),
        own: Some("news".to_owned()),
    };
    let terms = Terms { filters, ..terms() };
    let by_name = |names: &[&str]| Exceptions {
        filters: names.iter().map(|name| (*name).to_owned()).collect(),
        ..Exceptions::default()
    };
    let mode =
        |terms: &Terms, exceptions: &Exceptions| used_up(terms.clone(), FinalUnitAction::RestrictAccess, exceptions).1;
    assert_eq!(mode(&terms, &by_name(&["shop", "news"])), Some(restrict(&[OUT, BACK])));
    assert_eq!(mode(&terms, &by_name(&[])), Some(restrict(&[BACK])));
    let (hand, unknown) = used_up(terms.clone(), FinalUnitAction::RestrictAccess, &by_name(&["shop", "games"]));
    assert_eq!(unknown, Some(GateMode::Block));
    assert!(why(&hand).contains("\"games\""), "{}", why(&hand));
    let bare = Terms { filters: LocalFilters::default(), ..terms.clone() };
    assert_eq!(mode(&bare, &by_name(&[])), Some(GateMode::Block), "nothing is permitted where nobody permits anything");
    let local = Terms { when_used_up: WhenUsedUp::Restrict, ..terms };
    assert_eq!(used_up(local, FinalUnitAction::Terminate, &by_name(&[])).1, Some(restrict(&[BACK])));
}

#[test]
fn block_and_throttle_of_the_configuration_go_before_the_servers_word() {
    let rate = OctetRate::per_second(8_000);
    for (when_used_up, expected) in
        [(WhenUsedUp::Block, GateMode::Block), (WhenUsedUp::Throttle(rate), GateMode::Throttle(rate))]
    {
        let terms = Terms { when_used_up, ..terms() };
        let (_, mode) = used_up(terms, FinalUnitAction::RestrictAccess, &listed(&[OUT]));
        assert_eq!(mode, Some(expected));
    }
}

#[test]
fn people_are_led_to_a_portal_that_can_be_read_and_blocked_otherwise() {
    let led = |portal: Option<&str>| {
        let exceptions = Exceptions { portal: portal.map(str::to_owned), ..Exceptions::default() };
        used_up(terms(), FinalUnitAction::Redirect, &exceptions)
    };
    for (url, host, port) in [
        ("https://Portal.example/buy?a=b", PortalHost::Name("portal.example".to_owned()), 443),
        ("http://192.0.2.10:8080", PortalHost::Address("192.0.2.10".parse().expect("an address")), 8080),
        ("HTTP://[2001:db8::1]/", PortalHost::Address("2001:db8::1".parse().expect("an address")), 80),
    ] {
        let Some(GateMode::Redirect(portal)) = led(Some(url)).1 else { panic!("{url} is no portal") };
        assert_eq!((portal.url.as_str(), portal.host, portal.port), (url, host, port));
    }
    let wrong = [
        "",
        "portal.example",
        "ftp://portal.example",
        "sip:buy@portal.example",
        "http://",
        "http:///buy",
        "http://user@portal.example/",
        "http://portal.example:0/",
        "http://portal.example:65536/",
        "http://[2001:db8::1/",
        "http://[2001:db8::1]x/",
        "http://10.0.0/",
        "http://-a.example/",
        "http://a..b/",
        "http://portal example/",
        "http://pörtal.example/",
    ];
    for url in wrong {
        let (hand, mode) = led(Some(url));
        assert_eq!(mode, Some(GateMode::Block), "{url}");
        assert!(why(&hand).starts_with("the portal"), "{url}: {}", why(&hand));
    }
    assert_eq!(led(None).1, Some(GateMode::Block));
}

#[test]
fn octets_that_filters_permit_are_told_apart_and_are_no_quota_octets() {
    let (mut hand, _) = used_up(terms(), FinalUnitAction::RestrictAccess, &listed(&[OUT, BACK]));
    hand.answer(answered(restricted(&nothing())));
    hand.read(Reading { throttled: UsedUnit::new(300, 400), ..passed(1_000) });
    let commands = hand.wait(61_000);
    let offline = commands.iter().find_map(|command| match command {
        Command::Record(Record::ContainerClosed { container, .. }) => Some(container.clone()),
        _ => None,
    });
    let offline = offline.expect("a container");
    assert_eq!((offline.quota_management, offline.used), (QuotaManagement::Offline, UsedUnit::new(300, 400)));
    assert_eq!(sealed(&commands).reported, Octets::new(1_000));
}

#[test]
fn another_word_of_the_server_changes_a_used_up_link_at_once() {
    let (mut hand, _) = used_up(terms(), FinalUnitAction::RestrictAccess, &listed(&[OUT, BACK]));
    let commands = hand.answer(answered(restricted(&nothing())));
    assert_eq!(mode(&commands), None, "the same words change nothing");
    let steps = [
        (FinalUnitAction::Terminate, Exceptions::default(), GateMode::Block),
        (FinalUnitAction::RestrictAccess, listed(&[BACK]), restrict(&[BACK])),
        (FinalUnitAction::RestrictAccess, listed(&[OUT]), restrict(&[OUT])),
    ];
    for (action, exceptions, expected) in steps {
        hand.tell(Event::Reauthorise(sim(1)));
        let commands = hand.answer(answered(with(action, exceptions, &nothing())));
        assert_eq!(mode(&commands), Some(expected));
        assert_eq!(hand.state(), State::Exhausted);
    }
}

/// A link that has used up its last 1,000 octets, for each thing that can become of it; with that thing.
fn each_used_up() -> [(Hand, GateMode); 4] {
    let redirect = Exceptions { portal: Some("http://192.0.2.10/".to_owned()), ..Exceptions::default() };
    let throttle = Terms { when_used_up: WhenUsedUp::Throttle(OctetRate::per_second(8_000)), ..terms() };
    let plain = Exceptions::default();
    let each = [
        used_up(terms(), FinalUnitAction::Terminate, &plain),
        used_up(terms(), FinalUnitAction::RestrictAccess, &listed(&[OUT, BACK])),
        used_up(terms(), FinalUnitAction::Redirect, &redirect),
        used_up(throttle, FinalUnitAction::Terminate, &plain),
    ];
    let each = each.map(|(hand, mode)| (hand, mode.expect("a mode")));
    for (index, (_, mode)) in each.iter().enumerate() {
        let same = |(_, other): &&(Hand, GateMode)| std::mem::discriminant(other) == std::mem::discriminant(mode);
        assert_eq!(each.iter().filter(same).count(), 1, "{index}: each becomes something else");
    }
    each
}

/// The server knows no package of this SIM any more.
fn withdrawn() -> GrantedUnit {
    GrantedUnit { result: ResultCode::Denied, ..nothing() }
}

fn refused_for_good() -> Outcome {
    Outcome::Rejected { status: 403, cause: "END_USER_REQUEST_DENIED".to_owned() }
}

/// Answers all that is under way until nothing is, as a server that acknowledges and grants no more.
fn settle(hand: &mut Hand) {
    for _ in 0..5 {
        hand.wait(1_000);
        if hand.quota.sessions.iter().any(|session| session.outbox_key().is_some()) {
            hand.answer(acknowledged());
        }
    }
}

fn is_shut(commands: &[Command]) -> bool {
    gate(commands).is_some_and(|gate| (gate.ceiling, gate.mode) == (Octets::ZERO, GateMode::Block))
}

#[test]
fn a_top_up_ends_each_action_once_and_after_the_least_dwell() {
    for (mut hand, before) in each_used_up() {
        let commands = hand.answer(answered(granted(50_000)));
        assert_eq!(
            gate(&commands).map_or_else(|| before.clone(), |gate| gate.mode),
            before,
            "{before:?} lasts through the dwell"
        );
        let commands = hand.wait(4_000);
        assert!(
            gate(&commands).is_none_or(|gate| gate.ceiling == Octets::new(1_000)),
            "{before:?}: {}",
            kinds(&commands).len()
        );
        let commands = hand.wait(1_100);
        let opened = gate(&commands).expect("a gate");
        assert_eq!((opened.ceiling, opened.mode), (Octets::new(51_000), GateMode::Block), "{before:?}");
        assert!(gate(&hand.wait(2_000)).is_none(), "{before:?}: no flapping");
    }
}

fn recorded_grant(commands: &[Command]) -> Option<Grant> {
    commands.iter().rev().find_map(|command| match command {
        Command::Record(Record::MessageAcknowledged { grant, .. }) => grant.clone(),
        _ => None,
    })
}

/// The same link after a restart of the agent: its only session has this grant, and has used 1,000 octets.
fn restarted(before: &Hand, grant: Grant) -> (Hand, Vec<Command>) {
    let session = before.quota.overview(before.now).session.expect("a session");
    let terms = before.quota.usable.as_ref().expect("a link in use").terms.clone();
    let opening = SessionOpening {
        session,
        subscriber: sim(1),
        epoch: epoch(1),
        base: UsedUnit::ZERO,
        base_throttled: UsedUnit::ZERO,
        opened_at: at(0),
    };
    let used = UsedUnit::new(1_000, 0);
    let stored = StoredSession {
        session_ref: Some(SessionRef::new("ref-1")),
        next_message: InvocationSequenceNumber::new(9),
        highest_ceiling: Octets::new(1_000),
        checkpoint: Some((used, UsedUnit::ZERO)),
        closed: used,
        reported: used.total(),
        grant: Some(grant),
        ..StoredSession::opened(opening)
    };
    let mut hand = Hand::new();
    hand.now = before.now;
    hand.reading = before.reading;
    let meter = (epoch(1), before.reading);
    hand.quota = Quota::restore(vec![stored], &terms, Some(&meter), 7, hand.now);
    let commands = hand.usable(terms);
    (hand, commands)
}

#[test]
fn a_restart_keeps_each_action_where_the_last_answer_said_nothing_of_the_end() {
    for result in [ResultCode::QuotaLimitReached, ResultCode::Success] {
        for (mut hand, before) in each_used_up() {
            let silent = GrantedUnit { result, final_unit: None, ..nothing() };
            let commands = hand.answer(answered(silent));
            assert_eq!(mode(&commands).unwrap_or_else(|| before.clone()), before, "no word is no other word");
            let grant = recorded_grant(&commands).expect("the answer is recorded");
            let (hand, commands) = restarted(&hand, grant);
            assert_eq!(mode(&commands).as_ref(), Some(&before), "{result:?}");
            assert_eq!((hand.state(), gate_of(&hand)), (State::Exhausted, Some(before)), "{result:?}");
        }
    }
}

#[test]
fn an_order_to_abort_ends_each_action_with_a_shut_gate_until_the_server_asks_again() {
    for (mut hand, before) in each_used_up() {
        hand.answer(answered(nothing()));
        assert!(is_shut(&hand.tell(Event::Abort(sim(1)))), "{before:?}");
        settle(&mut hand);
        assert!(hand.quota.is_settled(), "{before:?}: {:?}", hand.quota);
        let commands = hand.wait(3_600_000);
        assert!(gate(&commands).is_none_or(|gate| gate.ceiling.is_zero()), "{before:?}: it stays shut");
        hand.tell(Event::Reauthorise(sim(1)));
        let opened = gate(&hand.answer(answered(granted(50_000)))).expect("a gate");
        assert_eq!((opened.ceiling, opened.mode), (Octets::new(51_000), GateMode::Block), "{before:?}");
    }
}

#[test]
fn a_refusal_for_good_ends_each_action_with_a_shut_gate_until_a_top_up() {
    for (mut hand, before) in each_used_up() {
        hand.answer(answered(nothing()));
        hand.tell(Event::Reauthorise(sim(1)));
        assert!(is_shut(&hand.answer(refused_for_good())), "{before:?}");
        settle(&mut hand);
        assert_eq!((hand.state(), gate_of(&hand)), (State::Exhausted, None), "{before:?}");
        hand.tell(Event::Reauthorise(sim(1)));
        let opened = gate(&hand.answer(answered(granted(50_000)))).expect("a gate");
        assert_eq!((opened.ceiling, opened.mode), (Octets::new(51_000), GateMode::Block), "{before:?}");
    }
}

#[test]
fn a_package_that_is_withdrawn_ends_each_action_but_the_one_that_the_plan_says() {
    for (mut hand, before) in each_used_up() {
        let expected = if matches!(before, GateMode::Throttle(_)) { before.clone() } else { GateMode::Block };
        let commands = hand.answer(answered(withdrawn()));
        assert_eq!(mode(&commands).unwrap_or(before), expected);
        assert_eq!((hand.state(), gate_of(&hand)), (State::Exhausted, Some(expected)));
    }
}

#[test]
fn units_that_are_taken_back_in_the_middle_of_use_leave_no_room_and_are_told_to_the_octet() {
    let used = passed(300_000);
    let outcomes = [answered(withdrawn()), answered(nothing()), answered(restricted(&nothing())), refused_for_good()];
    for (which, outcome) in outcomes.into_iter().enumerate() {
        let mut hand = Hand::active();
        hand.read(used);
        let commands = hand.tell(Event::Reauthorise(sim(1)));
        assert_eq!(sealed(&commands).reported, Octets::new(300_000), "{which}");
        // Some octets pass before the answer, under the old grant.
        hand.read(passed(310_000));
        let commands = hand.answer(outcome);
        let shut = gate(&commands).expect("a gate");
        assert!(shut.ceiling <= Octets::new(300_000), "{which}: {shut:?}");
        let commands = hand.wait(120_000);
        let told: Octets = closed(&commands).into_iter().fold(Octets::ZERO, Octets::saturating_add);
        assert_eq!(told, Octets::new(10_000), "{which}: what passed meanwhile is told as well");
    }
    let mut hand = Hand::active();
    hand.read(used);
    assert!(is_shut(&hand.tell(Event::Abort(sim(1)))));
    assert_eq!(closed(&hand.wait(1_000)), [Octets::new(300_000)]);
}

/// The quota octets of each container that was closed.
fn closed(commands: &[Command]) -> Vec<Octets> {
    let containers = commands.iter().filter_map(|command| match command {
        Command::Record(Record::ContainerClosed { container, .. }) => Some(container),
        _ => None,
    });
    containers
        .filter(|container| container.quota_management == QuotaManagement::Online)
        .map(|one| one.used.total())
        .collect()
}

#[test]
fn where_people_will_be_led_is_known_from_the_last_units_on() {
    let portal = || Exceptions { portal: Some("https://shop.example/".to_owned()), ..Exceptions::default() };
    let end = |hand: &Hand| hand.quota.overview(hand.now).at_the_end.map(|end| end.mode);
    let mut hand = Hand::new();
    hand.usable(terms());
    assert_eq!(end(&hand), None);
    hand.answer(answered(granted(1_000)));
    assert_eq!(end(&hand), None, "more may follow");
    hand.tell(Event::Reauthorise(sim(1)));
    hand.answer(answered(with(FinalUnitAction::Redirect, portal(), &last(1_000))));
    assert!(matches!(end(&hand), Some(GateMode::Redirect(_))) && gate_of(&hand).is_none(), "the last, not used up");
    hand.read(passed(1_000));
    assert_eq!(end(&hand), gate_of(&hand));
    assert!(matches!(end(&hand), Some(GateMode::Redirect(_))), "used up");
    hand.wait_for_message(Duration::from_secs(2));
    hand.answer(answered(granted(50_000)));
    hand.wait(6_000);
    assert_eq!((hand.state(), end(&hand)), (State::Active, None));
}

fn refusals(commands: &[Command]) -> Option<Refusals> {
    gate(commands).map(|gate| gate.refusals)
}

#[test]
fn senders_hear_of_refusals_from_the_last_octet_until_a_top_up_opens_the_gate() {
    let mut hand = Hand::new();
    assert_eq!(refusals(&hand.usable(terms())), Some(Refusals::Silent), "units are on their way");
    assert_eq!(refusals(&hand.answer(answered(last(1_000)))), Some(Refusals::Silent));
    assert_eq!(refusals(&hand.read(passed(1_000))), Some(Refusals::Told));
    hand.answer(answered(granted(50_000)));
    assert_eq!(refusals(&hand.wait(6_000)), Some(Refusals::Silent));
}

#[test]
fn senders_hear_of_refusals_after_an_order_to_abort_until_the_server_asks_again() {
    let mut hand = Hand::active();
    hand.tell(Event::Abort(sim(1)));
    assert_eq!(refusals(&hand.wait(1_000)), Some(Refusals::Told));
    hand.answer(answered(nothing()));
    assert_eq!(refusals(&hand.tell(Event::Reauthorise(sim(1)))), Some(Refusals::Silent));
}

#[test]
fn senders_hear_of_refusals_while_the_server_is_out_of_reach() {
    let mut hand = Hand::active();
    hand.read(passed(900_000));
    hand.answer(unanswered());
    assert_eq!(refusals(&hand.wait(11_000)), Some(Refusals::Told));
    assert_eq!(hand.state(), State::Offline);
    assert_eq!(refusals(&hand.answer(answered(granted(1_000_000)))), Some(Refusals::Silent));
}
