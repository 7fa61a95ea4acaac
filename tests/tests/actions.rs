//! What becomes of a used-up link: what the server and the configuration permit passes, told apart and never debited, whoever sends the rest
//! hears of it, and each action can be changed and ended at any moment.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::Direction::{Downlink, Uplink};
use e2e::clock;
use e2e::eventually::eventually;
use e2e::scenario::{Books, Plot, SOON, World, subscriber};
use e2e::topology::{HOST_V4, HOST_V6};
use e2e::traffic::{TcpServer, Transfer};
use serde_json::{Value, json};

/// Nothing delivered for so long: the gate is shut.
const SILENCE: Duration = Duration::from_millis(1500);

/// Time for retries and the least dwell.
const PATIENCE: Duration = Duration::from_secs(30);

/// Octets of each package; used up within two seconds.
const TOTAL: u64 = 300_000;

/// Octets a second.
const RATE: u64 = 300_000;

/// A small package with these members besides.
fn ending(members: &Value) -> Value {
    let mut package = json!({ "totalVolume": TOTAL, "chunk": TOTAL / 2 });
    for (name, value) in members.as_object().into_iter().flatten() {
        package[name] = value.clone();
    }
    package
}

/// Rules by which everything between the client and this far end passes.
fn to_and_from(far: IpAddr) -> [String; 2] {
    [format!("permit in ip from any to {far}"), format!("permit out ip from {far} to assigned")]
}

/// The far end of the first uplink, to which nothing of the stream goes, in both families.
const FAR: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1))];

/// Carries so many octets both ways between the client and a server at this far end.
fn is_carried(world: &World, far: IpAddr, octets: u64) -> Result<()> {
    let server = TcpServer::start(&world.topology.internet, far)?;
    for direction in [Downlink, Uplink] {
        let report = server.transfer(&world.topology.client, Transfer::of(direction, octets).within(SOON))?;
        ensure!(report.delivered == octets, "{report:?}");
    }
    Ok(())
}

/// Fails unless whoever connects to this far end hears that it is prohibited.
fn is_refused(world: &World, far: IpAddr) -> Result<()> {
    let server = TcpServer::start(&world.topology.internet, far)?;
    let address = server.address();
    let connect = || TcpStream::connect_timeout(&address, SOON).map(drop);
    // A link is used up when the next packet of the stream does not fit. What is left then is paid for, and carries who is small enough.
    for _ in 0..STILL_FIT {
        let outcome = world.topology.client.run_in(connect)?;
        if outcome.is_err() {
            return is_prohibited(address, outcome);
        }
    }
    bail!("{address} was reached {STILL_FIT} times")
}

/// Into the room for a packet of the stream, 1500 octets at the most, no more beginnings of connections fit: each takes 40 octets or more.
const STILL_FIT: usize = 1500 / 40;

/// When whoever has heard nothing asks again.
const AGAIN: Duration = Duration::from_millis(200);

/// The same for whoever asks by UDP.
fn is_refused_to_ask(world: &World, far: IpAddr) -> Result<()> {
    let address = SocketAddr::new(far, 9);
    let ask = || {
        let any: IpAddr = if far.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(AGAIN))?;
        // Whoever asks by datagrams asks again; the answers are few on purpose.
        let until = clock::now() + SOON;
        loop {
            socket.send(b"?")?;
            match socket.recv(&mut [0; 8]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock && clock::now() < until => {}
                heard => return heard.map(drop),
            }
        }
    };
    is_prohibited(address, world.topology.client.run_in(ask)?)
}

/// How Linux says "communication administratively prohibited" to a socket; a time-out would be another error.
fn is_prohibited(address: SocketAddr, outcome: io::Result<()>) -> Result<()> {
    let expected = if address.is_ipv4() { ErrorKind::HostUnreachable } else { ErrorKind::PermissionDenied };
    let error = outcome.err().with_context(|| format!("{address} was reached"))?;
    ensure!(error.kind() == expected, "{address}: {error}");
    Ok(())
}

/// From now on the server says this with the end of its units, and asks the agent to listen.
fn now_says(world: &World, indication: &Value) -> Result<()> {
    let patch = json!({ "multipleUnitInformation": { "finalUnitIndication": indication } });
    let rule = json!({ "kind": "update", "fault": "rewrite", "patch": patch, "times": 100_000 });
    world.admin.put("/admin/v1/faults", &json!({ "rules": [rule] }))?;
    order(world, "REAUTHORISE")
}

fn order(world: &World, command: &str) -> Result<()> {
    let command = json!({ "deviceId": "gw-1", "command": command, "subscriberIdentifier": subscriber(0) });
    world.admin.post("/admin/v1/commands", &command).map(drop)
}

/// Waits until the status of the link explains itself with these words.
fn explains(world: &World, words: &str) -> Result<()> {
    eventually(&format!("the status to say {words:?}"), PATIENCE, || {
        let link = world.link_status("wan0")?;
        ensure!(link["explanation"].as_str().is_some_and(|said| said.contains(words)), "{link}");
        Ok(())
    })
}

/// Settles; what passed outside the quota was told to the server to the octet, and none of it was debited.
fn settles(mut world: World, books: Books, packages: u64) -> Result<()> {
    let account = world.settles_to_the_octet(books)?;
    let kernel = world.kernel(0)?;
    let beyond = kernel.uplink.throttled.octets + kernel.downlink.throttled.octets;
    ensure!(account.offline == beyond, "{beyond} passed outside the quota: {account:?}");
    ensure!(account.debited() <= packages && account.balance >= 0, "{account:?}");
    Ok(())
}

