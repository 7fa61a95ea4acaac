//! A server, a client, and the messages that the scenarios are made of.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Client, Method, RequestBuilder};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use server_mock::{Authentication, Clock, FaultSwitches, Hand, Options, Server};

pub(crate) const SUBSCRIBER: &str = "imsi-001010000000001";
pub(crate) const ICCID: &str = "8900100000000000001";
pub(crate) const SECOND_SUBSCRIBER: &str = "imsi-001010000000002";
pub(crate) const SECOND_ICCID: &str = "8900100000000000002";
pub(crate) const NF_NAME: &str = "3f0d7c5e-8a3b-4c0e-9c0a-2f1f6f7d1a10";
pub(crate) const CHARGING_ID: u32 = 2_718_281_828;
pub(crate) const CREATE: &str = "/nchf-convergedcharging/v3/chargingdata";
const ADMIN: &str = "admin-token";
const TIME: &str = "2026-11-23T08:00:00.000Z";

/// A server whose clock the test holds in its hand.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) client: Client,
    pub(crate) hand: Hand,
}

/// An answer, read to its end.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) location: Option<String>,
    pub(crate) content_type: Option<String>,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn cause(&self) -> String {
        assert_eq!(self.content_type.as_deref(), Some("application/problem+json"), "{self:?}");
        self.json()["cause"].as_str().unwrap().to_owned()
    }

    /// The answer for the only rating group.
    pub(crate) fn unit(&self) -> Value {
        self.json()["multipleUnitInformation"][0].clone()
    }

    pub(crate) fn granted(&self) -> u64 {
        self.unit()["grantedUnit"]["totalVolume"].as_u64().unwrap_or_else(|| panic!("no grant in {self:?}"))
    }
}

/// A server that lets anyone charge and fault, its books in memory.
pub(crate) fn lenient() -> Options {
    Options { authentication: Authentication::Optional, faults: FaultSwitches::Allowed, ..Options::in_memory(ADMIN) }
}

pub(crate) fn client() -> Client {
    // A second test of this process finds it installed already.
    drop(rustls::crypto::ring::default_provider().install_default());
    Client::builder().tls_certs_only([]).build().unwrap()
}

impl World {
    pub(crate) async fn start(options: Options) -> Self {
        let (clock, hand) = Clock::manual();
        let server = Server::start(Options { clock, ..options }).await.unwrap();
        Self { server, client: client(), hand }
    }

