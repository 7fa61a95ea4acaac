//! A JSON client inside a namespace: for the charging server's administration, and for a browser's driver.

use std::sync::Once;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::Method;
use serde_json::Value;

use crate::clock::Deadline;
use crate::netns::Namespace;

/// How long one answer may take, on a machine that is not slow.
const ANSWER: Duration = Duration::from_secs(10);

/// Talks to one server with one bearer token.
#[derive(Debug, Clone)]
pub struct Client {
    namespace: Namespace,
    base: String,
    token: String,
    authority: Option<String>,
    patience: Duration,
}

impl Client {
    /// A client in `namespace` for `base`, such as `http://192.0.2.1:8080`. With an empty token it sends none.
    #[must_use]
    pub fn new(namespace: &Namespace, base: &str, token: &str) -> Self {
        Self {
            namespace: namespace.clone(),
            base: base.trim_end_matches('/').into(),
            token: token.into(),
            authority: None,
            patience: ANSWER,
        }
    }

    /// The same, trusting over TLS this authority alone (PEM).
    #[must_use]
    pub fn trusting(self, authority: &str) -> Self {
        Self { authority: Some(authority.into()), ..self }
    }

    /// The same, for a server that may take so long over one answer.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// GET: what is at `path`.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None)
    }

    /// POST: `body` to `path`.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::POST, path, Some(body))
    }

    /// PUT: `body` at `path`.
    pub fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::PUT, path, Some(body))
    }

    /// DELETE: nothing at `path` any more.
    pub fn delete(&self, path: &str) -> Result<Value> {
        self.call(Method::DELETE, path, None)
    }

    /// One request; an answer without body is null, one that is no success an error with the body in it.
    fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        install_crypto();
        let url = format!("{}{path}", self.base);
        let what = format!("{method} {url}");
        let exchange = async {
            // No others: a machine without the platform's authorities can play scenarios as well.
            let authority = self.authority.iter().map(|pem| reqwest::Certificate::from_pem(pem.as_bytes()));
            let authority = authority.collect::<reqwest::Result<Vec<_>>>()?;
            let builder = reqwest::Client::builder()
                .no_proxy()
                .timeout(Deadline::after(self.patience).remaining())
                .tls_certs_only(authority);
            let mut request = builder.build()?.request(method, &url);
            if !self.token.is_empty() {
                request = request.bearer_auth(&self.token);
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            let answer = request.send().await?;
            Ok::<_, reqwest::Error>((answer.status(), answer.text().await?))
        };
        let (status, text) = self.namespace.block_on(exchange)?.with_context(|| what.clone())?;
        ensure!(status.is_success(), "{what}: {status}: {text}");
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).with_context(|| format!("{what}: no JSON in {text:?}"))
    }
}

/// The client is built without a default for its cryptography; it wants one even for plain HTTP.
fn install_crypto() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        // Somebody else may have installed one before: any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
