//! What the client does all the time: TCP and UDP, both ways, IPv4 and IPv6, on every metered link; begun anew whenever it breaks.

use std::time::Duration;

use anyhow::Result;

use crate::Direction::{self, Downlink, Uplink};
use crate::clock::Deadline;
use crate::scenario::World;
use crate::topology::{CLIENT_V4, HOST_V6};
use crate::traffic::{Datagrams, Flow, TcpServer, Transfer, udp};

/// A flow that broke is not begun anew more often than this.
const AGAIN: Duration = Duration::from_millis(500);

/// Who talks to whom.
#[derive(Debug, Clone, Copy)]
enum Talk {
    /// TCP between the client and one of the servers.
    Tcp { server: usize, direction: Direction, rate: u64 },
    /// Datagrams from the client to the far end of a link.
    UdpUp { link: usize, rate: u64, payload: u16 },
    /// Datagrams from the host in the internet to the client, over the preferred link.
    UdpDown { rate: u64, payload: u16 },
}

/// All flows.
pub(super) struct Traffic {
    flows: Vec<(Talk, Option<Flow>)>,
    servers: Vec<TcpServer>,
    next_try: Deadline,
    /// No flow lasts longer.
    limit: Duration,
    /// How often one was begun anew.
    pub(super) restarts: u64,
}

impl Traffic {
    /// Begins; each metered link carries some Mbit/s.
    pub(super) fn start(world: &World, metered: usize, limit: Duration) -> Result<Self> {
        let internet = &world.topology.internet;
        let mut servers = vec![TcpServer::start(internet, HOST_V6)?];
        let mut talks = vec![
            Talk::Tcp { server: 0, direction: Downlink, rate: 60_000 },
            Talk::UdpDown { rate: 40_000, payload: 700 },
        ];
        for (link, uplink) in world.topology.uplinks.iter().enumerate().take(metered) {
            let (v4, v6) = (servers.len(), servers.len() + 1);
            servers.push(TcpServer::start(internet, uplink.far_v4)?);
            servers.push(TcpServer::start(internet, uplink.far_v6)?);
            talks.push(Talk::Tcp { server: v4, direction: Downlink, rate: 100_000 });
            talks.push(Talk::Tcp { server: v6, direction: Uplink, rate: 60_000 });
            talks.push(Talk::UdpUp { link, rate: 50_000, payload: 900 });
        }
        let flows = talks.into_iter().map(|talk| (talk, None)).collect();
        let mut traffic = Self { flows, servers, next_try: Deadline::after(Duration::ZERO), limit, restarts: 0 };
        traffic.mend(world);
        traffic.restarts = 0;
        Ok(traffic)
    }

    /// Begins anew what has ended by itself: a connection whose link went away, a sender without a route.
    pub(super) fn mend(&mut self, world: &World) {
        if !self.next_try.passed() {
            return;
        }
        self.next_try = Deadline::after(AGAIN);
        for (talk, flow) in &mut self.flows {
            if flow.as_ref().is_some_and(|flow| !flow.finished()) {
                continue;
            }
            // How it ended is of no interest: what it carried has been counted on the wire.
            drop(flow.take());
            // While a link is away its addresses are, too.
            *flow = begin(world, &self.servers, *talk, self.limit).ok();
            self.restarts += u64::from(flow.is_some());
        }
    }

    /// Ends it all.
    pub(super) fn stop(self) {
        for (_, flow) in self.flows {
            // A broken connection is no error: it was treated badly.
            let _ = flow.map(Flow::stop);
        }
    }
}

fn begin(world: &World, servers: &[TcpServer], talk: Talk, limit: Duration) -> Result<Flow> {
    let (client, internet) = (&world.topology.client, &world.topology.internet);
    let datagrams = |rate, payload| Datagrams { limit, ..Datagrams::endless(rate, payload) };
    match talk {
        Talk::Tcp { server, direction, rate } => {
            servers[server].flow(client, Transfer::endless(direction, rate).within(limit))
        }
        Talk::UdpUp { link, rate, payload } => {
            udp(client, (internet, world.topology.uplinks[link].far_v4), datagrams(rate, payload))
        }
        Talk::UdpDown { rate, payload } => udp(internet, (client, CLIENT_V4), datagrams(rate, payload)),
    }
}
