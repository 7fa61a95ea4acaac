//! `weir doctor` on a gateway that is well, and on gateways with one fault after the other planted: each is found, and named for what it is.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent::datapath::load::OBJECT;
use agent::datapath::{Counting, detach_and_unpin};
use agent::onboarding::DeviceKey;
use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use e2e::inject::Injector;
use e2e::process::binary;
use e2e::scenario::{ClockWord, Plot, Transport, World, chunked};
use e2e::stranger::{ACCEPT, Stranger, pin_xdp};
use e2e::topology::{Layout, Medium};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use serde_json::Value;

const PLENTY: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// What the doctor said.
struct Findings(Vec<Value>);

impl Findings {
    /// Fails unless one finding has this name, verdict and subject, and says these words in what it found or what to do.
    fn has(&self, id: &str, verdict: &str, subject: Option<&str>, words: &str) -> Result<()> {
        let is_it = |finding: &&Value| {
            let says = |member: &str| finding[member].as_str().is_some_and(|text| text.contains(words));
            finding["id"] == id
                && finding["verdict"] == verdict
                && finding["subject"].as_str() == subject
                && (says("what") || says("fix"))
        };
        let found = self.0.iter().find(is_it);
        let all: Vec<_> = self.0.iter().filter(|finding| finding["id"] == id).collect();
        let found = found.with_context(|| format!("no {verdict} {id} of {subject:?} with {words:?}: {all:?}"))?;
        let is_said = |member: &str| found[member].as_str().is_some_and(|text| !text.is_empty());
        ensure!(is_said("why") && (verdict == "ok" || is_said("fix")), "{found}");
        Ok(())
    }

    fn problems(&self) -> BTreeSet<&str> {
        let problems = self.0.iter().filter(|finding| finding["verdict"] == "problem");
        problems.filter_map(|finding| finding["id"].as_str()).collect()
    }
}

/// Runs `weir doctor ARGS` with this configuration on the gateway. Its exit status has to be that of the worst finding.
fn doctor(world: &World, config: &Path, args: &[&str]) -> Result<Findings> {
    let mut command = world.topology.gateway.command(binary("weir")?);
    command.args(["doctor", "--json", "--config"]).arg(config).args(args).current_dir(world.workdir.path());
    command.envs(world.drills().iter().copied()).env("WEIR_DRILL_CLOCK", world.workdir.path().join("wall-shift"));
    let output = command.output().context("run weir doctor")?;
    let report: Value =
        serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let expected = match report["verdict"].as_str() {
        Some("problem") => 2,
        Some("warning") => 1,
        _ => 0,
    };
    ensure!(output.status.code() == Some(expected) && report["schema"] == 1, "{}: {report}", output.status);
    Ok(Findings(report["findings"].as_array().context("findings")?.clone()))
}

/// The configuration with something else in the place of `from`, as another file.
fn altered(world: &World, from: &str, to: &str) -> Result<PathBuf> {
    let text = fs::read_to_string(&world.config)?;
    ensure!(text.contains(from), "no {from} in {text}");
    world.workdir.write("altered.toml", &text.replace(from, to))
}

fn names(directory: &Path) -> Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        // Files of SQLite come and go with the agent's work.
        if path.is_dir() {
            found.extend(names(&path)?);
        } else if !path.to_string_lossy().contains("ledger.db-") {
            found.insert(path);
        }
    }
    Ok(found)
}

fn two_links() -> Plot {
    let layout = Layout::with_uplinks(&[Medium::Veth, Medium::Veth]);
    Plot::of(chunked(PLENTY, 8 * MIB)).and(chunked(PLENTY, 8 * MIB)).over(layout)
}

#[test]
fn a_gateway_that_is_well_has_no_problem_and_nothing_of_it_is_changed() -> Result<()> {
    let mut plot = Plot::of(chunked(PLENTY, 8 * MIB));
    plot.transport = Transport::Tls;
    let world = World::online(&plot)?;
    world.shift_wall(0, ClockWord::Synced)?;
    let (flow, before) = (world.stream(2_000_000)?, names(world.workdir.path())?);
    let found = doctor(&world, &world.config, &[])?;
    ensure!(names(world.workdir.path())? == before, "it left something: {before:?}");
    // Where temporary files lie in memory the ledger of a test does as well.
    let in_memory = statfs(world.workdir.path())?.filesystem_type() == TMPFS_MAGIC;
    let expected = if in_memory { BTreeSet::from(["state.persistent"]) } else { BTreeSet::new() };
    ensure!(found.problems() == expected, "{:?}", found.0);
    found.has("link.counters", "ok", Some("wan0"), "agree on")?;
    found.has("link.meter", "ok", Some("wan0"), "one meter sits at both hooks")?;
    found.has("link.ahead", "ok", Some("wan0"), "")?;
    found.has("link.offload", "ok", Some("wan0"), "")?;
    found.has("route.metered", "ok", Some("IPv4"), "wan0")?;
    found.has("agent.running", "ok", None, "answers")?;
    found.has("pins.left", "ok", None, "1 at work")?;
    found.has("kernel.atomics", "ok", None, "")?;
    found.has("clock.synced", "ok", None, "")?;
    found.has("clock.server", "ok", None, "agrees")?;
    found.has("state.writable", "ok", None, "")?;
    found.has("server.reached", "ok", Some("wan0"), "")?;
    found.has("server.tls", "ok", None, "accepted")?;
    found.has("server.token", "ok", None, "knows gw-1")?;
    let agent = world.link_status("wan0")?;
    ensure!(agent["state"] != "offline" && agent["meter_gaps"] == 0, "{agent}");
    drop(flow);
    Ok(())
}

