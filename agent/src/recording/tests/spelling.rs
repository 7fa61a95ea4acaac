//! Every input comes back from its line as it went in.

use super::samples::{at, epoch, events, reading, sessions, sim, terms};
use crate::quota::{Event, WhenUsedUp};
use crate::recording::{Birth, Life, Line, SCHEMA};
use crate::units::BootId;

fn round(line: &Line) -> String {
    let text = serde_json::to_string(line).expect("is written");
    assert!(!text.contains('\n'), "one line: {text}");
    assert_eq!(serde_json::from_str::<Line>(&text).expect(&text), *line, "{text}");
    text
}

#[test]
fn every_event_comes_back_as_it_was_told() {
    for event in events() {
        round(&Line::Event { core: u32::MAX, at: at(3), pending: true, event: event.clone() });
        round(&Line::Event { core: 0, at: at(3), pending: false, event });
    }
}

#[test]
fn a_life_and_every_stored_session_come_back_as_they_were() {
    round(&Line::Life(Life { schema: SCHEMA, version: "0".into(), boot: BootId::new("boot"), at: at(1) }));
    for (meter, aborted) in [(None, Vec::new()), (Some((epoch(), reading(u64::MAX))), vec![sim()])] {
        let birth = Birth {
            label: "wan0".into(),
            at: at(2),
            seed: u64::MAX,
            terms: terms(),
            meter,
            aborted,
            sessions: sessions(),
        };
        round(&Line::Core { core: 1, birth });
    }
}

#[test]
fn a_line_is_plain_to_read() {
    let line = Line::Event { core: 0, at: at(1500), pending: false, event: Event::Hint };
    assert_eq!(round(&line), r#"{"event":{"core":0,"at":1500000000,"event":"hint"}}"#);
    assert_eq!(
        round(&Line::Timeout { core: 2, at: at(0), pending: true }),
        r#"{"timeout":{"core":2,"at":0,"pending":true}}"#
    );
    assert_eq!(round(&Line::Command { core: 2, command: "Read".into() }), r#"{"command":{"core":2,"command":"Read"}}"#);
    assert_eq!(serde_json::to_string(&WhenUsedUp::Block).expect("is written"), r#""block""#);
}

#[test]
fn what_a_line_does_not_know_is_not_passed_over() {
    for text in [
        r#"{"event":{"core":0,"at":1,"event":"hint","when":2}}"#,
        r#"{"event":{"core":0,"at":1,"event":"explode"}}"#,
        r#"{"event":{"core":0,"at":1}}"#,
        r#"{"event":{"core":0,"at":-1,"event":"hint"}}"#,
        r#"{"song":{}}"#,
    ] {
        serde_json::from_str::<Line>(text).expect_err(text);
    }
}
