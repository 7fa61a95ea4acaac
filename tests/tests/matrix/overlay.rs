//! Cells of a real VXLAN between the client and a host, whose packets cross the metered link.

use agent_common::Tally;
use anyhow::Result;
use e2e::Direction::{self, Downlink, Uplink};
use e2e::netns::Namespace;
use e2e::offload::Switch;
use e2e::topology::{CLIENT_V4, HOST_V4, Medium};
use e2e::traffic::{TcpServer, Transfer};

use crate::{Link, table::Table};

const TRANSFER: u64 = 400_000;
const RATE: u64 = 8_000_000;

/// The address of a host in the overlay.
const INSIDE: &str = "10.77.0.1";

pub(crate) fn play(link: &Link, direction: Direction, table: &mut Table) -> Result<()> {
    let (client, internet) = (&link.topology.client, &link.topology.internet);
    if direction == Uplink {
        let ends = (CLIENT_V4.to_string(), HOST_V4.to_string());
        vxlan(client, (&ends.0, &ends.1), ("10.77.0.2", INSIDE), 1)?;
        vxlan(internet, (&ends.1, &ends.0), (INSIDE, "10.77.0.2"), 2)?;
    }
    let row = link.cell("TCP in VXLAN, carried", direction, || tcp(link, client, direction))?;
    // What is received may be merged as the datagrams that it is, or not: nobody on the gateway knows the tunnel.
    if link.merging == Switch::On && direction == Uplink {
        table.add_merged(row);
    } else {
        table.add(row);
    }
    Ok(())
}

/// The end of an overlay with the tunnel's addresses (here, there) and those inside it.
fn vxlan(namespace: &Namespace, outer: (&str, &str), inner: (&str, &str), end: u8) -> Result<()> {
    let (here, there) = outer;
    let other = 3 - end;
    namespace.ip_batch(&format!(
        "link add vx0 address 02:00:00:00:77:0{end} type vxlan id 42 local {here} remote {there} dstport 4789 nolearning\n\
         addr add {}/24 dev vx0\nlink set vx0 mtu 1400 up\n\
         neigh replace {} lladdr 02:00:00:00:77:0{other} dev vx0 nud permanent\n",
        inner.0, inner.1
    ))
}

fn tcp(link: &Link, client: &Namespace, direction: Direction) -> Result<Option<Tally>> {
    let server = TcpServer::start(&link.topology.internet, INSIDE.parse()?)?;
    server.transfer(client, Transfer { rate: Some(RATE), ..Transfer::of(direction, TRANSFER) })?;
    Ok(None)
}

/// A tunnel of the gateway's own is where the kernel merges what came through it before anybody has taken the outer headers off.
#[test]
fn a_tunnel_that_ends_on_the_gateway_is_counted_with_all_its_headers() -> Result<()> {
    let link = Link::build(Medium::Veth, Switch::On)?;
    let (gateway, internet) = (link.topology.gateway.clone(), link.topology.internet.clone());
    let uplink = &link.topology.uplinks[0];
    let ends = (uplink.near_v4.to_string(), uplink.far_v4.to_string());
    vxlan(&gateway, (&ends.0, &ends.1), ("10.77.0.2", INSIDE), 1)?;
    vxlan(&internet, (&ends.1, &ends.0), (INSIDE, "10.77.0.2"), 2)?;
    let mut table = Table::new("VXLAN of the gateway's own".to_owned());
    for direction in [Uplink, Downlink] {
        let row = link.cell("TCP in VXLAN", direction, || tcp(&link, &gateway, direction))?;
        // What the gateway sends is cut behind the hook, so that nobody here receives it whole.
        if direction == Downlink { table.add_merged(row) } else { table.add(row) }
    }
    link.far.stop()?;
    table.close()
}