/// Everything that is at the hooks of a link besides the one meter, and what goes around it.
#[test]
fn what_is_put_before_beside_and_around_the_meter_is_found() -> Result<()> {
    let world = World::online(&two_links())?;
    let gateway = &world.topology.gateway;
    let ifindex = gateway.ifindex("wan0")?;
    let stranger = gateway.run_in(|| Stranger::with_verdict(ACCEPT).first_at_tcx(ifindex))?;
    let xdp = world.workdir.bpf().join("xdp");
    pin_xdp(&xdp);
    gateway.ip(&format!("link set dev wan1 xdpgeneric pinned {}", xdp.display()))?;
    let second = gateway.run_in(|| second_meter("wan1"))??;
    gateway.ip("route add default dev lan0 metric 1")?;
    let found = doctor(&world, &world.config, &["--offline"])?;
    found.has("link.ahead", "warning", Some("wan0"), "downlink: program")?;
    found.has("link.xdp", "warning", Some("wan1"), "XDP")?;
    found.has("link.meter", "problem", Some("wan1"), "2 meters")?;
    found.has("route.metered", "warning", Some("IPv4"), "lan0")?;
    found.has("link.meter", "ok", Some("wan0"), "")?;
    drop((stranger, second));
    gateway.ip("link set dev wan1 xdpgeneric off")?;
    gateway.ip("route del default dev lan0 metric 1")?;
    let found = past_the_hooks(&world)?;
    found.has("link.counters", "problem", Some("wan1"), "the meter has not seen")?;
    found.has("link.ahead", "ok", Some("wan0"), "")?;
    found.has("link.xdp", "ok", Some("wan1"), "")?;
    Ok(())
}

/// One program of another meter, behind the one that is there. It stays for as long as the answer lives.
fn second_meter(link: &str) -> Result<Ebpf> {
    let mut object = Counting::of_this_kernel().loader().load(OBJECT)?;
    let program: &mut SchedClassifier = object.program_mut("weir_downlink").context("weir_downlink")?.try_into()?;
    program.load()?;
    program.attach_with_options(link, TcAttachType::Ingress, TcAttachOptions::TcxOrder(LinkOrder::last()))?;
    Ok(object)
}

/// What the doctor says while frames leave by a way that the hooks do not see.
fn past_the_hooks(world: &World) -> Result<Findings> {
    let injector = Injector::open(&world.topology.gateway, "wan1")?.past_the_hooks()?;
    // IEEE 802's number for experiments.
    let ethertype = 0x88b5;
    let mut frame = vec![0; 1000];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, 8, 0x88, 0xb5]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                injector.send(ethertype, &frame, None)?;
                std::thread::yield_now();
            }
            anyhow::Ok(())
        });
        let found = doctor(world, &world.config, &["--offline"]);
        done.store(true, Ordering::Relaxed);
        sending.join().map_err(|_| anyhow::anyhow!("the sender has panicked"))??;
        found
    })
}

/// Files, file systems, and links that are not what the configuration takes them for.
#[test]
fn a_wrong_place_for_ledger_pins_or_meter_is_found() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 8 * MIB)))?;
    let memory = world.workdir.mount_memory("memory", 2 * MIB)?;
    // All but some kilobytes.
    fs::write(memory.join("full"), vec![1_u8; usize::try_from(2 * MIB)? - 4096])?;
    let config = altered(&world, "path = \"ledger.db\"", "path = \"memory/ledger.db\"")?;
    let found = doctor(&world, &config, &["--offline"])?;
    found.has("state.persistent", "problem", None, "lies in memory")?;
    found.has("state.space", "problem", None, "memory")?;
    found.has("state.writable", "problem", None, "No space left")?;

    let plain = world.workdir.path().join("plain");
    let config = altered(&world, &world.pin_root().display().to_string(), &plain.display().to_string())?;
    let found = doctor(&world, &config, &["--offline"])?;
    found.has("pins.bpffs", "problem", None, &format!("mount -t bpf bpf {}", plain.display()))?;
    found.has("link.meter", "problem", Some("wan0"), "not the one that is pinned")?;

    world.topology.gateway.ip("link add link wan0 name mac0 type macvlan")?;
    let config = altered(&world, "name = \"wan0\"", "name = \"mac0\"")?;
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644))?;
    fs::set_permissions(world.workdir.path(), fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(world.workdir.path().join("device.pem"), fs::Permissions::from_mode(0o640))?;
    let found = doctor(&world, &config, &["--offline"])?;
    found.has("link.stack", "problem", Some("mac0"), "meter its parent wan0 instead")?;
    found.has("config.rights", "warning", config.to_str(), "can be read by every user")?;
    found.has("config.rights", "problem", world.workdir.path().join("device.pem").to_str(), "chmod 600")?;

    let config = altered(&world, "[server]", "[servant]")?;
    let found = doctor(&world, &config, &["--offline"])?;
    found.has("config.valid", "problem", None, "servant")?;
    found.has("kernel.atomics", "ok", None, "")
}