    /// With one SIM in the pool and a package of so many octets for it.
    pub(crate) async fn with_package(octets: u64) -> Self {
        let world = Self::start(lenient()).await;
        world.add_sims().await;
        world.buy(octets).await;
        world
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.server.base_url()))
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        send(self.request(Method::POST, path).json(body)).await.unwrap()
    }

    /// The answer, or an error where the connection was closed without one.
    pub(crate) async fn try_post(&self, path: &str, body: &Value) -> Result<Answer, reqwest::Error> {
        send(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn admin(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let mut request = self.request(method, &format!("/admin/v1{path}")).bearer_auth(ADMIN);
        if let Some(body) = body {
            request = request.json(body);
        }
        send(request).await.unwrap()
    }

    pub(crate) async fn admin_post(&self, path: &str, body: Value) -> Value {
        let answer = self.admin(Method::POST, path, Some(&body)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()
    }

    pub(crate) async fn admin_get(&self, path: &str) -> Value {
        let answer = self.admin(Method::GET, path, None).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    pub(crate) async fn add_sims(&self) {
        for (iccid, subscriber) in [(ICCID, SUBSCRIBER), (SECOND_ICCID, SECOND_SUBSCRIBER)] {
            self.admin_post("/sims", json!({ "iccid": iccid, "subscriberIdentifier": subscriber })).await;
        }
    }

    pub(crate) async fn buy(&self, octets: u64) {
        let body = json!({ "subscriberIdentifier": SUBSCRIBER, "totalVolume": octets });
        self.admin_post("/purchases", body).await;
    }

    pub(crate) async fn package(&self) -> Value {
        self.admin_get(&format!("/packages?subscriber={SUBSCRIBER}")).await["packages"][0].clone()
    }

    pub(crate) async fn used(&self) -> u64 {
        self.package().await["usedVolume"].as_u64().unwrap()
    }

    pub(crate) async fn reserved(&self) -> u64 {
        self.package().await["reservedVolume"].as_u64().unwrap()
    }

    /// Entries of one kind.
    pub(crate) async fn entries(&self, kind: &str) -> Vec<Value> {
        self.admin_get(&format!("/ledger?kind={kind}")).await["entries"].as_array().unwrap().clone()
    }

    pub(crate) async fn faults(&self, rules: Value) {
        let answer = self.admin(Method::PUT, "/faults", Some(&json!({ "rules": rules }))).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Creates a session and answers its path.
    pub(crate) async fn session(&self, asked: u64) -> String {
        let answer = self.post(CREATE, &message(0, asked, &[])).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.location.unwrap()
    }
}

pub(crate) async fn send(request: RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.send().await?;
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    assert!(header("date").is_some(), "an agent without a clock needs the Date header");
    let (status, location, content_type) = (response.status().as_u16(), header("location"), header("content-type"));
    Ok(Answer { status, location, content_type, text: response.text().await? })
}

/// A message of the usual session that asks for octets and reports containers (number, octets).
pub(crate) fn message(sequence_number: u32, asked: u64, used: &[(u32, u64)]) -> Value {
    json!({
        "subscriberIdentifier": SUBSCRIBER,
        "chargingId": CHARGING_ID,
        "nfConsumerIdentification": { "nFName": NF_NAME, "nodeFunctionality": "SMF" },
        "invocationTimeStamp": TIME,
        "invocationSequenceNumber": sequence_number,
        "multipleUnitUsage": [{
            "ratingGroup": 10,
            "requestedUnit": { "totalVolume": asked },
            "usedUnitContainer": used.iter().map(|(number, octets)| container(*number, *octets)).collect::<Vec<_>>(),
        }],
    })
}

/// A release of the usual session.
pub(crate) fn release(sequence_number: u32, used: &[(u32, u64)]) -> Value {
    let mut message = message(sequence_number, 0, used);
    message["multipleUnitUsage"][0]["requestedUnit"] = json!({});
    message["triggers"] = json!([{ "triggerType": "FINAL", "triggerCategory": "IMMEDIATE_REPORT" }]);
    message
}

/// A one-time event for usage of the usual session.
pub(crate) fn one_time(sequence_number: u32, used: &[(u32, u64)]) -> Value {
    let mut message = message(sequence_number, 0, used);
    message["multipleUnitUsage"][0].as_object_mut().unwrap().remove("requestedUnit");
    message["oneTimeEvent"] = true.into();
    message["oneTimeEventType"] = "PEC".into();
    message
}

pub(crate) fn retransmitted(message: &Value) -> Value {
    let mut message = message.clone();
    message["retransmissionIndicator"] = true.into();
    message
}

fn container(number: u32, octets: u64) -> Value {
    json!({
        "quotaManagementIndicator": "ONLINE_CHARGING",
        "triggers": [{ "triggerType": "TIME_LIMIT", "triggerCategory": "IMMEDIATE_REPORT" }],
        "triggerTimestamp": TIME,
        "totalVolume": octets,
        "uplinkVolume": octets / 4,
        "downlinkVolume": octets - octets / 4,
        "localSequenceNumber": number,
        "pDUContainerInformation": { "timeofFirstUsage": TIME, "timeofLastUsage": TIME },
    })
}

/// A device with a key of its own.
pub(crate) struct Device {
    pub(crate) id: String,
    pub(crate) nf_name: String,
    key: Vec<u8>,
    public: String,
}

impl Device {
    pub(crate) fn new(id: &str) -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let public = Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap().public_key().as_ref().to_vec();
        Self {
            id: id.to_owned(),
            nf_name: uuid::Uuid::new_v4().to_string(),
            key: key.as_ref().to_vec(),
            public: URL_SAFE_NO_PAD.encode(public),
        }
    }

    pub(crate) fn registration(&self) -> Value {
        json!({
            "deviceId": self.id, "nfInstanceId": self.nf_name, "serial": "SN-1", "model": "edge-200",
            "agentVersion": "0.1.0", "modems": [{ "slot": "wwan0" }],
            "publicKey": { "kty": "OKP", "crv": "Ed25519", "x": self.public },
        })
    }

    /// Claims that hold now, by the world's clock at its start.
    pub(crate) fn claims(&self) -> Value {
        let now = Clock::default().now().seconds();
        json!({
            "iss": self.id, "sub": self.id, "aud": "https://charging.example/onboarding/v1/oauth2/token",
            "iat": now, "exp": now + 60, "jti": uuid::Uuid::new_v4().to_string(),
        })
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &EncodingKey::from_ed_der(&self.key)).unwrap()
    }

    pub(crate) async fn log_in(&self, world: &World, assertion: &str, scope: &str) -> Answer {
        world
            .token(&[
                ("grant_type", "client_credentials"),
                ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
                ("client_assertion", assertion),
                ("scope", scope),
            ])
            .await
    }

    /// Registers and logs in; answers the token.
    pub(crate) async fn onboard(&self, world: &World, scope: &str) -> String {
        let answer = world.post("/onboarding/v1/devices", &self.registration()).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let answer = self.log_in(world, &self.sign(&self.claims()), scope).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/onboarding/v1/devices/{}/{rest}", self.id)
    }
}

impl World {
    pub(crate) async fn token(&self, form: &[(&str, &str)]) -> Answer {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let request = self.request(Method::POST, "/onboarding/v1/oauth2/token");
        send(request.header("content-type", "application/x-www-form-urlencoded").body(body)).await.unwrap()
    }

    pub(crate) async fn with_token(&self, method: Method, path: &str, token: &str, body: Option<&Value>) -> Answer {
        let mut request = self.request(method, path).bearer_auth(token);
        if let Some(body) = body {
            request = request.json(body);
        }
        send(request).await.unwrap()
    }
}
