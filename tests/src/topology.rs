//! The world of every scenario: `client — gateway — internet`, with one or two uplinks between the latter.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::Direction;
use crate::capture::{Capture, Classifier, End};
use crate::modem::{Driver, Modem};
use crate::netns::Namespace;
use crate::offload::{Switch, set_gro, set_segmentation};
use crate::tun::Pump;
use crate::wwan::{Parent, lead};

/// The gateway's interface towards the client.
pub const LAN: &str = "lan0";

/// The client's only interface.
pub const CLIENT: &str = "eth0";

/// The client's addresses.
pub const CLIENT_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 64, 0, 2));
/// The client's IPv6 address.
pub const CLIENT_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, 2));

/// A host in the internet that is reached over whichever uplink the gateway prefers.
pub const HOST_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// The same host's IPv6 address.
pub const HOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// The kernels' own reports follow each other within milliseconds; after so long a silence there are none to come.
const REPORTS: Duration = Duration::from_millis(60);

/// The routing rule of a frozen world: right behind the kernel's own table of local addresses.
const FROZEN: u32 = 1;

/// What an uplink is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// A veth pair: Ethernet.
    Veth,
    /// Two TUN devices and a pump: raw IP, link type 65534.
    RawIp,
    /// A USB modem, served by this driver: where the kernel has one to plug in, in a guest of `cargo xtask test --kernel`.
    UsbModem(Driver),
    /// A link of the kernel's simulator of WWAN modems, raw IP, where the kernel has that one. All of a world are links of one modem.
    Wwan,
}

/// How the world shall be.
#[derive(Debug, Clone)]
pub struct Layout {
    /// `wan0`, and `wan1` if there are two.
    pub uplinks: Vec<Medium>,
    /// Offloads of both ends of an uplink. Off, as it must be for exact captures: the kernel segments after the TC hook.
    pub segmentation: Switch,
    /// Whether the gateway merges what it receives on its uplinks.
    pub gro: Switch,
    /// Octets of the longest IP packet on an uplink, 1280 to 1500.
    pub mtu: u16,
}

impl Default for Layout {
    fn default() -> Self {
        Self { uplinks: vec![Medium::Veth], segmentation: Switch::Off, gro: Switch::Off, mtu: 1500 }
    }
}

impl Layout {
    /// As the default, with GRO on the gateway's end.
    #[must_use]
    pub fn with_gro() -> Self {
        Self { gro: Switch::On, ..Self::default() }
    }

    /// As the default, with these uplinks.
    #[must_use]
    pub fn with_uplinks(uplinks: &[Medium]) -> Self {
        Self { uplinks: uplinks.to_vec(), ..Self::default() }
    }
}

/// Three namespaces, connected. Everything goes when it is dropped.
#[derive(Debug)]
pub struct Topology {
    /// The uplinks, `wan0` first. (Dropped before the namespaces: a pump holds devices in two of them.)
    pub uplinks: Vec<Uplink>,
    /// The modem of all WWAN links.
    parent: Option<Parent>,
    /// Who uses the link.
    pub client: Namespace,
    /// Who is metered.
    pub gateway: Namespace,
    /// Everything beyond the modem, the charging server too.
    pub internet: Namespace,
    mtu: u16,
}

/// One uplink, seen from both ends.
#[derive(Debug)]
pub struct Uplink {
    /// The interface in the gateway, `wan0` or `wan1`.
    pub near: String,
    /// The interface in the internet, `modem0` or `modem1`: where the oracle listens.
    pub far: String,
    /// The gateway's addresses on it.
    pub near_v4: IpAddr,
    /// The gateway's IPv6 address on it.
    pub near_v6: IpAddr,
    /// The far end's address: traffic to it takes this uplink, and so do the answers, whichever is preferred.
    pub far_v4: IpAddr,
    /// The far end's IPv6 address.
    pub far_v6: IpAddr,
    /// Carries and counts the packets of a raw-IP uplink.
    pub pump: Option<Pump>,
    /// The modem of an uplink that is one.
    pub modem: Option<Modem>,
    index: u8,
    make: Make,
}

/// What an uplink is made of and how its ends are switched: enough to make it again.
#[derive(Debug, Clone, Copy)]
struct Make {
    medium: Medium,
    segmentation: Switch,
    gro: Switch,
}

