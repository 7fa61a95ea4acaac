//! Links as they are: moved to other namespaces, made anew, of another type, in bursts, faster than netlink can tell.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use agent::datapath::{Pins, meters_on};
use agent::link::Links;
use agent_common::{LINK_ETHERNET, LINK_RAW_IP};
use anyhow::{Context as _, Result, ensure};
use e2e::clock::Deadline;
use e2e::eventually::eventually;
use e2e::netns::Namespace;
use e2e::scenario::{Account, Books, Plot, SOON, World, chance, chunked, iccid};
use e2e::topology::{HOST_V4, Layout, Medium};
use e2e::traffic::{Datagrams, udp};
use nix::sys::signal::Signal;
use tokio::sync::watch;

const PLENTY: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_secs(30);
/// So long after the last notification there are none to come.
const QUIET: Duration = Duration::from_millis(200);

fn two_links(first: Medium) -> Plot {
    let layout = Layout::with_uplinks(&[first, Medium::Veth]);
    Plot::of(chunked(PLENTY, 2 << 20)).and(chunked(PLENTY, 2 << 20)).over(layout)
}

/// Two links in use, and everything but what is sent to the far end of the first takes the second.
fn online(first: Medium) -> Result<World> {
    online_as(&two_links(first))
}

fn online_as(plot: &Plot) -> Result<World> {
    let world = World::online(plot)?;
    world.topology.prefer(1)?;
    Ok(world)
}

/// So many datagrams of 1028 octets to the far end of an uplink, from somebody who reaches it.
fn send(world: &World, from: &Namespace, link: usize, datagrams: u64) -> Result<()> {
    let to = (&world.topology.internet, world.topology.uplinks[link].far_v4);
    let report = udp(from, to, Datagrams::of(datagrams, 1000))?.join()?;
    ensure!(report.datagrams_delivered == datagrams, "{report:?}");
    Ok(())
}

fn is_released(world: &World, sim: usize) -> Result<Account> {
    eventually(&format!("the sessions of SIM {sim} to be released"), PATIENCE, || {
        let account = world.account(sim)?;
        account.is_settled()?;
        Ok(account)
    })
}

/// How many meters sit at the hooks of an interface.
fn meters(namespace: &Namespace, interface: &str) -> Result<usize> {
    Ok(namespace.run_in(|| meters_on(interface))??.len())
}

fn epoch(world: &World) -> Result<u32> {
    Ok(world.datapath("wan0")?.epoch_id())
}

/// What passes after a new meter was attached is paid for beside what the one before had counted.
fn is_paid_in_the_new_epoch_too(mut world: World, first: u64) -> Result<()> {
    let books = Books::open(&world, 0)?;
    send(&world, &world.topology.client, 0, 300)?;
    world.stop_agent()?;
    books.close(&world)?;
    let account = world.account(0)?;
    account.is_settled()?;
    assert_eq!(account.debited(), first + world.passed(0)?, "{account:?}");
    Ok(())
}

#[test]
fn a_link_moved_to_another_namespace_is_settled_not_blocked_there_and_a_new_epoch_when_it_comes_back() -> Result<()> {
    is_moved_away_and_back(&two_links(Medium::Veth))
}

#[test]
fn a_link_moved_to_another_namespace_and_back_is_settled_and_metered_again_where_there_is_no_tcx() -> Result<()> {
    is_moved_away_and_back(&two_links(Medium::Veth).by_clsact())
}

fn is_moved_away_and_back(plot: &Plot) -> Result<()> {
    let world = online_as(plot)?;
    let books = Books::open(&world, 0)?;
    send(&world, &world.topology.client, 0, 400)?;
    books.close(&world)?;
    let (first, before) = (world.passed(0)?, epoch(&world)?);
    let elsewhere = Namespace::new("elsewhere")?;
    let gateway = &world.topology.gateway;
    gateway.ip(&format!("link set wan0 netns {}", elsewhere.name()))?;
    assert_eq!(is_released(&world, 0)?.debited(), first);
    eventually("the meter to be taken off", SOON, || {
        let meters = meters(&elsewhere, "wan0")?;
        ensure!(meters == 0, "{meters} meters");
        Ok(())
    })?;
    elsewhere.ip_batch("addr add 198.18.0.2/24 dev wan0\nlink set wan0 up\n")?;
    send(&world, &elsewhere, 0, 100)?;

    elsewhere.ip(&format!("link set wan0 netns {}", gateway.name()))?;
    world.topology.take_back(0)?;
    world.reaches(0, &["active", "renewing"])?;
    assert_ne!(epoch(&world)?, before);
    is_paid_in_the_new_epoch_too(world, first)
}

