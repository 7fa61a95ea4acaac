//! Each fault does what it says, as often as it says, and charging stays exact.

use reqwest::Method;
use serde_json::json;
use server_mock::{Database, FaultSwitches, Options};
use std::time::Duration;

use crate::harness::{CREATE, World, lenient, message, release, retransmitted, send};

#[tokio::test]
async fn a_dropped_request_does_no_work_and_a_dropped_answer_does() {
    let world = World::with_package(1_000_000).await;
    let update = format!("{}/update", world.session(1000).await);
    let body = message(1, 1000, &[(1, 800)]);
    world.faults(json!([{ "kind": "update", "fault": "drop-request" }])).await;
    world.try_post(&update, &body).await.unwrap_err();
    assert_eq!(world.used().await, 0);
    world.faults(json!([{ "kind": "update", "fault": "drop-answer" }])).await;
    world.try_post(&update, &retransmitted(&body)).await.unwrap_err();
    assert_eq!(world.used().await, 800);
    assert_eq!(world.post(&update, &retransmitted(&body)).await.granted(), 1000);
    assert_eq!(world.used().await, 800);
}

#[tokio::test]
async fn a_rule_lets_requests_pass_first_and_is_spent_after_its_times() {
    let world = World::with_package(1_000_000).await;
    let update = format!("{}/update", world.session(1000).await);
    world.faults(json!([{ "kind": "update", "fault": "status", "status": 503, "after": 1, "times": 2 }])).await;
    let mut seen = Vec::new();
    for number in 1..=4 {
        seen.push(world.post(&update, &message(number, 1000, &[(number, 10)])).await.status);
    }
    assert_eq!(seen, [200, 503, 503, 200]);
    assert_eq!(world.used().await, 20);
    let rule = world.admin_get("/faults").await["rules"][0].clone();
    assert_eq!((&rule["seen"], &rule["fired"]), (&json!(4), &json!(2)));
    assert_eq!(world.admin(Method::DELETE, "/faults", None).await.status, 204);
    assert_eq!(world.admin_get("/faults").await["rules"], json!([]));
}

#[tokio::test]
async fn a_request_applied_twice_is_debited_once() {
    let world = World::with_package(1_000_000).await;
    let session = world.session(1000).await;
    world.faults(json!([{ "kind": "any", "fault": "duplicate", "times": 2 }])).await;
    assert_eq!(world.post(&format!("{session}/update"), &message(1, 1000, &[(1, 800)])).await.status, 200);
    assert_eq!(world.post(&format!("{session}/release"), &release(2, &[(2, 50)])).await.status, 204);
    assert_eq!((world.used().await, world.entries("release").await.len()), (850, 1));
}

#[tokio::test]
async fn too_many_requests_says_when_to_come_again() {
    let world = World::with_package(1_000_000).await;
    world.faults(json!([{ "kind": "create", "fault": "status", "status": 429, "retryAfter": 7 }])).await;
    let request = world.request(Method::POST, CREATE).json(&message(0, 1000, &[]));
    let response = request.send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (429, "7"));
    assert_eq!(world.reserved().await, 0);
}

#[tokio::test]
async fn garbage_and_a_wrong_number_hide_work_that_was_done() {
    let world = World::with_package(1_000_000).await;
    let update = format!("{}/update", world.session(1000).await);
    world
        .faults(json!([{ "kind": "update", "fault": "garbage" }, { "kind": "update", "fault": "wrong-sequence" }]))
        .await;
    let body = message(1, 1000, &[(1, 800)]);
    let garbage = world.post(&update, &body).await;
    assert_eq!(garbage.status, 200);
    serde_json::from_str::<serde_json::Value>(&garbage.text).unwrap_err();
    let wrong = world.post(&update, &retransmitted(&body)).await;
    assert_eq!(wrong.json()["invocationSequenceNumber"], 2);
    let right = world.post(&update, &retransmitted(&body)).await;
    assert_eq!((&right.json()["invocationSequenceNumber"], right.granted()), (&json!(1), 1000));
    assert_eq!(world.used().await, 800);
}

