//! Cells of the kernels' own traffic: TCP, UDP, ICMP, with and without options, whole and in fragments.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use agent_common::Tally;
use anyhow::{Context as _, Result};
use e2e::Direction::{self, Downlink, Uplink};
use e2e::offload::Switch;
use e2e::topology::{CLIENT_V4, CLIENT_V6, HOST_V4, HOST_V6};
use e2e::traffic::{Datagrams, Extras, TcpServer, Transfer, udp};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{Link, table::Table};

/// Octets of one transfer, and how fast: slow enough for a ring of 256 packets between two ends of a veth pair.
const TRANSFER: u64 = 400_000;
const RATE: u64 = 10_000_000;

/// A client and a host.
const PAIRS: [(IpAddr, IpAddr); 2] = [(CLIENT_V4, HOST_V4), (CLIENT_V6, HOST_V6)];

pub(crate) fn play(link: &Link, direction: Direction, table: &mut Table) -> Result<()> {
    let transfer = Transfer { rate: Some(RATE), ..Transfer::of(direction, TRANSFER) };
    let with_options = Transfer { extras: Extras::Options, ..transfer };
    let kinds = [("TCP", transfer), ("TCP, MSS 536", transfer.with_segment(536))];
    // The client's super-packets have them too; what is received with them is merged by no kernel.
    let uplink = [("TCP, IP options and extension headers", with_options)];
    for (kind, transfer) in kinds.into_iter().chain(uplink.into_iter().filter(|_| direction == Uplink)) {
        let row = link.cell(kind, direction, || tcp(link, transfer))?;
        if link.merging == Switch::On { table.add_merged(row) } else { table.add(row) }
    }
    let plain = Datagrams { rate: 3_000_000, ..Datagrams::of(160, 1000) };
    for (kind, sent) in [
        ("UDP", plain),
        ("UDP, smallest", Datagrams { payload: 1, rate: 20_000, ..plain }),
        ("UDP, IP options and extension headers", Datagrams { extras: Extras::Options, ..plain }),
    ] {
        table.add(link.cell(kind, direction, || datagrams(link, direction, sent))?);
    }
    let row = link.cell("UDP GSO", direction, || datagrams(link, direction, plain.with_segments(16)))?;
    if link.merging == Switch::On {
        table.add_merged(row);
    } else {
        table.add(row);
    }
    table.add(link.cell("UDP in fragments", direction, || {
        datagrams(link, direction, Datagrams { count: Some(40), payload: 4000, ..plain }).map(drop)?;
        Ok(None)
    })?);
    table.add(link.cell("ICMP", direction, || echo(link, direction))?);
    path_mtu(link, direction, transfer, table)
}

/// The way narrows while both ends still believe in 1500 octets.
fn path_mtu(link: &Link, direction: Direction, transfer: Transfer, table: &mut Table) -> Result<()> {
    let topology = &link.topology;
    let narrow = |mtu: u32| -> Result<()> {
        topology.gateway.ip(&format!("link set wan0 mtu {mtu}"))?;
        topology.internet.ip(&format!("link set modem0 mtu {mtu}")).map(drop)
    };
    narrow(1280)?;
    let row = link.cell("TCP, path MTU 1280", direction, || tcp(link, transfer));
    narrow(1500)?;
    // What the kernels remember of the narrow way is of no use to the next cell.
    for namespace in [&topology.client, &topology.internet] {
        namespace.ip("route flush cache")?;
        namespace.ip("-6 route flush cache")?;
    }
    table.add(row?);
    Ok(())
}

fn tcp(link: &Link, transfer: Transfer) -> Result<Option<Tally>> {
    for (_, host) in PAIRS {
        let server = TcpServer::start(&link.topology.internet, host)?;
        server.transfer(&link.topology.client, transfer)?;
    }
    Ok(None)
}

fn datagrams(link: &Link, direction: Direction, sent: Datagrams) -> Result<Option<Tally>> {
    let topology = &link.topology;
    let mut tally = Tally::default();
    for (client, host) in PAIRS {
        let flow = match direction {
            Uplink => udp(&topology.client, (&topology.internet, host), sent)?,
            Downlink => udp(&topology.internet, (&topology.client, client), sent)?,
        };
        let report = flow.join()?;
        let extras = match (sent.extras, host.is_ipv6()) {
            (Extras::None, _) => 0,
            (Extras::Options, false) => 8,
            (Extras::Options, true) => 16,
        };
        let headers = if host.is_ipv6() { 48 } else { 28 };
        tally.packets += report.datagrams_sent;
        tally.octets += report.datagrams_sent * (u64::from(sent.payload) + headers + extras);
    }
    Ok(Some(tally))
}

/// Echo requests of a kilobyte, the next when the last was answered.
const ECHOES: u16 = 20;

fn echo(link: &Link, direction: Direction) -> Result<Option<Tally>> {
    let topology = &link.topology;
    let mut tally = Tally::default();
    for (client, host) in PAIRS {
        let (from, to) = match direction {
            Uplink => (&topology.client, host),
            Downlink => (&topology.internet, client),
        };
        let (protocol, request, header) =
            if to.is_ipv6() { (Protocol::ICMPV6, 128, 40) } else { (Protocol::ICMPV4, 8, 20) };
        let to = SocketAddr::new(to, 0);
        let socket = from.run_in(|| Socket::new(Domain::for_address(to), Type::RAW, Some(protocol)))??;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        socket.connect(&to.into())?;
        for number in 0..ECHOES {
            let message = echo_request(request, number);
            socket.send(&message).context("echo request")?;
            let mut answer = [std::mem::MaybeUninit::uninit(); 2048];
            match socket.recv(&mut answer) {
                Err(error) if !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(error).context("echo reply");
                }
                _ => {}
            }
            tally.packets += 1;
            tally.octets += header + message.len() as u64;
        }
    }
    Ok(Some(tally))
}

/// With its checksum: over IPv6 the kernel fills it in, over IPv4 it must be there.
fn echo_request(kind: u8, number: u16) -> Vec<u8> {
    let mut message = vec![kind, 0, 0, 0, 0, 1];
    message.extend(number.to_be_bytes());
    let sum = !(u16::from_be_bytes([kind, 0]) + 1 + number);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message.resize(1008, 0);
    message
}
