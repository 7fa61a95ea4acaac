//! Links that come and go, and the SIMs behind them: each is metered, charged and settled on its own.

use std::fs;
use std::net::UdpSocket;
use std::time::Duration;

use agent::datapath::meters_on;
use anyhow::{Context as _, Result, ensure};
use e2e::eventually::eventually;
use e2e::scenario::{Books, PACKET, Plot, SOON, World, chunked, iccid, package, subscriber};
use e2e::topology::{Layout, Medium};
use e2e::traffic::{Datagrams, udp};
use serde_json::{Value, json};

/// Time for retries and for one session to end and the next to begin.
const PATIENCE: Duration = Duration::from_secs(30);

const PLENTY: u64 = 1 << 30;

fn two_links() -> Plot {
    let layout = Layout::with_uplinks(&[Medium::Veth, Medium::Veth]);
    Plot::of(chunked(PLENTY, 2 << 20)).and(chunked(PLENTY, 2 << 20)).over(layout)
}

/// Waits until every session of this SIM is released.
fn is_released(world: &World, sim: usize) -> Result<()> {
    eventually(&format!("the sessions of SIM {sim} to be released"), PATIENCE, || {
        let account = world.account(sim)?;
        ensure!(!account.sessions.is_empty(), "no session");
        account.is_settled()
    })
}

/// After the end: what this link's SIM was debited is what this link has passed.
fn is_paid_by(world: &World, link: usize, sim: usize) -> Result<()> {
    let (passed, account) = (world.passed(link)?, world.account(sim)?);
    account.is_settled()?;
    ensure!(account.debited() == passed, "link {link} passed {passed}, SIM {sim}: {account:?}");
    Ok(())
}

#[test]
fn switches_link_and_settles_the_old_sim() -> Result<()> {
    let mut world = World::build(&two_links().agent("follow_default_route = true"))?;
    world.start_agent(&[])?;
    world.reaches(0, &["active"])?;
    world.reaches(1, &["idle"])?;
    let books = [Books::open(&world, 0)?, Books::open(&world, 1)?];
    let flow = world.stream(400_000)?;
    flow.carries(1_000_000, SOON)?;
    assert!(world.account(1)?.sessions.is_empty(), "the other SIM is not in use");

    world.topology.prefer(1)?;
    world.reaches(1, &["active", "renewing"])?;
    flow.carries(1_000_000, PATIENCE)?;
    is_released(&world, 0)?;
    flow.stop()?;
    let first = world.passed(0)?;
    assert!(first > 1_000_000 && world.passed(1)? > 1_000_000);
    world.stop_agent()?;
    for (link, books) in books.into_iter().enumerate() {
        books.close(&world)?;
        is_paid_by(&world, link, link)?;
    }
    Ok(())
}

#[test]
fn another_sim_in_the_slot_settles_the_old_one() -> Result<()> {
    let mut plot = Plot::of(chunked(PLENTY, 2 << 20)).and(chunked(PLENTY, 2 << 20));
    // The slot takes whichever SIM the server gives it.
    plot.links = vec!["name = \"wan0\"".into()];
    let mut world = World::online(&plot)?;
    let (books, flow) = world.under_traffic(400_000, 1_000_000)?;
    world.admin.post("/admin/v1/switches", &json!({ "deviceId": "gw-1", "slot": "wan0", "iccid": iccid(1) }))?;
    is_released(&world, 0)?;
    flow.carries(1_000_000, PATIENCE)?;
    let status = world.reaches(0, &["active", "renewing"])?;
    assert_eq!(status["subscriber"], subscriber(1));
    flow.stop()?;
    world.stop_agent()?;
    books.close(&world)?;
    let accounts = [world.account(0)?, world.account(1)?];
    for account in &accounts {
        account.is_settled()?;
        assert!(account.debited() >= 1_000_000, "{account:?}");
    }
    assert_eq!(accounts[0].debited() + accounts[1].debited(), world.passed(0)?);
    Ok(())
}

