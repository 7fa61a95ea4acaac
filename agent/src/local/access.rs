//! Who may ask what over TCP: by which name, from which page, with which token.
//!
//! A browser on this machine runs pages of strangers. One that has its own name point here (DNS rebinding) is told by the `Host` header,
//! one that sends requests from elsewhere by `Origin` and `Sec-Fetch-Site`. The token is a bearer token and never a cookie: no browser
//! sends it by itself.

use std::fmt;
use std::net::IpAddr;

use anyhow::{Result, ensure};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq as _;

/// The shortest token: 16 characters, of 64 kinds, are 96 bits.
const SHORTEST: usize = 16;

/// Where a browser says whence a request comes.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a request has to bring to be answered.
#[derive(Clone, Debug)]
pub(super) struct Access {
    token: Option<Token>,
    /// Names besides `localhost` and plain addresses.
    hosts: Vec<String>,
}

/// The secret of whoever may look, and ask for something to be done.
#[derive(Clone)]
pub(super) struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// The token in the text of its file: one line of at least 16 letters, digits and signs.
    pub(super) fn of(text: &str) -> Result<Self> {
        let token = text.trim();
        ensure!(
            token.len() >= SHORTEST && token.bytes().all(|octet| octet.is_ascii_graphic()),
            "it has to hold one line of {SHORTEST} letters, digits and signs or more; `openssl rand -hex 24` makes one"
        );
        Ok(Self(token.to_owned()))
    }

    fn is(&self, said: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(said).into()
    }
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It asks for no name of this agent.
    Name,
    /// It comes from a page of somebody else.
    Stranger,
    /// It brings no token, or a wrong one.
    Token,
    /// It wants something done, and nobody has a token.
    ReadOnly,
}

impl Access {
    pub(super) const fn new(token: Option<Token>, hosts: Vec<String>) -> Self {
        Self { token, hosts }
    }

    /// Whether the request asks for this agent, and from one of its own pages if from any: holds for the page itself, too.
    pub(super) fn admits(&self, request: &Parts) -> Result<(), Refusal> {
        let host = host_of(request).ok_or(Refusal::Name)?;
        if !self.is_named(&host) {
            return Err(Refusal::Name);
        }
        match request.headers.get(ORIGIN) {
            Some(origin) if !is_origin(origin, &host) => Err(Refusal::Stranger),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether what the agent holds may be shown, or done, to whom asks. Only for requests that are admitted.
    pub(super) fn trusts(&self, request: &Parts) -> Result<(), Refusal> {
        let site = request.headers.get(FETCH_SITE).map(HeaderValue::as_bytes);
        if site.is_some_and(|site| ![b"same-origin".as_slice(), b"none"].contains(&site)) {
            return Err(Refusal::Stranger);
        }
        let looks = matches!(request.method, Method::GET | Method::HEAD);
        match &self.token {
            Some(token) if bearer(&request.headers).is_some_and(|said| token.is(said)) => Ok(()),
            Some(_) => Err(Refusal::Token),
            None if looks => Ok(()),
            None => Err(Refusal::ReadOnly),
        }
    }

    fn is_named(&self, host: &Authority) -> bool {
        let name = host.host();
        // A page can be served under any name, but a browser that was given a plain address has looked up none.
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let named = |known: &str| name.eq_ignore_ascii_case(known);
        address.is_ok() || named("localhost") || self.hosts.iter().any(|host| named(host))
    }
}

/// Whom the request asks for: one name, said once.
fn host_of(request: &Parts) -> Option<Authority> {
    let mut hosts = request.headers.get_all(HOST).iter();
    let (host, more) = (hosts.next()?, hosts.next());
    let host: Authority = host.to_str().ok()?.parse().ok()?;
    // A proxy's form of request names whom it wants a second time.
    let twice = request.uri.authority().is_none_or(|authority| *authority == host);
    (more.is_none() && twice && !host.as_str().contains('@')).then_some(host)
}

/// Whether a page was loaded from there. Behind a proxy that speaks TLS, it was by https.
fn is_origin(origin: &HeaderValue, host: &Authority) -> bool {
    let Ok(origin) = origin.to_str() else { return false };
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host.as_str()))
}

