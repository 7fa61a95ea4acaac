//! Modems as links: a USB modem plugged in, pulled out, put back with another index, and told to speak raw IP; WWAN links made on a modem,
//! deleted, and gone with it. Only a kernel with their drivers runs these (`cargo xtask test --kernel 6.12-modem`).

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use agent::datapath::meters_on;
use agent_common::{Counters, LINK_ETHERNET, LINK_RAW_IP};
use anyhow::{Context as _, Result, ensure};
use e2e::Direction::{Downlink, Uplink};
use e2e::eventually::eventually;
use e2e::modem::{Driver, set_raw_ip};
use e2e::scenario::{Account, Books, Plot, SOON, World, chunked};
use e2e::topology::{CLIENT_V4, CLIENT_V6, Layout, Medium};
use e2e::traffic::{Datagrams, TcpServer, Transfer, udp};

/// Time for one session to end and the next to begin.
const PATIENCE: Duration = Duration::from_secs(30);

const PLENTY: u64 = 1 << 30;

/// Modems and a last link. Everything but what is sent to the far end of a modem takes the last one, the charging too.
fn online(modems: &[Medium]) -> Result<World> {
    let layout = Layout::with_uplinks(&[modems, &[Medium::Veth]].concat());
    let sold = || chunked(PLENTY, 2 << 20);
    let plot = modems.iter().fold(Plot::of(sold()), |plot, _| plot.and(sold())).over(layout);
    let world = World::online(&plot)?;
    world.topology.prefer(modems.len())?;
    Ok(world)
}

/// So many datagrams of 1028 octets each way over the preferred modem, no faster than a modem of the third generation.
fn talk(world: &World, modem: usize, datagrams: u64) -> Result<()> {
    let (client, internet, modem) = (&world.topology.client, &world.topology.internet, &world.topology.uplinks[modem]);
    let paced = Datagrams { rate: 200_000, ..Datagrams::of(datagrams, 1000) };
    // What is sent to the modem's far end takes the modem, whichever is preferred.
    udp(client, (internet, modem.far_v4), paced)?.join()?;
    udp(internet, (client, CLIENT_V4), paced)?.join()?;
    Ok(())
}

fn is_released(world: &World, sim: usize) -> Result<Account> {
    eventually("the sessions of the modem's SIM to be released", PATIENCE, || {
        let account = world.account(sim)?;
        account.is_settled()?;
        Ok(account)
    })
}

fn index(world: &World) -> Result<u32> {
    world.topology.gateway.ifindex("wan0")
}

/// Puts a modem back and waits until it has units again. It is metered before it says its first word.
fn is_back(world: &mut World, modem: usize) -> Result<()> {
    world.topology.put_in(modem)?;
    let name = &world.topology.uplinks[modem].near;
    eventually("a meter on the new link", SOON, || {
        let meters = world.topology.gateway.run_in(|| meters_on(name))??;
        ensure!(meters.len() == 1, "{meters:?}");
        Ok(())
    })?;
    world.topology.raise(modem)?;
    world.reaches(modem, &["active", "renewing"]).map(drop)
}

#[test]
fn a_usb_modem_is_billed_to_the_octet_when_it_is_pulled_out_and_metered_anew_when_it_is_back() -> Result<()> {
    let mut world = online(&[Medium::UsbModem(Driver::Ether)])?;
    let mut paid = 0;
    for time in 1..=3 {
        let (before, meter) = (index(&world)?, world.datapath("wan0")?);
        let books = Books::open(&world, 0)?;
        world.topology.prefer(0)?;
        talk(&world, 0, 300)?;
        let crossed = books.close(&world)?;
        assert!(crossed.uplink >= 300 * 1028 && crossed.downlink >= 300 * 1028, "{crossed:?}");
        world.topology.pull_out(0)?;
        world.topology.prefer(1)?;
        let debited = is_released(&world, 0)?.debited();
        // What the gateway's kernel has said of its own accord since the books were closed is in it, too.
        paid += passed(&meter.read()?);
        assert_eq!(debited, paid, "pulled out {time} times");
        is_back(&mut world, 0)?;
        assert_ne!(index(&world)?, before, "the same interface once more");
        assert_ne!(world.datapath("wan0")?.epoch_id(), meter.epoch_id());
    }
    world.stop_agent()
}

