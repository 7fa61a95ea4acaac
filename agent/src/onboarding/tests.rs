//! Each call against a server of a few lines, with the golden files as its answers.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use uuid::Uuid;

use super::*;
use crate::quota::{FailureHandling, FinalUnitAction, OfflineGrace, WhenUsedUp};
use crate::reporter::tests::attempts::{http, request};
use crate::reporter::tests::{assert_passes, minified, wire_file};
use crate::units::{OctetRate, Octets, RatingGroup, SubscriberIdentifier};

const ROUTED: &Route = &Route::Routed;

fn golden(name: &str) -> String {
    wire_file(&format!("golden/{name}.json"))
}

/// One answer of the server: status line with headers, and body.
type Scripted = (&'static str, String);

fn ok(body: &str) -> Scripted {
    ("200 OK", golden(body))
}

/// A server that gives these answers, one to a connection, and the client of it.
struct Scene {
    listener: TcpListener,
    client: Onboarding,
    _dir: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let device = Device {
            id: "gw-0001".to_owned(),
            serial: "SN-2026-0001".to_owned(),
            model: "edge-200".to_owned(),
            key_file: PathBuf::new(),
            claim_code_file: None,
            nf_instance_id: Uuid::parse_str("3f0d7c5e-8a3b-4c0e-9c0a-2f1f6f7d1a10").unwrap(),
        };
        let key = DeviceKey::load_or_create(&dir.path().join("device.pem")).unwrap();
        let http = http(listener.local_addr().unwrap().port(), Duration::from_secs(30));
        Self { listener, client: Onboarding::new(http, device, key), _dir: dir }
    }

    /// What the server is asked while it gives these answers. More or fewer requests than answers fail the test.
    async fn play<T>(&self, answers: Vec<Scripted>, calls: impl Future<Output = T>) -> (T, Vec<String>) {
        let serve = async {
            let mut asked = Vec::new();
            for (head, body) in answers {
                let (mut stream, _) = self.listener.accept().await.unwrap();
                asked.push(request(&mut stream).await);
                let length = body.len();
                let text = format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
                stream.write_all(text.as_bytes()).await.unwrap();
            }
            asked
        };
        let both = async { tokio::join!(calls, serve) };
        tokio::time::timeout(Duration::from_secs(20), both).await.expect("as many requests as answers")
    }
}

fn body(request: &str) -> &str {
    request.split_once("\r\n\r\n").unwrap().1
}

fn first_line(request: &str) -> &str {
    request.lines().next().unwrap()
}

fn slot(name: &str) -> Modem {
    Modem { slot: name.to_owned(), imei: None, iccid: None }
}

fn wwan0() -> Modem {
    Modem {
        slot: "wwan0".to_owned(),
        imei: Some("356938035643809".to_owned()),
        iccid: Some("8900100000000000001".to_owned()),
    }
}

#[tokio::test]
async fn registering_sends_the_golden_request() {
    let scene = Scene::new().await;
    let modems = [wwan0(), slot("wwan1")];
    let call = scene.client.register(ROUTED, &modems, Some("K7QF-2M9X"));
    let (answer, asked) = scene.play(vec![("201 Created", golden("register.response"))], call).await;
    answer.unwrap();
    let expected = minified(&golden("register.request"))
        .replace("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", &scene.client.key.public_x())
        .replace("\"0.1.0\"", concat!("\"", env!("CARGO_PKG_VERSION"), "\""));
    assert_eq!(body(&asked[0]), expected);
    assert_eq!(first_line(&asked[0]), "POST /onboarding/v1/devices HTTP/1.1");
    assert_passes("RegisterRequest", body(&asked[0]).as_bytes());
}

