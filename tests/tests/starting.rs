//! How the agent starts: what it refuses and says, what it touches, and which servers it can talk to.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result, ensure};
use e2e::bpffs::Workdir;
use e2e::eventually::eventually;
use e2e::netns::Namespace;
use e2e::process::{Actor, Weir, binary};
use e2e::scenario::{Books, Plot, SOON, Transport, World, chunked, package, subscriber};
use e2e::stranger::{NEXT, Stranger};
use e2e::topology::HOST_V4;
use e2e::traffic::{Datagrams, udp};
use nix::unistd::{setgid, setuid};

const PLENTY: u64 = 1 << 30;

/// The user and group `nobody`.
const NOBODY: u32 = 65534;

/// A megabyte of datagrams, an orderly end, and the same figure on the wire, in the kernel and at the server.
fn works_to_the_octet(mut world: World) -> Result<()> {
    let books = Books::open(&world, 0)?;
    let client = &world.topology.client;
    udp(client, (&world.topology.internet, HOST_V4), Datagrams { rate: 2_000_000, ..Datagrams::of(2000, 1000) })?
        .join()?;
    world.stop_agent()?;
    books.close(&world)?;
    let (account, passed) = (world.account(0)?, world.passed(0)?);
    account.is_settled()?;
    assert!(passed > 2_000_000);
    assert_eq!(account.debited(), passed, "{account:?}");
    Ok(())
}

#[test]
fn bad_config_touches_nothing() -> Result<()> {
    let mut world = World::build(&Plot::of(package(PLENTY)))?;
    let good = fs::read_to_string(&world.config)?;
    let bad = good.replace("checkpoint_interval = \"1s\"", "checkpoint_interval = \"1ms\"\ncontroll_reserve = 1");
    let line = |word: &str| bad.lines().position(|line| line.contains(word)).map(|index| index + 1).context("a line");
    fs::write(&world.config, &bad)?;
    world.start_agent(&[])?;
    let agent = &mut world.agent.as_mut().context("an agent")?.actor;
    assert_eq!(agent.wait(SOON)?.code(), Some(64));
    let said = agent.stderr();
    let file = world.config.display();
    for (key, allowed) in [("checkpoint_interval", "1s"), ("controll_reserve", "control_reserve")] {
        let place = format!("{file}:{}: agent.{key}", line(key)?);
        let told = said.lines().find(|line| line.contains(&place)).with_context(|| format!("no {place} in {said}"))?;
        assert!(told.contains(allowed), "what would be right: {told}");
    }
    for name in ["ledger.db", "device.pem", "weir.sock", "bpf/weir"] {
        assert!(!world.workdir.path().join(name).exists(), "{name} was made");
    }
    assert_eq!(world.admin.get("/admin/v1/devices")?["devices"], serde_json::json!([]));
    Ok(())
}

#[test]
fn no_bpffs_says_what_to_do() -> Result<()> {
    let mut world = World::build(&Plot::of(package(PLENTY)))?;
    let text = fs::read_to_string(&world.config)?;
    let elsewhere = world.workdir.path().join("plain");
    let pin_root = world.workdir.bpf().join("weir");
    fs::write(&world.config, text.replace(&pin_root.display().to_string(), &elsewhere.display().to_string()))?;
    world.start_agent(&[])?;
    let agent = &mut world.agent.as_mut().context("an agent")?.actor;
    let line = agent.wait_for_line("is not on a BPF file system", SOON)?;
    assert!(line.contains(&format!("mount -t bpf bpf {}", elsewhere.display())), "{line}");
    Ok(())
}

/// `CAP_NET_ADMIN`, `CAP_PERFMON`, `CAP_BPF` (`capability.h`).
const ENOUGH: [libc::c_ulong; 3] = [12, 38, 39];

