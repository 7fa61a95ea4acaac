//! Where the routes lead: the default route, and the other ways out to the charging server. No other route is kept: a table may hold a million.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteType,
};

use super::Links;

/// A unicast route of the main table, towards one next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteOut {
    /// Where it begins to apply: the network's address.
    pub network: IpAddr,
    /// How many of its bits count; 0 = a default route.
    pub length: u8,
    /// The lower, the better.
    pub metric: u32,
    /// The interface it leads out of.
    pub index: u32,
}

impl RouteOut {
    fn is_default(&self) -> bool {
        self.length == 0
    }

    /// Tells whether the address lies in the network.
    fn covers(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (network.to_bits() ^ address.to_bits()).leading_zeros() >= u32::from(self.length)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                (network.to_bits() ^ address.to_bits()).leading_zeros() >= u32::from(self.length)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl Links {
    /// The link of the default route with the lowest metric, IPv4 before IPv6.
    #[must_use]
    pub fn default_route(&self) -> Option<u32> {
        let defaults = self.routes.iter().filter(|route| route.is_default());
        defaults.min_by_key(|route| (route.network.is_ipv6(), route.metric)).map(|route| route.index)
    }

    /// The names of all links that are up and lead to one of `servers`, in the order in which to try them when the kernel's own way
    /// has failed: those that fit the `preferred` names first, in that order, then the best metric first; then `own`, of which the
    /// usage is to be told, and at the very end those that the kernel takes anyway. The own link is among them because the kernel's
    /// way may lead into another one, which is dead.
    ///
    /// A link leads there by a default route or by any route that covers an address of the server; one that is known to be an
    /// `uplink` does so in any case (its routes may be in a table of its own), and comes last. Bound to the device, the kernel looks
    /// at that device's routes alone, so a host route through a dead link does not stand in the way. A message with a token in it
    /// has no business in the gateway's own networks, where it would only wait for nobody.
    #[must_use]
    pub fn ways_out(
        &self,
        own: &str,
        servers: &[IpAddr],
        uplink: impl Fn(&str) -> bool,
        preferred: impl Fn(&str) -> Option<usize>,
    ) -> Vec<&str> {
        let mut ways = Vec::new();
        for (index, link) in self.by_index.iter().filter(|(_, link)| link.up) {
            let metric = self.metric_to(*index, servers);
            if metric.is_some() || uplink(&link.name) {
                let preference = preferred(&link.name).unwrap_or(usize::MAX);
                let last = self.is_taken_anyway(*index, servers);
                let rank = (last, preference, link.name == own, metric.is_none(), metric);
                ways.push((rank, link.name.as_str()));
            }
        }
        ways.sort_by_key(|(rank, _)| *rank);
        ways.into_iter().map(|(_, name)| name).collect()
    }

    /// Tells whether the routes lead out of this link to all of the servers: bound to it, nothing else would happen than unbound.
    fn is_taken_anyway(&self, index: u32, servers: &[IpAddr]) -> bool {
        let taken = |server: &IpAddr| {
            let covering = self.routes.iter().filter(|route| route.covers(*server));
            covering.min_by_key(|route| (Reverse(route.length), route.metric)).map(|route| route.index)
        };
        match servers {
            [] => self.default_route() == Some(index),
            servers => servers.iter().all(|server| taken(server) == Some(index)),
        }
    }

    /// The best metric of a route out of this link to one of the servers; of a default route when no address is known.
    fn metric_to(&self, index: u32, servers: &[IpAddr]) -> Option<u32> {
        let leads = |route: &&RouteOut| {
            let reaches =
                servers.iter().any(|server| route.covers(*server)) || servers.is_empty() && route.is_default();
            route.index == index && reaches
        };
        self.routes.iter().filter(leads).map(|route| route.metric).min()
    }
}

/// What a notification says of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// It is there now.
    Made,
    /// It is there in place of another to the same network (`NLM_F_REPLACE`).
    Replaced,
    /// It is gone.
    Gone,
}

/// What a notification calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Upkeep {
    /// Nothing: it is about what is not kept here.
    Nothing,
    /// Nothing more: what it says is noted.
    Noted,
    /// The links have to be read anew.
    Links,
    /// All links and routes have to be read anew: the notification alone does not tell how they are now.
    All,
}

