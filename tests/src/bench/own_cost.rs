//! What the agent itself costs: its start, its binary, and its time, memory, wake-ups and syncs beside an idle and a busy link.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::{Figure, Measured, say};
use crate::Direction::Uplink;
use crate::clock::now;
use crate::eventually::eventually;
use crate::process::{Actor, binary};
use crate::scenario::{Plot, SOON, World, chunked, meanwhile};
use crate::topology::{HOST_V4, LAN};
use crate::traffic::{Datagrams, TcpServer, Transfer, udp};

const PLENTY: u64 = 1 << 50;

const MEBI: f64 = 1024.0 * 1024.0;

/// After its start an agent has this long to become quiet.
const CALM: Duration = Duration::from_secs(15);

/// Routes that lead nowhere near the server, and how many of them change.
const ROUTES: u32 = 100_000;
const CHANGES: u32 = 10_000;

/// For how long.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Seconds that an idle link is watched, and a busy one half of that
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(10..=3600))]
    seconds: u64,
    /// Starts that are measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    starts: u32,
}

/// What a process has used up to some moment.
#[derive(Debug, Clone, Copy)]
struct Used {
    on_cpu: Duration,
    wake_ups: u64,
}

/// Of a span of time.
struct Cost {
    percent_of_a_core: f64,
    wake_ups_per_second: f64,
}

/// Measures one agent after the other.
pub(super) fn measure(options: &Options) -> Result<Measured> {
    let mut figures = vec![size_of_the_binary()?];
    let starts: Vec<f64> = (0..options.starts).map(|_| start()).collect::<Result<_>>()?;
    figures.push(Figure::median_of("from start to the first metered packet", "ms", &starts)?);

    let world = World::online(&Plot::of(chunked(PLENTY, 10 << 20)))?;
    let pid = world.agent.as_ref().context("an agent")?.actor.pid();
    figures.push(Figure::single(
        "memory of a loader at the most (a child, for a moment)",
        "MiB",
        loader(&world)? / MEBI,
    ));
    meanwhile(CALM)?;
    say("an idle link");
    let idle = watch(pid, Duration::from_secs(options.seconds))?;
    figures.extend([
        Figure::single("time, idle link", "% of a core", idle.percent_of_a_core).at_most(0.1),
        Figure::single("wake-ups, idle link", "1/s", idle.wake_ups_per_second).at_most(2.0),
        Figure::single("memory, idle link", "MiB", memory(pid, "VmRSS")? / MEBI).at_most(10.0),
        Figure::single("of it neither binary nor library, idle link", "MiB", memory(pid, "RssAnon")? / MEBI),
    ]);
    figures.extend(syncs("syncs, idle link", &world, Duration::from_secs(options.seconds))?);

    say("a busy link");
    let server = TcpServer::start(&world.topology.internet, HOST_V4)?;
    let limit = Duration::from_secs(options.seconds * 2 + 60);
    let flow = server.flow(&world.topology.client, Transfer::endless(Uplink, 1).unpaced().within(limit))?;
    meanwhile(Duration::from_secs(3))?;
    let (begun, before) = (now(), flow.so_far().delivered);
    let busy = watch(pid, Duration::from_secs(options.seconds / 2))?;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let megabits = (flow.so_far().delivered - before) as f64 * 8e-6 / now().duration_since(begun).as_secs_f64();
    figures.extend([
        Figure::single("goodput, busy link", "Mbit/s", megabits),
        Figure::single("time, busy link", "% of a core", busy.percent_of_a_core),
        Figure::single("wake-ups, busy link", "1/s", busy.wake_ups_per_second),
        Figure::single("memory, busy link", "MiB", memory(pid, "VmRSS")? / MEBI).at_most(10.0),
    ]);
    figures.extend(syncs("syncs, busy link", &world, Duration::from_secs(options.seconds / 2))?);
    flow.stop()?;
    figures.push(Figure::single("memory at the most", "MiB", memory(pid, "VmHWM")? / MEBI));

    say("a full table");
    figures.extend(routes(&world, pid)?);
    let details = json!({ "seconds": options.seconds, "starts": starts, "routes": ROUTES, "routesChanged": CHANGES });
    Ok(Measured { figures, details })
}

fn size_of_the_binary() -> Result<Figure> {
    let path = binary("weir")?;
    let octets = fs::metadata(&path).with_context(|| format!("look at {}", path.display()))?.len();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let mebibytes = octets as f64 / MEBI;
    Ok(Figure::single("binary, stripped", "MiB", mebibytes).at_most(6.0))
}

/// Milliseconds from the start of an agent that was never there before to the first packet that it has metered: key, registration,
/// binding, plan, loading, attaching and the first grant included.
fn start() -> Result<f64> {
    let mut world = World::build(&Plot::of(chunked(PLENTY, 10 << 20)))?;
    let topology = &world.topology;
    let flow = udp(&topology.client, (&topology.internet, HOST_V4), Datagrams::endless(1_000_000, 1000))?;
    flow.carries(10_000, SOON)?;
    let begun = now();
    world.start_agent(&[])?;
    eventually("a packet to be metered", SOON, || {
        ensure!(world.kernel(0)?.uplink.passed.packets > 0, "none yet");
        Ok(())
    })?;
    let length = now().duration_since(begun);
    flow.stop()?;
    Ok(length.as_secs_f64() * 1000.0)
}