#[test]
fn a_link_moved_away_while_the_agent_is_dead_is_settled_and_let_go_at_the_next_start() -> Result<()> {
    let mut world = online(Medium::Veth)?;
    send(&world, &world.topology.client, 0, 200)?;
    world.kill_agent()?;
    send(&world, &world.topology.client, 0, 200)?;
    let passed = world.passed(0)?;
    let elsewhere = Namespace::new("elsewhere")?;
    world.topology.gateway.ip(&format!("link set wan0 netns {}", elsewhere.name()))?;
    world.start_agent(&[])?;
    assert_eq!(is_released(&world, 0)?.debited(), passed);
    eventually("the meter to be taken off", SOON, || {
        let meters = meters(&elsewhere, "wan0")?;
        ensure!(meters == 0, "{meters} meters");
        Ok(())
    })?;
    world.stop_agent()
}

#[test]
fn a_link_deleted_and_made_again_at_once_is_billed_to_its_last_octet_and_metered_anew() -> Result<()> {
    let world = online(Medium::Veth)?;
    let books = Books::open(&world, 0)?;
    send(&world, &world.topology.client, 0, 400)?;
    books.close(&world)?;
    let (first, before) = (world.passed(0)?, epoch(&world)?);
    world.topology.remake(0)?;
    eventually("a new epoch", SOON, || {
        ensure!(epoch(&world)? != before, "still the old one");
        Ok(())
    })?;
    world.reaches(0, &["active", "renewing"])?;
    is_paid_in_the_new_epoch_too(world, first)
}

#[test]
fn the_gate_follows_the_type_of_a_living_link_and_not_an_octet_is_miscounted() -> Result<()> {
    let mut world = online(Medium::RawIp)?;
    let state = world.topology.gateway.ip("link show dev wan0")?;
    assert!(state.contains("state UNKNOWN"), "a link that never says that it is up: {state}");
    let before = epoch(&world)?;
    let to_the_octet = |world: &World| {
        // What the link itself sends while it goes down is lost behind the meter, so each type has books of its own.
        let books = Books::open(world, 0)?;
        send(world, &world.topology.client, 0, 200)?;
        books.close(world)
    };
    to_the_octet(&world)?;
    for (kind, expected) in [(libc::ARPHRD_ETHER, LINK_ETHERNET), (libc::ARPHRD_NONE, LINK_RAW_IP)] {
        assert_ne!(world.datapath("wan0")?.gate()?.link_type, expected);
        world.topology.lower(0)?;
        world.topology.uplinks[0].pump.as_ref().context("a pump")?.set_link_type(kind)?;
        world.topology.raise(0)?;
        eventually("the gate to know the type", SOON, || {
            let gate = world.datapath("wan0")?.gate()?;
            ensure!(gate.link_type == expected && gate.ceiling > 0, "{gate:?}");
            Ok(())
        })?;
        to_the_octet(&world)?;
    }
    assert_eq!(epoch(&world)?, before, "the counters go on");
    world.stop_agent()?;
    let account = world.account(0)?;
    account.is_settled()?;
    assert_eq!(account.debited(), world.passed(0)?, "{account:?}");
    Ok(())
}

/// Notifications that the kernel could not deliver to the agent's netlink socket.
fn lost_notifications(world: &World) -> Result<u64> {
    let agent = world.agent.as_ref().context("an agent")?.actor.pid();
    let sockets = fs::read_to_string(format!("/proc/{agent}/net/netlink"))?;
    // sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode: those of NETLINK_ROUTE that listen to groups.
    let listeners = sockets.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listeners = listeners.filter(|fields| fields.get(1) == Some(&"0") && fields.get(3) != Some(&"00000000"));
    Ok(listeners.filter_map(|fields| fields.get(8)?.parse::<u64>().ok()).sum())
}

