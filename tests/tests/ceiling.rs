//! The ceiling is absolute: nothing passes above it, control still does within its reserve, and new units open it again.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use agent::datapath::{Datapath, LoadSpec, load_and_pin};
use agent_common::{Counters, Gate, LINK_ETHERNET, Tally};
use anyhow::{Context as _, Result, ensure};
use aya::maps::{Map, MapData, PerCpuArray};
use e2e::Count;
use e2e::Direction::{self, Downlink, Uplink};
use e2e::bpffs::Workdir;
use e2e::capture::{Capture, Classifier, End};
use e2e::clock::now;
use e2e::eventually::eventually;
use e2e::offload::spread;
use e2e::scenario::{Books, PACKET, Plot, SOON, World, chance, chunked};
use e2e::testrun::processors;
use e2e::topology::{CLIENT_V4, HOST_V4, LAN, Layout, Topology};
use e2e::traffic::{Datagrams, Flow, TcpServer, Transfer, udp};
use serde_json::json;

/// Nothing delivered for so long: the gate is shut.
const SILENCE: Duration = Duration::from_millis(1500);

/// Time for a retry or a top-up with its least dwell.
const PATIENCE: Duration = Duration::from_secs(25);

/// Waits until no packet of full size fits under the package's end any more.
fn fills_up(world: &World, total: u64) -> Result<()> {
    eventually("the package to be used up", PATIENCE, || {
        let passed = world.passed(0)?;
        ensure!(passed + PACKET > total, "{passed} of {total} passed");
        Ok(())
    })
}

#[test]
fn closes_at_the_ceiling() -> Result<()> {
    chance(|random| {
        let total = random.u64(2_000_000..4_000_000);
        let mut world = World::online(&Plot::of(chunked(total, 1 << 20)))?;
        let books = Books::open(&world, 0)?;
        let server = TcpServer::start(&world.topology.internet, HOST_V4)?;
        let flow = |index| {
            let direction = if index % 2 == 0 { Uplink } else { Downlink };
            server.flow(&world.topology.client, Transfer::endless(direction, 500_000))
        };
        let flows: Vec<Flow> = (0..8).map(flow).collect::<Result<_>>()?;
        fills_up(&world, total)?;
        for flow in &flows {
            flow.stalls(SILENCE, SOON)?;
        }
        world.reaches(0, &["exhausted"])?;
        let passed = world.passed(0)?;
        ensure!(passed <= total && passed + PACKET > total, "{passed} of {total}");
        flows.into_iter().try_for_each(|flow| flow.stop().map(drop))?;
        drop(server);
        world.stop_agent()?;
        books.close(&world)?;
        let (passed, account) = (world.passed(0)?, world.account(0)?);
        account.is_settled()?;
        ensure!(passed <= total && account.debited() == passed && account.balance >= 0, "{passed}: {account:?}");
        Ok(())
    })
}

#[test]
fn renews_before_empty() -> Result<()> {
    let package = json!({ "totalVolume": 1_u64 << 30, "chunk": 2 << 20, "thresholdPercent": 40 });
    let mut world = World::online(&Plot::of(package))?;
    let books = Books::open(&world, 0)?;
    let topology = &world.topology;
    let flows = [
        udp(&topology.client, (&topology.internet, HOST_V4), Datagrams::endless(500_000, 1000))?,
        udp(&topology.internet, (&topology.client, CLIENT_V4), Datagrams::endless(500_000, 1000))?,
    ];
    for flow in &flows {
        flow.carries(4_000_000, PATIENCE)?;
    }
    for flow in flows {
        let report = flow.stop()?;
        assert_eq!((report.datagrams_delivered, report.refused), (report.datagrams_sent, 0), "{report:?}");
    }
    let counted = books.counted(&world)?;
    assert_eq!((counted.uplink.refused.packets, counted.downlink.refused.packets), (0, 0), "{counted:?}");
    world.stop_agent()?;
    books.close(&world)?;
    let account = world.account(0)?;
    account.is_settled()?;
    assert_eq!(account.debited(), world.passed(0)?);
    let grants = account.of_kind("grant").count();
    assert!(grants >= 5, "{grants} grants for 8 MB in chunks of 2 MiB: {account:?}");
    assert_eq!(account.sessions.len(), 1, "{account:?}");
    Ok(())
}

#[test]
fn far_from_the_server_a_sustained_flow_is_refused_nothing_once_its_rate_is_known() -> Result<()> {
    // A chunk lasts for a tenth of a second, and an answer takes two.
    let mut world = World::online(&Plot::of(chunked(1 << 40, 512 << 10)))?;
    let books = Books::open(&world, 0)?;
    world.delay("update", Duration::from_millis(200))?;
    let topology = &world.topology;
    let flow = udp(&topology.client, (&topology.internet, HOST_V4), Datagrams::endless(5_000_000, 1000))?;
    flow.carries(10_000_000, PATIENCE)?;
    let before = books.counted(&world)?.uplink.refused;
    flow.carries(30_000_000, PATIENCE)?;
    let report = flow.stop()?;
    let after = books.counted(&world)?.uplink.refused;
    assert_eq!(after, before, "refused");
    assert_eq!(report.datagrams_sent - report.datagrams_delivered, after.packets, "{report:?}");
    assert!(world.struck()? >= 4, "renewed {} times", world.struck()?);
    world.settles_to_the_octet(books).map(drop)
}

