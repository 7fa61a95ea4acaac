//! One attempt each against a server that answers once, in an odd way.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::clock::Clock;
use crate::quota::{MessageKey, Operation, Outcome};
use crate::reporter::{Attempt, AttemptKind, Attempted, Connections, Http, HttpSettings, Reporter, Route};
use crate::units::{ChargingId, InvocationSequenceNumber, SessionRef};

const BODY: &[u8] = br#"{"multipleUnitUsage":[{"ratingGroup":10,"requestedUnit":{"totalVolume":9}}]}"#;
const GOOD: &str =
    r#"{"invocationSequenceNumber":3,"multipleUnitInformation":[{"ratingGroup":10,"grantedUnit":{"totalVolume":9}}]}"#;

/// Takes one request from the wire, whole.
pub(crate) async fn request(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        assert!(stream.read_buf(&mut read).await.unwrap() > 0, "the request ended early: {text}");
    }
}

pub(crate) fn http(port: u16, answer_timeout: Duration) -> Http {
    let url = format!("http://127.0.0.1:{port}/").parse().unwrap();
    Http::new(HttpSettings { url, ..settings(answer_timeout) }, Clock::default()).unwrap()
}

fn settings(answer_timeout: Duration) -> HttpSettings {
    HttpSettings {
        url: "http://127.0.0.1:1/".parse().unwrap(),
        tls_ca: None,
        connect_timeout: Duration::from_secs(5),
        answer_timeout,
        connections: Connections::Kept,
    }
}

async fn attempt_at(port: u16, kind: AttemptKind, answer_timeout: Duration) -> Attempted {
    attempt_by(&Reporter::new(http(port, answer_timeout), Uuid::nil()), kind).await
}

async fn attempt_by(reporter: &Reporter, kind: AttemptKind) -> Attempted {
    reporter.attempt(update(&SessionRef::new("ref-1"), kind)).await
}

fn update(session_ref: &SessionRef, kind: AttemptKind) -> Attempt<'_> {
    Attempt {
        operation: Operation::Update,
        key: MessageKey { session: ChargingId::new(7), number: InvocationSequenceNumber::new(3) },
        body: BODY,
        session_ref: Some(session_ref),
        kind,
        token: Some("secret"),
        route: &Route::Routed,
    }
}

/// The outcome of one attempt at a server that answers with these octets and then closes, and what the server was sent.
async fn answered_with(octets: Vec<u8>, kind: AttemptKind) -> (Attempted, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let sent = request(&mut stream).await;
        // The client may have heard enough before everything was written.
        let _ = stream.write_all(&octets).await;
        let _ = stream.shutdown().await;
        sent
    };
    tokio::join!(attempt_at(port, kind, Duration::from_secs(30)), serve)
}

