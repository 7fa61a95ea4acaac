//! Links by netlink: which exist, which are up, what they stand on, where their routes lead. Told by notification, never polled.

mod features;
mod flowtables;
mod glance;
mod routes;
mod stack;
mod watcher;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use features::offloads_flows;
pub use flowtables::{Flowtable, flowtables};
pub use glance::Glance;
pub use routes::RouteOut;
pub use stack::Refusal;
#[cfg(fuzzing)]
pub use watcher::hear;
pub use watcher::watch;

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
    /// What it is made of (`IFLA_INFO_KIND`: `bridge`, `vlan`, `tun` …); empty for hardware.
    pub kind: String,
    /// The link that its packets cross as well (`IFLA_LINK` of this namespace).
    pub lower: Option<u32>,
    /// The bridge, bond or the like of which it is a port (`IFLA_MASTER`).
    pub master: Option<u32>,
    /// Channels that a modem's driver has made of it and that netlink does not tell (`qmimux0`).
    pub channels: Vec<String>,
}

/// All links of this namespace, and the routes out of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// By interface index.
    pub by_index: BTreeMap<u32, Link>,
    /// The unicast routes of the main table, one for each next hop.
    pub routes: Arc<[RouteOut]>,
    /// How often filters or queueing disciplines have changed, of whichever link: a meter may have been taken off.
    pub filter_changes: u64,
}

impl Links {
    /// Tells whether links and routes are the same as those.
    #[must_use]
    pub fn are_alike(&self, others: &Self) -> bool {
        self.by_index == others.by_index && self.routes == others.routes
    }

    /// The index and link of that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<(u32, &Link)> {
        self.by_index.iter().find(|(_, link)| link.name == name).map(|(index, link)| (*index, link))
    }

    /// The name of the link with this index.
    #[must_use]
    pub fn name_of(&self, index: u32) -> Option<&str> {
        self.by_index.get(&index).map(|link| link.name.as_str())
    }
}

#[cfg(test)]
impl Link {
    /// A link that is up, stands on nothing and is nobody's port.
    pub(crate) fn plain(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            up: true,
            framing: Framing::Ethernet,
            kind: String::new(),
            lower: None,
            master: None,
            channels: Vec::new(),
        }
    }
}
