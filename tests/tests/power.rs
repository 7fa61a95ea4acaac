//! Power cuts: how far the kernel may be ahead of the disk, what is billed afterwards, and what is told to be uncertain.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use agent::datapath::detach_and_unpin;
use anyhow::{Context as _, Result, ensure};
use e2e::Direction;
use e2e::bpffs::Workdir;
use e2e::disk::Disk;
use e2e::eventually::eventually;
use e2e::scenario::{Plot, SOON, World, chunked};
use e2e::topology::HOST_V4;
use e2e::traffic::{TcpServer, Transfer};

const PLENTY: u64 = 1 << 30;

const SLICE: u64 = 256 << 10;

const SLICED: &str = "max_unrecorded = \"256 KiB\"\n";

/// Epoch octets that the ledger at `path` holds of its open session: in the checkpoint, or in containers.
fn committed(path: &Path) -> Result<u64> {
    let ledger = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let sql = "SELECT max(base_uplink + base_downlink + coalesce(t.uplink + t.downlink, 0), \
               coalesce(passed_uplink + passed_downlink, 0)) FROM session LEFT JOIN checkpoint USING (charging_id) \
               LEFT JOIN total t ON t.charging_id = session.charging_id AND account = 'closed' WHERE closed_wall IS NULL";
    let octets: i64 = ledger.query_row(sql, [], |row| row.get(0)).context("one open session")?;
    Ok(octets.try_into()?)
}

/// How far kernel and gate were ahead of the disk at one moment; `None` when the disk moved on meanwhile.
fn ahead(world: &World, ledger: &Path) -> Result<Option<(u64, u64)>> {
    let before = committed(ledger)?;
    let passed = world.passed(0)?;
    let ceiling = world.datapath("wan0")?.gate()?.ceiling;
    let apart = (passed.saturating_sub(before), ceiling.saturating_sub(before));
    Ok((committed(ledger)? == before).then_some(apart))
}

#[test]
fn at_no_moment_has_more_than_a_slice_passed_that_is_not_on_disk() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 2 << 20)).agent(SLICED))?;
    let ledger = world.workdir.path().join("ledger.db");
    let flow = world.stream(1_000_000)?;
    let (mut looks, mut furthest) = (0, 0);
    while flow.so_far().delivered < 5_000_000 {
        ensure!(!flow.finished(), "the flow has ended: {:?}", flow.so_far());
        if let Some((passed, gate)) = ahead(&world, &ledger)? {
            ensure!(passed <= SLICE, "{passed} octets have passed that are not on disk");
            ensure!(gate <= SLICE, "the gate is open {gate} octets beyond the disk");
            (looks, furthest) = (looks + 1, furthest.max(passed));
        }
    }
    let report = flow.stop()?;
    ensure!(looks > 200 && furthest > SLICE / 4, "{looks} looks, {furthest} octets ahead at the furthest");
    ensure!(report.delivered * 20 >= report.sent * 19, "slices must not stall a link: {report:?}");
    world.stop_agent()?;
    world.account(0)?.is_settled()?;
    ensure!(world.account(0)?.debited() == world.passed(0)?, "{:?}", world.account(0)?);
    Ok(())
}

#[test]
fn slices_do_not_stall_a_fast_transfer() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 8 << 20)).agent("max_unrecorded = \"1 MiB\"\n"))?;
    let server = TcpServer::start(&world.topology.internet, HOST_V4)?;
    for direction in [Direction::Uplink, Direction::Downlink] {
        let report = server.transfer(&world.topology.client, Transfer::of(direction, 30_000_000).within(SOON))?;
        ensure!(report.delivered == 30_000_000, "{report:?}");
    }
    world.stop_agent()?;
    ensure!(world.account(0)?.debited() == world.passed(0)?, "{:?}", world.account(0)?);
    Ok(())
}

#[test]
fn a_disk_without_power_holds_what_was_synced() -> Result<()> {
    let workdir = Workdir::new("disk")?;
    let mut disk = Disk::new(&workdir)?;
    let (synced, unsynced) = (disk.path().join("synced"), disk.path().join("unsynced"));
    let mut file = File::create(&synced)?;
    file.write_all(b"kept")?;
    file.sync_all()?;
    File::open(disk.path())?.sync_all()?;
    fs::write(&unsynced, "lost")?;
    drop(file);
    disk.cut()?;
    ensure!(fs::write(&synced, "too late").is_err(), "nothing can be written without power");
    disk.power_up()?;
    ensure!(fs::read(&synced)? == b"kept");
    ensure!(fs::read(&unsynced).unwrap_or_default().is_empty(), "what was not synced is lost");
    Ok(())
}

