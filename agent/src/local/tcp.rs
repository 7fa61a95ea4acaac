//! The same API and the page over TCP: with bounds on everything that a stranger could make large, slow or many.

use std::fmt::Display;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::access::{Access, Token};
use super::{Desk, page, routes};
use crate::config::Api;

/// Connections at once; whoever comes later waits in the kernel's queue.
pub(super) const CONNECTIONS: usize = 32;
/// A request has to be there within this time, and is answered within it.
const PROMPT: Duration = Duration::from_secs(10);
/// A connection ends after this time at the latest, however slowly it is read. Who watches comes again.
const LIFETIME: Duration = Duration::from_mins(10);
/// What was sent and not taken for so long ends the connection, in milliseconds.
const UNREAD: u32 = 30_000;
/// A request line and its headers, at most.
const HEAD: usize = 16 << 10;
/// A request's body, at most.
const BODY: usize = 4 << 10;
/// What everybody may do with a file, in its mode.
const OTHERS: u32 = 0o007;
/// Between two tries to listen.
const AGAIN: Duration = Duration::from_secs(10);

/// Scripts, styles and data of this page and nothing else; nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Keeps pages of others from loading what is here.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Listens as the configuration says, until the runtime ends. An address that is not there yet, or a token that cannot be read, is
/// told and tried again: nothing of it keeps links from being metered.
pub fn listen(api: Api, desk: Desk) {
    tokio::spawn(async move {
        let (listener, access) = opened("the page and the API are", || begin(&api)).await;
        tracing::info!(listen = %api.listen, "the page and the API are served");
        accept(&listener, &router(desk, access)).await;
    });
}

/// What it takes to listen, once it is there. Until then it is said what (`what`: "the page is") is not served, and why.
pub(super) async fn opened<T, Opening: Future<Output = Result<T>>>(what: &str, begin: impl Fn() -> Opening) -> T {
    let mut told = String::new();
    loop {
        match begin().await {
            Ok(open) => return open,
            Err(error) => {
                let words = format!("{error:#}");
                if told != words {
                    tracing::error!(again = ?AGAIN, "{what} not served: {words}");
                    told = words;
                }
            }
        }
        sleep(AGAIN).await;
    }
}

async fn begin(api: &Api) -> Result<(TcpListener, Access)> {
    let token = api.token_file.as_deref().map(read_token).transpose()?;
    let listen: SocketAddr = api.listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("listening on {listen} (api.listen)"))?;
    Ok((listener, Access::new(token, api.hosts.clone())))
}

/// A token that others can read is none.
pub(super) fn read_token(path: &Path) -> Result<Token> {
    let name = || format!("api.token_file {}", path.display());
    let mode = fs::metadata(path).with_context(name)?.permissions().mode();
    ensure!(
        mode & OTHERS == 0,
        "{}: everybody on this machine may open it; type: chmod o-rwx {}",
        name(),
        path.display()
    );
    Token::of(&fs::read_to_string(path).with_context(name)?).with_context(name)
}

/// Everything there is, behind its guards.
pub(super) fn router(desk: Desk, access: Access) -> Router {
    let api = routes::api(desk).layer(middleware::from_fn_with_state(access.clone(), trusted));
    bounded(page::routes().merge(api).layer(middleware::from_fn_with_state(access, admitted)))
}

/// The same under the bounds of time and size, and with what a browser has to know.
pub(super) fn bounded(router: Router) -> Router {
    router
        .layer(middleware::from_fn(promptly))
        .layer(middleware::map_response(|answer: Response| async move { guarded(answer) }))
        .layer(DefaultBodyLimit::max(BODY))
}

async fn trusted(State(access): State<Access>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match access.trusts(&head) {
        Ok(()) => next.run(Request::from_parts(head, body)).await,
        Err(refusal) => refusal.into_response(),
    }
}

async fn admitted(State(access): State<Access>, request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    match access.admits(&head) {
        Ok(()) => next.run(Request::from_parts(head, body)).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// The head of an answer is there soon, or an apology is. What follows the head may go on.
async fn promptly(request: Request, next: Next) -> Response {
    match timeout(PROMPT, next.run(request)).await {
        Ok(answer) => answer,
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "this took too long\n").into_response(),
    }
}

/// What a browser has to know of each answer.
fn guarded(mut answer: Response) -> Response {
    let say = |headers: &mut HeaderMap, name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    let headers = answer.headers_mut();
    say(headers, CONTENT_SECURITY_POLICY, POLICY);
    say(headers, X_CONTENT_TYPE_OPTIONS, "nosniff");
    say(headers, REFERRER_POLICY, "no-referrer");
    say(headers, RESOURCE_POLICY, "same-origin");
    say(headers, CACHE_CONTROL, "no-store");
    answer
}

/// Takes connections, so many at once.
pub(super) async fn accept(listener: &TcpListener, router: &Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // The places are never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let router = router.clone();
                tokio::spawn(async move {
                    // A client that breaks off has its own reasons.
                    if let Ok(Err(error)) = timeout(LIFETIME, attend(stream, router)).await {
                        tell(&error);
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, say: others may go meanwhile.
                tell(&error);
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn tell(error: &dyn Display) {
    tracing::debug!("a client of the API: {error:#}");
}

/// One connection, one request: nobody holds a place for what may come later.
async fn attend(stream: TcpStream, router: Router) -> Result<()> {
    setsockopt(&stream, sockopt::TcpUserTimeout, &UNREAD).context("bounding what is not read")?;
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PROMPT)
        .max_buf_size(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .await
        .context("serving")
}
