//! What breaks under the ledger: a full disk, a read-only one, a slow one, files that are damaged, removed, old or locked.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use agent::datapath::{Datapath, meters_on};
use anyhow::{Context as _, Result, bail, ensure};
use e2e::disk::Disk;
use e2e::eventually::eventually;
use e2e::scenario::{Books, Plot, SOON, World, chunked, iccid, meanwhile};
use e2e::traffic::Flow;
use nix::mount::{MsFlags, mount};
use rusqlite::Connection;

const PLENTY: u64 = 1 << 30;

/// Time for retries with their back-off.
const PATIENCE: Duration = Duration::from_secs(40);

/// The ledger in a directory that a scenario can mount something at.
fn apart(chunk: u64) -> Plot {
    Plot { ledger: "state/ledger.db".into(), ..Plot::of(chunked(PLENTY, chunk)) }
}

/// A world whose agent is not started yet, with a file system in memory of so many octets for the ledger.
fn in_memory(chunk: u64, octets: u64) -> Result<World> {
    let mut world = World::build(&apart(chunk))?;
    world.workdir.mount_memory("state", octets)?;
    Ok(world)
}

fn starts(world: &mut World) -> Result<()> {
    world.start_agent(&[])?;
    world.reaches(0, &["active", "renewing", "final"]).map(drop)
}

fn ledger(world: &World) -> PathBuf {
    let name = if world.workdir.path().join("state").exists() { "state/ledger.db" } else { "ledger.db" };
    world.workdir.path().join(name)
}

fn says(world: &mut World, words: &str) -> Result<String> {
    world.agent.as_mut().context("an agent")?.actor.wait_for_line(words, PATIENCE)
}

fn pid(world: &World) -> Option<u32> {
    world.agent.as_ref().map(|agent| agent.actor.pid())
}

/// Ends the agent: the wire, the kernel and the server agree to the octet, nothing is open.
fn is_settled_to_the_octet(world: &mut World, books: Books) -> Result<()> {
    world.stop_agent()?;
    books.close(world)?;
    let (kernel, account) = (world.kernel(0)?, world.account(0)?);
    account.is_settled()?;
    let (up, down) = (kernel.uplink.passed.octets, kernel.downlink.passed.octets);
    ensure!((account.uplink, account.downlink) == (up, down), "{up} up, {down} down passed: {account:?}");
    Ok(())
}

/// While the ledger cannot be written the traffic ends at the ceiling that is recorded, and the status says why.
fn stays_at_the_recorded_ceiling(world: &World, flow: &Flow, words: &str) -> Result<()> {
    flow.stalls(Duration::from_millis(1500), PATIENCE)?;
    let status = world.status()?;
    let trouble = status["ledger_trouble"].as_str().unwrap_or_default();
    ensure!(trouble.contains(words), "{status}");
    let text = String::from_utf8(world.weir_status(&[])?.stdout)?;
    ensure!(text.contains("CANNOT be written") && text.contains("nothing more is granted until it can"), "{text}");
    let (ceiling, passed) = (status["links"][0]["ceiling_octets"].as_u64().context("a ceiling")?, world.passed(0)?);
    // One session since the meter was made: its ceiling is the kernel's.
    ensure!(passed <= ceiling && passed + 2000 > ceiling, "{passed} of {ceiling}");
    let account = world.account(0)?;
    ensure!(ceiling <= account.debited() + account.reserved, "{ceiling}, more than was granted: {account:?}");
    Ok(())
}

#[test]
fn a_full_disk_stops_grants_and_not_the_agent_and_nothing_is_lost() -> Result<()> {
    let mut world = in_memory(1 << 20, 2 << 20)?;
    starts(&mut world)?;
    let (books, flow) = world.under_traffic(600_000, 500_000)?;
    let filler = ledger(&world).with_file_name("filler");
    // As much as goes.
    let full = fs::write(&filler, vec![1_u8; 4 << 20]).expect_err("more than there is room for");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    says(&mut world, "the ledger cannot be written: no space left")?;
    stays_at_the_recorded_ceiling(&world, &flow, "no space left")?;
    let agent = pid(&world);
    fs::remove_file(&filler)?;
    says(&mut world, "the ledger can be written")?;
    flow.carries(1_500_000, PATIENCE)?;
    flow.stop()?;
    assert_eq!(pid(&world), agent, "it was not started again");
    assert_eq!(world.status()?["ledger_trouble"], serde_json::Value::Null);
    is_settled_to_the_octet(&mut world, books)
}

