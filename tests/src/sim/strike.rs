//! What each step does to the world.

use std::time::Duration;

use agent::quota::{Event, Outcome, Repetition};
use agent::units::{BootInstant, SubscriberIdentifier};

use super::Broken;
use super::chance::index;
use super::eventloop::Halt;
use super::kernel::{Direction, Meter};
use super::network::{Network, Reply, Request};
use super::step::{Step, Word};
use super::world::{BOOTED, World, subscriber};

impl World {
    /// Plays one step, then checks everything.
    pub(super) fn play(&mut self, step: &Step) -> Result<(), Broken> {
        self.note(|| step.to_string());
        self.tally.count("steps", step.kind());
        let struck = match self.strike(step).and_then(|()| self.name_those_kept_waiting()) {
            Err(Halt::Suspended) => self.begin_anew(),
            struck => struck,
        };
        match struck {
            Ok(()) => {}
            Err(Halt::Died | Halt::Suspended) => self.die(),
            Err(Halt::Broken(broken)) => return Err(broken),
        }
        self.observe();
        self.check()
    }

    fn strike(&mut self, step: &Step) -> Result<(), Halt> {
        match *step {
            Step::Packets { link, count, octets, direction } => {
                self.at_meter(link, |meter, now| meter.offer(count, octets, direction, now));
            }
            Step::Control { link, octets } => {
                self.at_meter(link, |meter, now| meter.offer_control(octets, Direction::Uplink, now));
            }
            Step::Timer => {
                let soon = self.now.plus(Duration::from_secs(1));
                self.now = self.next_timer().unwrap_or(soon).max(self.now);
                return self.tick();
            }
            Step::Wait { millis } => return self.work(Duration::from_millis(millis)),
            Step::Stall { millis } => {
                self.now = self.now.plus(Duration::from_millis(millis));
                return self.tick();
            }
            Step::Arrive { nth } => return self.at_server(nth, Self::arrive),
            Step::Double { nth } => return self.at_server(nth, Self::arrive_and_stay),
            Step::Unreachable { nth } => {
                self.in_network(nth, |network, request| network.refuse(request, None, "refused"));
            }
            Step::LoseRequest { nth } => self.in_network(nth, |network, request| network.fail(request, "lost")),
            Step::TimeOut { nth } => self.in_network(nth, |network, request| {
                network.fail(request, "timed out");
                network.leave_under_way(request);
            }),
            Step::Fail { nth } => self.in_network(nth, |network, request| network.fail(request, "500")),
            Step::Busy { nth, retry_after } => {
                let wait = (retry_after > 0).then(|| Duration::from_secs(retry_after));
                self.in_network(nth, |network, request| network.refuse(request, wait, "503"));
            }
            Step::Refuse { nth } => {
                let (server, network) = (&self.server, &mut self.network);
                if let Some(request) = network.take_request(nth) {
                    network.answer(&request, server.refuse(&request.sealed), server.generation);
                }
            }
            Step::Reply { nth } => return self.at_reply(nth, |_, reply| reply),
            Step::ReplyTwice { nth } => {
                return self.at_reply(nth, |world, reply| {
                    world.network.replies.push(reply.clone());
                    reply
                });
            }
            Step::LoseReply { nth } => return self.at_reply(nth, |_, reply| unanswered(reply, "broken off")),
            Step::Garble { nth } => return self.at_reply(nth, |_, reply| unanswered(reply, "garbage")),
            Step::Outage { ways } => self.network.ways = ways,
            Step::TopUp { sim, octets, word } => return self.top_up(sim, octets, word),
            Step::NewTerms { sim } => return self.change_terms(sim),
            Step::RestartServer => self.network.break_all("connection reset"),
            Step::ForgetSessions => self.server.forget_sessions(),
            Step::BackUp => self.server.back_up(),
            Step::RestoreBackup => self.server.restore_backup(),
            Step::Crash { after } => self.crash_in = self.agent.as_ref().map(|_| after),
            Step::DiskFull { after } => self.full_in = self.agent.as_ref().map(|_| after),
            Step::Kill => return Err(Halt::Died),
            Step::Start => return self.start(),
            Step::Keep => return self.keep(),
            Step::Settle => return self.begin_settling(),
            Step::Attach { link } => return self.attach_one(link),
            Step::Hint { link } => return self.tell(self.link_index(link), Event::Hint),
            Step::Abort { sim } => return self.tell_all(&Event::Abort(self.subscriber_of(sim))),
            Step::Reauthorise { sim } => return self.tell_all(&Event::Reauthorise(self.subscriber_of(sim))),
            Step::Renew { link } => return self.tell(self.link_index(link), Event::Renew),
            Step::RouteUp => return self.tell_all(&Event::RouteUp),
            Step::Switch { link, sim } => return self.switch(self.link_index(link), sim),
            Step::Down { link } => return self.turn(self.link_index(link), Use::Out),
            Step::Up { link } => return self.turn(self.link_index(link), Use::In),
            Step::Replace { link } => self.make_anew(self.link_index(link)),
            Step::Unreadable { link } => self.lose_maps(self.link_index(link)),
            Step::PowerCut => self.power_cut(),
        }
        Ok(())
    }

