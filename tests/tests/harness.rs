//! The harness itself: what it counts is what was sent, what it makes is gone afterwards.

use std::fs;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::Direction::{Downlink, Uplink};
use e2e::bpffs::Workdir;
use e2e::capture::{Capture, Class, Classifier, End, Totals};
use e2e::cleanup;
use e2e::eventually::eventually;
use e2e::http::Client;
use e2e::netns::Namespace;
use e2e::offload::{Switch, get};
use e2e::process::{Actor, binary};
use e2e::topology::{CLIENT_V4, CLIENT_V6, HOST_V4, HOST_V6, Layout, Medium, Topology};
use e2e::traffic::{Datagrams, TcpServer, Transfer, udp};
use e2e::{Count, Direction};

const SHORT: Duration = Duration::from_secs(10);

/// A client and a host that speak with each other.
const V4: (IpAddr, IpAddr) = (CLIENT_V4, HOST_V4);
const V6: (IpAddr, IpAddr) = (CLIENT_V6, HOST_V6);

/// The far-end capture on the first uplink.
fn oracle(world: &Topology) -> Result<Capture> {
    Capture::start(&world.internet, &world.uplinks[0].far, End::Far, Classifier::default())
}

/// A megabyte each way by TCP; the server and all its connections are gone when this returns.
fn tcp_both_ways(world: &Topology, host: IpAddr, segment: Option<u16>) -> Result<()> {
    let server = TcpServer::start(&world.internet, host)?;
    for direction in [Uplink, Downlink] {
        let transfer = Transfer { segment, ..Transfer::of(direction, 1_000_000) };
        let report = server.transfer(&world.client, transfer)?;
        assert_eq!((report.sent, report.delivered), (1_000_000, 1_000_000));
    }
    Ok(())
}

/// Sends so many datagrams one way and expects the oracle to have seen just them, with `overhead` octets of headers each.
fn datagrams_are_counted(
    world: &Topology,
    direction: Direction,
    datagrams: Datagrams,
    (client, host): (IpAddr, IpAddr),
) -> Result<()> {
    let overhead = if host.is_ipv6() { 40 + 8 } else { 20 + 8 };
    let capture = oracle(world)?;
    let flow = match direction {
        Uplink => udp(&world.client, (&world.internet, host), datagrams)?,
        Downlink => udp(&world.internet, (&world.client, client), datagrams)?,
    };
    let report = flow.join()?;
    let count = datagrams.count.context("a number of datagrams")?;
    assert_eq!((report.datagrams_sent, report.datagrams_delivered), (count, count));
    let totals = capture.stop()?;
    let expected = Count { packets: count, octets: count * (u64::from(datagrams.payload) + overhead) };
    assert_eq!(totals.payload(direction), expected, "{totals:?}");
    let back = if direction == Uplink { Downlink } else { Uplink };
    // Nothing else was on the wire, not even a query.
    assert_eq!((totals.ip(direction), totals.ip(back)), (expected, Count::default()), "{totals:?}");
    assert_eq!(totals.not_ip, Count::default(), "{totals:?}");
    Ok(())
}

#[test]
fn udp_octets_in_the_capture_are_those_that_were_sent() -> Result<()> {
    let world = Topology::build(&Layout::default())?;
    for direction in [Uplink, Downlink] {
        for ends in [V4, V6] {
            datagrams_are_counted(&world, direction, Datagrams::of(2000, 1000), ends)?;
            datagrams_are_counted(&world, direction, Datagrams::of(700, 1), ends)?;
        }
    }
    Ok(())
}

#[test]
fn udp_super_packets_are_cut_before_the_wire() -> Result<()> {
    let world = Topology::build(&Layout::with_gro())?;
    for direction in [Uplink, Downlink] {
        datagrams_are_counted(&world, direction, Datagrams::of(1600, 1200).with_segments(16), V4)?;
    }
    Ok(())
}

/// Where nothing is merged on the way, both ends see the same frames, and agree to the octet.
#[test]
fn both_ends_of_the_wire_agree_about_tcp() -> Result<()> {
    let world = Topology::build(&Layout::default())?;
    for (host, segment) in [(HOST_V4, None), (HOST_V6, None), (HOST_V4, Some(536))] {
        let near = Capture::start(&world.gateway, "wan0", End::Near, Classifier::default())?;
        let far = oracle(&world)?;
        tcp_both_ways(&world, host, segment)?;
        let (near, far) = (near.stop()?, far.stop()?);
        for direction in [Uplink, Downlink] {
            assert_eq!(near.ip(direction), far.ip(direction), "{direction:?} with {host}");
            plausible(&far, direction, segment.unwrap_or(1448))?;
        }
    }
    assert_eq!(world.lost(0)?, 0);
    Ok(())
}

