//! Filter rules of a used-up link, as the server or the configuration writes them: `IPFilterRule` of RFC 6733 section 4.3.1.
//!
//! What cannot be followed to the letter is an error and never half a rule: a rule that is read too widely is a free tunnel.

use core::net::IpAddr;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Entries that a list of rules may come to: one for each pair of port ranges of each rule.
pub const MOST_FILTERS: usize = 30;

/// Characters of a rule at most.
const LONGEST: usize = 500;

/// Protocols that have ports: TCP, UDP, SCTP.
const WITH_PORTS: [u8; 3] = [6, 17, 132];

/// Whether a packet that fits a rule passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterAction {
    /// It passes.
    Permit,
    /// It does not.
    Deny,
}

/// The packets that a rule is about, seen from those behind the gateway (the standard's terminal).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterDirection {
    /// Their own (`in`): uplink.
    Uplink,
    /// Those sent to them (`out`): downlink.
    Downlink,
}

/// One end of the packets that a rule fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterEnd {
    /// Address and length of the prefix; `None` = any.
    pub prefix: Option<(IpAddr, u8)>,
    /// Ports; none = any, and packets without ports.
    pub ports: Vec<RangeInclusive<u16>>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterRule {
    /// What becomes of packets that fit.
    pub action: FilterAction,
    /// Which way they go.
    pub direction: FilterDirection,
    /// Their protocol number (IANA); `None` = any.
    pub protocol: Option<u8>,
    /// Their end behind the gateway.
    pub local: FilterEnd,
    /// Their far end.
    pub remote: FilterEnd,
}

impl FilterRule {
    /// A rule by which packets of one way between anybody here and these ports of one far end pass.
    #[must_use]
    pub fn permit(direction: FilterDirection, protocol: u8, remote: IpAddr, ports: Vec<RangeInclusive<u16>>) -> Self {
        let length = if remote.is_ipv4() { 32 } else { 128 };
        Self {
            action: FilterAction::Permit,
            direction,
            protocol: Some(protocol),
            local: FilterEnd::default(),
            remote: FilterEnd { prefix: Some((remote, length)), ports },
        }
    }

    /// Entries of a list without port lists: one for each pair of ranges.
    fn entries(&self) -> usize {
        self.local.ports.len().max(1) * self.remote.ports.len().max(1)
    }
}

/// Why a rule cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError(String);

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for FilterError {}

/// Reads a list of rules, of which the first that fits decides. With what the standard says of packets that fit none, made a rule of
/// its own: they pass where the last rule is a denial, and do not where it is a permission.
pub fn rules<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Vec<FilterRule>, FilterError> {
    let rules: Result<Vec<_>, _> = texts.into_iter().map(rule).collect();
    let mut rules = rules?;
    let entries: usize = rules.iter().map(FilterRule::entries).sum();
    if entries > MOST_FILTERS {
        let words = format!(
            "the rules come to {entries} entries (each pair of port ranges is one), 1 .. {MOST_FILTERS} are possible"
        );
        return Err(FilterError(words));
    }
    if rules.last().is_some_and(|last| last.action == FilterAction::Deny) {
        let all = |direction| FilterRule {
            action: FilterAction::Permit,
            direction,
            protocol: None,
            local: FilterEnd::default(),
            remote: FilterEnd::default(),
        };
        rules.extend([all(FilterDirection::Uplink), all(FilterDirection::Downlink)]);
    }
    Ok(rules)
}

