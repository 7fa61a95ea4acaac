//! What becomes of a link's traffic when its package is used up: block, throttle, restrict or redirect, decided from the server's
//! words and the terms.

use core::net::IpAddr;
use std::fmt;

use super::filter::{self, FilterRule};
use super::terms::{GateMode, Terms, WhenUsedUp};
use super::{Exceptions, FinalUnitAction};

/// What becomes of traffic, and why it is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedUp {
    /// What the gate does beyond the ceiling.
    pub mode: GateMode,
    /// Why it blocks although something else was asked for, in words.
    pub not_followed: Option<String>,
}

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

impl UsedUp {
    /// What the terms and the server's last words come to. Whatever cannot be followed to the letter is block.
    pub(super) fn of(terms: &Terms, action: FinalUnitAction, exceptions: &Exceptions) -> Self {
        let mode = match (terms.when_used_up, action) {
            (WhenUsedUp::Throttle(rate), _) => Ok(GateMode::Throttle(rate)),
            (WhenUsedUp::Block, _) | (WhenUsedUp::AsTold, FinalUnitAction::Terminate) => Ok(GateMode::Block),
            (WhenUsedUp::Restrict, FinalUnitAction::Terminate)
            | (WhenUsedUp::Restrict | WhenUsedUp::AsTold, FinalUnitAction::RestrictAccess) => {
                restrict(terms, exceptions)
            }
            (WhenUsedUp::Restrict | WhenUsedUp::AsTold, FinalUnitAction::Redirect) => redirect(exceptions),
        };
        match mode {
            Ok(mode) => Self { mode, not_followed: None },
            Err(why) => Self { mode: GateMode::Block, not_followed: Some(why) },
        }
    }
}

/// The server's rules, then those of the filters it names; where it has neither, the link's own filter; where that is missing as
/// well, nothing but the allow-list.
fn restrict(terms: &Terms, exceptions: &Exceptions) -> Result<GateMode, String> {
    let mut texts: Vec<&str> = exceptions.rules.iter().map(String::as_str).collect();
    let mut names: Vec<&str> = exceptions.filters.iter().map(String::as_str).collect();
    if texts.is_empty() && names.is_empty() {
        names.extend(terms.filters.own.as_deref());
    }
    for name in names {
        let filter = terms.filters.named.get(name);
        let filter = filter.ok_or_else(|| format!("there is no [[filter]] {name:?} in the configuration"))?;
        texts.extend(filter.iter().map(String::as_str));
    }
    let rules: Vec<FilterRule> = filter::rules(texts).map_err(|error| error.to_string())?;
    Ok(if rules.is_empty() { GateMode::Block } else { GateMode::Restrict(rules) })
}

fn redirect(exceptions: &Exceptions) -> Result<GateMode, String> {
    let portal = exceptions.portal.as_deref().ok_or("the server names no portal to lead to")?;
    Portal::parse(portal).map(GateMode::Redirect)
}

impl Portal {
    /// Reads `http://HOST[:PORT][/…]`, or the same with https (RFC 3986 section 3.2).
    fn parse(url: &str) -> Result<Self, String> {
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
