//! What each step does to the world.

use std::rc::Rc;
use std::time::Duration;

use agent::quota::{Event, Outcome, Repetition};
use agent::units::{BootInstant, SubscriberIdentifier};

use super::Broken;
use super::chance::index;
use super::eventloop::Halt;
use super::network::Request;
use super::schedule::{Step, Word};
use super::world::{BOOTED, World, subscriber};

impl World {
    /// Plays one step, then checks everything.
    pub(super) fn play(&mut self, step: &Step) -> Result<(), Broken> {
        self.note(|| step.to_string());
        self.tally.count("steps", step.kind());
        match self.strike(step) {
            Ok(()) => {}
            Err(Halt::Died) => self.die(),
            Err(Halt::Broken(broken)) => return Err(broken),
        }
        self.observe();
        self.check()
    }

    fn strike(&mut self, step: &Step) -> Result<(), Halt> {
        match *step {
            Step::Packets { .. } | Step::Control { .. } => {
                self.traffic(step);
                Ok(())
            }
            Step::Timer => {
                let now = self.now;
                let soon = now.plus(Duration::from_secs(1));
                self.now = self.next_timer().unwrap_or(soon).max(now);
                self.tick()
            }
            Step::Wait { millis } => self.work(Duration::from_millis(millis)),
            Step::Stall { millis } => {
                self.now = self.now.plus(Duration::from_millis(millis));
                self.tick()
            }
            Step::Arrive { .. }
            | Step::Double { .. }
            | Step::Unreachable { .. }
            | Step::LoseRequest { .. }
            | Step::TimeOut { .. }
            | Step::Fail { .. }
            | Step::Busy { .. }
            | Step::Refuse { .. } => self.meet_request(step),
            Step::Reply { nth } | Step::ReplyTwice { nth } | Step::LoseReply { nth } | Step::Garble { nth } => {
                self.meet_reply(step, nth)
            }
            Step::Outage { .. }
            | Step::TopUp { .. }
            | Step::RestartServer
            | Step::ForgetSessions
            | Step::BackUp
            | Step::RestoreBackup => self.meet_server(step),
            Step::Crash { .. }
            | Step::Kill
            | Step::Start
            | Step::Keep
            | Step::Settle
            | Step::Hint { .. }
            | Step::Abort { .. }
            | Step::Reauthorise { .. }
            | Step::RouteUp => self.meet_agent(step),
            Step::Attach { .. }
            | Step::Switch { .. }
            | Step::Down { .. }
            | Step::Up { .. }
            | Step::Replace { .. }
            | Step::Unreadable { .. }
            | Step::PowerCut => self.meet_link(step),
        }
    }

    fn traffic(&mut self, step: &Step) {
        let now = self.now;
        let (Step::Packets { link, .. } | Step::Control { link, .. }) = *step else { return };
        let link = &self.links[self.link_index(link)];
        let Some(meter) = link.pinned.filter(|_| link.metered).map(|id| &mut self.kernel.meters[id]) else { return };
        match *step {
            Step::Packets { count, octets, direction, .. } => meter.offer(count, octets, direction, now),
            Step::Control { octets, .. } => meter.offer_control(octets, super::kernel::Direction::Uplink, now),
            _ => {}
        }
    }

    fn meet_request(&mut self, step: &Step) -> Result<(), Halt> {
        let (Step::Arrive { nth }
        | Step::Double { nth }
        | Step::Unreachable { nth }
        | Step::LoseRequest { nth }
        | Step::TimeOut { nth }
        | Step::Fail { nth }
        | Step::Busy { nth, .. }
        | Step::Refuse { nth }) = *step
        else {
            return Ok(());
        };
        if self.network.requests.is_empty() {
            return Ok(());
        }
        let at = index(nth, self.network.requests.len());
        let request = self.network.requests.remove(at);
        let ghost = Request { sealed: Rc::clone(&request.sealed), from: None };
        match *step {
            Step::Unreachable { .. } => self.network.refuse(&request, None, "connection refused"),
            Step::LoseRequest { .. } => self.network.fail(&request, "lost"),
            Step::Fail { .. } => self.network.fail(&request, "500"),
            Step::TimeOut { .. } => {
                self.network.fail(&request, "timed out");
                self.network.requests.push(ghost);
            }
            Step::Busy { retry_after, .. } => {
                let retry_after = (retry_after > 0).then(|| Duration::from_secs(retry_after));
                self.network.refuse(&request, retry_after, "503");
            }
            Step::Refuse { .. } => {
                let outcome = self.server.refuse(&request.sealed);
                self.network.answer(&request, outcome, self.server.generation);
            }
            // A network that doubles what it carries is a server's business that recognises it.
            Step::Double { .. } if self.setup.repetition == Repetition::Recognised => {
                self.network.requests.push(ghost);
                self.arrive(&request)?;
            }
            _ => self.arrive(&request)?,
        }
        Ok(())
    }

    /// A request reaches the server, and what it says goes on its way.
    pub(super) fn arrive(&mut self, request: &Request) -> Result<(), Broken> {
        let time = self.time();
        let outcome = self.server.take(&request.sealed, time)?;
        self.note(|| {
            format!("  server: {:?} of {}: {outcome:?}", request.sealed.message.operation, request.sealed.key.session)
        });
        self.network.answer(request, outcome, self.server.generation);
        Ok(())
    }

