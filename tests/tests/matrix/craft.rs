//! Cells of packets made by hand: tunnels that this kernel has no device for, and in-band tags.

use agent_common::Tally;
use anyhow::Result;
use e2e::Direction::{self, Downlink, Uplink};
use e2e::inject::{Cut, CutKind, Injector};
use e2e::offload::Switch;
use e2e::packet::{
    BRIDGED, GRE, ICMP, IPIP, IPV4, IPV6, IPV6_IN_IP, QINQ, TCP, UDP, UPLINK_V4, V4, VLAN, ethernet, extension, gre,
    sealed, tcp, udp, udp_with, v4, v6_between, vxlan,
};
use e2e::topology::{CLIENT, CLIENT_V4, CLIENT_V6, LAN, Medium, Topology};

use crate::{Link, table::Table};

/// Addresses beyond both ends, whose packets are dropped there without a word.
const SINK_V4: [[u8; 4]; 2] = [[203, 0, 113, 9], [10, 66, 0, 9]];
const SINK_V6: [[u8; 16]; 2] =
    [[0x20, 1, 0x0d, 0xb8, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9], [0xfd, 0, 0, 0x66, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]];
const SOURCE_V4: [[u8; 4]; 2] = [[10, 64, 0, 2], [192, 0, 2, 1]];
const SOURCE_V6: [[u8; 16]; 2] =
    [[0xfd, 0, 0, 0x64, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2], [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]];

/// Don't fragment: such packets are merged whatever their identification.
const WHOLE: u16 = 0x4000;

/// Packets of one train; not more than a ring of a veth pair takes at once.
const TRAIN: u32 = 40;

/// Ethernet addresses of the gateway towards the client, and on its first uplink.
const GATEWAY_LAN: [u8; 6] = [2, 0, 0, 0, 0, 2];
const GATEWAY_WAN: [u8; 6] = [2, 0, 0, 0, 1, 1];
/// Of the uplink's far end.
const FAR: [u8; 6] = [2, 0, 0, 0, 1, 2];

/// Sends what is for the sinks to where it is dropped.
pub(crate) fn route_sinks(topology: &Topology) -> Result<()> {
    topology.gateway.ip_batch(&format!(
        "route add 10.66.0.0/24 via {CLIENT_V4} dev {LAN}\nroute add fd00:66::/64 via {CLIENT_V6} dev {LAN}\n"
    ))
}

/// Who speaks to whom, one way.
#[derive(Clone, Copy)]
struct Ends {
    v4: V4,
    v6: ([u8; 16], [u8; 16]),
}

impl Ends {
    fn of(direction: Direction) -> Self {
        let way = usize::from(direction == Downlink);
        Self {
            v4: V4 { source: SOURCE_V4[way], destination: SINK_V4[way], fragment_offset: WHOLE, ..UPLINK_V4 },
            v6: (SOURCE_V6[way], SINK_V6[way]),
        }
    }

    fn v4(&self, protocol: u8, payload: &[u8]) -> Vec<u8> {
        sealed(v4(self.v4, protocol, payload))
    }

    fn v6(&self, next: u8, payload: &[u8]) -> Vec<u8> {
        sealed(v6_between(self.v6.0, self.v6.1, next, payload))
    }
}

/// The segment of this number in a train of so much payload each; the last one says so.
fn segment(number: u32, payload: usize) -> Vec<u8> {
    let mut segment = tcp(40_000, 9, payload);
    let sequence = number * u32::try_from(payload).unwrap_or_default();
    segment[4..8].copy_from_slice(&sequence.to_be_bytes());
    segment[13] = if number == TRAIN - 1 { 0x18 } else { 0x10 };
    segment
}

/// A train of TCP segments of a kilobyte, each wrapped up.
fn train(wrap: impl Fn(Vec<u8>) -> Vec<u8>) -> Vec<Vec<u8>> {
    (0..TRAIN).map(|number| wrap(segment(number, 1000))).collect()
}

/// What a tunnel's packets look like; those of each kind are merged by GRO.
fn tunnels(ends: Ends) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    // Inside the tunnel the same two ends.
    let (v4, v6) = (move |segment: Vec<u8>| ends.v4(TCP, &segment), move |segment: Vec<u8>| ends.v6(TCP, &segment));
    vec![
        ("IPIP", train(|segment| ends.v4(IPIP, &v4(segment)))),
        ("6in4", train(|segment| ends.v4(IPV6_IN_IP, &v6(segment)))),
        ("IPv6 in IPv6", train(|segment| ends.v6(IPV6_IN_IP, &v6(segment)))),
        ("GRE", train(|segment| ends.v4(GRE, &gre(0, IPV4, &v4(segment))))),
        ("GRE with a key, IPv6", train(|segment| ends.v4(GRE, &gre(0x20, IPV6, &v6(segment))))),
        ("Ethernet in GRE", train(|segment| ends.v4(GRE, &gre(0, BRIDGED, &ethernet(IPV4, &v4(segment)))))),
    ]
}

