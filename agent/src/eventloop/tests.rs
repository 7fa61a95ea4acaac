//! What the loop does with what comes in while its ledger cannot be written.

use std::path::Path;

use rusqlite::Connection;
use tokio::sync::mpsc;

use super::enrol::News;
use super::{Agent, Message};
use crate::clock::Clock;
use crate::config::Config;
use crate::ledger::Trouble;
use crate::local::Timeline;
use crate::onboarding::{CommandKind, CommandNumber, ServerCommand};
use crate::recording::Recorder;

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
