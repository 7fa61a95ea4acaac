//! One world of a scenario: topology, charging server, packages and agent, with the verbs a story needs.

mod account;
mod books;
mod plot;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use agent::datapath::{Datapath, Pins};
use agent_common::Counters;
use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

pub use self::account::Account;
pub use self::books::{Books, Crossed};
use self::plot::{ADMIN, Certificates};
pub use self::plot::{Plot, SERVER_NAME, Transport, chunked, iccid, package, subscriber};
use crate::bpffs::Workdir;
use crate::clock::Deadline;
use crate::eventually::eventually;
use crate::http::Client;
use crate::process::{Weir, WeirServer, binary};
use crate::topology::{HOST_V4, Topology};
use crate::traffic::{Datagrams, Flow, udp};

/// How long anything may take that is expected to happen soon.
pub const SOON: Duration = Duration::from_secs(15);

/// Arguments by which an agent records what its cores are told and do, for [`World::is_replayed_alike`].
pub const RECORDED: [&str; 2] = ["--record", RECORDING];

/// Where it does.
pub const RECORDING: &str = "weir.jsonl";

/// What may be used of a shut gate's last octets, and no packet of full size fits any more.
pub const PACKET: u64 = 1500;

/// Whether a shifted wall clock counts as synchronised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClockWord {
    /// Its labels are good.
    Synced,
    /// Its labels may be off by years.
    Unsynced,
}

