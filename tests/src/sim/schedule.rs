//! What a schedule is: a world drawn from the seed, and the steps that strike it, each with everything it needs to be played again.

use std::fmt;
use std::time::Duration;

use agent::quota::{FailureHandling, OfflineGrace, Repetition, Terms, WhenUsedUp};
use agent::units::{OctetRate, Octets};

use super::chance::{Chance, mix};
use super::kernel::Direction;
use super::network::Ways;
use super::server::HANDLINGS;

/// Octets of the largest packet: a super-packet of 64 KiB.
const LARGEST: u64 = 64 << 10;

/// The world that a seed stands for, before anything happens in it.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The seed.
    pub seed: u64,
    /// Links, each with a slot for a SIM.
    pub links: usize,
    /// SIMs, each with a package; the first ones are in the slots.
    pub sims: Vec<Package>,
    /// What the server does with a message that comes again.
    pub repetition: Repetition,
    /// What is struck, and how often.
    pub moods: Moods,
    /// Which ways work when everything else does again.
    pub ways_in_the_end: Ways,
    /// Whether the links have to carry traffic again before everything is settled.
    pub comes_back: bool,
}

/// What was bought for a SIM, and its terms.
#[derive(Clone, Copy, Debug)]
pub struct Package {
    /// Octets.
    pub bought: u64,
    /// Octets asked for at a time.
    pub chunk: u64,
    /// Octets of a packet at most.
    pub packet: u64,
    /// Without an answer.
    pub failure_handling: FailureHandling,
    /// Used up.
    pub when_used_up: WhenUsedUp,
    /// How far the gate is open beyond what is committed.
    pub slice: Slice,
}

/// Whether the gate is open no further than so many octets beyond what is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    /// It is open up to the ceiling.
    None,
    /// It is not.
    Of(u64),
    /// Every second life of the agent is told so.
    Sometimes(u64),
}

/// How often each kind of trouble strikes, once in so many draws; zero = never in this schedule. Leaving some out lets the others go far.
#[derive(Clone, Copy, Debug)]
pub struct Moods {
    crash: u64,
    loss: u64,
    disorder: u64,
    links: u64,
    server: u64,
    power: u64,
    operator: u64,
}

impl Setup {
    /// The world of that seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::new(mix(seed, 1));
        let links = index_between(&mut chance, 1, 3);
        let spare = index_between(&mut chance, 0, 1);
        let sims = (0..links + spare).map(|_| Package::draw(&mut chance)).collect();
        Self {
            seed,
            links,
            sims,
            repetition: chance.pick(&[Repetition::Recognised, Repetition::Recognised, Repetition::Charged]),
            moods: Moods {
                crash: chance.pick(&[0, 40, 20, 8]),
                loss: chance.pick(&[0, 8, 4, 2]),
                disorder: chance.pick(&[0, 4, 2]),
                links: chance.pick(&[0, 40, 12]),
                server: chance.pick(&[0, 80, 25]),
                power: chance.pick(&[0, 0, 150, 60]),
                operator: chance.pick(&[0, 60, 20]),
            },
            // A detour needs another link.
            ways_in_the_end: chance.pick(&[Ways::All, Ways::Routed, Ways::Detours][..if links > 1 { 3 } else { 1 }]),
            comes_back: chance.one_in(2),
        }
    }
}

impl Package {
    fn draw(chance: &mut Chance) -> Self {
        let huge = chance.one_in(12);
        let (bought, chunk, packet) = if huge {
            (40 << 30, 10 << 30, LARGEST)
        } else {
            (chance.pick(&[500_000, 3_000_000]), chance.pick(&[50_000, 200_000, 1_000_000]), 9_040)
        };
        let throttle = WhenUsedUp::Throttle(OctetRate::per_second(1_000));
        Self {
            bought,
            chunk,
            packet,
            failure_handling: chance.pick(&HANDLINGS),
            when_used_up: chance.pick(&[WhenUsedUp::Block, throttle]),
            slice: chance.pick(&[Slice::None, Slice::None, Slice::Of(packet * 2), Slice::Sometimes(packet * 2)]),
        }
    }