/// Starts the agent as a root that has these three capabilities and no other.
fn start_with_few_rights(world: &mut World) -> Result<()> {
    let give_up = || {
        for capability in (0..64).filter(|capability| !ENOUGH.contains(capability)) {
            // SAFETY: takes numbers alone. The kernel knows fewer than 64.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        }
        Ok(())
    };
    // SAFETY: system calls alone, made after those of the namespace, which need more rights.
    unsafe { world.start_agent_after(give_up) }
}

fn meters_with_few_rights(plot: &Plot) -> Result<()> {
    let mut world = World::build(plot)?;
    start_with_few_rights(&mut world)?;
    world.reaches(0, &["active"])?;
    let agent = world.agent.as_ref().context("an agent")?.actor.pid();
    let status = fs::read_to_string(format!("/proc/{agent}/status"))?;
    ensure!(status.contains("CapEff:\t000000c000001000"), "{status}");
    let send = |world: &World| -> Result<()> {
        let client = &world.topology.client;
        udp(client, (&world.topology.internet, HOST_V4), Datagrams::of(300, 1000))?.join().map(drop)
    };
    let mut books = Books::open(&world, 0)?;
    send(&world)?;
    // The next one adopts; the one after it finds another layout, reads what the first has counted, and takes it off.
    world.kill_agent()?;
    send(&world)?;
    start_with_few_rights(&mut world)?;
    world.reaches(0, &["active", "renewing"])?;
    send(&world)?;
    world.kill_agent()?;
    books.keep_meter(&world)?;
    world.order(("WEIR_DRILL_LAYOUT", "3"));
    start_with_few_rights(&mut world)?;
    world.reaches(0, &["active", "renewing"])?;
    send(&world)?;
    let said = world.agent.as_ref().context("an agent")?.actor.stderr();
    ensure!(!said.contains("CAP_SYS_ADMIN") && !said.contains("cannot be read"), "{said}");
    let account = world.settles_to_the_octet(books)?;
    ensure!(account.sessions.len() == 2, "{account:?}");
    Ok(())
}

#[test]
fn three_capabilities_are_enough() -> Result<()> {
    meters_with_few_rights(&Plot::of(chunked(PLENTY, 2 << 20)))
}

#[test]
fn three_capabilities_are_enough_where_there_is_no_tcx() -> Result<()> {
    meters_with_few_rights(&Plot::of(chunked(PLENTY, 2 << 20)).by_clsact())
}

#[test]
fn a_program_that_nobody_may_look_at_is_told_of() -> Result<()> {
    let mut world = World::build(&Plot::of(chunked(PLENTY, 2 << 20)))?;
    let ifindex = world.topology.gateway.ifindex("wan0")?;
    let _stranger = world.topology.gateway.run_in(|| Stranger::with_verdict(NEXT).at_tcx(ifindex))?;
    start_with_few_rights(&mut world)?;
    let agent = &mut world.agent.as_mut().context("an agent")?.actor;
    let line = agent.wait_for_line("without CAP_SYS_ADMIN", SOON)?;
    ensure!(line.contains("wan0"), "{line}");
    world.reaches(0, &["active"]).map(drop)
}

/// What Linux 5.10 answers, asked of this one for something that it does not know either.
#[test]
fn a_kernel_without_fetching_atomics_is_refused_with_the_one_that_is_needed() -> Result<()> {
    let mut world = World::build(&Plot::of(package(PLENTY)))?;
    world.start_agent_with(&[], &[("WEIR_DRILL_ATOMICS", "none")])?;
    let agent = &mut world.agent.as_mut().context("an agent")?.actor;
    let line = agent.wait_for_line("wan0 cannot be metered", SOON)?;
    ensure!(line.contains("too old") && line.contains("Linux 5.12 or newer is needed"), "{line}");
    ensure!(world.topology.gateway.run_in(|| agent::datapath::meters_on("wan0"))??.is_empty(), "something is there");
    ensure!(world.datapath("wan0").is_err(), "something is pinned");
    Ok(())
}

#[test]
fn not_root_says_what_to_do() -> Result<()> {
    let workdir = Workdir::new("nobody")?;
    fs::set_permissions(workdir.path(), fs::Permissions::from_mode(0o777))?;
    // Nobody may not be able to reach the folder in which the binary was built.
    let weir = workdir.path().join("weir");
    fs::copy(binary("weir")?, &weir)?;
    let config = workdir.write(
        "weir.toml",
        &format!(
            "[device]\nid = \"gw-1\"\nkey_file = \"device.pem\"\n[server]\nurl = \"http://127.0.0.1:9\"\n\
             [ledger]\npath = \"ledger.db\"\n[datapath]\npin_root = \"{}\"\n[agent]\nsocket = \"weir.sock\"\n\
             [[link]]\nname = \"wan0\"\n",
            workdir.path().join("pins").display(),
        ),
    )?;
    let gateway = Namespace::new("nobody")?;
    gateway.ip("link add wan0 type veth peer name modem0")?;
    let mut command = gateway.command(&weir);
    command.args(["run", "--config"]).arg(&config).current_dir(workdir.path());
    // SAFETY: two system calls between fork and exec, made after those of the namespace, which need root.
    unsafe { command.pre_exec(|| Ok(setgid(NOBODY.into()).and_then(|()| setuid(NOBODY.into()))?)) };
    let mut agent = Actor::start("nobody", command, &workdir)?;
    let line = agent.wait_for_line("CAP_NET_ADMIN", SOON)?;
    assert!(line.contains("run weir as root (sudo)"), "{line}");
    Ok(())
}

#[test]
fn a_second_agent_on_the_same_ledger_is_refused() -> Result<()> {
    let world = World::online(&Plot::of(chunked(PLENTY, 2 << 20)))?;
    let text = fs::read_to_string(&world.config)?;
    let config = world.workdir.write("second.toml", &text.replace("weir.sock", "second.sock"))?;
    let mut second = Weir::start(&world.topology.gateway, &world.workdir, &config, &[])?;
    let status = second.actor.wait(SOON)?;
    assert!(!status.success(), "{status}");
    let said = second.actor.stderr();
    assert!(said.contains("ledger.db"), "which ledger, and that it is taken: {said}");
    drop(second);
    works_to_the_octet(world)
}

#[test]
fn works_with_a_foreign_server() -> Result<()> {
    let mut plot = Plot::of(chunked(PLENTY, 2 << 20));
    plot.server = "onboarding = \"static\"\n".into();
    plot.server_args = vec!["--no-auth".into()];
    plot.links = vec![format!(
        "name = \"wan0\"\nsubscriber = \"{}\"\nrating_group = 10\napn = \"internet\"\nchunk = \"1 MiB\"",
        subscriber(0)
    )];
    let world = World::online(&plot)?;
    let devices = world.admin.get("/admin/v1/devices")?;
    assert_eq!(devices["devices"], serde_json::json!([]), "it has not registered");
    works_to_the_octet(world)
}

#[test]
fn talks_tls_with_an_own_ca() -> Result<()> {
    let mut plot = Plot::of(chunked(PLENTY, 2 << 20));
    plot.transport = Transport::Tls;
    works_to_the_octet(World::online(&plot)?)
}

#[test]
fn does_not_talk_tls_with_anybody_else() -> Result<()> {
    let mut plot = Plot::of(chunked(PLENTY, 2 << 20));
    plot.transport = Transport::Tls;
    let mut world = World::build(&plot)?;
    let text = fs::read_to_string(&world.config)?;
    fs::write(&world.config, text.replace("tls_ca = \"ca.pem\"", ""))?;
    world.start_agent(&[])?;
    let agent = &mut world.agent.as_mut().context("an agent")?.actor;
    agent.wait_for_line("certificate", SOON)?;
    assert_eq!(world.admin.get("/admin/v1/devices")?["devices"], serde_json::json!([]));
    Ok(())
}

#[test]
fn weir_status_shows_the_link() -> Result<()> {
    let world = World::online(&Plot::of(chunked(PLENTY, 2 << 20)))?;
    let client = &world.topology.client;
    udp(client, (&world.topology.internet, HOST_V4), Datagrams::of(300, 1000))?.join()?;
    let status = eventually("the status to show the traffic", SOON, || {
        let status = world.link_status("wan0")?;
        let used = status["session_uplink_octets"].as_u64().unwrap_or_default();
        ensure!(used >= 300 * 1028, "{status}");
        Ok(status)
    })?;
    assert_eq!(status["subscriber"], subscriber(0));
    assert_eq!((&status["metered"], &status["in_use"]), (&true.into(), &true.into()), "{status}");
    let kernel = world.kernel(0)?;
    assert!(status["kernel"]["passed_uplink_octets"].as_u64() <= Some(kernel.uplink.passed.octets));
    assert!(status["ceiling_octets"].as_u64() >= Some(2 << 20), "{status}");
    let whole = world.status()?;
    assert_eq!((&whole["device"], &whole["ledger_drift_octets"]), (&"gw-1".into(), &0.into()), "{whole}");

    let text = String::from_utf8(world.weir_status(&[])?.stdout)?;
    let link = text.lines().find(|line| line.starts_with("wan0")).with_context(|| format!("no wan0 in {text}"))?;
    assert!(link.contains(&subscriber(0)), "{link}");
    assert!(text.contains("used ") && text.contains("gw-1"), "{text}");
    Ok(())
}

/// It speaks to a socket of the same machine; who vouches for servers elsewhere does not matter.
#[test]
fn weir_status_is_shown_on_a_machine_without_authorities() -> Result<()> {
    let world = World::online(&Plot::of(chunked(PLENTY, 2 << 20)))?;
    let nowhere = world.workdir.path().join("nowhere");
    let nowhere = nowhere.to_str().context("the workdir's name is no text")?;
    let output = world.weir_status_in(&[], &[("SSL_CERT_FILE", nowhere), ("SSL_CERT_DIR", nowhere)])?;
    assert!(output.status.success(), "{}", String::from_utf8(output.stderr)?);
    assert!(String::from_utf8(output.stdout)?.contains("wan0"));
    Ok(())
}

#[test]
fn weir_status_without_an_agent_says_what_to_do() -> Result<()> {
    let world = World::build(&Plot::of(package(PLENTY)))?;
    let output = world.weir_status(&[])?;
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr)?;
    assert!(said.contains("weir.sock") && said.contains("weir run"), "{said}");
    Ok(())
}

#[test]
fn a_server_that_has_never_heard_of_the_device_is_told_of_it_again() -> Result<()> {
    let mut world = World::online(&Plot::of(package(PLENTY)))?;
    for number in 1..=3 {
        world.top_up(0, 1)?;
        let line = format!("command from the server number={number}");
        world.agent.as_mut().context("an agent")?.actor.wait_for_line(&line, SOON)?;
    }
    world.stop_agent()?;
    let address = world.kill_server()?;
    for file in ["server.db", "server.db-wal", "server.db-shm"] {
        let path = world.workdir.path().join(file);
        if path.exists() {
            fs::remove_file(path)?;
        }
    }
    world.restart_server(address)?;
    world.sell(0, &package(PLENTY))?;
    world.start_agent(&[])?;
    world.reaches(0, &["active", "renewing", "final"])?;
    // Its commands count from the beginning, and are heard.
    let device = world.status()?["device"].clone();
    let abort = serde_json::json!({ "deviceId": device, "command": "ABORT" });
    world.admin.post("/admin/v1/commands", &abort)?;
    world.reaches(0, &["idle"])?;
    Ok(())
}