/// A world whose ledger is on a disk of its own, with an agent at work.
fn on_a_disk(agent: &str) -> Result<(World, Disk)> {
    let mut world = World::build(&Plot::of(chunked(PLENTY, 4 << 20)).agent(agent))?;
    let disk = Disk::new(&world.workdir)?;
    let text = fs::read_to_string(&world.config)?;
    fs::write(&world.config, text.replace("path = \"ledger.db\"", "path = \"disk/ledger.db\""))?;
    world.start_agent(&[])?;
    world.reaches(0, &["active", "renewing"])?;
    Ok((world, disk))
}

/// What a power cut left: octets that had passed, those on disk, and those that the next agent told to be uncertain.
struct Left {
    passed: u64,
    on_disk: u64,
    uncertain: u64,
}

/// Cuts the power under traffic: the agent, the meter and what was not synced are gone. Then another boot, with the same disk.
fn cut_the_power(world: &mut World, mut disk: Disk) -> Result<(Left, Disk)> {
    let ledger = disk.path().join("ledger.db");
    let flow = world.stream(1_000_000)?;
    flow.carries(1_500_000, SOON)?;
    let seen = committed(&ledger)?;
    disk.cut()?;
    world.kill_agent()?;
    // The worst case: the machine goes only when everything that the gate lets through has passed.
    flow.stalls(std::time::Duration::from_millis(300), SOON)?;
    flow.stop()?;
    let passed = world.passed(0)?;
    detach_and_unpin(&world.workdir.bpf().join("weir"), "wan0")?;
    disk.power_up()?;
    // A copy is read: nothing is done to the ledger before the agent opens it.
    let copy = world.workdir.path().join("found");
    fs::create_dir(&copy)?;
    for file in ["ledger.db", "ledger.db-wal"] {
        fs::copy(disk.path().join(file), copy.join(file))?;
    }
    let on_disk = committed(&copy.join("ledger.db"))?;
    ensure!(on_disk >= seen, "{seen} octets were committed before the cut, {on_disk} are there");
    world.start_agent_with(&[], &[("WEIR_DRILL_BOOT_ID", "another boot")])?;
    world.reaches(0, &["active", "renewing"])?;
    let uncertain = world.status()?["uncertain_octets"].as_u64().context("uncertain_octets")?;
    Ok((Left { passed, on_disk, uncertain }, disk))
}

/// What is on disk is billed, to the octet, and the link goes on; both sessions are settled.
fn bills_what_is_on_disk(world: &mut World, left: &Left) -> Result<()> {
    let flow = world.stream(1_000_000)?;
    flow.carries(500_000, SOON)?;
    flow.stop()?;
    let text = String::from_utf8(world.weir_status(&[])?.stdout)?;
    ensure!(text.contains("may have passed after the last record before the power went"), "{text}");
    ensure!(world.agent.as_ref().context("an agent")?.actor.stderr().matches("may have passed after").count() == 1);
    world.stop_agent()?;
    let account = world.account(0)?;
    account.is_settled()?;
    ensure!(account.sessions.len() == 2, "{account:?}");
    ensure!(account.debited() == left.on_disk + world.passed(0)?, "{} on disk: {account:?}", left.on_disk);
    Ok(())
}

#[test]
fn after_a_power_cut_what_is_on_disk_is_billed_and_a_slice_at_most_is_uncertain() -> Result<()> {
    let (mut world, disk) = on_a_disk(SLICED)?;
    let (left, _disk) = cut_the_power(&mut world, disk)?;
    let missing = left.passed - left.on_disk;
    ensure!(missing > 0, "the power went when everything was on disk: nothing was tried");
    ensure!(missing <= left.uncertain && left.uncertain <= SLICE, "{missing} missing, {} uncertain", left.uncertain);
    bills_what_is_on_disk(&mut world, &left)
}

#[test]
fn after_a_power_cut_without_slices_no_more_is_missing_than_is_told() -> Result<()> {
    let (mut world, disk) = on_a_disk("")?;
    let (left, _disk) = cut_the_power(&mut world, disk)?;
    let missing = left.passed - left.on_disk;
    ensure!(missing > SLICE, "{missing} missing: as without slices");
    ensure!(missing <= left.uncertain && left.uncertain <= 4 << 20, "{missing} missing, {} uncertain", left.uncertain);
    bills_what_is_on_disk(&mut world, &left)
}

#[test]
fn after_an_orderly_end_a_reboot_leaves_nothing_uncertain() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 2 << 20)))?;
    let flow = world.stream(1_000_000)?;
    flow.carries(500_000, SOON)?;
    flow.stop()?;
    world.stop_agent()?;
    let passed = world.passed(0)?;
    detach_and_unpin(&world.workdir.bpf().join("weir"), "wan0")?;
    world.start_agent_with(&[], &[("WEIR_DRILL_BOOT_ID", "another boot")])?;
    world.reaches(0, &["active", "renewing"])?;
    eventually("the status", SOON, || {
        let status = world.status()?;
        ensure!(status["uncertain_octets"] == 0, "{status}");
        Ok(())
    })?;
    ensure!(world.account(0)?.debited() == passed, "{:?}", world.account(0)?);
    Ok(())
}