/// Where a route begins to apply, and how good it is.
type Place = (IpAddr, u8, u32);

/// The routes that are kept: default routes, and those that cover an address of the charging server.
#[derive(Clone, Debug, Default)]
pub(super) struct RoutesKept {
    servers: Vec<IpAddr>,
    routes: Vec<RouteOut>,
}

impl RoutesKept {
    pub(super) const fn new(servers: Vec<IpAddr>) -> Self {
        Self { servers, routes: Vec::new() }
    }

    /// Keeps what a message of the kernel's list tells, if it is of interest.
    pub(super) fn take(&mut self, message: &RouteMessage) {
        if self.is_kept(message) {
            self.keep(message);
        }
    }

    /// Notes what a notification tells, as far as that is certain. One from before the routes were read may come after that: what is
    /// noted twice is noted once, and what became of it since comes in the same order.
    pub(super) fn note(&mut self, word: Word, message: &RouteMessage) -> Upkeep {
        let is_kept = self.is_kept(message);
        match word {
            // An address was taken away, and with it go routes of which the kernel says nothing.
            Word::Gone if message.header.protocol == RouteProtocol::Kernel => return Upkeep::All,
            Word::Made | Word::Replaced | Word::Gone if !is_kept => return Upkeep::Nothing,
            // Another gateway may be left behind the same link.
            Word::Gone => return Upkeep::All,
            Word::Made | Word::Replaced => {}
        }
        let place = place_of(message);
        let same = |route: &RouteOut| (route.network, route.length, route.metric) == place;
        let known = self.routes.iter().filter(|route| same(route)).count();
        match word {
            // Of several it is not said which.
            Word::Replaced if known > 1 => return Upkeep::All,
            Word::Replaced => self.routes.retain(|route| !same(route)),
            // IPv6 tells a route with all its next hops, those from before among them.
            Word::Made if known > 0 && place.0.is_ipv6() => return Upkeep::All,
            Word::Made | Word::Gone => {}
        }
        self.keep(message);
        Upkeep::Noted
    }

    /// Tells whether a route is known that leads out of a link which is none of these.
    pub(super) fn leads_elsewhere(&self, is_up: impl Fn(u32) -> bool) -> bool {
        self.routes.iter().any(|route| !is_up(route.index))
    }

    fn keep(&mut self, message: &RouteMessage) {
        for route in routes_out(message) {
            if !self.routes.contains(&route) {
                self.routes.push(route);
            }
        }
    }

    /// In an order that does not depend on the order of the notifications.
    pub(super) fn sorted(&self) -> Arc<[RouteOut]> {
        let mut routes = self.routes.clone();
        routes.sort_unstable();
        routes.into()
    }

    fn is_kept(&self, message: &RouteMessage) -> bool {
        let (network, length, metric) = place_of(message);
        let route = RouteOut { network, length, metric, index: 0 };
        message.header.table == RouteHeader::RT_TABLE_MAIN
            && (route.is_default() || self.servers.iter().any(|server| route.covers(*server)))
    }
}

fn place_of(route: &RouteMessage) -> Place {
    let mut network = match route.header.address_family {
        AddressFamily::Inet6 => IpAddr::from([0_u8; 16]),
        _ => IpAddr::from([0_u8; 4]),
    };
    let mut metric = 0;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Destination(RouteAddress::Inet(address)) => network = (*address).into(),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => network = (*address).into(),
            _ => {}
        }
    }
    (network, route.header.destination_prefix_length, metric)
}