    fn meet_reply(&mut self, step: &Step, nth: u64) -> Result<(), Halt> {
        if self.network.replies.is_empty() {
            return Ok(());
        }
        let at = index(nth, self.network.replies.len());
        let mut reply = self.network.replies.remove(at);
        let nothing = |reason: &str| Outcome::Unanswered { retry_after: None, reason: reason.to_owned() };
        match step {
            Step::ReplyTwice { .. } => self.network.replies.push(reply.clone()),
            Step::LoseReply { .. } => reply.outcome = nothing("the connection broke"),
            Step::Garble { .. } => reply.outcome = nothing("garbage"),
            _ => {}
        }
        self.deliver(reply)
    }

    /// A reply reaches the core that waits for it.
    pub(super) fn deliver(&mut self, reply: super::network::Reply) -> Result<(), Halt> {
        self.tally.count("outcomes", super::tally::outcome(&reply.outcome));
        self.ledger.answering_books = reply.books;
        let (key, attempt) = (reply.sealed.key, reply.to.number);
        self.tell(reply.to.station, Event::Answer { key, attempt, outcome: reply.outcome })
    }

    fn meet_server(&mut self, step: &Step) -> Result<(), Halt> {
        match *step {
            Step::Outage { ways } => self.network.ways = ways,
            Step::TopUp { sim, octets, word } => {
                let sim = index(sim, self.setup.sims.len());
                self.server.buy(&subscriber(sim), octets);
                if word == Word::Told {
                    return self.tell_all(&Event::Reauthorise(subscriber(sim)));
                }
            }
            Step::RestartServer => self.network.break_all("connection reset"),
            Step::ForgetSessions => self.server.forget_sessions(),
            Step::BackUp => self.server.back_up(),
            Step::RestoreBackup => self.server.restore_backup(),
            _ => {}
        }
        Ok(())
    }

    fn meet_agent(&mut self, step: &Step) -> Result<(), Halt> {
        if let Step::Start = step {
            return self.start();
        }
        let Some(agent) = &mut self.agent else { return Ok(()) };
        match *step {
            Step::Crash { after } => {
                self.crash_in = Some(after);
                Ok(())
            }
            Step::Kill => Err(Halt::Died),
            Step::Keep => self.keep(),
            Step::Settle => {
                agent.settling = true;
                self.tell_all(&Event::Settle)
            }
            Step::Hint { link } => self.tell(self.link_index(link), Event::Hint),
            Step::Abort { sim } => self.tell_all(&Event::Abort(self.subscriber_of(sim))),
            Step::Reauthorise { sim } => self.tell_all(&Event::Reauthorise(self.subscriber_of(sim))),
            Step::RouteUp => self.tell_all(&Event::RouteUp),
            _ => Ok(()),
        }
    }

    fn meet_link(&mut self, step: &Step) -> Result<(), Halt> {
        match *step {
            Step::Attach { link } => {
                let first = self.link_index(link);
                let links = (0..self.links.len()).map(|offset| (first + offset) % self.links.len());
                let waits = |link: &usize| self.agent.as_ref().is_some_and(|agent| agent.stations[*link].pending);
                let waiting = links.filter(waits).collect::<Vec<_>>();
                waiting.first().map_or(Ok(()), |link| self.attach(*link))
            }
            Step::Switch { link, sim } => self.switch(self.link_index(link), sim),
            Step::Down { link } => self.turn(self.link_index(link), false),
            Step::Up { link } => self.turn(self.link_index(link), true),
            Step::Replace { link } => {
                self.reload(self.link_index(link));
                Ok(())
            }
            Step::Unreadable { link } => {
                let link = self.link_index(link);
                if let Some(id) = self.links[link].pinned.take() {
                    self.lose_meter(id);
                }
                self.reload(link);
                Ok(())
            }
            Step::PowerCut => {
                self.power_cut();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn subscriber_of(&self, sim: u64) -> SubscriberIdentifier {
        subscriber(index(sim, self.setup.sims.len()))
    }

    /// Another SIM moves in; one SIM is in one slot.
    fn switch(&mut self, link: usize, sim: u64) -> Result<(), Halt> {
        let sim = Some(index(sim, self.setup.sims.len() + 1)).filter(|sim| *sim < self.setup.sims.len());
        for other in 0..self.links.len() {
            if other != link && sim.is_some() && self.links[other].sim == sim {
                self.links[other].sim = None;
                self.use_link(other)?;
            }
        }
        self.links[link].sim = sim;
        self.use_link(link)
    }

    pub(super) fn turn(&mut self, link: usize, up: bool) -> Result<(), Halt> {
        self.links[link].up = up;
        self.use_link(link)
    }

    /// No meter counts for the link until a loader is done.
    fn reload(&mut self, link: usize) {
        self.links[link].metered = false;
        if let Some(agent) = &mut self.agent {
            agent.stations[link].pending = true;
        }
    }

    fn power_cut(&mut self) {
        self.die();
        for link in 0..self.links.len() {
            if let Some(id) = self.links[link].pinned.take() {
                self.lose_meter(id);
            }
            self.links[link].metered = false;
        }
        self.kernel.reboot();
        self.past = self.time();
        self.now = BootInstant::default().plus(BOOTED);
    }
}