impl Topology {
    /// Builds the world; when this returns, the client reaches the internet over `wan0`.
    pub fn build(layout: &Layout) -> Result<Self> {
        let [client, gateway, internet] = ["client", "gateway", "internet"].map(Namespace::new);
        let mut world = Self {
            uplinks: Vec::new(),
            parent: None,
            client: client?,
            gateway: gateway?,
            internet: internet?,
            mtu: layout.mtu,
        };
        for family in ["ipv4/conf/all", "ipv6/conf/all", "ipv6/conf/default"] {
            world.gateway.sysctl(&format!("{family}/forwarding"), "1")?;
        }
        world.internet.ip_batch(&format!("addr add {HOST_V4}/32 dev lo\naddr add {HOST_V6}/128 dev lo nodad\n"))?;
        world.add_lan()?;
        for medium in &layout.uplinks {
            world.add_uplink(*medium, layout.segmentation, layout.gro)?;
        }
        world.prefer(0)?;
        world.settle()?;
        Ok(world)
    }

    /// Waits until the kernels have sent the few reports that cannot be switched off, and the uplinks are quiet.
    pub fn settle(&self) -> Result<()> {
        let listen = |uplink: &Uplink| Capture::start(&self.internet, &uplink.far, End::Far, Classifier::default());
        let captures: Result<Vec<_>> = self.uplinks.iter().map(listen).collect();
        captures?.iter().try_for_each(|capture| capture.quiet_for(REPORTS).map(drop))
    }

    /// Adds the next uplink (`wan0`, `wan1`, …), up and with all its routes, but not preferred.
    pub fn add_uplink(&mut self, medium: Medium, segmentation: Switch, gro: Switch) -> Result<()> {
        let uplink = Uplink::numbered(u8::try_from(self.uplinks.len())?, Make { medium, segmentation, gro });
        let (table, far4, far6) = (uplink.table(), uplink.far_v4, uplink.far_v6);
        self.internet.ip(&format!("rule add from {far4} lookup {table}"))?;
        self.internet.ip(&format!("-6 rule add from {far6} lookup {table}"))?;
        self.uplinks.push(uplink);
        let index = self.uplinks.len() - 1;
        self.put_in(index)?;
        self.raise(index)
    }

    /// Makes the devices of an uplink, down and with their addresses: a modem is put in, for the first time or again.
    pub fn put_in(&mut self, index: usize) -> Result<()> {
        let uplink = self.uplinks.get_mut(index).with_context(|| format!("there is no uplink {index}"))?;
        let Make { medium, segmentation, gro } = uplink.make;
        match medium {
            Medium::Veth => {
                connect((&self.gateway, &uplink.near), (&self.internet, &uplink.far), uplink.index + 1)?;
                let (near, far) = ((&self.gateway, uplink.near.as_str()), (&self.internet, uplink.far.as_str()));
                set_offloads(near, far, segmentation, gro)?;
            }
            Medium::RawIp => {
                let (near, far) = ((&self.gateway, uplink.near.as_str()), (&self.internet, uplink.far.as_str()));
                uplink.pump = Some(Pump::join(near, far, gro).context("pump")?);
            }
            Medium::UsbModem(driver) => {
                let number = uplink.index + 1;
                let modem = match uplink.modem.take() {
                    Some(modem) => modem,
                    None => Modem::make(driver, &mac(number, 1), &mac(number, 2))?,
                };
                modem.plug_in((&self.gateway, &uplink.near), (&self.internet, &uplink.far))?;
                uplink.modem = Some(modem);
            }
            Medium::Wwan => {
                let parent = self.parent.take().map_or_else(Parent::make, Ok)?;
                self.parent.insert(parent).add_link((&self.gateway, &uplink.near), uplink.index + 1)?;
                self.lead_out(index)?;
            }
        }
        let uplink = self.uplink(index)?;
        self.address_near(uplink)?;
        self.address_far(uplink)
    }

    /// Takes the devices of an uplink away at both ends, as when a modem is pulled out.
    pub fn pull_out(&mut self, index: usize) -> Result<()> {
        let uplink = self.uplinks.get_mut(index).with_context(|| format!("there is no uplink {index}"))?;
        if let Some(modem) = &uplink.modem {
            return modem.pull_out();
        }
        match uplink.pump.take() {
            // The devices go with the descriptors that the pump holds.
            Some(pump) => pump.stop().with_context(|| format!("the pump of {}", uplink.near)),
            None => self.gateway.ip(&format!("link del {}", uplink.near)).map(drop),
        }
    }

    /// Takes the modem of all WWAN links away, and them with it.
    pub fn pull_out_parent(&mut self) -> Result<()> {
        self.parent.take().context("there is no modem with WWAN links")?.remove()
    }

