//! USB modems as links: plugged in, pulled out, put back with another index, and told to speak raw IP. Only a kernel with their drivers
//! runs these (`cargo xtask test --kernel 6.12-modem`).

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use agent_common::{LINK_ETHERNET, LINK_RAW_IP};
use anyhow::{Context as _, Result, ensure};
use e2e::Direction::Uplink;
use e2e::eventually::eventually;
use e2e::modem::{Driver, set_raw_ip};
use e2e::scenario::{Account, Books, Plot, SOON, World, chunked};
use e2e::topology::{CLIENT_V4, Layout, Medium};
use e2e::traffic::{Datagrams, udp};

/// Time for one session to end and the next to begin.
const PATIENCE: Duration = Duration::from_secs(30);

const PLENTY: u64 = 1 << 30;

/// A modem and a second link. Everything but what is sent to the far end of the modem takes the second, the charging too.
fn online(driver: Driver) -> Result<World> {
    let layout = Layout::with_uplinks(&[Medium::UsbModem(driver), Medium::Veth]);
    let plot = Plot::of(chunked(PLENTY, 2 << 20)).and(chunked(PLENTY, 2 << 20)).over(layout);
    let world = World::online(&plot)?;
    world.topology.prefer(1)?;
    Ok(world)
}

/// So many datagrams of 1028 octets each way over the modem, no faster than a modem of the third generation.
fn talk(world: &World, datagrams: u64) -> Result<()> {
    let (client, internet, modem) = (&world.topology.client, &world.topology.internet, &world.topology.uplinks[0]);
    let paced = Datagrams { rate: 200_000, ..Datagrams::of(datagrams, 1000) };
    // What comes from the modem's far end takes the modem, whichever is preferred.
    udp(client, (internet, modem.far_v4), paced)?.join()?;
    udp(internet, (client, CLIENT_V4), paced)?.join()?;
    Ok(())
}

fn is_released(world: &World) -> Result<Account> {
    eventually("the sessions of the modem's SIM to be released", PATIENCE, || {
        let account = world.account(0)?;
        account.is_settled()?;
        Ok(account)
    })
}

fn index(world: &World) -> Result<u32> {
    world.topology.gateway.ifindex("wan0")
}

/// Puts the modem back and waits until it has units again.
fn is_back(world: &mut World) -> Result<()> {
    world.topology.put_in(0)?;
    world.topology.raise(0)?;
    world.reaches(0, &["active", "renewing"]).map(drop)
}

#[test]
fn a_usb_modem_is_billed_to_the_octet_when_it_is_pulled_out_and_metered_anew_when_it_is_back() -> Result<()> {
    let mut world = online(Driver::Ether)?;
    let mut paid = 0;
    for time in 1..=3 {
        let (before, epoch) = (index(&world)?, world.datapath("wan0")?.epoch_id());
        let books = Books::open(&world, 0)?;
        world.topology.prefer(0)?;
        talk(&world, 300)?;
        let crossed = books.close(&world)?;
        assert!(crossed.uplink >= 300 * 1028 && crossed.downlink >= 300 * 1028, "{crossed:?}");
        paid += world.passed(0)?;
        world.topology.pull_out(0)?;
        world.topology.prefer(1)?;
        assert_eq!(is_released(&world)?.debited(), paid, "pulled out {time} times");
        is_back(&mut world)?;
        assert_ne!(index(&world)?, before, "the same interface once more");
        assert_ne!(world.datapath("wan0")?.epoch_id(), epoch);
    }
    world.stop_agent()
}

#[test]
fn a_usb_modem_pulled_out_under_traffic_is_billed_to_the_last_octet_that_was_counted() -> Result<()> {
    let mut world = online(Driver::Ether)?;
    let mut books = Books::open(&world, 0)?;
    books.keep_meter(&world)?;
    world.topology.prefer(0)?;
    let flow = world.stream(400_000)?;
    flow.carries(600_000, SOON)?;
    world.topology.pull_out(0)?;
    world.topology.prefer(1)?;
    let debited = is_released(&world)?.debited();
    flow.carries(200_000, PATIENCE)?;
    flow.stop()?;
    is_back(&mut world)?;
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
    let mut world = online(Driver::Qmi)?;
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
