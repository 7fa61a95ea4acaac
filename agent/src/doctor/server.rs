//! The charging server: over which ways it answers, whether the connection can be trusted, whether it knows the device, and its clock.

use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp};
use reqwest::Url;

use super::finding::{Check, Finding};
use super::links::Metered;
use super::time::skew;
use super::{AS_ROOT, is_forbidden};
use crate::clock::{Clock, Label};
use crate::config::{Config, OnboardingMode};
use crate::onboarding::{DeviceKey, Onboarding, OnboardingError};
use crate::reporter::{Connections, Http, HttpSettings, Route};

/// Nobody waits longer for a doctor, whatever the agent may.
const PATIENCE: Duration = Duration::from_secs(10);
/// A certificate that runs out sooner should have been renewed by now.
const RENEWED_BY: SignedDuration = SignedDuration::from_hours(14 * 24);

/// What came back over one way: the status of HTTP, or why there was none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    way: String,
    outcome: Result<u16, String>,
}

/// What the server said to the device's log-in.
#[derive(Debug)]
enum Token {
    /// Nobody logs in (`onboarding = "static"`).
    Static,
    /// There is no key to log in with.
    NoKey,
    /// The key cannot be read.
    BadKey(anyhow::Error),
    /// Nothing answers.
    NotAsked,
    /// What it came to.
    Asked(Result<(), OnboardingError>),
}

/// Asks the server over the kernel's own way and over each metered link that is up. Some hundred octets each, which are metered
/// like anything else.
pub(super) async fn findings(config: &Config, links: &[Metered]) -> Vec<Finding> {
    let settings = HttpSettings {
        connect_timeout: config.server.connect_timeout.min(PATIENCE),
        answer_timeout: config.server.answer_timeout.min(PATIENCE),
        connections: Connections::Fresh,
        ..HttpSettings::from(&config.server)
    };
    let clock = Clock::default();
    let (http, expiry) = match Http::new(settings, clock.clone()) {
        Ok(http) => http.noting_expiry(),
        Err(error) => return vec![authorities(&error)],
    };
    let url = &config.server.url;
    let looked_up = look_up(url).await;
    let found = name(url, &looked_up);
    let Ok(addresses) = looked_up else { return vec![found] };
    http.addresses().learn(&addresses);
    let devices = links.iter().filter(|link| link.up).map(|link| Route::Device(link.name.clone()));
    let routes: Vec<Route> = [Route::Routed].into_iter().chain(devices).collect();
    let answers = futures::future::join_all(routes.iter().map(|route| ask(&http, route))).await;
    let answering = routes.iter().zip(&answers).find(|(_, answer)| answer.outcome.is_ok()).map(|(route, _)| route);
    let token = log_in(config, &http, answering).await;
    let Ok(moment) = crate::clock::Moment::now() else { return vec![found] };
    let mut told = vec![found, skew(moment.label, clock.at_the_server(moment.boot))];
    told.extend(ways(&answers));
    told.push(trust(url, &answers, expiry.known(), moment.label));
    told.push(known(&token, &config.device.id));
    told
}

async fn look_up(url: &Url) -> Result<Vec<std::net::SocketAddr>> {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_or_known_default().unwrap_or_default();
    let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host, port))).await;
    Ok(found.context("no answer in time")??.collect())
}

fn name(url: &Url, looked_up: &Result<Vec<std::net::SocketAddr>>) -> Finding {
    let host = url.host_str().unwrap_or_default();
    match looked_up {
        Ok(addresses) => {
            let addresses: Vec<String> = addresses.iter().map(|address| address.ip().to_string()).collect();
            Finding::ok(Check::ServerName, format!("{host} is at {}", addresses.join(", ")))
        }
        Err(error) => Finding::problem(
            Check::ServerName,
            format!("no address was found for {host}: {error:#}"),
            "look at /etc/resolv.conf, or whether the resolver can be reached; weir itself goes on with the addresses last found",
        ),
    }
}

async fn ask(http: &Http, route: &Route) -> Answer {
    let way = match route {
        Route::Routed => "routing table".to_owned(),
        Route::Device(name) => name.clone(),
    };
    let outcome = match http.client(route) {
        Ok(client) => http.exchange(client.get(http.address("/"))).await.map(|reply| reply.status),
        Err(error) => return Answer { way, outcome: Err(format!("{error:#}")) },
    };
    Answer { way, outcome: outcome.map_err(crate::reporter::Failure::into_reason) }
}

