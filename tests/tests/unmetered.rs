//! What passes outside the meter is never hidden: before it was attached, and after somebody else took it off.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;

use anyhow::{Context as _, Result, ensure};
use e2e::eventually::eventually;
use e2e::scenario::{Books, Plot, SOON, World, chunked, iccid};
use e2e::stranger::{NEXT, Stranger};
use e2e::topology::HOST_V4;
use e2e::traffic::{Datagrams, udp};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

const PLENTY: u64 = 1 << 30;
/// The processors that there may ever be, as ranges of numbers.
const PROCESSORS: &str = "/sys/devices/system/cpu/possible";

fn send(world: &World, datagrams: u64) -> Result<()> {
    udp(&world.topology.client, (&world.topology.internet, HOST_V4), Datagrams::of(datagrams, 1000))?.join().map(drop)
}

/// What the interface itself has counted, both directions.
fn interface_octets(world: &World, link: &str) -> Result<u64> {
    let text = world.topology.gateway.ip(&format!("-json -statistics link show dev {link}"))?;
    let links: Value = serde_json::from_str(&text)?;
    let figure = |way: &str| links[0]["stats64"][way]["bytes"].as_u64().context("bytes");
    Ok(figure("rx")? + figure("tx")?)
}

fn prefix(world: &World, link: &str) -> Result<u64> {
    world.link_status(link)?["unmetered_prefix_octets"].as_u64().context("unmetered_prefix_octets")
}

#[test]
fn what_passed_before_there_was_a_meter_is_told_and_still_told_after_a_restart() -> Result<()> {
    let mut plot = Plot::of(chunked(PLENTY, 2 << 20)).and(chunked(PLENTY, 2 << 20));
    plot.links = vec![
        format!("name = \"wan0\"\niccid = \"{}\"", iccid(0)),
        format!("name = \"usb0\"\niccid = \"{}\"", iccid(1)),
    ];
    let mut world = World::build(&plot)?;
    send(&world, 300)?;
    world.topology.settle()?;
    let before = interface_octets(&world, "wan0")?;
    assert!(before > 300 * 1028, "{before}");
    world.start_agent(&[])?;
    world.reaches(0, &["active"])?;
    assert_eq!(prefix(&world, "wan0")?, before);
    let text = String::from_utf8(world.weir_status(&[])?.stdout)?;
    assert!(text.contains("NOT METERED") && text.contains("before its meter was attached"), "{text}");

    world.topology.gateway.ip("link add usb0 type veth peer name peer0")?;
    eventually("the new link to be metered", SOON, || {
        ensure!(world.link_status("usb0")?["metered"] == true, "not yet");
        Ok(())
    })?;
    assert_eq!(prefix(&world, "usb0")?, 0, "metered from its first packet");

    send(&world, 300)?;
    world.kill_agent()?;
    world.start_agent(&[])?;
    world.reaches(0, &["active", "renewing"])?;
    assert_eq!(prefix(&world, "wan0")?, before);
    world.stop_agent()
}

/// Has the kernel detach a pinned link, as `bpftool link detach` does.
fn detach(world: &World, pin: &str) -> Result<()> {
    let path = CString::new(world.datapath("wan0")?.pins().directory().join(pin).into_os_string().into_vec())?;
    let mut get = [path.as_ptr() as u64, 0];
    // SAFETY: BPF_OBJ_GET (7) reads the address of a path, which lives over the call, and flags.
    let link = unsafe { libc::syscall(libc::SYS_bpf, 7, get.as_mut_ptr(), size_of_val(&get)) };
    ensure!(link >= 0, "open {path:?}: {}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made it for us.
    let link = unsafe { OwnedFd::from_raw_fd(i32::try_from(link)?) };
    let mut detach = [link.as_raw_fd().cast_unsigned(), 0];
    // SAFETY: BPF_LINK_DETACH (34) reads one file descriptor.
    let answer = unsafe { libc::syscall(libc::SYS_bpf, 34, detach.as_mut_ptr(), size_of_val(&detach)) };
    ensure!(answer == 0, "detach: {}", std::io::Error::last_os_error());
    Ok(())
}

#[test]
fn a_meter_that_somebody_takes_off_is_noticed_and_attached_again_and_the_gap_is_told() -> Result<()> {
    is_attached_again(&Plot::of(chunked(PLENTY, 2 << 20)), |world| detach(world, "link_uplink"))
}

#[test]
fn a_filter_that_somebody_deletes_is_noticed_and_put_there_again_and_the_gap_is_told() -> Result<()> {
    let tc = |world: &World| world.topology.gateway.tc("filter del dev wan0 egress pref 1").map(drop);
    is_attached_again(&Plot::of(chunked(PLENTY, 2 << 20)).by_clsact(), tc)
}

#[test]
fn a_clsact_that_somebody_deletes_is_noticed_and_made_again_and_the_gap_is_told() -> Result<()> {
    let tc = |world: &World| world.topology.gateway.tc("qdisc del dev wan0 clsact").map(drop);
    is_attached_again(&Plot::of(chunked(PLENTY, 2 << 20)).by_clsact(), tc)
}

/// By the word of the kernel, or at the next look: that nothing can be seen of what it accepts is told.
#[test]
fn a_filter_that_somebody_puts_ahead_of_the_meter_is_told_of() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 2 << 20)).by_clsact())?;
    let stranger = Stranger::with_verdict(NEXT);
    let pin = world.workdir.bpf().join("stranger");
    stranger.pin(&pin);
    let filter = format!("filter add dev wan0 egress pref 1 bpf da object-pinned {}", pin.display());
    world.topology.gateway.tc(&filter)?;
    let agent = &mut world.agent.as_mut().context("an agent")?.actor;
    let line = agent.wait_for_line("run before the meter", SOON)?;
    ensure!(line.contains("uplink: pref 1 bpf"), "{line}");
    // Nobody moves it, and the meter is where it was.
    send(&world, 300)?;
    ensure!(stranger.seen() > 0 && world.link_status("wan0")?["meter_gaps"] == 0);
    world.stop_agent()
}

