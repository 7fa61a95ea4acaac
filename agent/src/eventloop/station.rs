//! One metered link as the loop holds it: its meter, its SIM, its credit-control client.

use std::path::Path;

use agent_common::{Counters, Gate, LINK_ETHERNET, LINK_RAW_IP, MODE_BLOCK, MODE_RESTRICT, MODE_THROTTLE};
use anyhow::{Context, Result};
use tokio::task::JoinSet;

use super::portals::Portals;
use super::tidings::ToldEnd;
use super::trend::Trend;
use crate::config::Link as LinkConfig;
use crate::datapath::filters::filters;
use crate::datapath::{Datapath, throttle_tolerance};
use crate::link::{Framing, Refusal};
use crate::quota::{GateMode, GateSetting, Portal, Reading, Refusals, State, Terms};
use crate::recording::Core;
use crate::units::{BootId, BootInstant, Epoch, Generation, SubscriberIdentifier, UsedUnit};

/// What the place where past sessions are drained is called in the log.
pub(super) const PAST_SESSIONS: &str = "(past sessions)";

/// A link under the meter, or (without a name) the place where sessions of past epochs are drained.
pub(super) struct Station {
    /// The link's name; `None` for the place where past sessions are drained.
    pub(super) name: Option<String>,
    /// What the configuration says of it; `None` for the same.
    pub(super) config: Option<LinkConfig>,
    pub(super) quota: Core,
    pub(super) attachment: Attachment,
    /// Why the link is not metered.
    pub(super) refusal: Option<Refusal>,
    pub(super) datapath: Option<Datapath>,
    /// Those who listen to the meter in hand; they end when another takes its place.
    pub(super) ears: JoinSet<()>,
    /// The interface that the meter in hand was attached to.
    pub(super) on: Option<u32>,
    pub(super) framing: Framing,
    pub(super) sim: Option<Sim>,
    /// Whether the core was told that the link is usable.
    pub(super) in_use: bool,
    /// How often the meter could not be attached, one time after another.
    pub(super) failures: u32,
    /// How often somebody else took the meter off.
    pub(super) gaps: u32,
    /// Its core asked for a name while another one owed a report for the same SIM.
    pub(super) is_kept_waiting: bool,
    /// The state of its session that people were told of last.
    pub(super) told_state: State,
    /// The end of its package as people were told of it last.
    pub(super) told_end: ToldEnd,
    /// What others have put ahead of the meter, as was last said.
    pub(super) ahead: Vec<String>,
    /// What earlier meters have counted, and on which interface: its own counters hold that as well.
    counted_before: Option<(u32, u64)>,
    /// When the server last acknowledged a message of it.
    pub(super) answered_at: Option<BootInstant>,
    /// How fast octets pass, over some minutes.
    pub(super) trend: Trend,
    /// What the gate was last set to.
    setting: Option<GateSetting>,
}

/// Where the meter of a station sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attachment {
    /// Nowhere: the link does not exist, or nobody has tried.
    None,
    /// A loader is at work on the interface with this index, or has just done so.
    Pending(u32),
    /// On the interface with this index.
    On(u32),
    /// It was tried on the interface with this index, in vain; another try follows.
    Failed(u32),
    /// Nowhere: the link exists and is not to be metered, see [`Station::refusal`].
    Refused,
}

/// The SIM behind a link and the terms it is charged under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sim {
    pub(super) subscriber: SubscriberIdentifier,
    pub(super) terms: Terms,
}

impl Station {
    pub(super) fn new(name: Option<String>, config: Option<LinkConfig>, quota: Core) -> Self {
        Self {
            name,
            config,
            quota,
            attachment: Attachment::None,
            refusal: None,
            datapath: None,
            ears: JoinSet::new(),
            on: None,
            framing: Framing::Ethernet,
            sim: None,
            in_use: false,
            failures: 0,
            gaps: 0,
            is_kept_waiting: false,
            told_state: State::Idle,
            told_end: ToldEnd::default(),
            ahead: Vec::new(),
            counted_before: None,
            answered_at: None,
            trend: Trend::default(),
            setting: None,
        }
    }

