//! The API over TCP as a stranger meets it: real sockets, and an agent that answers nothing but its status.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::access::{Access, Token};
use super::captive::{self, Outlook, Passage};
use super::events::WATCHERS;
use super::metrics::render;
use super::tcp::{CONNECTIONS, accept, read_token, router};
use super::{Asker, Desk, Kind, LinkStatus, PackageStatus, Question, Status, Tidings, Timeline};
use crate::clock::{Clock, boot_now};
use crate::units::Octets;
use crate::usage::{SimUsage, SpanUsage, Sums};

const TOKEN: &str = "0123456789abcdef-secret";

/// Longer than any bound that is under test.
const LONG: Duration = Duration::from_mins(1);

/// A served API.
struct Served {
    address: SocketAddr,
    timeline: Timeline,
    /// How often the status was asked for.
    asked: Arc<AtomicUsize>,
}

/// What the agent of these tests holds.
fn status() -> Status {
    let link =
        LinkStatus { link: "wan\"0\\".into(), metered: true, state: "exhausted".into(), ..LinkStatus::default() };
    Status { device: "gw\n1".into(), version: "0".into(), links: vec![link], ..Status::default() }
}

/// What it tells hosts of its link.
fn outlook() -> Outlook {
    Outlook {
        subscriber: Some("imsi-001010000000001".into()),
        passage: Passage::Shut,
        left: Some(Octets::ZERO),
        portal: Some("https://shop.example/".into()),
    }
}

async fn serve(token: Option<&str>) -> Served {
    let (agent, asked) = agent();
    let timeline = Timeline::new(Clock::default());
    let token = token.map(|token| Token::of(token).expect("a token"));
    let router = router(Desk::new(agent, timeline.clone()), Access::new(token, Vec::new()));
    listening(router, asked, timeline).await
}

/// The captive portal API beside it.
async fn serve_captives() -> Served {
    let (agent, asked) = agent();
    listening(captive::router(agent), asked, Timeline::new(Clock::default())).await
}

/// An agent, and how often it is asked.
fn agent() -> (Asker, Arc<AtomicUsize>) {
    let asked = Arc::<AtomicUsize>::default();
    let count = Arc::clone(&asked);
    let agent = Asker::new(move |question| {
        count.fetch_add(1, Ordering::SeqCst);
        match question {
            // Whoever asked may have gone.
            Question::Status(reply) => drop(reply.send(status())),
            Question::Outlooks(reply) => drop(reply.send(vec![outlook()])),
            // Dropped, and so answered with "not now".
            Question::Account(_) | Question::Renew(..) | Question::Usage(..) => {}
        }
    });
    (agent, asked)
}

