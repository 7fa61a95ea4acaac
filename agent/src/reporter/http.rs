//! One HTTP exchange over the link it is told: bounded in time and size, no redirection, no proxy, no second try.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{DATE, ETAG, HeaderMap, HeaderName, LOCATION, RETRY_AFTER};
use reqwest::{Client, RequestBuilder, Response, Url};
use rustls::RootCertStore;

use super::names::KnownAddresses;
use super::tls::{self, Expiry};
use crate::clock::Clock;
use crate::config::Server;
use crate::quota::Repetition;

/// Octets of an answer at most.
const BODY_MAX: usize = 256 << 10;
/// `Retry-After` is believed up to this.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

/// The way to the server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// Whichever the kernel's routing table says.
    Routed,
    /// Out of this interface (`SO_BINDTODEVICE`), whatever the routing table prefers.
    Device(String),
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Routed => f.write_str("routed"),
            Self::Device(name) => f.write_str(name),
        }
    }
}

/// Where the server is and how long to wait for it.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Scheme, host, port and the path before `/nchf-convergedcharging` and `/onboarding`.
    pub url: Url,
    /// PEM file of the only authorities to trust; `None` = those of the platform.
    pub tls_ca: Option<PathBuf>,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long the whole exchange may take.
    pub answer_timeout: Duration,
    /// Whether a connection is used for more than one request.
    pub connections: Connections,
}

/// What becomes of a connection after its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connections {
    /// It is kept for the next request.
    Kept,
    /// It is closed. A kept one may be closed by the server at the moment it is used again, and nobody would know what was taken.
    Fresh,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Not an octet of the request has left.
    NotSent(String),
    /// Some of it may have.
    Broken(String),
}

impl Failure {
    /// In words.
    pub(crate) fn into_reason(self) -> String {
        match self {
            Self::NotSent(reason) | Self::Broken(reason) => reason,
        }
    }
}

impl From<&Server> for HttpSettings {
    fn from(server: &Server) -> Self {
        Self {
            url: server.url.clone(),
            tls_ca: server.tls_ca.clone(),
            connect_timeout: server.connect_timeout,
            answer_timeout: server.answer_timeout,
            connections: match server.repetition {
                Repetition::Recognised => Connections::Kept,
                Repetition::Charged => Connections::Fresh,
            },
        }
    }
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// `Location`.
    pub location: Option<String>,
    /// `ETag`.
    pub etag: Option<String>,
    /// `Retry-After`, also when it was written as a date.
    pub retry_after: Option<Duration>,
    /// `Date`: the server's wall time.
    pub date: Option<Timestamp>,
    /// The body, at most 256 KiB.
    pub body: Vec<u8>,
}

