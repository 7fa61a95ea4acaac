//! Filter rules as the kernel takes them: one entry for each pair of port ranges.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use agent_common::{ANY_PROTOCOL, DOWNLINK, FILTER_DENY, FILTER_PERMIT, Filter, Filters, MAX_FILTERS, UPLINK};
use anyhow::{Result, ensure};

use crate::quota::{FilterAction, FilterDirection, FilterEnd, FilterRule, MOST_FILTERS};

/// A list that the core has passed fits: with the two entries for what fits no rule.
const _: () = assert!(MOST_FILTERS + 2 <= MAX_FILTERS);

/// TCP (IANA).
const TCP: u8 = 6;
/// UDP (IANA): HTTP/3.
const UDP: u8 = 17;

/// The list of filters for these rules; an error when they are too many.
pub fn filters(rules: &[FilterRule]) -> Result<Filters> {
    let entries: Vec<Filter> = rules.iter().flat_map(entries).collect();
    ensure!(entries.len() <= MAX_FILTERS, "{} filters, but the list holds {MAX_FILTERS}", entries.len());
    let mut list = [Filter::default(); MAX_FILTERS];
    list[..entries.len()].copy_from_slice(&entries);
    Ok(Filters { list })
}

/// The rules by which a portal is reached: HTTP of any version, at its own port and the usual two. Addresses beyond what the list holds
/// are left out.
#[must_use]
pub fn portal_rules(addresses: &[IpAddr], port: u16) -> Vec<FilterRule> {
    let ports: Vec<u16> = if [80, 443].contains(&port) { vec![80, 443] } else { vec![80, 443, port] };
    let most = MOST_FILTERS / (4 * ports.len());
    let ranges = || ports.iter().map(|port| *port..=*port).collect::<Vec<_>>();
    let ways = [FilterDirection::Uplink, FilterDirection::Downlink];
    let kinds = ways.into_iter().flat_map(|direction| [TCP, UDP].map(|protocol| (direction, protocol)));
    let of = |address: &IpAddr| {
        let address = address.to_canonical();
        kinds.clone().map(move |(direction, protocol)| FilterRule::permit(direction, protocol, address, ranges()))
    };
    addresses.iter().take(most).flat_map(of).collect()
}

fn entries(rule: &FilterRule) -> Vec<Filter> {
    let FilterRule { action, direction, protocol, local, remote } = rule;
    let ((local_address, local_mask), (remote_address, remote_mask)) = (masked(local), masked(remote));
    let family = local.prefix.or(remote.prefix).map_or(0, |(address, _)| if address.is_ipv4() { 4 } else { 6 });
    let has_ports = u32::from(!local.ports.is_empty() || !remote.ports.is_empty());
    let filter = |local: &RangeInclusive<u16>, remote: &RangeInclusive<u16>| Filter {
        verdict: match action {
            FilterAction::Permit => FILTER_PERMIT,
            FilterAction::Deny => FILTER_DENY,
        },
        direction: match direction {
            FilterDirection::Uplink => UPLINK,
            FilterDirection::Downlink => DOWNLINK,
        },
        family,
        protocol: protocol.map_or(ANY_PROTOCOL, u32::from),
        local: local_address,
        local_mask,
        remote: remote_address,
        remote_mask,
        local_ports: [*local.start(), *local.end()],
        remote_ports: [*remote.start(), *remote.end()],
        has_ports,
    };
    let all = [0..=u16::MAX];
    let ports = |end: &'_ FilterEnd| if end.ports.is_empty() { all.to_vec() } else { end.ports.clone() };
    let remotes = ports(remote);
    ports(local)
        .iter()
        .flat_map(|local| remotes.iter().map(|remote| filter(local, remote)).collect::<Vec<_>>())
        .collect()
}

/// Address and mask as words in network order.
fn masked(end: &FilterEnd) -> ([u32; 4], [u32; 4]) {
    let Some((address, length)) = end.prefix else { return ([0; 4], [0; 4]) };
    let (octets, bits) = match address {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
        IpAddr::V6(v6) => (v6.to_bits(), 128),
    };
    let length = u32::from(length).min(bits);
    let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
    (words(octets & mask), words(mask))
}

fn words(bits: u128) -> [u32; 4] {
    let octets = bits.to_be_bytes();
    let (words, _) = octets.as_chunks::<4>();
    [0, 1, 2, 3].map(|index| u32::from_ne_bytes(words[index]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::rules;

    fn of(texts: &[&str]) -> Vec<Filter> {
        let filters = filters(&rules(texts.iter().copied()).expect("rules")).expect("filters");
        filters.list.into_iter().take_while(|filter| filter.verdict != agent_common::FILTER_END).collect()
    }

    #[test]
    fn each_pair_of_port_ranges_is_an_entry_of_its_own() {
        let found = of(&["permit in 17 from any 1-2,7 to any 3,4-5"]);
        let ports: Vec<_> = found.iter().map(|filter| (filter.local_ports, filter.remote_ports)).collect();
        assert_eq!(ports, [([1, 2], [3, 3]), ([1, 2], [4, 5]), ([7, 7], [3, 3]), ([7, 7], [4, 5])]);
        assert!(found.iter().all(|filter| filter.has_ports == 1 && filter.family == 0));
    }

    #[test]
    fn only_the_bits_of_the_prefix_count() {
        let found = of(&["deny out ip from 192.0.2.255/25 to any", "permit in ip from any to 2001:db8:ffff::/33"]);
        let v4 = &found[0];
        assert_eq!(
            (v4.remote[0], v4.remote_mask[0]),
            (u32::from_ne_bytes([192, 0, 2, 128]), u32::from_ne_bytes([255, 255, 255, 128]))
        );
        assert_eq!((v4.family, v4.local_mask, v4.has_ports), (4, [0; 4], 0));
        let v6 = &found[1];
        assert_eq!(v6.remote[..2], [u32::from_ne_bytes([0x20, 1, 0x0d, 0xb8]), u32::from_ne_bytes([0x80, 0, 0, 0])]);
        assert_eq!(v6.remote_mask[..2], [u32::MAX, u32::from_ne_bytes([0x80, 0, 0, 0])]);
        assert_eq!(of(&["permit in ip from any to 0.0.0.0/0"])[0].remote_mask, [0; 4]);
    }

    #[test]
    fn as_many_rules_as_the_core_lets_pass_fit() {
        let rule = "deny in 6 from any to any 1,2,3";
        assert_eq!(of(&[rule; MOST_FILTERS / 3]).len(), MAX_FILTERS);
    }

    #[test]
    fn a_portal_is_reached_at_its_own_port_and_the_usual_ones() {
        let addresses: Vec<IpAddr> = (1..20).map(|host| IpAddr::from([192, 0, 2, host])).collect();
        let rules = portal_rules(&addresses, 8443);
        assert!(!rules.is_empty() && filters(&rules).is_ok());
        let first = &rules[0].remote;
        assert_eq!(
            (first.prefix, &first.ports[..]),
            (Some((addresses[0], 32)), &[80..=80, 443..=443, 8443..=8443][..])
        );
        assert!(filters(&portal_rules(&addresses, 443)).is_ok());
    }
}