#[test]
fn two_links_two_packages() -> Result<()> {
    let small = 700_000;
    let layout = Layout::with_uplinks(&[Medium::Veth, Medium::RawIp]);
    let plot = Plot::of(chunked(PLENTY, 2 << 20)).and(chunked(small, 300_000)).over(layout);
    let mut world = World::online(&plot)?;
    let books = [Books::open(&world, 0)?, Books::open(&world, 1)?];
    let to = |link: usize| {
        let topology = &world.topology;
        udp(&topology.client, (&topology.internet, topology.uplinks[link].far_v4), Datagrams::endless(300_000, 1000))
    };
    // Each far end is reached over its own link.
    let flows = [to(0)?, to(1)?];
    world.reaches(1, &["exhausted"])?;
    flows[1].stalls(Duration::from_millis(1500), SOON)?;
    flows[0].carries(500_000, SOON)?;
    for flow in flows {
        flow.stop()?;
    }
    world.stop_agent()?;
    for (link, books) in books.into_iter().enumerate() {
        books.close(&world)?;
        is_paid_by(&world, link, link)?;
    }
    let second = world.account(1)?;
    assert!(second.debited() <= small && second.debited() + PACKET > small, "{second:?}");
    Ok(())
}

#[test]
fn one_slot_without_a_sim_does_not_keep_the_other_waiting() -> Result<()> {
    let layout = Layout::with_uplinks(&[Medium::Veth, Medium::Veth]);
    let mut world = World::build(&Plot::of(package(PLENTY)).over(layout))?;
    world.start_agent(&[])?;
    world.reaches(0, &["active"])?;
    eventually("the status to say which slot has no SIM", SOON, || {
        let words = world.status()?["onboarding"].to_string();
        ensure!(words.contains("slot wan1") && words.contains("SIM_NOT_IN_POOL"), "{words}");
        Ok(())
    })?;
    world.stop_agent()
}

#[test]
fn settles_over_the_other_link_when_the_first_is_gone() -> Result<()> {
    let mut world = World::online(&two_links())?;
    let (books, flow) = world.under_traffic(400_000, 600_000)?;
    flow.stop()?;
    // The wire and the kernel agree; what the server was not told yet is told over the other link.
    books.close(&world)?;
    assert!(world.account(0)?.debited() < world.passed(0)?, "nothing is left to be told");
    let before = world.passed(0)?;
    world.topology.gateway.ip("link del wan0")?;
    world.topology.prefer(1)?;
    is_released(&world, 0)?;
    let passed = world.account(0)?.debited();
    assert!(passed >= before, "{passed} debited, {before} had passed");
    world.stop_agent()?;
    is_paid_by(&world, 1, 1)
}

#[test]
fn a_release_whose_answer_hangs_is_sent_again_over_the_other_link() -> Result<()> {
    let mut world = World::online(&two_links())?;
    let flow = world.stream(400_000)?;
    flow.carries(600_000, SOON)?;
    flow.stop()?;
    let delay = json!({ "kind": "release", "fault": "delay-ms", "delayMs": 120_000 });
    world.admin.put("/admin/v1/faults", &json!({ "rules": [delay] }))?;
    world.topology.lower(0)?;
    world.topology.prefer(1)?;
    is_released(&world, 0)?;
    assert_eq!(world.struck()?, 1);
    world.stop_agent()?;
    is_paid_by(&world, 0, 0)?;
    is_paid_by(&world, 1, 1)
}

