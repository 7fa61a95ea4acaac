//! One world of a scenario: topology, charging server, packages and agent, with the verbs a story needs.

mod account;
mod books;
mod plot;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use agent::datapath::Datapath;
use agent_common::Counters;
use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

pub use self::account::Account;
pub use self::books::{Books, Crossed};
use self::plot::{ADMIN, Certificates};
pub use self::plot::{Plot, Transport, chunked, iccid, package, subscriber};
use crate::bpffs::Workdir;
use crate::clock::Deadline;
use crate::eventually::eventually;
use crate::http::Client;
use crate::process::{Weir, WeirServer, binary};
use crate::topology::Topology;

/// How long anything may take that is expected to happen soon.
pub const SOON: Duration = Duration::from_secs(15);

/// What may be used of a shut gate's last octets, and no packet of full size fits any more.
pub const PACKET: u64 = 1500;

/// A scenario in progress. Dropping it ends and removes everything.
#[derive(Debug)]
pub struct World {
    /// The agent, once it was started.
    pub agent: Option<Weir>,
    /// The server, unless it is down.
    pub server: Option<WeirServer>,
    /// The server's administration, from beyond the metered links.
    pub admin: Client,
    /// Namespaces and links.
    pub topology: Topology,
    /// The files of both programs, and the pins.
    pub workdir: Workdir,
    /// The agent's configuration.
    pub config: PathBuf,
    server_args: Vec<String>,
}

impl World {
    /// Builds it all but the agent: links, a running server, SIMs, and a package for each.
    pub fn build(plot: &Plot) -> Result<Self> {
        let workdir = Workdir::with_bpffs("scene")?;
        let topology = Topology::build(&plot.layout)?;
        let mut server_args: Vec<String> =
            ["--database", "server.db", "--admin-token", ADMIN, "--open-registration", "--allow-faults"]
                .map(String::from)
                .into();
        server_args.extend_from_slice(&plot.server_args);
        let mut plot = plot.clone();
        let mut authority = None;
        if plot.transport == Transport::Tls {
            let made = Certificates::make(&plot.host.to_string())?;
            workdir.write("ca.pem", &made.authority)?;
            workdir.write("server.pem", &made.certificate)?;
            workdir.write("server.key", &made.key)?;
            server_args.extend(["--tls-cert", "server.pem", "--tls-key", "server.key"].map(String::from));
            plot.server.push_str("tls_ca = \"ca.pem\"\n");
            authority = Some(made.authority);
        }
        let listen = SocketAddr::new(plot.host, 0);
        let server = serve(&topology, &workdir, &server_args, listen)?;
        let mut admin = Client::new(&topology.internet, &server.url, ADMIN);
        if let Some(authority) = authority {
            admin = admin.trusting(&authority);
        }
        let config = workdir.write("weir.toml", &plot.config(&server.url, &workdir))?;
        let world = Self { agent: None, server: Some(server), admin, topology, workdir, config, server_args };
        for (sim, package) in plot.packages.iter().enumerate() {
            world.sell(sim, package)?;
        }
        Ok(world)
    }

    /// The same with the agent on every link: each has units, or waits where the server gives none.
    pub fn online(plot: &Plot) -> Result<Self> {
        let mut world = Self::build(plot)?;
        world.start_agent(&[])?;
        for link in 0..world.topology.uplinks.len() {
            world.reaches(link, &["active", "renewing", "final"])?;
        }
        Ok(world)
    }

    /// Starts the agent; what is to be waited for, the scenario knows.
    pub fn start_agent(&mut self, args: &[&str]) -> Result<()> {
        ensure!(self.agent.is_none(), "one agent at a time");
        self.agent = Some(Weir::start(&self.topology.gateway, &self.workdir, &self.config, args)?);
        Ok(())
    }

    /// Kills the agent as a crash would.
    pub fn kill_agent(&mut self) -> Result<()> {
        self.agent.take().context("no agent to kill")?.actor.kill().map(drop)
    }

    /// Asks the agent to end, and waits until it has, well.
    pub fn stop_agent(&mut self) -> Result<()> {
        let status = self.agent.take().context("no agent to stop")?.actor.terminate(SOON)?;
        ensure!(status.success(), "the agent ended with {status}");
        Ok(())
    }

    /// Kills the server as a crash would.
    pub fn kill_server(&mut self) -> Result<SocketAddr> {
        let mut server = self.server.take().context("no server to kill")?;
        server.actor.kill()?;
        Ok(server.address)
    }

    /// Starts the server again on its old database and its old port.
    pub fn restart_server(&mut self, address: SocketAddr) -> Result<()> {
        self.server = Some(serve(&self.topology, &self.workdir, &self.server_args, address)?);
        Ok(())
    }

    /// What the kernel has counted on a link, whether or not an agent runs.
    pub fn kernel(&self, link: usize) -> Result<Counters> {
        self.datapath(&self.topology.uplinks[link].near)?.read()
    }

