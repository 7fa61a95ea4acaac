//! What the loop does while the ledger cannot be written: gates stay as recorded, nothing is granted or sent, until it can be.
//!
//! An error of the storage leaves the cores ahead of the ledger, so none of them is asked anything more. Once the ledger takes
//! records again they are made anew from it and from the meters, exactly as after a crash: what was not recorded did not happen.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::mpsc;

use super::beforehand::Beforehand;
use super::supervisor::{Start, Supervisor};
use super::{Agent, Message, OnStop};
use crate::clock::{Moment, boot_id, boot_now};
use crate::config::Config;
use crate::ledger::{Ledger, Trouble, is_persistent, is_within_reach};
use crate::local::{Question, SCHEMA, Status, Timeline, Untold};
use crate::quota::StoredSession;
use crate::recording::Recorder;
use crate::units::BootInstant;

/// Between two looks at whether the ledger can be written again.
const RETRY: Duration = Duration::from_secs(1);

/// How often it is looked after the ledger's files when nothing is written to them.
const LOOK_AFTER: Duration = Duration::from_secs(10);

/// How the loop came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was told to stop, in this way.
    Told(OnStop),
    /// It was told to stop while the ledger could not be written.
    Suspended,
}

/// What came of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    /// The ledger can be written again.
    Over,
    /// Somebody told the agent to stop.
    Stopped,
}

impl Agent {
    /// Makes the agent, and waits for its storage if need be; `None` when it was told to stop before that.
    pub(super) async fn begin(
        (config, recorder, timeline): (&Config, &Recorder, &Timeline),
        (inbox, mail): (mpsc::UnboundedSender<Message>, &mut mpsc::UnboundedReceiver<Message>),
        supervisor: &mut Supervisor,
    ) -> Result<Option<Self>> {
        let mut told = None;
        let mut replaced = false;
        let mut seen = false;
        let mut beforehand: Option<Beforehand> = None;
        loop {
            let within_reach = is_within_reach(&config.ledger);
            let was_there = seen;
            seen |= within_reach.is_ok();
            let begun = match within_reach {
                // It was there a moment ago: no other one is begun in its place.
                Err(error) if was_there => Err(error),
                Ok(()) | Err(_) => Self::new(config.clone(), recorder.clone(), timeline.clone(), inbox.clone()).await,
            };
            let error = match begun {
                Ok(mut agent) => {
                    if let Some(beforehand) = &beforehand {
                        beforehand.tell(&mut agent);
                    }
                    return Ok(Some(agent));
                }
                Err(error) => error,
            };
            let Some(trouble) = Trouble::of(&error) else { return Err(error) };
            if trouble == Trouble::Damaged {
                // Opening it found nothing wrong, reading it did. A new one that is damaged as well is beyond us.
                ensure!(!std::mem::replace(&mut replaced, true), error);
                Ledger::open(&config.ledger, boot_id()?)?.replace_damaged(&error)?;
                continue;
            }
            let words = words(trouble);
            if told != Some(trouble) {
                tracing::error!(
                    "{words}; until it can be gates stay as they are, and a link without one gets one that is shut: {error:#}"
                );
                told = Some(trouble);
            }
            let watch = match &mut beforehand {
                Some(watch) => watch,
                None => beforehand.insert(Beforehand::new().await?),
            };
            watch.shut_gates(config).await?;
            supervisor.beat(boot_now()?);
            // Somebody has to see why; what waits for the start to be over need not wait for a disk.
            supervisor.hear(boot_now()?, Start::Over, &words);
            let pause = tokio::time::sleep(RETRY);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    biased;
                    _ = supervisor.wait() => return Ok(None),
                    message = mail.recv() => if let Some(Message::Asked(question)) = message {
                        answer_without_ledger(question, config, &words)?;
                    },
                    () = &mut pause => break,
                }
            }
        }
    }

    /// Works until told to stop, through all troubles of the storage.
    pub(super) async fn work(&mut self, supervisor: &mut Supervisor) -> Result<Ended> {
        let mut told = self.reconcile().map(|()| None);
        loop {
            match told {
                Ok(None) => {}
                Ok(Some(on_stop)) => return Ok(Ended::Told(on_stop)),
                Err(error) => match self.outlast(error, supervisor).await? {
                    Waited::Over => {}
                    Waited::Stopped => return Ok(Ended::Suspended),
                },
            }
            told = self.turn(supervisor).await;
        }
    }

    /// The sessions of the ledger; of a new one, with what could be salvaged, when it turns out to be damaged.
    pub(super) fn stored(&mut self) -> Result<Vec<StoredSession>> {
        match self.ledger.restore() {
            Err(error) if Trouble::of(&error) == Some(Trouble::Damaged) => {
                self.ledger.replace_damaged(&error)?;
                self.ledger.restore()
            }
            restored => restored,
        }
    }

    /// Says so when the ledger is gone with the next boot.
    pub(super) fn warn_of_memory(&self) {
        if !is_persistent(&self.config.ledger) {
            tracing::warn!(
                "the ledger {} lies in memory: a reboot loses what is not yet acknowledged; keep it on storage that lasts",
                self.config.ledger.display()
            );
        }
    }

    /// Looks after the ledger's files now and then: a commit does so by itself, but an idle agent makes none.
    pub(super) fn look_after_ledger(&mut self, now: BootInstant) -> Result<()> {
        if now < self.looked_at.plus(LOOK_AFTER) {
            return Ok(());
        }
        self.looked_at = now;
        self.ledger.keep_place()
    }

    /// Waits until the ledger can be written again, then begins anew from what is recorded. Any other error is given back.
    async fn outlast(&mut self, error: anyhow::Error, supervisor: &mut Supervisor) -> Result<Waited> {
        let since = boot_now()?;
        let mut error = error;
        let mut replaced = false;
        loop {
            let Some(trouble) = Trouble::of(&error) else { return Err(error) };
            let words = words(trouble);
            if self.trouble.as_ref() != Some(&words) {
                tracing::error!("{words}; gates stay as recorded, nothing more is granted until it can be: {error:#}");
                self.trouble = Some(words);
            }
            match trouble {
                Trouble::Full | Trouble::Locked | Trouble::Damaged => {}
                Trouble::ReadOnly | Trouble::Failing => {
                    // It may still be read, for the last time.
                    let _ = self.read_books();
                    self.ledger.let_go()?;
                }
                Trouble::Away => self.ledger.let_go()?,
            }
            if trouble == Trouble::Damaged {
                ensure!(!std::mem::replace(&mut replaced, true), error);
            } else if self.idle(supervisor).await? == Waited::Stopped {
                return Ok(Waited::Stopped);
            }
            match self.begin_anew(&error) {
                Ok(()) => break,
                Err(next) => error = next,
            }
        }
        let length = boot_now()?.since(since);
        tracing::info!(?length, "the ledger can be written: going on from what is recorded");
        self.trouble = None;
        Ok(Waited::Over)
    }

    /// Lets a moment pass. New links are metered behind a shut gate meanwhile; what comes in is kept for later, and answers are
    /// lost: the server gives them again.
    async fn idle(&mut self, supervisor: &mut Supervisor) -> Result<Waited> {
        self.report_to(supervisor)?;
        // Those that came while the loop was at something that failed as well.
        self.meter_new_links();
        let pause = tokio::time::sleep(RETRY);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                biased;
                _ = supervisor.wait() => return Ok(Waited::Stopped),
                changed = self.links.changed() => {
                    changed.context("the netlink watcher has ended")?;
                    self.meter_new_links();
                }
                message = self.mail.recv() => self.deal_without_ledger(message.context("the inbox is closed")?)?,
                () = &mut pause => return Ok(Waited::Over),
            }
        }
    }

    /// Deals with as much of a message as needs no record, and keeps the rest for later.
    pub(super) fn deal_without_ledger(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Answer { .. } | Message::Hint { .. } => Ok(()),
            Message::Asked(question) => self.answer(question),
            Message::Allow(list) => {
                if let Err(error) = self.set_allow_list(list) {
                    tracing::warn!("the server's addresses are remembered once the ledger is back: {error:#}");
                }
                Ok(())
            }
            Message::Portal { host, addresses } => self.portal_found(&host, addresses),
            Message::Attached { station, ifindex, result } => {
                self.attached_without_ledger(station, ifindex, result);
                Ok(())
            }
            Message::AttachAgain { station } => {
                self.stations[station].forget_failure();
                self.meter_new_links();
                Ok(())
            }
            later @ Message::News(_) => {
                self.deferred.push_back(later);
                Ok(())
            }
        }
    }

    /// Makes every core anew from the ledger and the meter in hand, as a restart would.
    fn begin_anew(&mut self, cause: &anyhow::Error) -> Result<()> {
        if Trouble::of(cause) == Some(Trouble::Damaged) {
            self.ledger.replace_damaged(cause)?;
        }
        self.ledger.probe()?;
        self.store_what_is_known()?;
        let stored = self.stored()?;
        self.take_up(stored)?;
        for station in 0..self.stations.len() {
            self.meter(station)?;
        }
        self.reconcile()
    }
}