#[test]
fn a_link_that_goes_down_is_settled_and_taken_up_again() -> Result<()> {
    let mut world = World::online(&two_links())?;
    let flow = world.stream(400_000)?;
    flow.carries(600_000, SOON)?;
    world.topology.lower(0)?;
    world.topology.prefer(1)?;
    is_released(&world, 0)?;
    flow.carries(600_000, PATIENCE)?;
    world.topology.raise(0)?;
    world.topology.prefer(0)?;
    world.reaches(0, &["active", "renewing"])?;
    flow.carries(600_000, PATIENCE)?;
    flow.stop()?;
    world.stop_agent()?;
    is_paid_by(&world, 0, 0)?;
    is_paid_by(&world, 1, 1)?;
    assert_eq!(world.account(0)?.sessions.len(), 2);
    Ok(())
}

/// So many datagrams of so many octets out of the gateway's own link.
fn send(world: &World, to: &str, datagrams: u64, payload: usize) -> Result<()> {
    world.topology.gateway.run_in(|| -> Result<()> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        for _ in 0..datagrams {
            socket.send_to(&vec![0; payload], to).with_context(|| format!("send to {to}"))?;
        }
        Ok(())
    })?
}

#[test]
fn unknown_link_says_what_to_do_and_is_metered_from_its_first_packet() -> Result<()> {
    let mut plot = Plot::of(chunked(PLENTY, 2 << 20));
    plot.links = vec![format!("name = \"usb0\"\niccid = \"{}\"", iccid(0))];
    let mut world = World::build(&plot)?;
    world.start_agent(&[])?;
    let agent = world.agent.as_mut().context("an agent")?;
    let line = agent.actor.wait_for_line("usb0", SOON)?;
    assert!(line.contains("wan0") && line.contains("lan0"), "the links that exist are named: {line}");
    assert_eq!(world.link_status("usb0")?["metered"], false);

    let gateway = &world.topology.gateway;
    let internet = &world.topology.internet;
    gateway.ip(&format!("link add usb0 type veth peer name dongle0 netns {}", internet.name()))?;
    for (namespace, interface) in [(gateway, "usb0"), (internet, "dongle0")] {
        namespace.sysctl(&format!("ipv6/conf/{interface}/disable_ipv6"), "1")?;
    }
    internet.ip("link set dongle0 up")?;
    is_metered_from_its_first_packet(&world, "usb0")?;
    is_paid_to_the_octet(world)
}

/// A link that was just made is metered while it is still down, gets units, and each octet sent over it is counted.
fn is_metered_from_its_first_packet(world: &World, link: &str) -> Result<()> {
    let comes_to = |what: &str, key: &str, value: Value| {
        eventually(what, SOON, || {
            let status = world.link_status(link)?;
            ensure!(status[key] == value, "{status}");
            Ok(())
        })
    };
    comes_to("the new link to be metered", "metered", true.into())?;
    // Who takes the datagrams need not be asked for, and has nothing to say to them.
    world.topology.gateway.ip_batch(&format!(
        "link set {link} up\naddr add 203.0.113.1/24 dev {link}\n\
         neigh replace 203.0.113.2 lladdr 02:00:00:00:77:02 dev {link} nud permanent\n"
    ))?;
    comes_to("units for the new link", "state", "active".into())?;
    send(world, "203.0.113.2:9", 300, 1000)?;
    let passed = world.datapath(link)?.read()?.uplink.passed;
    assert_eq!((passed.packets, passed.octets), (300, 300 * 1028));
    Ok(())
}

fn is_paid_to_the_octet(mut world: World) -> Result<()> {
    world.stop_agent()?;
    let account = world.account(0)?;
    account.is_settled()?;
    assert_eq!((account.uplink, account.downlink), (300 * 1028, 0), "{account:?}");
    Ok(())
}