fn response(head: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn unanswered(attempted: &Attempted) -> (Option<Duration>, &str) {
    match &attempted.outcome {
        Outcome::Unanswered { retry_after, reason } => (*retry_after, reason),
        other => panic!("{other:?}"),
    }
}

fn not_taken(attempted: &Attempted) -> (Option<Duration>, &str) {
    match &attempted.outcome {
        Outcome::NotTaken { retry_after, reason } => (*retry_after, reason),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_attempt_carries_token_key_and_the_sealed_octets() {
    let (attempted, sent) = answered_with(response("200 OK", GOOD), AttemptKind::First).await;
    assert!(matches!(attempted.outcome, Outcome::Answered(_)), "{attempted:?}");
    assert!(sent.starts_with("POST /nchf-convergedcharging/v3/chargingdata/ref-1/update HTTP/1.1\r\n"), "{sent}");
    let head = sent.to_lowercase();
    assert!(head.contains("idempotency-key: 00000000-0000-0000-0000-000000000000/ref-1/3\r\n"), "{sent}");
    assert!(head.contains("authorization: bearer secret\r\n") && head.contains("content-type: application/json\r\n"));
    assert!(sent.as_bytes().ends_with(BODY));
}

#[tokio::test]
async fn a_retransmission_says_so_at_the_end() {
    let (_, sent) = answered_with(response("200 OK", GOOD), AttemptKind::Retransmission).await;
    assert!(sent.ends_with(r#"}],"retransmissionIndicator":true}"#), "{sent}");
}

#[tokio::test]
async fn a_refused_connection_has_taken_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let attempted = attempt_at(port, AttemptKind::First, Duration::from_secs(30)).await;
    assert!(not_taken(&attempted).1.contains("refused"), "{attempted:?}");
}

#[tokio::test]
async fn a_handshake_that_fails_has_taken_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://127.0.0.1:{}/", listener.local_addr().unwrap().port()).parse().unwrap();
    let reporter = Reporter::new(
        Http::new(HttpSettings { url, ..settings(Duration::from_secs(30)) }, Clock::default()).unwrap(),
        Uuid::nil(),
    );
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.write_all(b"this is no TLS").await;
        let _ = stream.shutdown().await;
    };
    let (attempted, ()) = tokio::join!(attempt_by(&reporter, AttemptKind::First), serve);
    not_taken(&attempted);
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_in_time_has_taken_nothing() {
    // The handshake of TLS is part of it: the kernel takes the connection, and nobody says a word.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://127.0.0.1:{}/", listener.local_addr().unwrap().port()).parse().unwrap();
    let connect_timeout = Duration::from_millis(200);
    let http = Http::new(HttpSettings { url, connect_timeout, ..settings(Duration::from_secs(30)) }, Clock::default())
        .unwrap();
    let attempted = attempt_by(&Reporter::new(http, Uuid::nil()), AttemptKind::First).await;
    assert!(not_taken(&attempted).1.contains("timed out"), "{attempted:?}");
}

#[tokio::test]
async fn a_request_that_cannot_even_be_written_has_taken_nothing() {
    let reporter = Reporter::new(http(1, Duration::from_secs(30)), Uuid::nil());
    let session_ref = SessionRef::new("ref-1");
    let attempt = Attempt { token: Some("two\nlines"), ..update(&session_ref, AttemptKind::First) };
    not_taken(&reporter.attempt(attempt).await);
    let nameless = Attempt { session_ref: None, ..update(&session_ref, AttemptKind::First) };
    not_taken(&reporter.attempt(nameless).await);
}

#[tokio::test]
async fn a_connection_that_breaks_after_a_part_of_the_request_leaves_it_open_what_was_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut some = [0; 20];
        stream.read_exact(&mut some).await.unwrap();
        // Closed with octets unread: a reset.
    };
    let (attempted, ()) = tokio::join!(attempt_at(port, AttemptKind::First, Duration::from_secs(30)), serve);
    unanswered(&attempted);
}

#[tokio::test]
async fn an_answer_that_drips_in_for_ever_is_given_up_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let drip = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").await;
        while stream.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let attempt = attempt_at(port, AttemptKind::First, Duration::from_millis(500));
    let (attempted, ()) = tokio::join!(attempt, drip);
    assert!(unanswered(&attempted).1.contains("timed out"), "{attempted:?}");
}

#[tokio::test]
async fn a_server_that_charges_what_comes_again_gets_each_message_over_a_connection_of_its_own() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://127.0.0.1:{}/", listener.local_addr().unwrap().port()).parse().unwrap();
    let settings = HttpSettings { url, connections: Connections::Fresh, ..settings(Duration::from_secs(30)) };
    let reporter = Reporter::new(Http::new(settings, Clock::default()).unwrap(), Uuid::nil());
    for _ in 0..2 {
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await;
            stream.write_all(&response("200 OK", GOOD)).await.unwrap();
            stream
        };
        let (attempted, _kept_open) = tokio::join!(attempt_by(&reporter, AttemptKind::First), serve);
        assert!(matches!(attempted.outcome, Outcome::Answered(_)), "{attempted:?}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_in_time_is_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // The kernel takes the connection; nobody ever reads it.
    let attempted = attempt_at(port, AttemptKind::First, Duration::from_millis(300)).await;
    assert!(unanswered(&attempted).1.contains("timed out"), "{attempted:?}");
}

