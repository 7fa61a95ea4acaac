//! One `select!` that owns everything: hands events to the core of each link and carries out its commands. It decides nothing.

mod addresses;
mod balance;
mod beforehand;
mod carry;
mod ears;
mod enrol;
mod metering;
mod orders;
mod outlook;
mod pace;
mod portals;
mod progress;
mod reconcile;
mod rename;
mod sims;
mod station;
mod status;
mod storage;
mod supervisor;
mod takeover;
mod tidings;
mod trend;
mod unmetered;
mod usage;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use crate::clock::{Clock, boot_id, boot_now, until};
use crate::config::Config;
use crate::datapath::{AllowList, LinkClaim, Loaded, PinRootClaim};
use crate::drill::{self, Point};
use crate::ledger::Ledger;
use crate::link::{self, Links};
use crate::local::{Question, Timeline};
use crate::onboarding::{Binding, Plan};
use crate::quota::{Event, MessageKey, Outcome};
use crate::recording::{self, Recorder};
use crate::reporter::{Http, HttpSettings, Reporter};
use crate::units::{BootId, BootInstant};
use balance::Told;
use enrol::{Enrolment, Login, News};
use portals::Portals;
use progress::Progress;
use sims::Charged;
pub(crate) use station::reading;
use station::{Attachment, Sim, Station};
use status::Books;
use storage::Ended;
use supervisor::Supervisor;
use unmetered::UnmeteredBook;
use usage::History;

/// The loop looks around at least this often, so that time spent suspended is noticed.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

/// The meters are looked after this often: whether they are still where they were attached.
const LOOK: Duration = Duration::from_secs(5);

/// Each costs 40 MiB for a moment.
const LOADERS: usize = 2;

/// A second order to stop within this time is the first one heard twice.
const ONE_WISH: Duration = Duration::from_secs(1);

/// What reaches the loop from the tasks it has started.
enum Message {
    /// An attempt to send came to something.
    Answer { station: usize, key: MessageKey, attempt: u32, outcome: Outcome },
    /// A loader is done.
    Attached { station: usize, ifindex: u32, result: Result<Loaded> },
    /// A meter that could not be attached is due for another try.
    AttachAgain { station: usize },
    /// The kernel hinted at something.
    Hint { station: usize },
    /// Onboarding has learned something.
    News(News),
    /// The server's addresses were looked up.
    Allow(AllowList),
    /// A portal's name was looked up.
    Portal { host: String, addresses: Vec<IpAddr> },
    /// Somebody asks over the local API.
    Asked(Question),
}

/// How the agent stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStop {
    /// Settles every session, bounded by `shutdown_wait`, and shuts the gates.
    Settle,
    /// Leaves pins, gates and sessions to the next start (an upgrade).
    Keep,
}