impl Message {
    /// The same once more, for when the first could not be carried through; `None` for what comes again by itself.
    pub(super) fn again(&self) -> Option<Self> {
        match self {
            Self::News(news) => Some(Self::News(news.clone())),
            Self::AttachAgain { station } => Some(Self::AttachAgain { station: *station }),
            Self::Answer { .. }
            | Self::Attached { .. }
            | Self::Hint { .. }
            | Self::Allow(_)
            | Self::Portal { .. }
            | Self::Asked(_) => None,
        }
    }
}

fn words(trouble: Trouble) -> String {
    format!("the ledger cannot be written: {trouble}")
}

/// Answers what can be answered before there is a ledger.
fn answer_without_ledger(question: Question, config: &Config, trouble: &str) -> Result<()> {
    match question {
        // Whoever asked may have gone.
        Question::Status(reply) => drop(reply.send(bare_status(config, trouble.to_owned())?)),
        // Dropped, and so answered with "not now".
        Question::Account(_) | Question::Renew(..) | Question::Outlooks(_) => {}
        Question::Usage(_, reply) => drop(reply.send(Err(Untold::Failed(trouble.to_owned())))),
    }
    Ok(())
}

/// What there is to show before there is a ledger.
fn bare_status(config: &Config, trouble: String) -> Result<Status> {
    let moment = Moment::now()?;
    Ok(Status {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device: config.device.id.clone(),
        server: config.server.url.to_string(),
        onboarding: "not begun".to_owned(),
        at: moment.label.wall.to_string(),
        clock_synced: moment.label.synced,
        ledger_trouble: Some(trouble),
        ledger_persistent: is_persistent(&config.ledger),
        ..Status::default()
    })
}