#[tokio::test]
async fn a_delay_outlasts_an_impatient_client_and_the_retry_is_debited_once() {
    let world = World::with_package(1_000_000).await;
    let update = format!("{}/update", world.session(1000).await);
    let body = message(1, 1000, &[(1, 800)]);
    world.faults(json!([{ "kind": "update", "fault": "delay-ms", "delayMs": 60_000 }])).await;
    let impatient = world.request(Method::POST, &update).json(&body).timeout(Duration::from_millis(100));
    assert!(send(impatient).await.unwrap_err().is_timeout());
    world.faults(json!([{ "kind": "update", "fault": "delay-ms", "delayMs": 1 }])).await;
    assert_eq!(world.post(&update, &retransmitted(&body)).await.status, 200);
    assert_eq!(world.used().await, 800);
}

#[tokio::test]
async fn a_restart_closes_connections_and_keeps_the_books() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { database: Database::File(directory.path().join("books.db")), ..lenient() };
    let world = World::start(options).await;
    world.add_sims().await;
    world.buy(1_000_000).await;
    let update = format!("{}/update", world.session(1000).await);
    let first = world.post(&update, &message(1, 1000, &[(1, 800)])).await;
    world.faults(json!([{ "kind": "update", "fault": "restart" }])).await;
    world.try_post(&update, &message(2, 1000, &[(2, 30)])).await.unwrap_err();
    assert_eq!(world.post(&update, &retransmitted(&message(1, 1000, &[(1, 800)]))).await, first);
    assert_eq!(world.post(&update, &retransmitted(&message(2, 1000, &[(2, 30)]))).await.status, 200);
    assert_eq!(world.used().await, 830);
}

#[tokio::test]
async fn rules_that_could_never_strike_are_refused() {
    let world = World::with_package(1000).await;
    let rules = json!({ "rules": [
        { "kind": "update", "fault": "status", "status": 404 },
        { "kind": "release", "fault": "wrong-sequence" },
        { "kind": "update", "fault": "delay-ms" },
        { "kind": "update", "fault": "restart" },
    ] });
    let refused = world.admin(Method::PUT, "/faults", Some(&rules)).await.json();
    let params: Vec<_> =
        refused["invalidParams"].as_array().unwrap().iter().map(|param| param["param"].clone()).collect();
    assert_eq!(params, ["rules[0].status", "rules[1].kind", "rules[2].delayMs", "rules[3].fault"]);
}

#[tokio::test]
async fn without_leave_no_fault_can_be_switched_on() {
    let world = World::start(Options { faults: FaultSwitches::Refused, ..lenient() }).await;
    let rules = json!({ "rules": [{ "kind": "any", "fault": "drop-request" }] });
    for (method, body) in [(Method::PUT, Some(&rules)), (Method::GET, None), (Method::DELETE, None)] {
        assert_eq!(world.admin(method, "/faults", body).await.status, 403);
    }
}

#[tokio::test]
async fn an_answer_put_in_place_of_the_servers_does_no_work() {
    let world = World::with_package(1_000_000).await;
    let update = format!("{}/update", world.session(1000).await);
    world.faults(json!([{ "kind": "update", "fault": "answer", "status": 207, "body": { "x": [1] } }])).await;
    let answer = world.post(&update, &message(1, 1000, &[(1, 800)])).await;
    assert_eq!((answer.status, answer.json(), world.used().await), (207, json!({ "x": [1] }), 0));
}

#[tokio::test]
async fn a_rewritten_answer_has_the_patch_in_every_item_and_another_location() {
    let world = World::with_package(1_000_000).await;
    let patch =
        json!({ "multipleUnitInformation": { "grantedUnit": { "totalVolume": u64::MAX }, "validityTime": null } });
    world.faults(json!([{ "kind": "create", "fault": "rewrite", "patch": patch, "location": "" }])).await;
    let answer = world.post(CREATE, &message(0, 1000, &[])).await;
    assert_eq!((answer.status, answer.granted(), answer.location.as_deref()), (201, u64::MAX, None));
    assert_eq!(answer.unit().get("validityTime"), None);
    assert_eq!(answer.unit()["ratingGroup"], 10, "the rest is as it was");
    assert_eq!(world.reserved().await, 1000, "the work was done");
}