#[test]
fn links_that_came_and_went_before_the_disk_was_full_are_paid_once() -> Result<()> {
    let mut plot = apart(1 << 20).and(chunked(PLENTY, 1 << 20));
    plot.links = vec![
        format!("name = \"wan0\"\niccid = \"{}\"", iccid(0)),
        format!("name = \"usb*\"\nslot = \"usb\"\niccid = \"{}\"", iccid(1)),
    ];
    let mut world = World::build(&plot)?;
    world.workdir.mount_memory("state", 2 << 20)?;
    starts(&mut world)?;
    // Each takes the place of one that has nothing more to drain.
    for name in ["usb0", "usb1"] {
        world
            .topology
            .gateway
            .ip_batch(&format!("link add {name} type veth peer name p{name}\nlink set {name} up\n"))?;
        eventually("the new link to have units", PATIENCE, || {
            let status = world.link_status(name)?;
            ensure!(status["state"] == "active", "{status}");
            Ok(())
        })?;
        if name == "usb0" {
            world.topology.gateway.ip("link del usb0")?;
            eventually("the link to be forgotten", PATIENCE, || {
                ensure!(world.link_status("usb0").is_err(), "still there");
                Ok(())
            })?;
        }
    }
    let (books, flow) = world.under_traffic(600_000, 300_000)?;
    let filler = ledger(&world).with_file_name("filler");
    fs::write(&filler, vec![1_u8; 4 << 20]).expect_err("more than there is room for");
    says(&mut world, "the ledger cannot be written: no space left")?;
    fs::remove_file(&filler)?;
    says(&mut world, "the ledger can be written")?;
    flow.carries(300_000, PATIENCE)?;
    flow.stop()?;
    is_settled_to_the_octet(&mut world, books)?;
    world.account(1)?.is_settled()
}

#[test]
fn killed_on_a_full_disk_it_waits_for_room_and_loses_nothing() -> Result<()> {
    let mut world = in_memory(1 << 20, 2 << 20)?;
    starts(&mut world)?;
    let (books, flow) = world.under_traffic(600_000, 500_000)?;
    let filler = ledger(&world).with_file_name("filler");
    fs::write(&filler, vec![1_u8; 4 << 20]).expect_err("more than there is room for");
    says(&mut world, "no space left")?;
    world.kill_agent()?;
    world.start_agent(&[])?;
    says(&mut world, "no space left")?;
    ensure!(world.status()?["ledger_trouble"].is_string());
    fs::remove_file(&filler)?;
    flow.carries(1_500_000, PATIENCE)?;
    flow.stop()?;
    is_settled_to_the_octet(&mut world, books)
}