/// The agent.
pub struct Agent {
    config: Config,
    boot: BootId,
    ledger: Ledger,
    recorder: Recorder,
    http: Http,
    clock: Clock,
    /// What has happened lately, for people.
    timeline: Timeline,
    reporter: Arc<Reporter>,
    login: Login,
    links: watch::Receiver<Links>,
    /// The server's addresses: routes to them are kept among the links.
    servers: watch::Sender<Vec<IpAddr>>,
    /// The links as they were when the connections to the server were last looked at.
    known_links: Links,
    stations: Vec<Station>,
    /// Keeps a second agent from these pins; none where no pin can be made.
    pin_root_claim: Option<PinRootClaim>,
    /// Keeps a second agent from these links, by index.
    claims: BTreeMap<u32, LinkClaim>,
    plan: Plan,
    /// When the server told the plan.
    told: Told,
    /// By SIM slot.
    bindings: BTreeMap<String, Binding>,
    /// By SIM slot.
    sims: BTreeMap<String, Sim>,
    charged: Charged,
    allow: AllowList,
    /// Where the portals are that people are led to.
    portals: Portals,
    /// Told when a message was not answered: the server may be somewhere else now.
    doubt: Arc<Notify>,
    /// The interfaces under a meter, for whoever tells senders of refusals.
    metered: watch::Sender<BTreeSet<u32>>,
    /// So many loaders may be at work at once.
    loaders: Arc<Semaphore>,
    unmetered: UnmeteredBook,
    history: History,
    /// Settling for a stop: nothing new is begun.
    stopping: bool,
    /// When the meters are looked after next.
    look_at: BootInstant,
    onboarding: String,
    /// What the last try of onboarding failed at, in words; `None` while nothing has failed.
    onboarding_trouble: Option<String>,
    /// Onboarding that waits for the links that are there to be metered: its own octets are to be counted too.
    enrolment: Option<Enrolment>,
    inbox: mpsc::UnboundedSender<Message>,
    mail: mpsc::UnboundedReceiver<Message>,
    /// What came in while the ledger could not be written, or could not be carried through then: goes before the mail.
    deferred: VecDeque<Message>,
    /// Why the ledger cannot be written, in words; `None` while it can.
    trouble: Option<String>,
    /// The ledger's books as they were last read.
    books: Books,
    /// How far a long backlog has come, and when that was last looked at.
    progress: Progress,
    progress_at: BootInstant,
    /// When the ledger's files were last looked after.
    looked_at: BootInstant,
}

/// Runs the agent until it is told to stop: by SIGTERM and SIGINT as `on_stop` says, by SIGUSR1 with everything left as it is (an
/// upgrade). What the cores are told and answer is recorded into `record`;
/// what people should know goes to the timeline.
pub async fn run(config: Config, on_stop: OnStop, record: Option<&Path>, timeline: Timeline) -> Result<()> {
    let mut supervisor = Supervisor::new(on_stop)?;
    let (inbox, mut mail) = mpsc::unbounded_channel();
    let _socket = status::serve(&config, inbox.clone(), &timeline)?;
    let recorder = recorder(record)?;
    let begun = Agent::begin((&config, &recorder, &timeline), (inbox, &mut mail), &mut supervisor).await?;
    let Some(mut agent) = begun else { return Ok(()) };
    agent.mail = mail;
    match agent.work(&mut supervisor).await? {
        Ended::Suspended => {
            tracing::warn!(
                "stopping while the ledger cannot be written: sessions and gates are left to the next start"
            );
            supervisor.hear_of_stop("stopping; sessions and gates are left to the next start", Duration::ZERO);
            Ok(())
        }
        Ended::Told(OnStop::Keep) => {
            tracing::info!("stopping; meters, gates and sessions stay for the next start");
            supervisor.hear_of_stop("stopping; meters, gates and sessions stay for the next start", Duration::ZERO);
            agent.keep()
        }
        Ended::Told(OnStop::Settle) => {
            supervisor.hear_of_stop("stopping: gates shut, settling", agent.config.agent.shutdown_wait);
            agent.settle(&mut supervisor).await
        }
    }
}