#[test]
fn changes_that_netlink_could_not_tell_are_read_anew() -> Result<()> {
    let mut plot = two_links(Medium::Veth);
    plot.links = vec![
        format!("name = \"wan*\"\nslot = \"modem\"\niccid = \"{}\"", iccid(0)),
        format!("name = \"usb0\"\niccid = \"{}\"", iccid(1)),
    ];
    plot.layout = Layout::default();
    let mut world = World::build(&plot)?;
    world.start_agent(&[])?;
    world.reaches(0, &["active"])?;
    let agent = &mut world.agent.as_mut().context("an agent")?.actor;
    agent.signal(Signal::SIGSTOP)?;
    let change = |number: u32| format!("route replace 203.0.113.{}/32 dev lan0 metric {number}\n", number % 256);
    world.topology.gateway.ip_batch(&(0..12_000).map(change).collect::<String>())?;
    assert!(lost_notifications(&world)? > 0, "the socket held them all");
    // These come when there is no room for them any more.
    world.topology.rename(0, "wan7")?;
    world.topology.gateway.ip("link add usb0 type veth peer name peer0")?;
    let agent = &mut world.agent.as_mut().context("an agent")?.actor;
    agent.signal(Signal::SIGCONT)?;
    world.reaches(0, &["active", "renewing"])?;
    eventually("the new link to be metered", SOON, || {
        let status = world.link_status("usb0")?;
        ensure!(status["metered"] == true, "{status}");
        Ok(())
    })?;
    let books = Books::open(&world, 0)?;
    udp(&world.topology.client, (&world.topology.internet, HOST_V4), Datagrams::of(300, 1000))?.join()?;
    world.stop_agent()?;
    books.close(&world)?;
    assert_eq!(world.account(0)?.debited(), world.passed(0)?);
    Ok(())
}

#[test]
fn hundreds_of_links_that_come_and_go_in_seconds_leave_nothing_behind_and_disturb_nobody() -> Result<()> {
    let mut plot = Plot::of(chunked(PLENTY, 2 << 20)).and(chunked(PLENTY, 2 << 20));
    plot.links = vec![
        format!("name = \"wan0\"\niccid = \"{}\"", iccid(0)),
        format!("name = \"usb*\"\nslot = \"dongle\"\niccid = \"{}\"", iccid(1)),
    ];
    let mut world = World::build(&plot)?;
    world.start_agent(&[])?;
    world.reaches(0, &["active"])?;
    let books = Books::open(&world, 0)?;
    let flow = udp(&world.topology.client, (&world.topology.internet, HOST_V4), Datagrams::endless(300_000, 1000))?;
    for round in 0..3 {
        let both = |name: String| format!("link add {name} type veth peer name p{name}\n");
        let mut script: String = (0..100).map(|number| both(format!("x{number}"))).collect();
        script.extend((0..3).map(|number| both(format!("usb{round}{number}"))));
        let delete = |name: String| format!("link del {name}\n");
        script.extend((1..100).map(|number| delete(format!("x{number}"))));
        world.topology.gateway.ip_batch(&script)?;
        // One stays a while: nobody asked for it to be metered.
        assert_eq!(meters(&world.topology.gateway, "x0")?, 0);
        assert!(world.topology.gateway.ip("link show dev x0")?.contains("qdisc noop"));
        world.topology.gateway.ip_batch("link del x0\n")?;
        if round < 2 {
            let gone: String = (0..3).map(|number| delete(format!("usb{round}{number}"))).collect();
            world.topology.gateway.ip_batch(&gone)?;
        }
    }
    eventually("only the links that are there to be metered", PATIENCE, || {
        let status = world.status()?;
        let links = status["links"].as_array().context("links")?;
        let metered = links.iter().filter(|link| link["metered"] == true).filter_map(|link| link["link"].as_str());
        let metered: Vec<&str> = metered.collect();
        ensure!(metered.len() == 4 && links.len() == 4, "{status}");
        let mut pinned = Pins::names(&world.workdir.bpf().join("weir"));
        pinned.sort();
        ensure!(pinned == ["usb20", "usb21", "usb22", "wan0"], "{pinned:?}");
        Ok(())
    })?;
    flow.carries(100_000, SOON)?;
    flow.stop()?;
    world.stop_agent()?;
    books.close(&world)?;
    let account = world.account(0)?;
    account.is_settled()?;
    assert_eq!(account.debited(), world.passed(0)?, "{account:?}");
    Ok(())
}

