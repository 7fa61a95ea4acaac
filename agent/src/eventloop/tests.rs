//! What the loop does with what comes in while its ledger cannot be written.

use std::net::SocketAddr;
use std::path::Path;

use rusqlite::Connection;
use tokio::sync::mpsc;

use super::enrol::News;
use super::{Agent, Message};
use crate::clock::Clock;
use crate::config::Config;
use crate::datapath::AllowList;
use crate::ledger::Trouble;
use crate::local::Timeline;
use crate::onboarding::{CommandKind, CommandNumber, ServerCommand};
use crate::quota::{SessionOpening, StoredSession, Trigger};
use crate::recording::Recorder;
use crate::units::{
    BootId, BootInstant, ChargingId, Epoch, Generation, LocalSequenceNumber, Octets, SubscriberIdentifier, UsedUnit,
};

/// An agent with a ledger in that directory and no link that exists.
async fn agent(directory: &Path) -> Agent {
    let text = format!(
        "[device]\nid = \"gw\"\n[server]\nurl = \"https://localhost:1\"\nonboarding = \"static\"\n\
         [ledger]\npath = \"{0}/ledger.db\"\n[datapath]\npin_root = \"{0}/pins\"\n\
         [[link]]\nname = \"none0\"\nsubscriber = \"imsi-001010000000001\"\nrating_group = 10\n",
        directory.display()
    );
    let config = Config::parse(&text, &directory.join("weir.toml")).expect("a configuration");
    let (inbox, _) = mpsc::unbounded_channel();
    Agent::new(config, Recorder::idle(), Timeline::new(Clock::default()), inbox).await.expect("an agent")
}

fn order(number: u64, kind: CommandKind) -> Message {
    Message::News(News::Commanded(ServerCommand { number: CommandNumber::new(number), kind, subscriber: None }))
}

fn at(addresses: &[&str]) -> AllowList {
    let servers: Vec<SocketAddr> = addresses.iter().map(|address| address.parse().expect("an address")).collect();
    AllowList { servers, resolvers: Vec::new() }
}

/// What the ledger remembers of the server's addresses.
fn remembered(agent: &Agent) -> String {
    agent.ledger.setting("server-addresses").expect("reads").unwrap_or_default()
}

#[tokio::test]
async fn an_order_that_fails_again_still_goes_before_the_one_that_came_after_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut agent = agent(directory.path()).await;
    let holder = Connection::open(directory.path().join("ledger.db")).expect("opens");
    holder.execute_batch("BEGIN IMMEDIATE").expect("locks");
    let error = agent.take(Some(order(5, CommandKind::Abort))).expect_err("locked");
    assert_eq!(Trouble::of(&error), Some(Trouble::Locked), "{error:#}");
    agent.deal_without_ledger(order(6, CommandKind::Reauthorise)).expect("kept for later");
    let first = agent.deferred.pop_front();
    agent.take(first).expect_err("locked again");
    holder.execute_batch("ROLLBACK").expect("lets go");
    while let Some(message) = agent.deferred.pop_front() {
        agent.take(Some(message)).expect("taken");
    }
    assert_eq!(agent.ledger.setting("last-command").expect("reads").as_deref(), Some("6"));
}

#[tokio::test]
async fn addresses_found_while_the_ledger_is_in_trouble_hold_at_once_and_are_remembered_later() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut agent = agent(directory.path()).await;
    let found = at(&["192.0.2.1:443", "[2001:db8::1]:443"]);
    agent.ledger.let_go().expect("closed");
    agent.deal_without_ledger(Message::Allow(found.clone())).expect("no reason to end");
    assert_eq!(agent.allow, found);
    assert_eq!(*agent.servers.borrow(), found.servers.iter().map(SocketAddr::ip).collect::<Vec<_>>());
    agent.ledger.probe().expect("can be written");
    assert_eq!(remembered(&agent), "");
    agent.store_what_is_known().expect("stored");
    assert!(remembered(&agent).contains("192.0.2.1:443"), "{}", remembered(&agent));
}

/// A name with many addresses tells them in another order each time.
#[tokio::test]
async fn the_same_addresses_in_another_order_are_no_news() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut agent = agent(directory.path()).await;
    agent.set_allow_list(at(&["192.0.2.1:443", "192.0.2.2:443"])).expect("allowed");
    let (before, mut servers) = (remembered(&agent), agent.servers.subscribe());
    agent.set_allow_list(at(&["192.0.2.2:443", "192.0.2.1:443"])).expect("allowed");
    assert_eq!(remembered(&agent), before);
    assert!(!servers.has_changed().expect("kept"));
    agent.set_allow_list(at(&["192.0.2.2:443"])).expect("allowed");
    assert!(servers.has_changed().expect("kept"));
    assert_eq!(*servers.borrow_and_update(), [std::net::IpAddr::from([192, 0, 2, 2])]);
}

#[tokio::test]
async fn no_units_are_asked_for_while_another_core_owes_a_report_of_what_the_server_has_lost_of_the_sim() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut agent = agent(directory.path()).await;
    let lost = |subscriber: &str| StoredSession {
        orphaned: true,
        closed: UsedUnit::new(8_000_000, 0),
        pending: vec![Octets::new(8_000_000)],
        closing: Some(Trigger::AbnormalRelease),
        settled: true,
        next_container: LocalSequenceNumber::new(2),
        ..StoredSession::opened(SessionOpening {
            session: ChargingId::new(9),
            subscriber: SubscriberIdentifier::new(subscriber),
            epoch: Epoch { boot: BootId::new("before"), generation: Generation::new(1) },
            base: UsedUnit::ZERO,
            base_throttled: UsedUnit::ZERO,
            opened_at: BootInstant::from_nanos(0),
        })
    };
    let [link, past] = [0, 1];
    assert!(agent.stations[link].sim.is_some() && agent.stations[past].name.is_none());
    for (subscriber, waits) in [("imsi-001010000000001", true), ("imsi-001010000000002", false)] {
        let owes = agent.core("past", vec![lost(subscriber)], agent.default_terms(), None).expect("a core");
        agent.stations[past].quota = owes;
        agent.name(link).expect("asked");
        assert_eq!(agent.stations[link].is_kept_waiting, waits, "{subscriber}");
        agent.name_those_kept_waiting().expect("asked");
        assert_eq!(agent.stations[link].is_kept_waiting, waits, "nothing was reported yet");
        agent.stations[past].quota = agent.core("past", Vec::new(), agent.default_terms(), None).expect("a core");
        agent.name_those_kept_waiting().expect("named");
        assert!(!agent.stations[link].is_kept_waiting, "all is booked");
    }
}
