//! A core that is recorded: nothing can be told to it, and nothing taken from it, without the recorder.

use std::ops::Deref;

use super::{Birth, Line, Recorder};
use crate::quota::{Command, Event, Quota};
use crate::units::BootInstant;

/// The credit-control client of one link, and the recorder that listens.
pub struct Core {
    quota: Quota,
    number: u32,
    recorder: Recorder,
    /// Whether commands may be left to be taken.
    pending: bool,
}

impl Core {
    /// Begins a core.
    #[must_use]
    pub fn begin(birth: Birth, recorder: &Recorder) -> Self {
        let number = recorder.next_core();
        recorder.write(|| Line::Core { core: number, birth: birth.clone() });
        // To take sessions up may call for commands.
        Self { quota: birth.quota(), number, recorder: recorder.clone(), pending: true }
    }

    /// [`Quota::handle_event`].
    pub fn handle_event(&mut self, event: Event, now: BootInstant) {
        let (core, pending) = (self.number, self.pending);
        self.recorder.write(|| Line::Event { core, at: now, pending, event: event.clone() });
        self.pending = true;
        self.quota.handle_event(event, now);
    }

    /// [`Quota::handle_timeout`].
    pub fn handle_timeout(&mut self, now: BootInstant) {
        let (core, pending) = (self.number, self.pending);
        self.recorder.write(|| Line::Timeout { core, at: now, pending });
        self.pending = true;
        self.quota.handle_timeout(now);
    }

    /// [`Quota::poll_command`].
    pub fn poll_command(&mut self) -> Option<Command> {
        let command = self.quota.poll_command();
        match &command {
            Some(command) => {
                self.recorder.write(|| Line::Command { core: self.number, command: format!("{command:?}") });
            }
            None => self.pending = false,
        }
        command
    }
}

/// To look at only.
impl Deref for Core {
    type Target = Quota;

    fn deref(&self) -> &Quota {
        &self.quota
    }
}