    /// Joins the gateway's end of a WWAN link to its far end, which outlives it, by a veth pair.
    fn lead_out(&self, index: usize) -> Result<()> {
        let uplink = self.uplink(index)?;
        let (air, number) = (uplink.air(), uplink.index + 1);
        if self.gateway.ifindex(&air).is_err() {
            let (near, far) = ((&self.gateway, air.as_str()), (&self.internet, uplink.far.as_str()));
            connect(near, far, number)?;
            set_offloads(near, far, uplink.make.segmentation, uplink.make.gro)?;
            // It is on nobody's bill, so it says nothing of its own.
            self.gateway.sysctl(&format!("ipv6/conf/{air}/disable_ipv6"), "1")?;
            self.gateway.ip(&format!("link set {air} up"))?;
        }
        lead(&self.gateway, &uplink.near, &air, [&mac(number, 1), &mac(number, 2)])
    }

    /// Sets an uplink up at both ends and gives it its neighbours and routes, which the kernel forgets when a link goes down.
    pub fn raise(&self, index: usize) -> Result<()> {
        self.set_up(index)?;
        self.route(index)
    }

    /// The first half of [`Topology::raise`]: both ends up, each knowing the other.
    pub fn set_up(&self, index: usize) -> Result<()> {
        let uplink = self.uplink(index)?;
        let (near, far) = (&uplink.near, &uplink.far);
        // The far end first: the gateway reports its multicast groups as soon as it is up, and somebody has to hear it.
        self.internet.ip(&format!("link set {far} up"))?;
        self.gateway.ip(&format!("link set {near} up"))?;
        if let Some(modem) = &uplink.modem {
            modem.connect((&self.gateway, near), (&self.internet, far))?;
        }
        let number = uplink.index + 1;
        // A link of raw IP has no neighbours; the far end of a WWAN link is of Ethernet.
        let medium = uplink.make.medium;
        if ![Medium::RawIp, Medium::Wwan].contains(&medium) {
            introduce(&self.gateway, near, &mac(number, 2), &[uplink.far_v4, uplink.far_v6])?;
        }
        if medium != Medium::RawIp {
            introduce(&self.internet, far, &mac(number, 1), &[uplink.near_v4, uplink.near_v6])?;
        }
        Ok(())
    }

    /// The second half of [`Topology::raise`]: the routes, which a frozen world does not take.
    pub fn route(&self, index: usize) -> Result<()> {
        let uplink = self.uplink(index)?;
        let (near, far) = (&uplink.near, &uplink.far);
        let metric = 100 * (u32::from(uplink.index) + 1);
        let table = uplink.table();
        let (near4, near6, far4, far6) = (uplink.near_v4, uplink.near_v6, uplink.far_v4, uplink.far_v6);
        self.gateway.ip_batch(&format!(
            "route replace default via {far4} dev {near} metric {metric}\nroute replace default via {far6} dev {near} metric {metric}\n"
        ))?;
        self.internet.ip_batch(&format!(
            "route replace default via {near4} dev {far} table {table}\nroute replace default via {near6} dev {far} table {table}\n"
        ))
    }

    /// Sets an uplink down at the gateway, as when a modem loses its network.
    pub fn lower(&self, index: usize) -> Result<()> {
        self.gateway.ip(&format!("link set {} down", self.uplink(index)?.near)).map(drop)
    }

    /// A long queue, where there is one: what is lost behind the meter makes the two ends differ.
    fn address_near(&self, uplink: &Uplink) -> Result<()> {
        let (near, mtu, near4, near6) = (&uplink.near, self.mtu, uplink.near_v4, uplink.near_v6);
        self.gateway.ip_batch(&format!(
            "link set {near} mtu {mtu} txqueuelen 20000\naddr add {near4}/24 dev {near}\naddr add {near6}/64 dev {near} nodad\n"
        ))
    }

    /// (What of a modem outlives being pulled out has its addresses still.)
    fn address_far(&self, uplink: &Uplink) -> Result<()> {
        let (far, mtu, far4, far6) = (&uplink.far, self.mtu, uplink.far_v4, uplink.far_v6);
        self.internet.ip_batch(&format!(
            "link set {far} mtu {mtu} txqueuelen 20000\naddr replace {far4}/24 dev {far}\naddr replace {far6}/64 dev {far} nodad\n"
        ))
    }

    /// Deletes a veth uplink and makes one of the same name in the same breath, up and with its routes.
    pub fn remake(&self, index: usize) -> Result<()> {
        let uplink = self.uplink(index)?;
        let wire = wire(&uplink.near, (&self.internet, &uplink.far), uplink.index + 1);
        self.gateway.ip_batch(&format!("link del {}\n{wire}\n", uplink.near))?;
        let Make { segmentation, gro, .. } = uplink.make;
        set_offloads((&self.gateway, &uplink.near), (&self.internet, &uplink.far), segmentation, gro)?;
        self.address_near(uplink)?;
        self.address_far(uplink)?;
        self.raise(index)
    }