/// A modem that comes up anew, and once more before the ledger is back.
#[test]
fn a_link_that_is_made_anew_twice_on_a_full_disk_is_metered_behind_a_shut_gate() -> Result<()> {
    let mut world = in_memory(1 << 20, 2 << 20)?;
    starts(&mut world)?;
    let flow = world.stream(600_000)?;
    flow.carries(500_000, SOON)?;
    let filler = ledger(&world).with_file_name("filler");
    fs::write(&filler, vec![1_u8; 4 << 20]).expect_err("more than there is room for");
    says(&mut world, "the ledger cannot be written: no space left")?;
    let mut epochs = vec![world.datapath("wan0")?.epoch_id()];
    let mut paid = Vec::new();
    for time in 1..=2 {
        paid.push(world.datapath("wan0")?);
        world.topology.remake(0)?;
        let meter = eventually("a new meter on the new link", PATIENCE, || {
            let meters = world.topology.gateway.run_in(|| meters_on("wan0"))??;
            let [meter] = &meters[..] else { bail!("{} meters", meters.len()) };
            ensure!(!epochs.contains(&meter.epoch_id), "the one before");
            Ok(meter.epoch_id)
        })?;
        epochs.push(meter);
        flow.stalls(Duration::from_secs(1), PATIENCE)?;
        assert_eq!(world.passed(0)?, 0, "made anew {time} times");
    }
    let refused = |world: &World| Ok::<_, anyhow::Error>(world.kernel(0)?.uplink.refused.packets);
    let before = refused(&world)?;
    eventually("the flow to be refused", PATIENCE, || {
        ensure!(refused(&world)? > before, "nothing comes");
        Ok(())
    })?;
    fs::remove_file(&filler)?;
    says(&mut world, "the ledger can be written")?;
    flow.carries(500_000, PATIENCE)?;
    flow.stop()?;
    paid.push(world.datapath("wan0")?);
    assert_eq!(paid.last().map(Datapath::epoch_id), epochs.last().copied(), "it goes on with the last of them");
    world.stop_agent()?;
    let account = world.account(0)?;
    account.is_settled()?;
    let passed = |meter: &Datapath| meter.read().map(|read| (read.uplink.passed.octets, read.downlink.passed.octets));
    let all = paid.iter().map(passed).collect::<Result<Vec<_>>>()?;
    let (up, down) = all.iter().fold((0, 0), |(up, down), meter| (up + meter.0, down + meter.1));
    ensure!((account.uplink, account.downlink) == (up, down), "{all:?} passed: {account:?}");
    Ok(())
}

/// A pattern's link and a named one, both made while not even the ledger's tables can be read.
#[test]
fn a_link_that_comes_while_the_ledger_is_out_of_reach_is_metered_behind_a_shut_gate() -> Result<()> {
    let mut plot = Plot { ledger: "disk/ledger.db".into(), ..Plot::of(chunked(PLENTY, 1 << 20)) };
    plot = plot.and(chunked(PLENTY, 1 << 20));
    plot.links = vec![
        format!("name = \"usb*\"\nslot = \"usb\"\niccid = \"{}\"", iccid(1)),
        format!("name = \"wan0\"\niccid = \"{}\"", iccid(0)),
    ];
    let mut world = World::build(&plot)?;
    let mut disk = Disk::new(&world.workdir)?;
    starts(&mut world)?;
    let flow = world.stream(600_000)?;
    flow.carries(500_000, SOON)?;
    let before = world.datapath("wan0")?.epoch_id();
    disk.fail()?;
    says(&mut world, "the ledger cannot be written: its file system is read-only")?;
    world.topology.gateway.ip("link add usb0 type veth peer name pusb0")?;
    world.topology.remake(0)?;
    eventually("both to be metered", PATIENCE, || {
        for name in ["usb0", "wan0"] {
            let meters = world.topology.gateway.run_in(|| meters_on(name))??;
            let [meter] = &meters[..] else { bail!("{} meters on {name}", meters.len()) };
            ensure!(meter.epoch_id != before, "the one before");
        }
        Ok(())
    })?;
    flow.stalls(Duration::from_secs(1), PATIENCE)?;
    assert_eq!(world.passed(0)?, 0);
    disk.power_up()?;
    says(&mut world, "the ledger can be written")?;
    flow.carries(500_000, PATIENCE)?;
    flow.stop()?;
    world.stop_agent()?;
    world.account(0)?.is_settled()
}

#[test]
fn a_file_system_that_turns_read_only_stops_grants_until_it_is_mended() -> Result<()> {
    let mut world = World::build(&Plot { ledger: "disk/ledger.db".into(), ..Plot::of(chunked(PLENTY, 1 << 20)) })?;
    let mut disk = Disk::new(&world.workdir)?;
    starts(&mut world)?;
    let (books, flow) = world.under_traffic(600_000, 500_000)?;
    let ledger = disk.path().join("ledger.db");
    disk.fail()?;
    says(&mut world, "the ledger cannot be written: its file system is read-only")?;
    stays_at_the_recorded_ceiling(&world, &flow, "read-only")?;
    // Nothing of it is held open: it can be unmounted, and mounted again once it is mended.
    disk.unmount()?;
    let line = says(&mut world, "the ledger cannot be written: it is out of reach")?;
    ensure!(line.contains("disk/ledger.db is waited for: mount its file system"), "{line}");
    ensure!(fs::read_dir(disk.path())?.next().is_none(), "no other ledger is begun meanwhile");
    disk.mount()?;
    says(&mut world, "the ledger can be written")?;
    ensure!(!ledger.with_file_name("ledger.db.replaced-1").exists(), "it is the one before");
    flow.carries(1_500_000, PATIENCE)?;
    flow.stop()?;
    is_settled_to_the_octet(&mut world, books)
}

