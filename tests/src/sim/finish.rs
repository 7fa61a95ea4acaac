//! The end of a schedule: the network works, the links carry traffic again, everything is settled, and the books are compared.

use std::time::Duration;

use agent::quota::Event;

use super::Broken;
use super::eventloop::Halt;
use super::kernel::Direction;
use super::network::Ways;
use super::strike::Use;
use super::world::{World, subscriber};

/// Settling is done within this span of quiet.
const SETTLES_WITHIN: Duration = Duration::from_hours(2);
/// A link that was stopped by whatever it was carries traffic again within this span, once there are units and a network.
const COMES_BACK_WITHIN: Duration = Duration::from_mins(7);
/// And so much later when every second attempt takes a way that is broken: the longest back-off.
const DETOUR: Duration = Duration::from_mins(5);
/// Messages at one instant: more is a storm.
const MESSAGES: u32 = 1_000;

impl World {
    /// Brings a schedule to its end, from wherever it is.
    pub(super) fn finish(&mut self) -> Result<(), Broken> {
        self.note(|| "from here on everything works".to_owned());
        // A gate whose meter is gone cannot be written, and ends the agent: once for each link at most.
        for _ in 0..=self.links.len() {
            match self.bring_to_an_end() {
                Ok(()) => return self.check_balance(),
                Err(Halt::Broken(broken)) => return Err(broken),
                Err(Halt::Died | Halt::Suspended) => self.die(),
            }
        }
        Err(Broken::new("an agent that nothing harms does not die", String::new()))
    }

    fn bring_to_an_end(&mut self) -> Result<(), Halt> {
        self.quiet = true;
        (self.crash_in, self.full_in) = (None, None);
        self.network.ways = self.setup.ways_in_the_end;
        if self.agent.as_ref().is_none_or(|agent| agent.settling) {
            self.start()?;
        }
        for link in 0..self.links.len() {
            self.attach(link)?;
        }
        if self.setup.comes_back {
            self.come_back()?;
        }
        self.settle()
    }

    /// Whatever has happened: with a network that works and units to be had, the links carry traffic again before long.
    fn come_back(&mut self) -> Result<(), Halt> {
        for link in 0..self.links.len() {
            let mut free =
                (0..self.setup.sims.len()).filter(|sim| self.links.iter().all(|link| link.sim != Some(*sim)));
            self.links[link].sim = self.links[link].sim.or_else(|| free.next());
            self.turn(link, Use::In)?;
        }
        self.server.generous = true;
        self.tell_all(&Event::RouteUp)?;
        for sim in 0..self.setup.sims.len() {
            let held: u64 = self.server.allowance.values().sum();
            self.server.buy(&subscriber(sim), held + self.package(sim).bought * 4 + 50_000_000);
            self.tell_all(&Event::Reauthorise(subscriber(sim)))?;
        }
        let before = (0..self.links.len()).map(|link| self.passed(link)).collect::<Vec<_>>();
        let detour = if self.network.ways == Ways::All { Duration::ZERO } else { DETOUR };
        let deadline = self.now.plus(COMES_BACK_WITHIN + detour);
        while (0..self.links.len()).any(|link| self.passed(link) == before[link]) {
            hold!(self.now < deadline, "a link comes back", "{:?}", self.agent);
            self.deliver_all()?;
            for link in 0..self.links.len() {
                if let Some(id) = self.links[link].pinned {
                    self.kernel.meters[id].offer(1, 1_400, Direction::Uplink, self.now);
                }
            }
            let soon = self.now.plus(Duration::from_millis(100));
            self.now = self.next_timer().unwrap_or(soon).clamp(self.now, soon);
            self.tick()?;
        }
        Ok(())
    }

    fn passed(&self, link: usize) -> u64 {
        self.links[link].pinned.map_or(0, |id| self.kernel.meters[id].reading.passed.total().get())
    }

    /// With a network that works, everything comes to an end.
    fn settle(&mut self) -> Result<(), Halt> {
        let deadline = self.now.plus(SETTLES_WITHIN);
        self.tell_all(&Event::Settle)?;
        loop {
            self.deliver_all()?;
            let stations = self.agent.iter().flat_map(|agent| &agent.stations);
            if stations.clone().all(|station| station.quota.is_settled()) {
                return Ok(());
            }
            hold!(self.now < deadline, "everything is settled before long", "{:?}", self.agent);
            let Some(due) = self.next_timer() else {
                return Err(Broken::new("what is not settled has a timer", format!("{:?}", self.agent)).into());
            };
            self.now = due.max(self.now);
            self.tick()?;
            self.check()?;
        }
    }

    /// Delivers what is under way and what the answers call for: that has an end, or it is a storm.
    fn deliver_all(&mut self) -> Result<(), Halt> {
        for count in 0.. {
            hold!(count < MESSAGES, "no storm of messages at one instant", "{:?}", self.agent);
            if !self.network.requests.is_empty() {
                let request = self.network.requests.remove(0);
                self.arrive(&request)?;
            } else if !self.network.replies.is_empty() {
                let reply = self.network.replies.remove(0);
                self.deliver(reply)?;
            } else {
                break;
            }
        }
        Ok(())
    }
}
