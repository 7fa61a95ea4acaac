//! What the scenarios of this file ask of a link, and tell the server.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::Direction::{Downlink, Uplink};
use e2e::clock;
use e2e::eventually::eventually;
use e2e::scenario::{Books, PACKET, SOON, World, subscriber};
use e2e::traffic::{TcpServer, Transfer};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

/// Nothing delivered for so long: the gate is shut.
pub(crate) const SILENCE: Duration = Duration::from_millis(1500);

/// Time for retries and the least dwell.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Octets of each package; used up within two seconds.
pub(crate) const TOTAL: u64 = 300_000;

/// Octets a second.
pub(crate) const RATE: u64 = 300_000;

/// A small package with these members besides.
pub(crate) fn ending(members: &Value) -> Value {
    let mut package = json!({ "totalVolume": TOTAL, "chunk": TOTAL / 2 });
    for (name, value) in members.as_object().into_iter().flatten() {
        package[name] = value.clone();
    }
    package
}

/// Rules by which everything between the client and this far end passes.
pub(crate) fn to_and_from(far: IpAddr) -> [String; 2] {
    [format!("permit in ip from any to {far}"), format!("permit out ip from {far} to assigned")]
}

/// The far end of the first uplink, to which nothing of the stream goes, in both families.
pub(crate) const FAR: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1))];

/// Carries so many octets both ways between the client and a server at this far end.
pub(crate) fn is_carried(world: &World, far: IpAddr, octets: u64) -> Result<()> {
    let server = TcpServer::start(&world.topology.internet, far)?;
    for direction in [Downlink, Uplink] {
        let report = server.transfer(&world.topology.client, Transfer::of(direction, octets).within(SOON))?;
        ensure!(report.delivered == octets, "{report:?}");
    }
    Ok(())
}

/// Fails unless whoever connects to this far end hears that it is prohibited.
pub(crate) fn is_refused(world: &World, far: IpAddr) -> Result<()> {
    // Nobody listens there: whoever came through would hear another word.
    is_refused_at(world, SocketAddr::new(far, 9))
}

/// The same of one port at which nobody listens.
pub(crate) fn is_refused_at(world: &World, address: SocketAddr) -> Result<()> {
    // Waits in the system call, which answers with the error itself: to be told that there is one, and then to ask for it, can be too late.
    let connect = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_write_timeout(Some(SOON))?;
        socket.connect(&address.into())
    };
    for _ in 0..MOST_CONNECTS {
        match world.topology.client.run_in(connect)? {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
            outcome => return is_prohibited(address, outcome),
        }
    }
    bail!("{address} was reached {MOST_CONNECTS} times")
}

/// A link is used up when a packet does not fit any more: in what is left, less than that packet, a SYN and the word that nobody listens
/// (100 octets) still find room a few times.
const MOST_CONNECTS: u64 = 2 + PACKET / 100;

/// When whoever has heard nothing asks again.
const AGAIN: Duration = Duration::from_millis(200);

/// The same for whoever asks by UDP.
pub(crate) fn is_refused_to_ask(world: &World, far: IpAddr) -> Result<()> {
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
pub(crate) fn now_says(world: &World, indication: &Value) -> Result<()> {
    let patch = json!({ "multipleUnitInformation": { "finalUnitIndication": indication } });
    let rule = json!({ "kind": "update", "fault": "rewrite", "patch": patch, "times": 100_000 });
    world.admin.put("/admin/v1/faults", &json!({ "rules": [rule] }))?;
    order(world, "REAUTHORISE")
}

/// From now on the server has no package of this SIM any more, and asks the agent to listen.
pub(crate) fn now_withdraws(world: &World) -> Result<()> {
    let information = json!({
        "resultCode": "RATING_FAILED",
        "grantedUnit": { "totalVolume": 0 },
        "validityTime": null,
        "volumeQuotaThreshold": null,
        "finalUnitIndication": { "finalUnitAction": "TERMINATE" },
    });
    let patch = json!({ "multipleUnitInformation": information });
    let rule = json!({ "kind": "update", "fault": "rewrite", "patch": patch, "times": 100_000 });
    world.admin.put("/admin/v1/faults", &json!({ "rules": [rule] }))?;
    order(world, "REAUTHORISE")
}

pub(crate) fn order(world: &World, command: &str) -> Result<()> {
    let command = json!({ "deviceId": "gw-1", "command": command, "subscriberIdentifier": subscriber(0) });
    world.admin.post("/admin/v1/commands", &command).map(drop)
}

/// Waits until the status of the link explains itself with these words.
pub(crate) fn explains(world: &World, words: &str) -> Result<()> {
    eventually(&format!("the status to say {words:?}"), PATIENCE, || {
        let link = world.link_status("wan0")?;
        ensure!(link["explanation"].as_str().is_some_and(|said| said.contains(words)), "{link}");
        Ok(())
    })
}

/// Settles; what passed outside the quota was told to the server to the octet, and none of it was debited.
pub(crate) fn settles(mut world: World, books: Books, packages: u64) -> Result<()> {
    let account = world.settles_to_the_octet(books)?;
    let kernel = world.kernel(0)?;
    let beyond = kernel.uplink.throttled.octets + kernel.downlink.throttled.octets;
    ensure!(account.offline == beyond, "{beyond} passed outside the quota: {account:?}");
    ensure!(account.debited() <= packages && account.balance >= 0, "{account:?}");
    Ok(())
}

/// Exchanges an octet with a host at this port of this far end.
pub(crate) fn is_reached_at(world: &World, far: IpAddr, port: u16) -> Result<()> {
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

/// Waits until a host behind the gateway is told this by the captive portal API (RFC 8908) at this address.
pub(crate) fn captives_hear(world: &World, address: SocketAddr, expected: &Value) -> Result<()> {
    eventually(&format!("hosts to be told {expected}"), PATIENCE, || {
        let told = told_to_captives(world, address)?;
        ensure!(told == *expected, "{told}");
        Ok(())
    })
}

/// Waits until it is told that traffic passes, and how much more of so many octets may: of them only the agent's own have passed.
pub(crate) fn captives_hear_what_is_left(world: &World, address: SocketAddr, octets: u64) -> Result<()> {
    eventually("hosts to be told what is left", PATIENCE, || {
        let told = told_to_captives(world, address)?;
        let left = told["bytes-remaining"].as_u64().with_context(|| told.to_string())?;
        ensure!(told["captive"] == false && (octets / 2..=octets).contains(&left), "{told}");
        Ok(())
    })
}

fn told_to_captives(world: &World, address: SocketAddr) -> Result<Value> {
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, SOON)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(b"GET /captive-portal/api HTTP/1.1\r\nHost: portal.example\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = world.topology.client.run_in(ask)??;
    let (head, body) = answer.split_once("\r\n\r\n").context("an answer of two parts")?;
    ensure!(head.starts_with("HTTP/1.1 200 ") && head.contains("application/captive+json"), "{answer}");
    Ok(serde_json::from_str(body)?)
}