#[tokio::test]
async fn logging_in_signs_an_assertion_that_the_public_key_verifies() {
    let scene = Scene::new().await;
    let (token, asked) = scene.play(vec![ok("token.response")], scene.client.token(ROUTED)).await;
    assert_eq!(token.unwrap(), "u3bJ0d0m6Pq0S8kXo2y7ZkXy3v3H1cQ4G8Lk0aJpE2M");
    assert!(asked[0].to_lowercase().contains("content-type: application/x-www-form-urlencoded\r\n"));

    let form = Url::parse(&format!("http://form/?{}", body(&asked[0]))).unwrap();
    let form: serde_json::Map<_, _> =
        form.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned().into())).collect();
    assert_passes("TokenRequest", &serde_json::to_vec(&form).unwrap());
    let mut expected: serde_json::Value = serde_json::from_str(&golden("token.request")).unwrap();
    let assertion = form["client_assertion"].as_str().unwrap().to_owned();
    expected["client_assertion"] = assertion.clone().into();
    assert_eq!(serde_json::Value::from(form), expected);

    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).unwrap();
    let (signed, signature) = assertion.rsplit_once('.').unwrap();
    let public = decode(&scene.client.key.public_x());
    let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, public);
    public.verify(signed.as_bytes(), &decode(signature)).unwrap();
    let claims = decode(signed.split_once('.').unwrap().1);
    assert_passes("AssertionClaims", &claims);
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    assert_eq!(claims["aud"], scene.client.http.address("/onboarding/v1/oauth2/token"));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 120);
}

#[tokio::test]
async fn a_clock_that_is_far_off_gives_way_to_the_servers() {
    let scene = Scene::new().await;
    let dated = "401 Unauthorized\r\nDate: Wed, 23 Nov 2033 08:00:00 GMT";
    let answers = vec![(dated, golden("token-error.response")), ok("token.response")];
    let (token, asked) = scene.play(answers, scene.client.token(ROUTED)).await;
    assert!(token.is_ok(), "the refusal has told the time, and the next assertion is dated by it: {token:?}");
    let claims = asked[1].split('.').rev().nth(1).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    let date: jiff::Timestamp = "2033-11-23T08:00:00Z".parse().unwrap();
    assert!((claims["iat"].as_i64().unwrap() - date.as_second()).abs() < 30, "{claims}");
}

#[tokio::test]
async fn a_refusal_that_is_not_about_the_time_is_a_refusal() {
    let scene = Scene::new().await;
    let refused = ("401 Unauthorized", golden("token-error.response"));
    let (token, _) = scene.play(vec![refused], scene.client.token(ROUTED)).await;
    let detail = "the assertion's signature does not match the device's key".to_owned();
    let expected = OnboardingError::Refused { status: 401, cause: "invalid_client".to_owned(), detail };
    assert_eq!(token, Err(expected));
}

#[tokio::test]
async fn a_token_is_kept_while_it_lasts() {
    let scene = Scene::new().await;
    let calls = async {
        scene.client.bind(ROUTED, &wwan0()).await.unwrap();
        scene.client.bind(ROUTED, &slot("wwan1")).await.unwrap()
    };
    let binding = |slot: &str| ("201 Created", golden("binding.response").replace("wwan0", slot));
    let (bound, asked) = scene.play(vec![ok("token.response"), binding("wwan0"), binding("wwan1")], calls).await;
    assert_eq!(first_line(&asked[1]), "POST /onboarding/v1/devices/gw-0001/bindings HTTP/1.1");
    assert!(asked[1].to_lowercase().contains("authorization: bearer u3bj0d0m"));
    assert_eq!(body(&asked[1]), minified(&golden("binding.request")));
    assert_eq!(body(&asked[2]), minified(&golden("binding-any.request")));
    let expected = Binding {
        id: "5d0a9f64-2f0e-4a3c-9a6c-0f3b7a1d2e55".to_owned(),
        slot: "wwan1".to_owned(),
        subscriber: SubscriberIdentifier::new("imsi-001010000000001"),
        iccid: Some("8900100000000000001".to_owned()),
        apn: "internet".to_owned(),
        rating_groups: vec![RatingGroup::new(10)],
    };
    assert_eq!(bound, expected);
    let kept = serde_json::to_string(&bound).unwrap();
    assert_eq!(serde_json::from_str::<Binding>(&kept).unwrap(), bound);
}

