//! Every billable octet is counted once: capture at the far end, kernel and the server's debit are the same number.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use e2e::Direction::{self, Downlink, Uplink};
use e2e::eventually::eventually;
use e2e::inject::Injector;
use e2e::packet::{IPV4, UDP, UPLINK_V4, V4, ethernet, udp_with, v4};
use e2e::scenario::{Books, Plot, SOON, World, chunked};
use e2e::topology::{CLIENT_V4, CLIENT_V6, HOST_V4, HOST_V6, Layout, Medium};
use e2e::traffic::{Datagrams, TcpServer, Transfer, udp};

/// More than any of these scenarios uses.
const PLENTY: u64 = 1 << 30;

/// Asked for at a time: many renewals in each scenario.
const CHUNK: u64 = 4 << 20;

/// Octets of one transfer.
const TRANSFER: u64 = 6_000_000;

/// Fast, and slow enough for a ring of 256 packets between two ends of a veth pair.
const RATE: u64 = 12_000_000;

fn plot(layout: Layout) -> Plot {
    Plot::of(chunked(PLENTY, CHUNK)).over(layout)
}

/// One transfer each way; with the connections gone, the world is at rest.
fn tcp(world: &World, host: IpAddr, segment: Option<u16>) -> Result<()> {
    let server = TcpServer::start(&world.topology.internet, host)?;
    for direction in [Uplink, Downlink] {
        let transfer = Transfer { segment, rate: Some(RATE), ..Transfer::of(direction, TRANSFER) };
        server.transfer(&world.topology.client, transfer)?;
    }
    Ok(())
}

/// Holds the wire against the kernel, settles, and holds the server's debit against both.
fn settles_to_the_octet(mut world: World, books: Books) -> Result<()> {
    let crossed = books.agree(&world)?;
    assert!(crossed.uplink + crossed.downlink >= TRANSFER, "{crossed:?}");
    world.stop_agent()?;
    books.close(&world)?;
    let (kernel, account) = (world.kernel(0)?, world.account(0)?);
    account.is_settled()?;
    assert_eq!(account.uplink, kernel.uplink.passed.octets, "{account:?}");
    assert_eq!(account.downlink, kernel.downlink.passed.octets, "{account:?}");
    assert_eq!(account.duplicates, 0, "{account:?}");
    Ok(())
}

fn counts_tcp(layout: Layout, host: IpAddr, segment: Option<u16>) -> Result<()> {
    counts_tcp_in(&plot(layout), host, segment)
}

fn counts_tcp_in(plot: &Plot, host: IpAddr, segment: Option<u16>) -> Result<()> {
    let world = World::online(plot)?;
    let books = Books::open(&world, 0)?;
    tcp(&world, host, segment)?;
    settles_to_the_octet(world, books)
}

#[test]
fn counts_every_octet_once_over_ipv4() -> Result<()> {
    counts_tcp(Layout::default(), HOST_V4, None)
}

#[test]
fn counts_every_octet_once_over_ipv6() -> Result<()> {
    counts_tcp(Layout::default(), HOST_V6, None)
}

#[test]
fn counts_every_octet_once_with_gro() -> Result<()> {
    counts_tcp(Layout::with_gro(), HOST_V4, None)
}

#[test]
fn counts_every_octet_once_with_gro_over_ipv6_in_small_segments() -> Result<()> {
    counts_tcp(Layout::with_gro(), HOST_V6, Some(536))
}

#[test]
fn counts_every_octet_once_on_a_raw_ip_link() -> Result<()> {
    counts_tcp(Layout::with_uplinks(&[Medium::RawIp]), HOST_V4, None)
}

#[test]
fn counts_every_octet_once_where_there_is_no_tcx() -> Result<()> {
    counts_tcp_in(&plot(Layout::with_gro()).by_clsact(), HOST_V4, None)?;
    counts_tcp_in(&plot(Layout::with_uplinks(&[Medium::RawIp])).by_clsact(), HOST_V6, None)
}

/// Datagrams of a known size one way, with the figure the test itself knows: each has its headers and nothing else.
fn datagrams(world: &World, direction: Direction, v6: bool, sent: Datagrams) -> Result<u64> {
    let topology = &world.topology;
    let (host, client, headers) = if v6 { (HOST_V6, CLIENT_V6, 48) } else { (HOST_V4, CLIENT_V4, 28) };
    let flow = match direction {
        Uplink => udp(&topology.client, (&topology.internet, host), sent)?,
        Downlink => udp(&topology.internet, (&topology.client, client), sent)?,
    };
    let report = flow.join()?;
    assert_eq!(report.datagrams_delivered, report.datagrams_sent, "{report:?}");
    Ok(report.datagrams_sent * (u64::from(sent.payload) + headers))
}

#[test]
fn counts_every_octet_once_of_udp() -> Result<()> {
    let world = World::online(&plot(Layout::with_gro()))?;
    let books = Books::open(&world, 0)?;
    let mut sent = [0, 0];
    for (index, direction) in [Uplink, Downlink].into_iter().enumerate() {
        for (v6, kind) in [
            (false, Datagrams::of(2000, 1000)),
            (true, Datagrams::of(1000, 1400)),
            (false, Datagrams::of(1600, 1200).with_segments(16)),
            (true, Datagrams::of(300, 1)),
        ] {
            sent[index] += datagrams(&world, direction, v6, Datagrams { rate: 3_000_000, ..kind })?;
        }
    }
    books.agree(&world)?;
    let seen = books.seen();
    assert_eq!([Uplink, Downlink].map(|direction| seen.payload(direction).octets), sent, "{seen:?}");
    settles_to_the_octet(world, books)
}

#[test]
fn what_the_agent_itself_says_is_counted_too_from_the_first_packet() -> Result<()> {
    let plot = Plot::of(serde_json::json!({ "totalVolume": PLENTY, "chunk": 65_536, "reportInterval": 1 }));
    let mut world = World::build(&plot)?;
    let books = Books::before_the_agent(&world, 0)?;
    world.start_agent(&[])?;
    world.reaches(0, &["active"])?;
    let client = &world.topology.client;
    let flow = udp(client, (&world.topology.internet, HOST_V4), Datagrams::endless(20_000, 500))?;
    eventually("reports to cross the metered link", SOON, || {
        let control = books.seen().control(Uplink).octets;
        ensure!(control > 5000, "{control} octets");
        Ok(())
    })?;
    flow.stop()?;
    books.agree(&world)?;
    world.stop_agent()?;
    books.close(&world)?;
    let account = world.account(0)?;
    account.is_settled()?;
    assert_eq!(account.debited(), world.passed(0)?, "{account:?}");
    Ok(())
}

#[test]
fn a_packet_that_cannot_be_read_is_counted_by_its_length_and_told() -> Result<()> {
    let world = World::online(&plot(Layout::default()))?;
    let before = world.kernel(0)?.uplink.passed.octets;
    // Longer than it is, says its header; 128 octets are there.
    let overlong = v4(V4 { total: Some(1000), ..UPLINK_V4 }, UDP, &udp_with(1, 2, &[0; 100]));
    Injector::open(&world.topology.gateway, "wan0")?.send(IPV4, &ethernet(IPV4, &overlong), None)?;
    eventually("the status to tell of it", SOON, || {
        let status = world.link_status("wan0")?;
        ensure!(status["kernel"]["guessed_packets"] == 1, "{status}");
        Ok(())
    })?;
    let passed = world.kernel(0)?.uplink.passed.octets - before;
    assert!(passed >= 128, "{passed} octets");
    Ok(())
}
