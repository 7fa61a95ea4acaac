//! Start, stop, TLS and recordings, with the library and with the binary.

use rcgen::generate_simple_self_signed;
use reqwest::{Certificate, Client, Method};
use serde_json::Value;
use server_mock::{Enrolment, Options, Server, TlsFiles};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use crate::harness::{CREATE, Device, World, lenient, message, release, send};

#[tokio::test]
async fn tls_is_spoken_to_those_who_trust_the_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let made = generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let tls = TlsFiles { certificates: directory.path().join("cert.pem"), key: directory.path().join("key.pem") };
    std::fs::write(&tls.certificates, made.cert.pem()).unwrap();
    std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
    let world = World::start(Options { tls: Some(tls), ..lenient() }).await;
    assert!(world.server.base_url().starts_with("https://"));
    let root = Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let trusting = Client::builder().tls_certs_only([root]).build().unwrap();
    let create = trusting.post(format!("{}{CREATE}", world.server.base_url())).json(&message(0, 1, &[]));
    assert_eq!(send(create).await.unwrap().cause(), "USER_UNKNOWN");
    world.try_post(CREATE, &message(0, 1, &[])).await.unwrap_err();
}

#[tokio::test]
async fn a_missing_key_file_is_named() {
    let tls = TlsFiles { certificates: "/nonexistent/cert.pem".into(), key: "/nonexistent/key.pem".into() };
    let error = Server::start(Options { tls: Some(tls), ..lenient() }).await.unwrap_err();
    assert!(format!("{error:#}").contains("/nonexistent/cert.pem"), "{error:#}");
}

#[tokio::test]
async fn a_stop_answers_those_who_wait() {
    let world = World::start(Options { enrolment: Enrolment::Open, ..lenient() }).await;
    let device = Device::new("gw-1");
    let token = device.onboard(&world, "onboarding").await;
    let waiting = world.request(Method::GET, &device.path("commands?after=0&wait=60")).bearer_auth(token);
    // Either the poll is answered by the stop, or it came too late to be heard at all; it never waits its minute.
    let (answer, ()) = tokio::join!(waiting.send(), world.server.stop());
    if let Ok(answer) = answer {
        assert_eq!(answer.text().await.unwrap(), r#"{"commands":[]}"#);
    }
}

#[tokio::test]
async fn every_charging_exchange_is_recorded_to_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let world = World::start(Options { record: Some(directory.path().join("wire")), ..lenient() }).await;
    world.add_sims().await;
    world.buy(10_000).await;
    let session = world.session(1000).await;
    world.post(&format!("{session}/release"), &release(1, &[(1, 10)])).await;
    let read = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(directory.path().join("wire").join(name)).unwrap()).unwrap()
    };
    let create = read("000001-create.json");
    assert_eq!((&create["status"], &create["request"]), (&Value::from(201), &message(0, 1000, &[])));
    assert_eq!(create["response"]["multipleUnitInformation"][0]["grantedUnit"]["totalVolume"], 1000);
    let end = read("000002-release.json");
    assert_eq!((&end["status"], &end["response"]), (&Value::from(204), &Value::Null));
}

#[test]
fn the_binary_says_where_it_listens_and_stops_gracefully() {
    let mut server = Command::new(env!("CARGO_BIN_EXE_weir-server"))
        .args(["--database", ":memory:", "--admin-token", "t", "--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on http://").unwrap();
    std::net::TcpStream::connect(address).unwrap();
    let killed = Command::new("kill").arg(server.id().to_string()).status().unwrap();
    assert!(killed.success());
    assert!(server.wait().unwrap().success());
}
