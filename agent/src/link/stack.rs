//! Links that stand on other links: which cannot be metered without counting an octet twice or missing it, and why.

use std::fmt;

use super::{Link, Links};

/// Kinds that gather other links under them: what they carry crosses their ports.
const GATHERERS: [&str; 7] = ["bridge", "bond", "team", "vrf", "hsr", "batadv", "openvswitch"];
/// Kinds whose `IFLA_LINK` is the other end of a pair, not a link below.
const PAIRS: [&str; 3] = ["veth", "vxcan", "netkit"];
/// Channels of a modem: each is a path of its own, and the modem's link below carries them all in wrappings.
const CHANNELS: [&str; 1] = ["rmnet"];
/// Kinds that wrap packets into others (or tag them for a switch): what crosses the link below is another packet, longer by the
/// wrapping, and the one below may carry much else.
const WRAPPERS: [&str; 19] = [
    "ipip",
    "gre",
    "gretap",
    "ip6gre",
    "ip6gretap",
    "erspan",
    "ip6erspan",
    "sit",
    "ip6tnl",
    "vti",
    "vti6",
    "xfrm",
    "vxlan",
    "geneve",
    "gtp",
    "bareudp",
    "amt",
    "wireguard",
    "dsa",
];

/// Why a link is not metered. `Display` is for people: what it is, and what to meter instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The configuration does not name it (any more).
    Unwanted,
    /// It is a bridge, a bond or the like.
    Gatherer {
        /// What it is.
        kind: String,
        /// Its ports.
        ports: Vec<String>,
    },
    /// It is a port of a bridge, a bond or the like.
    Port {
        /// What the master is.
        kind: String,
        /// The master's name.
        master: String,
    },
    /// A modem's link whose packets are those of its channels, wrapped.
    Wrapped {
        /// The channels.
        channels: Vec<String>,
    },
    /// It stands on another link, which its packets cross as they are.
    Stacked {
        /// What it is.
        kind: String,
        /// The link below.
        lower: String,
    },
    /// It wraps its packets into those of a link that is metered itself.
    OverMetered {
        /// What it is.
        kind: String,
        /// The link below.
        lower: String,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unwanted => f.write_str("no [[link]] of the configuration fits its name"),
            Self::Gatherer { kind, ports } => {
                write!(
                    f,
                    "it is a {kind}: what it carries crosses its ports ({}), which other traffic may share; ",
                    listed(ports)
                )?;
                f.write_str("take the uplink out of it and meter that")
            }
            Self::Port { kind, master } => {
                write!(
                    f,
                    "it is a port of the {kind} {master}, whose traffic it shares; take it out of {master} to have it metered"
                )
            }
            Self::Wrapped { channels } => {
                write!(f, "its packets are those of its channels, wrapped; meter {} instead", listed(channels))
            }
            Self::Stacked { kind, lower } => {
                write!(
                    f,
                    "it is a {kind} on top of {lower}, which all its packets cross; meter its parent {lower} instead"
                )
            }
            Self::OverMetered { kind, lower } => {
                write!(
                    f,
                    "it is a {kind} over {lower}, which is metered itself: every octet would be charged twice; "
                )?;
                write!(f, "leave it out of the configuration, or leave out {lower}")
            }
        }
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none yet".to_owned() } else { names.join(", ") }
}

impl Links {
    /// Why the link with this index cannot be metered; `None` when it can. `metered` tells the names that the configuration
    /// wants metered.
    #[must_use]
    pub fn refusal(&self, index: u32, metered: impl Fn(&str) -> bool) -> Option<Refusal> {
        let link = self.by_index.get(&index)?;
        self.gathers(index, link)
            .or_else(|| self.is_port(link))
            .or_else(|| self.is_wrapped(index, link))
            .or_else(|| self.is_stacked(index, link, metered))
    }

    fn gathers(&self, index: u32, link: &Link) -> Option<Refusal> {
        let ports: Vec<String> = self.names(|other| other.master == Some(index)).collect();
        if ports.is_empty() && !GATHERERS.contains(&link.kind.as_str()) {
            return None;
        }
        let kind = if link.kind.is_empty() { "master of other links".to_owned() } else { link.kind.clone() };
        Some(Refusal::Gatherer { kind, ports })
    }

    /// A member of a VRF is no port: the VRF only chooses its routing table.
    fn is_port(&self, link: &Link) -> Option<Refusal> {
        let master = link.master?;
        let (name, kind) = match self.by_index.get(&master) {
            Some(master) if master.kind == "vrf" => return None,
            Some(master) => (master.name.clone(), master.kind.as_str()),
            None => (format!("number {master}"), ""),
        };
        let kind = if kind.is_empty() { "link" } else { kind };
        Some(Refusal::Port { kind: kind.to_owned(), master: name })
    }

    fn is_wrapped(&self, index: u32, link: &Link) -> Option<Refusal> {
        let is_channel = |other: &Link| other.lower == Some(index) && CHANNELS.contains(&other.kind.as_str());
        let channels: Vec<String> = self.names(is_channel).chain(link.channels.iter().cloned()).collect();
        (!channels.is_empty()).then_some(Refusal::Wrapped { channels })
    }

    fn is_stacked(&self, index: u32, link: &Link, metered: impl Fn(&str) -> bool) -> Option<Refusal> {
        let lower = link.lower.filter(|lower| *lower != index)?;
        let kind = link.kind.as_str();
        if PAIRS.contains(&kind) || CHANNELS.contains(&kind) {
            return None;
        }
        let name = self.name_of(lower).map_or_else(|| format!("number {lower}"), str::to_owned);
        if WRAPPERS.contains(&kind) {
            return metered(&name).then(|| Refusal::OverMetered { kind: kind.to_owned(), lower: name });
        }
        let kind = if kind.is_empty() { "link" } else { kind };
        Some(Refusal::Stacked { kind: kind.to_owned(), lower: name })
    }