    /// Gives the gateway's end of an uplink, which has come back from another namespace, its addresses and routes again.
    pub fn take_back(&self, index: usize) -> Result<()> {
        self.address_near(self.uplink(index)?)?;
        self.raise(index)
    }

    /// Gives the gateway's end of an uplink another name.
    pub fn rename(&mut self, index: usize, name: &str) -> Result<()> {
        self.gateway.ip(&format!("link set {} name {name}", self.uplink(index)?.near))?;
        name.clone_into(&mut self.uplinks[index].near);
        Ok(())
    }

    /// Has the gateway's ends of two uplinks swap their names.
    pub fn swap_names(&mut self) -> Result<()> {
        let (first, second) = (self.uplink(0)?.near.clone(), self.uplink(1)?.near.clone());
        self.gateway.ip_batch(&format!(
            "link set {first} name swapping\nlink set {second} name {first}\nlink set swapping name {second}\n"
        ))?;
        (self.uplinks[0].near, self.uplinks[1].near) = (second, first);
        Ok(())
    }

    /// Sets both ends of an uplink down: nobody sends into a link from which nobody receives.
    pub fn lower_both(&self, index: usize) -> Result<()> {
        self.lower(index)?;
        self.internet.ip(&format!("link set {} down", self.uplink(index)?.far)).map(drop)
    }

    /// Stops every packet before it reaches an uplink, at both ends, until [`Topology::thaw`]: what is on its way arrives, and then
    /// a link can be changed without a packet lost between the meter and the far end.
    pub fn freeze(&self) -> Result<()> {
        for family in ["", "-6 "] {
            self.gateway.ip(&format!("{family}rule add pref {FROZEN} blackhole"))?;
            // A local sender is told so, as by any router.
            self.internet.ip(&format!("{family}rule add pref {FROZEN} unreachable"))?;
        }
        Ok(())
    }

    /// Lets packets go again.
    pub fn thaw(&self) -> Result<()> {
        for family in ["", "-6 "] {
            self.gateway.ip(&format!("{family}rule del pref {FROZEN}"))?;
            self.internet.ip(&format!("{family}rule del pref {FROZEN}"))?;
        }
        Ok(())
    }

    /// Makes the traffic between the client and [`HOST_V4`] or [`HOST_V6`] take this uplink, both ways.
    pub fn prefer(&self, index: usize) -> Result<()> {
        let uplink = self.uplink(index)?;
        let (near, far) = (&uplink.near, &uplink.far);
        self.gateway.ip_batch(&format!(
            "route replace default via {} dev {near} metric 10\nroute replace default via {} dev {near} metric 10\n",
            uplink.far_v4, uplink.far_v6,
        ))?;
        self.internet.ip_batch(&format!(
            "route replace default via {} dev {far}\nroute replace default via {} dev {far}\n",
            uplink.near_v4, uplink.near_v6,
        ))
    }

    /// Packets that the devices of an uplink have lost behind the sender's meter and before the receiver's, or more: where this is not 0, the
    /// two ends rightly differ. (A veth queue holds 256 packets when GRO is on.)
    pub fn lost(&self, index: usize) -> Result<u64> {
        Ok(self.lost_to(index, Direction::Uplink)?.end() + self.lost_to(index, Direction::Downlink)?.end())
    }

    /// How many packets the devices of an uplink have lost in a direction. It is a range, because what finds no room in the receiving
    /// processor's backlog is told by both ends of a veth pair, what finds none in the pair's own queue by the sender alone.
    pub fn lost_to(&self, index: usize, direction: Direction) -> Result<RangeInclusive<u64>> {
        let uplink = self.uplink(index)?;
        let (near, far) = (dropped(&self.gateway, &uplink.near)?, dropped(&self.internet, &uplink.far)?);
        let (sent, received) = match direction {
            Direction::Uplink => (near.sent, far.received),
            Direction::Downlink => (far.sent, near.received),
        };
        Ok(sent.max(received)..=sent + received)
    }

    /// Packets that the far end's device of an uplink has received, by its own counter.
    pub fn arrived(&self, index: usize) -> Result<u64> {
        let far = &self.uplink(index)?.far;
        // Of the namespace of the thread that reads.
        let text = self.internet.run_in(|| std::fs::read_to_string("/proc/thread-self/net/dev"))??;
        let figures = text.lines().find_map(|line| line.trim_start().strip_prefix(far)?.strip_prefix(':'));
        // Octets, then packets.
        let packets = figures.and_then(|figures| figures.split_whitespace().nth(1)?.parse().ok());
        packets.with_context(|| format!("no figures of {far} in {text}"))
    }

