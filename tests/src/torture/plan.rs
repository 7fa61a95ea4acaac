//! What the world is like and what strikes when: all of it drawn from the seed, so that a run can be played again.

use std::time::Duration;

use fastrand::Rng;
use serde::Serialize;
use serde_json::{Value, json};

use crate::scenario::Transport;
use crate::topology::Medium;

/// The metered links, `wan0` and `wan1`. Behind them lies one more way out, which nobody meters.
pub(super) const METERED: usize = 2;

/// The SIMs that may pay for each metered link. The first slot changes between two; the second has a small package.
pub(super) const SIMS: [&[usize]; METERED] = [&[0, 2], &[1]];

/// The SIM whose package is small, is used up again and again, and is topped up.
pub(super) const SMALL: usize = 1;

/// Octets of a package that is never used up.
const PLENTY: u64 = 1 << 40;

/// What may be agreed for the time without a server; the last one lets octets pass beyond the ceiling.
const HANDLINGS: [&str; 3] = ["TERMINATE", "RETRY_AND_TERMINATE", "CONTINUE"];

/// The world of one run.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Setting {
    /// How agent and server talk.
    #[serde(skip)]
    pub(super) transport: Transport,
    /// Whether the gateway merges what it receives.
    pub(super) gro: bool,
    /// What the metered links are made of.
    #[serde(skip)]
    pub(super) media: [Medium; METERED],
    /// Whether only the link with the default route is in use.
    pub(super) follows_default_route: bool,
    /// What each SIM's package is sold as.
    pub(super) packages: Vec<Value>,
}

impl Setting {
    pub(super) fn draw(random: &mut Rng) -> Self {
        let media = [[Medium::Veth, Medium::RawIp], [Medium::RawIp, Medium::Veth], [Medium::Veth, Medium::Veth]];
        let mut small = package(4 << 20, random);
        // Nothing may go over this one: it has no grace.
        small["failureHandling"] = one_of(&HANDLINGS[..2], random).into();
        if random.bool() {
            small["whenUsedUp"] = "throttle".into();
            small["throttleRate"] = 400_000.into();
        }
        Self {
            transport: one_of(&[Transport::Plain, Transport::Tls], random),
            gro: random.bool(),
            media: one_of(&media, random),
            follows_default_route: random.u8(..4) == 0,
            packages: vec![package(PLENTY, random), small, package(PLENTY, random)],
        }
    }

    /// In one line.
    pub(super) fn words(&self) -> String {
        let default_route = if self.follows_default_route { "the default route decides" } else { "both links in use" };
        format!(
            "{:?}, GRO {}, wan0 {:?}, wan1 {:?}, {default_route}",
            self.transport,
            if self.gro { "on" } else { "off" },
            self.media[0],
            self.media[1],
        )
    }
}

fn package(octets: u64, random: &mut Rng) -> Value {
    json!({
        "totalVolume": octets,
        "chunk": random.u64(256 << 10..2 << 20),
        "reportInterval": one_of(&[2, 5, 60], random),
        "validityTime": one_of(&[8, 30, 600], random),
        "quotaHoldingTime": one_of(&[0, 2], random),
        "thresholdPercent": one_of(&[0, 20, 50], random),
        "failureHandling": one_of(&HANDLINGS, random),
        "offlineGrace": { "octets": 1 << 20, "seconds": 20 },
    })
}

fn one_of<T: Copy>(choices: &[T], random: &mut Rng) -> T {
    choices[random.usize(..choices.len())]
}

/// A rule of the server's fault switches.
pub(super) type Fault = Value;

/// One thing that goes wrong, or merely changes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Blow {
    /// The agent dies at once, and stays dead so long.
    KillAgent { dead: Duration },
    /// The agent dies, and so does the next one: when it passes this point of its work for the nth time (`agent::drill`).
    KillAgentAt { point: &'static str, times: u32 },
    /// The server dies at once, and stays dead so long.
    KillServer { dead: Duration },
    /// Requests go wrong.
    Fault(Fault),
    /// A link goes down at both ends for so long.
    LowerLink { link: usize, down: Duration },
    /// Another way out is preferred, the unmetered one among them.
    MoveRoute { to: usize },
    /// The first slot gets its other SIM.
    SwitchSim,
    /// A link is pulled out and put in again; meanwhile the agent dies so many times.
    ReplaceLink { link: usize, kills: u8 },
    /// The agent is asked to end, and started again so long after that.
    StopAgent { dead: Duration },
    /// The agent stands still for so long.
    SuspendAgent { still: Duration },
    /// The wall clock that the agent sees is off by so many seconds, and may say that it is not synchronised.
    StepClock { seconds: i64, synced: bool },
    /// The disk under the ledger is full for so long.
    FillDisk { full: Duration },
    /// Octets are bought for the small package.
    TopUp { octets: u64 },
    /// The server orders the sessions of a SIM to end, and so long after that to begin again.
    Abort { sim: usize, held: Duration },
}

impl Blow {
    /// For the report.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::KillAgent { .. } => "agent killed",
            Self::KillAgentAt { .. } => "agent killed at a point",
            Self::KillServer { .. } => "server killed",
            Self::Fault(_) => "server fault",
            Self::LowerLink { .. } => "link down",
            Self::MoveRoute { .. } => "route moved",
            Self::SwitchSim => "SIM switched",
            Self::ReplaceLink { .. } => "link replaced",
            Self::StopAgent { .. } => "agent stopped",
            Self::SuspendAgent { .. } => "agent suspended",
            Self::StepClock { .. } => "clock stepped",
            Self::FillDisk { .. } => "disk filled",
            Self::TopUp { .. } => "top-up",
            Self::Abort { .. } => "abort",
        }
    }
}

