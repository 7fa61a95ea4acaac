//! Draws the next step of a schedule, by what kinds of trouble its world is in for.

use super::chance::{Chance, index};
use super::kernel::Direction;
use super::network::Ways;
use super::schedule::{LARGEST, Moods, Setup};
use super::step::{Step, Word};

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
        let after = chance.between(0, 12);
        return match chance.draw() % 8 {
            0 | 1 => Step::Kill,
            2 => Step::DiskFull { after },
            _ => Step::Crash { after },
        };
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
    let package = setup.sims[index(link, setup.sims.len())];
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
    match chance.draw() % 11 {
        10 => Step::NewTerms { sim },
        0 | 1 => Step::RestartServer,
        2 | 3 => Step::ForgetSessions,
        4 => Step::BackUp,
        5 => Step::RestoreBackup,
        6 | 7 => Step::Outage { ways: chance.pick(&[Ways::All, Ways::All, Ways::Routed, Ways::Detours, Ways::None]) },
        _ => {
            let chunk = setup.sims[index(sim, setup.sims.len())].chunk;
            let octets = chance.between(1_000, chunk);
            Step::TopUp { sim, octets, word: chance.pick(&[Word::Told, Word::Untold]) }
        }
    }
}

fn operator_step(link: u64, chance: &mut Chance) -> Step {
    match chance.draw() % 14 {
        0 | 1 => Step::Keep,
        2 => Step::Settle,
        3 | 4 => Step::Abort { sim: link },
        5..=8 => Step::Reauthorise { sim: link },
        9..=11 => Step::Renew { link },
        _ => Step::RouteUp,
    }
}