impl Agent {
    async fn new(
        config: Config,
        recorder: Recorder,
        timeline: Timeline,
        inbox: mpsc::UnboundedSender<Message>,
    ) -> Result<Self> {
        let boot = boot_id()?;
        let mut ledger = Ledger::open(&config.ledger, boot.clone())?;
        let history = History::of(&config.usage);
        ledger.keep_days_in(history.calendar().zone().clone());
        let nf_name = config.device.nf_instance_id;
        let clock = timeline.clock().clone();
        let http = Http::new(HttpSettings::from(&config.server), clock.clone())?;
        let charged = Charged::recall(nf_name, &ledger)?;
        let unmetered = UnmeteredBook::recall(&ledger)?;
        let servers = watch::Sender::new(Vec::new());
        let mut agent = Self {
            boot,
            ledger,
            recorder,
            login: Self::log_in(&config, &http)?,
            reporter: Arc::new(Reporter::new(http.clone(), nf_name)),
            http,
            clock,
            timeline,
            links: link::watch(servers.subscribe()).await?,
            servers,
            known_links: Links::default(),
            stations: Vec::new(),
            pin_root_claim: None,
            claims: BTreeMap::new(),
            plan: Plan::default(),
            told: Told::default(),
            bindings: BTreeMap::new(),
            sims: BTreeMap::new(),
            charged,
            allow: AllowList::default(),
            portals: Portals::default(),
            doubt: Arc::default(),
            metered: watch::Sender::default(),
            loaders: Arc::new(Semaphore::new(LOADERS)),
            unmetered,
            history,
            stopping: false,
            look_at: boot_now()?,
            onboarding: String::from("not begun"),
            onboarding_trouble: None,
            enrolment: None,
            inbox,
            // Whoever made the inbox still holds the other end.
            mail: mpsc::unbounded_channel().1,
            deferred: VecDeque::new(),
            trouble: None,
            books: Books::default(),
            progress: Progress::default(),
            progress_at: BootInstant::from_nanos(0),
            looked_at: boot_now()?,
            config,
        };
        agent.warn_of_memory();
        agent.claim_all()?;
        agent.recall_sims()?;
        agent.recall_addresses()?;
        let stored = agent.stored()?;
        if !stored.is_empty() {
            tracing::info!(sessions = stored.len(), "taking up sessions from the ledger");
        }
        agent.restore(stored)?;
        drill::pass(Point::Restored);
        agent.prepare_onboarding()?;
        agent.watch_server_addresses();
        Ok(agent)
    }

    /// Does what is due, then waits for one thing to happen and deals with it. Answers how to stop when it was told to.
    async fn turn(&mut self, supervisor: &mut Supervisor) -> Result<Option<OnStop>> {
        self.look_after_ledger(boot_now()?)?;
        self.note_progress(boot_now()?);
        let pause = self.tick_all()?.min(supervisor.patience());
        self.report_to(supervisor)?;
        if let Some(message) = self.deferred.pop_front() {
            self.take(Some(message))?;
            return Ok(None);
        }
        tokio::select! {
            biased;
            on_stop = supervisor.wait() => return Ok(Some(on_stop)),
            changed = self.links.changed() => self.links_changed(changed)?,
            message = self.mail.recv() => self.take(message)?,
            () = tokio::time::sleep(pause) => {}
        }
        Ok(None)
    }

    fn links_changed(&mut self, changed: Result<(), watch::error::RecvError>) -> Result<()> {
        changed.context("the netlink watcher has ended")?;
        self.forget_dead_connections();
        self.reconcile()
    }

