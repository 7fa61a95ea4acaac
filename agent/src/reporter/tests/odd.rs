//! Answers that are not as ours would be: some are fine, the others are no answer.

use std::time::Duration;

use super::expected;
use crate::quota::{Answer, FinalUnitAction, GrantedUnit, Operation, Outcome, ResultCode, rules};
use crate::reporter::http::retry_after;
use crate::reporter::{Reply, decode};
use crate::units::Octets;

fn reply(status: u16, body: &str) -> Reply {
    Reply { status, location: Some("/x/ref-1".to_owned()), body: body.as_bytes().to_vec(), ..Reply::default() }
}

fn answer(body: &str) -> Answer {
    match decode(&expected(Operation::Update, 1), &reply(200, body)) {
        Outcome::Answered(answer) => answer,
        other => panic!("{body}: {other:?}"),
    }
}

fn granted(information: &str) -> GrantedUnit {
    let body = format!(r#"{{"invocationSequenceNumber":1,"multipleUnitInformation":[{information}]}}"#);
    answer(&body).granted.unwrap_or_else(|| panic!("{information}: no units"))
}

fn is_not_taken(operation: Operation, reply: &Reply) -> bool {
    matches!(decode(&expected(operation, 1), reply), Outcome::NotTaken { .. })
}

fn is_unanswered(operation: Operation, reply: &Reply) -> bool {
    matches!(decode(&expected(operation, 1), reply), Outcome::Unanswered { .. })
}

#[test]
fn what_is_not_known_is_passed_over() {
    let unit = granted(
        r#"{"ratingGroup":10,"resultCode":"SUCCESS","grantedUnit":{"totalVolume":7,"time":3},"x":[1],"triggers":[{"y":1}]}"#,
    );
    assert_eq!((unit.octets, unit.result), (Octets::new(7), ResultCode::Success));
    let body = r#"{"invocationSequenceNumber":1,"invocationResult":{"failureHandling":"PRAY"},"z":null}"#;
    assert_eq!(answer(body).failure_handling, None);
}

#[test]
fn an_empty_or_absent_grant_is_zero() {
    for information in [
        r#"{"ratingGroup":10,"resultCode":"SUCCESS","grantedUnit":{}}"#,
        r#"{"ratingGroup":10,"resultCode":"SUCCESS"}"#,
        r#"{"ratingGroup":10,"resultCode":"SUCCESS","grantedUnit":null}"#,
        r#"{"ratingGroup":10,"resultCode":"RATING_FAILED","grantedUnit":{"totalVolume":5}}"#,
    ] {
        assert_eq!(granted(information).octets, Octets::ZERO, "{information}");
    }
    assert_eq!(answer(r#"{"invocationSequenceNumber":1}"#).granted, Some(GrantedUnit::none()));
}

#[test]
fn only_the_own_rating_group_counts() {
    assert_eq!(
        granted(r#"{"ratingGroup":11,"resultCode":"SUCCESS","grantedUnit":{"totalVolume":5}}"#),
        GrantedUnit::none()
    );
    let two =
        r#"{"ratingGroup":11,"grantedUnit":{"totalVolume":5}},{"ratingGroup":10,"grantedUnit":{"totalVolume":6}}"#;
    assert_eq!(granted(two).octets, Octets::new(6));
    assert_eq!(granted(r#"{"grantedUnit":{"totalVolume":8}}"#).octets, Octets::new(8));
}

#[test]
fn zero_is_off_and_large_grants_fit() {
    let unit = granted(
        r#"{"ratingGroup":10,"grantedUnit":{"totalVolume":9223372036854775808},"validityTime":0,"quotaHoldingTime":0,"volumeQuotaThreshold":0}"#,
    );
    assert_eq!(unit.octets, Octets::new(1 << 63));
    assert_eq!((unit.validity_time, unit.quota_holding_time, unit.volume_quota_threshold), (None, None, None));
}

#[test]
fn a_result_code_that_is_not_known_is_judged_by_its_units() {
    assert_eq!(
        granted(r#"{"ratingGroup":10,"resultCode":"OK","grantedUnit":{"totalVolume":5}}"#).result,
        ResultCode::Success
    );
    assert_eq!(granted(r#"{"ratingGroup":10,"resultCode":"NO"}"#).result, ResultCode::Denied);
}

#[test]
fn an_empty_final_unit_action_is_none_and_an_unknown_one_blocks() {
    let with = |action: &str| {
        granted(&format!(r#"{{"ratingGroup":10,"finalUnitIndication":{{"finalUnitAction":{action}}}}}"#)).final_unit
    };
    assert_eq!(with(r#""""#), None);
    assert_eq!(with("null"), None);
    assert_eq!(with(r#""RESTRICT_ACCESS""#), Some(FinalUnitAction::RestrictAccess));
    assert_eq!(with(r#""EXPLODE""#), Some(FinalUnitAction::Terminate));
}

#[test]
fn what_still_passes_is_kept_as_it_came_and_never_cut_down_to_something_that_could_be_followed() {
    let exceptions = |members: String| {
        granted(&format!(
            r#"{{"ratingGroup":10,"finalUnitIndication":{{"finalUnitAction":"RESTRICT_ACCESS",{members}}}}}"#
        ))
        .exceptions
    };
    let portal = |kind: &str, address: &str| {
        let server =
            format!(r#""redirectServer":{{"redirectAddressType":"{kind}","redirectServerAddress":"{address}"}}"#);
        exceptions(server).portal
    };
    assert_eq!(portal("IPV4", "192.0.2.10").as_deref(), Some("http://192.0.2.10/"));
    assert_eq!(portal("IPV6", "2001:db8::10").as_deref(), Some("http://[2001:db8::10]/"));
    assert_eq!(portal("SIP_URI", "sip:buy@portal.example").as_deref(), Some("sip:buy@portal.example"));
    assert_eq!(exceptions(r#""redirectServer":{}"#.to_owned()).portal, None);
    let rule = "permit in ip from any to any";
    let many = vec![format!("\"{rule}\""); 5000].join(",");
    let kept = exceptions(format!(r#""restrictionFilterRule":"{rule}","restrictionFilterRuleList":[{many}]"#)).rules;
    assert!(kept.len() < 100 && rules(kept.iter().map(String::as_str)).is_err(), "{} rules", kept.len());
    let long = exceptions(format!(r#""restrictionFilterRule":"{rule}{}""#, " ".repeat(100_000))).rules;
    assert!(long[0].len() < 2000 && rules(long.iter().map(String::as_str)).is_err());
}

#[test]
fn garbage_is_no_answer() {
    for body in [
        "",
        "<html>",
        "[]",
        "{}",
        "null",
        r#"{"invocationSequenceNumber":2}"#,
        r#"{"invocationSequenceNumber":"1"}"#,
        r#"{"invocationSequenceNumber":1,"multipleUnitInformation":[{"ratingGroup":10,"grantedUnit":{"totalVolume":"7"}}]}"#,
        r#"{"invocationSequenceNumber":1,"multipleUnitInformation":[{"ratingGroup":10,"grantedUnit":{"totalVolume":-1}}]}"#,
        r#"{"invocationSequenceNumber":1,"multipleUnitInformation":[{"ratingGroup":10,"grantedUnit":{"totalVolume":1.5}}]}"#,
        r#"{"invocationSequenceNumber":1,"multipleUnitInformation":{"ratingGroup":10}}"#,
    ] {
        for operation in [Operation::Create, Operation::Update, Operation::Event] {
            assert!(is_unanswered(operation, &reply(200, body)), "{operation:?} {body}");
        }
    }
}

#[test]
fn a_release_is_answered_with_204_or_200() {
    for (status, body, fine) in [
        (204, "", true),
        (200, "", true),
        (200, "{}", true),
        (200, r#"{"invocationSequenceNumber":1}"#, true),
        (200, r#"{"invocationSequenceNumber":2}"#, false),
        (200, "garbage", false),
        (202, "", false),
    ] {
        assert_eq!(!is_unanswered(Operation::Release, &reply(status, body)), fine, "{status} {body}");
    }
    assert!(is_unanswered(Operation::Update, &reply(204, "")));
}

#[test]
fn only_the_last_segment_of_a_location_is_used() {
    let with = |location: Option<&str>| {
        let reply = Reply { location: location.map(str::to_owned), ..reply(201, r#"{"invocationSequenceNumber":1}"#) };
        match decode(&expected(Operation::Create, 1), &reply) {
            Outcome::Answered(answer) => answer.session_ref.map(|session_ref| session_ref.to_string()),
            _ => None,
        }
    };
    for location in ["https://c.example/a/b/ref-1", "/a/ref-1", "ref-1", "/a/ref-1/", "/a/ref-1?x=/y"] {
        assert_eq!(with(Some(location)).as_deref(), Some("ref-1"), "{location}");
    }
    for location in [None, Some(""), Some("/"), Some("/a/.."), Some("/a/b c"), Some("/a/\"")] {
        assert_eq!(with(location), None, "{location:?}");
    }
}

#[test]
fn statuses_mean_what_the_profile_says() {
    for status in [100, 202, 204, 301, 302, 303, 408, 500, 502, 504, 600] {
        assert!(is_unanswered(Operation::Update, &reply(status, "")), "{status}");
    }
    for status in [307, 308, 401, 429, 503] {
        assert!(is_not_taken(Operation::Update, &reply(status, "")), "{status}");
    }
    // A proxy's word, or one about the caller's rights, is none about the message: it must not be given up for that.
    for (status, body) in [(404, "<html>"), (403, "{}"), (403, r#"{"cause":"INSUFFICIENT_SCOPE"}"#)] {
        assert!(is_not_taken(Operation::Update, &reply(status, body)), "{status} {body}");
    }
    let lost = reply(404, r#"{"cause":"CONTEXT_NOT_FOUND"}"#);
    assert_eq!(decode(&expected(Operation::Release, 1), &lost), Outcome::ContextNotFound);
    let rejected = Outcome::Rejected { status: 404, cause: "CONTEXT_NOT_FOUND".to_owned() };
    assert_eq!(decode(&expected(Operation::Create, 1), &lost), rejected);
}

#[test]
fn a_name_of_the_session_that_is_a_letter_long_as_a_novel_is_no_name() {
    let named = |length: usize| {
        let location = Some(format!("/x/{}", "r".repeat(length)));
        let reply = Reply { location, ..reply(201, r#"{"invocationSequenceNumber":1}"#) };
        matches!(decode(&expected(Operation::Create, 1), &reply), Outcome::Answered(_))
    };
    assert!(named(36) && named(500));
    assert!(!named(10_000), "it would go into every path and header of the session");
}

#[test]
fn the_first_word_of_a_rating_group_counts_where_there_are_two() {
    let two =
        r#"{"ratingGroup":10,"grantedUnit":{"totalVolume":5}},{"ratingGroup":10,"grantedUnit":{"totalVolume":6}}"#;
    assert_eq!(granted(two).octets, Octets::new(5));
}

#[test]
fn the_largest_numbers_are_numbers_and_larger_ones_are_no_answer() {
    let body = |number: &str| {
        format!(
            r#"{{"invocationSequenceNumber":1,"multipleUnitInformation":[{{"ratingGroup":10,"validityTime":{number},"grantedUnit":{{"totalVolume":{number}}}}}]}}"#
        )
    };
    let unit = answer(&body("18446744073709551615")).granted.expect("units");
    assert_eq!((unit.octets, unit.validity_time), (Octets::MAX, Some(Duration::from_secs(u64::MAX))));
    for number in ["18446744073709551616", "1e400", "-9223372036854775809", "0x10", "NaN"] {
        assert!(is_unanswered(Operation::Update, &reply(200, &body(number))), "{number}");
    }
}

#[test]
fn nesting_without_end_is_no_answer() {
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let nested = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
        let member = format!(r#"{{"invocationSequenceNumber":1,"multipleUnitInformation":{nested}}}"#);
        for body in [nested.as_str(), &member] {
            assert!(is_unanswered(Operation::Update, &reply(200, body)), "{open}");
        }
    }
}

#[test]
fn a_problem_told_with_success_is_no_answer() {
    let body = r#"{"title":"no","status":500,"cause":"SYSTEM_FAILURE"}"#;
    for operation in [Operation::Create, Operation::Update, Operation::Event] {
        assert!(is_unanswered(operation, &reply(200, body)), "{operation:?}");
    }
}

#[test]
fn what_a_server_says_is_cut_short_and_kept_to_one_line() {
    let long = format!("{}\\nroot: all is well", "x".repeat(100_000));
    let refused = reply(400, &format!(r#"{{"cause":"{long}"}}"#));
    let Outcome::Rejected { cause, .. } = decode(&expected(Operation::Update, 1), &refused) else { panic!() };
    assert!(cause.len() < 300 && !cause.contains('\n'), "{} octets", cause.len());
    let forged = reply(500, r#"{"cause":"NO\nall is well"}"#);
    let odd = reply(200, &format!(r#"{{"invocationSequenceNumber":"{long}"}}"#));
    for reply in [forged, odd] {
        let Outcome::Unanswered { reason, .. } = decode(&expected(Operation::Update, 1), &reply) else { panic!() };
        assert!(reason.len() < 600 && !reason.contains('\n'), "{reason}");
    }
}

#[test]
fn retry_after_is_seconds_or_a_date_against_the_servers_own() {
    let date = Some("2026-11-23T08:00:00Z".parse().unwrap());
    assert_eq!(retry_after("7", None), Some(Duration::from_secs(7)));
    assert_eq!(retry_after("Mon, 23 Nov 2026 08:01:30 GMT", date), Some(Duration::from_secs(90)));
    assert_eq!(retry_after("Mon, 23 Nov 2026 07:00:00 GMT", date), Some(Duration::ZERO));
    assert_eq!(retry_after("Mon, 23 Nov 2026 08:01:30 GMT", None), None);
    assert_eq!(retry_after("99999999", None), Some(Duration::from_hours(24)));
    assert_eq!(retry_after("soon", date), None);
}