fn is_attached_again(plot: &Plot, take_off: impl FnOnce(&World) -> Result<()>) -> Result<()> {
    let mut world = World::online(plot)?;
    send(&world, 300)?;
    let (first, before) = (world.passed(0)?, world.datapath("wan0")?.epoch_id());
    take_off(&world)?;
    eventually("the gap to be told", SOON, || {
        let status = world.link_status("wan0")?;
        ensure!(status["meter_gaps"] == 1 && status["metered"] == true, "{status}");
        Ok(())
    })?;
    world.reaches(0, &["active", "renewing"])?;
    assert_ne!(world.datapath("wan0")?.epoch_id(), before);
    let agent = world.agent.as_mut().context("an agent")?;
    agent.actor.wait_for_line("somebody has taken the meter off", SOON)?;
    let books = Books::open(&world, 0)?;
    send(&world, 300)?;
    world.stop_agent()?;
    books.close(&world)?;
    let account = world.account(0)?;
    account.is_settled()?;
    let debited = account.debited();
    let passed = first + world.passed(0)?;
    // The downlink went on being counted until the old meter was read for the last time.
    ensure!((passed..passed + 20_000).contains(&debited), "{passed} passed, {debited} debited");
    Ok(())
}

#[test]
fn a_meter_that_could_not_be_attached_is_tried_again_by_itself() -> Result<()> {
    let mut world = World::build(&Plot::of(chunked(PLENTY, 2 << 20)))?;
    // Another file system lies over the one for pins.
    world.workdir.mount_memory("bpf", 1 << 20)?;
    world.start_agent(&[])?;
    let agent = &mut world.agent.as_mut().context("an agent")?.actor;
    agent.wait_for_line("is not on a BPF file system", SOON)?;
    says(&world, "the meter could not be attached")?;
    // Nothing happens to any link; the file system is there now.
    world.workdir.cover_bpffs()?;
    world.reaches(0, &["active"])?;
    assert!(prefix(&world, "wan0")? > 0, "the agent itself has asked for its SIM meanwhile");
    world.stop_agent()?;
    world.account(0)?.is_settled()
}

#[test]
fn a_meter_that_cannot_be_read_is_tried_again_after_pauses_that_grow_and_told_once_a_try() -> Result<()> {
    let mut world = World::build(&Plot::of(chunked(PLENTY, 2 << 20)))?;
    // Nobody can tell how many processors there are, and a counter has one place for each.
    let possible = world.workdir.path().join("possible");
    fs::write(&possible, "")?;
    world.start_agent_behind(vec![(possible.clone(), PROCESSORS)])?;
    // Whoever asks meanwhile makes no try, and no line in the log.
    let tries = eventually("four tries", SOON, || {
        says(&world, "the meter could not be attached")?;
        let log = world.agent.as_ref().context("an agent")?.actor.stderr();
        let lines = log.lines().filter(|line| line.contains("the meter cannot be read"));
        let times = lines.map(|line| Ok(line.split(' ').next().unwrap_or_default().parse()?));
        let tries: Vec<Timestamp> = times.collect::<Result<_>>()?;
        ensure!(tries.len() >= 4, "{tries:?}");
        Ok(tries)
    })?;
    for (pair, least) in tries.windows(2).zip([1, 2, 4]) {
        let pause = pair[1].duration_since(pair[0]);
        ensure!(pause >= SignedDuration::from_secs(least), "{pause} instead of {least} s: {tries:?}");
    }

    fs::copy(PROCESSORS, &possible)?;
    world.reaches(0, &["active"])?;
    send(&world, 10)?;
    let passed = world.passed(0)?;
    world.stop_agent()?;
    world.account(0)?.is_settled()?;
    let debited = world.account(0)?.debited();
    ensure!(debited >= passed, "{passed} passed, {debited} debited");
    Ok(())
}

/// Waits until the status of the link says this.
fn says(world: &World, words: &str) -> Result<()> {
    eventually(&format!("the status to say {words:?}"), SOON, || {
        let status = world.link_status("wan0")?;
        ensure!(status["explanation"].as_str().is_some_and(|text| text.contains(words)), "{status}");
        Ok(())
    })
}
