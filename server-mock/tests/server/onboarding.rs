//! Registration, log-in, bindings, plan and commands.

use reqwest::Method;
use serde_json::{Value, json};
use server_mock::{Authentication, Enrolment, Options, Seconds};

use crate::harness::{
    CREATE, Device, ICCID, SECOND_ICCID, SECOND_SUBSCRIBER, SUBSCRIBER, World, lenient, message, send,
};

const BOTH: &str = "onboarding nchf-convergedcharging";

async fn open_world() -> World {
    let options = Options { enrolment: Enrolment::Open, authentication: Authentication::Required, ..lenient() };
    let world = World::start(options).await;
    world.add_sims().await;
    world
}

#[tokio::test]
async fn a_claim_code_registers_one_device_once() {
    let world = World::start(lenient()).await;
    world.admin_post("/claim-codes", json!({ "claimCode": "K7QF-2M9X" })).await;
    let device = Device::new("gw-1");
    let mut registration = device.registration();
    let register = |body: Value| {
        let world = &world;
        async move { world.post("/onboarding/v1/devices", &body).await }
    };
    assert_eq!(register(registration.clone()).await.cause(), "CLAIM_CODE_INVALID", "none");
    registration["claimCode"] = "GUESS".into();
    let wrong = register(registration.clone()).await;
    assert_eq!((wrong.status, wrong.cause().as_str()), (403, "CLAIM_CODE_INVALID"));
    registration["claimCode"] = "K7QF-2M9X".into();
    let first = register(registration.clone()).await;
    assert_eq!((first.status, &first.json()["deviceId"]), (201, &json!("gw-1")));
    world.hand.advance(Seconds(60));
    assert_eq!(register(registration.clone()).await, first, "the same key gets the same answer");
    assert_eq!(register(device.registration()).await, first, "and needs no code for it");
    let mut other = Device::new("gw-2").registration();
    other["claimCode"] = "K7QF-2M9X".into();
    assert_eq!(register(other).await.cause(), "CLAIM_CODE_INVALID", "used");
    let codes = world.admin_get("/claim-codes").await;
    assert_eq!(codes["claimCodes"], json!([{ "claimCode": "K7QF-2M9X", "usedBy": "gw-1" }]));
}

#[tokio::test]
async fn another_key_or_a_taken_instance_is_a_conflict() {
    let world = open_world().await;
    let device = Device::new("gw-1");
    device.onboard(&world, BOTH).await;
    let mut imposter = Device::new("gw-1").registration();
    imposter["nfInstanceId"] = device.nf_name.clone().into();
    let refused = world.post("/onboarding/v1/devices", &imposter).await;
    assert_eq!((refused.status, refused.cause().as_str()), (409, "DEVICE_KEY_DIFFERS"));
    let mut copycat = Device::new("gw-2").registration();
    copycat["nfInstanceId"] = device.nf_name.clone().into();
    assert_eq!(world.post("/onboarding/v1/devices", &copycat).await.cause(), "NF_INSTANCE_TAKEN");
    let mut broken = Device::new("gw-3").registration();
    broken["publicKey"]["x"] = "short".into();
    let refused = world.post("/onboarding/v1/devices", &broken).await.json();
    assert_eq!(refused["invalidParams"][0]["param"], "publicKey.x");
}

#[tokio::test]
async fn an_assertion_that_does_not_hold_gets_no_token() {
    let world = open_world().await;
    let device = Device::new("gw-1");
    device.onboard(&world, BOTH).await;
    let now = device.claims()["iat"].as_i64().unwrap();
    let edits = [
        ("aud", json!("https://elsewhere.example/token")),
        ("sub", json!("gw-2")),
        ("exp", json!(now + 330)),
        ("exp", json!(now - 1)),
        ("iat", json!(now + 3600)),
        ("iss", json!("gw-unknown")),
    ];
    for (member, value) in edits {
        let mut claims = device.claims();
        claims[member] = value.clone();
        let answer = device.log_in(&world, &device.sign(&claims), BOTH).await;
        assert_eq!((answer.status, &answer.json()["error"]), (401, &json!("invalid_client")), "{member} {value}");
    }
    let mut old = device.claims();
    (old["iat"], old["exp"]) = (json!(now - 400), json!(now - 200));
    assert_eq!(device.log_in(&world, &device.sign(&old), BOTH).await.status, 401, "over");
    let forged = Device::new("gw-1").sign(&device.claims());
    assert_eq!(device.log_in(&world, &forged, BOTH).await.status, 401, "signed by another key");
    let assertion = device.sign(&device.claims());
    assert_eq!(device.log_in(&world, &assertion, BOTH).await.status, 200);
    assert_eq!(device.log_in(&world, &assertion, BOTH).await.status, 401, "a jti is used once");
    let fresh = device.sign(&device.claims());
    let answer = device.log_in(&world, &fresh, "onboarding root").await;
    assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("invalid_scope")));
    let answer = world.token(&[("grant_type", "password")]).await;
    assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("unsupported_grant_type")));
    let answer = world.token(&[("grant_type", "client_credentials")]).await;
    assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("invalid_request")));
}