/// A megabyte and one set of headers per segment at least; at most a tenth more for acknowledgements and retransmissions.
fn plausible(totals: &Totals, direction: Direction, segment: u16) -> Result<()> {
    let octets = totals.payload(direction).octets;
    let least = 1_000_000 + 1_000_000 / u64::from(segment) * 40;
    ensure!((least..least + 200_000).contains(&octets), "{direction:?}: {octets} octets, at least {least} expected");
    Ok(())
}

#[test]
fn gro_merges_at_the_gateway_and_not_at_the_far_end() -> Result<()> {
    let world = Topology::build(&Layout::with_gro())?;
    let near = Capture::start(&world.gateway, "wan0", End::Near, Classifier::default())?;
    let far = oracle(&world)?;
    tcp_both_ways(&world, HOST_V4, None)?;
    let (near, far) = (near.end()?, far.stop()?);
    assert!(near.super_packets > 0, "GRO has merged nothing: {near:?}");
    assert!(near.payload(Downlink).octets < far.payload(Downlink).octets, "{near:?} {far:?}");
    plausible(&far, Downlink, 1448)
}

#[test]
fn a_capture_that_saw_super_packets_is_no_oracle() -> Result<()> {
    let world = Topology::build(&Layout { segmentation: Switch::On, ..Layout::default() })?;
    assert_eq!(get(&world.gateway, "wan0", "tx-tcp-segmentation")?, Switch::On);
    let capture = oracle(&world)?;
    tcp_both_ways(&world, HOST_V4, None)?;
    let refused = capture.stop().expect_err("super-packets were on the wire");
    assert!(format!("{refused:#}").contains("super-packets"), "{refused:#}");
    Ok(())
}

#[test]
fn the_pump_of_a_raw_ip_link_carries_what_the_capture_sees() -> Result<()> {
    let world = Topology::build(&Layout::with_uplinks(&[Medium::RawIp]))?;
    let link = world.gateway.ip("-d link show wan0")?;
    assert!(link.contains("link/none"), "{link}");
    let pump = world.uplinks[0].pump.as_ref().context("a pump")?;
    let before = [Uplink, Downlink].map(|direction| pump.carried(direction));
    let capture = oracle(&world)?;
    tcp_both_ways(&world, HOST_V4, None)?;
    tcp_both_ways(&world, HOST_V6, Some(600))?;
    let totals = capture.stop()?;
    for (direction, before) in [Uplink, Downlink].into_iter().zip(before) {
        assert_eq!(before + totals.ip(direction), pump.carried(direction), "{direction:?}");
    }
    datagrams_are_counted(&world, Uplink, Datagrams::of(500, 900), V4)
}

#[test]
fn fragments_are_counted_one_by_one() -> Result<()> {
    let world = Topology::build(&Layout::default())?;
    let capture = oracle(&world)?;
    udp(&world.client, (&world.internet, HOST_V4), Datagrams::of(100, 4000))?.join()?;
    let totals = capture.stop()?;
    // 4008 octets of UDP in parts of 1480, 1480 and 1048, each with a header of 20.
    let expected = Count { packets: 300, octets: 100 * (4008 + 60) };
    assert_eq!((totals.payload(Uplink), totals.fragments), (expected, expected));
    Ok(())
}

#[test]
fn control_traffic_is_a_class_of_its_own() -> Result<()> {
    let world = Topology::build(&Layout::default())?;
    let server = TcpServer::start(&world.internet, HOST_V4)?;
    let classifier = Classifier::control(&[server.address()]);
    let capture = Capture::start(&world.internet, "modem0", End::Far, classifier)?;
    server.transfer(&world.client, Transfer::of(Uplink, 10_000))?;
    udp(&world.client, (&world.internet, HOST_V4), Datagrams::of(10, 100))?.join()?;
    let totals = capture.stop()?;
    assert_eq!(totals.payload(Uplink), Count { packets: 10, octets: 1280 });
    assert!(totals.control(Uplink).octets > 10_000);
    assert_eq!(
        totals.control(Uplink) + totals.payload(Uplink) + totals.of(Class::NEIGHBOUR, Uplink),
        totals.ip(Uplink)
    );
    Ok(())
}

