//! The golden files: they pass the closed schema, fit the wire types, and the server's own answers pass it too.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use server_mock::Problem;
use server_mock::charging::wire::{ChargingDataRequest, ChargingDataResponse};
use server_mock::onboarding::wire::{AssertionClaims, BindingRequest, RegisterRequest, RegisterResponse};
use std::path::PathBuf;

use crate::harness::{CREATE, Device, World, lenient};

fn wire(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/wire").join(name)
}

fn parse(name: &str) -> Value {
    let path = wire(name);
    let text = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The golden files, by name without `.json`.
fn goldens() -> Vec<(String, Value)> {
    let mut found: Vec<_> = std::fs::read_dir(wire("golden"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| (name.trim_end_matches(".json").to_owned(), parse(&format!("golden/{name}"))))
        .collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    assert!(found.len() >= 30, "only {} golden files", found.len());
    found
}

/// The definition of the schema that a golden file must pass.
fn definition(name: &str) -> &'static str {
    match name {
        "register.request" => "RegisterRequest",
        "register.response" => "RegisterResponse",
        "token.request" => "TokenRequest",
        "token.response" => "TokenResponse",
        "token-error.response" => "TokenError",
        "token-assertion.claims" => "AssertionClaims",
        "binding.request" | "binding-any.request" => "BindingRequest",
        "binding.response" => "BindingResponse",
        "plan.response" => "Plan",
        "commands.response" | "commands-none.response" => "Commands",
        name if name.starts_with("problem-") => "ProblemDetails",
        name if name.ends_with(".request") => "ChargingDataRequest",
        name if name.ends_with(".response") => "ChargingDataResponse",
        name => panic!("no definition for {name}"),
    }
}

fn check(definition: &str, value: &Value) -> Result<(), String> {
    let definitions = parse("profile.schema.json")["$defs"].take();
    assert!(definitions.get(definition).is_some(), "the schema has no {definition}");
    let schema = json!({ "$ref": format!("#/$defs/{definition}"), "$defs": definitions });
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<_> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
}

fn round_trip<T: DeserializeOwned + Serialize>(value: &Value) -> Value {
    serde_json::to_value(serde_json::from_value::<T>(value.clone()).unwrap()).unwrap()
}

#[test]
fn golden_files_pass_the_closed_schema() {
    for (name, golden) in goldens() {
        check(definition(&name), &golden).unwrap_or_else(|errors| panic!("{name}: {errors}"));
    }
}

#[test]
fn a_golden_file_with_a_stranger_in_it_does_not_pass() {
    for (name, mut golden) in goldens() {
        golden["stranger"] = 1.into();
        check(definition(&name), &golden).expect_err(&name);
    }
}

#[test]
fn golden_files_go_through_the_wire_types_unchanged() {
    for (name, golden) in goldens() {
        let back = match definition(&name) {
            "ChargingDataRequest" => round_trip::<ChargingDataRequest>(&golden),
            "ChargingDataResponse" => round_trip::<ChargingDataResponse>(&golden),
            "ProblemDetails" => round_trip::<Problem>(&golden),
            "RegisterRequest" => round_trip::<RegisterRequest>(&golden),
            "RegisterResponse" => round_trip::<RegisterResponse>(&golden),
            "BindingRequest" => round_trip::<BindingRequest>(&golden),
            "AssertionClaims" => round_trip::<AssertionClaims>(&golden),
            // The server writes these straight from its books; the next test holds them against the schema.
            _ => continue,
        };
        assert_eq!(back, golden, "{name}");
    }
}

#[tokio::test]
async fn the_golden_life_of_a_session_is_answered_within_the_schema() {
    let world = World::with_package(3_000_000).await;
    let golden = |name: &str| parse(&format!("golden/{name}.json"));
    let create = world.post(CREATE, &golden("create.request")).await;
    let session = create.location.clone().unwrap();
    let mut answers = vec![create];
    for name in [
        "update-threshold",
        "update-threshold-retransmission",
        "update-interval",
        "update-exhausted",
        "update-validity",
        "update-backlog",
        "update-report-only",
        "update-throttled",
    ] {
        answers.push(world.post(&format!("{session}/update"), &golden(&format!("{name}.request"))).await);
    }
    assert_eq!(answers[1], answers[2], "the retransmission gets the first answer");
    let end = world.post(&format!("{session}/release"), &golden("release-final.request")).await;
    assert_eq!(end.status, 204);
    answers.push(world.post(CREATE, &golden("pec.request")).await);
    for answer in &answers {
        check("ChargingDataResponse", &answer.json()).unwrap_or_else(|errors| panic!("{errors}: {answer:?}"));
    }
    assert_eq!(world.admin_get("/stats").await["subscribers"][0]["debits"], 10);
    let refused = world.post(&format!("{session}/update"), &golden("update-interval.request")).await;
    assert_eq!(refused.status, 200, "a stored answer outlives its session");
    let unused = world.post(&format!("{session}/release"), &golden("release-unused.request")).await;
    check("ProblemDetails", &unused.json()).unwrap();
}

#[tokio::test]
async fn the_servers_onboarding_answers_pass_the_schema() {
    let world = World::start(server_mock::Options { enrolment: server_mock::Enrolment::Open, ..lenient() }).await;
    world.add_sims().await;
    world.buy(10_000).await;
    let device = Device::new("gw-1");
    check("RegisterRequest", &device.registration()).unwrap();
    let registered = world.post("/onboarding/v1/devices", &device.registration()).await.json();
    check("RegisterResponse", &registered).unwrap();
    let answer = device.log_in(&world, &device.sign(&device.claims()), "onboarding").await.json();
    check("TokenResponse", &answer).unwrap();
    let token = answer["access_token"].as_str().unwrap();
    check("TokenError", &device.log_in(&world, "a.b.c", "onboarding").await.json()).unwrap();
    let slot = json!({ "slot": "wwan0" });
    let bound = world.with_token(reqwest::Method::POST, &device.path("bindings"), token, Some(&slot)).await.json();
    check("BindingResponse", &bound).unwrap();
    world.admin_post("/commands", json!({ "deviceId": "gw-1", "command": "PLAN_CHANGED" })).await;
    for (path, definition) in [("plan", "Plan"), ("commands?after=0&wait=0", "Commands")] {
        let answer = world.with_token(reqwest::Method::GET, &device.path(path), token, None).await.json();
        check(definition, &answer).unwrap_or_else(|errors| panic!("{errors}: {answer}"));
    }
}
