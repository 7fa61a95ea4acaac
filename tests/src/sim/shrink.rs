//! Makes a failing schedule short: leaves out steps, then makes the numbers in the others small, as long as the same invariant breaks.

use super::Broken;
use super::play::{Failure, replay};
use super::step::Step;

/// Plays at most: about a second's worth.
const PLAYS: u32 = 6_000;

/// The shortest schedule found that breaks the same invariant. The same failure always shrinks to the same schedule.
#[must_use]
pub fn shrink(failure: &Failure) -> Failure {
    shrink_with(failure, &|steps| replay(failure.seed, steps, None))
}

/// The same, whatever it is that plays the steps.
pub(super) fn shrink_with(failure: &Failure, play: &dyn Fn(&[Step]) -> Result<(), Broken>) -> Failure {
    let mut search = Search { best: failure.clone(), plays: PLAYS, play };
    loop {
        let before = search.best.steps.clone();
        search.leave_out();
        search.join_packets();
        search.make_small();
        if search.best.steps == before || search.plays == 0 {
            return search.best;
        }
    }
}

struct Search<'a> {
    best: Failure,
    plays: u32,
    play: &'a dyn Fn(&[Step]) -> Result<(), Broken>,
}

impl Search<'_> {
    /// Keeps the schedule if it breaks the same invariant.
    fn keeps(&mut self, steps: Vec<Step>) -> bool {
        if self.plays == 0 {
            return false;
        }
        self.plays -= 1;
        match (self.play)(&steps) {
            Err(broken) if broken.rule == self.best.broken.rule => {
                self.best = Failure { seed: self.best.seed, steps, broken };
                true
            }
            Err(_) | Ok(()) => false,
        }
    }

    /// Leaves out pieces: halves first, single steps last.
    fn leave_out(&mut self) {
        let mut size = self.best.steps.len().div_ceil(2).max(1);
        loop {
            let mut at = 0;
            while at < self.best.steps.len() {
                let mut steps = self.best.steps.clone();
                steps.drain(at..(at + size).min(steps.len()));
                if !self.keeps(steps) {
                    at += size;
                }
            }
            if size == 1 {
                return;
            }
            size = size.div_ceil(2);
        }
    }

    /// Makes one step of two that send packets over the same link, as often as that breaks the same.
    fn join_packets(&mut self) {
        let mut first = 0;
        while first < self.best.steps.len() {
            let Step::Packets { link, count, octets, direction } = self.best.steps[first] else {
                first += 1;
                continue;
            };
            let joined = (first + 1..self.best.steps.len()).any(|second| {
                let Step::Packets { link: other, count: more, octets: each, .. } = self.best.steps[second] else {
                    return false;
                };
                let mut steps = self.best.steps.clone();
                let count = count + (more * each).div_ceil(octets.max(1));
                steps[first] = Step::Packets { link, count, octets, direction };
                steps.remove(second);
                other == link && self.keeps(steps)
            });
            first += usize::from(!joined);
        }
    }

    fn make_small(&mut self) {
        for at in 0..self.best.steps.len() {
            // Each success is tried again: what it led to may become smaller still.
            while self.makes_smaller(at) {}
        }
    }

    fn makes_smaller(&mut self, at: usize) -> bool {
        smaller(self.best.steps[at]).into_iter().any(|simple| {
            let mut steps = self.best.steps.clone();
            steps[at] = simple;
            self.keeps(steps)
        })
    }
}

/// The same step with smaller numbers, smallest first.
fn smaller(step: Step) -> Vec<Step> {
    let numbers = |number: u64| candidates(0, number);
    let positive = |number: u64| candidates(1, number);
    match step {
        Step::Packets { link, count, octets, direction } => {
            let fewer = positive(count).map(|count| Step::Packets { link, count, octets, direction });
            let shorter = positive(octets).map(|octets| Step::Packets { link, count, octets, direction });
            let other = numbers(link).map(|link| Step::Packets { link, count, octets, direction });
            fewer.chain(shorter).chain(other).collect()
        }
        Step::Wait { millis } => positive(millis).map(|millis| Step::Wait { millis }).collect(),
        Step::Stall { millis } => positive(millis).map(|millis| Step::Stall { millis }).collect(),
        Step::Arrive { nth } => numbers(nth).map(|nth| Step::Arrive { nth }).collect(),
        Step::Double { nth }
        | Step::TimeOut { nth }
        | Step::LoseRequest { nth }
        | Step::Unreachable { nth }
        | Step::Fail { nth } => vec![Step::Arrive { nth }],
        Step::Reply { nth } => numbers(nth).map(|nth| Step::Reply { nth }).collect(),
        Step::ReplyTwice { nth } | Step::LoseReply { nth } => vec![Step::Reply { nth }],
        Step::Garble { nth } => vec![Step::Reply { nth }, Step::LoseReply { nth }],
        Step::TopUp { sim, octets, word } => positive(octets).map(|octets| Step::TopUp { sim, octets, word }).collect(),
        Step::Crash { after } => {
            [Step::Kill].into_iter().chain(numbers(after).map(|after| Step::Crash { after })).collect()
        }
        Step::DiskFull { after } => numbers(after).map(|after| Step::DiskFull { after }).collect(),
        Step::Control { .. }
        | Step::Timer
        | Step::Busy { .. }
        | Step::Refuse { .. }
        | Step::Outage { .. }
        | Step::NewTerms { .. }
        | Step::RestartServer
        | Step::ForgetSessions
        | Step::BackUp
        | Step::RestoreBackup
        | Step::Kill
        | Step::Start
        | Step::Keep
        | Step::Settle
        | Step::Attach { .. }
        | Step::Hint { .. }
        | Step::Abort { .. }
        | Step::Reauthorise { .. }
        | Step::Renew { .. }
        | Step::RouteUp
        | Step::Switch { .. }
        | Step::Down { .. }
        | Step::Up { .. }
        | Step::Replace { .. }
        | Step::Unreadable { .. }
        | Step::PowerCut => Vec::new(),
    }
}

/// Numbers below this one, from `least` on, smallest first; round ones are easy to read.
fn candidates(least: u64, number: u64) -> impl Iterator<Item = u64> {
    let round = match number {
        0..10 => number,
        10..1_000 => number / 10 * 10,
        _ => number / 1_000 * 1_000,
    };
    [0, 1, number / 100, number / 10, number / 2, round].into_iter().filter(move |n| (least..number).contains(n))
}
