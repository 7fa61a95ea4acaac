//! Onboarding beside the loop: registers, binds, fetches the plan, and waits for commands, again and again until told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::mpsc;

use super::pace::{Pace, Told};
use super::station::Attachment;
use super::{Agent, LONGEST_SLEEP, Message};
use crate::clock::{boot_now, until};
use crate::config::OnboardingMode;
use crate::local::{Kind, Tidings};
use crate::onboarding::{
    Binding, CommandKind, CommandNumber, DeviceKey, Modem, Onboarding, OnboardingError, Plan, PlanAnswer,
    ServerCommand, not_sent,
};
use crate::quota::Event;
use crate::reporter::{Http, Route};
use crate::units::SubscriberIdentifier;

/// How long the server holds a question for commands.
const WAIT: Duration = Duration::from_secs(30);
/// The first pause after a failure, and the longest.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_LAST: Duration = Duration::from_mins(5);
/// Setting of the ledger that holds the number of the last command carried out.
const LAST_COMMAND: &str = "last-command";
/// Setting of the ledger that says which device was registered.
const REGISTERED: &str = "registered";

/// What onboarding has learned.
#[derive(Clone)]
pub(super) enum News {
    /// How far it has come, in words.
    Progress(String),
    /// What it has failed at, in words; it is tried again.
    Hindered(String),
    /// All is bound, and the plan is known.
    Complete,
    /// The device is registered.
    Registered,
    /// A SIM was bound to a slot.
    Bound(Binding),
    /// The plan.
    Planned(Plan),
    /// The server wants something done.
    Commanded(ServerCommand),
}

/// The client that logs in, shared with those who send; `None` with static onboarding.
pub(super) type Login = Option<Arc<Onboarding>>;

impl Agent {
    /// Makes the client, and the device's key on the first start.
    pub(super) fn log_in(config: &crate::config::Config, http: &Http) -> Result<Login> {
        if config.server.onboarding == OnboardingMode::Static {
            return Ok(None);
        }
        let key = DeviceKey::load_or_create(&config.device.key_file)?;
        Ok(Some(Arc::new(Onboarding::new(http.clone(), config.device.clone(), key))))
    }

    /// Gets onboarding ready; it begins once the links that are there are metered.
    pub(super) fn prepare_onboarding(&mut self) -> Result<()> {
        let Some(client) = self.login.clone() else {
            "static (from the configuration)".clone_into(&mut self.onboarding);
            return Ok(());
        };
        let after = self.ledger.setting(LAST_COMMAND)?.map(|number| number.parse()).transpose();
        let enrolment = Enrolment {
            client,
            modems: self.config.links.iter().map(Modem::from).collect(),
            registered: self.ledger.setting(REGISTERED)?.as_deref() == Some(self.config.device.id.as_str()),
            claim_code: self.claim_code()?,
            after: CommandNumber::new(after.context("reading the last command's number from the ledger")?.unwrap_or(0)),
            pace: Pace::default(),
            inbox: self.inbox.clone(),
        };
        self.enrolment = Some(enrolment);
        Ok(())
    }

    /// Begins onboarding beside the loop, unless a meter is still being attached.
    pub(super) fn begin_onboarding(&mut self) {
        let pending = self.stations.iter().any(|station| matches!(station.attachment, Attachment::Pending(_)));
        if !pending && let Some(enrolment) = self.enrolment.take() {
            tokio::spawn(enrolment.run());
        }
    }

    fn claim_code(&self) -> Result<Option<String>> {
        let Some(path) = &self.config.device.claim_code_file else { return Ok(None) };
        let code =
            std::fs::read_to_string(path).with_context(|| format!("reading the claim code in {}", path.display()))?;
        Ok(Some(code.trim().to_owned()))
    }