/// Packets that come one by one.
fn single(ends: Ends) -> Vec<(&'static str, Vec<Vec<u8>>)> {
    let options = V4 { options: 8, ..ends.v4 };
    let fragment = |offset| sealed(v4(V4 { fragment_offset: offset, ..ends.v4 }, UDP, &udp(1, 9, 992)));
    let frame = move |number| ethernet(IPV4, &ends.v4(TCP, &segment(number, 1000)));
    vec![
        ("TCP", (0..TRAIN).map(|number| ends.v4(TCP, &segment(number, 1000))).collect()),
        ("TCP over IPv6", (0..TRAIN).map(|number| ends.v6(TCP, &segment(number, 1000))).collect()),
        ("TCP, MSS 536", (0..TRAIN).map(|number| ends.v4(TCP, &segment(number, 524))).collect()),
        ("TCP, 1280 octets", (0..TRAIN).map(|number| ends.v6(TCP, &segment(number, 1280 - 72))).collect()),
        ("UDP", vec![ends.v4(UDP, &udp(1, 9, 1000)), ends.v6(UDP, &udp(1, 9, 1)), ends.v4(UDP, &udp(1, 9, 1))]),
        ("ICMP", vec![ends.v4(ICMP, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0])]),
        ("fragments", vec![fragment(0x2000), fragment(125)]),
        ("IPv4 options", vec![sealed(v4(options, UDP, &udp(1, 9, 700)))]),
        ("IPv6 extension headers", vec![ends.v6(0, &extension(60, 1, &extension(UDP, 1, &udp(1, 9, 700))))]),
        ("VXLAN", (0..TRAIN).map(|number| ends.v4(UDP, &udp_with(1, 4789, &vxlan(&frame(number))))).collect()),
    ]
}

pub(crate) fn play(link: &Link, direction: Direction, table: &mut Table) -> Result<()> {
    let ends = Ends::of(direction);
    for (kind, packets) in tunnels(ends) {
        let row = link.cell(kind, direction, || send(link, direction, &packets))?;
        if link.merging == Switch::On { table.add_merged(row) } else { table.add(row) }
    }
    if link.medium == Medium::Veth {
        for (kind, packets) in single(ends).into_iter().chain(tunnels(ends)) {
            table.add(link.cell(&format!("VLAN: {kind}"), direction, || send_tagged(link, direction, &packets))?);
        }
        if direction == Uplink && link.merging == Switch::On {
            for (kind, cut, packet, sent) in super_packets(ends) {
                table.add(link.cell(kind, direction, || {
                    let injector = Injector::open(&link.topology.gateway, "wan0")?;
                    injector.send(VLAN, &framed(FAR, &[VLAN], &packet), Some(cut))?;
                    Ok(Some(sent))
                })?);
            }
        }
    }
    Ok(())
}

/// Super-packets behind a tag, as a virtual machine on the gateway would send them: cut behind the hook, the number of segments not told.
fn super_packets(ends: Ends) -> Vec<(&'static str, Cut, Vec<u8>, Tally)> {
    let cut = |kind, transport| Cut { kind, segment: 1000, transport };
    let sent = |packets, headers| Tally { octets: 7500 + packets * headers, packets };
    vec![
        ("VLAN: TCP GSO", cut(CutKind::TcpV4, 38), ends.v4(TCP, &tcp(1, 9, 7500)), sent(8, 52)),
        ("VLAN: TCP GSO over IPv6", cut(CutKind::TcpV6, 58), ends.v6(TCP, &tcp(1, 9, 7500)), sent(8, 72)),
        ("VLAN: UDP GSO", cut(CutKind::Udp, 38), ends.v4(UDP, &udp(1, 9, 7500)), sent(8, 28)),
    ]
}

fn ethertype(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 4 { IPV4 } else { IPV6 }
}

/// An Ethernet frame to this address, with these tags.
fn framed(to: [u8; 6], tags: &[u16], packet: &[u8]) -> Vec<u8> {
    let mut frame = e2e::packet::tagged(tags, ethertype(packet), packet);
    frame[..6].copy_from_slice(&to);
    frame
}

/// Sends packets through the gateway: from the client, or from the far end of the uplink.
fn send(link: &Link, direction: Direction, packets: &[Vec<u8>]) -> Result<Option<Tally>> {
    let topology = &link.topology;
    let (namespace, interface, to) = match direction {
        Uplink => (&topology.client, CLIENT, Some(GATEWAY_LAN)),
        Downlink => {
            let is_ethernet = link.medium == Medium::Veth;
            (&topology.internet, topology.uplinks[0].far.as_str(), is_ethernet.then_some(GATEWAY_WAN))
        }
    };
    let injector = Injector::open(namespace, interface)?;
    for packet in packets {
        let frame = to.map_or_else(|| packet.clone(), |to| framed(to, &[], packet));
        injector.send(ethertype(packet), &frame, None)?;
    }
    Ok(Some(total(packets)))
}

/// Sends packets with in-band tags over the metered link itself, with one tag and with two by turns.
fn send_tagged(link: &Link, direction: Direction, packets: &[Vec<u8>]) -> Result<Option<Tally>> {
    let topology = &link.topology;
    let (injector, to) = match direction {
        Uplink => (Injector::open(&topology.gateway, "wan0")?, FAR),
        Downlink => (Injector::open(&topology.internet, &topology.uplinks[0].far)?, GATEWAY_WAN),
    };
    for (packet, tags) in packets.iter().zip([&[VLAN] as &[u16], &[QINQ, VLAN]].into_iter().cycle()) {
        injector.send(tags[0], &framed(to, tags, packet), None)?;
    }
    Ok(Some(total(packets)))
}

fn total(packets: &[Vec<u8>]) -> Tally {
    Tally { octets: packets.iter().map(|packet| packet.len() as u64).sum(), packets: packets.len() as u64 }
}
