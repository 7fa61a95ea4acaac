//! A model of the kernel: meters that only count up, and gates that hold to the octet.

use agent::quota::{GateMode, GateSetting, Reading};
use agent::units::{BootId, BootInstant, Epoch, Generation, Octets, UsedUnit};

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Out through the link.
    Uplink,
    /// In through the link.
    Downlink,
}

/// Names a meter for the length of a schedule.
pub(super) type MeterId = usize;

/// One load of the maps: counters, gate, and what the oracle knows of it.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) epoch: Epoch,
    pub(super) reading: Reading,
    gate: Option<GateSetting>,
    /// The highest ceiling that the ledger held when a gate was written.
    pub(super) recorded_ceiling: Octets,
    /// What the living core was told last.
    pub(super) told: Reading,
    /// Set once the maps are no more.
    pub(super) end: Option<End>,
}

/// The maps are gone, and with them what nobody had written down. Octets that passed, octets throttled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct End {
    /// So much at least can be in no container: nobody was told of it.
    pub(super) at_least: (u64, u64),
    /// So much at most: the rest was committed.
    pub(super) at_most: (u64, u64),
}

/// All meters of a schedule, those that are gone as well.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    pub(super) meters: Vec<Meter>,
    boot: u32,
    generation: u32,
}

impl Kernel {
    /// Loads a meter: its counters are zero, its gate was never written and is shut.
    pub(super) fn load(&mut self) -> MeterId {
        self.generation += 1;
        self.meters.push(Meter {
            epoch: Epoch {
                boot: BootId::new(format!("boot-{}", self.boot)),
                generation: Generation::new(self.generation),
            },
            reading: Reading::default(),
            gate: None,
            recorded_ceiling: Octets::ZERO,
            told: Reading::default(),
            end: None,
        });
        self.meters.len() - 1
    }

    /// Another boot: the ids of maps begin anew.
    pub(super) const fn reboot(&mut self) {
        self.boot += 1;
        self.generation = 0;
    }

    pub(super) fn of_epoch(&self, epoch: &Epoch) -> Option<MeterId> {
        self.meters.iter().position(|meter| meter.epoch == *epoch)
    }
}

impl Meter {
    /// Writes the gate. `recorded` is the ceiling that the ledger holds at this moment.
    pub(super) fn set(&mut self, gate: GateSetting, recorded: Octets) {
        self.gate = Some(gate);
        self.recorded_ceiling = self.recorded_ceiling.max(recorded);
    }

    /// So many packets of `octets` each arrive, one after the other.
    pub(super) fn offer(&mut self, count: u64, octets: u64, direction: Direction, now: BootInstant) {
        let fit = self.room(octets, now).min(count);
        add(&mut self.reading.passed, fit * octets, direction);
        let rest = (count - fit) * octets;
        // Of what is restricted, all is what the filters permit.
        let beyond = matches!(self.gate, Some(GateSetting { mode: GateMode::Throttle(_) | GateMode::Restrict(_), .. }));
        let counter = if beyond { &mut self.reading.throttled } else { &mut self.reading.refused };
        add(counter, rest, direction);
    }

    /// The same, to or from the charging server: what the gate refuses may pass out of the reserve.
    pub(super) fn offer_control(&mut self, octets: u64, direction: Direction, now: BootInstant) {
        let reserve = self.gate.as_ref().map_or(0, |gate| gate.control_ceiling.get());
        let counter = if self.room(octets, now) > 0 {
            &mut self.reading.passed
        } else if self.reading.control.total().get() + octets <= reserve {
            &mut self.reading.control
        } else {
            &mut self.reading.refused
        };
        add(counter, octets, direction);
    }

    /// How many packets of that size fit under the ceiling.
    fn room(&self, octets: u64, now: BootInstant) -> u64 {
        let Some(gate) = self.gate.as_ref().filter(|gate| gate.deadline.is_none_or(|deadline| now < deadline)) else {
            return 0;
        };
        gate.ceiling.get().saturating_sub(self.reading.passed.total().get()) / octets.max(1)
    }
}

fn add(counter: &mut UsedUnit, octets: u64, direction: Direction) {
    let used = match direction {
        Direction::Uplink => UsedUnit::new(octets, 0),
        Direction::Downlink => UsedUnit::new(0, octets),
    };
    *counter = counter.saturating_add(used);
}