/// What an agent leaves that was killed: an open gate, and pins that nobody looks after.
#[test]
fn a_dead_agent_with_an_open_gate_and_pins_that_hold_nothing_are_found() -> Result<()> {
    let mut world = World::online(&two_links())?;
    world.kill_agent()?;
    world.topology.pull_out(1)?;
    let found = doctor(&world, &world.config, &["--offline"])?;
    found.has("agent.running", "problem", None, "no agent runs: the gate of wan0 is open for another")?;
    found.has("link.present", "warning", Some("wan1"), "there is no such link")?;
    found.has("pins.left", "warning", Some("wan1"), "it does not exist any more")?;
    let pin_root = world.pin_root();
    world.topology.gateway.run_in(|| detach_and_unpin(&pin_root, "wan0"))??;
    let found = doctor(&world, &world.config, &["--offline"])?;
    found.has("link.meter", "problem", Some("wan0"), "neither counted nor stopped")
}

/// The server, over every way, and the clocks of both.
#[test]
fn a_server_that_is_away_strange_or_of_another_time_is_found() -> Result<()> {
    let mut plot = two_links();
    plot.transport = Transport::Tls;
    plot.server = "connect_timeout = \"1s\"\nanswer_timeout = \"2s\"\n".into();
    let mut world = World::online(&plot)?;
    world.shift_wall(-7200, ClockWord::Synced)?;
    world.topology.internet.ip(&format!("link set {} down", world.topology.uplinks[1].far))?;
    let found = doctor(&world, &world.config, &[])?;
    found.has("clock.server", "problem", None, "ahead of this one")?;
    found.has("server.reached", "warning", Some("wan1"), "does not answer over this way")?;
    found.has("server.reached", "ok", Some("wan0"), "")?;

    world.shift_wall(0, ClockWord::Unsynced)?;
    DeviceKey::load_or_create(&world.workdir.path().join("other.pem"))?;
    let config = altered(&world, "key_file = \"device.pem\"", "key_file = \"other.pem\"")?;
    let found = doctor(&world, &config, &[])?;
    found.has("clock.synced", "warning", None, "NTP")?;
    found.has("server.token", "problem", None, "gw-1 cannot log in")?;

    let stranger = world.present_certificate(Duration::from_hours(5 * 24))?;
    let found = doctor(&world, &world.config, &[])?;
    found.has("server.tls", "problem", None, "its certificate is not accepted")?;
    world.workdir.write("ca.pem", &stranger)?;
    let found = doctor(&world, &world.config, &[])?;
    found.has("server.tls", "warning", None, "certificate runs out on")?;

    world.kill_server()?;
    let found = doctor(&world, &world.config, &[])?;
    found.has("server.reached", "problem", Some("routing table"), "does not answer")?;
    found.has("server.reached", "problem", Some("wan0"), "does not answer")
}

/// The same words for people, on a terminal of any width.
#[test]
fn the_text_has_what_the_json_has_and_fits_the_terminal() -> Result<()> {
    let world = World::build(&Plot::of(chunked(PLENTY, 8 * MIB)))?;
    let mut command = world.topology.gateway.command(binary("weir")?);
    command.args(["doctor", "--offline", "--config"]).arg(&world.config).env("COLUMNS", "60");
    let output = command.output().context("run weir doctor")?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.code() == Some(2), "{}: {text}", output.status);
    for words in ["weir doctor", "gw-1", "PROBLEM  no agent runs", "why: ", "fix: ", " problems"] {
        ensure!(text.contains(words), "no {words:?} in {text}");
    }
    // A path that is longer than the terminal has a line of its own.
    let fits = |line: &str| line.chars().count() <= 60 || line.split_whitespace().count() <= 2;
    ensure!(text.lines().all(fits) && !text.contains('\u{1b}'), "{text}");
    Ok(())
}
