//! The place of one measurement: a metered link, a server at a distance behind it, and one flow.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use agent::datapath::{Datapath, LoadSpec, load_and_pin, throttle_tolerance};
use agent::units::OctetRate;
use agent_common::{Counters, Gate, LINK_ETHERNET, MODE_THROTTLE};
use anyhow::{Result, ensure};

use super::{Cell, Means, Protocol, shaper};
use crate::Direction::{self, Downlink, Uplink};
use crate::bpffs::Workdir;
use crate::clock::{now, pause};
use crate::eventually::eventually;
use crate::netns::Namespace;
use crate::offload::Switch;
use crate::topology::{CLIENT_V4, HOST_V4, Layout, Topology};
use crate::traffic::{Datagrams, Flow, TcpServer, Transfer, udp};
use crate::tun::Pump;

/// How long the first octet may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a flow may go on.
const AT_MOST: Duration = Duration::from_mins(2);

/// Octets of payload in one datagram.
const DATAGRAM: u16 = 1400;

/// Between two looks at a clock.
const STEP: Duration = Duration::from_millis(2);

/// Three namespaces, or four where there is a distance, with a meter on the link in between.
#[derive(Debug)]
pub struct Lab {
    cell: Cell,
    /// (Dropped before the namespaces, whose devices it holds.)
    _distance: Option<Pump>,
    topology: Topology,
    server: Namespace,
    meter: Datapath,
    _pins: Workdir,
}

/// How a flow fared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fared {
    /// Octets that its receiver had from it, from the first one on over the whole time, by those that the rate allows.
    pub goodput: f64,
    /// The same over the first second.
    pub first_second: f64,
    /// What the meter let through or dropped in the flow's direction: how much of it was dropped, from 0 to 1.
    pub dropped: f64,
}

impl Lab {
    /// Builds it; when this returns the link is throttled, and nothing has been sent.
    pub fn build(cell: Cell) -> Result<Self> {
        let topology = Topology::build(&Layout { segmentation: Switch::On, gro: Switch::On, ..Layout::default() })?;
        let (server, distance) = at_a_distance(&topology, cell.round_trip / 2)?;
        for namespace in [&topology.client, &server] {
            prepare(namespace, cell.protocol)?;
        }
        let pins = Workdir::with_bpffs("throttle")?;
        let link = topology.uplinks[0].near.clone();
        let spec = LoadSpec { link: link.clone(), pin_root: pins.bpf().join("weir"), retire: vec![] };
        topology.gateway.run_in(|| load_and_pin(&spec))??;
        let mut meter = Datapath::open(&spec.pin_root, &link)?;
        match cell.means {
            Means::Policer => meter.set_gate(&throttled(cell))?,
            Means::Shaper => {
                shaper::add(&topology.gateway, &link, cell)?;
                meter.set_gate(&Gate { ceiling: u64::MAX, link_type: LINK_ETHERNET, ..Gate::default() })?
            }
        };
        Ok(Self { cell, _distance: distance, topology, server, meter, _pins: pins })
    }

    /// Sends for so long from the first octet that has arrived.
    pub fn measure(&self, length: Duration) -> Result<Fared> {
        let before = self.meter.read()?;
        let server = TcpServer::start(&self.server, HOST_V4)?;
        let flow = self.start(&server)?;
        let begun = eventually("the first octet to arrive", PATIENCE, || {
            ensure!(flow.so_far().delivered > 0, "{:?}", flow.so_far());
            Ok(now())
        })?;
        let share_after = |length| {
            let octets = delivered_at(&flow, begun + length)?;
            // The look may have come late.
            let time = now().duration_since(begun).as_secs_f64();
            anyhow::Ok(real(octets) / real(self.cell.octets_per_second()) / time)
        };
        let (first_second, goodput) = (share_after(Duration::from_secs(1))?, share_after(length)?);
        flow.stop()?;
        Ok(Fared {
            goodput,
            first_second,
            dropped: match self.cell.means {
                Means::Policer => dropped(self.cell.direction, &before, &self.meter.read()?),
                Means::Shaper => shaper::dropped(&self.topology.gateway, &self.topology.uplinks[0].near, self.cell)?,
            },
        })
    }