    /// The terms as the core is told them in the agent's nth life.
    pub(super) fn terms(&self, repetition: Repetition, life: u64) -> Terms {
        let slice = match self.slice {
            Slice::Of(octets) => Some(octets),
            Slice::Sometimes(octets) => life.is_multiple_of(2).then_some(octets),
            Slice::None => None,
        };
        Terms {
            repetition,
            max_unrecorded: slice.map(Octets::new),
            chunk: Octets::new(self.chunk),
            report_interval: Duration::from_mins(1),
            checkpoint_interval: Duration::from_secs(5),
            failure_handling: self.failure_handling,
            offline_grace: OfflineGrace { octets: Octets::new(self.chunk / 10), duration: Duration::from_secs(90) },
            when_used_up: self.when_used_up,
            control_reserve: Octets::new(100_000),
        }
    }
}

/// Whether the agent hears of something at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It does.
    Told,
    /// It has to find out.
    Untold,
}

/// One thing that happens. Numbers that point at something (a link, a request) are folded into what is there; a step that has nothing to
/// act on does nothing, so any part of a schedule is a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many packets of that size arrive at a link, one after the other.
    Packets {
        /// The link.
        link: u64,
        /// How many.
        count: u64,
        /// Octets of each.
        octets: u64,
        /// Which way.
        direction: Direction,
    },
    /// A packet to the charging server, or from it.
    Control {
        /// The link.
        link: u64,
        /// Its octets.
        octets: u64,
    },
    /// The agent works up to its next timer.
    Timer,
    /// The agent works, for that long.
    Wait {
        /// How long.
        millis: u64,
    },
    /// Time passes, and the agent does not get to run.
    Stall {
        /// How long.
        millis: u64,
    },
    /// A request reaches the server.
    Arrive {
        /// Which.
        nth: u64,
    },
    /// A request reaches the server, and a copy of it stays under way.
    Double {
        /// Which.
        nth: u64,
    },
    /// A request cannot leave: the connection is refused.
    Unreachable {
        /// Which.
        nth: u64,
    },
    /// A request is lost.
    LoseRequest {
        /// Which.
        nth: u64,
    },
    /// The agent waits no longer for a request that is still under way.
    TimeOut {
        /// Which.
        nth: u64,
    },
    /// The server has failed (500): it has taken nothing, but does not say so.
    Fail {
        /// Which.
        nth: u64,
    },
    /// The server is busy (429, 503), and may say for how long.
    Busy {
        /// Which.
        nth: u64,
        /// Seconds to wait; zero = it does not say.
        retry_after: u64,
    },
    /// The server refuses a message for good (4xx).
    Refuse {
        /// Which.
        nth: u64,
    },
    /// A reply reaches the agent.
    Reply {
        /// Which.
        nth: u64,
    },
    /// A reply reaches the agent, and will once more.
    ReplyTwice {
        /// Which.
        nth: u64,
    },
    /// A reply is lost: the server has done the work.
    LoseReply {
        /// Which.
        nth: u64,
    },
    /// A reply arrives as garbage: the server has done the work.
    Garble {
        /// Which.
        nth: u64,
    },
    /// From now on these ways work, and no other.
    Outage {
        /// The ways that work.
        ways: Ways,
    },
    /// More is bought.
    TopUp {
        /// For which SIM.
        sim: u64,
        /// Octets.
        octets: u64,
        /// Whether the server's order to ask again reaches the agent.
        word: Word,
    },
    /// The server starts anew: every connection breaks, its books stay.
    RestartServer,
    /// The server loses its sessions, but not what it has booked.
    ForgetSessions,
    /// The server's books are backed up.
    BackUp,
    /// The server's books are those of the last backup.
    RestoreBackup,
    /// The agent dies at the nth point from here at which it could.
    Crash {
        /// How many points it survives.
        after: u64,
    },
    /// The agent dies.
    Kill,
    /// The agent starts.
    Start,
    /// The agent stops, and its sessions go on.
    Keep,
    /// The agent stops and settles everything.
    Settle,
    /// A loader has attached the meter of a link, or taken over the one that is there.
    Attach {
        /// The link.
        link: u64,
    },
    /// The kernel hints that a threshold was passed or a packet refused.
    Hint {
        /// The link.
        link: u64,
    },
    /// The server orders the sessions of a SIM ended.
    Abort {
        /// The SIM.
        sim: u64,
    },
    /// The server asks for a SIM again.
    Reauthorise {
        /// The SIM.
        sim: u64,
    },
    /// Another route to the server has come up.
    RouteUp,
    /// A SIM moves into the slot of a link, out of any other; without one the slot is empty.
    Switch {
        /// The link.
        link: u64,
        /// The SIM; one more than there are = none.
        sim: u64,
    },
    /// A link goes out of use.
    Down {
        /// The link.
        link: u64,
    },
    /// A link comes into use.
    Up {
        /// The link.
        link: u64,
    },
    /// A link is deleted and made anew: it has no meter until one is attached.
    Replace {
        /// The link.
        link: u64,
    },
    /// The meter of a link is gone from one moment to the next, and cannot be read any more.
    Unreadable {
        /// The link.
        link: u64,
    },
    /// The power fails: agent and meters are gone, what was committed is there.
    PowerCut,
}