#[test]
fn a_usb_modem_pulled_out_under_traffic_is_billed_to_the_last_octet_that_was_counted() -> Result<()> {
    let mut world = online(&[Medium::UsbModem(Driver::Ether)])?;
    let mut books = Books::open(&world, 0)?;
    books.keep_meter(&world)?;
    world.topology.prefer(0)?;
    let flow = world.stream(400_000)?;
    flow.carries(600_000, SOON)?;
    world.topology.pull_out(0)?;
    world.topology.prefer(1)?;
    let debited = is_released(&world, 0)?.debited();
    flow.carries(200_000, PATIENCE)?;
    flow.stop()?;
    is_back(&mut world, 0)?;
    let (both, new) = (books.kernel(&world)?, world.kernel(0)?);
    let passed =
        both.uplink.passed.octets - new.uplink.passed.octets + both.downlink.passed.octets - new.downlink.passed.octets;
    assert_eq!(debited, passed);
    // What the far end has received left the gateway through the meter; what was in the modem when it was pulled is lost behind it.
    let seen = books.seen().ip(Uplink).octets;
    assert!(seen >= 600_000 && seen <= passed, "{seen} seen, {passed} passed");
    world.stop_agent()
}

/// So many datagrams of 1028 octets from the gateway itself.
fn send(world: &World, to: IpAddr, datagrams: u64) -> Result<()> {
    world.topology.gateway.run_in(|| -> Result<()> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for _ in 0..datagrams {
            socket.send_to(&[0; 1000], (to, 9)).with_context(|| format!("send to {to}"))?;
        }
        Ok(())
    })?
}

/// What a gadget takes off every frame for its header, whether or not there is one, before it counts the octets.
const HEADER: u64 = 14;

/// Octets of all frames that the modem's far end has received, by its own count.
fn received(world: &World) -> Result<u64> {
    let text = world.topology.internet.ip("-json -statistics link show dev modem0")?;
    let links: serde_json::Value = serde_json::from_str(&text)?;
    links[0]["stats64"]["rx"]["bytes"].as_u64().with_context(|| text.clone())
}

#[test]
fn a_usb_modem_told_to_speak_raw_ip_is_counted_to_the_octet_before_and_after() -> Result<()> {
    let mut world = online(&[Medium::UsbModem(Driver::Qmi)])?;
    let far = world.topology.uplinks[0].far_v4;
    for (word, link_type, frame) in [("N", LINK_ETHERNET, 1028 + HEADER), ("Y", LINK_RAW_IP, 1028)] {
        world.topology.lower(0)?;
        set_raw_ip(&world.topology.gateway, "wan0", word)?;
        world.topology.raise(0)?;
        eventually("the gate to know the type", SOON, || {
            let gate = world.datapath("wan0")?.gate()?;
            ensure!(gate.link_type == link_type && gate.ceiling > 0, "{gate:?}");
            Ok(())
        })?;
        world.topology.settle()?;
        let (seen, before) = (received(&world)?, world.kernel(0)?.uplink.passed);
        send(&world, far, 300)?;
        let after = world.kernel(0)?.uplink.passed;
        assert_eq!((after.packets - before.packets, after.octets - before.octets), (300, 300 * 1028));
        eventually("the far end to have received it all", SOON, || {
            let octets = received(&world)? - seen;
            ensure!(octets == 300 * (frame - HEADER), "{octets}");
            Ok(())
        })?;
    }
    world.stop_agent()?;
    let account = world.account(0)?;
    account.is_settled()?;
    assert_eq!(account.debited(), world.passed(0)?, "{account:?}");
    Ok(())
}

/// Octets that have passed under the ceiling, both ways.
fn passed(counted: &Counters) -> u64 {
    counted.uplink.passed.octets + counted.downlink.passed.octets
}

/// Fails unless `wan0` is what a WWAN link is, of no link layer and never said to be up, and is metered so, before anything is led away.
fn is_raw_and_of_unknown_state(world: &World) -> Result<()> {
    let text = world.topology.gateway.ip("-json -details link show dev wan0")?;
    let links: serde_json::Value = serde_json::from_str(&text)?;
    let (told, index, meter) = (&links[0], index(world)?, world.datapath("wan0")?);
    let words = [&told["linkinfo"]["info_kind"], &told["link_type"], &told["operstate"]];
    ensure!(words == ["wwan", "none", "UNKNOWN"], "{told}");
    let gate = meter.gate()?;
    ensure!(gate.link_type == LINK_RAW_IP && gate.ceiling > 0, "{gate:?}");
    let ahead = world.topology.gateway.run_in(move || meter.ahead(index))??;
    ensure!(ahead.is_empty(), "{ahead:?}");
    Ok(())
}

/// Octets of one transfer by TCP: super-packets, where the gateway sends them.
const TRANSFER: u64 = 1_000_000;

