//! Other ways to the server: usage of a dead link is told over whatever still leads there.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use agent::datapath::meters_on;
use anyhow::{Context as _, Result, ensure};
use e2e::Direction::Uplink;
use e2e::capture::{Capture, Classifier, End};
use e2e::eventually::eventually;
use e2e::scenario::{Books, Plot, SOON, World, chunked, iccid};
use e2e::topology::{HOST_V4, HOST_V6, Layout, Medium};

const PLENTY: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_mins(3);
/// Nobody is there.
const NO_RESOLVER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 53));

/// So many uplinks, of which the first `metered` are metered.
fn plot(uplinks: usize, metered: usize) -> Plot {
    let layout = Layout::with_uplinks(&vec![Medium::Veth; uplinks]);
    let mut plot = Plot::of(chunked(PLENTY, 2 << 20)).over(layout).agent("report_interval = \"1s\"");
    for _ in 1..metered {
        plot = plot.and(chunked(PLENTY, 2 << 20));
    }
    plot.links = (0..metered).map(|link| format!("name = \"wan{link}\"\niccid = \"{}\"", iccid(link))).collect();
    plot.server = "connect_timeout = \"1s\"\n".into();
    plot
}

/// The first uplink carries nothing any more, and nobody at the gateway is told; what is sent there now is used all the same.
fn dies(world: &World, to: IpAddr) -> Result<()> {
    world.topology.internet.ip("link set modem0 down")?;
    let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0".parse()? } else { "[::]:0".parse()? };
    world.topology.gateway.run_in(|| -> Result<()> {
        let socket = UdpSocket::bind(any)?;
        for _ in 0..400 {
            socket.send_to(&[0; 1000], (to, 9)).context("send")?;
        }
        Ok(())
    })?
}

/// Waits until the first SIM has paid for all that its link has passed up to now.
fn is_told(world: &World) -> Result<()> {
    let passed = world.passed(0)?;
    ensure!(passed >= 400 * 1028, "{passed}");
    eventually("the usage of the dead link to be told", PATIENCE, || {
        let debited = world.account(0)?.debited();
        ensure!(debited >= passed, "{debited} of {passed}");
        Ok(())
    })
}

/// The link lives again; after the end everybody has paid for what has passed.
fn ends_well(mut world: World, metered: usize) -> Result<()> {
    world.topology.raise(0)?;
    world.topology.prefer(0)?;
    world.stop_agent()?;
    for link in 0..metered {
        let account = world.account(link)?;
        account.is_settled()?;
        assert_eq!(account.debited(), world.passed(link)?, "link {link}: {account:?}");
    }
    Ok(())
}

/// The most specific route leads into the dead link, and the message goes out of the other one, where it is counted.
fn goes_round_a_host_route(host: IpAddr) -> Result<()> {
    let mut plot = plot(2, 2);
    plot.host = host;
    let world = World::online(&plot)?;
    let uplink = &world.topology.uplinks[0];
    let (via, far) = if host.is_ipv4() { (uplink.far_v4, uplink.far_v4) } else { (uplink.far_v6, uplink.far_v6) };
    world.topology.gateway.ip(&format!("route add {host} via {via} dev wan0 metric 1"))?;
    let books = Books::open(&world, 1)?;
    dies(&world, far)?;
    let way = world.topology.gateway.ip(&format!("route get {host}"))?;
    ensure!(way.contains("dev wan0"), "the kernel's own way is the dead one: {way}");
    is_told(&world)?;
    let crossed = books.close(&world)?;
    assert!(crossed.uplink > 500 && crossed.downlink > 200, "the report went over the other link: {crossed:?}");
    ends_well(world, 2)
}

#[test]
fn a_host_route_through_a_dead_link_does_not_defeat_the_detour_which_is_counted_itself() -> Result<()> {
    goes_round_a_host_route(HOST_V4)
}

#[test]
fn an_ipv6_host_route_through_a_dead_link_does_not_defeat_the_detour_either() -> Result<()> {
    goes_round_a_host_route(HOST_V6)
}

#[test]
fn an_unmetered_link_whose_only_route_covers_the_server_is_a_way_out_too() -> Result<()> {
    let mut world = World::build(&plot(2, 1))?;
    let (far0, far1) = (world.topology.uplinks[0].far_v4, world.topology.uplinks[1].far_v4);
    world.topology.gateway.ip_batch(&format!(
        "route del default via {far1} dev wan1\nroute add 192.0.2.0/24 via {far1} dev wan1 metric 500\n\
         route add {HOST_V4} via {far0} dev wan0 metric 1\n"
    ))?;
    world.start_agent(&[])?;
    world.reaches(0, &["active"])?;
    dies(&world, far0)?;
    is_told(&world)?;
    assert!(world.topology.gateway.run_in(|| meters_on("wan1"))??.is_empty(), "nobody meters it");
    ends_well(world, 1)
}

