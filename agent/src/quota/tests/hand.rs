//! Short hands for scripts: a link with a SIM, readings in octets, answers, and what the core commanded.

use std::time::Duration;

use crate::quota::{
    Answer, Command, Event, Exceptions, FailureHandling, FinalUnitAction, GateSetting, GrantedUnit, LocalFilters,
    Message, MessageKey, OfflineGrace, Outcome, Quota, Reading, Record, Repetition, ResultCode, State, Terms, Usable,
    WhenUsedUp,
};
use crate::units::{
    BootId, BootInstant, ChargingId, Epoch, Generation, Octets, SessionRef, SubscriberIdentifier, UsedUnit,
};

pub(super) fn at(millis: u64) -> BootInstant {
    BootInstant::from_nanos(millis * 1_000_000)
}

pub(super) fn epoch(generation: u32) -> Epoch {
    Epoch { boot: BootId::new("boot-1"), generation: Generation::new(generation) }
}

pub(super) fn sim(number: u32) -> SubscriberIdentifier {
    SubscriberIdentifier::new(format!("imsi-00101000000000{number}"))
}

pub(super) fn terms() -> Terms {
    Terms {
        chunk: Octets::new(1_000_000),
        largest_chunk: Octets::new(1_000_000),
        report_interval: Duration::from_mins(1),
        checkpoint_interval: Duration::from_secs(5),
        max_unrecorded: None,
        failure_handling: FailureHandling::Terminate,
        offline_grace: OfflineGrace { octets: Octets::new(50_000), duration: Duration::from_mins(5) },
        when_used_up: WhenUsedUp::AsTold,
        filters: LocalFilters::default(),
        control_reserve: Octets::new(100_000),
        repetition: Repetition::Recognised,
    }
}

/// All passed uplink.
pub(super) fn passed(octets: u64) -> Reading {
    Reading { passed: UsedUnit::new(octets, 0), ..Reading::default() }
}

pub(super) fn granted(octets: u64) -> GrantedUnit {
    GrantedUnit {
        result: ResultCode::Success,
        octets: Octets::new(octets),
        volume_quota_threshold: Some(Octets::new(octets / 5)),
        validity_time: None,
        quota_holding_time: None,
        final_unit: None,
        exceptions: Exceptions::default(),
    }
}

pub(super) fn last(octets: u64) -> GrantedUnit {
    GrantedUnit { final_unit: Some(FinalUnitAction::Terminate), ..granted(octets) }
}

pub(super) fn nothing() -> GrantedUnit {
    GrantedUnit { result: ResultCode::QuotaLimitReached, ..last(0) }
}

pub(super) fn answered(granted: GrantedUnit) -> Outcome {
    Outcome::Answered(Answer {
        session_ref: Some(SessionRef::new("ref-1")),
        granted: Some(granted),
        failure_handling: None,
    })
}

pub(super) fn acknowledged() -> Outcome {
    Outcome::Answered(Answer { session_ref: None, granted: None, failure_handling: None })
}

pub(super) fn unanswered() -> Outcome {
    Outcome::Unanswered { retry_after: None, reason: "test".to_owned() }
}

/// A core and the time it lives at.
pub(super) struct Hand {
    pub(super) quota: Quota,
    pub(super) now: BootInstant,
    pub(super) reading: Reading,
    /// The last name that a session was given.
    name: u32,
}

impl Hand {
    pub(super) fn new() -> Self {
        Self { quota: Quota::new(7, at(0)), now: at(0), reading: Reading::default(), name: 0 }
    }

    /// A link whose session has its first grant of 1,000,000 octets.
    pub(super) fn active() -> Self {
        let mut hand = Self::new();
        hand.usable(terms());
        hand.answer(answered(granted(1_000_000)));
        hand
    }

    pub(super) fn usable(&mut self, terms: Terms) -> Vec<Command> {
        let usable = Usable { subscriber: sim(1), epoch: epoch(1), terms, reading: self.reading };
        self.tell(Event::Usable(usable))
    }

    pub(super) fn tell(&mut self, event: Event) -> Vec<Command> {
        self.quota.handle_event(event, self.now);
        self.drain()
    }

    pub(super) fn read(&mut self, reading: Reading) -> Vec<Command> {
        self.reading = reading;
        self.tell(Event::Reading(reading))
    }

    /// Answers the outstanding message.
    pub(super) fn answer(&mut self, outcome: Outcome) -> Vec<Command> {
        let key = self.outstanding();
        self.answer_to(key, outcome)
    }

    pub(super) fn answer_to(&mut self, key: MessageKey, outcome: Outcome) -> Vec<Command> {
        let attempt = self.attempt();
        self.tell(Event::Answer { key, attempt, outcome })
    }

    /// Lets time pass; the meter stands still. Answers everything the core asked for on the way but readings.
    pub(super) fn wait(&mut self, millis: u64) -> Vec<Command> {
        let end = self.now.plus(Duration::from_millis(millis));
        let mut all = Vec::new();
        let mut rounds = 0;
        while let Some(due) = self.quota.poll_timeout().filter(|due| *due <= end) {
            rounds = if due > self.now { 0 } else { rounds + 1 };
            assert!(rounds < 10, "a timer that stays due: {:?}", self.quota);
            self.now = due.max(self.now);
            self.quota.handle_timeout(self.now);
            all.extend(self.drain());
        }
        self.now = end;
        all
    }