    /// A station without a link: from now on it only waits for what its sessions have still to be acknowledged.
    pub(super) fn retire(&mut self) {
        self.name = None;
        self.config = None;
        self.sim = None;
        self.attachment = Attachment::None;
        self.refusal = None;
        self.in_use = false;
        self.gaps = 0;
        self.ahead.clear();
        self.counted_before = None;
        self.answered_at = None;
        self.trend = Trend::default();
    }

    /// True for a place that another link may have.
    pub(super) fn is_free(&self) -> bool {
        self.name.is_none() && self.datapath.is_none() && self.quota.is_settled()
    }

    /// The pause after a try in vain is over: another may begin.
    pub(super) const fn forget_failure(&mut self) {
        if let Attachment::Failed(_) = self.attachment {
            self.attachment = Attachment::None;
        }
    }

    /// Puts the meter down; what it has counted on that interface is remembered, and answered.
    pub(super) fn put_down(&mut self, ifindex: Option<u32>) -> Option<Datapath> {
        let datapath = self.datapath.take()?;
        self.setting = None;
        self.on = None;
        self.ears.abort_all();
        if let (Some(ifindex), Ok(counters)) = (ifindex, datapath.read()) {
            let before = self.counted_before.filter(|(on, _)| *on == ifindex).map_or(0, |(_, octets)| octets);
            self.counted_before = Some((ifindex, before.saturating_add(on_the_wire(&counters, self.framing))));
        }
        Some(datapath)
    }

    /// What passed the interface outside every meter of this station, when the interface itself has counted `octets`.
    pub(super) fn unmetered(&self, ifindex: u32, octets: u64) -> u64 {
        let metered = self.counted_before.filter(|(on, _)| *on == ifindex).map_or(0, |(_, octets)| octets);
        octets.saturating_sub(metered)
    }

    /// For the log: the link's name.
    pub(super) fn label(&self) -> &str {
        self.name.as_deref().unwrap_or(PAST_SESSIONS)
    }

    /// Reads the meter; `None` without one.
    pub(super) fn read(&self) -> Result<Option<Reading>> {
        Ok(self.counters()?.map(|counters| reading(&counters)))
    }

    /// The same, every counter by itself.
    pub(super) fn counters(&self) -> Result<Option<Counters>> {
        self.datapath.as_ref().map(Datapath::read).transpose()
    }

    /// Writes the gate; the datapath reads it back.
    pub(super) fn set_gate(&mut self, setting: &GateSetting, portals: &Portals) -> Result<()> {
        let framing = self.framing;
        let label = self.label().to_owned();
        let datapath =
            self.datapath.as_mut().with_context(|| format!("{label} has no meter whose gate could be set"))?;
        let rules = match &setting.mode {
            GateMode::Block | GateMode::Throttle(_) => None,
            GateMode::Restrict(rules) => Some(rules.clone()),
            GateMode::Redirect(portal) => Some(portals.rules(portal)),
        };
        if let Some(rules) = rules {
            datapath.set_filters(&filters(&rules)?).with_context(|| format!("restricting {label}"))?;
        }
        datapath.set_gate(&gate(setting, framing)).with_context(|| format!("setting the gate of {label}"))?;
        self.setting = Some(setting.clone());
        Ok(())
    }

    /// The link has another framing now: the gate is written anew with it, and permits what it did before.
    pub(super) fn reframe(&mut self, framing: Framing, portals: &Portals) -> Result<()> {
        self.framing = framing;
        self.set_gate_again(portals)
    }

    /// Writes the gate once more as it was set last; nothing where it was not.
    pub(super) fn set_gate_again(&mut self, portals: &Portals) -> Result<()> {
        self.setting.clone().map_or(Ok(()), |setting| self.set_gate(&setting, portals))
    }