#[tokio::test]
async fn a_connection_closed_without_a_word_is_no_answer_and_is_not_tried_again() {
    let (attempted, _) = answered_with(Vec::new(), AttemptKind::First).await;
    // A second try would find nobody who answers, and end with the time-out.
    assert!(!unanswered(&attempted).1.contains("timed out"), "{attempted:?}");
}

#[tokio::test]
async fn garbage_is_no_answer() {
    for octets in [
        b"garbage\r\n\r\n".to_vec(),
        response("200 OK", "garbage"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec(),
    ] {
        let (attempted, _) = answered_with(octets, AttemptKind::First).await;
        unanswered(&attempted);
    }
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let (attempted, _) = answered_with(response("200 OK", &" ".repeat(300 << 10)), AttemptKind::First).await;
    assert!(unanswered(&attempted).1.contains("longer than 262144 octets"), "{attempted:?}");
}

#[tokio::test]
async fn a_redirection_is_not_followed() {
    let octets = response("307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/", "");
    let (attempted, _) = answered_with(octets, AttemptKind::First).await;
    assert!(not_taken(&attempted).1.contains("307"), "{attempted:?}");
}

#[tokio::test]
async fn retry_after_is_passed_on() {
    let (attempted, _) = answered_with(response("503 Busy\r\nRetry-After: 9", ""), AttemptKind::First).await;
    assert_eq!(not_taken(&attempted).0, Some(Duration::from_secs(9)));
    let dated = "429 Slow\r\nDate: Mon, 23 Nov 2026 08:00:00 GMT\r\nRetry-After: Mon, 23 Nov 2026 08:00:05 GMT";
    let (attempted, _) = answered_with(response(dated, ""), AttemptKind::First).await;
    assert_eq!(not_taken(&attempted).0, Some(Duration::from_secs(5)));
}

#[tokio::test]
async fn a_refused_token_is_told_apart() {
    let (attempted, _) = answered_with(response("401 Unauthorized", ""), AttemptKind::First).await;
    assert!(attempted.token_refused && not_taken(&attempted).1.contains("token"));
    let (attempted, _) = answered_with(response("200 OK", GOOD), AttemptKind::First).await;
    assert!(!attempted.token_refused);
}

#[tokio::test]
async fn a_route_over_a_device_uses_that_device_and_its_own_connections() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let http = http(listener.local_addr().unwrap().port(), Duration::from_secs(30));
    let nowhere = Route::Device("weir-none".to_owned());
    let sent = http.client(&nowhere).unwrap().get(http.address("/x")).send().await;
    assert!(sent.is_err(), "an interface that does not exist cannot carry a request");
    http.forget(&nowhere);
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        stream.write_all(&response("204 No Content", "")).await.unwrap();
    };
    let loopback = http.client(&Route::Device("lo".to_owned())).unwrap();
    let (answer, ()) = tokio::join!(loopback.get(http.address("/x")).send(), serve);
    assert_eq!(answer.unwrap().status().as_u16(), 204);
}

#[tokio::test]
async fn a_server_whose_name_nobody_resolves_any_more_is_reached_at_its_last_known_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // RFC 6761: no resolver knows such a name.
    let url = format!("http://charging.invalid:{}/", address.port()).parse().unwrap();
    let http = Http::new(HttpSettings { url, ..settings(Duration::from_secs(30)) }, Clock::default()).unwrap();
    http.addresses().learn(&[address]);
    http.addresses().learn(&[]);
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let sent = request(&mut stream).await;
        stream.write_all(&response("200 OK", GOOD)).await.unwrap();
        sent
    };
    let reporter = Reporter::new(http, Uuid::nil());
    let (attempted, sent) = tokio::join!(attempt_by(&reporter, AttemptKind::First), serve);
    assert!(matches!(attempted.outcome, Outcome::Answered(_)), "{attempted:?}");
    assert!(sent.to_lowercase().contains("host: charging.invalid"), "{sent}");
}