    pub(super) fn state(&self) -> State {
        self.quota.overview(self.now).state
    }

    pub(super) fn outstanding(&self) -> MessageKey {
        let session = self.quota.sessions.iter().find(|session| session.outbox_key().is_some());
        session.and_then(super::super::session::Session::outbox_key).map(|(key, _)| key).expect("a message is out")
    }

    fn attempt(&self) -> u32 {
        let session = self.quota.sessions.iter().find_map(super::super::session::Session::outbox_key);
        session.map_or(0, |(_, attempt)| attempt)
    }

    /// Takes the commands; readings and names that are asked for are given at once.
    fn drain(&mut self) -> Vec<Command> {
        let mut commands = Vec::new();
        while let Some(command) = self.quota.poll_command() {
            match command {
                Command::Read => self.quota.handle_event(Event::Reading(self.reading), self.now),
                Command::DrawName => {
                    self.name += 1;
                    self.quota.handle_event(Event::Named(ChargingId::new(self.name)), self.now);
                }
                Command::Record(_) | Command::Send { .. } | Command::SetGate(_) => commands.push(command),
            }
            assert!(commands.len() < 1000, "a storm of commands: {:?}", &commands[..10]);
        }
        commands
    }
}

pub(super) fn session_of(commands: &[Command]) -> ChargingId {
    let opened = commands.iter().find_map(|command| match command {
        Command::Record(Record::SessionOpened(opening)) => Some(opening.session),
        _ => None,
    });
    opened.expect("a session was opened")
}

/// The message that was sealed.
pub(super) fn sealed(commands: &[Command]) -> &Message {
    sealed_maybe(commands).expect("a message was sealed")
}

pub(super) fn sealed_maybe(commands: &[Command]) -> Option<&Message> {
    commands.iter().find_map(|command| match command {
        Command::Record(Record::MessageSealed { message, .. }) => Some(message),
        _ => None,
    })
}

/// The last gate that was set.
pub(super) fn gate(commands: &[Command]) -> Option<GateSetting> {
    commands.iter().rev().find_map(|command| match command {
        Command::SetGate(setting) => Some(setting.clone()),
        _ => None,
    })
}

/// The kinds of commands, in order, in words.
pub(super) fn kinds(commands: &[Command]) -> Vec<&'static str> {
    commands
        .iter()
        .map(|command| match command {
            Command::Record(Record::SessionOpened(_)) => "opened",
            Command::Record(Record::ContainerClosed { .. }) => "container",
            Command::Record(Record::MessageSealed { .. }) => "sealed",
            Command::Record(Record::MessageAcknowledged { .. }) => "acknowledged",
            Command::Record(Record::MessageSetAside { .. }) => "set aside",
            Command::Record(Record::MessageInDoubt { .. }) => "in doubt",
            Command::Record(Record::MessageNotTaken { .. }) => "not taken",
            Command::Record(Record::MessageAttempted { .. }) => "attempted",
            Command::Record(Record::Orphaned { .. }) => "orphaned",
            Command::Record(Record::GraceOpened { .. }) => "grace",
            Command::Record(Record::SessionClosing { .. }) => "closing",
            Command::Record(Record::SessionSettled { .. }) => "settled",
            Command::Record(Record::SessionClosed { .. }) => "closed",
            Command::Record(Record::Aborted { .. }) => "aborted",
            Command::Record(Record::Reauthorised { .. }) => "reauthorised",
            Command::Record(Record::Checkpoint { .. }) => "checkpoint",
            Command::Record(Record::SliceSet { .. }) => "slice",
            Command::Record(Record::RestUncertain { .. }) => "uncertain",
            Command::Send { .. } => "send",
            Command::SetGate(_) => "gate",
            Command::DrawName => "name",
            Command::Read => "read",
        })
        .collect()
}

impl Hand {
    /// Lets time pass until a message is sealed; fails after `limit`.
    pub(super) fn wait_for_message(&mut self, limit: Duration) -> Vec<Command> {
        self.wait_until(limit, |commands| sealed_maybe(commands).is_some())
    }

    /// Lets time pass until something is sent; fails after `limit`.
    pub(super) fn wait_for_send(&mut self, limit: Duration) -> Vec<Command> {
        self.wait_until(limit, |commands| commands.iter().any(|command| matches!(command, Command::Send { .. })))
    }

    fn wait_until(&mut self, limit: Duration, done: impl Fn(&[Command]) -> bool) -> Vec<Command> {
        let end = self.now.plus(limit);
        let mut all = Vec::new();
        while !done(&all) {
            let due = self.quota.poll_timeout().expect("a timer");
            assert!(due <= end, "nothing happened in {limit:?}: {all:?}");
            self.now = due.max(self.now);
            self.quota.handle_timeout(self.now);
            all.extend(self.drain());
        }
        all
    }
}