/// Makes ring the provider of TLS for every HTTP client of this process.
pub fn use_ring() {
    // An error says that a provider is installed already, by whom does not matter.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Pooled connections to one server, apart for each route.
#[derive(Clone, Debug)]
pub struct Http {
    base: String,
    settings: Arc<HttpSettings>,
    /// The only ones to trust; `None` = those of the platform.
    authorities: Option<Arc<RootCertStore>>,
    clock: Clock,
    expiry: Option<Expiry>,
    clients: Arc<Mutex<HashMap<Route, Client>>>,
    addresses: KnownAddresses,
}

impl Http {
    /// Reads the authorities; no connection is made yet. `clock` is told what the answers say of the time.
    pub fn new(settings: HttpSettings, clock: Clock) -> Result<Self> {
        use_ring();
        let authorities = settings.tls_ca.as_deref().map(tls::authorities).transpose()?.map(Arc::new);
        let base = settings.url.as_str().trim_end_matches('/').to_owned();
        Ok(Self {
            base,
            settings: Arc::new(settings),
            authorities,
            clock,
            expiry: None,
            clients: Arc::default(),
            addresses: KnownAddresses::default(),
        })
    }

    /// The same, with a note of until when the server's certificate holds.
    #[must_use]
    pub fn noting_expiry(self) -> (Self, Expiry) {
        let expiry = Expiry::default();
        (Self { expiry: Some(expiry.clone()), ..self }, expiry)
    }

    /// What the server's name stands for, as far as it is known.
    #[must_use]
    pub const fn addresses(&self) -> &KnownAddresses {
        &self.addresses
    }

    /// The clock that is told by the answers.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The address of a path at the server.
    #[must_use]
    pub fn address(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// How long a whole exchange may take.
    #[must_use]
    pub fn answer_timeout(&self) -> Duration {
        self.settings.answer_timeout
    }

    /// The client of a route. Connections of one route are never used for another.
    pub fn client(&self, route: &Route) -> Result<Client> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(route) {
            return Ok(client.clone());
        }
        let client = self.build(route).with_context(|| format!("making the HTTP client of route {route}"))?;
        clients.insert(route.clone(), client.clone());
        Ok(client)
    }

    /// Forgets the connections of a route: its interface has gone, or another one has its name now.
    pub fn forget(&self, route: &Route) {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).remove(route);
    }

    fn build(&self, route: &Route) -> Result<Client> {
        let mut builder = Client::builder()
            .http1_only()
            .no_proxy()
            .dns_resolver(self.addresses.clone())
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(self.settings.connect_timeout)
            .timeout(self.settings.answer_timeout)
            .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")));
        if self.settings.connections == Connections::Fresh {
            builder = builder.pool_max_idle_per_host(0);
        }
        // Without TLS no authority is needed, and a machine that has none can still talk to its own loopback.
        builder = match self.settings.url.scheme() {
            "http" => builder.tls_certs_only([]),
            _ => builder.tls_backend_preconfigured(tls::config(
                self.authorities.as_ref(),
                &self.clock,
                self.expiry.as_ref(),
            )?),
        };
        if let Route::Device(name) = route {
            builder = builder.interface(name);
        }
        Ok(builder.build()?)
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn exchange(&self, request: RequestBuilder) -> Result<Reply, Failure> {
        let response = request.send().await.map_err(|error| failure(&error))?;
        let reply = read(response).await.map_err(Failure::Broken)?;
        if let Some(Err(error)) = reply.date.map(|date| self.clock.hear(date)) {
            tracing::warn!("what the server says of the time is of no use: {error:#}");
        }
        Ok(reply)
    }
}

/// Only what failed before there was a connection (its TLS included) is certain not to have been sent.
fn failure(error: &reqwest::Error) -> Failure {
    let reason = reason(error);
    if error.is_connect() || error.is_builder() { Failure::NotSent(reason) } else { Failure::Broken(reason) }
}

async fn read(mut response: Response) -> Result<Reply, String> {
    let headers = response.headers();
    let date = text(headers, &DATE).and_then(|date| http_date(&date));
    let mut reply = Reply {
        status: response.status().as_u16(),
        location: text(headers, &LOCATION),
        etag: text(headers, &ETAG),
        retry_after: text(headers, &RETRY_AFTER).and_then(|wait| retry_after(&wait, date)),
        date,
        body: Vec::new(),
    };
    while let Some(chunk) = response.chunk().await.map_err(|error| reason(&error))? {
        if reply.body.len() + chunk.len() > BODY_MAX {
            return Err(format!("HTTP {}: the answer is longer than {BODY_MAX} octets", reply.status));
        }
        reply.body.extend_from_slice(&chunk);
    }
    Ok(reply)
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// RFC 9110 section 5.6.7; the obsolete forms are not read.
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    DateTimeParser::new().parse_timestamp(text).ok()
}

/// RFC 9110 section 10.2.3: seconds, or a date, which is set against the answer's own `Date`: no clock of ours is asked.
pub(super) fn retry_after(text: &str, date: Option<Timestamp>) -> Option<Duration> {
    let wait = match text.trim().parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => Duration::try_from(http_date(text)?.duration_since(date?)).unwrap_or(Duration::ZERO),
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// The error and everything that caused it, without the address (the log line has it).
fn reason(error: &reqwest::Error) -> String {
    let mut reason = if error.is_timeout() { "timed out".to_owned() } else { "failed".to_owned() };
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        // Writing to a text cannot fail.
        let _ = write!(reason, ": {error}");
        cause = error.source();
    }
    reason
}