    /// Shuts the gates, settles, and waits for the last acknowledgements as long as the configuration says.
    async fn settle(&mut self, supervisor: &mut Supervisor) -> Result<()> {
        let give_up = boot_now()?.plus(self.config.agent.shutdown_wait);
        // Ctrl-C reaches a whole process group, and whoever started us may pass it on: that is one wish, not two.
        let insists = boot_now()?.plus(ONE_WISH);
        tracing::info!(wait = ?self.config.agent.shutdown_wait, "stopping: gates shut, settling");
        self.stopping = true;
        for station in 0..self.stations.len() {
            self.tell(station, Event::Settle)?;
        }
        while !self.stations.iter().all(|station| station.quota.is_settled()) {
            drill::pass(Point::Settling);
            let now = boot_now()?;
            if now >= give_up {
                tracing::warn!("not everything was acknowledged in time; the rest is in the ledger for the next start");
                break;
            }
            let pause = self.tick_all()?.min(until(give_up, now)).min(supervisor.patience());
            supervisor.beat(now);
            tokio::select! {
                biased;
                _ = supervisor.wait() => {
                    if boot_now()? >= insists {
                        tracing::warn!("told to stop again: the rest is in the ledger for the next start");
                        break;
                    }
                }
                changed = self.links.changed() => self.links_changed(changed)?,
                message = self.mail.recv() => self.take(message)?,
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.keep()
    }

    /// Commits the last readings, for the next start.
    fn keep(&mut self) -> Result<()> {
        self.read_all()?;
        for station in 0..self.stations.len() {
            self.tell(station, Event::Pause)?;
        }
        Ok(())
    }

    /// Reads every meter.
    fn read_all(&mut self) -> Result<()> {
        for station in 0..self.stations.len() {
            if let Some(reading) = self.reading(station) {
                self.tell(station, Event::Reading(reading))?;
            }
        }
        Ok(())
    }

    /// Does what is due in every station; answers with the time until the next.
    fn tick_all(&mut self) -> Result<Duration> {
        self.let_go()?;
        self.note_metered();
        if boot_now()? >= self.look_at {
            self.look_after_meters();
            self.look_at = boot_now()?.plus(LOOK);
        }
        for station in 0..self.stations.len() {
            let now = boot_now()?;
            if self.stations[station].quota.poll_timeout().is_some_and(|at| at <= now) {
                self.tick(station)?;
            }
        }
        self.name_those_kept_waiting()?;
        let next = self.stations.iter().filter_map(|station| station.quota.poll_timeout()).min();
        let now = boot_now()?;
        let next = next.map_or(self.look_at, |at| at.min(self.look_at));
        Ok(until(next, now).min(LONGEST_SLEEP))
    }

    /// Tells the log of a long backlog, once a second at most.
    fn note_progress(&mut self, now: BootInstant) {
        if now < self.progress_at.plus(Duration::from_secs(1)) {
            return;
        }
        self.progress_at = now;
        let left = self.stations.iter().map(|station| station.quota.backlog()).sum();
        if let Some(line) = self.progress.note(left, now) {
            tracing::info!("{line}");
        }
    }

    /// Deals with a message. One that cannot be carried through for want of storage comes again, if nothing else brings it again.
    fn take(&mut self, message: Option<Message>) -> Result<()> {
        let message = message.context("the inbox is closed")?;
        let again = message.again();
        let taken = self.deal_with(message);
        if let (Err(_), Some(again)) = (&taken, again) {
            // Before what came after it.
            self.deferred.push_front(again);
        }
        taken
    }

    fn deal_with(&mut self, message: Message) -> Result<()> {
        match message {
            Message::Answer { station, key, attempt, outcome } => {
                drill::pass(Point::AnswerIn);
                if let Outcome::Answered(_) = outcome {
                    self.stations[station].answered_at = Some(boot_now()?);
                }
                self.tell(station, Event::Answer { key, attempt, outcome })
            }
            Message::Attached { station, ifindex, result } => {
                let attached = self.attached(station, ifindex, result);
                let attachment = &mut self.stations[station].attachment;
                if let (Err(_), Attachment::Pending(_)) = (&attached, *attachment) {
                    // Nobody is at work on it any more.
                    *attachment = Attachment::None;
                }
                attached
            }
            Message::AttachAgain { station } => {
                self.stations[station].forget_failure();
                self.reconcile()
            }
            Message::Hint { station } => self.tell(station, Event::Hint),
            Message::News(news) => self.learn(news),
            Message::Allow(list) => self.set_allow_list(list),
            Message::Portal { host, addresses } => self.portal_found(&host, addresses),
            Message::Asked(question) => {
                self.read_all()?;
                self.answer(question)
            }
        }
    }
}

/// Records into a file, if one is named. One that cannot be recorded into is no reason to leave links unmetered.
fn recorder(record: Option<&Path>) -> Result<Recorder> {
    let Some(path) = record else { return Ok(Recorder::idle()) };
    Ok(Recorder::open(path, boot_id()?, boot_now()?, recording::BOUND).unwrap_or_else(|error| {
        tracing::error!("nothing is recorded: {error:#}");
        Recorder::idle()
    }))
}

#[cfg(test)]
mod tests;