    /// Takes what onboarding has learned.
    pub(super) fn learn(&mut self, news: News) -> Result<()> {
        match news {
            News::Progress(words) => {
                self.note_onboarding(words);
                Ok(())
            }
            News::Hindered(words) => {
                self.onboarding_trouble = Some(words.clone());
                self.note_onboarding(words);
                Ok(())
            }
            News::Complete => {
                self.onboarding_trouble = None;
                self.note_onboarding("done; waiting for commands".to_owned());
                Ok(())
            }
            News::Registered => {
                self.ledger.set_setting(LAST_COMMAND, "0")?;
                self.ledger.set_setting(REGISTERED, &self.config.device.id)?;
                // What waits for want of a token need not wait longer.
                (0..self.stations.len()).try_for_each(|station| self.tell(station, Event::RouteUp))
            }
            News::Bound(binding) => {
                tracing::info!(slot = binding.slot, subscriber = %binding.subscriber, apn = binding.apn, "SIM bound");
                let words = format!("slot {} has the SIM of {}", binding.slot, binding.subscriber);
                self.timeline.note(None, Tidings::new(Kind::Notice, words));
                self.bound(binding)
            }
            News::Planned(plan) => self.planned(plan),
            News::Commanded(command) => self.obey(&command),
        }
    }

    fn note_onboarding(&mut self, words: String) {
        tracing::info!("onboarding: {words}");
        self.timeline.note(None, Tidings::new(Kind::Notice, format!("onboarding: {words}")));
        self.onboarding = words;
    }

    /// Carries out what concerns the sessions; the rest onboarding has done already.
    fn obey(&mut self, command: &ServerCommand) -> Result<()> {
        tracing::info!(number = command.number.get(), kind = ?command.kind, "command from the server");
        match command.kind {
            CommandKind::Reauthorise => self.tell_of(command.subscriber.as_ref(), Event::Reauthorise)?,
            CommandKind::Abort => self.tell_of(command.subscriber.as_ref(), Event::Abort)?,
            CommandKind::Switch | CommandKind::PlanChanged | CommandKind::Unknown => {}
        }
        self.ledger.set_setting(LAST_COMMAND, &command.number.get().to_string())
    }

    /// Tells every core of that SIM, or of every SIM there is when none is named.
    fn tell_of(
        &mut self,
        subscriber: Option<&SubscriberIdentifier>,
        event: impl Fn(SubscriberIdentifier) -> Event,
    ) -> Result<()> {
        let meant: BTreeSet<_> = match subscriber {
            Some(subscriber) => BTreeSet::from([subscriber.clone()]),
            None => self.sims.values().map(|sim| sim.subscriber.clone()).chain(self.ledger.aborted()?).collect(),
        };
        for subscriber in meant {
            for station in 0..self.stations.len() {
                self.tell(station, event(subscriber.clone()))?;
            }
        }
        Ok(())
    }
}

/// Whether a command is about what was bound or bought.
const fn calls_for_the_plan(command: &ServerCommand) -> bool {
    match command.kind {
        CommandKind::Switch | CommandKind::PlanChanged | CommandKind::Reauthorise => true,
        CommandKind::Abort | CommandKind::Unknown => false,
    }
}

/// Whether the server does not know the device: another server than the one it was registered with, or one that lost its books.
/// To register again is harmless where it is known after all.
fn is_unknown(error: &OnboardingError) -> bool {
    match error {
        OnboardingError::Unanswered { .. } => false,
        OnboardingError::Refused { cause, .. } => cause == "invalid_client" || cause == "DEVICE_NOT_FOUND",
    }
}

