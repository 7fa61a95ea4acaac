//! A running server: its options, its listener, and one task for each connection.

use anyhow::Context as _;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::app::{self, App, Hangup, Shared};
use crate::clock::Clock;
use crate::units::Seconds;

/// How long a stopping server waits for answers that are on their way.
const DRAIN: Duration = Duration::from_secs(5);
/// How long a client may take for a TLS handshake, or for the head of a request.
const PATIENCE: Duration = Duration::from_secs(75);

/// Everything a server is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the books are kept.
    pub database: Database,
    /// The bearer token of `/admin/v1`.
    pub admin_token: String,
    /// TLS, or plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Who may register a device.
    pub enrolment: Enrolment,
    /// Who may send charging messages.
    pub authentication: Authentication,
    /// Whether `/admin/v1/faults` is open.
    pub faults: FaultSwitches,
    /// What becomes of a charging message that comes again.
    pub repetition: Repetition,
    /// Where to write each charging exchange.
    pub record: Option<PathBuf>,
    /// Validity of a grant where the plan says nothing else, 1 to 86400 s.
    pub validity: Seconds,
    /// Life of an access token, 1 to 86400 s.
    pub token_lifetime: Seconds,
    /// Where `now` comes from.
    pub clock: Clock,
}

/// Where the books are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// In memory, gone with the server.
    Memory,
    /// In an SQLite file, made when it is not there.
    File(PathBuf),
}

/// Who may register a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrolment {
    /// Whoever has an unused claim code.
    ClaimCode,
    /// Whoever asks.
    Open,
}

/// Who may send charging messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Only the device that logged in.
    Required,
    /// Also whoever sends no bearer token; one that is sent must be right.
    Optional,
}

/// Whether faults can be switched on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultSwitches {
    /// `/admin/v1/faults` answers 403.
    Refused,
    /// `/admin/v1/faults` is open.
    Allowed,
}

/// What becomes of a charging message that comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// It gets the stored first answer (docs/protocol.md, section 1.3, rule 1).
    Recognised,
    /// It is charged like any other, as by a server that knows nothing of rule 1.
    Charged,
}

/// PEM files for TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain.
    pub certificates: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Options {
    /// A server on a free loopback port with its books in memory, strict about who may do what.
    #[must_use]
    pub fn in_memory(admin_token: &str) -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            database: Database::Memory,
            admin_token: admin_token.to_owned(),
            tls: None,
            enrolment: Enrolment::ClaimCode,
            authentication: Authentication::Required,
            faults: FaultSwitches::Refused,
            repetition: Repetition::Recognised,
            record: None,
            validity: Seconds(600),
            token_lifetime: Seconds(3600),
            clock: Clock::default(),
        }
    }
}

/// A running server. Dropping it ends it at once; [`Server::stop`] ends it gracefully.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    scheme: &'static str,
    stopping: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Opens the books, listens, and answers from now on.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let tls = options.tls.as_ref().map(acceptor).transpose()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        if let Some(directory) = &options.record {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("making the directory for recordings, {}", directory.display()))?;
        }
        let listener =
            TcpListener::bind(options.listen).await.with_context(|| format!("listening on {}", options.listen))?;
        let addr = listener.local_addr().context("asking for the port")?;
        let (stopping, stop) = watch::channel(false);
        let app: App = Arc::new(Shared::open(options, stop.clone())?);
        tracing::info!(%addr, scheme, "listening");
        let task = tokio::spawn(serve(listener, tls, app, stop));
        Ok(Self { addr, scheme, stopping, task })
    }

    /// The address it listens on, with the real port.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `http://ADDRESS` or `https://ADDRESS`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("{}://{}", self.scheme, self.addr)
    }

    /// Answers what is under way, then closes.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        if let Err(error) = (&mut self.task).await {
            tracing::error!(%error, "the server's task ended badly");
        }
        tracing::info!("stopped");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>, app: App, stop: watch::Receiver<bool>) {
    let mut stopping = stop.clone();
    let router = app::router(Arc::clone(&app));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = app::stopped(&mut stopping) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, tls.clone(), router.clone(), Arc::clone(&app), stop.clone()));
                }
                // Out of descriptors: the listener stays readable, so wait rather than spin.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    let drained = tokio::time::timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!("some answers were cut short by the stop");
    }
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    app: App,
    stop: watch::Receiver<bool>,
) {
    // An answer is one small write; waiting to fill a segment only costs the agent a delayed acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY refused");
    }
    let Some(tls) = tls else { return talk(stream, router, app, stop).await };
    match tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
        Ok(Ok(stream)) => talk(stream, router, app, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake took too long"),
    }
}

/// Serves one connection until it ends, the server stops, or a fault hangs up.
///
/// Hanging up is dropping: the socket closes with whatever was being answered unsent, while work that reached the database goes on
/// to its commit.
async fn talk<S>(stream: S, router: Router, app: App, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let hangup = Hangup::default();
    let mut generation = app.generation.subscribe();
    let service = TowerToHyperService::new(router.layer(Extension(hangup.clone())));
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    let mut conversation = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = conversation.as_mut() => return log_end(ended),
        () = hangup.wanted() => return,
        _ = generation.changed() => return,
        () = app::stopped(&mut stop) => conversation.as_mut().graceful_shutdown(),
    }
    log_end(conversation.await);
}

fn log_end(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

fn acceptor(files: &TlsFiles) -> anyhow::Result<TlsAcceptor> {
    let chain = CertificateDer::pem_file_iter(&files.certificates)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("reading certificates from {}", files.certificates.display()))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| format!("reading the private key from {}", files.key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("choosing TLS versions")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .with_context(|| format!("using the certificate of {}", files.certificates.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