async fn listening(router: Router, asked: Arc<AtomicUsize>, timeline: Timeline) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { accept(&listener, &router).await });
    Served { address, timeline, asked }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connected")
    }

    /// Sends this and answers all that comes until the end of the connection.
    async fn exchange(&self, request: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The other end may have had enough before all is written, and may then be gone abruptly.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = timeout(LONG, stream.read_to_end(&mut answer)).await.expect("an end");
        String::from_utf8_lossy(&answer).into_owned()
    }

    async fn ask(&self, method: &str, path: &str, headers: &str) -> String {
        let host = self.address;
        self.exchange(format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n").as_bytes()).await
    }

    async fn get(&self, path: &str) -> String {
        self.ask("GET", path, "").await
    }

    /// One who watches: what it is told first.
    async fn watch(&self, headers: &str) -> (TcpStream, String) {
        let mut stream = self.connect().await;
        let request = format!("GET /api/v1/events HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.address);
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut told = vec![0; 8192];
        let length = timeout(LONG, stream.read(&mut told)).await.expect("an answer").expect("read");
        (stream, String::from_utf8_lossy(&told[..length]).into_owned())
    }
}

/// Reads on until the words come.
async fn hears(stream: &mut TcpStream, told: &mut String, words: &str) {
    hears_times(stream, told, words, 1).await;
}

/// Reads on until the words have come so often.
async fn hears_times(stream: &mut TcpStream, told: &mut String, words: &str, times: usize) {
    let reads = async {
        let mut part = vec![0; 8192];
        while told.matches(words).count() < times {
            let length = stream.read(&mut part).await.expect("read");
            assert!(length > 0, "it ended before {words:?}: {told}");
            told.push_str(&String::from_utf8_lossy(&part[..length]));
        }
    };
    timeout(LONG, reads).await.expect("the words");
}

fn code(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

#[tokio::test]
async fn every_answer_tells_the_browser_what_it_may_do() {
    let served = serve(None).await;
    for path in ["/", "/app.js", "/api/v1/status", "/metrics", "/nothing"] {
        let answer = served.get(path).await.to_lowercase();
        for header in [
            "content-security-policy: default-src 'none';",
            "frame-ancestors 'none'",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cross-origin-resource-policy: same-origin",
            "cache-control: no-",
        ] {
            assert!(answer.contains(header), "{path}: no {header} in {answer}");
        }
        assert!(!answer.contains("access-control-allow"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_wrong_name_and_a_foreign_page_get_nothing() {
    let served = serve(None).await;
    let named = |name: &str| format!("GET /api/v1/status HTTP/1.1\r\nHost: {name}\r\n\r\n");
    for path in ["/", "/api/v1/status", "/metrics", "/nothing"] {
        let request = named("evil.example").replace("/api/v1/status", path);
        assert_eq!(code(&served.exchange(request.as_bytes()).await), "421", "{path}");
    }
    assert_eq!(code(&served.exchange(b"GET / HTTP/1.1\r\n\r\n").await), "421", "no name");
    for foreign in ["Origin: http://evil.example\r\n", "Origin: null\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
        for method in ["GET", "POST"] {
            assert_eq!(code(&served.ask(method, "/api/v1/status", foreign).await), "403", "{method} {foreign}");
        }
    }
    assert_eq!(served.asked.load(Ordering::SeqCst), 0, "the agent was asked");
}

#[tokio::test]
async fn without_a_token_nothing_is_done_and_with_one_nothing_is_shown_to_others() {
    let open = serve(None).await;
    assert_eq!(code(&open.get("/api/v1/status").await), "200");
    assert_eq!(code(&open.ask("POST", "/api/v1/status", "").await), "403");
    let guarded = serve(Some(TOKEN)).await;
    for path in ["/api/v1/status", "/api/v1/events", "/metrics"] {
        for said in ["", "Authorization: Bearer wrong\r\n", "Authorization: Basic Og==\r\n"] {
            let answer = guarded.ask("GET", path, said).await;
            assert_eq!(code(&answer), "401", "{path} {said}");
            assert!(!answer.contains("exhausted") && !answer.contains(TOKEN), "{answer}");
        }
    }
    assert_eq!(guarded.asked.load(Ordering::SeqCst), 0, "the agent was asked");
    let said = format!("Authorization: Bearer {TOKEN}\r\n");
    assert!(guarded.ask("GET", "/api/v1/status", &said).await.contains("exhausted"));
    assert_eq!(code(&guarded.get("/").await), "200", "the page asks for the token, and holds nothing");
}

#[tokio::test]
async fn no_path_leads_to_a_file() {
    let served = serve(None).await;
    for path in [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/page/../app.js",
        "/app.js/",
        "/app.js%00",
        "/./app.js",
    ] {
        let answer = served.get(path).await;
        assert!(["400", "404"].contains(&code(&answer)) && !answer.contains("root:"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_read_no_further() {
    let served = serve(None).await;
    let header = format!("X-Large: {}\r\n", "x".repeat(64 << 10));
    let (path, many) = (format!("/{}", "x".repeat(64 << 10)), "X-Many: 1\r\n".repeat(200));
    for (path, headers) in [("/api/v1/status", header.as_str()), (&path, ""), ("/api/v1/status", &many)] {
        // 431 or 414; whoever sends more than is read may be cut off before it is heard.
        assert_ne!(code(&served.ask("GET", path, headers).await), "200");
    }
    assert_eq!(served.asked.load(Ordering::SeqCst), 0, "the agent was asked");
    // A body that nobody wants is not waited for.
    assert_eq!(code(&served.ask("GET", "/api/v1/status", "Content-Length: 1000000000\r\n").await), "200");
    assert_eq!(code(&served.get("/api/v1/status").await), "200", "others are served");
}

#[tokio::test]
async fn those_who_say_nothing_hold_their_places_for_a_moment_only() {
    let served = serve(None).await;
    let mut silent = Vec::new();
    for number in 0..CONNECTIONS {
        let mut stream = served.connect().await;
        let half: &[u8] = if number % 2 == 0 { b"" } else { b"GET /api/v1/status HTTP/1.1\r\nHost: " };
        stream.write_all(half).await.expect("sent");
        silent.push(stream);
    }
    assert_eq!(code(&served.get("/api/v1/status").await), "200");
    for mut stream in silent {
        let mut rest = Vec::new();
        // Ended, whether with a word or without.
        let _ = timeout(LONG, stream.read_to_end(&mut rest)).await.expect("an end");
    }
}

#[tokio::test]
async fn so_many_may_watch_and_whoever_goes_makes_room() {
    let served = serve(None).await;
    let mut watching = Vec::new();
    for _ in 0..WATCHERS {
        let (stream, told) = served.watch("").await;
        assert_eq!(code(&told), "200");
        watching.push(stream);
    }
    let refused = served.get("/api/v1/events").await;
    assert_eq!(code(&refused), "503");
    assert!(refused.contains("are watching already"), "{refused}");
    assert_eq!(code(&served.get("/api/v1/status").await), "200", "others are served");
    drop(watching.pop());
    // That it has gone is noticed when it is told something.
    let comes_in = async {
        while code(&served.watch("").await.1) != "200" {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, comes_in).await.expect("room");
}

#[tokio::test]
async fn statuses_are_made_once_for_all_who_watch_and_never_for_nobody() {
    let served = serve(None).await;
    let (mut one, mut told) = served.watch("").await;
    let (mut other, mut told_too) = served.watch("").await;
    let status = "event: status\ndata: {";
    hears_times(&mut one, &mut told, status, 3).await;
    hears_times(&mut other, &mut told_too, status, 3).await;
    let heard = told.matches(status).count() + told_too.matches(status).count();
    assert!(served.asked.load(Ordering::SeqCst) < heard, "one is made for each");
    drop((one, other));
    // One more status may be under way, and one is needed to notice that both have gone.
    let rests = async {
        loop {
            let before = served.asked.load(Ordering::SeqCst);
            sleep(Duration::from_millis(2500)).await;
            if served.asked.load(Ordering::SeqCst) == before {
                return;
            }
        }
    };
    timeout(LONG, rests).await.expect("nobody is asked for nobody");
}

#[tokio::test]
async fn whoever_comes_again_hears_what_was_missed_and_nothing_twice() {
    let served = serve(None).await;
    served.timeline.note(Some("wan0"), Tidings::new(Kind::Grant, "the first").about(7));
    let (mut stream, mut told) = served.watch("").await;
    hears(&mut stream, &mut told, "the first").await;
    assert!(told.contains("event: happening") && told.contains("\"octets\":7"), "{told}");
    served.timeline.note(None, Tidings::new(Kind::Problem, "the second"));
    hears(&mut stream, &mut told, "the second").await;
    let first = told.lines().find_map(|line| line.strip_prefix("id: ")).expect("a number").to_owned();
    let (mut again, mut told) = served.watch(&format!("Last-Event-ID: {first}\r\n")).await;
    hears(&mut again, &mut told, "the second").await;
    assert!(!told.contains("the first"), "{told}");
    let (mut stranger, mut told) = served.watch("Last-Event-ID: 1-99\r\n").await;
    hears(&mut stranger, &mut told, "the first").await;
}

#[tokio::test]
async fn captives_are_told_whatever_they_call_the_gateway_and_nothing_else_of_the_agent() {
    let served = serve_captives().await;
    let ask = |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nHost: portal.example\r\n\r\n");
    let answer = served.exchange(ask("GET", captive::PATH).as_bytes()).await;
    assert_eq!(code(&answer), "200");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
    let head = head.to_lowercase();
    assert!(
        head.contains("content-type: application/captive+json") && head.contains("cache-control: private"),
        "{head}"
    );
    let expected = r#"{"captive":true,"user-portal-url":"https://shop.example/","can-extend-session":true}"#;
    assert_eq!(body, expected, "no more than that, and no SIM");
    for (method, path, expected) in [
        ("POST", captive::PATH, "405"),
        ("DELETE", captive::PATH, "405"),
        ("GET", "/", "404"),
        ("GET", "/api/v1/status", "404"),
        ("POST", "/api/v1/renew", "404"),
        ("GET", "/metrics", "404"),
        ("GET", "/captive-portal/api/../../api/v1/status", "404"),
    ] {
        assert_eq!(code(&served.exchange(ask(method, path).as_bytes()).await), expected, "{method} {path}");
    }
}

#[tokio::test]
async fn captives_who_ask_again_and_again_ask_the_agent_once() {
    let served = serve_captives().await;
    let begin = boot_now().expect("a clock");
    let (mut answered, mut length) = (0, Duration::ZERO);
    while length < Duration::from_millis(1500) {
        assert_eq!(code(&served.get(captive::PATH).await), "200");
        answered += 1;
        length = boot_now().expect("a clock").since(begin);
    }
    let asked = served.asked.load(Ordering::SeqCst);
    assert!(asked < answered && asked as u64 <= length.as_secs() + 1, "{asked} for {answered} in {length:?}");
}

#[test]
fn a_token_that_everybody_can_read_is_not_taken() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("token");
    std::fs::write(&path, TOKEN).expect("written");
    let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
    set(0o644);
    let error = read_token(&path).expect_err("refused").to_string();
    assert!(error.contains("chmod o-rwx"), "{error}");
    set(0o640);
    read_token(&path).expect("taken");
    let missing = format!("{:#}", read_token(&directory.path().join("none")).expect_err("refused"));
    assert!(missing.contains("api.token_file"), "{missing}");
}

#[test]
fn labels_are_escaped() {
    let text = render(&status(), &[], None).expect("rendered");
    assert!(text.contains(r#"link="wan\"0\\""#) && text.contains(r#"device="gw\n1""#), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[test]
fn the_metrics_say_what_is_left_of_a_package_how_old_the_oldest_usage_is_and_what_the_server_has_ended() {
    let package = PackageStatus { left_octets: Some(7), ..PackageStatus::default() };
    let known = LinkStatus { link: "wan0".into(), package, ..LinkStatus::default() };
    let unknown = LinkStatus { link: "wan1".into(), aborted: true, refused: true, ..LinkStatus::default() };
    let oldest_unreported = Some("2026-11-28T12:00:00Z".into());
    let at = "2026-11-28T12:01:30.5Z".into();
    let text = render(&Status { at, oldest_unreported, links: vec![known, unknown], ..Status::default() }, &[], None);
    let text = text.expect("a text");
    for line in [
        "weir_package_left_octets{link=\"wan0\"} 7",
        "weir_oldest_unreported_seconds 90",
        "weir_link_aborted{link=\"wan0\"} 0",
        "weir_link_aborted{link=\"wan1\"} 1",
        "weir_link_refused{link=\"wan0\"} 0",
        "weir_link_refused{link=\"wan1\"} 1",
    ] {
        assert!(text.lines().any(|said| said == line), "no {line} in {text}");
    }
    assert!(!text.contains("package_left_octets{link=\"wan1\""), "{text}");
}

#[test]
fn the_metrics_say_what_the_billing_period_has_come_to() {
    let sums = Sums { uplink_octets: 3, downlink_octets: 4, ..Sums::default() };
    let sim = |estimate_octets| SimUsage { subscriber: "imsi-1".into(), sums, estimate_octets };
    let span = |sim| SpanUsage {
        begin: "2026-11-15T00:00:00+01:00".into(),
        end: "2026-12-15T00:00:00+01:00".into(),
        running: true,
        sums,
        estimate_octets: None,
        sims: vec![sim],
    };
    let text = render(&Status::default(), &[], Some(&span(sim(Some(90))))).expect("a text");
    for line in [
        "weir_period_begin_timestamp_seconds 1794697200",
        "weir_period_end_timestamp_seconds 1797289200",
        "weir_period_used_octets{sim=\"imsi-1\",direction=\"uplink\"} 3",
        "weir_period_used_octets{sim=\"imsi-1\",direction=\"downlink\"} 4",
        "weir_period_estimate_octets{sim=\"imsi-1\"} 90",
    ] {
        assert!(text.lines().any(|said| said == line), "no {line} in {text}");
    }
    let text = render(&Status::default(), &[], Some(&span(sim(None)))).expect("a text");
    assert!(!text.contains("weir_period_estimate_octets{"), "{text}");
}