    /// Something passes the meter of a link, if it has one.
    fn at_meter(&mut self, link: u64, pass: impl FnOnce(&mut Meter, BootInstant)) {
        let link = &self.links[self.link_index(link)];
        if let Some(id) = link.pinned.filter(|_| link.metered) {
            pass(&mut self.kernel.meters[id], self.now);
        }
    }

    /// Something happens to the nth request, and the server never sees it.
    fn in_network(&mut self, nth: u64, happens: impl FnOnce(&mut Network, &Request)) {
        if let Some(request) = self.network.take_request(nth) {
            happens(&mut self.network, &request);
        }
    }

    /// The nth request reaches the server.
    fn at_server(
        &mut self,
        nth: u64,
        arrives: impl FnOnce(&mut Self, &Request) -> Result<(), Broken>,
    ) -> Result<(), Halt> {
        let request = self.network.take_request(nth);
        request.map_or(Ok(()), |request| Ok(arrives(self, &request)?))
    }

    /// A request reaches the server, and what it says goes on its way.
    pub(super) fn arrive(&mut self, request: &Request) -> Result<(), Broken> {
        let time = self.time();
        let outcome = self.server.take(&request.sealed, time)?;
        let message = &request.sealed.message;
        self.note(|| format!("  server: {:?} of {}: {outcome:?}", message.operation, request.sealed.key.session));
        self.network.answer(request, outcome, self.server.generation);
        Ok(())
    }

    fn arrive_and_stay(&mut self, request: &Request) -> Result<(), Broken> {
        // A network that doubles what it carries is the business of a server that recognises it.
        if self.setup.repetition == Repetition::Recognised {
            self.network.leave_under_way(request);
        }
        self.arrive(request)
    }

    /// Something happens to the nth reply under way, before it is delivered.
    fn at_reply(&mut self, nth: u64, happens: impl FnOnce(&mut Self, Reply) -> Reply) -> Result<(), Halt> {
        if self.network.replies.is_empty() {
            return Ok(());
        }
        let reply = self.network.replies.remove(index(nth, self.network.replies.len()));
        let reply = happens(self, reply);
        self.deliver(reply)
    }

    /// A reply reaches the core that waits for it.
    pub(super) fn deliver(&mut self, reply: Reply) -> Result<(), Halt> {
        self.tally.count("outcomes", super::tally::outcome(&reply.outcome));
        self.ledger.answering_books = reply.books;
        self.said = reply.outcome.clone();
        let (key, attempt) = (reply.sealed.key, reply.to.number);
        self.tell(reply.to.station, Event::Answer { key, attempt, outcome: reply.outcome })
    }

    fn top_up(&mut self, sim: u64, octets: u64, word: Word) -> Result<(), Halt> {
        let subscriber = self.subscriber_of(sim);
        self.server.buy(&subscriber, octets);
        match word {
            Word::Told => self.tell_all(&Event::Reauthorise(subscriber)),
            Word::Untold => Ok(()),
        }
    }

    fn change_terms(&mut self, sim: u64) -> Result<(), Halt> {
        let sim = index(sim, self.setup.sims.len());
        self.plans[sim] += 1;
        (0..self.links.len()).try_for_each(|link| self.use_link(link))
    }

    fn begin_settling(&mut self) -> Result<(), Halt> {
        if let Some(agent) = &mut self.agent {
            agent.settling = true;
        }
        self.tell_all(&Event::Settle)
    }

    /// The loader that is done is that of the first link from here on that waits for one.
    fn attach_one(&mut self, link: u64) -> Result<(), Halt> {
        let first = self.link_index(link);
        let mut links = (0..self.links.len()).map(|offset| (first + offset) % self.links.len());
        let waits = |link: &usize| self.agent.as_ref().is_some_and(|agent| agent.stations[*link].pending);
        links.find(waits).map_or(Ok(()), |link| self.attach(link))
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

    pub(super) fn turn(&mut self, link: usize, to: Use) -> Result<(), Halt> {
        self.links[link].up = to == Use::In;
        self.use_link(link)
    }

    /// No meter counts for the link until a loader is done.
    fn make_anew(&mut self, link: usize) {
        self.links[link].metered = false;
        if let Some(agent) = &mut self.agent {
            agent.stations[link].pending = true;
        }
    }

    fn lose_maps(&mut self, link: usize) {
        if let Some(id) = self.links[link].pinned.take() {
            self.lose_meter(id);
        }
        self.make_anew(link);
    }

    fn power_cut(&mut self) {
        self.die();
        for link in 0..self.links.len() {
            self.lose_maps(link);
        }
        self.kernel.reboot();
        self.past = self.time();
        self.now = BootInstant::default().plus(BOOTED);
    }
}

/// Whether a link is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    In,
    Out,
}

fn unanswered(reply: Reply, reason: &str) -> Reply {
    let outcome = Outcome::Unanswered { retry_after: None, reason: reason.to_owned() };
    Reply { outcome, ..reply }
}