/// Waits on boot time: a pause that the server or the back-off asks for goes on while the machine is suspended, and tokio's clock stands
/// still then.
async fn rest(pause: Duration) {
    let Ok(end) = boot_now().map(|now| now.plus(pause)) else { return tokio::time::sleep(pause).await };
    while let Some(left) = boot_now().ok().map(|now| until(end, now)).filter(|left| !left.is_zero()) {
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
}

/// The task beside the loop.
pub(super) struct Enrolment {
    client: Arc<Onboarding>,
    modems: Vec<Modem>,
    registered: bool,
    claim_code: Option<String>,
    after: CommandNumber,
    pace: Pace,
    inbox: mpsc::UnboundedSender<Message>,
}

impl Enrolment {
    /// Goes on until the loop is gone: from the step that failed, after a pause.
    async fn run(mut self) {
        let mut pause = PAUSE_FIRST;
        while !self.inbox.is_closed() {
            let Err(error) = self.enrol_and_wait(&mut pause).await else { continue };
            if is_unknown(&error) {
                self.registered = false;
            }
            self.tell(News::Hindered(format!("{error}; trying again")));
            let asked = match &error {
                OnboardingError::Unanswered { retry_after, .. } => retry_after.unwrap_or_default(),
                OnboardingError::Refused { .. } if is_unknown(&error) => PAUSE_FIRST,
                OnboardingError::Refused { .. } => PAUSE_FIRST * 10,
            };
            let jittered = pause.mul_f64(0.5 + fastrand::f64());
            rest(jittered.max(asked).min(PAUSE_LAST)).await;
            pause = (pause * 2).min(PAUSE_LAST);
        }
    }

    async fn enrol_and_wait(&mut self, pause: &mut Duration) -> Result<(), OnboardingError> {
        let route = Route::Routed;
        if !self.registered {
            self.tell(News::Progress("registering the device".to_owned()));
            self.client.register(&route, &self.modems, self.claim_code.as_deref()).await?;
            self.registered = true;
            // A server that did not know the device numbers its commands from the beginning.
            self.after = CommandNumber::new(0);
            self.tell(News::Registered);
        }
        let mut complete = self.bind_and_plan(&route).await?;
        loop {
            let asked_at = boot_now().map_err(not_sent)?;
            let commands = self.client.commands(&route, self.after, WAIT).await?;
            *pause = PAUSE_FIRST;
            if self.inbox.is_closed() {
                return Ok(());
            }
            let took = boot_now().map_err(not_sent)?.since(asked_at);
            // One that was carried out already is only told again because the server has forgotten that.
            let new: Vec<_> = commands.into_iter().filter(|command| command.number > self.after).collect();
            let told = if new.is_empty() { Told::Nothing } else { Told::News };
            // However many commands call for it, binding and plan are as the server has them now. Where they cannot be had, the
            // commands are carried out all the same: an order to abort does not wait for a plan.
            let refreshed = if complete && !new.iter().any(calls_for_the_plan) {
                Ok(true)
            } else {
                self.bind_and_plan(&route).await
            };
            for command in new {
                self.after = self.after.max(command.number);
                self.tell(News::Commanded(command));
            }
            complete = refreshed?;
            rest(self.pace.pause(took, told)).await;
        }
    }

    /// Binds every slot and fetches the plan. One slot that is refused a SIM does not keep the others waiting; false = not all have one.
    async fn bind_and_plan(&self, route: &Route) -> Result<bool, OnboardingError> {
        let mut bindings = Vec::new();
        let mut refused = Vec::new();
        for modem in &self.modems {
            match self.client.bind(route, modem).await {
                Ok(binding) => bindings.push(binding),
                Err(error @ OnboardingError::Refused { status: 409, .. }) => {
                    refused.push(format!("slot {}: {error}", modem.slot));
                }
                Err(error) => return Err(error),
            }
        }
        // The plan first: a SIM is used under the terms of its package from its first octet.
        if let PlanAnswer::Changed { plan, etag: _ } = self.client.plan(route, None).await? {
            self.tell(News::Planned(plan));
        }
        for binding in bindings {
            self.tell(News::Bound(binding));
        }
        let complete = refused.is_empty();
        self.tell(if complete { News::Complete } else { News::Hindered(refused.join("; ")) });
        Ok(complete)
    }

    fn tell(&self, news: News) {
        // The loop may have ended; `run` notices.
        let _ = self.inbox.send(Message::News(news));
    }
}