/// The routes out that a message of the kernel tells of: one for each next hop of a unicast route.
fn routes_out(route: &RouteMessage) -> Vec<RouteOut> {
    if route.header.kind != RouteType::Unicast {
        return Vec::new();
    }
    let (network, length, metric) = place_of(route);
    let mut hops = Vec::new();
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => hops.push(*index),
            RouteAttribute::MultiPath(paths) => hops.extend(paths.iter().map(|hop| hop.interface_index)),
            _ => {}
        }
    }
    hops.into_iter().map(|index| RouteOut { network, length, metric, index }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::Link;

    fn route(prefix: &str, metric: u32, index: u32) -> RouteOut {
        let (network, length) = prefix.split_once('/').unwrap();
        RouteOut { network: network.parse().unwrap(), length: length.parse().unwrap(), metric, index }
    }

    fn links(names: &[&str], routes: &[RouteOut]) -> Links {
        let by_index = (1..).zip(names.iter().map(|name| Link::plain(name))).collect();
        Links { by_index, routes: routes.into(), ..Links::default() }
    }

    fn ways<'a>(links: &'a Links, own: &str, servers: &[&str]) -> Vec<&'a str> {
        let servers: Vec<IpAddr> = servers.iter().map(|server| server.parse().unwrap()).collect();
        links.ways_out(own, &servers, |name| name == "wwan0", |_| None)
    }

    /// What the kernel says of a route: of the main table, by hand, towards these next hops.
    fn told(prefix: &str, metric: u32, hops: &[u32]) -> RouteMessage {
        let RouteOut { network, length, .. } = route(prefix, metric, 0);
        let mut message = RouteMessage::default();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        message.header.protocol = RouteProtocol::Static;
        message.header.destination_prefix_length = length;
        let address = match network {
            IpAddr::V4(address) => (AddressFamily::Inet, RouteAddress::Inet(address)),
            IpAddr::V6(address) => (AddressFamily::Inet6, RouteAddress::Inet6(address)),
        };
        message.header.address_family = address.0;
        message.attributes = vec![RouteAttribute::Destination(address.1), RouteAttribute::Priority(metric)];
        message.attributes.extend(hops.iter().map(|hop| RouteAttribute::Oif(*hop)));
        message
    }

    fn kept(servers: &[&str]) -> RoutesKept {
        RoutesKept::new(servers.iter().map(|server| server.parse().unwrap()).collect())
    }

    #[test]
    fn a_full_table_that_leads_nowhere_near_the_server_is_neither_kept_nor_read_anew() {
        let mut routes = kept(&["192.0.2.1"]);
        for number in 0..100_000_u32 {
            let network = std::net::Ipv4Addr::from_bits(0x0a00_0000 + (number << 6));
            let message = told(&format!("{network}/26"), 20, &[3]);
            let words = [Word::Made, Word::Replaced, Word::Gone, Word::Made];
            assert!(words.iter().all(|word| routes.note(*word, &message) == Upkeep::Nothing), "{network}");
        }
        let mut elsewhere = told("0.0.0.0/0", 0, &[3]);
        elsewhere.header.table = 100;
        assert_eq!(routes.note(Word::Made, &elsewhere), Upkeep::Nothing);
        assert!(routes.sorted().is_empty());
    }

    #[test]
    fn a_change_of_a_route_that_leads_to_the_server_is_noted_from_its_notification() {
        let mut routes = kept(&["192.0.2.1", "2001:db8::1"]);
        let mut noted = |word, message: &RouteMessage| {
            assert_eq!(routes.note(word, message), Upkeep::Noted);
            routes.sorted().to_vec()
        };
        let default = |index| route("0.0.0.0/0", 100, index);
        assert_eq!(noted(Word::Made, &told("0.0.0.0/0", 100, &[2])), [default(2)]);
        assert_eq!(noted(Word::Replaced, &told("0.0.0.0/0", 100, &[3])), [default(3)]);
        assert_eq!(noted(Word::Made, &told("0.0.0.0/0", 100, &[2])), [default(2), default(3)], "appended");
        assert_eq!(noted(Word::Made, &told("0.0.0.0/0", 100, &[2])), [default(2), default(3)], "told once more");
        let net = [default(2), default(3), route("192.0.2.0/24", 0, 4), route("192.0.2.0/24", 0, 5)];
        assert_eq!(noted(Word::Made, &told("192.0.2.0/24", 0, &[4, 5])), net);
        // It stands there, and leads nowhere.
        let mut black_hole = told("192.0.2.0/24", 1, &[]);
        black_hole.header.kind = RouteType::BlackHole;
        assert_eq!(noted(Word::Made, &black_hole), net);
        assert_eq!(noted(Word::Made, &told("2001:db8::/32", 1, &[7])).len(), 5);
    }

    #[test]
    fn what_a_notification_does_not_tell_for_certain_is_read_anew() {
        let mut routes = kept(&["2001:db8::1"]);
        assert_eq!(routes.note(Word::Gone, &told("0.0.0.0/0", 0, &[2])), Upkeep::All, "is another left?");
        for index in [2, 3] {
            assert_eq!(routes.note(Word::Made, &told("0.0.0.0/0", 0, &[index])), Upkeep::Noted);
        }
        assert_eq!(routes.note(Word::Replaced, &told("0.0.0.0/0", 0, &[4])), Upkeep::All, "which of the two?");
        assert_eq!(routes.note(Word::Made, &told("2001:db8::/32", 0, &[2])), Upkeep::Noted);
        assert_eq!(routes.note(Word::Made, &told("2001:db8::/32", 0, &[2, 3])), Upkeep::All, "told with the first");
        let mut connected = told("10.0.0.0/24", 0, &[2]);
        connected.header.protocol = RouteProtocol::Kernel;
        assert_eq!(routes.note(Word::Gone, &connected), Upkeep::All, "others go with it in silence");
    }

    #[test]
    fn only_a_link_that_is_up_and_has_a_default_route_is_a_way_out() {
        let defaults = [route("0.0.0.0/0", 10, 3), route("0.0.0.0/0", 20, 4), route("0.0.0.0/0", 30, 5)];
        let mut links = links(&["lo", "lan0", "wan0", "wan1", "wan2", "wwan0"], &defaults);
        links.by_index.get_mut(&5).unwrap().up = false;
        assert_eq!(ways(&links, "", &[]), ["wan1", "wwan0", "wan0"]);
        assert_eq!(links.default_route(), Some(3));
    }

    #[test]
    fn a_route_to_the_servers_network_alone_is_a_way_out_too() {
        let routes = [route("0.0.0.0/0", 10, 1), route("192.0.2.0/24", 0, 2), route("198.51.100.0/24", 0, 3)];
        let links = links(&["wan0", "eth0", "eth1"], &routes);
        assert_eq!(ways(&links, "wan0", &["192.0.2.1"]), ["wan0", "eth0"]);
        assert_eq!(ways(&links, "wan0", &["::ffff:192.0.2.1"]), ["wan0", "eth0"]);
        assert_eq!(ways(&links, "", &["203.0.113.1"]), ["wan0"]);
    }

    #[test]
    fn a_way_out_is_of_the_servers_own_family() {
        let links = links(&["wan0", "eth0"], &[route("2001:db8::/32", 5, 2), route("0.0.0.0/0", 1, 1)]);
        assert_eq!(ways(&links, "", &["2001:db8::1"]), ["eth0"]);
        assert_eq!(ways(&links, "", &["192.0.2.1"]), ["wan0"]);
        assert_eq!(ways(&links, "", &["192.0.2.1", "2001:db8::1"]), ["wan0", "eth0"]);
    }

    #[test]
    fn the_best_metric_goes_first_and_a_preference_goes_before_it() {
        let routes = [route("0.0.0.0/0", 300, 1), route("0.0.0.0/0", 100, 2), route("0.0.0.0/0", 200, 3)];
        let links = links(&["a", "b", "c", "wwan0"], &routes);
        assert_eq!(ways(&links, "", &["192.0.2.1"]), ["c", "a", "wwan0", "b"]);
        let order = |name: &str| ["wwan0", "a"].iter().position(|preferred| *preferred == name);
        let servers = ["192.0.2.1".parse().unwrap()];
        assert_eq!(links.ways_out("", &servers, |name| name == "wwan0", order), ["wwan0", "a", "c", "b"]);
    }

    #[test]
    fn the_own_link_goes_after_the_others_and_the_one_that_the_kernel_takes_goes_last() {
        let routes = [route("0.0.0.0/0", 100, 1), route("0.0.0.0/0", 200, 2), route("0.0.0.0/0", 300, 3)];
        let mut links = links(&["a", "b", "c"], &routes);
        assert_eq!(ways(&links, "b", &["192.0.2.1"]), ["c", "b", "a"]);
        assert_eq!(ways(&links, "a", &["192.0.2.1"]), ["b", "c", "a"]);
        // A route to the host alone is stronger than any metric.
        links.routes = [&routes[..], &[route("192.0.2.1/32", 900, 3)]].concat().into();
        assert_eq!(ways(&links, "", &["192.0.2.1"]), ["a", "b", "c"]);
        // Not of every address it is the kernel's choice.
        assert_eq!(ways(&links, "", &["192.0.2.1", "192.0.2.2"]), ["a", "b", "c"]);
    }
}