#[test]
fn a_restricted_link_carries_what_the_server_permits_and_its_word_counts_at_any_moment() -> Result<()> {
    let [v4, v6] = FAR;
    let rules: Vec<String> = [v4, v6].into_iter().flat_map(to_and_from).collect();
    let plot = Plot::of(ending(&json!({ "finalUnitAction": "RESTRICT_ACCESS", "restrictionFilterRules": rules })));
    let world = World::online(&plot)?;
    let (books, flow) = world.under_traffic(RATE, 1000)?;
    world.reaches(0, &["exhausted"])?;
    explains(&world, "only what the filters permit")?;
    flow.stalls(SILENCE, SOON)?;
    for far in [v4, v6] {
        is_carried(&world, far, 100_000)?;
    }
    // It takes all of it back, then permits some of it, then says what nobody can follow, then what it said at first.
    now_says(&world, &json!({ "finalUnitAction": "TERMINATE" }))?;
    explains(&world, "traffic is blocked")?;
    is_refused(&world, v6)?;
    now_says(&world, &json!({ "restrictionFilterRuleList": to_and_from(v6) }))?;
    explains(&world, "only what the filters permit")?;
    is_refused(&world, v4)?;
    is_carried(&world, v6, 10_000)?;
    now_says(&world, &json!({ "restrictionFilterRule": "permit in 6 from any to any established" }))?;
    explains(&world, "\"established\" is not supported")?;
    is_refused(&world, v6)?;
    world.admin.delete("/admin/v1/faults")?;
    order(&world, "REAUTHORISE")?;
    explains(&world, "only what the filters permit")?;
    is_carried(&world, v4, 10_000)?;

    world.top_up(0, TOTAL)?;
    flow.carries(TOTAL / 4, PATIENCE)?;
    world.reaches(0, &["exhausted"])?;
    is_carried(&world, v4, 10_000)?;
    flow.stop()?;
    settles(world, books, 2 * TOTAL)
}

#[test]
fn hosts_behind_a_used_up_link_hear_of_it_at_once_and_connect_after_a_top_up() -> Result<()> {
    let world = World::online(&Plot::of(ending(&json!({}))))?;
    let (books, flow) = world.under_traffic(RATE, 1000)?;
    world.reaches(0, &["exhausted"])?;
    // Whoever goes on sending takes nothing from those who ask once.
    for far in [HOST_V4, HOST_V6] {
        is_refused(&world, far)?;
    }
    flow.stop()?;
    for far in [HOST_V4, HOST_V6] {
        is_refused_to_ask(&world, far)?;
    }
    world.top_up(0, TOTAL)?;
    world.reaches(0, &["active", "renewing", "final"])?;
    for far in [HOST_V4, HOST_V6] {
        is_carried(&world, far, 10_000)?;
    }
    // The answers went out where the packets came in: the books know of none.
    settles(world, books, 2 * TOTAL)
}

#[test]
fn a_used_up_link_leads_to_the_portal_until_the_server_or_a_top_up_ends_it() -> Result<()> {
    let [v4, v6] = FAR;
    let portal = |address: &str| json!({ "redirectAddressType": "URL", "redirectServerAddress": address });
    let first = portal(&format!("http://{v4}:8080/buy"));
    let plot = Plot::of(ending(&json!({ "finalUnitAction": "REDIRECT", "redirectServer": first })));
    let world = World::online(&plot)?;
    let (books, flow) = world.under_traffic(RATE, 1000)?;
    world.reaches(0, &["exhausted"])?;
    explains(&world, "only the portal")?;
    flow.stalls(SILENCE, SOON)?;
    is_reached_at(&world, v4, 8080)?;
    is_reached_at(&world, v4, 443)?;
    is_refused(&world, v6)?;
    // Another portal, then none, then the first one again.
    now_says(&world, &json!({ "finalUnitAction": "REDIRECT", "redirectServer": portal(&format!("https://[{v6}]/")) }))?;
    explains(&world, &format!("only the portal https://[{v6}]/"))?;
    is_reached_at(&world, v6, 443)?;
    is_refused(&world, v4)?;
    now_says(&world, &json!({ "finalUnitAction": "TERMINATE" }))?;
    explains(&world, "traffic is blocked")?;
    is_refused(&world, v6)?;
    world.admin.delete("/admin/v1/faults")?;
    order(&world, "REAUTHORISE")?;
    explains(&world, "only the portal")?;
    is_reached_at(&world, v4, 8080)?;

    world.top_up(0, TOTAL)?;
    flow.carries(TOTAL / 4, PATIENCE)?;
    world.reaches(0, &["exhausted"])?;
    is_reached_at(&world, v4, 8080)?;
    flow.stop()?;
    settles(world, books, 2 * TOTAL)
}

/// Exchanges an octet with a host at this port of this far end.
fn is_reached_at(world: &World, far: IpAddr, port: u16) -> Result<()> {
    let address = SocketAddr::new(far, port);
    let listener = world.topology.internet.run_in(|| TcpListener::bind(address))??;
    let exchange = || -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&address, SOON)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(b"?")?;
        stream.read_exact(&mut [0])
    };
    let echo = std::thread::spawn(move || -> io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(SOON))?;
        let mut octet = [0];
        stream.read_exact(&mut octet)?;
        stream.write_all(&octet)
    });
    world.topology.client.run_in(exchange)?.with_context(|| format!("reaching {address}"))?;
    echo.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).with_context(|| format!("at {address}"))
}
