//! Slices: the gate is open no further than a bound beyond what is committed, and what may be missing when the counters are lost.

use super::{Session, larger};
use crate::quota::{Command, Record};
use crate::units::{ChargingId, Octets};

/// How far beyond what is recorded the gate may be open, as the ledger knows it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slice {
    /// Session octets at which the gate shut at the highest.
    highest_ceiling: Octets,
    /// What the ledger holds; `None` = up to the ceiling.
    recorded: Option<Octets>,
    /// The gate was set by a narrower slice than the ledger holds, and a reading after that was asked for.
    narrowed: bool,
    /// What is to be recorded: nothing can have passed under the wider slice any more that is not read.
    due: bool,
    /// A packet did not fit into the slice.
    refused: bool,
}

impl Slice {
    /// Of a session that begins: no gate was open before this is recorded.
    pub(super) fn begun(session: ChargingId, slice: Option<Octets>, out: &mut Vec<Command>) -> Self {
        if slice.is_some() {
            out.push(Command::Record(Record::SliceSet { session, slice }));
        }
        Self { recorded: slice, ..Self::default() }
    }

    /// Of a session that the ledger remembers.
    pub(super) fn restored(highest_ceiling: Octets, recorded: Option<Octets>) -> Self {
        Self { highest_ceiling, recorded, ..Self::default() }
    }

    /// The gate may be opened up to here.
    pub(super) fn reach(&mut self, ceiling: Octets) {
        self.highest_ceiling = self.highest_ceiling.max(ceiling);
    }
}

impl Session {
    /// Session octets up to which the gate may be open for what is committed, and at which the slice is to be moved on. `None` when
    /// the grant's ceiling comes first.
    pub(super) fn slice_ends(&self) -> Option<(Octets, Octets)> {
        let slice = self.terms.max_unrecorded?;
        let end = self.committed().saturating_add(slice);
        (end < self.granted_ceiling()?).then(|| (end, end.saturating_sub(slice.scaled(1, 2))))
    }

    /// Octets until the slice is to be moved on; `None` when it does not come first.
    pub(in crate::quota) fn slice_room(&self) -> Option<Octets> {
        self.slice_ends().map(|(_, moves_at)| moves_at.saturating_sub(self.used().total()))
    }

    /// Whether the slice should be moved on: half of it is used, or a packet did not fit into it.
    pub(super) fn is_slice_due(&self) -> bool {
        self.slice.due || self.slice_room().is_some_and(|room| room.is_zero() || self.slice.refused)
    }

    /// Whether what was refused before this reading was refused for want of units, and not because the slice was used up.
    pub(super) fn is_refused_by_the_grant(&mut self, refused: bool) -> bool {
        self.slice.due |= std::mem::take(&mut self.slice.narrowed);
        self.slice.refused = refused && self.slice_ends().is_some();
        refused && !self.slice.refused
    }

    /// Records another slice: a wider one before the gate opens further, a narrower one with what was read after the gate was set by it.
    pub(super) fn record_slice(&mut self, out: &mut Vec<Command>) {
        let slice = self.terms.max_unrecorded;
        if self.slice.recorded != slice && (self.slice.due || !self.is_slice_narrower()) {
            self.slice.recorded = slice;
            out.push(Command::Record(Record::SliceSet { session: self.id(), slice }));
        }
        self.slice.due = false;
    }

    /// The gate is set. True when it is so, for the first time, by a narrower slice than is recorded.
    pub(super) fn narrows_slice(&mut self) -> bool {
        let newly = self.is_slice_narrower() && !self.slice.narrowed && !self.slice.due;
        self.slice.narrowed |= newly;
        newly
    }

    fn is_slice_narrower(&self) -> bool {
        let open = |slice: Option<Octets>| slice.unwrap_or(Octets::MAX);
        open(self.terms.max_unrecorded) < open(self.slice.recorded)
    }

    /// Quota octets of this session that are committed: in the last checkpoint, or in closed containers.
    fn committed(&self) -> Octets {
        let base = self.opening.base;
        larger(self.checkpoint.0, base.saturating_add(self.closed)).since(base).unwrap_or_default().total()
    }

    /// Tells what may have passed after the last reading: no more than the gate let through beyond what was committed.
    pub(super) fn tell_uncertain_rest(&self, out: &mut Vec<Command>) {
        let slice_end = self.slice.recorded.map_or(Octets::MAX, |slice| self.committed().saturating_add(slice));
        let octets = self.slice.highest_ceiling.min(slice_end).saturating_sub(self.used().total());
        if !octets.is_zero() {
            out.push(Command::Record(Record::RestUncertain { session: self.id(), octets }));
        }
    }
}
