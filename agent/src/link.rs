//! Links by netlink: which exist, which are up, which carries the default route. Told by notification, never polled.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::pin::pin;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use rtnetlink::packet_route::route::{RouteAttribute, RouteHeader, RouteMessage, RouteType};
use rtnetlink::{Handle, MulticastGroup, RouteMessageBuilder, new_multicast_connection};
use tokio::sync::watch;

/// What framing a link's packets have at the TC hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Packets begin with the IP header (ARPHRD_NONE, RAWIP, PPP, TUN).
    RawIp,
    /// Packets begin with an Ethernet header.
    Ethernet,
}

/// A network link of this namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its present name.
    pub name: String,
    /// Administratively up. Operational state is not asked for: wwan, ppp and USB tethering report UNKNOWN for ever.
    pub up: bool,
    /// The framing of its packets.
    pub framing: Framing,
}

/// All links of this namespace, and the one that carries the best default route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// By interface index.
    pub by_index: BTreeMap<u32, Link>,
    /// The link of the default route with the lowest metric, IPv4 before IPv6.
    pub default_route: Option<u32>,
    /// All links with a default route of any metric: those that lead out. The others lead to the gateway's own networks.
    pub leading_out: BTreeSet<u32>,
}

impl Links {
    /// The index and link of that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<(u32, &Link)> {
        self.by_index.iter().find(|(_, link)| link.name == name).map(|(index, link)| (*index, link))
    }

    /// The names of all links but `own` that are up and lead out: those with a default route, and those known to be an `uplink`
    /// (whose default route may be in a table of its own). A message with a token in it has no business in the gateway's
    /// own networks, where it would only wait for nobody.
    #[must_use]
    pub fn other_ways_out(&self, own: &str, uplink: impl Fn(&str) -> bool) -> Vec<&str> {
        let leads_out = |(index, link): &(&u32, &Link)| {
            link.up && link.name != own && (self.leading_out.contains(index) || uplink(&link.name))
        };
        self.by_index.iter().filter(leads_out).map(|(_, link)| link.name.as_str()).collect()
    }
}

/// Begins to watch the links of this namespace. The receiver holds the present state from the start and is told of every
/// change until it is dropped. A burst, a lost notification (`ENOBUFS`) or any other doubt is met by reading everything anew.
pub async fn watch() -> Result<watch::Receiver<Links>> {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Route, MulticastGroup::Ipv6Route];
    let (connection, handle, mut messages) =
        new_multicast_connection(&groups).context("opening a netlink socket for links and routes")?;
    tokio::spawn(connection);
    let (sender, receiver) = watch::channel(dump(&handle).await?);
    tokio::spawn(async move {
        while messages.next().await.is_some() {
            while let Some(Some(_)) = futures::FutureExt::now_or_never(messages.next()) {}
            match dump(&handle).await {
                Ok(links) => drop(sender.send_if_modified(|present| {
                    let changed = *present != links;
                    *present = links;
                    changed
                })),
                Err(error) => tracing::warn!("links could not be read, waiting for the next change: {error:#}"),
            }
            if sender.is_closed() {
                return;
            }
        }
    });
    Ok(receiver)
}

async fn dump(handle: &Handle) -> Result<Links> {
    let mut links = Links::default();
    let mut stream = pin!(handle.link().get().execute());
    while let Some(message) = stream.try_next().await.context("reading links")? {
        if let Some((index, link)) = link(&message) {
            links.by_index.insert(index, link);
        }
    }
    let v4 = default_routes(handle, RouteMessageBuilder::<Ipv4Addr>::new().build()).await?;
    let v6 = default_routes(handle, RouteMessageBuilder::<Ipv6Addr>::new().build()).await?;
    let best = |routes: &[(u32, u32)]| routes.iter().min_by_key(|(metric, _)| *metric).map(|(_, index)| *index);
    links.default_route = best(&v4).or_else(|| best(&v6));
    links.leading_out = v4.iter().chain(&v6).map(|(_, index)| *index).collect();
    Ok(links)
}

fn link(message: &LinkMessage) -> Option<(u32, Link)> {
    let name = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })?;
    let framing = match message.header.link_layer_type {
        LinkLayerType::Ether | LinkLayerType::Loopback => Framing::Ethernet,
        _ => Framing::RawIp,
    };
    Some((message.header.index, Link { name, up: message.header.flags.contains(LinkFlags::Up), framing }))
}

/// Metric and link of each default route of one address family.
async fn default_routes(handle: &Handle, family: RouteMessage) -> Result<Vec<(u32, u32)>> {
    let mut found = Vec::new();
    let mut stream = pin!(handle.route().get(family).execute());
    while let Some(route) = stream.try_next().await.context("reading routes")? {
        found.extend(default_route(&route));
    }
    Ok(found)
}

/// Metric and link of a unicast default route in the main table.
fn default_route(route: &RouteMessage) -> Option<(u32, u32)> {
    let header = &route.header;
    if header.destination_prefix_length != 0
        || header.kind != RouteType::Unicast
        || header.table != RouteHeader::RT_TABLE_MAIN
    {
        return None;
    }
    let mut metric = 0;
    let mut out = None;
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::Oif(index) => out = Some(*index),
            RouteAttribute::MultiPath(hops) => out = out.or(hops.first().map(|hop| hop.interface_index)),
            _ => {}
        }
    }
    out.map(|index| (metric, index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_link_that_is_up_and_has_a_default_route_is_another_way_out() {
        let link = |name: &str, up| Link { name: name.to_owned(), up, framing: Framing::Ethernet };
        let by_index = BTreeMap::from([
            (1, link("lo", true)),
            (2, link("lan0", true)),
            (3, link("wan0", true)),
            (4, link("wan1", true)),
            (5, link("wan2", false)),
            (6, link("wwan0", true)),
        ]);
        let links = Links { by_index, default_route: Some(3), leading_out: BTreeSet::from([3, 4, 5]) };
        let metered = |name: &str| name == "wwan0";
        assert_eq!(links.other_ways_out("wan0", metered), ["wan1", "wwan0"]);
        assert_eq!(links.other_ways_out("", metered), ["wan0", "wan1", "wwan0"]);
    }
}
