//! The place to which people are led when a package is used up, read from what the server says.

use core::net::IpAddr;
use std::fmt;

/// A place to which people are led, to buy more.
#[derive(Clone, PartialEq, Eq)]
pub struct Portal {
    /// Its address for people.
    pub url: String,
    /// Where that is.
    pub host: PortalHost,
    /// The port it is reached at, beside 80 and 443.
    pub port: u16,
}

/// The host of a portal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortalHost {
    /// An address.
    Address(IpAddr),
    /// A name, to be looked up.
    Name(String),
}

impl fmt::Debug for Portal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl Portal {
    /// Reads `http://HOST[:PORT][/…]`, or the same with https (RFC 3986 section 3.2).
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let shown: String = url.chars().take(200).collect();
        let wrong = |why: &str| format!("the portal {shown:?}: {why}");
        let fits = url.len() <= 2000 && url.bytes().all(|octet| octet.is_ascii_graphic());
        if !fits {
            return Err(wrong("not 1 .. 2000 plain characters"));
        }
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("not http:// or https://"))?;
        let usual = match scheme.to_ascii_lowercase().as_str() {
            "http" => 80,
            "https" => 443,
            _ => return Err(wrong("not http:// or https://")),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (host, port) = match authority.strip_prefix('[') {
            Some(bracketed) => bracketed.split_once(']').ok_or_else(|| wrong("a bracket is open"))?,
            None => authority.find(':').map_or((authority, ""), |at| authority.split_at(at)),
        };
        let port = match port.strip_prefix(':') {
            Some(digits) => digits.parse().ok().filter(|port| *port > 0).ok_or_else(|| wrong("not a port"))?,
            None if port.is_empty() => usual,
            None => return Err(wrong("not a host and a port")),
        };
        let host = match host.parse() {
            Ok(address) => PortalHost::Address(address),
            Err(_) if is_name(host) => PortalHost::Name(host.to_ascii_lowercase()),
            Err(_) => return Err(wrong("not a host")),
        };
        Ok(Self { url: url.to_owned(), host, port })
    }
}

/// Whether this can be the name of a host (RFC 1123 section 2.1).
fn is_name(host: &str) -> bool {
    let label = |label: &str| (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-');
    let plain = host.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-.".contains(&octet));
    // All of digits and dots is an address, and a wrong one.
    let lettered = host.bytes().any(|octet| octet.is_ascii_alphabetic());
    plain && lettered && host.len() <= 253 && host.trim_end_matches('.').split('.').all(label)
}