/// Reads one rule: `permit|deny in|out PROTOCOL from ADDRESS [PORTS] to ADDRESS [PORTS]`.
pub fn rule(text: &str) -> Result<FilterRule, FilterError> {
    let wrong = |why: &str| FilterError(format!("filter rule \"{}\": {why}", shown(text)));
    if text.chars().count() > LONGEST {
        return Err(wrong(&format!("longer than {LONGEST} characters")));
    }
    let mut words = text.split_ascii_whitespace().peekable();
    let action = match words.next() {
        Some("permit") => FilterAction::Permit,
        Some("deny") => FilterAction::Deny,
        _ => return Err(wrong("does not begin with permit or deny")),
    };
    let direction = match words.next() {
        Some("in") => FilterDirection::Uplink,
        Some("out") => FilterDirection::Downlink,
        _ => return Err(wrong("no direction: in (from those behind the gateway) or out (to them)")),
    };
    let protocol = match words.next() {
        Some("ip") => None,
        Some(word) => Some(number(word).ok_or_else(|| wrong("the protocol is neither ip nor a number 0 .. 255"))?),
        None => return Err(wrong("no protocol: ip or a number 0 .. 255")),
    };
    let mut end = |keyword: &str, assigned: bool| -> Result<FilterEnd, FilterError> {
        if words.next() != Some(keyword) {
            return Err(wrong(&format!("no {keyword} where it belongs")));
        }
        let address = words.next().ok_or_else(|| wrong(&format!("no address after {keyword}")))?;
        let prefix = prefix(address, assigned).map_err(|why| wrong(&why))?;
        let ports = words.next_if(|word| word.starts_with(|c: char| c.is_ascii_digit()));
        let ports = ports.map_or(Ok(Vec::new()), ports_of).map_err(|why| wrong(&why))?;
        if !ports.is_empty() && !protocol.is_some_and(|protocol| WITH_PORTS.contains(&protocol)) {
            return Err(wrong("ports, but the protocol is not TCP (6), UDP (17) or SCTP (132)"));
        }
        Ok(FilterEnd { prefix, ports })
    };
    let uplink = direction == FilterDirection::Uplink;
    let (from, to) = (end("from", uplink)?, end("to", !uplink)?);
    if let Some(option) = words.next() {
        return Err(wrong(&format!("{:?} is not supported", shown(option))));
    }
    if let (Some((from, _)), Some((to, _))) = (from.prefix, to.prefix)
        && from.is_ipv4() != to.is_ipv4()
    {
        return Err(wrong("from IPv4 to IPv6, or the other way"));
    }
    let (local, remote) = if uplink { (from, to) } else { (to, from) };
    Ok(FilterRule { action, direction, protocol, local, remote })
}

/// An address as a prefix; `assigned` is whatever address those behind the gateway have, and only their end can be it.
fn prefix(word: &str, assigned: bool) -> Result<Option<(IpAddr, u8)>, String> {
    match word {
        "any" => return Ok(None),
        "assigned" if assigned => return Ok(None),
        "assigned" => return Err("assigned, but the far end has no address from us".to_owned()),
        _ if word.starts_with('!') => return Err("the not modifier ! is not supported".to_owned()),
        _ => {}
    }
    let (address, length) = word.split_once('/').map_or((word, None), |(address, length)| (address, Some(length)));
    let address: IpAddr = address.parse().map_err(|_| format!("\"{}\" is not an address", shown(word)))?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    match length.map(number) {
        None => Ok(Some((address, most))),
        Some(Some(length)) if length <= most => Ok(Some((address, length))),
        Some(_) => Err(format!("\"{}\" has no prefix length of 0 .. {most}", shown(word))),
    }
}

/// A number of digits alone: the library would take a sign as well.
fn number<N: FromStr>(text: &str) -> Option<N> {
    text.parse().ok().filter(|_| text.bytes().all(|octet| octet.is_ascii_digit()))
}

/// Ports and ranges of ports, separated by commas.
fn ports_of(word: &str) -> Result<Vec<RangeInclusive<u16>>, String> {
    let wrong = || format!("\"{}\" is not a list of ports, like 80,443,8000-8080", shown(word));
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        (first <= last).then_some(first..=last)
    };
    word.split(',').map(|part| range(part).ok_or_else(wrong)).collect()
}

/// Words of others as they may stand in a message: not long, on one line.
fn shown(text: &str) -> String {
    let plain: String = text.chars().take(120).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(120).is_some() { plain + "…" } else { plain }
}
