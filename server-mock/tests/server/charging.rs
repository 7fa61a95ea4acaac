//! Grants, reservations, final units, late usage.

use serde_json::json;
use server_mock::Seconds;

use crate::harness::{CHARGING_ID, CREATE, SUBSCRIBER, World, message, one_time, release};

#[tokio::test]
async fn a_grant_replaces_what_the_session_held() {
    let world = World::with_package(10_000).await;
    let session = world.session(4000).await;
    assert_eq!(world.reserved().await, 4000);
    let answer = world.post(&format!("{session}/update"), &message(1, 3000, &[(1, 1000)])).await;
    assert_eq!((answer.granted(), world.used().await, world.reserved().await), (3000, 1000, 3000));
    let unit = answer.unit();
    assert_eq!((&unit["validityTime"], &unit["volumeQuotaThreshold"]), (&json!(600), &json!(600)));
    assert_eq!(unit.get("finalUnitIndication"), None);
    assert_eq!(unit.get("quotaHoldingTime"), None);
}

#[tokio::test]
async fn what_the_session_holds_itself_can_be_granted_to_it_anew() {
    let world = World::with_package(5000).await;
    let update = format!("{}/update", world.session(4000).await);
    assert_eq!(world.post(&update, &message(1, 4500, &[])).await.granted(), 4500);
    assert_eq!(world.reserved().await, 4500);
}

#[tokio::test]
async fn without_a_volume_the_plans_chunk_is_granted() {
    let world = World::start(crate::harness::lenient()).await;
    world.add_sims().await;
    world
        .admin_post(
            "/plans",
            json!({ "planId": "small", "totalVolume": 100_000, "chunk": 7000, "quotaHoldingTime": 30 }),
        )
        .await;
    let bought = json!({ "subscriberIdentifier": SUBSCRIBER, "planId": "small", "totalVolume": 50_000 });
    let package = world.admin_post("/purchases", bought).await;
    assert_eq!((&package["totalVolume"], &package["chunk"]), (&json!(50_000), &json!(7000)), "the purchase overrides");
    let mut create = message(0, 0, &[]);
    create["multipleUnitUsage"][0]["requestedUnit"] = json!({});
    let answer = world.post(CREATE, &create).await;
    assert_eq!((answer.granted(), &answer.unit()["quotaHoldingTime"]), (7000, &json!(30)));
}

#[tokio::test]
async fn the_last_grant_says_what_still_passes() {
    let rule = "permit in ip from any to 192.0.2.10";
    let server = json!({ "redirectAddressType": "URL", "redirectServerAddress": "https://portal.example/" });
    for (members, said) in [
        (
            json!({ "finalUnitAction": "RESTRICT_ACCESS", "restrictionFilterRules": [rule], "filterIds": ["a", "b"] }),
            json!({ "finalUnitAction": "RESTRICT_ACCESS", "restrictionFilterRule": rule, "filterIdList": ["a", "b"] }),
        ),
        (
            json!({ "finalUnitAction": "RESTRICT_ACCESS", "restrictionFilterRules": [rule, rule], "filterIds": ["a"] }),
            json!({ "finalUnitAction": "RESTRICT_ACCESS", "restrictionFilterRuleList": [rule, rule], "filterId": "a" }),
        ),
        (
            json!({ "finalUnitAction": "REDIRECT", "redirectServer": server }),
            json!({ "finalUnitAction": "REDIRECT", "redirectServer": server }),
        ),
    ] {
        let world = World::start(crate::harness::lenient()).await;
        world.add_sims().await;
        let mut bought = json!({ "subscriberIdentifier": SUBSCRIBER, "totalVolume": 5000 });
        bought.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        world.admin_post("/purchases", bought).await;
        let last = world.post(CREATE, &message(0, 5000, &[])).await;
        assert_eq!((last.granted(), &last.unit()["finalUnitIndication"]), (5000, &said));
    }
}