/// A world without any meter and with a ledger that cannot be written, as after a reboot with a broken disk; and what mends it.
fn rebooted(world: &World) -> Result<impl Fn() -> nix::Result<()> + use<>> {
    let point = ledger(world).parent().context("a directory")?.to_owned();
    let remount = move |flags| mount(None::<&str>, &point, None::<&str>, MsFlags::MS_REMOUNT | flags, None::<&str>);
    remount(MsFlags::MS_RDONLY)?;
    Ok(move || remount(MsFlags::empty()))
}

#[test]
fn a_read_only_ledger_at_the_start_is_named_and_waited_for() -> Result<()> {
    let mut world = in_memory(1 << 20, 2 << 20)?;
    let mend = rebooted(&world)?;
    world.start_agent(&[])?;
    let line = says(&mut world, "its file system is read-only")?;
    ensure!(line.contains("state/ledger.db") && line.contains("or choose another ledger path"), "{line}");
    let status = world.status()?;
    ensure!(status["ledger_trouble"].as_str().is_some_and(|words| words.contains("read-only")), "{status}");
    mend()?;
    world.reaches(0, &["active", "renewing", "final"])?;
    let (books, flow) = world.under_traffic(600_000, 500_000)?;
    flow.stop()?;
    is_settled_to_the_octet(&mut world, books)
}

/// Ends the flow and the agent: what passed the meter that is there is debited, and nothing else.
fn ends_with_all_paid(mut world: World, flow: Flow) -> Result<()> {
    flow.stop()?;
    world.stop_agent()?;
    let (passed, account) = (world.passed(0)?, world.account(0)?);
    account.is_settled()?;
    ensure!(account.debited() == passed, "{passed} passed: {account:?}");
    Ok(())
}

#[test]
fn a_reboot_with_a_read_only_ledger_leaves_no_link_open_and_what_passed_before_the_meter_is_told() -> Result<()> {
    let mut world = in_memory(1 << 20, 2 << 20)?;
    let mend = rebooted(&world)?;
    let flow = world.stream(600_000)?;
    flow.carries(200_000, SOON)?;
    let before = flow.so_far().delivered;
    world.start_agent(&[])?;
    says(&mut world, "its file system is read-only")?;
    let sent = flow.stalls(Duration::from_secs(1), PATIENCE)?.sent;
    ensure!(world.passed(0)? == 0 && world.kernel(0)?.uplink.refused.packets > 0, "{:?}", world.kernel(0)?);
    let epoch = world.datapath("wan0")?.epoch_id();
    mend()?;
    flow.carries(1_500_000, PATIENCE)?;
    assert_eq!(world.datapath("wan0")?.epoch_id(), epoch, "it goes on with the same meter");
    let told = world.link_status("wan0")?["unmetered_prefix_octets"].as_u64().context("unmetered_prefix_octets")?;
    // Headers make a twentieth.
    ensure!(told > before && told < sent + sent / 10, "{told} octets are told, {before} to {sent} had passed");
    ends_with_all_paid(world, flow)
}