#[tokio::test]
async fn a_redirection_points_to_the_same_place_unless_told_otherwise() {
    let world = World::with_package(1_000_000).await;
    let rules =
        json!([{ "kind": "create", "fault": "redirect" }, { "kind": "create", "fault": "redirect", "location": "/x" }]);
    world.faults(rules).await;
    let client =
        reqwest::Client::builder().tls_certs_only([]).redirect(reqwest::redirect::Policy::none()).build().unwrap();
    for expected in [CREATE, "/x"] {
        let request = client.post(format!("{}{CREATE}", world.server.base_url())).json(&message(0, 1000, &[]));
        let answer = send(request).await.unwrap();
        assert_eq!((answer.status, answer.location.as_deref()), (307, Some(expected)));
    }
    assert_eq!(world.reserved().await, 0);
}

#[tokio::test]
async fn answers_without_measure_do_the_work_and_go_on_and_on() {
    let world = World::with_package(1_000_000).await;
    let update = format!("{}/update", world.session(1000).await);
    for (number, fault) in (1..).zip(["huge", "endless", "slow"]) {
        world.faults(json!([{ "kind": "update", "fault": fault }])).await;
        let body = message(number, 1000, &[(number, 10)]);
        let mut response = world.request(Method::POST, &update).json(&body).send().await.unwrap();
        let length = response.content_length();
        assert_eq!(length.is_some_and(|length| length > 10 << 20), fault == "huge", "{fault}: {length:?}");
        let mut read = 0;
        let enough = if fault == "slow" { 3 } else { 4 << 20 };
        while read < enough {
            read += response.chunk().await.unwrap().expect("there is always more").len();
        }
        assert_eq!(world.used().await, u64::from(number) * 10, "{fault}");
    }
}

#[tokio::test]
async fn malformed_answers_are_malformed_in_different_ways() {
    let world = World::with_package(1_000_000).await;
    let update = format!("{}/update", world.session(1000).await);
    world.faults(json!([{ "kind": "update", "fault": "malformed", "times": 8 }])).await;
    let mut texts = std::collections::BTreeSet::new();
    for number in 1..=8 {
        let answer = world.post(&update, &message(number, 1000, &[(number, 10)])).await;
        let read = serde_json::from_str::<serde_json::Value>(&answer.text);
        assert!(
            read.is_err() || read.is_ok_and(|read| read["invocationSequenceNumber"].as_u64() != Some(number.into()))
        );
        texts.insert(answer.text);
    }
    assert_eq!((texts.len(), world.used().await), (8, 80));
}

#[tokio::test]
async fn a_skewed_answer_is_dated_years_off() {
    let world = World::with_package(1_000_000).await;
    world.faults(json!([{ "kind": "create", "fault": "skew", "skewSeconds": -315_360_000 }])).await;
    let response = world.request(Method::POST, CREATE).json(&message(0, 1000, &[])).send().await.unwrap();
    let date = response.headers()["date"].to_str().unwrap().to_owned();
    let told: serde_json::Value = response.json().await.unwrap();
    let stamp: jiff::Timestamp = told["invocationTimeStamp"].as_str().unwrap().parse().unwrap();
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(&date).unwrap();
    assert_eq!(stamp.as_second(), date.as_second());
    let real = world.post(CREATE, &message(0, 1000, &[])).await.json();
    let real: jiff::Timestamp = real["invocationTimeStamp"].as_str().unwrap().parse().unwrap();
    assert_eq!(real.as_second() - stamp.as_second(), 315_360_000);
}

#[tokio::test]
async fn a_rule_without_what_it_needs_is_refused() {
    let world = World::start(lenient()).await;
    for rule in [
        json!({ "kind": "any", "fault": "answer" }),
        json!({ "kind": "any", "fault": "answer", "status": 100 }),
        json!({ "kind": "any", "fault": "rewrite" }),
        json!({ "kind": "any", "fault": "skew" }),
    ] {
        let answer = world.admin(Method::PUT, "/faults", Some(&json!({ "rules": [rule] }))).await;
        assert_eq!(answer.status, 400, "{rule}");
    }
}