#[tokio::test]
async fn the_last_grant_says_so_and_then_nothing_is_left_until_a_top_up() {
    let world = World::with_package(5000).await;
    let update = format!("{}/update", world.session(4000).await);
    let last = world.post(&update, &message(1, 4000, &[(1, 4000)])).await;
    assert_eq!((last.granted(), &last.unit()["resultCode"]), (1000, &json!("SUCCESS")));
    assert_eq!(last.unit()["finalUnitIndication"], json!({ "finalUnitAction": "TERMINATE" }));
    let none = world.post(&update, &message(2, 4000, &[(2, 1000)])).await;
    assert_eq!((none.granted(), &none.unit()["resultCode"]), (0, &json!("QUOTA_LIMIT_REACHED")));
    assert_eq!(none.unit()["finalUnitIndication"], json!({ "finalUnitAction": "TERMINATE" }));
    world.admin_post("/top-ups", json!({ "subscriberIdentifier": SUBSCRIBER, "octets": 9000 })).await;
    let more = world.post(&update, &message(3, 4000, &[])).await;
    assert_eq!((more.granted(), more.unit().get("finalUnitIndication")), (4000, None));
}

#[tokio::test]
async fn what_another_session_holds_is_not_granted_twice() {
    let world = World::with_package(5000).await;
    let first = world.session(4000).await;
    let mut other = message(0, 4000, &[]);
    other["chargingId"] = 7.into();
    assert_eq!(world.post(CREATE, &other).await.granted(), 1000);
    assert_eq!(world.post(&format!("{first}/release"), &release(1, &[(1, 100)])).await.status, 204);
    other["chargingId"] = 8.into();
    assert_eq!(world.post(CREATE, &other).await.granted(), 3900, "the unused part came back with the release");
}

#[tokio::test]
async fn a_reservation_ends_at_twice_the_validity_and_gives_back_only_what_is_unused() {
    let world = World::with_package(10_000).await;
    let update = format!("{}/update", world.session(4000).await);
    let mut report = message(1, 0, &[(1, 1500)]);
    report["multipleUnitUsage"][0].as_object_mut().unwrap().remove("requestedUnit");
    let answer = world.post(&update, &report).await;
    assert_eq!((answer.unit().get("grantedUnit"), world.reserved().await), (None, 2500), "the grant stays");
    world.hand.advance(Seconds(1199));
    assert_eq!(world.reserved().await, 2500);
    world.hand.advance(Seconds(1));
    assert_eq!((world.reserved().await, world.used().await), (0, 1500));
    let ended = world.entries("expire").await;
    assert_eq!((ended.len(), &ended[0]["totalVolume"]), (1, &json!(2500)));
}

#[tokio::test]
async fn usage_after_the_reservation_ended_is_debited_even_beyond_the_package() {
    let world = World::with_package(5000).await;
    let session = world.session(4000).await;
    world.hand.advance(Seconds(1200));
    let late = world.post(&format!("{session}/update"), &message(1, 1000, &[(1, 5400)])).await;
    assert_eq!((late.status, &late.unit()["resultCode"]), (200, &json!("QUOTA_LIMIT_REACHED")));
    let package = world.package().await;
    assert_eq!((&package["balance"], &package["overdrawnVolume"]), (&json!(-400), &json!(400)));
    assert_eq!(package["remainingVolume"], 0);
}

#[tokio::test]
async fn octets_outside_the_quota_are_booked_but_not_debited() {
    let world = World::with_package(5000).await;
    let session = world.session(1000).await;
    let mut throttled = message(1, 1000, &[(1, 640), (2, 100)]);
    throttled["multipleUnitUsage"][0]["usedUnitContainer"][0]["quotaManagementIndicator"] = "OFFLINE_CHARGING".into();
    assert_eq!(world.post(&format!("{session}/update"), &throttled).await.status, 200);
    let package = world.package().await;
    assert_eq!((&package["usedVolume"], &package["offlineVolume"]), (&json!(100), &json!(640)));
    let stats = world.admin_get("/stats").await["subscribers"][0].clone();
    assert_eq!((&stats["debitedVolume"], &stats["offlineVolume"]), (&json!(100), &json!(640)));
    assert_eq!((&stats["debitedUplinkVolume"], &stats["debitedDownlinkVolume"]), (&json!(25), &json!(75)));
}

