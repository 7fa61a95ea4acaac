//! The blows themselves.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::plan::{Blow, SIMS, SMALL};
use super::stage::{AgentState, DISK, Ends, Mend, PATIENCE, Stage};
use crate::eventually::eventually;
use crate::http::Client;
use crate::scenario::{ClockWord, iccid, subscriber};

/// An agent that is to die and is not there is started first, and dies within so many milliseconds: while it takes up its sessions.
const HASTE: u64 = 500;

impl Stage {
    /// Strikes.
    pub(super) fn strike(&mut self, blow: &Blow) -> Result<()> {
        self.note(&format!("{blow:?}"));
        self.last = blow.kind();
        *self.tally.blows.entry(blow.kind()).or_default() += 1;
        match blow {
            Blow::KillAgent { dead } => self.strike_agent(*dead),
            Blow::KillAgentAt { point, times } => {
                self.agent_ends()?;
                self.kill_agent()?;
                self.start_agent_that(Ends::Settles, Some(&format!("{point}:{times}")))
            }
            Blow::KillServer { dead } => {
                self.kill_server()?;
                self.later(*dead, Mend::StartServer);
                Ok(())
            }
            Blow::Fault(rule) => {
                self.admin("set a fault", |admin| admin.put("/admin/v1/faults", &json!({ "rules": [rule] }))).map(drop)
            }
            Blow::LowerLink { link, down } => self.lower(*link, *down),
            Blow::MoveRoute { to } => self.prefer(*to),
            Blow::SwitchSim => self.switch_sim(),
            Blow::ReplaceLink { link, kills } => self.replace(*link, *kills),
            Blow::StopAgent { dead } => {
                self.stop_agent()?;
                self.later(*dead, Mend::StartAgent);
                Ok(())
            }
            Blow::SuspendAgent { still } => {
                if let (AgentState::Runs, Some(agent)) = (self.agent, &mut self.world.agent) {
                    agent.actor.signal(Signal::SIGSTOP)?;
                    self.agent = AgentState::Suspended;
                    self.later(*still, Mend::ResumeAgent);
                }
                Ok(())
            }
            Blow::StepClock { seconds, synced } => {
                self.world.shift_wall(*seconds, if *synced { ClockWord::Synced } else { ClockWord::Unsynced })
            }
            Blow::FillDisk { full } => {
                let filled = fs::write(self.filler(), vec![1_u8; DISK]);
                ensure!(filled.is_err(), "{DISK} octets fit on the disk, which has room for fewer");
                self.later(*full, Mend::EmptyDisk);
                Ok(())
            }
            Blow::TopUp { octets } => self.top_up(*octets),
            Blow::Abort { sim, held } => {
                self.later(*held, Mend::Reauthorise(*sim));
                self.command("ABORT", *sim)
            }
        }
    }

    fn strike_agent(&mut self, dead: Duration) -> Result<()> {
        if matches!(self.agent, AgentState::Dead) {
            self.start_agent()?;
            let haste = Duration::from_millis(self.random.u64(..HASTE));
            self.later(haste, Mend::KillAgent);
            self.later(haste + dead, Mend::StartAgent);
            return Ok(());
        }
        self.kill_agent()?;
        self.later(dead, Mend::StartAgent);
        Ok(())
    }

    fn lower(&mut self, link: usize, down: Duration) -> Result<()> {
        if self.up[link] {
            self.freeze()?;
            self.world.topology.lower_both(link)?;
            self.up[link] = false;
            self.thaw()?;
            self.later(down, Mend::RaiseLink(link));
        }
        Ok(())
    }

    /// Moves the default route to an uplink that is up.
    pub(super) fn prefer(&mut self, to: usize) -> Result<()> {
        if self.up.get(to).copied().unwrap_or(true) {
            self.world.topology.prefer(to)?;
            self.preferred = to;
        }
        Ok(())
    }

    /// Pulls a link out and puts another in, which is metered before its first packet, and kills the agent now and then meanwhile.
    fn replace(&mut self, link: usize, kills: u8) -> Result<()> {
        self.freeze()?;
        // Who was to raise the old link must not raise the new one before it is metered.
        self.forget(&Mend::RaiseLink(link));
        self.wires[link].remember_lost(&self.world)?;
        self.world.topology.pull_out(link)?;
        self.up[link] = false;
        self.wires[link].end_life()?;
        self.world.topology.put_in(link)?;
        self.wires[link].listen(&self.world)?;
        self.thaw()?;
        for _ in 0..kills {
            self.bring_agent_up()?;
            let haste = Duration::from_millis(self.random.u64(..HASTE));
            self.go_on_for(haste)?;
            self.kill_agent()?;
        }
        self.bring_agent_up()?;
        self.is_metered(link)?;
        self.raise(link)
    }

    fn switch_sim(&mut self) -> Result<()> {
        let now = self.sim_in_first_slot()?;
        let other = SIMS[0].iter().copied().find(|sim| Some(*sim) != now).context("another SIM")?;
        let switch = json!({ "deviceId": "gw-1", "slot": "wan0", "iccid": iccid(other) });
        let outcome = self.admin_once(|admin| admin.post("/admin/v1/switches", &switch));
        // The answer may be lost; what counts is what the server then says.
        ensure!(self.sim_in_first_slot()? == Some(other), "the SIM was not switched: {outcome:?}");
        Ok(())
    }

    fn sim_in_first_slot(&mut self) -> Result<Option<usize>> {
        let sims = self.admin("the SIMs", |admin| admin.get("/admin/v1/sims"))?;
        let sims = sims["sims"].as_array().context("sims")?;
        Ok(sims.iter().position(|sim| sim["boundTo"]["slot"] == "wan0"))
    }

    /// Buys octets for the small package.
    pub(super) fn top_up(&mut self, octets: u64) -> Result<()> {
        let before = self.total_of_small()?;
        let top_up = json!({ "subscriberIdentifier": subscriber(SMALL), "octets": octets });
        let outcome = self.admin_once(|admin| admin.post("/admin/v1/top-ups", &top_up));
        let after = self.total_of_small()?;
        ensure!(after == before + octets, "{octets} bought, {before} before, {after} now: {outcome:?}");
        self.bought += octets;
        Ok(())
    }

    fn total_of_small(&mut self) -> Result<u64> {
        let path = format!("/admin/v1/packages?subscriber={}", subscriber(SMALL));
        let packages = self.admin("the small package", |admin| admin.get(&path))?;
        packages["packages"][0]["totalVolume"].as_u64().with_context(|| format!("its octets in {packages}"))
    }

    /// Has the server order something of the agent.
    pub(super) fn command(&mut self, command: &str, sim: usize) -> Result<()> {
        let body = json!({ "deviceId": "gw-1", "command": command, "subscriberIdentifier": subscriber(sim) });
        self.admin(command, |admin| admin.post("/admin/v1/commands", &body)).map(drop)
    }

    /// Asks the server, which may just be playing dead, until it answers.
    pub(super) fn admin(&mut self, what: &str, ask: impl Fn(&Client) -> Result<Value>) -> Result<Value> {
        self.start_server()?;
        eventually(what, PATIENCE, || ask(&self.world.admin))
    }

    /// Asks the server once: for what must not be done twice.
    fn admin_once(&mut self, ask: impl Fn(&Client) -> Result<Value>) -> Result<Value> {
        self.start_server()?;
        ask(&self.world.admin)
    }
}