#[test]
fn each_far_end_is_reached_over_its_own_uplink() -> Result<()> {
    let world = Topology::build(&Layout::with_uplinks(&[Medium::Veth, Medium::RawIp]))?;
    for preferred in [1, 0] {
        world.prefer(preferred)?;
        for (target, way) in [(world.uplinks[0].far_v4, 0), (world.uplinks[1].far_v6, 1), (HOST_V4, preferred)] {
            let captures: Result<Vec<_>> = world
                .uplinks
                .iter()
                .map(|uplink| Capture::start(&world.internet, &uplink.far, End::Far, Classifier::default()))
                .collect();
            tcp_both_ways(&world, target, None)?;
            for (index, capture) in captures?.into_iter().enumerate() {
                let totals = capture.stop()?;
                assert_eq!(totals.payload(Uplink).packets > 0, index == way, "{target} {totals:?}");
                assert_eq!(totals.payload(Downlink).packets > 0, index == way, "{target} {totals:?}");
            }
        }
    }
    Ok(())
}

/// Takes the first uplink, of this medium, down and up again under traffic, then goes over to the second.
fn down_and_up_again(medium: Medium) -> Result<()> {
    let world = Topology::build(&Layout::with_uplinks(&[medium, Medium::Veth]))?;
    let server = TcpServer::start(&world.internet, HOST_V4)?;
    let flow = server.flow(&world.client, Transfer::endless(Downlink, 1_000_000))?;
    flow.carries(100_000, SHORT)?;
    world.lower(0)?;
    flow.stalls(Duration::from_millis(300), SHORT)?;
    world.raise(0)?;
    world.prefer(0)?;
    flow.carries(100_000, SHORT)?;
    assert!(flow.stop()?.delivered >= 200_000);
    world.lower(0)?;
    world.prefer(1)?;
    server.transfer(&world.client, Transfer::of(Uplink, 50_000)).map(drop)
}

#[test]
fn a_link_that_was_down_carries_again() -> Result<()> {
    down_and_up_again(Medium::Veth)?;
    down_and_up_again(Medium::RawIp)
}

#[test]
fn an_actor_is_heard_and_dies_with_its_namespace() -> Result<()> {
    let workdir = Workdir::new("actor")?;
    let namespace = Namespace::new("actor")?;
    let mut command = namespace.command("sh");
    command.args(["-c", "echo ready; trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done"]);
    // It must outlive the thread that has started it.
    let mut actor = std::thread::scope(|scope| scope.spawn(|| Actor::start("shell", command, &workdir)).join())
        .expect("the starting thread")?;
    assert_eq!(actor.wait_for_line("ready", SHORT)?, "ready");
    assert_eq!(actor.terminate(SHORT)?.code(), Some(3));
    assert!(actor.stdout().contains("bye"));
    assert!(actor.wait_for_line("never", SHORT).is_err(), "a line that an ended program has not said");

    // Somebody's daemon that nobody holds: it goes with the namespace.
    let mut child = namespace.command("sleep").arg("1000").spawn()?;
    drop(namespace);
    eventually("the daemon's end", SHORT, || child.try_wait()?.context("it lives")).map(drop)
}

#[test]
fn what_is_missing_is_said_clearly() {
    let error = binary("weir-that-nobody-built").expect_err("it does not exist");
    assert!(format!("{error:#}").contains("cargo xtask test"), "{error:#}");
    let refused = std::thread::spawn(|| {
        // SAFETY: the bare system call (not libc's wrapper) gives up root for this thread alone.
        unsafe { libc::syscall(libc::SYS_setresuid, -1, 65_534, -1) };
        Namespace::new("nobody").map(drop)
    });
    let error = refused.join().expect("the thread of nobody").expect_err("nobody is not root");
    assert!(format!("{error:#}").contains("need root: run `cargo xtask test`"), "{error:#}");
}