#[test]
fn the_preferred_way_is_tried_before_the_one_with_the_better_metric() -> Result<()> {
    let mut plot = plot(3, 1);
    plot.server.push_str("ways = [\"usb*\", \"wan2\"]\n");
    let mut world = World::build(&plot)?;
    world.start_agent(&[])?;
    world.reaches(0, &["active"])?;
    let server = world.server.as_ref().context("a server")?.address;
    let listen = |far: &str| Capture::start(&world.topology.internet, far, End::Far, Classifier::control(&[server]));
    let (better, preferred) = (listen("modem1")?, listen("modem2")?);
    dies(&world, world.topology.uplinks[0].far_v4)?;
    is_told(&world)?;
    assert_eq!(better.stop()?.control(Uplink).packets, 0);
    assert!(preferred.stop()?.control(Uplink).packets > 0);
    ends_well(world, 1)
}

#[test]
fn a_living_link_renews_over_itself_while_the_kernels_own_way_is_dead() -> Result<()> {
    let world = World::online(&plot(2, 2).agent("report_interval = \"1h\""))?;
    let before = world.account(1)?.debited();
    dies(&world, world.topology.uplinks[0].far_v4)?;
    let socket = world.topology.gateway.run_in(|| UdpSocket::bind("0.0.0.0:0"))??;
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::BindToDevice, &"wan1".into())?;
    for _ in 0..1900 {
        socket.send_to(&[0; 1000], (world.topology.uplinks[1].far_v4, 9))?;
    }
    eventually("the renewal", PATIENCE, || {
        let debited = world.account(1)?.debited() - before;
        ensure!(debited > 1000 * 1028, "{debited}");
        Ok(())
    })?;
    ends_well(world, 2)
}

/// The agent asks for the server by its name.
fn by_name(world: &World) -> Result<()> {
    let text = fs::read_to_string(&world.config)?;
    fs::write(&world.config, text.replace(&format!("//{HOST_V4}:"), "//charging.test:"))?;
    Ok(())
}

/// Starts the agent where `/etc/hosts` is `hosts`, and this is the only resolver.
fn start_with_resolver(world: &mut World, address: IpAddr) -> Result<()> {
    let (hosts, resolver) = (world.workdir.path().join("hosts"), world.workdir.path().join("resolv.conf"));
    fs::write(&resolver, format!("nameserver {address}\noptions timeout:1 attempts:1\n"))?;
    world.start_agent_behind(vec![(hosts, "/etc/hosts"), (resolver, "/etc/resolv.conf")])
}

#[test]
fn a_server_whose_name_died_with_the_link_is_found_over_the_other_one_and_after_a_restart() -> Result<()> {
    let mut world = World::build(&plot(2, 2))?;
    by_name(&world)?;
    let hosts = world.workdir.path().join("hosts");
    fs::write(&hosts, format!("{HOST_V4} charging.test\n"))?;
    start_with_resolver(&mut world, NO_RESOLVER)?;
    for link in 0..2 {
        world.reaches(link, &["active"])?;
    }
    // From here on nobody knows the name.
    fs::write(&hosts, "")?;
    dies(&world, world.topology.uplinks[0].far_v4)?;
    is_told(&world)?;

    world.kill_agent()?;
    dies(&world, world.topology.uplinks[0].far_v4)?;
    start_with_resolver(&mut world, NO_RESOLVER)?;
    eventually("the agent to be there", SOON, || world.status().map(drop))?;
    is_told(&world)?;
    ends_well(world, 2)
}

/// Answers every question for an IPv4 address with this one, and every other with none.
fn resolve(socket: &UdpSocket, address: Ipv4Addr) -> Result<()> {
    let mut question = [0; 512];
    loop {
        let (length, from) = socket.recv_from(&mut question)?;
        let name_end = 12 + question[12..length].iter().position(|label| *label == 0).context("a name")?;
        let of_ipv4 = question[name_end + 1..name_end + 3] == [0, 1];
        let mut answer = [&question[..2], &[0x81, 0x80, 0, 1, 0, u8::from(of_ipv4), 0, 0, 0, 0]].concat();
        answer.extend(&question[12..name_end + 5]);
        if of_ipv4 {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            answer.extend(address.octets());
        }
        socket.send_to(&answer, from)?;
    }
}

#[test]
fn the_servers_name_is_looked_up_through_the_gate_that_is_shut_before_the_first_grant() -> Result<()> {
    let mut world = World::build(&plot(1, 1))?;
    by_name(&world)?;
    fs::write(world.workdir.path().join("hosts"), "")?;
    start_with_resolver(&mut world, HOST_V4)?;
    eventually("the link to be metered", SOON, || {
        ensure!(world.link_status("wan0")?["metered"] == true, "not yet");
        Ok(())
    })?;
    // Nobody has answered before the gate was there.
    let socket = world.topology.internet.run_in(|| UdpSocket::bind((HOST_V4, 53)))??;
    socket.set_read_timeout(Some(SOON))?;
    std::thread::spawn(move || resolve(&socket, "192.0.2.1".parse()?));
    eventually("units", PATIENCE, || {
        ensure!(world.link_status("wan0")?["state"] == "active", "not yet");
        Ok(())
    })?;
    ends_well(world, 1)
}