    /// The pinned meter of a link.
    pub fn datapath(&self, link: &str) -> Result<Datapath> {
        Datapath::open(&plot::pin_root(&self.workdir), link)
    }

    /// Octets that have passed under the ceilings of a link, both directions.
    pub fn passed(&self, link: usize) -> Result<u64> {
        let kernel = self.kernel(link)?;
        Ok(kernel.uplink.passed.octets + kernel.downlink.passed.octets)
    }

    /// Runs `weir status ARGS` against this agent.
    pub fn weir_status(&self, args: &[&str]) -> Result<Output> {
        let mut command = std::process::Command::new(binary("weir")?);
        command.args(["status", "--socket"]).arg(self.workdir.path().join("weir.sock")).args(args);
        command.output().context("run weir status")
    }

    /// The agent's status.
    pub fn status(&self) -> Result<Value> {
        let output = self.weir_status(&["--json"])?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).context("the status is no JSON")
    }

    /// The status of one link.
    pub fn link_status(&self, name: &str) -> Result<Value> {
        let status = self.status()?;
        let links = status["links"].as_array().context("links")?;
        let found = links.iter().find(|link| link["link"] == name);
        found.cloned().with_context(|| format!("no {name} in {status}"))
    }

    /// Waits until the credit session of a link is in one of these states.
    pub fn reaches(&self, link: usize, states: &[&str]) -> Result<Value> {
        let name = &self.topology.uplinks[link].near;
        eventually(&format!("{name} to be one of {states:?}"), SOON, || {
            let link = self.link_status(name)?;
            let state = link["state"].as_str().unwrap_or_default();
            ensure!(states.contains(&state) && link["metered"] == true, "{link}");
            Ok(link)
        })
    }

    /// Gives the server a SIM and sells it a package.
    pub fn sell(&self, sim: usize, package: &Value) -> Result<()> {
        let subscriber = subscriber(sim);
        self.admin.post("/admin/v1/sims", &json!({ "iccid": iccid(sim), "subscriberIdentifier": subscriber }))?;
        let mut purchase = package.clone();
        purchase["subscriberIdentifier"] = subscriber.into();
        self.admin.post("/admin/v1/purchases", &purchase).map(drop)
    }

    /// Adds octets to the package of a SIM.
    pub fn top_up(&self, sim: usize, octets: u64) -> Result<()> {
        let top_up = json!({ "subscriberIdentifier": subscriber(sim), "octets": octets });
        self.admin.post("/admin/v1/top-ups", &top_up).map(drop)
    }

    /// Has requests of this kind go wrong: so many times, from now on.
    pub fn fault(&self, kind: &str, fault: &str, times: u32) -> Result<()> {
        let rules = json!({ "rules": [{ "kind": kind, "fault": fault, "times": times }] });
        self.admin.put("/admin/v1/faults", &rules).map(drop)
    }

    /// How often the fault has struck.
    pub fn struck(&self) -> Result<u64> {
        self.admin.get("/admin/v1/faults")?["rules"][0]["fired"].as_u64().context("fired")
    }

    /// What the server says of a SIM.
    pub fn account(&self, sim: usize) -> Result<Account> {
        Account::of(&self.admin, &subscriber(sim))
    }
}

/// Starts the server in the internet, at this address; port 0 takes a free one.
fn serve(topology: &Topology, workdir: &Workdir, args: &[String], listen: SocketAddr) -> Result<WeirServer> {
    let listen = listen.to_string();
    let mut all = vec!["--listen", &listen];
    all.extend(args.iter().map(String::as_str));
    WeirServer::start(&topology.internet, workdir, &all)
}

/// Lets so much time pass while the others work.
pub fn meanwhile(length: Duration) -> Result<()> {
    let deadline = Deadline::after(length);
    eventually("time to pass", length + SOON, || {
        ensure!(deadline.passed(), "not yet");
        Ok(())
    })
}

/// Plays a scenario of chance `WEIR_RUNS` times, once unless said otherwise; each time says which `WEIR_SEED` plays it again.
pub fn chance(mut scenario: impl FnMut(&mut fastrand::Rng) -> Result<()>) -> Result<()> {
    let number = |name| std::env::var(name).ok().and_then(|value: String| value.parse::<u64>().ok());
    for run in 1..=number("WEIR_RUNS").unwrap_or(1) {
        let seed = number("WEIR_SEED").unwrap_or_else(|| fastrand::u64(..));
        #[expect(clippy::print_stdout, reason = "libtest shows it with the test that failed")]
        {
            println!("run {run}: WEIR_SEED={seed}");
        }
        scenario(&mut fastrand::Rng::with_seed(seed)).with_context(|| format!("WEIR_SEED={seed}"))?;
    }
    Ok(())
}