#[test]
fn the_json_client_speaks_from_within_a_namespace() -> Result<()> {
    use std::io::{Read as _, Write as _};
    let namespace = Namespace::new("http")?;
    let listener = namespace.run_in(|| std::net::TcpListener::bind("127.0.0.1:0"))??;
    let base = format!("http://{}", listener.local_addr()?);
    let serving = std::thread::spawn(move || -> Result<String> {
        let (mut stream, _) = listener.accept()?;
        let mut request = [0; 4096];
        let size = stream.read(&mut request)?;
        stream.write_all(b"HTTP/1.1 409 Conflict\r\ncontent-length: 5\r\nconnection: close\r\n\r\ntaken")?;
        Ok(String::from_utf8_lossy(&request[..size]).into_owned())
    });
    let error = Client::new(&namespace, &base, "secret").get("/admin/v1/plans").expect_err("a conflict");
    assert!(format!("{error:#}").contains("409 Conflict: taken"), "{error:#}");
    let request = serving.join().expect("the server's thread")?;
    assert!(request.starts_with("GET /admin/v1/plans HTTP/1.1\r\n"), "{request}");
    assert!(request.to_lowercase().contains("authorization: bearer secret"), "{request}");
    Ok(())
}

#[test]
fn a_panic_leaves_nothing_behind() -> Result<()> {
    let (names, told) = std::sync::mpsc::channel();
    let panicking = std::thread::spawn(move || {
        let world = Topology::build(&Layout::with_uplinks(&[Medium::Veth, Medium::RawIp])).expect("a world");
        let workdir = Workdir::with_bpffs("panic").expect("a directory");
        fs::create_dir(workdir.bpf().join("v1")).expect("a directory for pins");
        let server = TcpServer::start(&world.internet, HOST_V4).expect("a server");
        let flow = server.flow(&world.client, Transfer::endless(Uplink, 1_000_000)).expect("a flow");
        flow.carries(10_000, SHORT).expect("traffic");
        let mut command = world.gateway.command("sleep");
        command.arg("1000");
        let actor = Actor::start("sleeper", command, &workdir).expect("a child");
        names.send((world.gateway.name().to_owned(), workdir.path().to_owned(), actor.pid())).expect("a listener");
        panic!("on purpose");
    });
    let (namespace, directory, child) = told.recv()?;
    panicking.join().expect_err("it panics");
    assert!(!fs::exists(format!("/run/netns/{namespace}"))?);
    assert!(!fs::exists(&directory)?);
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    assert!(!mounts.contains(&directory.display().to_string()), "{mounts}");
    assert!(!fs::exists(format!("/proc/{child}"))?, "the actor lives");
    Ok(())
}

/// Runs one test of this very file in a process of its own, kills that by `signal`, and looks at what is left.
fn interrupted(signal: nix::sys::signal::Signal) -> Result<Vec<String>> {
    let workdir = Workdir::new("interrupted")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--exact", "a_world_that_stays", "--nocapture"]).env("WEIR_STAY", "1");
    let mut actor = Actor::start("stayer", command, &workdir)?;
    actor.wait_for_line("here to stay", SHORT)?;
    assert!(cleanup::names_of(actor.pid()).len() >= 4);
    actor.signal(signal)?;
    actor.wait(SHORT)?;
    Ok(cleanup::names_of(actor.pid()))
}

#[test]
fn ctrl_c_and_termination_clean_up_everything() -> Result<()> {
    for signal in [nix::sys::signal::Signal::SIGINT, nix::sys::signal::Signal::SIGTERM] {
        let left = interrupted(signal)?;
        assert!(left.is_empty(), "{signal} left {left:?}");
    }
    Ok(())
}

#[test]
fn what_a_killed_run_left_is_swept_at_the_next_start() -> Result<()> {
    let left = interrupted(nix::sys::signal::Signal::SIGKILL)?;
    // Another test of this process may have started its sweep just now, but not before the kill.
    cleanup::sweep();
    for name in left {
        assert!(!fs::exists(format!("/run/netns/{name}"))?, "{name}");
        assert!(!fs::exists(std::env::temp_dir().join(&name))?, "{name}");
    }
    Ok(())
}

/// The other half of the two tests above; on its own it only makes a world and lets it go.
#[test]
fn a_world_that_stays() -> Result<()> {
    let world = Topology::build(&Layout::default())?;
    let _workdir = Workdir::with_bpffs("stays")?;
    if std::env::var_os("WEIR_STAY").is_some() {
        let mut child = world.gateway.command("sleep").arg("1000").spawn()?;
        println!("here to stay");
        child.wait()?;
    }
    Ok(())
}