    fn names(&self, which: impl Fn(&Link) -> bool) -> impl Iterator<Item = String> {
        self.by_index.values().filter(move |link| which(link)).map(|link| link.name.clone())
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage};

    use super::*;
    use crate::link::watcher;

    /// What the kernel would say of a link.
    fn told(index: u32, name: &str, kind: Option<InfoKind>, more: Vec<LinkAttribute>) -> (u32, Link) {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        message.attributes.extend(kind.map(|kind| LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])));
        message.attributes.extend(more);
        watcher::link(&message).unwrap()
    }

    /// The refusal of link 2 on a gateway where `wan0`, the link 1, is metered as well.
    fn refusal(links: Vec<(u32, Link)>) -> Option<Refusal> {
        let links = Links { by_index: links.into_iter().collect(), ..Links::default() };
        links.refusal(2, |name| name == "wan0")
    }

    fn over(kind: InfoKind, lower: &str) -> Option<Refusal> {
        refusal(vec![told(1, lower, None, vec![]), told(2, "up0", Some(kind), vec![LinkAttribute::Link(1)])])
    }

    #[test]
    fn a_link_on_top_of_another_is_refused_and_its_parent_named() {
        for kind in [
            InfoKind::Vlan,
            InfoKind::MacVlan,
            InfoKind::MacVtap,
            InfoKind::IpVlan,
            InfoKind::IpVtap,
            InfoKind::MacSec,
            InfoKind::Ipoib,
            InfoKind::Other("new".to_owned()),
        ] {
            let words = over(kind.clone(), "eth0").unwrap().to_string();
            assert!(words.contains(&format!("it is a {kind} on top of eth0")), "{words}");
            assert!(words.contains("meter its parent eth0 instead"), "{words}");
        }
    }

    #[test]
    fn a_tunnel_is_refused_over_a_metered_link_only() {
        for kind in [
            InfoKind::Xfrm,
            InfoKind::IpIp,
            InfoKind::SitTun,
            InfoKind::GreTun,
            InfoKind::GreTap,
            InfoKind::GreTun6,
            InfoKind::Ip6Tnl,
            InfoKind::Vti,
            InfoKind::Vti6,
            InfoKind::Vxlan,
            InfoKind::Geneve,
            InfoKind::Gtp,
            InfoKind::ErSpan,
            InfoKind::Ip6ErSpan,
            InfoKind::BareUdp,
            InfoKind::Dsa,
        ] {
            assert_eq!(over(kind.clone(), "eth0"), None, "{kind}");
            let expected = Refusal::OverMetered { kind: kind.to_string(), lower: "wan0".to_owned() };
            assert_eq!(over(kind.clone(), "wan0"), Some(expected), "{kind}");
        }
    }

    #[test]
    fn masters_and_their_ports_are_refused_but_not_the_members_of_a_vrf() {
        for kind in [InfoKind::Bridge, InfoKind::Bond, InfoKind::Team] {
            let port = told(1, "eth0", None, vec![LinkAttribute::Controller(2)]);
            let expected = Refusal::Gatherer { kind: kind.to_string(), ports: vec!["eth0".to_owned()] };
            assert_eq!(refusal(vec![port, told(2, "m0", Some(kind.clone()), vec![])]), Some(expected));

            let port = told(2, "eth0", None, vec![LinkAttribute::Controller(3)]);
            let expected = Refusal::Port { kind: kind.to_string(), master: "m0".to_owned() };
            assert_eq!(refusal(vec![port, told(3, "m0", Some(kind), vec![])]), Some(expected));
        }
        let member = told(2, "eth0", None, vec![LinkAttribute::Controller(3)]);
        assert_eq!(refusal(vec![member, told(3, "red", Some(InfoKind::Vrf), vec![])]), None);
        assert!(refusal(vec![told(2, "red", Some(InfoKind::Vrf), vec![])]).is_some());
    }

    #[test]
    fn a_modem_with_channels_is_refused_and_its_channels_are_not() {
        let channel = |index| told(index, "rmnet1", Some(InfoKind::RmNet), vec![LinkAttribute::Link(5 - index)]);
        let modem = |index| told(index, "wwan0", None, vec![]);
        let expected = Refusal::Wrapped { channels: vec!["rmnet1".to_owned()] };
        assert_eq!(refusal(vec![modem(2), channel(3)]), Some(expected));
        assert_eq!(refusal(vec![channel(2), modem(3)]), None);
        let (index, link) = modem(2);
        let channels = vec!["qmimux0".to_owned()];
        let words = refusal(vec![(index, Link { channels, ..link })]).unwrap().to_string();
        assert!(words.ends_with("meter qmimux0 instead"), "{words}");
    }

    #[test]
    fn the_other_end_of_a_pair_and_a_link_below_in_another_namespace_do_not_count() {
        assert_eq!(over(InfoKind::Veth, "eth0"), None);
        let abroad = vec![LinkAttribute::Link(1), LinkAttribute::LinkNetNsId(0)];
        let vlan = told(2, "eth0.5", Some(InfoKind::Vlan), abroad);
        assert_eq!(refusal(vec![told(1, "wan0", None, vec![]), vlan]), None);
        for plain in [InfoKind::Tun, InfoKind::Wireguard, InfoKind::Wwan, InfoKind::Other("ppp".to_owned())] {
            assert_eq!(refusal(vec![told(2, "up0", Some(plain), vec![LinkAttribute::Link(0)])]), None);
        }
    }
}