#[test]
fn a_link_that_comes_while_the_agent_waits_for_its_ledger_is_metered_behind_a_shut_gate() -> Result<()> {
    let mut world = in_memory(1 << 20, 2 << 20)?;
    let mend = rebooted(&world)?;
    world.start_agent(&[])?;
    says(&mut world, "its file system is read-only")?;
    let meter = |world: &World| {
        let meters = world.topology.gateway.run_in(|| meters_on("wan0"))??;
        let [meter] = &meters[..] else { bail!("{} meters", meters.len()) };
        Ok(meter.epoch_id)
    };
    let first = eventually("the link to be metered", PATIENCE, || meter(&world))?;
    world.topology.remake(0)?;
    let second = eventually("the new link to be metered", PATIENCE, || meter(&world))?;
    assert_ne!(first, second);
    let flow = world.stream(600_000)?;
    eventually("the flow to be refused", PATIENCE, || {
        ensure!(world.kernel(0)?.uplink.refused.packets > 0, "nothing comes");
        Ok(())
    })?;
    ensure!(flow.so_far().delivered == 0 && world.passed(0)? == 0, "{:?}", flow.so_far());
    mend()?;
    flow.carries(500_000, PATIENCE)?;
    ends_with_all_paid(world, flow)
}

#[test]
fn a_ledger_that_somebody_holds_locked_is_waited_for() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 1 << 20)))?;
    let (books, flow) = world.under_traffic(600_000, 500_000)?;
    let other = Connection::open(ledger(&world))?;
    other.busy_timeout(SOON)?;
    other.execute_batch("BEGIN IMMEDIATE")?;
    says(&mut world, "the ledger cannot be written: another process holds it locked")?;
    stays_at_the_recorded_ceiling(&world, &flow, "locked")?;
    other.execute_batch("ROLLBACK")?;
    drop(other);
    flow.carries(1_500_000, PATIENCE)?;
    flow.stop()?;
    is_settled_to_the_octet(&mut world, books)
}

#[test]
fn a_ledger_deleted_under_traffic_is_written_anew_and_a_kill_after_that_loses_nothing() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 1 << 20)))?;
    let (books, flow) = world.under_traffic(600_000, 500_000)?;
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(ledger(&world).with_file_name(format!("ledger.db{suffix}")))?;
    }
    says(&mut world, "was removed or replaced under the agent")?;
    flow.carries(1_500_000, SOON)?;
    world.kill_agent()?;
    world.start_agent(&[])?;
    flow.carries(1_500_000, SOON)?;
    flow.stop()?;
    is_settled_to_the_octet(&mut world, books)?;
    assert_eq!(world.account(0)?.sessions.len(), 1, "the session went on");
    Ok(())
}

#[test]
fn a_table_lost_at_run_time_costs_no_session_that_can_still_be_read() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 1 << 20)))?;
    let (books, flow) = world.under_traffic(600_000, 500_000)?;
    Connection::open(ledger(&world))?.execute_batch("DROP TABLE history")?;
    says(&mut world, "the ledger was found damaged")?;
    flow.carries(1_500_000, PATIENCE)?;
    flow.stop()?;
    let status = world.status()?;
    let damage = status["ledger_damage"][0].as_str().unwrap_or_default();
    ensure!(damage.contains("ledger.db.damaged-1") && damage.contains("1 sessions were taken over whole"), "{status}");
    let text = String::from_utf8(world.weir_status(&[])?.stdout)?;
    ensure!(text.contains("DAMAGE: ") && text.contains("Move the file away"), "{text}");
    fs::remove_file(ledger(&world).with_file_name("ledger.db.damaged-1"))?;
    assert_eq!(world.status()?["ledger_damage"], serde_json::json!([]), "it was seen");
    is_settled_to_the_octet(&mut world, books)
}

#[test]
fn of_a_ledger_that_is_nothing_but_noise_the_loss_is_said_and_the_meter_goes_on() -> Result<()> {
    let mut world = World::online(&Plot::of(chunked(PLENTY, 1 << 20)))?;
    let (books, flow) = world.under_traffic(600_000, 500_000)?;
    flow.stop()?;
    books.agree(&world)?;
    world.kill_agent()?;
    let (debited, passed) = (world.account(0)?.debited(), world.passed(0)?);
    // The log too: a whole one would hold everything that is not in the database yet, and mend it.
    for suffix in ["", "-wal"] {
        fs::write(ledger(&world).with_file_name(format!("ledger.db{suffix}")), vec![0xA5_u8; 100_000])?;
    }
    starts(&mut world)?;
    let line = says(&mut world, "LOST TO THE RECORD")?;
    ensure!(line.contains("ledger.db.damaged-1"), "{line}");
    ensure!(world.status()?["ledger_damage"][0].is_string());
    let flow = world.stream(600_000)?;
    flow.carries(1_500_000, SOON)?;
    flow.stop()?;
    world.stop_agent()?;
    books.close(&world)?;
    // The new session began where the meter stood: from there on every octet is charged, once.
    assert_eq!(world.account(0)?.debited() - debited, world.passed(0)? - passed);
    Ok(())
}

