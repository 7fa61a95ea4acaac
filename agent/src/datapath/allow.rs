//! The allow-list: which remote ends are reached through a shut gate.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use agent_common::{AllowKey, FAMILY_V4, FAMILY_V6, MAX_ALLOW_ENTRIES};
use anyhow::{Context as _, Result, ensure};
use aya::maps::{HashMap, MapData};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

const DNS_PORT: u16 = 53;
/// Where a DHCP server listens (RFC 2131 section 4.1).
const DHCP_SERVER_PORT: u16 = 67;
/// Where a `DHCPv6` server listens (RFC 8415 section 7.2).
const DHCPV6_SERVER_PORT: u16 = 547;
/// Router solicitation to redirect (RFC 4861 section 4).
const NEIGHBOUR_DISCOVERY: std::ops::RangeInclusive<u16> = 133..=137;

/// Control traffic of the agent and of the link itself. DHCP and neighbour discovery are always on it; ARP is not
/// metered at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    /// Where the charging server answers (TCP).
    pub servers: Vec<SocketAddr>,
    /// Who answers questions of DNS (UDP and TCP, port 53).
    pub resolvers: Vec<IpAddr>,
}

impl AllowList {
    /// The entries of the map.
    #[must_use]
    pub fn entries(&self) -> BTreeSet<AllowKey> {
        let servers = self.servers.iter().map(|server| key(server.ip(), TCP, server.port()));
        let resolvers =
            self.resolvers.iter().flat_map(|resolver| [UDP, TCP].map(|protocol| key(*resolver, protocol, DNS_PORT)));
        let dhcp = [
            AllowKey { address: [0; 16], port: DHCP_SERVER_PORT, family: FAMILY_V4, protocol: UDP },
            AllowKey { address: [0; 16], port: DHCPV6_SERVER_PORT, family: FAMILY_V6, protocol: UDP },
        ];
        let discovery = NEIGHBOUR_DISCOVERY.map(|kind| AllowKey {
            address: [0; 16],
            port: kind,
            family: FAMILY_V6,
            protocol: ICMPV6,
        });
        servers.chain(resolvers).chain(dhcp).chain(discovery).collect()
    }

    /// Makes the map hold these entries and no others. What is on both the old list and the new is there throughout;
    /// what is new is added before what is old goes, unless there is no room for both.
    pub(super) fn apply(&self, map: &mut HashMap<MapData, AllowKey, u8>) -> Result<()> {
        let wanted = self.entries();
        let most = MAX_ALLOW_ENTRIES as usize;
        ensure!(wanted.len() <= most, "{} entries, but the allow-list holds {most}", wanted.len());
        let present = map.keys().collect::<Result<BTreeSet<_>, _>>().context("listing the entries")?;
        let new = wanted.difference(&present).copied().collect::<Vec<_>>();
        let old = present.difference(&wanted).copied().collect::<Vec<_>>();
        let fits = present.len() + new.len() <= most;
        let add = |map: &mut HashMap<MapData, AllowKey, u8>| {
            new.iter().try_for_each(|key| map.insert(key, 1, 0).with_context(|| format!("adding {key:?}")))
        };
        let remove = |map: &mut HashMap<MapData, AllowKey, u8>| {
            old.iter().try_for_each(|key| map.remove(key).with_context(|| format!("removing {key:?}")))
        };
        if fits {
            add(map)?;
            remove(map)
        } else {
            remove(map)?;
            add(map)
        }
    }
}

fn key(address: IpAddr, protocol: u8, port: u16) -> AllowKey {
    let mut octets = [0; 16];
    let family = match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [octets[0], octets[1], octets[2], octets[3]] = [a, b, c, d];
            FAMILY_V4
        }
        IpAddr::V6(v6) => {
            octets = v6.octets();
            FAMILY_V6
        }
    };
    AllowKey { address: octets, port, family, protocol }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_the_ipv4_address_it_stands_for() {
        let list = |server: &str| AllowList { servers: vec![server.parse().unwrap()], resolvers: vec![] };
        assert_eq!(list("[::ffff:192.0.2.1]:443").entries(), list("192.0.2.1:443").entries());
    }

    #[test]
    fn a_resolver_is_listed_for_both_protocols_beside_dhcp_and_discovery() {
        let bare = AllowList::default().entries();
        let list = AllowList { servers: vec![], resolvers: vec!["2001:db8::53".parse().unwrap()] }.entries();
        assert_eq!(bare.len(), 2 + 5);
        let added = list.difference(&bare).map(|key| (key.family, key.protocol, key.port)).collect::<Vec<_>>();
        assert_eq!(added, [(FAMILY_V6, TCP, DNS_PORT), (FAMILY_V6, UDP, DNS_PORT)]);
    }
}
