//! The demo's world: three namespaces, the charging server with a SIM and a package for it, the traffic, and who watches.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agent::datapath::Datapath;
use agent_common::Counters;
use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use uuid::Uuid;

use super::observer::{Observer, Places};
use super::screen::Screen;
use crate::Direction::{Downlink, Uplink};
use crate::bpffs::Workdir;
use crate::capture::{Capture, Classifier, End};
use crate::clock::now;
use crate::eventually::eventually;
use crate::http::Client;
use crate::netns::Namespace;
use crate::process::{Weir, WeirServer};
use crate::topology::{CLIENT_V4, HOST_V4, Layout, Topology};
use crate::traffic::{Datagrams, Flow, TcpServer, Transfer, udp};

/// The server's recordings, within the demo's directory.
pub(super) const RECORD: &str = "record";

/// The metered link.
pub(super) const LINK: &str = "wan0";

/// The gateway's name at the server.
pub(super) const DEVICE: &str = "demo-gateway";

/// Whose SIM it is.
pub(super) const SUBSCRIBER: &str = "imsi-001010000000001";

/// Octets of the package that is bought at the beginning.
pub(super) const PACKAGE: u64 = 32 << 20;

/// Octets granted at a time.
const CHUNK: u64 = 8 << 20;

/// How much of a grant may be left when more is asked for: enough to go on for seconds while an answer is lost.
const THRESHOLD_PERCENT: u32 = 50;

/// How long a meter may take to be attached, on a machine that is busy with other things.
const ATTACHED: Duration = Duration::from_secs(30);

/// Everything that takes part. Dropped in this order: who watches and who is watched before what they stand on.
pub(super) struct Stage<'a> {
    pub(super) screen: &'a Screen,
    pub(super) observer: Observer,
    pub(super) agent: Option<Weir>,
    pub(super) capture: Capture,
    pub(super) admin: Client,
    pub(super) world: Topology,
    _server: WeirServer,
    workdir: &'a Workdir,
    config: PathBuf,
    /// When the demo began.
    pub(super) begin: Instant,
}

impl<'a> Stage<'a> {
    /// Builds everything up to the moment before the agent starts. The modem is not connected yet.
    pub(super) fn build(screen: &'a Screen, workdir: &'a Workdir) -> Result<Self> {
        let begin = now();
        // Merging at the gateway's end: the hooks see super-packets in both directions, as on a fast modem.
        let world = Topology::build(&Layout::with_gro())?;
        world.lower(0)?;
        for end in [&world.client, &world.internet] {
            // The link holds 256 packets for a gateway that is busy: a burst after a pause must be shorter, or what the far end
            // has sent is lost before it is metered.
            end.sysctl("ipv4/tcp_rmem", "4096 65536 131072")?;
            // A sender that met a shut gate asks again within a second, not within a minute. Kernels before 6.15 cannot say so.
            let _ = end.sysctl("ipv4/tcp_rto_max_ms", "1000");
        }
        let token = Uuid::new_v4().to_string();
        let server = start_server(&world.internet, workdir, &token)?;
        let admin = Client::new(&world.internet, &server.url, &token);
        let claim_code = buy(&admin)?;
        let config = write_config(workdir, &server.url, &claim_code)?;
        let places = Places {
            pin_root: workdir.bpf().join(PINS),
            link: LINK.into(),
            socket: workdir.path().join(SOCKET),
            server: admin.clone(),
            subscriber: SUBSCRIBER.into(),
        };
        let classifier = Classifier::control(&[server.address]);
        let capture = Capture::start(&world.internet, &world.uplinks[0].far, End::Far, classifier)?;
        let observer = Observer::start(places, screen, begin)?;
        Ok(Self { screen, observer, agent: None, capture, admin, world, _server: server, workdir, config, begin })
    }

    /// Starts the agent (again).
    pub(super) fn start_agent(&mut self) -> Result<()> {
        self.agent = Some(Weir::start(&self.world.gateway, self.workdir, &self.config, &[])?);
        Ok(())
    }

    /// The running agent.
    pub(super) fn agent(&mut self) -> Result<&mut Weir> {
        self.agent.as_mut().context("the agent was not started")
    }

    /// Waits for the meter, then connects the modem: not one octet crosses the link unmetered.
    pub(super) fn connect_modem(&mut self) -> Result<()> {
        let ifindex = self.world.gateway.ifindex(LINK)?;
        let pin_root = self.pin_root();
        let found = eventually("the meter to be attached", ATTACHED, || {
            let ended = self.agent()?.actor.exited()?;
            if ended.is_some() {
                return Ok(ended);
            }
            ensure!(Datapath::open(&pin_root, LINK)?.is_attached(ifindex), "it is not on {LINK} yet");
            Ok(None)
        })?;
        ensure!(found.is_none(), "the agent has ended before the meter was attached: {found:?}");
        self.world.raise(0)?;
        self.world.prefer(0)
    }