#[test]
fn final_unit_blocks_and_top_up_reopens() -> Result<()> {
    let total = 1_000_000;
    let mut world = World::online(&Plot::of(chunked(total, 400_000)))?;
    let books = Books::open(&world, 0)?;
    let server = TcpServer::start(&world.topology.internet, HOST_V4)?;
    let flow = server.flow(&world.topology.client, Transfer::endless(Downlink, 1_000_000))?;
    fills_up(&world, total)?;
    flow.stalls(SILENCE, SOON)?;
    world.reaches(0, &["exhausted"])?;
    assert!(world.passed(0)? <= total);
    let account = world.account(0)?;
    assert!(account.total - account.used < PACKET, "the last octets were reported: {account:?}");

    world.top_up(0, 600_000)?;
    flow.carries(200_000, PATIENCE)?;
    fills_up(&world, total + 600_000)?;
    flow.stalls(SILENCE, SOON)?;
    flow.stop()?;
    drop(server);
    world.stop_agent()?;
    books.close(&world)?;
    let account = world.account(0)?;
    account.is_settled()?;
    assert_eq!(account.debited(), world.passed(0)?, "{account:?}");
    assert!(account.debited() > total && account.balance >= 0, "{account:?}");
    Ok(())
}

#[test]
fn throttles_when_used_up() -> Result<()> {
    let (total, rate) = (500_000, 2_000_000_u128); // octets, bit/s
    let package =
        json!({ "totalVolume": total, "chunk": 250_000, "whenUsedUp": "throttle", "throttleRate": 2_000_000 });
    let mut world = World::online(&Plot::of(package))?;
    let books = Books::open(&world, 0)?;
    let client = &world.topology.client;
    let flow = udp(client, (&world.topology.internet, HOST_V4), Datagrams::endless(1_000_000, 1000))?;
    let throttled_beyond = |octets: u64| -> Result<u64> {
        eventually("octets to pass throttled", PATIENCE, || {
            let kernel = world.kernel(0)?;
            let throttled = kernel.uplink.throttled.octets + kernel.downlink.throttled.octets;
            ensure!(throttled >= octets, "{throttled}");
            Ok(throttled)
        })
    };
    let first = throttled_beyond(50_000)?;
    let since = now();
    let octets = throttled_beyond(first + 750_000)? - first;
    let measured = u128::from(octets) * 8000 / (now() - since).as_millis();
    assert!((rate * 7 / 10..rate * 12 / 10).contains(&measured), "{measured} bit/s of {rate}");
    flow.stop()?;
    books.agree(&world)?;
    world.stop_agent()?;
    books.close(&world)?;
    let (kernel, account) = (world.kernel(0)?, world.account(0)?);
    account.is_settled()?;
    assert_eq!(account.offline, kernel.uplink.throttled.octets + kernel.downlink.throttled.octets, "{account:?}");
    assert_eq!(account.debited(), world.passed(0)?, "{account:?}");
    assert!(account.debited() <= total && account.balance >= 0, "{account:?}");
    Ok(())
}

/// Talks to the charging server from the gateway until the network lets nothing through any more.
fn talks_until_cut_off(world: &World, server: SocketAddr) -> Result<u32> {
    for talk in 0..2000 {
        let answer = world.topology.gateway.run_in(|| -> std::io::Result<()> {
            let mut stream = TcpStream::connect_timeout(&server, Duration::from_millis(2500))?;
            // The server hangs up on it at some point; how much got through, the kernel counts.
            let _ = stream.write_all(&[b'x'; 4000]);
            Ok(())
        })?;
        if answer.is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut) {
            return Ok(talk);
        }
    }
    anyhow::bail!("2000 connections through a shut gate")
}

#[test]
fn control_passes_when_blocked_and_is_bounded() -> Result<()> {
    let reserve = 65_536;
    let plot = Plot::of(chunked(300_000, 150_000)).agent("control_reserve = \"64 KiB\"");
    let world = World::online(&plot)?;
    let books = Books::open(&world, 0)?;
    let topology = &world.topology;
    let flow = udp(&topology.client, (&topology.internet, HOST_V4), Datagrams::endless(300_000, 1000))?;
    world.reaches(0, &["exhausted"])?;
    let silent = flow.stalls(SILENCE, SOON)?;

    // Blocked, and yet the server hears of it and can be asked: a top-up reaches the agent, more is granted.
    world.top_up(0, 300_000)?;
    eventually("more to be delivered", PATIENCE, || {
        ensure!(flow.so_far().delivered > silent.delivered + 200_000, "{:?}", flow.so_far());
        Ok(())
    })?;
    world.reaches(0, &["exhausted"])?;
    flow.stalls(SILENCE, SOON)?;

    let control = |world: &World| -> Result<u64> {
        let kernel = world.kernel(0)?;
        Ok(kernel.uplink.control.octets + kernel.downlink.control.octets)
    };
    let before = control(&world)?;
    assert!(before > 0, "the report of the last octets went through the shut gate");
    let server = world.server.as_ref().map(|server| server.address).expect("a server");
    let talks = talks_until_cut_off(&world, server)?;
    let after = control(&world)?;
    assert!(talks > 0 && after > before, "{talks} talks, {before} octets before, {after} after");
    assert!(after <= reserve && after + 2 * PACKET > reserve, "{after} of {reserve}");
    flow.stop()?;
    books.close(&world)?;
    Ok(())
}

