//! Messages to a server that charges whatever comes again: what may have been taken is booked as in doubt, and the session goes on.

use std::time::Duration;

use super::{Fate, Jitter, Outbox, Session, send_command};
use crate::quota::outbox::back_off;
use crate::quota::{Command, MessageKey, Operation, Record, Repetition, Trigger};
use crate::units::BootInstant;

/// Where a session stands with a server that has left messages in doubt.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Doubt {
    /// Messages in a row that were left in doubt.
    in_a_row: u32,
    /// Since when the server has owed an answer.
    pub(super) since: Option<BootInstant>,
    /// No message is sealed before this, so that one failure does not chase the other.
    pub(super) hold_until: Option<BootInstant>,
}

impl Session {
    /// True when a message may be sealed now.
    pub(super) const fn may_seal(&self) -> bool {
        self.outbox.is_none() && self.doubt.hold_until.is_none()
    }

    /// True while the server owes it an answer that will never come.
    pub(in crate::quota) const fn is_in_doubt(&self) -> bool {
        self.doubt.since.is_some()
    }

    /// Waits with the next message, longer each time.
    pub(super) fn hold_back(&mut self, retry_after: Option<Duration>, now: BootInstant, jitter: &mut Jitter) {
        self.doubt.in_a_row = self.doubt.in_a_row.saturating_add(1);
        self.doubt.hold_until = Some(now.plus(back_off(self.doubt.in_a_row, retry_after, jitter)));
    }

    /// Ends the waiting when it is over.
    pub(super) fn watch_hold(&mut self, now: BootInstant) {
        if self.doubt.hold_until.is_some_and(|until| now >= until) {
            self.doubt.hold_until = None;
        }
    }

    /// A message that an earlier life may have sent is in doubt from the start.
    pub(super) fn judge_what_was_restored(&mut self, now: BootInstant, out: &mut Vec<Command>) -> Fate {
        if self.outbox.as_ref().is_some_and(Outbox::is_doubtful) {
            return self.put_in_doubt("the agent ended before the answer came".to_owned(), now, out);
        }
        Fate::Lives
    }

    /// Books the message that is out as in doubt. What comes after it goes on with the next number, but for a session that the server
    /// has not named: that one is given up.
    pub(super) fn put_in_doubt(&mut self, reason: String, now: BootInstant, out: &mut Vec<Command>) -> Fate {
        let Some(outbox) = self.outbox.take() else { return Fate::Lives };
        self.doubt.since.get_or_insert(outbox.since());
        let message = outbox.message;
        let key = MessageKey { session: self.id(), number: message.number };
        out.push(Command::Record(Record::MessageInDoubt { key, reason }));
        match message.operation {
            Operation::Create => {
                self.become_orphan(now, out);
                return Fate::Doubted;
            }
            Operation::Update => {
                self.reauthorise |= message.trigger == Some(Trigger::ForcedReauthorisation);
                return Fate::Lives;
            }
            Operation::Event if !self.pending.is_empty() => return Fate::Lives,
            Operation::Event | Operation::Release => {}
        }
        out.push(Command::Record(Record::SessionClosed { session: self.id() }));
        Fate::Ended
    }

    /// What was certainly not taken may be sent again, also after a restart: that has to be known then.
    pub(super) fn note_not_taken(&self, key: MessageKey, out: &mut Vec<Command>) {
        match self.terms.repetition {
            Repetition::Charged => out.push(Command::Record(Record::MessageNotTaken { key })),
            Repetition::Recognised => {}
        }
    }

    /// Sends the message that is out once more. Before its first octet leaves, it counts as possibly taken.
    pub(super) fn send_again(&self, outbox: &Outbox, out: &mut Vec<Command>) {
        match self.terms.repetition {
            Repetition::Charged => {
                let key = MessageKey { session: self.id(), number: outbox.message.number };
                out.push(Command::Record(Record::MessageAttempted { key }));
            }
            Repetition::Recognised => {}
        }
        out.push(send_command(self.id(), outbox));
    }
}