#[tokio::test]
async fn a_backlog_is_debited_container_by_container() {
    let world = World::with_package(1_000_000).await;
    let update = format!("{}/update", world.session(1000).await);
    let backlog: Vec<_> = (1..=50).map(|number| (number, 10 + u64::from(number))).collect();
    assert_eq!(world.post(&update, &message(1, 1000, &backlog)).await.status, 200);
    let entries = world.entries("debit").await;
    let numbers: Vec<_> = entries.iter().map(|entry| entry["localSequenceNumber"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=50).collect::<Vec<_>>());
    assert_eq!(entries[49]["balance"], 1_000_000 - world.used().await);
    assert_eq!(world.used().await, 50 * 10 + 50 * 51 / 2);
}

#[tokio::test]
async fn a_package_whose_time_is_over_grants_nothing_and_makes_room_for_the_next() {
    let world = World::start(crate::harness::lenient()).await;
    world.add_sims().await;
    let day = json!({ "subscriberIdentifier": SUBSCRIBER, "totalVolume": 5000, "validFor": 90 });
    world.admin_post("/purchases", day.clone()).await;
    let create = world.post(CREATE, &message(0, 1000, &[])).await;
    assert_eq!((create.granted(), &create.unit()["validityTime"]), (1000, &json!(90)));
    let again = world.admin(reqwest::Method::POST, "/purchases", Some(&day)).await;
    assert_eq!(again.cause(), "PACKAGE_EXISTS");
    world.hand.advance(Seconds(90));
    let update = format!("{}/update", create.location.unwrap());
    let over = world.post(&update, &message(1, 1000, &[(1, 10)])).await;
    assert_eq!(over.unit()["resultCode"], "QUOTA_LIMIT_REACHED");
    world.admin_post("/purchases", day).await;
    assert_eq!(world.post(&update, &message(2, 1000, &[])).await.granted(), 1000);
}

#[tokio::test]
async fn a_rating_group_without_a_package_fails_alone() {
    let world = World::with_package(5000).await;
    let mut create = message(0, 1000, &[]);
    let mut other = create["multipleUnitUsage"][0].clone();
    other["ratingGroup"] = 11.into();
    create["multipleUnitUsage"].as_array_mut().unwrap().push(other);
    let answer = world.post(CREATE, &create).await.json();
    let codes: Vec<_> =
        answer["multipleUnitInformation"].as_array().unwrap().iter().map(|unit| unit["resultCode"].clone()).collect();
    assert_eq!(codes, [json!("SUCCESS"), json!("RATING_FAILED")]);
}

#[tokio::test]
async fn unknown_sessions_and_subscribers_are_named_as_such() {
    let world = World::with_package(5000).await;
    let session = world.session(1000).await;
    let nowhere = format!("{CREATE}/7b9f2c1e-52a1-4a86-8d0e-0d4a5a8f9c33/update");
    let answer = world.post(&nowhere, &message(1, 1, &[(1, 5)])).await;
    assert_eq!((answer.status, answer.cause().as_str()), (404, "CONTEXT_NOT_FOUND"));
    assert_eq!(world.post(&format!("{session}/release"), &release(1, &[])).await.status, 204);
    let answer = world.post(&format!("{session}/update"), &message(2, 1, &[(1, 5)])).await;
    assert_eq!(answer.cause(), "CONTEXT_NOT_FOUND");
    assert_eq!(world.post(CREATE, &one_time(3, &[(1, 5)])).await.status, 201, "the usage goes as a one-time event");
    assert_eq!(world.used().await, 5);
    let mut stranger = message(0, 1, &[]);
    stranger["subscriberIdentifier"] = "imsi-999990000000000".into();
    stranger["chargingId"] = (CHARGING_ID + 1).into();
    assert_eq!(world.post(CREATE, &stranger).await.cause(), "USER_UNKNOWN");
}
