//! Links that stand on others: refused with the reason while the others go on, settled when they become so, metered again after.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::eventually::eventually;
use e2e::scenario::{Books, Plot, SOON, World, chunked, iccid};
use e2e::topology::{HOST_V4, Layout, Medium};
use e2e::traffic::{Datagrams, udp};

const PLENTY: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until the status of a link says this.
fn says(world: &World, link: &str, words: &str) -> Result<()> {
    eventually(&format!("{link} to say {words:?}"), SOON, || {
        let status = world.link_status(link)?;
        ensure!(status["explanation"].as_str().is_some_and(|text| text.contains(words)), "{status}");
        ensure!(status["metered"] == false, "{status}");
        Ok(())
    })
}

#[test]
fn a_bridge_is_refused_with_the_reason_and_the_other_links_go_on() -> Result<()> {
    let mut plot = Plot::of(chunked(PLENTY, 2 << 20)).and(chunked(PLENTY, 2 << 20));
    plot.links =
        vec![format!("name = \"wan0\"\niccid = \"{}\"", iccid(0)), format!("name = \"br0\"\niccid = \"{}\"", iccid(1))];
    let mut world = World::build(&plot)?;
    world.topology.gateway.ip("link add br0 type bridge")?;
    world.start_agent(&[])?;
    world.reaches(0, &["active"])?;
    says(&world, "br0", "it is a bridge")?;
    assert!(world.datapath("br0").is_err(), "it has no meter");
    let said = world.agent.as_ref().map(|agent| agent.actor.stderr()).unwrap_or_default();
    assert!(said.contains("the link is not metered: it is a bridge"), "{said}");

    let books = Books::open(&world, 0)?;
    udp(&world.topology.client, (&world.topology.internet, HOST_V4), Datagrams::of(500, 1000))?.join()?;
    world.stop_agent()?;
    books.close(&world)?;
    let account = world.account(0)?;
    account.is_settled()?;
    assert_eq!(account.debited(), world.passed(0)?, "{account:?}");
    Ok(())
}

#[test]
fn a_link_that_becomes_a_port_is_settled_and_let_go_and_metered_again_when_it_leaves() -> Result<()> {
    let layout = Layout::with_uplinks(&[Medium::Veth, Medium::Veth]);
    let plot = Plot::of(chunked(PLENTY, 2 << 20)).and(chunked(PLENTY, 2 << 20)).over(layout);
    let mut world = World::online(&plot)?;
    world.topology.prefer(1)?;
    let to_far = |world: &World| {
        let topology = &world.topology;
        udp(&topology.client, (&topology.internet, topology.uplinks[0].far_v4), Datagrams::of(400, 1000))?.join()
    };
    let books = Books::open(&world, 0)?;
    to_far(&world)?;
    books.close(&world)?;
    let first = world.passed(0)?;
    assert!(first >= 400 * 1028, "{first}");

    world.topology.gateway.ip_batch("link add br0 type bridge\nlink set wan0 master br0\n")?;
    says(&world, "wan0", "it is a port of the bridge br0")?;
    eventually("the session of the port to be released", PATIENCE, || {
        let account = world.account(0)?;
        account.is_settled()?;
        ensure!(account.debited() == first, "{first} passed: {account:?}");
        Ok(())
    })?;
    eventually("the meter to be taken off", SOON, || {
        ensure!(world.datapath("wan0").is_err(), "it is still pinned");
        Ok(())
    })?;

    world.topology.gateway.ip_batch("link set wan0 nomaster\nlink del br0\n")?;
    world.reaches(0, &["active", "renewing"])?;
    let books = Books::open(&world, 0)?;
    to_far(&world)?;
    world.stop_agent()?;
    books.close(&world)?;
    let account = world.account(0)?;
    account.is_settled()?;
    assert_eq!(account.debited(), first + world.passed(0)?, "{account:?}");
    Ok(())
}