#[test]
fn a_pattern_meters_a_new_link_whose_state_stays_unknown_from_its_first_packet_and_leaves_others_alone() -> Result<()> {
    let mut plot = Plot::of(chunked(PLENTY, 2 << 20));
    plot.links = vec![format!("name = \"wwan*\"\nslot = \"modem\"\niccid = \"{}\"", iccid(0))];
    let mut world = World::build(&plot)?;
    world.start_agent(&[])?;
    let gateway = &world.topology.gateway;
    gateway.ip("link add wwan7 type ifb")?;
    gateway.sysctl("ipv6/conf/wwan7/disable_ipv6", "1")?;
    is_metered_from_its_first_packet(&world, "wwan7")?;
    let state = gateway.ip("link show dev wwan7")?;
    assert!(state.contains("state UNKNOWN"), "a link that never says that it is up: {state}");
    for (other, metered) in [("wwan7", 1), ("wan0", 0), ("lan0", 0)] {
        let meters = gateway.run_in(|| meters_on(other))??;
        assert_eq!(meters.len(), metered, "{other}");
    }
    is_paid_to_the_octet(world)
}

#[test]
fn a_link_that_vanished_while_nobody_was_there_is_billed_from_its_pinned_meter() -> Result<()> {
    let mut world = World::online(&two_links())?;
    let flow = world.stream(400_000)?;
    flow.carries(500_000, SOON)?;
    world.kill_agent()?;
    flow.carries(400_000, SOON)?;
    flow.stop()?;
    let passed = world.passed(0)?;
    world.topology.gateway.ip("link del wan0")?;
    world.topology.prefer(1)?;
    world.start_agent(&[])?;
    is_released(&world, 0)?;
    assert_eq!(world.account(0)?.debited(), passed);
    world.reaches(1, &["active", "renewing"])?;
    world.stop_agent()?;
    is_paid_by(&world, 1, 1)
}

/// What a power cut leaves: the ledger, and no counters.
#[test]
fn a_lost_meter_is_billed_up_to_its_last_record_and_not_guessed() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 8 << 20)))?;
    let flow = world.stream(400_000)?;
    flow.carries(2_000_000, SOON)?;
    let recorded = world.passed(0)?;
    // Two checkpoints later all of that is in the ledger.
    flow.carries(1_000_000, SOON)?;
    world.kill_agent()?;
    flow.stop()?;
    let passed = world.passed(0)?;
    fs::remove_dir_all(world.workdir.bpf().join("weir"))?;
    world.start_agent(&[])?;
    eventually("the session of the lost meter to be released", PATIENCE, || {
        let account = world.account(0)?;
        ensure!(account.sessions.iter().any(|session| session["state"] == "released"), "{account:?}");
        Ok(())
    })?;
    let debited = world.account(0)?.debited();
    assert!((recorded..=passed).contains(&debited), "{recorded} recorded, {debited} debited, {passed} passed");
    world.reaches(0, &["active"])?;
    world.stop_agent()?;
    let (account, new) = (world.account(0)?, world.passed(0)?);
    account.is_settled()?;
    assert_eq!(account.debited(), debited + new, "{account:?}");
    Ok(())
}

/// Maps that the agent holds open.
fn maps_held(world: &World) -> Result<usize> {
    let agent = world.agent.as_ref().context("an agent")?.actor.pid();
    let open = fs::read_dir(format!("/proc/{agent}/fd"))?;
    // What was closed meanwhile is not counted.
    let names = open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    Ok(names.filter(|name| name.as_os_str() == "anon_inode:bpf-map").count())
}

#[test]
fn a_link_that_is_made_anew_again_and_again_leaves_no_map_open() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 2 << 20)))?;
    let held = maps_held(&world)?;
    ensure!(held > 0, "no map is seen");
    for _ in 0..3 {
        let before = world.datapath("wan0")?.epoch_id();
        world.topology.remake(0)?;
        eventually("a new meter, and no more maps than with the first", PATIENCE, || {
            let link = world.link_status("wan0")?;
            ensure!(link["state"] == "active" && world.datapath("wan0")?.epoch_id() != before, "{link}");
            let now = maps_held(&world)?;
            ensure!(now <= held, "{now} maps are open, {held} were");
            Ok(())
        })?;
    }
    world.stop_agent()
}