/// What whoever draws the next step can see of the world.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    /// The agent runs.
    pub alive: bool,
    /// The agent is settling: nothing new will be opened until it starts again.
    pub settling: bool,
    /// Links wait for their meters.
    pub unattached: bool,
    /// Requests under way.
    pub requests: usize,
    /// Replies under way.
    pub replies: usize,
}

/// Draws the next step.
pub(super) fn draw(setup: &Setup, sight: Sight, chance: &mut Chance) -> Step {
    let moods = setup.moods;
    let link = chance.draw() % 4;
    if (!sight.alive || sight.settling) && chance.one_in(4) {
        return Step::Start;
    }
    if chance.one_in(moods.power) {
        return Step::PowerCut;
    }
    if chance.one_in(moods.crash) {
        return if chance.one_in(4) { Step::Kill } else { Step::Crash { after: chance.between(0, 12) } };
    }
    if sight.unattached && sight.alive && chance.one_in(3) {
        return Step::Attach { link };
    }
    if chance.one_in(moods.links) {
        return link_step(setup, link, chance);
    }
    if chance.one_in(moods.server) {
        return server_step(setup, chance);
    }
    if chance.one_in(moods.operator) {
        return operator_step(link, chance);
    }
    match chance.draw() % 10 {
        0..=2 => traffic(setup, link, chance),
        3..=4 => passing_time(chance),
        5 => Step::Hint { link },
        _ if sight.replies > 0 && chance.one_in(2) => reply(moods, chance),
        _ if sight.requests > 0 => request(moods, chance),
        _ => traffic(setup, link, chance),
    }
}

fn traffic(setup: &Setup, link: u64, chance: &mut Chance) -> Step {
    if chance.one_in(12) {
        return Step::Control { link, octets: chance.between(40, 20_000) };
    }
    // A link carries what the largest package is sold for: small ones then see packets that do not fit.
    let package = setup.sims[super::chance::index(link, setup.sims.len())];
    let octets = if chance.one_in(30) { chance.between(40, LARGEST) } else { chance.between(40, package.packet) };
    let count = if package.packet == LARGEST { chance.between(1, 60_000) } else { chance.between(1, 12) };
    let direction = chance.pick(&[Direction::Uplink, Direction::Downlink]);
    Step::Packets { link, count, octets, direction }
}

fn passing_time(chance: &mut Chance) -> Step {
    match chance.draw() % 24 {
        0..=12 => Step::Timer,
        13..=20 => Step::Wait { millis: chance.between(1, 4_000) },
        21 => Step::Wait { millis: chance.between(4_000, 120_000) },
        22 => Step::Wait { millis: chance.between(120_000, 3_600_000) },
        _ => {
            let most = chance.pick(&[200, 20_000, 600_000]);
            Step::Stall { millis: chance.between(1, most) }
        }
    }
}

fn nth(moods: Moods, chance: &mut Chance) -> u64 {
    if chance.one_in(moods.disorder) { chance.draw() % 16 } else { 0 }
}