/// The newest layout of the maps that a scenario orders an agent to be of.
const NEWEST_LAYOUT: u32 = 9;

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
    drills: Vec<(&'static str, &'static str)>,
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
        let drills = plot.drills.clone();
        let world = Self { agent: None, server: Some(server), admin, topology, workdir, config, server_args, drills };
        for (sim, package) in plot.packages.iter().enumerate() {
            world.sell(sim, package)?;
        }
        Ok(world)
    }

    /// The same with the agent on every link: each has units, or waits where the server gives none.
    pub fn online(plot: &Plot) -> Result<Self> {
        Self::online_with(plot, &[])
    }

    /// The same with an agent that is started with these arguments.
    pub fn online_with(plot: &Plot, args: &[&str]) -> Result<Self> {
        let mut world = Self::build(plot)?;
        world.start_agent(args)?;
        for link in 0..world.topology.uplinks.len() {
            world.reaches(link, &["active", "renewing", "final"])?;
        }
        Ok(world)
    }

    /// Starts the agent; what is to be waited for, the scenario knows.
    pub fn start_agent(&mut self, args: &[&str]) -> Result<()> {
        self.start_agent_with(args, &[])
    }

    /// The same with these orders in its environment: drills, as `agent::drill` tells them.
    pub fn start_agent_with(&mut self, args: &[&str], drills: &[(&str, &str)]) -> Result<()> {
        let command = self.agent_command(args, drills)?;
        self.begin_agent(command)
    }

    /// Starts the agent in a mount namespace of its own, where these files lie over those of the machine.
    ///
    /// # Errors
    /// When it cannot be started; what cannot be mounted is such a reason.
    pub fn start_agent_behind(&mut self, files: Vec<(PathBuf, &'static str)>) -> Result<()> {
        let alone = move || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
            for (file, over) in &files {
                mount(Some(file), *over, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
            }
            Ok(())
        };
        // SAFETY: system calls alone; short paths are not allocated.
        unsafe { self.start_agent_after(alone) }
    }

    /// Starts the agent in a process that does this first, on the gateway already.
    ///
    /// # Safety
    /// Between fork and exec: it may make system calls, and must not allocate or lock (see `CommandExt::pre_exec`).
    pub unsafe fn start_agent_after(
        &mut self,
        first: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<()> {
        let mut command = self.agent_command(&[], &[])?;
        // SAFETY: the caller's promise.
        unsafe { command.pre_exec(first) };
        self.begin_agent(command)
    }

    fn agent_command(&self, args: &[&str], drills: &[(&str, &str)]) -> Result<Command> {
        let wall = self.wall_shift();
        let wall = wall.to_str().context("the workdir's name is no text")?;
        let mut command = Weir::command(&self.topology.gateway, &self.workdir, &self.config, args)?;
        command.envs(drills.iter().copied()).envs(self.drills.iter().copied()).env("WEIR_DRILL_CLOCK", wall);
        Ok(command)
    }

    fn begin_agent(&mut self, command: Command) -> Result<()> {
        ensure!(self.agent.is_none(), "one agent at a time");
        self.agent = Some(Weir::begin(command, &self.workdir)?);
        Ok(())
    }

    /// What every agent finds in its environment.
    #[must_use]
    pub fn drills(&self) -> &[(&'static str, &'static str)] {
        &self.drills
    }

    /// Gives every agent from now on one more order.
    pub fn order(&mut self, drill: (&'static str, &'static str)) {
        self.drills.push(drill);
    }

    /// Waits until the agent has died as it was ordered to (`WEIR_DRILL_DIE_AT`).
    pub fn wait_for_death(&mut self) -> Result<()> {
        let status = self.agent.as_mut().context("no agent to die")?.actor.wait(SOON)?;
        self.agent = None;
        ensure!(status.signal() == Some(libc::SIGKILL), "the agent was to be killed, but ended with {status}");
        Ok(())
    }

    /// Shifts the agent's wall clock, from its next look at it; whether the clock counts as synchronised is said with it.
    pub fn shift_wall(&self, seconds: i64, word: ClockWord) -> Result<()> {
        let word = match word {
            ClockWord::Synced => "synced",
            ClockWord::Unsynced => "unsynced",
        };
        // Renamed into place: the agent reads the old words or the new.
        let draft = self.workdir.write("wall-shift.new", &format!("{seconds} {word}"))?;
        fs::rename(draft, self.wall_shift()).context("putting the wall shift in place")
    }

    fn wall_shift(&self) -> PathBuf {
        self.workdir.path().join("wall-shift")
    }

    /// A stream of datagrams that never ends, so many octets a second, from the client to the host beyond the preferred link.
    pub fn stream(&self, rate: u64) -> Result<Flow> {
        udp(&self.topology.client, (&self.topology.internet, HOST_V4), Datagrams::endless(rate, 1000))
    }

    /// Opens the books of the first link and lets a stream flow over it; `at_first` octets have arrived.
    pub fn under_traffic(&self, rate: u64, at_first: u64) -> Result<(Books, Flow)> {
        let books = Books::open(self, 0)?;
        let flow = self.stream(rate)?;
        flow.carries(at_first, SOON)?;
        Ok((books, flow))
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

    /// Lets the agent settle, then holds capture, kernel, containers and debit of the first link against each other, to the octet.
    pub fn settles_to_the_octet(&mut self, books: Books) -> Result<Account> {
        self.stop_agent()?;
        let (kernel, account) = (books.kernel(self)?, self.account(0)?);
        books.close(self)?;
        let passed = (kernel.uplink.passed.octets, kernel.downlink.passed.octets);
        account.is_settled()?;
        ensure!(self.containers()? == passed, "containers of {:?}, {passed:?} passed", self.containers()?);
        ensure!((account.uplink, account.downlink) == passed, "{passed:?} passed: {account:?}");
        ensure!(passed.0 > 0, "nothing was tried");
        Ok(account)
    }

    /// Fails unless the next agent goes on with this session under this flow, no packet was refused on the way, and all settles.
    pub fn goes_on_without_a_gap(&mut self, session: &Value, flow: Flow, books: Books) -> Result<()> {
        let next = self.reaches(0, &["active", "renewing"])?;
        ensure!(next["charging_id"] == session["charging_id"], "{next} is not the session of {session}");
        flow.carries(500_000, SOON)?;
        flow.stop()?;
        let counted = books.counted(self)?;
        let refused = (counted.uplink.refused.packets, counted.downlink.refused.packets);
        ensure!(refused == (0, 0), "{counted:?}");
        let account = self.settles_to_the_octet(books)?;
        ensure!(account.sessions.len() == 1, "{account:?}");
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

    /// Starts the server again with another certificate, of an authority of its own and good for so long; answers with that authority.
    pub fn present_certificate(&mut self, good_for: Duration) -> Result<String> {
        let address = self.kill_server()?;
        let made = Certificates::good_for(&address.ip().to_string(), good_for)?;
        self.workdir.write("server.pem", &made.certificate)?;
        self.workdir.write("server.key", &made.key)?;
        self.restart_server(address)?;
        Ok(made.authority)
    }

    /// What the kernel has counted on a link, whether or not an agent runs.
    pub fn kernel(&self, link: usize) -> Result<Counters> {
        self.datapath(&self.topology.uplinks[link].near)?.read()
    }

    /// The pinned meter of a link, of the newest layout that has one: an agent may be ordered to be of another.
    pub fn datapath(&self, link: &str) -> Result<Datapath> {
        let pin_root = self.pin_root();
        let layouts = (1..=NEWEST_LAYOUT).rev().map(|version| Pins::of_layout(&pin_root, version, link));
        let newest = layouts.into_iter().find(|pins| pins.directory().exists());
        Datapath::open_pins(
            newest.with_context(|| format!("no meter of {link} is pinned under {}", pin_root.display()))?,
        )
    }

    /// Where the agent's pins are.
    #[must_use]
    pub fn pin_root(&self) -> PathBuf {
        plot::pin_root(&self.workdir)
    }

    /// Octets that have passed under the ceilings of a link, both directions.
    pub fn passed(&self, link: usize) -> Result<u64> {
        let kernel = self.kernel(link)?;
        Ok(kernel.uplink.passed.octets + kernel.downlink.passed.octets)
    }

    /// Octets of all containers that the agent's ledger has ever closed, uplink and downlink.
    pub fn containers(&self) -> Result<(u64, u64)> {
        let ledger = rusqlite::Connection::open(self.workdir.path().join("ledger.db"))?;
        let sql = "SELECT coalesce(sum(uplink), 0), coalesce(sum(downlink), 0) FROM total WHERE account = 'closed'";
        let (uplink, downlink): (i64, i64) = ledger.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok((uplink.try_into()?, downlink.try_into()?))
    }

    /// Runs `weir status ARGS` against this agent.
    pub fn weir_status(&self, args: &[&str]) -> Result<Output> {
        self.weir_status_in(args, &[])
    }

    /// The same in an environment with these variables.
    pub fn weir_status_in(&self, args: &[&str], variables: &[(&str, &str)]) -> Result<Output> {
        let mut command = Command::new(binary("weir")?);
        command.envs(variables.iter().copied());
        command.args(["status", "--socket"]).arg(self.workdir.path().join("weir.sock")).args(args);
        command.output().context("run weir status")
    }

    /// Runs `weir ARGS` on the gateway, with the agent's configuration, in the directory of its files.
    pub fn weir(&self, command: &str, args: &[&str]) -> Result<Output> {
        let mut weir = self.topology.gateway.command(binary("weir")?);
        weir.arg(command).arg("--config").arg(&self.config).args(args).current_dir(self.workdir.path());
        weir.envs(self.drills.iter().copied()).env_remove("COLUMNS");
        weir.output().with_context(|| format!("run weir {command}"))
    }

    /// Runs `weir replay ARGS` where the agent's files are.
    pub fn weir_replay(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary("weir")?);
        command.arg("replay").args(args).current_dir(self.workdir.path()).output().context("run weir replay")
    }

    /// Fails unless the cores do again what those of the recorded agents did, of each agent from its start to its death.
    pub fn is_replayed_alike(&self) -> Result<()> {
        let output = self.weir_replay(&[RECORDING])?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
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

    /// Has the server take so long over every request of this kind, from now on.
    pub fn delay(&self, kind: &str, length: Duration) -> Result<()> {
        let rule = json!({ "kind": kind, "fault": "delay-ms", "delayMs": length.as_millis(), "times": u32::MAX });
        self.admin.put("/admin/v1/faults", &json!({ "rules": [rule] })).map(drop)
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