#[tokio::test]
async fn a_token_opens_its_own_device_and_scope_until_it_ends() {
    let world = open_world().await;
    world.buy(10_000).await;
    let (device, other) = (Device::new("gw-1"), Device::new("gw-2"));
    let token = device.onboard(&world, BOTH).await;
    let others = other.onboard(&world, BOTH).await;
    let mut create = message(0, 1000, &[]);
    create["nfConsumerIdentification"]["nFName"] = device.nf_name.clone().into();
    let charge = |token: String| world.request(Method::POST, CREATE).bearer_auth(token).json(&create);
    assert_eq!(world.post(CREATE, &create).await.status, 401, "no token");
    assert_eq!(send(charge("guess".to_owned())).await.unwrap().cause(), "INVALID_TOKEN");
    let refused = send(charge(others.clone())).await.unwrap();
    assert_eq!((refused.status, refused.cause().as_str()), (403, "DEVICE_MISMATCH"));
    let plan = device.path("plan");
    assert_eq!(world.with_token(Method::GET, &plan, &others, None).await.cause(), "DEVICE_MISMATCH");
    let narrow = device.log_in(&world, &device.sign(&device.claims()), "onboarding").await.json();
    let narrow = narrow["access_token"].as_str().unwrap().to_owned();
    assert_eq!(send(charge(narrow)).await.unwrap().cause(), "INSUFFICIENT_SCOPE");
    assert_eq!(send(charge(token.clone())).await.unwrap().status, 201);
    world.hand.advance(Seconds(3600));
    assert_eq!(world.with_token(Method::GET, &plan, &token, None).await.status, 401, "over");
}

#[tokio::test]
async fn a_slot_keeps_its_sim_until_it_is_given_back() {
    let world = open_world().await;
    let device = Device::new("gw-1");
    let token = device.onboard(&world, BOTH).await;
    let path = device.path("bindings");
    let bind = |body: Value| {
        let (world, path, token) = (&world, &path, &token);
        async move { world.with_token(Method::POST, path, token, Some(&body)).await }
    };
    let first = bind(json!({ "slot": "wwan0" })).await;
    assert_eq!(
        (first.status, &first.json()["iccid"], &first.json()["ratingGroups"]),
        (201, &json!(ICCID), &json!([10]))
    );
    assert_eq!(bind(json!({ "slot": "wwan0" })).await, first);
    assert_eq!(bind(json!({ "slot": "wwan0", "iccid": SECOND_ICCID })).await.cause(), "SLOT_BOUND");
    assert_eq!(bind(json!({ "slot": "wwan1", "iccid": ICCID })).await.cause(), "SIM_IN_USE");
    let absent = bind(json!({ "slot": "wwan1", "iccid": "8900100000000000009" })).await;
    assert_eq!((absent.status, absent.cause().as_str()), (409, "SIM_NOT_IN_POOL"));
    assert_eq!(bind(json!({ "slot": "wwan1" })).await.json()["iccid"], SECOND_ICCID);
    assert_eq!(bind(json!({ "slot": "wwan2" })).await.cause(), "NO_SIM_FREE");
    let binding = first.json()["bindingId"].as_str().unwrap().to_owned();
    let gone = format!("{path}/{binding}");
    assert_eq!(world.with_token(Method::DELETE, &gone, &token, None).await.status, 204);
    assert_eq!(world.with_token(Method::DELETE, &gone, &token, None).await.cause(), "BINDING_NOT_FOUND");
    assert_eq!(bind(json!({ "slot": "wwan2" })).await.json()["iccid"], ICCID, "back in the pool");
}

