//! What a service manager is told over its socket (`sd_notify`), and the signal by which a package's upgrade has the agent stop.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::Direction::Downlink;
use e2e::bpffs::Workdir;
use e2e::clock::Deadline;
use e2e::eventually::eventually;
use e2e::scenario::{Books, Plot, SOON, World, chunked};
use e2e::topology::HOST_V4;
use e2e::traffic::{TcpServer, Transfer};
use nix::sys::signal::Signal;

const PLENTY: u64 = 100 << 20;

/// A service manager that listens.
struct Manager {
    lines: Receiver<String>,
    path: PathBuf,
}

impl Manager {
    fn listen(world: &World) -> Result<Self> {
        let path = world.workdir.path().join("notify");
        let socket = UnixDatagram::bind(&path).with_context(|| format!("bind {}", path.display()))?;
        let (told, lines) = channel();
        // It ends with the test's process; nobody has to wait for it.
        std::thread::spawn(move || {
            let mut octets = [0; 4096];
            while let Ok(length) = socket.recv(&mut octets) {
                let text = String::from_utf8_lossy(&octets[..length]).into_owned();
                if !text.lines().all(|line| told.send(line.to_owned()).is_ok()) {
                    return;
                }
            }
        });
        Ok(Self { lines, path })
    }

    /// Starts the agent under this manager, which takes it for stuck after so long without a word.
    fn start(&self, world: &mut World, watchdog: Duration) -> Result<()> {
        start(world, &self.path, watchdog)
    }

    /// Waits for a line that begins so.
    fn hears(&self, beginning: &str) -> Result<String> {
        self.hears_within(beginning, SOON)
    }

    /// The same, for so long.
    fn hears_within(&self, beginning: &str, limit: Duration) -> Result<String> {
        let deadline = Deadline::after(limit);
        let mut said = Vec::new();
        loop {
            let line = self.lines.recv_timeout(deadline.remaining());
            let line = line.with_context(|| format!("no {beginning:?} after {said:?}"))?;
            if line.starts_with(beginning) {
                return Ok(line);
            }
            said.push(line);
        }
    }
}

fn start(world: &mut World, socket: &Path, watchdog: Duration) -> Result<()> {
    let socket = socket.to_str().context("the workdir's name is no text")?;
    let limit = watchdog.as_micros().to_string();
    world.start_agent_with(&[], &[("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", &limit)])
}

#[test]
fn a_service_manager_hears_when_links_are_metered_how_they_are_and_that_the_loop_turns() -> Result<()> {
    let mut world = World::build(&Plot::of(chunked(PLENTY, 10 << 20)))?;
    let manager = Manager::listen(&world)?;
    manager.start(&mut world, Duration::from_secs(2))?;
    manager.hears("READY=1")?;
    let (ifindex, datapath) = (world.topology.gateway.ifindex("wan0")?, world.datapath("wan0")?);
    ensure!(world.topology.gateway.run_in(|| datapath.is_attached(ifindex))?, "ready without a meter on wan0");
    manager.hears("STATUS=wan0: active")?;
    for _ in 0..3 {
        manager.hears("WATCHDOG=1")?;
    }
    world.agent.as_mut().context("an agent")?.actor.signal(Signal::SIGSTOP)?;
    let silent = eventually("a process that stands still to fall silent", SOON, || {
        ensure!(manager.hears_within("WATCHDOG=1", Duration::from_secs(3)).is_err(), "it says that it turns");
        Ok(())
    });
    world.agent.as_mut().context("an agent")?.actor.signal(Signal::SIGCONT)?;
    silent?;
    manager.hears("WATCHDOG=1")?;
    world.stop_agent()?;
    manager.hears("STOPPING=1")?;
    manager.hears("STATUS=stopping: gates shut, settling")?;
    world.account(0)?.is_settled()
}

/// As one that hangs: its queue is full after some words.
#[test]
fn a_service_manager_that_does_not_listen_holds_up_nothing() -> Result<()> {
    let mut world = World::build(&Plot::of(chunked(PLENTY, 10 << 20)))?;
    let path = world.workdir.path().join("notify");
    let deaf = UnixDatagram::bind(&path)?;
    let chatter = UnixDatagram::unbound()?;
    chatter.set_nonblocking(true)?;
    while chatter.send_to(b"full", &path).is_ok() {}
    start(&mut world, &path, Duration::from_secs(1))?;
    world.reaches(0, &["active"])?;
    let (books, flow) = world.under_traffic(400_000, 1 << 20)?;
    flow.stop()?;
    world.settles_to_the_octet(books)?;
    drop(deaf);
    Ok(())
}

/// What a package does for an upgrade.
#[test]
fn sigusr1_stops_the_agent_and_keeps_traffic_gates_and_sessions_for_the_next_one() -> Result<()> {
    let mut world = World::build(&Plot::of(chunked(PLENTY, 10 << 20)))?;
    let manager = Manager::listen(&world)?;
    manager.start(&mut world, Duration::from_mins(1))?;
    let first = world.reaches(0, &["active"])?;
    let books = Books::open(&world, 0)?;
    let server = TcpServer::start(&world.topology.internet, HOST_V4)?;
    let flow = server.flow(&world.topology.client, Transfer::endless(Downlink, 300_000))?;
    flow.carries(500_000, SOON)?;
    let mut agent = world.agent.take().context("an agent")?;
    agent.actor.signal(Signal::SIGUSR1)?;
    let status = agent.actor.wait(SOON)?;
    ensure!(status.success(), "{status}");
    manager.hears("STATUS=stopping; meters, gates and sessions stay for the next start")?;
    flow.carries(500_000, SOON)?;
    ensure!(world.account(0)?.sessions[0]["state"] == "open", "{:?}", world.account(0)?);

    manager.start(&mut world, Duration::from_mins(1))?;
    world.goes_on_without_a_gap(&first, flow, books)
}

/// procd's script, in a mount namespace of its own that begins without bpffs, on a box that has no program but grep.
const PROCD: &str = "
    mount -t tmpfs none /etc && mkdir /etc/weir && touch /etc/weir/weir.toml || exit
    while umount --lazy /sys/fs/bpf 2>/dev/null; do :; done
    mount() { /usr/bin/mount \"$@\"; }
    for verb in open_instance set_param close_instance; do eval \"procd_$verb() { :; }\"; done
    box=$PATH PATH=$2
    . \"$1\"
    start_service || exit
    PATH=$box mkdir /sys/fs/bpf/pins
    start_service || exit
    [ -d /sys/fs/bpf/pins ]";

#[test]
fn the_script_for_procd_mounts_bpffs_where_there_is_none_and_never_over_the_pins() -> Result<()> {
    let workdir = Workdir::new("procd")?;
    let programs = workdir.path().join("bin");
    std::fs::create_dir(&programs)?;
    symlink("/usr/bin/grep", programs.join("grep"))?;
    let mut box_of_its_own = Command::new("unshare");
    box_of_its_own.args(["--mount", "sh", "-c", PROCD, "sh"]);
    box_of_its_own.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/openwrt/weir.init")).arg(programs);
    let output = box_of_its_own.output().context("run unshare")?;
    ensure!(output.status.success(), "{output:?}");
    Ok(())
}
