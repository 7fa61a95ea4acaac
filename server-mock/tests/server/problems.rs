//! Bad input: the member is named, and nothing is half applied.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{CREATE, NF_NAME, World, message, send};

async fn blamed(world: &World, path: &str, body: &Value) -> (u16, String, String) {
    let answer = world.post(path, body).await;
    let problem = answer.json();
    assert_eq!(problem["status"], answer.status);
    assert!(problem["title"].is_string() && problem["detail"].is_string());
    let param = problem["invalidParams"][0]["param"].as_str().unwrap_or_default().to_owned();
    (answer.status, answer.cause(), param)
}

#[tokio::test]
async fn a_member_that_is_missing_or_wrong_is_named_by_its_path() {
    let world = World::with_package(5000).await;
    let at = "multipleUnitUsage[0].usedUnitContainer[1]";
    let edits: [(&str, Option<Value>, &str, String); 9] = [
        ("/chargingId", None, "MANDATORY_IE_MISSING", "chargingId".to_owned()),
        ("/subscriberIdentifier", Some(json!("imsi-12")), "MANDATORY_IE_INCORRECT", "subscriberIdentifier".to_owned()),
        (
            "/nfConsumerIdentification/nFName",
            None,
            "MANDATORY_IE_MISSING",
            "nfConsumerIdentification.nFName".to_owned(),
        ),
        ("/invocationTimeStamp", Some(json!("noon")), "MANDATORY_IE_INCORRECT", "invocationTimeStamp".to_owned()),
        ("/invocationSequenceNumber", Some(json!(-1)), "MANDATORY_IE_INCORRECT", "invocationSequenceNumber".to_owned()),
        (
            "/multipleUnitUsage/0/usedUnitContainer/1/totalVolume",
            Some(json!(1u64 << 31)),
            "MANDATORY_IE_INCORRECT",
            format!("{at}.totalVolume"),
        ),
        (
            "/multipleUnitUsage/0/usedUnitContainer/1/totalVolume",
            Some(json!(21)),
            "MANDATORY_IE_INCORRECT",
            format!("{at}.totalVolume"),
        ),
        (
            "/multipleUnitUsage/0/usedUnitContainer/1/localSequenceNumber",
            None,
            "MANDATORY_IE_MISSING",
            format!("{at}.localSequenceNumber"),
        ),
        (
            "/multipleUnitUsage/0/usedUnitContainer/1/localSequenceNumber",
            Some(json!(1)),
            "MANDATORY_IE_INCORRECT",
            format!("{at}.localSequenceNumber"),
        ),
    ];
    for (pointer, value, cause, param) in edits {
        let mut body = message(0, 1000, &[(1, 10), (2, 20)]);
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        let parent = body.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        match value {
            Some(value) => drop(parent.insert(member.to_owned(), value)),
            None => drop(parent.remove(member)),
        }
        assert_eq!(blamed(&world, CREATE, &body).await, (400, cause.to_owned(), param), "{pointer}");
    }
    assert_eq!((world.used().await, world.reserved().await), (0, 0), "nothing was half applied");
    assert_eq!(world.admin_get("/sessions").await["sessions"], json!([]));
}

#[tokio::test]
async fn members_and_values_that_are_not_known_are_let_pass() {
    let world = World::with_package(5000).await;
    let mut body = message(0, 1000, &[(1, 10)]);
    body["supportedFeatures"] = "0".into();
    body["multipleUnitUsage"][0]["usedUnitContainer"][0]["triggers"][0]["triggerType"] = "MOON_PHASE".into();
    assert_eq!(world.post(CREATE, &body).await.status, 201);
}

#[tokio::test]
async fn a_message_over_256_kib_is_refused_whole() {
    let world = World::with_package(5000).await;
    let mut body = message(0, 1000, &[(1, 10)]);
    body["padding"] = "x".repeat(256 * 1024).into();
    let answer = world.post(CREATE, &body).await;
    assert_eq!((answer.status, answer.cause().as_str()), (413, "PAYLOAD_TOO_LARGE"));
    assert_eq!(world.used().await, 0);
    body["padding"] = "x".repeat(250 * 1024).into();
    assert_eq!(world.post(CREATE, &body).await.status, 201, "below the bound it passes");
}

#[tokio::test]
async fn what_is_not_json_or_not_there_gets_a_problem_document() {
    let world = World::with_package(5000).await;
    let broken = send(world.request(Method::POST, CREATE).body("{\"chargingId\":")).await.unwrap();
    assert_eq!((broken.status, broken.cause().as_str()), (400, "INVALID_MSG_FORMAT"));
    let trailing = send(world.request(Method::POST, CREATE).body(format!("{}x", message(0, 1, &[])))).await.unwrap();
    assert_eq!(trailing.cause(), "INVALID_MSG_FORMAT");
    let nowhere = send(world.request(Method::GET, "/nothing")).await.unwrap();
    assert_eq!((nowhere.status, nowhere.cause().as_str()), (404, "RESOURCE_URI_STRUCTURE_NOT_FOUND"));
    let wrong = send(world.request(Method::GET, CREATE)).await.unwrap();
    assert_eq!((wrong.status, wrong.cause().as_str()), (405, "METHOD_NOT_ALLOWED"));
}

#[tokio::test]
async fn a_key_header_must_say_what_the_message_says() {
    let world = World::with_package(5000).await;
    let body = message(0, 1000, &[]);
    let with_key = |key: String| send(world.request(Method::POST, CREATE).header("idempotency-key", key).json(&body));
    let wrong = with_key(format!("{NF_NAME}/1/0")).await.unwrap();
    assert_eq!((wrong.status, wrong.cause().as_str()), (400, "IDEMPOTENCY_KEY_MISMATCH"));
    let right = with_key(format!("{NF_NAME}/{}/0", crate::harness::CHARGING_ID)).await.unwrap();
    assert_eq!(right.status, 201);
}

#[tokio::test]
async fn administration_needs_the_admin_token_and_names_bad_members() {
    let world = World::with_package(5000).await;
    let stranger = send(world.request(Method::GET, "/admin/v1/sims").bearer_auth("guess")).await.unwrap();
    assert_eq!((stranger.status, stranger.cause().as_str()), (401, "INVALID_TOKEN"));
    let plan = json!({ "planId": "p", "totalVolume": 1, "whenUsedUp": "throttle", "failureHandling": "PRAY" });
    let refused = world.admin(Method::POST, "/plans", Some(&plan)).await.json();
    let params: Vec<_> =
        refused["invalidParams"].as_array().unwrap().iter().map(|param| param["param"].clone()).collect();
    assert_eq!(params, [json!("throttleRate"), json!("failureHandling")]);
    let misspelt = json!({ "planId": "p", "totalVolume": 1, "totalVolum": 1 });
    let refused = world.admin(Method::POST, "/plans", Some(&misspelt)).await.json();
    assert_eq!(refused["invalidParams"][0]["param"], "totalVolum");
}