/// RFC 6750 section 2.1.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then_some(token)
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, words) = match self {
            Self::Name => (
                StatusCode::MISDIRECTED_REQUEST,
                "this agent has no such name: ask by address or localhost, or add the name to api.hosts\n",
            ),
            Self::Stranger => (StatusCode::FORBIDDEN, "a page of somebody else asks: not answered\n"),
            Self::Token => {
                (StatusCode::UNAUTHORIZED, "a token is needed: Authorization: Bearer <what api.token_file holds>\n")
            }
            Self::ReadOnly => (StatusCode::FORBIDDEN, "without api.token_file there is only to be looked at\n"),
        };
        let mut answer = (status, words).into_response();
        if self == Self::Token {
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    const TOKEN: &str = "0123456789abcdef-secret";

    fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let builder = Request::builder().method(method).uri(uri);
        let builder = headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value));
        builder.body(()).expect("a request").into_parts().0
    }

    fn open() -> Access {
        Access::new(None, vec!["gw.example".to_owned()])
    }

    fn admitted(headers: &[(&str, &str)]) -> Result<(), Refusal> {
        open().admits(&request("GET", "/", headers))
    }

    #[test]
    fn it_answers_to_plain_addresses_localhost_and_the_names_it_was_given() {
        for host in
            ["127.0.0.1:9433", "[::1]:9433", "[fe80::1]", "192.0.2.7", "localhost:1", "LOCALHOST", "gw.example:443"]
        {
            assert_eq!(admitted(&[("host", host)]), Ok(()), "{host}");
        }
    }

    #[test]
    fn it_answers_to_no_other_name_however_it_is_said() {
        let others =
            ["evil.example:9433", "127.0.0.1.evil.example", "localhost.evil.example", "evil@127.0.0.1", "", "a b"];
        for host in others {
            assert_eq!(admitted(&[("host", host)]), Err(Refusal::Name), "{host}");
        }
        assert_eq!(admitted(&[]), Err(Refusal::Name), "no name at all");
        let twice = [("host", "127.0.0.1"), ("host", "evil.example")];
        assert_eq!(admitted(&twice), Err(Refusal::Name), "two names");
        let proxied = request("GET", "http://evil.example/", &[("host", "127.0.0.1")]);
        assert_eq!(open().admits(&proxied), Err(Refusal::Name), "a name in the target");
    }

    #[test]
    fn only_its_own_pages_may_ask() {
        let from = |origin| admitted(&[("host", "127.0.0.1:9433"), ("origin", origin)]);
        for own in ["http://127.0.0.1:9433", "https://127.0.0.1:9433"] {
            assert_eq!(from(own), Ok(()), "{own}");
        }
        for other in ["null", "http://127.0.0.1:9434", "http://127.0.0.1", "http://evil.example", "file://"] {
            assert_eq!(from(other), Err(Refusal::Stranger), "{other}");
        }
        for (site, judged) in [("same-origin", Ok(())), ("none", Ok(())), ("same-site", Err(Refusal::Stranger))] {
            let asked = request("GET", "/", &[("host", "127.0.0.1"), ("sec-fetch-site", site)]);
            assert_eq!(open().trusts(&asked), judged, "{site}");
        }
    }

    #[test]
    fn without_a_token_there_is_only_to_be_looked_at() {
        assert_eq!(open().trusts(&request("GET", "/", &[])), Ok(()));
        assert_eq!(open().trusts(&request("POST", "/", &[])), Err(Refusal::ReadOnly));
    }

    #[test]
    fn with_a_token_nothing_is_answered_without_it() {
        let access = Access::new(Some(Token::of(&format!("{TOKEN}\n")).expect("a token")), Vec::new());
        let with = |said: &str| access.trusts(&request("POST", "/", &[("authorization", said)]));
        assert_eq!(with(&format!("Bearer {TOKEN}")), Ok(()));
        assert_eq!(with(&format!("bearer {TOKEN}")), Ok(()));
        for wrong in
            ["", "Bearer", "Bearer ", "Bearer 0123456789abcdef", &format!("Basic {TOKEN}"), &format!("Bearer {TOKEN}x")]
        {
            assert_eq!(with(wrong), Err(Refusal::Token), "{wrong}");
        }
        assert_eq!(access.trusts(&request("GET", "/", &[])), Err(Refusal::Token), "not even to look");
    }

    #[test]
    fn a_token_that_can_be_guessed_is_not_taken() {
        for weak in ["", "\n", "short", "two lines of\nsixteen characters", "a blank is in this one"] {
            let error = Token::of(weak).expect_err(weak).to_string();
            assert!(error.contains("openssl rand"), "{error}");
        }
    }
}
