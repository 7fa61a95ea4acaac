//! However often a message comes, and whatever breaks on the way, it is charged once.

use rusqlite::Connection;
use serde_json::json;
use server_mock::{Database, Options, Repetition};

use crate::harness::{CREATE, World, lenient, message, one_time, release, retransmitted};

#[tokio::test]
async fn a_create_that_comes_again_gets_the_first_answer_and_makes_one_session() {
    let world = World::with_package(1_000_000).await;
    let first = world.post(CREATE, &message(0, 1000, &[])).await;
    world.hand.advance(server_mock::Seconds(5));
    let second = world.post(CREATE, &retransmitted(&message(0, 1000, &[]))).await;
    assert_eq!((first.status, &first), (201, &second));
    assert_eq!(world.admin_get("/sessions").await["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(world.reserved().await, 1000);
}

#[tokio::test]
async fn an_update_that_comes_again_is_debited_once_and_answered_to_the_octet_as_before() {
    let world = World::with_package(1_000_000).await;
    let update = format!("{}/update", world.session(1000).await);
    let first = world.post(&update, &message(1, 1000, &[(1, 800)])).await;
    world.hand.advance(server_mock::Seconds(5));
    let second = world.post(&update, &retransmitted(&message(1, 1000, &[(1, 800)]))).await;
    assert_eq!((first.status, &first), (200, &second));
    assert_eq!(world.used().await, 800);
    assert_eq!(world.entries("duplicate").await.len(), 0, "the stored answer is the first line of defence");
}

#[tokio::test]
async fn without_rule_1_whatever_comes_again_is_charged_again() {
    let world = World::start(Options { repetition: Repetition::Charged, ..lenient() }).await;
    world.add_sims().await;
    world.buy(1_000_000).await;
    let update = format!("{}/update", world.session(1000).await);
    for times in 1..=3 {
        assert_eq!(world.post(&update, &retransmitted(&message(1, 1000, &[(1, 800)]))).await.status, 200);
        assert_eq!(world.used().await, 800 * times);
    }
}

#[tokio::test]
async fn the_order_of_members_does_not_make_another_message() {
    let world = World::with_package(1_000_000).await;
    let update = format!("{}/update", world.session(1000).await);
    let text = message(1, 1000, &[(1, 800)]).to_string();
    let first = world.post(&update, &serde_json::from_str(&text).unwrap()).await;
    let inner = text.strip_prefix('{').unwrap();
    let moved = format!("{{\"retransmissionIndicator\":true, {inner}");
    let request = world.request(reqwest::Method::POST, &update).body(moved);
    assert_eq!(crate::harness::send(request).await.unwrap(), first);
    assert_eq!(world.used().await, 800);
}

#[tokio::test]
async fn a_release_that_comes_again_gets_its_204_and_gives_back_once() {
    let world = World::with_package(1_000_000).await;
    let path = format!("{}/release", world.session(1000).await);
    let first = world.post(&path, &release(1, &[(1, 300)])).await;
    let second = world.post(&path, &retransmitted(&release(1, &[(1, 300)]))).await;
    assert_eq!((first.status, first.text.as_str(), &first), (204, "", &second));
    assert_eq!((world.used().await, world.reserved().await), (300, 0));
    let given_back = world.entries("release").await;
    assert_eq!(given_back.len(), 1);
    assert_eq!(given_back[0]["totalVolume"], 700);
}

#[tokio::test]
async fn a_one_time_event_that_comes_again_is_debited_once_and_makes_no_session() {
    let world = World::with_package(1_000_000).await;
    let first = world.post(CREATE, &one_time(4, &[(9, 500)])).await;
    let second = world.post(CREATE, &retransmitted(&one_time(4, &[(9, 500)]))).await;
    assert_eq!((first.status, first.location.as_deref(), &first), (201, None, &second));
    assert_eq!(world.used().await, 500);
    assert_eq!(world.admin_get("/sessions").await["sessions"], json!([]));
}

#[tokio::test]
async fn a_key_used_for_another_message_is_refused_in_every_operation() {
    let world = World::with_package(1_000_000).await;
    let session = world.session(1000).await;
    let (update, end) = (format!("{session}/update"), format!("{session}/release"));
    assert_eq!(world.post(CREATE, &message(0, 2000, &[])).await.cause(), "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(world.post(&update, &message(1, 1000, &[(1, 800)])).await.status, 200);
    let reused = world.post(&update, &message(1, 1000, &[(1, 801)])).await;
    assert_eq!((reused.status, reused.cause().as_str()), (409, "IDEMPOTENCY_KEY_REUSED"));
    assert_eq!(world.post(&end, &message(1, 1000, &[(1, 800)])).await.status, 409, "another operation");
    assert_eq!(world.post(&end, &release(2, &[])).await.status, 204);
    assert_eq!(world.post(&end, &release(2, &[(2, 1)])).await.status, 409);
    assert_eq!(world.used().await, 800);
}

#[tokio::test]
async fn a_container_under_a_new_key_is_not_debited_again() {
    let world = World::with_package(1_000_000).await;
    let update = format!("{}/update", world.session(1000).await);
    world.post(&update, &message(1, 1000, &[(1, 400)])).await;
    let answer = world.post(&update, &message(2, 1000, &[(1, 400), (2, 50)])).await;
    assert_eq!((answer.status, world.used().await), (200, 450));
    let duplicates = world.entries("duplicate").await;
    assert_eq!((duplicates.len(), &duplicates[0]["localSequenceNumber"]), (1, &json!(1)));
}

#[tokio::test]
async fn orphaned_usage_that_was_booked_before_is_known_by_its_container() {
    let world = World::with_package(1_000_000).await;
    let session = world.session(1000).await;
    world.post(&format!("{session}/update"), &message(1, 1000, &[(1, 400)])).await;
    // The agent never saw the answer, and its session is gone when it asks again.
    assert_eq!(world.post(CREATE, &one_time(2, &[(1, 400), (2, 60)])).await.status, 201);
    assert_eq!(world.used().await, 460);
}

#[tokio::test]
async fn debit_and_stored_answer_hold_together_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("books.db");
    let world = World::start(Options { database: Database::File(file.clone()), ..lenient() }).await;
    world.add_sims().await;
    world.buy(1_000_000).await;
    let update = format!("{}/update", world.session(1000).await);
    let beside = Connection::open(&file).unwrap();
    let trap = "CREATE TRIGGER trap BEFORE INSERT ON answers BEGIN SELECT RAISE(ABORT, 'trap'); END";
    beside.execute_batch(trap).unwrap();
    assert_eq!(world.post(&update, &message(1, 1000, &[(1, 800)])).await.cause(), "SYSTEM_FAILURE");
    assert_eq!((world.used().await, world.reserved().await), (0, 1000), "the debit went with the answer");
    assert_eq!(world.entries("debit").await.len(), 0);
    beside.execute_batch("DROP TRIGGER trap").unwrap();
    assert_eq!(world.post(&update, &retransmitted(&message(1, 1000, &[(1, 800)]))).await.status, 200);
    assert_eq!(world.used().await, 800);
}

#[tokio::test]
async fn the_books_outlive_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options { database: Database::File(directory.path().join("books.db")), ..lenient() };
    let world = World::start(options.clone()).await;
    world.add_sims().await;
    world.buy(1_000_000).await;
    let update = format!("{}/update", world.session(1000).await);
    let first = world.post(&update, &message(1, 1000, &[(1, 800)])).await;
    world.server.stop().await;
    let world = World::start(options).await;
    assert_eq!(world.post(&update, &retransmitted(&message(1, 1000, &[(1, 800)]))).await, first);
    assert_eq!(world.used().await, 800);
}

#[tokio::test]
async fn messages_that_come_at_once_are_debited_once() {
    let world = World::with_package(1_000_000).await;
    let update = format!("{}/update", world.session(1000).await);
    let update = update.as_str();
    let body = message(1, 1000, &[(1, 800)]);
    let body = &body;
    let answers = futures::future::join_all((0..16).map(|_| world.post(update, body))).await;
    assert!(answers.iter().all(|answer| *answer == answers[0] && answer.status == 200));
    assert_eq!(world.used().await, 800);
}