/// Everything a gateway does over a WWAN link, its charging too, as the far end sees it.
fn is_billed_as_the_far_end_sees_it(plot: Plot) -> Result<()> {
    let mut world = World::online(&plot.over(Layout::with_uplinks(&[Medium::Wwan])))?;
    is_raw_and_of_unknown_state(&world)?;
    let books = Books::open(&world, 0)?;
    let (client, internet, link) = (&world.topology.client, &world.topology.internet, &world.topology.uplinks[0]);
    let mut sent = 0;
    for (far, near, headers) in [(link.far_v4, CLIENT_V4, 28), (link.far_v6, CLIENT_V6, 48)] {
        let server = TcpServer::start(internet, far)?;
        for direction in [Uplink, Downlink] {
            let transfer = Transfer { rate: Some(2 * TRANSFER), ..Transfer::of(direction, TRANSFER) };
            server.transfer(client, transfer)?;
        }
        let paced = Datagrams { rate: 200_000, ..Datagrams::of(300, 1000) };
        udp(client, (internet, far), paced)?.join()?;
        udp(internet, (client, near), paced)?.join()?;
        sent += TRANSFER + 300 * (1000 + headers);
    }
    let crossed = books.agree(&world)?;
    ensure!(crossed.uplink > sent && crossed.downlink > sent, "{sent} sent each way: {crossed:?}");
    world.settles_to_the_octet(books).map(drop)
}

#[test]
fn a_wwan_link_is_billed_to_the_octet_both_ways_over_ipv4_and_ipv6() -> Result<()> {
    is_billed_as_the_far_end_sees_it(Plot::of(chunked(PLENTY, 2 << 20)))
}

#[test]
fn a_wwan_link_is_billed_to_the_octet_both_ways_where_there_is_no_tcx() -> Result<()> {
    is_billed_as_the_far_end_sees_it(Plot::of(chunked(PLENTY, 2 << 20)).by_clsact())
}

#[test]
fn a_wwan_link_deleted_under_traffic_and_made_anew_goes_on_as_a_new_meter_and_loses_nothing() -> Result<()> {
    let mut world = online(&[Medium::Wwan])?;
    let mut books = Books::open(&world, 0)?;
    let mut paid = 0;
    for time in 1..=2 {
        let (before, meter) = (index(&world)?, world.datapath("wan0")?);
        books.keep_meter(&world)?;
        // What is sent to its far end and what that answers take the link, and other links when it is gone. The charging never does.
        let (client, internet) = (&world.topology.client, &world.topology.internet);
        let far = world.topology.uplinks[0].far_v4;
        TcpServer::start(internet, far)?.transfer(client, Transfer::of(Downlink, 200_000))?;
        let flow = udp(client, (internet, far), Datagrams::endless(200_000, 1000))?;
        flow.carries(400_000, SOON)?;
        world.topology.pull_out(0)?;
        paid += passed(&meter.read()?);
        assert_eq!(is_released(&world, 0)?.debited(), paid, "deleted {time} times");
        flow.carries(100_000, PATIENCE)?;
        flow.stop()?;
        is_back(&mut world, 0)?;
        assert_ne!(index(&world)?, before, "the same interface once more");
        assert_ne!(world.datapath("wan0")?.epoch_id(), meter.epoch_id());
        is_raw_and_of_unknown_state(&world)?;
    }
    // The far end has heard all three links, and each octet was counted by one meter.
    let crossed = books.close_with_gaps(&world)?;
    assert!(crossed.uplink >= 2 * 400_000 && crossed.downlink >= 2 * 200_000, "{crossed:?}");
    world.stop_agent()
}

#[test]
fn links_of_one_wwan_modem_are_billed_each_by_itself_and_settled_when_it_is_gone() -> Result<()> {
    let mut world = online(&[Medium::Wwan, Medium::Wwan])?;
    let meters = [world.datapath("wan0")?, world.datapath("wan1")?];
    let books = [Books::open(&world, 0)?, Books::open(&world, 1)?];
    for (modem, datagrams) in [(0, 300), (1, 200)] {
        world.topology.prefer(modem)?;
        talk(&world, modem, datagrams)?;
    }
    world.topology.prefer(2)?;
    let [first, second] = books;
    let crossed = second.close(&world)?;
    assert!(crossed.uplink >= 200 * 1028 && crossed.downlink >= 200 * 1028, "{crossed:?}");
    world.topology.pull_out(1)?;
    assert_eq!(is_released(&world, 1)?.debited(), passed(&meters[1].read()?));

    // The other does not notice.
    world.topology.prefer(0)?;
    talk(&world, 0, 100)?;
    world.topology.prefer(2)?;
    assert_eq!(world.datapath("wan0")?.epoch_id(), meters[0].epoch_id());
    let crossed = first.close(&world)?;
    assert!(crossed.uplink >= 400 * 1028 && crossed.downlink >= 400 * 1028, "{crossed:?}");
    assert_eq!(world.account(0)?.sessions.len(), 1, "one session from the beginning");

    world.topology.pull_out_parent()?;
    assert_eq!(is_released(&world, 0)?.debited(), passed(&meters[0].read()?));
    for modem in [1, 0] {
        is_back(&mut world, modem)?;
    }
    world.stop_agent()
}