#[test]
fn a_ledger_restored_from_an_old_copy_charges_nothing_twice_and_does_not_loop() -> Result<()> {
    let mut world = World::build(&Plot::of(chunked(PLENTY, 256 << 10)))?;
    world.start_agent(&["--keep"])?;
    world.reaches(0, &["active", "renewing", "final"])?;
    let (books, flow) = world.under_traffic(600_000, 600_000)?;
    world.stop_agent()?;
    let copy = world.workdir.path().join("copy.db");
    fs::copy(ledger(&world), &copy)?;
    world.start_agent(&["--keep"])?;
    flow.carries(1_000_000, SOON)?;
    flow.stop()?;
    world.stop_agent()?;
    let debited = world.account(0)?.debited();
    fs::copy(&copy, ledger(&world))?;
    world.start_agent(&[])?;
    // Numbers that the server knows with another content are refused: that message is set aside, and shown.
    let set_aside = eventually("the message that was refused to be set aside", PATIENCE, || {
        let set_aside = world.status()?["set_aside_octets"].as_u64().context("octets")?;
        ensure!(set_aside > 0, "nothing yet");
        Ok(set_aside)
    })?;
    world.reaches(0, &["active", "renewing", "final"])?;
    let passed = world.passed(0)?;
    ensure!(world.account(0)?.debited() <= passed, "nothing is charged twice");
    let flow = world.stream(600_000)?;
    flow.carries(600_000, SOON)?;
    flow.stop()?;
    world.stop_agent()?;
    books.close(&world)?;
    let (account, passed) = (world.account(0)?, world.passed(0)?);
    ensure!(account.debited() > debited && account.debited() <= passed, "{passed} passed: {account:?}");
    // What is not debited is in the message that was set aside.
    ensure!(passed - account.debited() <= set_aside, "{passed} passed, {set_aside} set aside: {account:?}");
    Ok(())
}

#[test]
fn a_ledger_in_memory_is_told_of() -> Result<()> {
    let mut world = in_memory(1 << 20, 2 << 20)?;
    starts(&mut world)?;
    let line = says(&mut world, "lies in memory")?;
    ensure!(line.contains("state/ledger.db"), "{line}");
    assert_eq!(world.status()?["ledger_persistent"], false);
    let text = String::from_utf8(world.weir_status(&[])?.stdout)?;
    ensure!(text.contains("LIES IN MEMORY"), "{text}");
    Ok(())
}

#[test]
fn seconds_to_sync_cost_time_and_nothing_else() -> Result<()> {
    let mut world = World::build(&Plot::of(chunked(PLENTY, 4 << 20)))?;
    world.start_agent_with(&[], &[("WEIR_DRILL_SLOW_SYNC", "1500")])?;
    world.reaches(0, &["active", "renewing", "final"])?;
    let books = Books::open(&world, 0)?;
    let flow = world.stream(400_000)?;
    flow.carries(3_000_000, PATIENCE)?;
    flow.stop()?;
    meanwhile(Duration::from_secs(2))?;
    let said = world.agent.as_ref().context("an agent")?.actor.stderr();
    ensure!(!said.contains("no answer"), "nothing is timed out: {said}");
    let mut agent = world.agent.take().context("an agent")?;
    let status = agent.actor.terminate(PATIENCE)?;
    ensure!(status.success(), "{status}");
    books.close(&world)?;
    let account = world.account(0)?;
    account.is_settled()?;
    assert_eq!(account.debited(), world.passed(0)?);
    Ok(())
}