/// An endless row of blows, each with the pause before it.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    random: Rng,
}

/// Where an agent, or the loader that it starts, can be made to die.
const POINTS: [&str; 13] = [
    "restored",
    "before-commit",
    "after-commit",
    "before-send",
    "replied",
    "answer-in",
    "before-gate",
    "after-gate",
    "settling",
    "attached",
    "maps-pinned",
    "uplink-attached",
    "uplink-replaced",
];

/// How a request can go wrong, as the server's switches name it: all but those that have the server itself grant or refuse wrongly.
const FAULTS: [&str; 13] = [
    "drop-request",
    "drop-answer",
    "garbage",
    "wrong-sequence",
    "duplicate",
    "restart",
    "status",
    "delay-ms",
    "redirect",
    "huge",
    "endless",
    "slow",
    "skew",
];

/// Which requests can.
const REQUESTS: [&str; 8] = ["create", "update", "update", "release", "token", "plan", "commands", "any"];

const FIVE_WEEKS: i64 = 5 * 7 * 86_400;

impl Plan {
    /// Everything follows from the generator's state.
    pub(super) const fn new(random: Rng) -> Self {
        Self { random }
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.random.u64(range))
    }

    /// Mostly short, so that blows fall into the middle of a recovery; at times long enough to recover.
    fn pause(&mut self) -> Duration {
        match self.random.u8(..10) {
            0..7 => self.millis(0..900),
            7 | 8 => self.millis(900..2500),
            _ => self.millis(2500..6000),
        }
    }

    fn link(&mut self) -> usize {
        self.random.usize(..METERED)
    }

    fn fault(&mut self) -> Fault {
        let fault = one_of(&FAULTS, &mut self.random);
        let mut kind = one_of(&REQUESTS, &mut self.random);
        if fault == "wrong-sequence" && kind != "create" {
            kind = "update";
        }
        let mut rule = json!({
            "kind": kind, "fault": fault, "times": self.random.u32(1..=3), "after": self.random.u32(0..2),
        });
        match fault {
            "status" => rule["status"] = one_of(&[429, 500, 503], &mut self.random).into(),
            "skew" => rule["skewSeconds"] = one_of(&[-FIVE_WEEKS, FIVE_WEEKS], &mut self.random).into(),
            "delay-ms" => rule["delayMs"] = self.random.u32(1..3000).into(),
            _ => {}
        }
        rule
    }
}

impl Iterator for Plan {
    type Item = (Duration, Blow);

    fn next(&mut self) -> Option<Self::Item> {
        let pause = self.pause();
        let blow = match self.random.u8(..100) {
            0..34 => Blow::KillAgent { dead: self.millis(0..700) },
            34..42 => Blow::KillAgentAt { point: one_of(&POINTS, &mut self.random), times: self.random.u32(1..=6) },
            42..44 => Blow::FillDisk { full: self.millis(200..4000) },
            44..62 => Blow::KillServer { dead: self.millis(0..1500) },
            62..74 => Blow::Fault(self.fault()),
            74..78 => Blow::LowerLink { link: self.link(), down: self.millis(100..4000) },
            78..82 => Blow::MoveRoute { to: self.random.usize(..=METERED) },
            82..84 => Blow::SwitchSim,
            84..87 => Blow::ReplaceLink { link: self.link(), kills: self.random.u8(..3) },
            87..90 => Blow::StopAgent { dead: self.millis(0..700) },
            90..92 => Blow::SuspendAgent { still: self.millis(200..4000) },
            92..94 => {
                let seconds = one_of(&[-FIVE_WEEKS, 0, FIVE_WEEKS], &mut self.random);
                Blow::StepClock { seconds, synced: self.random.bool() }
            }
            94..98 => Blow::TopUp { octets: self.random.u64(1 << 20..4 << 20) },
            _ => Blow::Abort { sim: self.random.usize(..3), held: self.millis(100..3000) },
        };
        Some((pause, blow))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn plan(seed: u64) -> Plan {
        Plan::new(Rng::with_seed(seed))
    }

    #[test]
    fn the_same_seed_draws_the_same_blows_and_another_seed_others() {
        let first: Vec<_> = plan(7).take(500).collect();
        assert_eq!(first, plan(7).take(500).collect::<Vec<_>>());
        assert_ne!(first, plan(8).take(500).collect::<Vec<_>>());
    }

    #[test]
    fn ten_minutes_hold_more_than_two_hundred_kills_and_every_kind_of_blow() {
        for seed in 0..20 {
            let mut time = Duration::ZERO;
            let mut blows: BTreeMap<&str, u32> = BTreeMap::new();
            for (pause, blow) in plan(seed) {
                time += pause;
                // Some blows take their time themselves.
                time += Duration::from_millis(if matches!(blow, Blow::ReplaceLink { .. }) { 4000 } else { 150 });
                if time > Duration::from_mins(10) {
                    break;
                }
                *blows.entry(blow.kind()).or_default() += 1;
            }
            let kills = blows["agent killed"] + blows["server killed"];
            assert!(kills > 200, "seed {seed}: {kills} kills");
            assert_eq!(blows.len(), 14, "seed {seed}: {blows:?}");
        }
    }
}