    /// Packets that the link itself has lost between its two ends: the far end has sent them, the gateway never saw them, or the
    /// other way round. Any would make capture and kernel part, and must be told apart from a wrong count.
    pub(super) fn lost_on_the_link(&self) -> Result<u64> {
        let uplink = self.world.uplinks.first().context("an uplink")?;
        let ends = [(&self.world.gateway, &uplink.near), (&self.world.internet, &uplink.far)];
        let mut lost = 0;
        for (namespace, interface) in ends {
            let text = namespace.ip(&format!("-s -j link show {interface}"))?;
            let links: serde_json::Value = serde_json::from_str(&text).with_context(|| format!("JSON in {text}"))?;
            for way in ["rx", "tx"] {
                let dropped = links[0]["stats64"][way]["dropped"].as_u64();
                lost += dropped.with_context(|| format!("drops in {text}"))?;
            }
        }
        Ok(lost)
    }

    /// Where the server writes the messages.
    pub(super) fn recorded(&self) -> PathBuf {
        self.workdir.path().join(RECORD)
    }

    /// Where the meter is pinned.
    pub(super) fn pin_root(&self) -> PathBuf {
        self.workdir.bpf().join(PINS)
    }
}

/// The kernel's counters, which outlive the agent.
pub(super) fn kernel(pin_root: &Path) -> Result<Counters> {
    Datapath::open(pin_root, LINK)?.read()
}

/// Within the demo's BPF file system.
const PINS: &str = "weir";

/// Within the demo's directory.
const SOCKET: &str = "weir.sock";

fn start_server(internet: &Namespace, workdir: &Workdir, token: &str) -> Result<WeirServer> {
    let listen = format!("{HOST_V4}:0");
    workdir.write("admin-token", token)?;
    let arguments = ["--listen", &listen, "--database", "server.db", "--admin-token-file", "admin-token"];
    WeirServer::start(internet, workdir, &[&arguments[..], &["--allow-faults", "--record", RECORD]].concat())
}

/// What the seller does: a SIM into the pool, a plan, a package for the SIM, and a claim code that goes with the device.
fn buy(admin: &Client) -> Result<String> {
    let sim = json!({ "iccid": "8900100000000000001", "subscriberIdentifier": SUBSCRIBER });
    admin.post("/admin/v1/sims", &sim).context("put a SIM into the pool")?;
    let plan =
        json!({ "planId": "demo", "totalVolume": PACKAGE, "chunk": CHUNK, "thresholdPercent": THRESHOLD_PERCENT });
    admin.post("/admin/v1/plans", &plan).context("make a plan")?;
    let purchase = json!({ "subscriberIdentifier": SUBSCRIBER, "planId": "demo" });
    admin.post("/admin/v1/purchases", &purchase).context("buy a package")?;
    let code = admin.post("/admin/v1/claim-codes", &json!({})).context("make a claim code")?;
    Ok(code["claimCode"].as_str().with_context(|| format!("a claim code in {code}"))?.to_owned())
}

fn write_config(workdir: &Workdir, server: &str, claim_code: &str) -> Result<PathBuf> {
    workdir.write("claim-code", claim_code)?;
    fs::create_dir_all(workdir.bpf().join(PINS)).context("make the directory of the pins")?;
    let text = format!(
        r#"# The gateway of the demo.
[device]
id = "{DEVICE}"
key_file = "device.pem"
claim_code_file = "claim-code"

[server]
url = "{server}"
# Both ends are namespaces of one machine.
allow_plaintext = true

[ledger]
path = "ledger.db"

[datapath]
pin_root = "{pins}"

[agent]
socket = "{SOCKET}"
resolvers = []

[[link]]
name = "{LINK}"
slot = "modem"
largest_chunk = "8 MiB"
"#,
        pins = workdir.bpf().join(PINS).display(),
    );
    workdir.write("weir.toml", &text)
}

/// What the client does with the link: TCP and UDP, both ways, some 13 Mbit/s in all.
pub(super) struct Traffic {
    flows: Vec<(&'static str, Flow)>,
    _server: TcpServer,
}

impl Traffic {
    /// Begins.
    pub(super) fn start(world: &Topology) -> Result<Self> {
        let server = TcpServer::start(&world.internet, HOST_V4)?;
        let (client, internet) = (&world.client, &world.internet);
        let flows = vec![
            ("TCP download", server.flow(client, Transfer::endless(Downlink, 900_000))?),
            ("TCP upload", server.flow(client, Transfer::endless(Uplink, 400_000))?),
            ("UDP uplink", udp(client, (internet, HOST_V4), Datagrams::endless(100_000, 800))?),
            ("UDP downlink", udp(internet, (client, CLIENT_V4), Datagrams::endless(200_000, 1200))?),
        ];
        Ok(Self { flows, _server: server })
    }

    /// Ends it; an error if a flow had ended by itself, for then the link was not merely shut but the connection broken.
    pub(super) fn stop(self) -> Result<()> {
        for (name, flow) in self.flows {
            let broken = flow.finished();
            let outcome = if broken { flow.join() } else { flow.stop() };
            let report = outcome.with_context(|| format!("{name} did not survive the demo"))?;
            ensure!(!broken, "{name} ended by itself: {report:?}");
        }
        Ok(())
    }
}