#[tokio::test]
async fn the_plan_changes_its_tag_with_the_package() {
    let world = open_world().await;
    let device = Device::new("gw-1");
    let token = device.onboard(&world, BOTH).await;
    world.with_token(Method::POST, &device.path("bindings"), &token, Some(&json!({ "slot": "wwan0" }))).await;
    world.buy(10_000).await;
    let get = |tag: Option<String>| {
        let mut request = world.request(Method::GET, &device.path("plan")).bearer_auth(&token);
        if let Some(tag) = tag {
            request = request.header("if-none-match", tag);
        }
        async move { request.send().await.unwrap() }
    };
    let first = get(None).await;
    let tag = first.headers()["etag"].to_str().unwrap().to_owned();
    let plan: Value = first.json().await.unwrap();
    assert_eq!(
        (&plan["packages"][0]["remainingVolume"], &plan["packages"][0]["subscriberIdentifier"]),
        (&json!(10_000), &json!(SUBSCRIBER))
    );
    assert_eq!(get(Some(tag.clone())).await.status().as_u16(), 304);
    world.admin_post("/top-ups", json!({ "subscriberIdentifier": SUBSCRIBER, "octets": 5 })).await;
    let changed = get(Some(tag)).await;
    assert_eq!(changed.status().as_u16(), 200);
    assert_eq!(changed.json::<Value>().await.unwrap()["packages"][0]["totalVolume"], 10_005);
}

#[tokio::test]
async fn a_waiting_device_hears_of_top_ups_and_switches_at_once() {
    let world = open_world().await;
    let device = Device::new("gw-1");
    let token = device.onboard(&world, BOTH).await;
    world.with_token(Method::POST, &device.path("bindings"), &token, Some(&json!({ "slot": "wwan0" }))).await;
    let poll = |after: i64, wait: u32| {
        let (world, token) = (&world, &token);
        let path = device.path(&format!("commands?after={after}&wait={wait}"));
        async move { world.with_token(Method::GET, &path, token, None).await.json()["commands"].clone() }
    };
    assert_eq!(poll(0, 0).await, json!([]));
    let (heard, ()) = tokio::join!(poll(0, 60), world.buy(10_000));
    assert_eq!((&heard[0]["command"], &heard[0]["subscriberIdentifier"]), (&json!("PLAN_CHANGED"), &json!(SUBSCRIBER)));
    let number = heard[0]["number"].as_i64().unwrap();
    let top_up = world.admin_post("/top-ups", json!({ "subscriberIdentifier": SUBSCRIBER, "octets": 5 }));
    let (heard, _) = tokio::join!(poll(number, 60), top_up);
    assert_eq!((&heard[0]["command"], heard.as_array().unwrap().len()), (&json!("REAUTHORISE"), 1));
    let switched = world.admin_post("/switches", json!({ "deviceId": "gw-1", "slot": "wwan0" })).await;
    assert_eq!(
        (&switched["iccid"], &switched["subscriberIdentifier"]),
        (&json!(SECOND_ICCID), &json!(SECOND_SUBSCRIBER))
    );
    let heard = poll(heard[0]["number"].as_i64().unwrap(), 60).await;
    assert_eq!((&heard[0]["command"], &heard[0]["subscriberIdentifier"]), (&json!("SWITCH"), &json!(SUBSCRIBER)));
    let bound =
        world.with_token(Method::POST, &device.path("bindings"), &token, Some(&json!({ "slot": "wwan0" }))).await;
    assert_eq!(bound.json(), switched);
    let command = world.admin_post("/commands", json!({ "deviceId": "gw-1", "command": "ABORT" })).await;
    let heard = poll(heard[0]["number"].as_i64().unwrap(), 60).await;
    assert_eq!(heard, json!([command]));
    assert_eq!(poll(command["number"].as_i64().unwrap(), 0).await, json!([]), "acknowledged is forgotten");
    let unknown = json!({ "deviceId": "gw-9", "command": "ABORT" });
    assert_eq!(world.admin(Method::POST, "/commands", Some(&unknown)).await.cause(), "DEVICE_NOT_FOUND");
    assert_eq!(world.admin_get("/devices").await["devices"][0]["bindings"][0]["iccid"], SECOND_ICCID);
}