#[test]
fn two_links_of_one_pattern_share_the_sim_of_its_slot_and_each_is_charged_by_itself() -> Result<()> {
    let mut plot = Plot::of(chunked(PLENTY, 2 << 20)).over(Layout::with_uplinks(&[Medium::Veth, Medium::Veth]));
    plot.links = vec![format!("name = \"wan*\"\nslot = \"modem\"\niccid = \"{}\"", iccid(0))];
    let mut world = World::online(&plot)?;
    let books = [Books::open(&world, 0)?, Books::open(&world, 1)?];
    send(&world, &world.topology.client, 0, 300)?;
    send(&world, &world.topology.client, 1, 200)?;
    world.stop_agent()?;
    for books in books {
        books.close(&world)?;
    }
    let account = world.account(0)?;
    account.is_settled()?;
    assert_eq!(account.sessions.len(), 2);
    assert_eq!(account.debited(), world.passed(0)? + world.passed(1)?, "{account:?}");
    Ok(())
}

#[test]
fn a_link_that_is_deleted_while_the_agent_settles_is_billed_to_its_last_octet() -> Result<()> {
    let mut world = World::build(&two_links(Medium::Veth))?;
    world.start_agent_with(&[], &[("WEIR_DRILL_HALT_AT", "settling")])?;
    for link in 0..2 {
        world.reaches(link, &["active", "renewing"])?;
    }
    world.topology.prefer(1)?;
    send(&world, &world.topology.client, 0, 400)?;
    let passed = world.passed(0)?;
    let agent = &mut world.agent.as_mut().context("an agent")?.actor;
    agent.signal(Signal::SIGTERM)?;
    agent.wait_for_line("stopping: gates shut, settling", SOON)?;
    world.topology.gateway.ip("link del wan0")?;
    let agent = &mut world.agent.as_mut().context("an agent")?.actor;
    eventually("the agent to be halted", SOON, || {
        let state = fs::read_to_string(format!("/proc/{}/stat", agent.pid()))?;
        ensure!(state.contains(") T "), "{state}");
        Ok(())
    })?;
    agent.signal(Signal::SIGCONT)?;
    assert!(agent.wait(SOON)?.success());
    world.agent = None;
    let account = world.account(0)?;
    account.is_settled()?;
    assert_eq!(account.debited(), passed, "{account:?}");
    Ok(())
}

/// Told, not found at the next look.
#[test]
fn that_a_filter_or_its_clsact_was_deleted_is_told_by_the_kernel() -> Result<()> {
    let gateway = Namespace::new("gateway")?;
    gateway.ip("link add wan0 type veth peer name modem0")?;
    gateway.block_on(async {
        let mut links = agent::link::watch(watch::channel(Vec::new()).1).await?;
        gateway.tc("qdisc add dev wan0 clsact")?;
        gateway.tc("filter add dev wan0 egress pref 1 protocol all u32 match u32 0 0 flowid 1:1")?;
        for change in ["filter del dev wan0 egress pref 1", "qdisc del dev wan0 clsact"] {
            while tokio::time::timeout(QUIET, links.changed()).await.is_ok() {}
            let before = links.borrow_and_update().clone();
            gateway.tc(change)?;
            tokio::time::timeout(SOON, links.changed()).await.with_context(|| format!("{change} is not told"))??;
            let after = links.borrow_and_update().clone();
            ensure!(after.filter_changes > before.filter_changes, "{change}");
        }
        Ok(())
    })?
}