fn request(moods: Moods, chance: &mut Chance) -> Step {
    let nth = nth(moods, chance);
    if !chance.one_in(moods.loss) {
        return Step::Arrive { nth };
    }
    match chance.draw() % 10 {
        0 => Step::Unreachable { nth },
        1 | 2 => Step::LoseRequest { nth },
        3 | 4 => Step::TimeOut { nth },
        5 | 6 => Step::Double { nth },
        7 => Step::Fail { nth },
        8 => Step::Busy { nth, retry_after: chance.pick(&[0, 0, 1, 30, 3_600]) },
        _ => Step::Refuse { nth },
    }
}

fn reply(moods: Moods, chance: &mut Chance) -> Step {
    let nth = nth(moods, chance);
    if !chance.one_in(moods.loss) {
        return Step::Reply { nth };
    }
    match chance.draw() % 5 {
        0 | 1 => Step::LoseReply { nth },
        2 => Step::Garble { nth },
        _ => Step::ReplyTwice { nth },
    }
}

fn link_step(setup: &Setup, link: u64, chance: &mut Chance) -> Step {
    match chance.draw() % 12 {
        0..=3 => Step::Switch { link, sim: chance.between(0, u64::try_from(setup.sims.len()).unwrap_or(0)) },
        4 | 5 => Step::Down { link },
        6..=8 => Step::Up { link },
        9 | 10 => Step::Replace { link },
        _ => Step::Unreadable { link },
    }
}

fn server_step(setup: &Setup, chance: &mut Chance) -> Step {
    let sim = chance.draw() % 4;
    match chance.draw() % 10 {
        0 | 1 => Step::RestartServer,
        2 | 3 => Step::ForgetSessions,
        4 => Step::BackUp,
        5 => Step::RestoreBackup,
        6 | 7 => Step::Outage { ways: chance.pick(&[Ways::All, Ways::All, Ways::Routed, Ways::Detours, Ways::None]) },
        _ => {
            let chunk = setup.sims[super::chance::index(sim, setup.sims.len())].chunk;
            let octets = chance.between(1_000, chunk);
            Step::TopUp { sim, octets, word: chance.pick(&[Word::Told, Word::Untold]) }
        }
    }
}

fn operator_step(link: u64, chance: &mut Chance) -> Step {
    match chance.draw() % 12 {
        0 | 1 => Step::Keep,
        2 => Step::Settle,
        3 | 4 => Step::Abort { sim: link },
        5..=8 => Step::Reauthorise { sim: link },
        _ => Step::RouteUp,
    }
}

fn index_between(chance: &mut Chance, low: u64, high: u64) -> usize {
    usize::try_from(chance.between(low, high)).unwrap_or(0)
}

/// Every kind of step, as [`Step::kind`] says it.
pub(super) const KINDS: [&str; 39] = [
    "packets",
    "control traffic",
    "timer",
    "wait",
    "stall",
    "request arrives",
    "request doubled",
    "unreachable",
    "request lost",
    "timed out",
    "server failed",
    "server busy",
    "refused",
    "reply arrives",
    "reply doubled",
    "reply lost",
    "garbage",
    "outage",
    "top-up",
    "server restarted",
    "sessions forgotten",
    "backup",
    "backup restored",
    "crash",
    "kill",
    "start",
    "stop, keep",
    "stop, settle",
    "attach",
    "hint",
    "abort",
    "reauthorise",
    "route up",
    "SIM switched",
    "link down",
    "link up",
    "link replaced",
    "meter lost",
    "power cut",
];