    /// Octets of the longest IP packet on an uplink.
    #[must_use]
    pub const fn mtu(&self) -> u16 {
        self.mtu
    }

    fn uplink(&self, index: usize) -> Result<&Uplink> {
        self.uplinks.get(index).with_context(|| format!("there is no uplink {index}"))
    }

    fn add_lan(&self) -> Result<()> {
        connect((&self.client, CLIENT), (&self.gateway, LAN), 0)?;
        let (gateway4, gateway6) = ("10.64.0.1", "fd00:64::1");
        self.client.ip_batch(&format!(
            "addr add {CLIENT_V4}/24 dev {CLIENT}\naddr add {CLIENT_V6}/64 dev {CLIENT} nodad\nlink set {CLIENT} up\n"
        ))?;
        self.gateway.ip_batch(&format!(
            "addr add {gateway4}/24 dev {LAN}\naddr add {gateway6}/64 dev {LAN} nodad\nlink set {LAN} up\n"
        ))?;
        introduce(&self.client, CLIENT, &mac(0, 2), &[gateway4.parse()?, gateway6.parse()?])?;
        introduce(&self.gateway, LAN, &mac(0, 1), &[CLIENT_V4, CLIENT_V6])?;
        self.client.ip_batch(&format!(
            "route add default via {gateway4} dev {CLIENT}\nroute add default via {gateway6} dev {CLIENT}\n"
        ))
    }
}

impl Uplink {
    fn numbered(index: u8, make: Make) -> Self {
        let v4 = |host| IpAddr::V4(Ipv4Addr::new(198, 18, index, host));
        let v6 = |host| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, u16::from(index) + 1, 0, 0, 0, 0, host));
        Self {
            near: format!("wan{index}"),
            far: format!("modem{index}"),
            near_v4: v4(2),
            near_v6: v6(2),
            far_v4: v4(1),
            far_v6: v6(1),
            pump: None,
            modem: None,
            index,
            make,
        }
    }

    /// The gateway's end of the way between a WWAN link and its far end.
    fn air(&self) -> String {
        format!("air{}", self.index)
    }

    /// The internet's routing table for what this uplink's far end answers.
    fn table(&self) -> u32 {
        100 + u32::from(self.index)
    }
}

/// Packets that an interface has dropped, by its own counters.
struct Dropped {
    /// Instead of sending them.
    sent: u64,
    /// Instead of receiving them.
    received: u64,
}

fn dropped(namespace: &Namespace, interface: &str) -> Result<Dropped> {
    let text = namespace.ip(&format!("-json -statistics link show dev {interface}"))?;
    let links: serde_json::Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let figure =
        |way: &str| links[0]["stats64"][way]["dropped"].as_u64().with_context(|| format!("no figures in {text}"));
    Ok(Dropped { sent: figure("tx")?, received: figure("rx")? })
}

/// A locally administered address: which pair, which end.
fn mac(pair: u8, end: u8) -> String {
    format!("02:00:00:00:{pair:02x}:{end:02x}")
}

/// The offloads of a veth pair, of which the first end is the gateway's.
fn set_offloads(near: (&Namespace, &str), far: (&Namespace, &str), segmentation: Switch, gro: Switch) -> Result<()> {
    for (namespace, interface) in [near, far] {
        set_segmentation(namespace, interface, segmentation)?;
    }
    set_gro(near.0, near.1, gro)
}

/// A veth pair between two namespaces.
fn connect(one: (&Namespace, &str), other: (&Namespace, &str), pair: u8) -> Result<()> {
    one.0.ip(&wire(one.1, other, pair)).map(drop)
}

/// What `ip` is told to make a veth pair with its other end in another namespace.
fn wire(one: &str, other: (&Namespace, &str), pair: u8) -> String {
    let (near, far) = (mac(pair, 1), mac(pair, 2));
    format!("link add {one} address {near} type veth peer name {} address {far} netns {}", other.1, other.0.name())
}

/// Tells an interface who lives at `mac`, so that nobody has to ask and no query disturbs a count.
fn introduce(namespace: &Namespace, interface: &str, mac: &str, neighbours: &[IpAddr]) -> Result<()> {
    let line = |address| format!("neigh replace {address} lladdr {mac} dev {interface} nud permanent\n");
    namespace.ip_batch(&neighbours.iter().map(line).collect::<String>())
}
