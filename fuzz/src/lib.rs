//! One function a target: takes any octets, and fails by a panic when what they reach breaks a promise.

// The programs' own modules are compiled here for the host, and find this crate in the place of `aya_ebpf`.
extern crate self as aya_ebpf;

mod bench;
mod kernel;
mod measured;

// The programs.
#[path = "../../agent-ebpf/src/locate.rs"]
#[expect(dead_code, reason = "the gate asks for the rest")]
mod locate;
#[path = "../../agent-ebpf/src/packet.rs"]
mod packet;
#[path = "../../agent-ebpf/src/plain.rs"]
mod plain;
#[path = "../../agent-ebpf/src/transport.rs"]
#[expect(dead_code, reason = "the gate asks for the rest")]
mod transport;
#[path = "../../agent-ebpf/src/tunnel.rs"]
mod tunnel;

// What they are held against.
#[path = "../../tests/tests/packets/forged/model.rs"]
#[expect(dead_code, reason = "the number of segments is for those who send packets through the kernel")]
mod model;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use agent::config::Config;
use agent::quota::{FilterAction, FilterDirection, MOST_FILTERS, Operation, Outcome, rule, rules};
use agent::recording::{Verdict, replay};
use agent::reporter::{Expected, Reply, as_retransmission, decode, pause_asked};
use agent::units::{InvocationSequenceNumber, Octets, RatingGroup};

pub use kernel::{bindings, helpers, programs};
pub use measured::packet;

/// A configuration file is right, or each of its problems has a line of its own.
pub fn config(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    match Config::parse(text, Path::new("/etc/weir/weir.toml")) {
        Ok(config) => assert!(!config.links.is_empty(), "a configuration without links is right"),
        Err(error) => {
            let lines = 1 + text.bytes().filter(|octet| *octet == b'\n').count();
            let told = error.to_string();
            assert!(!told.is_empty(), "wrong, and nobody is told why");
            for problem in told.split("\n/etc/weir/weir.toml:") {
                let problem = problem.trim_start_matches("/etc/weir/weir.toml:");
                let line = problem.split(':').next().and_then(|number| number.parse::<usize>().ok());
                assert!(line.is_some_and(|line| (1..=lines).contains(&line)), "no line of the file: {told}");
            }
        }
    }
}

/// Answers of the charging server and of its onboarding. The first octets choose what was asked.
pub fn answers(octets: &[u8]) {
    let Some(([operation, status, location], body)) = octets.split_first_chunk() else { return };
    let operations = [Operation::Create, Operation::Update, Operation::Release, Operation::Event];
    let statuses = [200, 201, 204, 302, 307, 400, 401, 403, 404, 408, 429, 500, 503, 504, 999];
    let expected = Expected {
        operation: operations[usize::from(*operation) % operations.len()],
        number: InvocationSequenceNumber::new(1),
        rating_group: RatingGroup::new(10),
        requested: (*operation < 128).then(|| Octets::new(1 << 20)),
    };
    let text = String::from_utf8_lossy(body);
    let reply = Reply {
        status: statuses[usize::from(*status) % statuses.len()],
        location: (*location > 0).then(|| text.chars().take(usize::from(*location)).collect()),
        body: body.to_vec(),
        ..Reply::default()
    };
    match decode(&expected, &reply) {
        Outcome::Answered(answer) => {
            assert_eq!(
                answer.session_ref.is_some(),
                expected.operation == Operation::Create,
                "named at the wrong time"
            );
            if let Some(named) = answer.session_ref {
                let fine = |octet: u8| octet.is_ascii_graphic() && !b"/?#\"<>\\^`{|}".contains(&octet);
                assert!(named.as_str().bytes().all(fine), "{named} goes into a path as it is");
            }
        }
        Outcome::Rejected { cause: words, .. }
        | Outcome::NotTaken { reason: words, .. }
        | Outcome::Unanswered { reason: words, .. } => {
            assert!(!words.contains(char::is_control) && words.chars().count() < 300, "not fit for a log: {words:?}");
        }
        _ => {}
    }
    agent::onboarding::read_answers(body);
    let (wait, date) = text.split_once('\n').unwrap_or((&text, ""));
    assert!(pause_asked(wait, date).is_none_or(|pause| pause.as_secs() <= 86_400), "a pause of more than a day");
    let again = as_retransmission(body);
    assert!(again.len() >= body.len(), "a message has become shorter");
}

/// Filter rules, a line each. What is read says what was written, and no more.
pub fn filter(octets: &[u8]) {
    let Ok(text) = std::str::from_utf8(octets) else { return };
    for line in text.lines() {
        let Ok(read) = rule(line) else { continue };
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let action = if read.action == FilterAction::Permit { "permit" } else { "deny" };
        let direction = if read.direction == FilterDirection::Uplink { "in" } else { "out" };
        assert_eq!(words[..2], [action, direction]);
        let protocol = read.protocol.map_or_else(|| "ip".to_owned(), |number| number.to_string());
        assert_eq!(words[2].trim_start_matches('0'), protocol.trim_start_matches('0'), "{line}");
        for end in [&read.local, &read.remote] {
            let most = |address: &IpAddr| if address.is_ipv4() { 32 } else { 128 };
            assert!(end.prefix.iter().all(|(address, length)| *length <= most(address)), "{line}");
            assert!(end.ports.iter().all(|ports| ports.start() <= ports.end()), "{line}");
            let is_written = |port: &u16| line.contains(&port.to_string());
            assert!(end.ports.iter().all(|ports| is_written(ports.start()) && is_written(ports.end())), "{line}");
        }
    }
    if let Ok(list) = rules(text.lines()) {
        assert!(list.len() <= MOST_FILTERS + 2, "{} rules", list.len());
    }
}

/// Datagrams of netlink.
pub fn netlink(octets: &[u8]) {
    agent::datapath::hear_of_filters(octets);
    let servers = [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | 1))];
    let links = agent::link::hear(octets, servers.to_vec());
    let ways = links.ways_out("wwan0", &servers, |name| name.starts_with("wwan"), |name| (name == "eth0").then_some(0));
    assert!(ways.len() <= links.by_index.len(), "more ways than links");
}

/// Lines of a recording, which a stranger may have sent with a bug report.
pub fn recording(octets: &[u8]) {
    let played = replay(octets, &mut |_| {}).expect("octets in memory can be read");
    let lines = 1 + octets.iter().filter(|octet| **octet == b'\n').count() as u64;
    match played.verdict {
        Verdict::Same { .. } => {}
        Verdict::Parts(parting) => assert!(parting.told_line <= parting.line && parting.line <= lines),
        Verdict::Damaged { line, what } => assert!(line <= lines && !what.is_empty()),
    }
}