async fn log_in(config: &Config, http: &Http, route: Option<&Route>) -> Token {
    if config.server.onboarding == OnboardingMode::Static {
        return Token::Static;
    }
    let key = match DeviceKey::load_if_there(&config.device.key_file) {
        Ok(Some(key)) => key,
        Ok(None) => return Token::NoKey,
        Err(error) => return Token::BadKey(error),
    };
    let Some(route) = route else { return Token::NotAsked };
    let onboarding = Onboarding::new(http.clone(), config.device.clone(), key);
    Token::Asked(onboarding.plan(route, None).await.map(drop))
}

/// A failure of TLS, and not of the way there, by the words of the library.
fn is_of_tls(reason: &str) -> bool {
    ["certificate", "corrupt message", "handshake", "TLS"].iter().any(|word| reason.contains(word))
}

/// Whoever is reached speaks HTTP, or at least TLS.
fn is_reached(answer: &Answer) -> bool {
    answer.outcome.as_ref().err().is_none_or(|reason| is_of_tls(reason))
}

fn ways(answers: &[Answer]) -> Vec<Finding> {
    let any = answers.iter().any(is_reached);
    let judge = |answer: &Answer| {
        let check = Check::ServerReached;
        match &answer.outcome {
            Err(reason) if !is_reached(answer) && any => Finding::warning(
                check,
                format!("the server does not answer over this way: {reason}"),
                "messages go over the other ways meanwhile; look at the link's signal, APN, routes and firewall",
            ),
            Err(reason) if !is_reached(answer) => Finding::problem(
                check,
                format!("the server does not answer: {reason}"),
                "look at the route to it, the firewall, server.url and the server itself: curl -v to its address shows more",
            ),
            Ok(status @ 500..) => {
                let fix = "look at the server: weir tries again by itself";
                Finding::warning(check, format!("the server answers with HTTP {status}"), fix)
            }
            Ok(_) | Err(_) => Finding::ok(check, "the server answers"),
        }
        .of(&answer.way)
    };
    answers.iter().map(judge).collect()
}

fn authorities(error: &anyhow::Error) -> Finding {
    if is_forbidden(error) {
        return Finding::not_checked(Check::ServerTls, format!("{error:#}"), AS_ROOT);
    }
    Finding::problem(
        Check::ServerTls,
        format!("{error:#}"),
        "put the authority's certificate (PEM) where server.tls_ca says",
    )
}

fn trust(url: &Url, answers: &[Answer], expiry: Option<Timestamp>, now: Label) -> Finding {
    let check = Check::ServerTls;
    let failed = answers.iter().find_map(|answer| answer.outcome.as_ref().err().filter(|reason| is_of_tls(reason)));
    if let Some(reason) = failed {
        let fix = "if this is the right server: its authority into server.tls_ca, this machine's clock right, its certificate renewed";
        let what = if reason.contains("certificate") { "its certificate is not accepted" } else { "TLS fails" };
        return Finding::problem(check, format!("the server cannot be trusted, {what}: {reason}"), fix);
    }
    if url.scheme() == "http" {
        return match url.host_str() {
            Some("localhost" | "127.0.0.1" | "[::1]") => Finding::ok(check, "plain HTTP, to this machine itself"),
            _ => Finding::warning(
                check,
                "plain HTTP: whoever is on the way can read the token and change grants",
                "use https, and leave server.allow_plaintext out",
            ),
        };
    }
    if !answers.iter().any(|answer| answer.outcome.is_ok()) {
        return Finding::not_checked(check, "no certificate was seen", "see server.reached");
    }
    match expiry {
        Some(until) if until.duration_since(now.wall) < RENEWED_BY => Finding::warning(
            check,
            format!("the server's certificate runs out on {until}"),
            "have it renewed: when it has run out nothing is bought any more",
        ),
        Some(until) => Finding::ok(check, format!("the server's certificate is accepted, and holds until {until}")),
        None => Finding::ok(check, "the server's certificate is accepted"),
    }
}

