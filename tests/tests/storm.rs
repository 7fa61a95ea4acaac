//! Everything at once, by chance: agent and server die, answers are lost, mangled or late, and the bill is right all the same.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::Direction::{Downlink, Uplink};
use e2e::eventually::eventually;
use e2e::scenario::{Books, Plot, RECORDED, World, chance, chunked, meanwhile};
use e2e::topology::{CLIENT_V4, HOST_V4, HOST_V6};
use e2e::traffic::{Datagrams, Flow, TcpServer, Transfer, udp};
use serde_json::json;

/// Time for retries whose back-off has grown.
const PATIENCE: Duration = Duration::from_mins(1);

/// One SIM with plenty, in chunks that are asked for every other second.
fn plot() -> Plot {
    Plot::of(chunked(1 << 30, 2 << 20)).agent("shutdown_wait = \"1min\"")
}

/// Traffic of both kinds in both directions.
struct Traffic {
    flows: Vec<Flow>,
    _server: TcpServer,
}

impl Traffic {
    fn start(world: &World) -> Result<Self> {
        let (client, internet) = (&world.topology.client, &world.topology.internet);
        let server = TcpServer::start(internet, HOST_V6)?;
        let flows = vec![
            udp(client, (internet, HOST_V4), Datagrams::endless(300_000, 1000))?,
            udp(internet, (client, CLIENT_V4), Datagrams::endless(300_000, 700))?,
            server.flow(client, Transfer::endless(Downlink, 400_000))?,
            server.flow(client, Transfer::endless(Uplink, 200_000))?,
        ];
        Ok(Self { flows, _server: server })
    }

    /// Waits until datagrams flow again as they did before, then ends it all.
    fn flows_again_and_ends(self) -> Result<()> {
        let before = self.flows[0].so_far().delivered;
        eventually("traffic under the last agent", PATIENCE, || {
            ensure!(self.flows[0].so_far().delivered > before + 500_000, "{:?}", self.flows[0].so_far());
            Ok(())
        })?;
        self.flows.into_iter().try_for_each(|flow| flow.stop().map(drop))
    }
}

/// The wire and the kernel agree, the agent settles, the server has debited just that, and what all the agents did is done again.
fn settles_to_the_octet(mut world: World, books: Books) -> Result<()> {
    books.agree(&world)?;
    ensure!(world.status()?["ledger_drift_octets"] == 0, "{}", world.status()?);
    let agent = world.agent.take();
    let status = agent.map(|mut agent| agent.actor.terminate(PATIENCE)).transpose()?;
    ensure!(status.is_some_and(|status| status.success()), "{status:?}");
    books.close(&world)?;
    let (kernel, account) = (world.kernel(0)?, world.account(0)?);
    account.is_settled()?;
    let (up, down) = (kernel.uplink.passed.octets, kernel.downlink.passed.octets);
    ensure!((account.uplink, account.downlink) == (up, down), "{up} up, {down} down passed: {account:?}");
    world.is_replayed_alike()
}

#[test]
fn survives_kill_minus_nine() -> Result<()> {
    chance(|random| {
        let mut world = World::online_with(&plot(), &RECORDED)?;
        let books = Books::open(&world, 0)?;
        let traffic = Traffic::start(&world)?;
        for _ in 0..5 {
            meanwhile(Duration::from_millis(random.u64(0..1500)))?;
            world.kill_agent()?;
            meanwhile(Duration::from_millis(random.u64(0..500)))?;
            world.start_agent(&RECORDED)?;
        }
        traffic.flows_again_and_ends()?;
        settles_to_the_octet(world, books)
    })
}

/// One thing that goes wrong.
fn strike(world: &mut World, random: &mut fastrand::Rng) -> Result<()> {
    match random.u32(0..8) {
        0 | 1 => {
            world.kill_agent()?;
            meanwhile(Duration::from_millis(random.u64(0..300)))?;
            world.start_agent(&RECORDED)
        }
        2 => {
            let address = world.kill_server()?;
            meanwhile(Duration::from_millis(random.u64(0..600)))?;
            world.restart_server(address)
        }
        _ => {
            let faults = ["drop-request", "drop-answer", "garbage", "duplicate", "restart", "status", "delay-ms"];
            let rule = json!({
                "kind": "any", "fault": faults[random.usize(..faults.len())], "times": random.u32(1..=2),
                "after": random.u32(0..2), "status": 503, "delayMs": random.u64(1..1500),
            });
            world.admin.put("/admin/v1/faults", &json!({ "rules": [rule] })).map(drop)
        }
    }
}

#[test]
fn a_storm_of_faults_and_kills_costs_nobody_an_octet() -> Result<()> {
    chance(|random| {
        let mut world = World::online_with(&plot(), &RECORDED)?;
        let books = Books::open(&world, 0)?;
        let traffic = Traffic::start(&world)?;
        for _ in 0..8 {
            strike(&mut world, random)?;
            meanwhile(Duration::from_millis(random.u64(0..1500)))?;
        }
        world.admin.delete("/admin/v1/faults")?;
        traffic.flows_again_and_ends()?;
        settles_to_the_octet(world, books)
    })
}
