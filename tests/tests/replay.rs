//! What a real agent was told and did is recorded, and its core does the same again.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::eventually::eventually;
use e2e::scenario::{Plot, RECORDED, RECORDING, SOON, World, chunked};
use e2e::topology::HOST_V4;
use e2e::traffic::{Datagrams, udp};
use serde_json::Value;

/// Time for retries with their back-off.
const PATIENCE: Duration = Duration::from_secs(40);

/// Two lives under traffic: answers that are lost, a crash, another agent, an end.
fn two_lives(world: &mut World) -> Result<()> {
    world.fault("update", "drop-answer", 2)?;
    world.start_agent(&RECORDED)?;
    world.reaches(0, &["active", "renewing"])?;
    let flow = udp(&world.topology.client, (&world.topology.internet, HOST_V4), Datagrams::endless(600_000, 1000))?;
    eventually("two answers to be lost", PATIENCE, || {
        ensure!(world.struck()? == 2, "not yet");
        Ok(())
    })?;
    let so_far = flow.so_far().delivered;
    eventually("units after two lost answers", PATIENCE, || {
        ensure!(flow.so_far().delivered > so_far + 1_500_000, "{:?}", flow.so_far());
        Ok(())
    })?;
    world.kill_agent()?;
    world.start_agent(&RECORDED)?;
    world.reaches(0, &["active", "renewing"])?;
    flow.carries(1_000_000, SOON)?;
    flow.stop()?;
    world.stop_agent()
}

/// Counts one octet more in a reading that had a container closed at once. Answers the recording and the line of that container.
fn with_one_octet_more(recording: &str) -> Result<(String, usize)> {
    let mut lines = recording.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let is_container = |line: &Value| {
        let command = line["command"]["command"].as_str();
        command.is_some_and(|command| command.starts_with("Record(ContainerClosed"))
    };
    let at = (1..lines.len())
        .find(|at| is_container(&lines[*at]) && lines[*at - 1]["event"]["event"]["reading"].is_object())
        .context("a container right behind a reading")?;
    let uplink = &mut lines[at - 1]["event"]["event"]["reading"]["passed"]["uplink"];
    *uplink = (uplink.as_u64().context("a number")? + 1).into();
    let changed: Vec<_> = lines.iter().map(Value::to_string).collect();
    Ok((changed.join("\n") + "\n", at + 1))
}

/// The device's key is known. A token of the server's is not, but it is a word of 43 characters; no name and no number is as long.
fn holds_no_secret(world: &World, recording: &str) -> Result<()> {
    let key = std::fs::read_to_string(world.workdir.path().join("device.pem"))?;
    let key: Vec<_> = key.lines().filter(|line| !line.starts_with('-')).collect();
    let server = rusqlite::Connection::open(world.workdir.path().join("server.db"))?;
    let tokens: u32 = server.query_row("SELECT count(*) FROM tokens", [], |row| row.get(0))?;
    ensure!(!key.is_empty() && tokens > 0, "there are secrets to be kept");
    for line in recording.lines() {
        ensure!(key.iter().all(|part| !line.contains(part)), "the key is in {line}");
        let words = line.split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '_');
        ensure!(words.clone().all(|word| word.len() < 43), "a token may be in {line}");
    }
    Ok(())
}

#[test]
fn what_an_agent_did_before_and_after_a_crash_is_done_again_and_an_octet_more_is_noticed() -> Result<()> {
    let mut world = World::build(&Plot::of(chunked(1 << 30, 1 << 20)))?;
    two_lives(&mut world)?;
    let recording = std::fs::read_to_string(world.workdir.path().join(RECORDING))?;
    holds_no_secret(&world, &recording)?;

    let played = world.weir_replay(&[RECORDING])?;
    let words = String::from_utf8_lossy(&played.stdout).into_owned();
    assert!(played.status.success() && words.starts_with("2 lives, ") && words.ends_with(": the same\n"), "{played:?}");
    let played = world.weir_replay(&["--json", RECORDING])?;
    let told: Value = serde_json::from_slice(&played.stdout)?;
    let count = |kinds: &[&str]| {
        let begins = |line: &&str| kinds.iter().any(|kind| line.starts_with(&format!("{{\"{kind}\":")));
        recording.lines().filter(begins).count()
    };
    assert_eq!((&told["same"], &told["lives"]), (&true.into(), &2.into()), "{told}");
    assert_eq!(told["events"], count(&["event", "timeout"]), "{told}");
    assert_eq!(told["commands"], count(&["command"]), "{told}");
    assert!(count(&["command"]) > 50, "{told}");

    let (changed, line) = with_one_octet_more(&recording)?;
    world.workdir.write("changed.jsonl", &changed)?;
    let played = world.weir_replay(&["changed.jsonl"])?;
    let words = String::from_utf8_lossy(&played.stdout).into_owned();
    assert_eq!(played.status.code(), Some(1), "{played:?}");
    assert!(words.starts_with(&format!("changed.jsonl:{line}: wan0 at ")), "{words}");
    assert!(
        words.contains("  recorded  Record(ContainerClosed") && words.contains("  this core Record(ContainerClosed"),
        "{words}"
    );
    assert_eq!(world.weir_replay(&["nowhere.jsonl"])?.status.code(), Some(64));
    Ok(())
}

#[test]
fn an_agent_that_cannot_record_says_so_and_meters_all_the_same() -> Result<()> {
    let mut world = World::build(&Plot::of(chunked(1 << 30, 1 << 20)))?;
    world.start_agent(&["--record", "no-such-directory/weir.jsonl"])?;
    let agent = world.agent.as_mut().context("an agent")?;
    agent.actor.wait_for_line("nothing is recorded", SOON)?;
    world.reaches(0, &["active"])?;
    world.stop_agent()
}