#[tokio::test]
async fn a_token_that_is_refused_or_nearly_over_is_replaced() {
    let scene = Scene::new().await;
    let calls = async {
        let first = scene.client.bind(ROUTED, &wwan0()).await;
        let second = scene.client.bind(ROUTED, &wwan0()).await;
        (first, second, scene.client.bind(ROUTED, &wwan0()).await)
    };
    let short = golden("token.response").replace("3600", "1");
    let answers = vec![
        ok("token.response"),
        ("401 Unauthorized", r#"{"cause":"INVALID_TOKEN","detail":"unknown"}"#.to_owned()),
        ("200 OK", short),
        ("201 Created", golden("binding.response")),
        ok("token.response"),
        ("201 Created", golden("binding.response")),
    ];
    let ((first, second, third), asked) = scene.play(answers, calls).await;
    assert!(matches!(first, Err(OnboardingError::Refused { status: 401, .. })), "{first:?}");
    assert!(second.is_ok() && third.is_ok());
    let logins = asked.iter().filter(|asked| first_line(asked).contains("/oauth2/token ")).count();
    assert_eq!(logins, 3);
}

#[tokio::test]
async fn a_token_is_used_to_its_end_when_the_server_cannot_renew_it() {
    let scene = Scene::new().await;
    let calls = async {
        let first = scene.client.token(ROUTED).await;
        (first, scene.client.token(ROUTED).await)
    };
    // Four seconds are too few for a renewal at four fifths: it is due at once.
    let short = golden("token.response").replace("3600", "4");
    let ((first, second), _) = scene.play(vec![("200 OK", short), ("503 Busy", String::new())], calls).await;
    assert_eq!(first.unwrap(), second.unwrap());
}

#[tokio::test]
async fn a_token_of_any_life_is_kept_as_long_as_it_says() {
    for (life, logins) in [("0", 2), ("18446744073709551615", 1)] {
        let scene = Scene::new().await;
        let calls = async {
            let first = scene.client.token(ROUTED).await.unwrap();
            (first, scene.client.token(ROUTED).await.unwrap())
        };
        let answer = ("200 OK", golden("token.response").replace("3600", life));
        let ((first, second), asked) = scene.play(vec![answer; logins], calls).await;
        assert_eq!((first, asked.len()), (second, logins), "{life}");
    }
}

#[tokio::test]
async fn a_token_that_could_not_be_sent_back_is_no_answer() {
    let golden = golden("token.response");
    let text = "u3bJ0d0m6Pq0S8kXo2y7ZkXy3v3H1cQ4G8Lk0aJpE2M";
    for token in [r"two\nlines", "", "ü", &"x".repeat(100_000)] {
        let scene = Scene::new().await;
        let answer = vec![("200 OK", golden.replace(text, token))];
        let (refused, _) = scene.play(answer, scene.client.token(ROUTED)).await;
        assert!(matches!(refused, Err(OnboardingError::Unanswered { .. })), "{token:.20}: {refused:?}");
    }
}

#[tokio::test]
async fn those_who_wait_for_the_same_login_share_its_failure() {
    let scene = Scene::new().await;
    let token = || scene.client.token(ROUTED);
    let calls = async { tokio::join!(token(), token(), token()) };
    // One request: a second one would find no answer.
    let ((first, second, third), _) = scene.play(vec![("503 Busy", String::new())], calls).await;
    assert!(first.is_err() && first == second && second == third, "{first:?} {second:?} {third:?}");
    let (later, _) = scene.play(vec![ok("token.response")], scene.client.token(ROUTED)).await;
    assert!(later.is_ok(), "whoever asks afterwards asks anew");
}

#[tokio::test]
async fn a_login_that_fails_over_one_way_is_nothing_to_those_who_wait_for_it_over_another() {
    let scene = Scene::new().await;
    let nowhere = Route::Device("nosuch0".to_owned());
    let calls = async { tokio::join!(scene.client.token(&nowhere), scene.client.token(ROUTED)) };
    let ((dead, living), _) = scene.play(vec![ok("token.response")], calls).await;
    assert!(dead.is_err() && living.is_ok(), "{dead:?} {living:?}");
}

#[tokio::test]
async fn a_renewal_that_takes_its_time_holds_up_nobody_while_the_token_is_good() {
    let scene = Scene::new().await;
    let short = golden("token.response").replace("3600", "4");
    let (first, _) = scene.play(vec![("200 OK", short)], scene.client.token(ROUTED)).await;
    // The server takes the connection and never answers.
    let second = tokio::time::timeout(Duration::from_secs(15), scene.client.token(ROUTED)).await;
    assert_eq!(first, second.expect("an answer may take 30 s, a renewal may not"));
}

#[tokio::test]
async fn a_binding_that_makes_no_sense_is_no_answer() {
    for (is, becomes) in [
        ("\"wwan0\"", "\"wwan7\""),
        ("imsi-001010000000001", "imsi-1"),
        ("imsi-001010000000001", "root"),
        ("\"internet\"", "\"\""),
        ("\"internet\"", r#""two\nlines""#),
    ] {
        let scene = Scene::new().await;
        let text = golden("binding.response").replace(is, becomes);
        assert_ne!(text, golden("binding.response"), "{is}");
        let answers = vec![ok("token.response"), ("201 Created", text)];
        let (bound, _) = scene.play(answers, scene.client.bind(ROUTED, &wwan0())).await;
        assert!(matches!(bound, Err(OnboardingError::Unanswered { .. })), "{becomes}: {bound:?}");
    }
}

#[test]
fn a_plan_that_asks_for_nonsense_is_held_to_what_a_person_may_configure() {
    let text = golden("plan.response");
    let with = |is: &str, becomes: &str| -> Package {
        assert!(text.contains(is), "{is}");
        let plan: Plan = serde_json::from_str(&text.replacen(is, becomes, 1)).unwrap();
        plan.packages[0].clone()
    };
    assert_eq!(with("\"chunk\": 1048576", "\"chunk\": 0").chunk, None);
    assert_eq!(with("\"chunk\": 1048576", "\"chunk\": 1").chunk, Some(Octets::new(64 << 10)));
    assert_eq!(with("\"chunk\": 1048576", "\"chunk\": 18446744073709551615").chunk, Some(Octets::new(1 << 40)));
    let interval = "\"reportInterval\": 60";
    assert_eq!(with(interval, "\"reportInterval\": 0").report_interval, None);
    assert_eq!(
        with(interval, "\"reportInterval\": 18446744073709551615").report_interval,
        Some(Duration::from_hours(24))
    );
    let rate = "\"throttleRate\": 128000";
    assert_eq!(with(rate, "\"throttleRate\": 9").when_used_up, WhenUsedUp::Throttle(OctetRate::per_second(1000)));
    assert_eq!(with(rate, "\"throttleRate\": 0").when_used_up, WhenUsedUp::AsTold);
    assert_eq!(with("\"throttle\"", "\"restrict\"").when_used_up, WhenUsedUp::Restrict);
    let grace = with("\"seconds\": 3600", "\"seconds\": 18446744073709551615").offline_grace;
    assert_eq!(grace.duration, Duration::from_hours(31 * 24));
}

#[tokio::test]
async fn the_plan_is_fetched_once_and_then_asked_after_by_its_tag() {
    let scene = Scene::new().await;
    let calls = async {
        let first = scene.client.plan(ROUTED, None).await.unwrap();
        (first, scene.client.plan(ROUTED, Some("\"7\"")).await.unwrap())
    };
    let plan = ("200 OK\r\nETag: \"7\"", golden("plan.response"));
    let answers = vec![ok("token.response"), plan, ("304 Not Modified", String::new())];
    let ((first, second), asked) = scene.play(answers, calls).await;
    assert_eq!(second, PlanAnswer::Unchanged);
    assert!(asked[2].to_lowercase().contains("if-none-match: \"7\"\r\n"));
    let PlanAnswer::Changed { plan, etag } = first else { panic!("no plan") };
    assert_eq!(etag.as_deref(), Some("\"7\""));
    let subscriber = SubscriberIdentifier::new("imsi-001010000000001");
    let package = plan.package(&subscriber, RatingGroup::new(10)).unwrap();
    assert_eq!(package.remaining, Octets::new(104_018_739));
    assert_eq!(package.when_used_up, WhenUsedUp::Throttle(OctetRate::from_bits_per_second(128_000)));
    assert_eq!(package.final_unit_action, Some(FinalUnitAction::Terminate));
    assert_eq!(package.failure_handling, Some(FailureHandling::RetryAndTerminate));
    let grace = OfflineGrace { octets: Octets::new(5 << 20), duration: Duration::from_hours(1) };
    assert_eq!(package.offline_grace, grace);
    let kept = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&kept).unwrap(), plan);
}