    fn start(&self, server: &TcpServer) -> Result<Flow> {
        let Cell { protocol, direction, .. } = self.cell;
        let client = &self.topology.client;
        let datagrams = Datagrams::endless(self.cell.octets_per_second() * 3 / 2, DATAGRAM);
        let segments = match protocol {
            Protocol::Tcp(control) | Protocol::TcpEcn(control) => {
                let control = Some(control);
                return server
                    .flow(client, Transfer { control, octets: None, ..Transfer::of(direction, 0).within(AT_MOST) });
            }
            Protocol::Udp => 1,
            Protocol::UdpTrains => 45,
        };
        let (from, to): (_, (_, IpAddr)) = match direction {
            Uplink => (client, (&self.server, HOST_V4)),
            Downlink => (&self.server, (client, CLIENT_V4)),
        };
        udp(from, to, datagrams.with_segments(segments))
    }
}

/// A gate that is shut and throttles.
fn throttled(cell: Cell) -> Gate {
    let rate = OctetRate::per_second(cell.octets_per_second());
    Gate {
        mode: MODE_THROTTLE,
        throttle_rate: rate.get(),
        throttle_tolerance_ns: throttle_tolerance(rate),
        link_type: LINK_ETHERNET,
        ..Gate::default()
    }
}

/// Where the host in the internet lives: right behind the link, or so long a way further.
fn at_a_distance(topology: &Topology, one_way: Duration) -> Result<(Namespace, Option<Pump>)> {
    if one_way.is_zero() {
        return Ok((topology.internet.clone(), None));
    }
    let host = Namespace::new("host")?;
    let pump = Pump::join_at_a_distance((&topology.internet, "far0"), (&host, "near0"), one_way)?;
    topology.internet.sysctl("ipv4/conf/all/forwarding", "1")?;
    topology.internet.ip_batch(&format!(
        "addr del {HOST_V4}/32 dev lo\nlink set far0 txqueuelen 20000 up\nroute add {HOST_V4}/32 dev far0\n"
    ))?;
    host.ip_batch(&format!(
        "link set near0 txqueuelen 20000 up\naddr add {HOST_V4}/32 dev near0\nroute add default dev near0\n"
    ))?;
    Ok((host, Some(pump)))
}

/// The settings of an end as a kernel has them by itself; whether it agrees on ECN, the cell says.
fn prepare(namespace: &Namespace, protocol: Protocol) -> Result<()> {
    if namespace.run_in(|| std::fs::exists("/proc/sys/net/ipv4/tcp_rto_max_ms"))?? {
        namespace.sysctl("ipv4/tcp_rto_max_ms", "120000")?;
    }
    if matches!(protocol, Protocol::TcpEcn(_)) { namespace.sysctl("ipv4/tcp_ecn", "1") } else { Ok(()) }
}

fn delivered_at(flow: &Flow, moment: Instant) -> Result<u64> {
    while now() < moment {
        ensure!(!flow.finished(), "the flow has ended by itself: {:?}", flow.so_far());
        pause(STEP.min(moment.saturating_duration_since(now())));
    }
    Ok(flow.so_far().delivered)
}

fn dropped(direction: Direction, before: &Counters, after: &Counters) -> f64 {
    let (before, after) = match direction {
        Uplink => (&before.uplink, &after.uplink),
        Downlink => (&before.downlink, &after.downlink),
    };
    let (through, dropped) =
        (after.throttled.octets - before.throttled.octets, after.policed.octets - before.policed.octets);
    if through + dropped == 0 { 0.0 } else { real(dropped) / real(through + dropped) }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn real(octets: u64) -> f64 {
    octets as f64
}
