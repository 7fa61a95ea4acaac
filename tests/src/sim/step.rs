//! The steps of a schedule: each says all that it needs to be played again, and can be read.

use std::fmt;

use super::kernel::Direction;
use super::network::Ways;

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
    /// The terms of a SIM are others from now on.
    NewTerms {
        /// Which SIM.
        sim: u64,
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
    /// The disk is full at the nth commit from here, and a second later it is not.
    DiskFull {
        /// How many commits come through.
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
    /// The operator wants more asked for.
    Renew {
        /// The link.
        link: u64,
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

/// Every kind of step, as [`Step::kind`] says it.
pub(super) const KINDS: [&str; 42] = [
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
    "new terms",
    "server restarted",
    "sessions forgotten",
    "backup",
    "backup restored",
    "crash",
    "disk full",
    "kill",
    "start",
    "stop, keep",
    "stop, settle",
    "attach",
    "hint",
    "abort",
    "reauthorise",
    "renew",
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
            Self::NewTerms { .. } => "new terms",
            Self::RestartServer => "server restarted",
            Self::ForgetSessions => "sessions forgotten",
            Self::BackUp => "backup",
            Self::RestoreBackup => "backup restored",
            Self::Crash { .. } => "crash",
            Self::DiskFull { .. } => "disk full",
            Self::Kill => "kill",
            Self::Start => "start",
            Self::Keep => "stop, keep",
            Self::Settle => "stop, settle",
            Self::Attach { .. } => "attach",
            Self::Hint { .. } => "hint",
            Self::Abort { .. } => "abort",
            Self::Reauthorise { .. } => "reauthorise",
            Self::Renew { .. } => "renew",
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
            Self::NewTerms { sim } => write!(f, "SIM {sim}: the terms are others"),
            Self::RestartServer => f.write_str("the server restarts, with its books"),
            Self::ForgetSessions => f.write_str("the server loses its sessions"),
            Self::BackUp => f.write_str("the server's books are backed up"),
            Self::RestoreBackup => f.write_str("the server's books are those of the last backup"),
            Self::Crash { after } => write!(f, "the agent will die at crash point {after} from here"),
            Self::DiskFull { after } => write!(f, "the disk will be full at commit {after} from here"),
            Self::Kill => f.write_str("the agent dies"),
            Self::Start => f.write_str("the agent starts"),
            Self::Keep => f.write_str("the agent stops, its sessions go on"),
            Self::Settle => f.write_str("the agent is told to stop and settles"),
            Self::Attach { link } => write!(f, "link {link}: the loader is done"),
            Self::Hint { link } => write!(f, "link {link}: the kernel hints"),
            Self::Abort { sim } => write!(f, "SIM {sim}: the server orders its sessions ended"),
            Self::Reauthorise { sim } => write!(f, "SIM {sim}: the server asks for it again"),
            Self::Renew { link } => write!(f, "link {link}: the operator wants more asked for"),
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