/// The links and routes of a namespace as somebody sees them who looks for the first time.
async fn seen_afresh(servers: &watch::Receiver<Vec<IpAddr>>) -> Result<Links> {
    Ok(agent::link::watch(servers.clone()).await?.borrow().clone())
}

fn add_link(namespace: &Namespace, number: u8) -> Result<()> {
    namespace.ip_batch(&format!(
        "link add up{number} type veth peer name far{number}\nlink set far{number} up\nlink set up{number} up\n"
    ))
}

/// What may happen to routes and links, in the words of `ip`.
fn change(random: &mut fastrand::Rng) -> String {
    let link = format!("up{}", random.u8(0..3));
    let prefix = random.choice(["default", "192.0.2.0/24", "192.0.2.1/32", "203.0.113.0/24", "198.18.9.0/24"]);
    let prefix6 = random.choice(["default", "2001:db8::/32", "2001:db8:9::/48"]);
    let metric = random.u8(0..2) * 10;
    let deed = random.choice(["add", "append", "replace", "del", "prepend", "del", "replace"]).unwrap_or("del");
    match random.u8(0..10) {
        0..5 => format!("route {deed} {} dev {link} metric {metric}", prefix.unwrap_or("default")),
        5 => format!("route {deed} {} metric {metric} nexthop dev up0 nexthop dev {link}", prefix.unwrap_or("default")),
        6..8 => format!("-6 route {deed} {} dev {link} metric {}", prefix6.unwrap_or("default"), metric + 1),
        8 => format!("link set {link} {}", if random.bool() { "up" } else { "down" }),
        _ => format!("addr {} 198.18.0.{}/24 dev {link}", if random.bool() { "add" } else { "del" }, random.u8(1..4)),
    }
}

#[test]
fn routes_noted_one_by_one_are_those_that_the_kernel_lists() -> Result<()> {
    chance(|random| {
        let namespace = Namespace::new("routes")?;
        for number in 0..3 {
            add_link(&namespace, number)?;
        }
        let servers = watch::Sender::new(vec!["192.0.2.1".parse()?, "2001:db8::1".parse()?]);
        let changes: Vec<Vec<String>> =
            (0..60).map(|_| (0..random.u8(1..6)).map(|_| change(random)).collect()).collect();
        namespace.block_on(async {
            let servers = servers.subscribe();
            let mut followed = agent::link::watch(servers.clone()).await?;
            let mut most = 0;
            for burst in &changes {
                for line in burst {
                    // Not everything that chance asks for is possible.
                    let _ = namespace.ip(line);
                }
                let deadline = Deadline::after(SOON);
                loop {
                    let fresh = seen_afresh(&servers).await?;
                    let known = followed.borrow_and_update().clone();
                    if known.are_alike(&fresh) {
                        most = most.max(known.routes.len());
                        break;
                    }
                    ensure!(!deadline.passed(), "{burst:?}: {known:?}, not {fresh:?}");
                    // What is noted is told; what is not is waited for until the deadline.
                    let _ = tokio::time::timeout(Duration::from_millis(20), followed.changed()).await;
                }
            }
            ensure!(most > 2, "{most} routes at the most: nothing was tried");
            Ok(())
        })?
    })
}

#[test]
fn a_server_that_moves_is_looked_for_in_all_routes() -> Result<()> {
    let namespace = Namespace::new("moves")?;
    add_link(&namespace, 0)?;
    namespace.ip("route add 203.0.113.0/24 dev up0")?;
    let servers = watch::Sender::new(vec!["192.0.2.1".parse()?]);
    namespace.block_on(async {
        let mut followed = agent::link::watch(servers.subscribe()).await?;
        ensure!(followed.borrow().routes.is_empty(), "{:?}", followed.borrow().routes);
        servers.send_replace(vec!["203.0.113.7".parse()?]);
        tokio::time::timeout(SOON, followed.changed()).await??;
        ensure!(followed.borrow().routes.len() == 1, "{:?}", followed.borrow().routes);
        Ok(())
    })?
}