#[test]
fn a_plan_of_a_later_server_is_read_as_far_as_it_is_known() {
    let text = golden("plan.response").replace("\"throttle\"", "\"slow\"").replace("\"TERMINATE\"", "\"X\"");
    let plan: Plan = serde_json::from_str(&text.replace("\"chunk\": 1048576", "\"new\": {}")).unwrap();
    let package = &plan.packages[0];
    assert_eq!((package.when_used_up, package.final_unit_action, package.chunk), (WhenUsedUp::AsTold, None, None));
}

#[tokio::test]
async fn commands_are_waited_for_and_unknown_ones_kept_countable() {
    let scene = Scene::new().await;
    let text = golden("commands.response").replace("PLAN_CHANGED", "DANCE");
    let call = scene.client.commands(ROUTED, CommandNumber::new(6), Duration::from_secs(30));
    let (commands, asked) = scene.play(vec![ok("token.response"), ("200 OK", text)], call).await;
    assert_eq!(first_line(&asked[1]), "GET /onboarding/v1/devices/gw-0001/commands?after=6&wait=30 HTTP/1.1");
    let subscriber = Some(SubscriberIdentifier::new("imsi-001010000000001"));
    let expected = [
        ServerCommand { number: CommandNumber::new(7), kind: CommandKind::Reauthorise, subscriber },
        ServerCommand { number: CommandNumber::new(8), kind: CommandKind::Unknown, subscriber: None },
    ];
    assert_eq!(commands.unwrap(), expected);
    let none: Commands = serde_json::from_str(&golden("commands-none.response")).unwrap();
    assert_eq!(none.commands, []);
}