/// The most memory that a loader has had, in octets.
fn loader(world: &World) -> Result<f64> {
    let mut command = world.topology.gateway.command(binary("weir")?);
    command.args(["datapath-load", "--link", "wan0", "--pin-root"]).arg(world.pin_root());
    command.stdout(std::process::Stdio::null());
    let child = command.spawn().context("start a loader")?;
    let (mut status, mut usage) = (0, std::mem::MaybeUninit::<libc::rusage>::zeroed());
    // SAFETY: a child of ours that nobody else waits for; both places live over the call.
    let answer = unsafe { libc::wait4(child.id().try_into()?, &raw mut status, 0, usage.as_mut_ptr()) };
    ensure!(answer > 0 && status == 0, "the loader ended with {status}: {}", std::io::Error::last_os_error());
    // SAFETY: zeroed, and filled in by the kernel.
    let kibibytes = unsafe { usage.assume_init() }.ru_maxrss;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    Ok(kibibytes as f64 * 1024.0)
}

/// What a process costs while this time passes.
fn watch(pid: u32, length: Duration) -> Result<Cost> {
    let (begun, before) = (now(), used(pid)?);
    meanwhile(length)?;
    let (seconds, after) = (now().duration_since(begun).as_secs_f64(), used(pid)?);
    let on_cpu = after.on_cpu.saturating_sub(before.on_cpu).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let wake_ups = (after.wake_ups - before.wake_ups) as f64;
    Ok(Cost { percent_of_a_core: on_cpu * 100.0 / seconds, wake_ups_per_second: wake_ups / seconds })
}

/// Of all threads: the time on a processor by the scheduler's own account (proc(5): utime and stime count in hundredths of a second), and
/// each time that one was put on it again.
fn used(pid: u32) -> Result<Used> {
    let mut used = Used { on_cpu: Duration::ZERO, wake_ups: 0 };
    let threads = Path::new("/proc").join(pid.to_string()).join("task");
    for thread in fs::read_dir(&threads).with_context(|| format!("list {}", threads.display()))? {
        let thread = thread?.path();
        let schedstat = fs::read_to_string(thread.join("schedstat"))?;
        let nanos = schedstat.split(' ').next().and_then(|figure| figure.parse().ok()).context("schedstat")?;
        used.on_cpu += Duration::from_nanos(nanos);
        let status = fs::read_to_string(thread.join("status"))?;
        for key in ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"] {
            used.wake_ups += line(&status, key)?;
        }
    }
    Ok(used)
}

/// Octets of memory: `VmRSS` now, `RssAnon` what of it is in no file, `VmHWM` at the most.
fn memory(pid: u32, key: &str) -> Result<f64> {
    let kibibytes = line(&fs::read_to_string(format!("/proc/{pid}/status"))?, key)?;
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    Ok(kibibytes as f64 * 1024.0)
}

fn line(status: &str, key: &str) -> Result<u64> {
    let value =
        status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).with_context(|| key.to_owned())?;
    value.trim().trim_end_matches("kB").trim().parse().with_context(|| format!("{key}: {value}"))
}

/// How often a minute the agent waits for the disk, by strace; no figure where there is none.
fn syncs(name: &str, world: &World, length: Duration) -> Result<Option<Figure>> {
    let pid = world.agent.as_ref().context("an agent")?.actor.pid();
    let mut command = std::process::Command::new("strace");
    command.args(["-f", "-qq", "-e", "trace=fsync,fdatasync", "-o"]).arg(world.workdir.path().join("syncs"));
    command.args(["-p", &pid.to_string()]);
    let Ok(mut tracer) = Actor::start("strace", command, &world.workdir) else {
        say(&format!("{name}: not counted, install strace for that"));
        return Ok(None);
    };
    meanwhile(length)?;
    ensure!(tracer.exited()?.is_none(), "strace has ended: {}", tracer.stderr());
    tracer.signal(nix::sys::signal::Signal::SIGINT)?;
    tracer.wait(SOON)?;
    let calls = fs::read_to_string(world.workdir.path().join("syncs"))?;
    let count = calls.lines().filter(|line| line.contains("sync(")).count();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    Ok(Some(Figure::single(name, "1/min", count as f64 * 60.0 / length.as_secs_f64())))
}

/// What the agent spends on a table as large as a router's, and on its changes.
fn routes(world: &World, pid: u32) -> Result<[Figure; 2]> {
    let gateway = &world.topology.gateway;
    let network = |number: u32| std::net::Ipv4Addr::from_bits(0x3000_0000 + (number << 8));
    let batch = |deed: &str, count: u32| -> Result<()> {
        let lines: Vec<String> =
            (0..count).map(|number| format!("route {deed} {}/24 dev {LAN} proto bgp\n", network(number))).collect();
        gateway.ip_batch(&lines.concat())
    };
    batch("add", ROUTES)?;
    quiet(pid)?;
    let before = used(pid)?;
    batch("del", CHANGES / 2)?;
    batch("add", CHANGES / 2)?;
    quiet(pid)?;
    let spent = used(pid)?.on_cpu.saturating_sub(before.on_cpu).as_secs_f64() * 1000.0;
    Ok([
        Figure::single("time for 10,000 changes of routes beside 100,000", "ms", spent),
        Figure::single("memory at the most, with 100,000 routes", "MiB", memory(pid, "VmHWM")? / MEBI),
    ])
}

/// Waits until the agent has dealt with what there was.
fn quiet(pid: u32) -> Result<()> {
    let mut before = used(pid)?.on_cpu;
    eventually("the agent to become quiet", Duration::from_mins(2), || {
        meanwhile(Duration::from_millis(500))?;
        let now = used(pid)?.on_cpu;
        let spent = now.saturating_sub(std::mem::replace(&mut before, now));
        ensure!(spent < Duration::from_millis(10), "it has worked for {spent:?} in half a second");
        Ok(())
    })
}