/// Octets of the shortest packet of [`crowd`], with its headers: what is less does not fit any of them.
const SHORTEST: u64 = 60;

/// Flows both ways at once, of short packets and of long ones: enough that each processor has some of them.
fn crowd(topology: &Topology) -> Result<Vec<Flow>> {
    let flow = |number: u16| {
        let sent = if number.is_multiple_of(3) {
            Datagrams::endless(1_000_000, 1000)
        } else {
            Datagrams::endless(100_000, 32)
        };
        if number.is_multiple_of(2) {
            udp(&topology.client, (&topology.internet, HOST_V4), sent)
        } else {
            udp(&topology.internet, (&topology.client, CLIENT_V4), sent)
        }
    };
    (0..16).map(flow).collect()
}

/// How many processors have let packets pass.
fn at_work(datapath: &Datapath) -> Result<usize> {
    let path = datapath.pins().directory().join("counters");
    let data = MapData::from_pin(&path).with_context(|| format!("open {}", path.display()))?;
    let counters: PerCpuArray<_, Counters> = Map::PerCpuArray(data).try_into()?;
    let has_worked = |one: &&Counters| one.uplink.passed.packets + one.downlink.passed.packets > 0;
    Ok(counters.get(&0, 0)?.iter().filter(has_worked).count())
}

#[test]
fn flows_on_all_processors_fill_the_gate_a_hundred_times_and_never_pass_it() -> Result<()> {
    let topology = Topology::build(&Layout::default())?;
    for interface in [LAN, "wan0"] {
        spread(&topology.gateway, interface, &processors()?)?;
    }
    let workdir = Workdir::with_bpffs("crowd")?;
    let spec = LoadSpec { link: "wan0".to_owned(), pin_root: workdir.bpf().join("weir"), retire: Vec::new() };
    topology.gateway.run_in(|| load_and_pin(&spec))??;
    let mut datapath = Datapath::open(&spec.pin_root, "wan0")?;
    topology.settle()?;
    let far = Capture::start(&topology.internet, &topology.uplinks[0].far, End::Far, Classifier::default())?;
    let flows = crowd(&topology)?;
    let mut ceiling = 0;
    for _ in 0..100 {
        ceiling += fastrand::u64(20_000..200_000);
        datapath.set_gate(&Gate { ceiling, link_type: LINK_ETHERNET, ..Gate::default() })?;
        // A packet that was refused because another one's octets were about to be given back is not lost room: a later one takes it.
        let passed = eventually("the gate to be full", PATIENCE, || {
            let Counters { uplink, downlink, .. } = datapath.read()?;
            let passed = uplink.passed.octets + downlink.passed.octets;
            ensure!(passed + SHORTEST > ceiling, "{passed} of {ceiling}");
            Ok(passed)
        })?;
        ensure!(passed <= ceiling, "{passed} of {ceiling}");
    }
    flows.into_iter().try_for_each(|flow| flow.stop().map(drop))?;
    let (wire, kernel) = (far.stop()?, datapath.read()?);
    let passed = kernel.uplink.passed.octets + kernel.downlink.passed.octets;
    ensure!(passed <= ceiling && datapath.word()?.gate == passed, "{passed} of {ceiling}, {:?}", datapath.word()?);
    // What the devices lost between the meter and the far end was judged and not captured, or captured and not judged; each other packet was
    // both, once.
    let judged = |direction: Direction, gate: Count| -> Result<()> {
        let (lost, captured) = (topology.lost_to(0, direction)?, wire.ip(direction));
        let (more, less) = if direction == Uplink { (gate, captured) } else { (captured, gate) };
        let (packets, octets) = (more.packets.wrapping_sub(less.packets), more.octets.wrapping_sub(less.octets));
        ensure!(
            lost.contains(&packets) && (packets * SHORTEST..=packets * PACKET).contains(&octets),
            "{direction:?}: {lost:?} lost, {wire:?} {kernel:?}"
        );
        Ok(())
    };
    let sum = |tallies: &[Tally]| tallies.iter().map(|&Tally { octets, packets }| Count { packets, octets }).sum();
    judged(Uplink, sum(&[kernel.uplink.passed]))?;
    judged(Downlink, sum(&[kernel.downlink.passed, kernel.downlink.refused]))?;
    ensure!(at_work(&datapath)? >= processors()?.len().min(2), "one processor did it all");
    Ok(())
}