#[tokio::test]
async fn a_refusal_is_told_apart_from_no_answer() {
    for (head, refused) in [
        ("403 Forbidden", true),
        ("409 Conflict", true),
        ("408 Late", false),
        ("429 Slow\r\nRetry-After: 3", false),
        ("500 Broken", false),
        ("302 Found", false),
    ] {
        let scene = Scene::new().await;
        let text = r#"{"cause":"CLAIM_CODE_INVALID","detail":"used"}"#.to_owned();
        let (answer, _) = scene.play(vec![(head, text)], scene.client.register(ROUTED, &[], None)).await;
        match answer.unwrap_err() {
            OnboardingError::Refused { cause, detail, .. } => {
                assert!(refused, "{head}");
                assert_eq!((cause.as_str(), detail.as_str()), ("CLAIM_CODE_INVALID", "used"));
            }
            OnboardingError::Unanswered { retry_after, .. } => {
                assert!(!refused, "{head}");
                assert_eq!(retry_after, head.contains("Retry").then(|| Duration::from_secs(3)));
            }
        }
    }
}

#[tokio::test]
async fn garbage_is_no_answer() {
    let scene = Scene::new().await;
    let (answer, _) = scene.play(vec![("200 OK", "<html>".to_owned())], scene.client.token(ROUTED)).await;
    assert!(matches!(answer, Err(OnboardingError::Unanswered { .. })), "{answer:?}");
}