fn known(token: &Token, device: &str) -> Finding {
    let check = Check::ServerToken;
    match token {
        Token::Static => Finding::not_checked(check, "onboarding is static: nobody logs in", "nothing"),
        Token::NoKey => {
            let what = format!("{device} has no key yet, so it has not been registered");
            Finding::warning(
                check,
                what,
                "start the agent: it makes the key and registers, with the claim code if the server wants one",
            )
        }
        Token::BadKey(error) if is_forbidden(error) => Finding::not_checked(check, format!("{error:#}"), AS_ROOT),
        Token::BadKey(error) => {
            let fix = "put the key back from a backup, or remove it and register the device anew with a claim code";
            Finding::problem(check, format!("{error:#}"), fix)
        }
        Token::NotAsked => Finding::not_checked(check, "no way leads to the server", "see server.reached"),
        Token::Asked(Ok(())) => Finding::ok(check, format!("the server knows {device} and its key")),
        Token::Asked(Err(error @ OnboardingError::Refused { .. })) => Finding::problem(
            check,
            format!("{device} cannot log in: {error}"),
            "register it: device.claim_code_file with a new code, and restart weir; or put the key back that was registered",
        ),
        Token::Asked(Err(OnboardingError::Unanswered { reason, .. })) => Finding::warning(
            check,
            format!("the log-in was not answered: {reason}"),
            "look at the server; weir tries again by itself",
        ),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;
    use crate::doctor::finding::Verdict;

    fn answers(outcomes: &[Result<u16, &str>]) -> Vec<Answer> {
        let answer =
            |outcome: &Result<u16, &str>| Answer { way: "wan0".to_owned(), outcome: outcome.map_err(str::to_owned) };
        outcomes.iter().map(answer).collect()
    }

    fn verdicts(outcomes: &[Result<u16, &str>]) -> Vec<Verdict> {
        ways(&answers(outcomes)).into_iter().map(|told| told.verdict).collect()
    }

    const REFUSED: Result<u16, &str> = Err("failed: client error (Connect): tcp connect error: Connection refused");
    const STRANGER: Result<u16, &str> = Err("failed: client error (Connect): invalid peer certificate: UnknownIssuer");

    #[test]
    fn a_way_that_is_shut_is_a_problem_only_when_no_other_is_open() {
        assert_eq!(verdicts(&[Ok(404), Ok(200)]), [Verdict::Ok, Verdict::Ok]);
        assert_eq!(verdicts(&[Ok(404), REFUSED]), [Verdict::Ok, Verdict::Warning]);
        assert_eq!(verdicts(&[REFUSED, REFUSED]), [Verdict::Problem, Verdict::Problem]);
        assert_eq!(verdicts(&[Ok(503)]), [Verdict::Warning]);
        assert_eq!(verdicts(&[STRANGER, REFUSED]), [Verdict::Ok, Verdict::Warning], "somebody was reached");
    }

    #[test]
    fn a_certificate_is_judged_by_whether_it_is_accepted_and_for_how_long() {
        let now = Label { wall: Timestamp::from_second(1_790_000_000).unwrap(), synced: true };
        let at = |url: &str, outcome, days: Option<i64>| {
            let until = days.map(|days| now.wall.checked_add(SignedDuration::from_hours(days * 24)).unwrap());
            trust(&Url::parse(url).unwrap(), &answers(&[outcome]), until, now).verdict
        };
        assert_eq!(at("https://a.example", Ok(404), None), Verdict::Ok);
        assert_eq!(at("https://a.example", Ok(404), Some(15)), Verdict::Ok);
        assert_eq!(at("https://a.example", Ok(404), Some(13)), Verdict::Warning);
        assert_eq!(at("https://a.example", STRANGER, None), Verdict::Problem);
        assert_eq!(at("https://a.example", REFUSED, None), Verdict::NotChecked);
        assert_eq!(at("http://a.example", Ok(404), None), Verdict::Warning);
        assert_eq!(at("http://[::1]:80", Ok(404), None), Verdict::Ok);
    }

    #[test]
    fn a_device_that_the_server_refuses_is_a_problem_and_one_that_is_new_is_told_what_comes() {
        let refused =
            OnboardingError::Refused { status: 401, cause: "invalid_grant".to_owned(), detail: String::new() };
        let told = known(&Token::Asked(Err(refused)), "van-17");
        assert_eq!(told.verdict, Verdict::Problem);
        assert!(told.what.starts_with("van-17 cannot log in") && told.what.contains("invalid_grant"), "{told:?}");
        let silent = OnboardingError::Unanswered { retry_after: None, reason: "timed out".to_owned() };
        assert_eq!(known(&Token::Asked(Err(silent)), "a").verdict, Verdict::Warning);
        assert_eq!(known(&Token::NoKey, "a").verdict, Verdict::Warning);
        assert_eq!(known(&Token::BadKey(anyhow!("not a key")), "a").verdict, Verdict::Problem);
        let denied = anyhow!(std::io::Error::from_raw_os_error(libc::EACCES)).context("opening the device key");
        assert_eq!(known(&Token::BadKey(denied), "a").verdict, Verdict::NotChecked);
        assert_eq!(known(&Token::Asked(Ok(())), "a").verdict, Verdict::Ok);
    }
}