impl Step {
    /// Its kind, for the tally.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Packets { .. } => "packets",
            Self::Control { .. } => "control traffic",
            Self::Timer => "timer",
            Self::Wait { .. } => "wait",
            Self::Stall { .. } => "stall",
            Self::Arrive { .. } => "request arrives",
            Self::Double { .. } => "request doubled",
            Self::Unreachable { .. } => "unreachable",
            Self::LoseRequest { .. } => "request lost",
            Self::TimeOut { .. } => "timed out",
            Self::Fail { .. } => "server failed",
            Self::Busy { .. } => "server busy",
            Self::Refuse { .. } => "refused",
            Self::Reply { .. } => "reply arrives",
            Self::ReplyTwice { .. } => "reply doubled",
            Self::LoseReply { .. } => "reply lost",
            Self::Garble { .. } => "garbage",
            Self::Outage { .. } => "outage",
            Self::TopUp { .. } => "top-up",
            Self::RestartServer => "server restarted",
            Self::ForgetSessions => "sessions forgotten",
            Self::BackUp => "backup",
            Self::RestoreBackup => "backup restored",
            Self::Crash { .. } => "crash",
            Self::Kill => "kill",
            Self::Start => "start",
            Self::Keep => "stop, keep",
            Self::Settle => "stop, settle",
            Self::Attach { .. } => "attach",
            Self::Hint { .. } => "hint",
            Self::Abort { .. } => "abort",
            Self::Reauthorise { .. } => "reauthorise",
            Self::RouteUp => "route up",
            Self::Switch { .. } => "SIM switched",
            Self::Down { .. } => "link down",
            Self::Up { .. } => "link up",
            Self::Replace { .. } => "link replaced",
            Self::Unreadable { .. } => "meter lost",
            Self::PowerCut => "power cut",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packets { link, count, octets, direction } => {
                let way = match direction {
                    Direction::Uplink => "up",
                    Direction::Downlink => "down",
                };
                write!(f, "link {link}: {count} x {octets} octets {way}")
            }
            Self::Control { link, octets } => write!(f, "link {link}: {octets} octets of control traffic"),
            Self::Timer => f.write_str("the agent works up to its next timer"),
            Self::Wait { millis } => write!(f, "the agent works for {millis} ms"),
            Self::Stall { millis } => write!(f, "{millis} ms pass without the agent"),
            Self::Arrive { nth } => write!(f, "request {nth} reaches the server"),
            Self::Double { nth } => write!(f, "request {nth} reaches the server, and will again"),
            Self::Unreachable { nth } => write!(f, "request {nth} cannot leave"),
            Self::Fail { nth } => write!(f, "request {nth}: 500, and nothing is taken"),
            Self::LoseRequest { nth } => write!(f, "request {nth} is lost"),
            Self::TimeOut { nth } => write!(f, "request {nth} times out, and is still under way"),
            Self::Busy { nth, retry_after } => write!(f, "request {nth}: 503, Retry-After {retry_after} s"),
            Self::Refuse { nth } => write!(f, "request {nth}: 403, refused for good"),
            Self::Reply { nth } => write!(f, "reply {nth} reaches the agent"),
            Self::ReplyTwice { nth } => write!(f, "reply {nth} reaches the agent, and will again"),
            Self::LoseReply { nth } => write!(f, "reply {nth} is lost"),
            Self::Garble { nth } => write!(f, "reply {nth} arrives as garbage"),
            Self::Outage { ways } => write!(f, "ways to the server that work: {ways:?}"),
            Self::TopUp { sim, octets, word } => write!(f, "SIM {sim}: {octets} octets bought ({word:?})"),
            Self::RestartServer => f.write_str("the server restarts, with its books"),
            Self::ForgetSessions => f.write_str("the server loses its sessions"),
            Self::BackUp => f.write_str("the server's books are backed up"),
            Self::RestoreBackup => f.write_str("the server's books are those of the last backup"),
            Self::Crash { after } => write!(f, "the agent will die at crash point {after} from here"),
            Self::Kill => f.write_str("the agent dies"),
            Self::Start => f.write_str("the agent starts"),
            Self::Keep => f.write_str("the agent stops, its sessions go on"),
            Self::Settle => f.write_str("the agent is told to stop and settles"),
            Self::Attach { link } => write!(f, "link {link}: the loader is done"),
            Self::Hint { link } => write!(f, "link {link}: the kernel hints"),
            Self::Abort { sim } => write!(f, "SIM {sim}: the server orders its sessions ended"),
            Self::Reauthorise { sim } => write!(f, "SIM {sim}: the server asks for it again"),
            Self::RouteUp => f.write_str("another route comes up"),
            Self::Switch { link, sim } => write!(f, "link {link}: SIM {sim} moves in"),
            Self::Down { link } => write!(f, "link {link} goes out of use"),
            Self::Up { link } => write!(f, "link {link} comes into use"),
            Self::Replace { link } => write!(f, "link {link} is deleted and made anew"),
            Self::Unreadable { link } => write!(f, "link {link}: the meter is gone"),
            Self::PowerCut => f.write_str("the power fails; another boot"),
        }
    }
}