    /// The portal that people are led to now.
    pub(super) fn portal(&self) -> Option<&Portal> {
        match &self.setting.as_ref()?.mode {
            GateMode::Redirect(portal) => Some(portal),
            GateMode::Block | GateMode::Throttle(_) | GateMode::Restrict(_) => None,
        }
    }

    /// The epoch of the meter in hand.
    pub(super) fn epoch(&self, boot: &BootId) -> Option<Epoch> {
        self.datapath.as_ref().map(|datapath| epoch(datapath, boot))
    }
}

/// The pinned meter of a link from an earlier run, if there is one: its epoch and what it says.
pub(super) fn pinned(pin_root: &Path, link: &str, boot: &BootId) -> Result<Option<(Datapath, Epoch, Reading)>> {
    if !crate::datapath::Pins::new(pin_root, link).directory().exists() {
        return Ok(None);
    }
    let datapath = match Datapath::open(pin_root, link) {
        Ok(datapath) => datapath,
        Err(error) => {
            tracing::warn!("{link}: the pins of an earlier run cannot be opened, a new meter is made: {error:#}");
            return Ok(None);
        }
    };
    let reading = reading(&datapath.read()?);
    let epoch = epoch(&datapath, boot);
    Ok(Some((datapath, epoch, reading)))
}

fn epoch(datapath: &Datapath, boot: &BootId) -> Epoch {
    Epoch { boot: boot.clone(), generation: Generation::new(datapath.epoch_id()) }
}

pub(crate) fn reading(counters: &Counters) -> Reading {
    let (up, down) = (&counters.uplink, &counters.downlink);
    Reading {
        passed: UsedUnit::new(up.passed.octets, down.passed.octets),
        throttled: UsedUnit::new(up.throttled.octets, down.throttled.octets),
        control: UsedUnit::new(up.control.octets, down.control.octets),
        refused: UsedUnit::new(
            up.refused.octets.saturating_add(up.policed.octets),
            down.refused.octets.saturating_add(down.policed.octets),
        ),
    }
}

/// What of these counters the interface has counted as well, about: its figures include link-layer headers.
fn on_the_wire(counters: &Counters, framing: Framing) -> u64 {
    let header = match framing {
        Framing::RawIp => 0,
        Framing::Ethernet => 14,
    };
    let (up, down) = (&counters.uplink, &counters.downlink);
    // Uplink that was refused was never sent.
    let tallies = [
        up.passed,
        up.control,
        up.throttled,
        up.non_ip,
        down.passed,
        down.control,
        down.throttled,
        down.non_ip,
        down.refused,
        down.policed,
    ];
    tallies
        .iter()
        .fold(0, |sum, tally| sum.saturating_add(tally.octets).saturating_add(tally.packets.saturating_mul(header)))
}

fn gate(setting: &GateSetting, framing: Framing) -> Gate {
    let (mode, throttle_rate, throttle_tolerance_ns) = match &setting.mode {
        GateMode::Block => (MODE_BLOCK, 0, 0),
        GateMode::Throttle(rate) => (MODE_THROTTLE, rate.get(), throttle_tolerance(*rate)),
        GateMode::Restrict(_) | GateMode::Redirect(_) => (MODE_RESTRICT, 0, 0),
    };
    Gate {
        ceiling: setting.ceiling.get(),
        // Zero means "no deadline" to the kernel; the first nanosecond after boot is as good as that instant.
        deadline_boot_ns: setting.deadline.map_or(0, |deadline| deadline.as_nanos().max(1)),
        threshold: setting.threshold.map_or(0, |threshold| threshold.get().max(1)),
        control_ceiling: setting.control_ceiling.get(),
        mode,
        throttle_rate,
        throttle_tolerance_ns,
        link_type: match framing {
            Framing::RawIp => LINK_RAW_IP,
            Framing::Ethernet => LINK_ETHERNET,
        },
        generation: 0,
        tells_refusals: u64::from(setting.refusals == Refusals::Told),
    }
}
