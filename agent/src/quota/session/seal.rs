//! Closing intervals of usage into containers, and sealing containers into messages.

use super::{Outbox, Session, send_command};
use crate::quota::{Command, Container, MAX_CONTAINERS, Message, Operation, QuotaManagement, Record, Trigger};
use crate::units::{BootInstant, LocalSequenceNumber, Octets, UsedUnit};

/// A container stays below 2^31 octets, because some servers hold volumes as signed 32-bit numbers.
const CONTAINER_MAX: u64 = (1 << 31) - 1;

impl Session {
    /// Closes the open interval of usage, if it holds any, in containers below 2^31 octets.
    pub(super) fn close_interval(&mut self, trigger: Trigger, now: BootInstant, out: &mut Vec<Command>) {
        let passed = self.used().since(self.closed).unwrap_or_default();
        self.close_containers(passed, QuotaManagement::Online, trigger, now, out);
        self.closed = self.closed.saturating_add(passed);
        let throttled =
            self.throttled.since(self.opening.base_throttled.saturating_add(self.closed_throttled)).unwrap_or_default();
        self.close_containers(throttled, QuotaManagement::Offline, trigger, now, out);
        self.closed_throttled = self.closed_throttled.saturating_add(throttled);
        self.first_usage = None;
        self.interval_since = now;
    }

    fn close_containers(
        &mut self,
        mut used: UsedUnit,
        quota_management: QuotaManagement,
        trigger: Trigger,
        now: BootInstant,
        out: &mut Vec<Command>,
    ) {
        while !used.is_zero() {
            let (part, rest) = split(used);
            let container = Container {
                number: self.next_container,
                used: part,
                quota_management,
                trigger: if rest.is_zero() { trigger } else { Trigger::VolumeLimit },
                first_usage: self.first_usage.unwrap_or(self.last_usage),
                last_usage: self.last_usage,
                closed_at: now,
            };
            self.next_container = self.next_container.next().unwrap_or(self.next_container);
            self.pending.push_back(container.quota_octets());
            out.push(Command::Record(Record::ContainerClosed { session: self.id(), container }));
            used = rest;
        }
    }

    /// The number of the oldest container that is in no message: they are numbered without a gap.
    fn first_pending(&self) -> LocalSequenceNumber {
        let count = u32::try_from(self.pending.len()).unwrap_or(u32::MAX);
        LocalSequenceNumber::new(self.next_container.get().saturating_sub(count))
    }

    /// Seals the oldest containers into a message and sends it.
    pub(super) fn seal(
        &mut self,
        operation: Operation,
        requested: Option<Octets>,
        trigger: Option<Trigger>,
        now: BootInstant,
        out: &mut Vec<Command>,
    ) {
        let first = self.first_pending().get();
        let count = self.pending.len().min(MAX_CONTAINERS);
        let octets: Octets = self.pending.drain(..count).fold(Octets::ZERO, Octets::saturating_add);
        self.reported = self.reported.saturating_add(octets);
        let containers = (first..).take(count).map(LocalSequenceNumber::new).collect();
        let number = self.next_message;
        self.next_message = number.next().unwrap_or(number);
        let message =
            Message { number, operation, requested, containers, trigger, reported: self.reported, sealed_at: now };
        out.push(Command::Record(Record::MessageSealed { session: self.id(), message: message.clone() }));
        let outbox = Outbox::sealed(message, self.doubt.since.unwrap_or(now));
        out.push(send_command(self.id(), &outbox));
        self.outbox = Some(outbox);
    }
}

/// The part of `used` that fits into one container, and the rest.
fn split(used: UsedUnit) -> (UsedUnit, UsedUnit) {
    let uplink = used.uplink.get().min(CONTAINER_MAX);
    let downlink = used.downlink.get().min(CONTAINER_MAX - uplink);
    (UsedUnit::new(uplink, downlink), UsedUnit::new(used.uplink.get() - uplink, used.downlink.get() - downlink))
}
