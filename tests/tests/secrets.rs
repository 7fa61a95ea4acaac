//! What must stay between the agent and its server: the claim code, the token and the device's key, in a whole run at the most talkative.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use e2e::eventually::eventually;
use e2e::netns::Namespace;
use e2e::scenario::{Plot, SOON, World, chunked};
use nix::libc;
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

const CLAIM_CODE: &str = "claim-4711-0815-weir";

/// Everything that crosses a link of a namespace, as octets one after the other.
struct Ear {
    done: Arc<AtomicBool>,
    heard: JoinHandle<Result<Vec<u8>>>,
}

impl Ear {
    fn listen(namespace: &Namespace) -> Result<Self> {
        let all = Protocol::from(i32::from(u16::try_from(libc::ETH_P_ALL)?.to_be()));
        let socket = namespace.run_in(|| Socket::new(Domain::PACKET, Type::DGRAM, Some(all)))?;
        let mut socket = socket.context("a socket that hears everything")?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let done = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&done);
        let heard = std::thread::spawn(move || {
            let (mut heard, mut packet) = (Vec::new(), vec![0; 0x1_0000]);
            while !is_over.load(Ordering::Relaxed) {
                if let Ok(length) = socket.read(&mut packet) {
                    heard.extend_from_slice(&packet[..length]);
                }
            }
            Ok(heard)
        });
        Ok(Self { done, heard })
    }

    fn tell(self) -> Result<Vec<u8>> {
        self.done.store(true, Ordering::Relaxed);
        self.heard.join().ok().context("the ear")?
    }
}

/// What stands between `before` and the next octet that is not of a token, wherever that is heard.
fn words_after(heard: &[u8], before: &str) -> Vec<String> {
    let starts =
        heard.windows(before.len()).enumerate().filter(|(_, octets)| octets.eq_ignore_ascii_case(before.as_bytes()));
    let word = |at: usize| {
        let rest = &heard[at + before.len()..];
        let end = rest.iter().position(|octet| !(octet.is_ascii_alphanumeric() || b"-._~+/=".contains(octet)));
        String::from_utf8_lossy(&rest[..end.unwrap_or(rest.len())]).into_owned()
    };
    starts.map(|(at, _)| word(at)).filter(|word| word.len() >= 16).collect()
}

#[test]
fn no_log_recording_status_or_process_list_tells_claim_code_token_or_key() -> Result<()> {
    let mut world = World::build(&Plot::of(chunked(50 << 20, 1 << 20)))?;
    world.admin.post("/admin/v1/claim-codes", &json!({ "claimCode": CLAIM_CODE }))?;
    world.workdir.write("claim-code", CLAIM_CODE)?;
    let config = std::fs::read_to_string(&world.config)?;
    let config = config.replace("[device]\n", "[device]\nclaim_code_file = \"claim-code\"\n");
    std::fs::write(&world.config, config)?;
    let ear = Ear::listen(&world.topology.internet)?;

    world.start_agent_with(&["--record", "weir.jsonl"], &[("RUST_LOG", "trace")])?;
    world.reaches(0, &["active"])?;
    let (books, flow) = world.under_traffic(400_000, 2 << 20)?;
    let pid = world.agent.as_ref().context("an agent")?.actor.pid();
    let mut told = vec![
        ("the process list", std::fs::read(format!("/proc/{pid}/cmdline"))?),
        ("the environment", std::fs::read(format!("/proc/{pid}/environ"))?),
        ("weir status", world.weir_status(&[])?.stdout),
        ("weir status --json", world.weir_status(&["--json"])?.stdout),
    ];
    // Errors are talkative too.
    let address = world.kill_server()?;
    eventually("the server to be missed", SOON, || {
        let said = world.agent.as_ref().context("an agent")?.actor.stderr();
        ensure!(said.contains("no answer"), "nothing is said of it");
        Ok(())
    })?;
    world.restart_server(address)?;
    world.reaches(0, &["active", "renewing"])?;
    flow.stop()?;
    world.settles_to_the_octet(books)?;

    let heard = ear.tell()?;
    let key = std::fs::read_to_string(world.workdir.path().join("device.pem"))?;
    let key = key.lines().nth(1).context("a key in device.pem")?.to_owned();
    let mut secrets = vec![CLAIM_CODE.to_owned(), key];
    ensure!(heard.windows(CLAIM_CODE.len()).any(|octets| octets == CLAIM_CODE.as_bytes()), "the code was not sent");
    for before in ["authorization: bearer ", "client_assertion="] {
        let words = words_after(&heard, before);
        ensure!(!words.is_empty(), "nothing was heard after {before:?}");
        secrets.extend(words);
    }
    for name in ["weir.err", "weir.out", "weir.jsonl"] {
        told.push((name, std::fs::read(world.workdir.path().join(name))?));
    }
    for (where_told, octets) in &told {
        for secret in &secrets {
            let is_told = octets.windows(secret.len()).any(|octets| octets == secret.as_bytes());
            ensure!(!is_told, "{where_told} tells a secret: {secret}");
        }
    }
    let logged = &told.iter().find(|(name, _)| *name == "weir.err").context("a log")?.1;
    ensure!(String::from_utf8_lossy(logged).contains("TRACE"), "the log was not at its most talkative");
    Ok(())
}
