//! What of a core's events and commands is told to people, in their words.

use crate::local::{Kind, Tidings};
use crate::quota::{Command, Event, Grant, Outcome, Record, ResultCode, State};
use crate::units::Octets;

/// What an event means to the link that it happened to; `None` for what is everyday business.
pub(super) fn of_event(event: &Event) -> Option<Tidings> {
    match event {
        Event::Metered { .. } => Some(Tidings::new(Kind::LinkUp, "metered")),
        Event::Usable(usable) => Some(Tidings::new(Kind::LinkUp, format!("in use, {} pays", usable.subscriber))),
        Event::Gone => Some(Tidings::new(Kind::LinkDown, "not in use any more; its units are returned")),
        Event::MeterLost => {
            Some(Tidings::new(Kind::Warning, "its meter cannot be read any more; the last reading stands"))
        }
        Event::Renew => Some(Tidings::new(Kind::Notice, "more is asked for, by order of the operator")),
        Event::Reauthorise(_) => Some(Tidings::new(Kind::TopUp, "asked again for units (a top-up, say)")),
        Event::Abort(_) => Some(Tidings::new(Kind::Warning, "the server has ordered the session ended")),
        Event::Answer { outcome, .. } => of_outcome(outcome),
        Event::Settle => Some(Tidings::new(Kind::Notice, "the agent is stopping: settling")),
        Event::MeterRetired => Some(Tidings::new(Kind::LinkDown, "its meter was taken off and read to its end")),
        Event::Reading(_) | Event::Hint | Event::Named(_) | Event::RouteUp | Event::Pause => None,
    }
}

/// What was answered is told by its records; what was not is told here.
fn of_outcome(outcome: &Outcome) -> Option<Tidings> {
    match outcome {
        // No answer is a warning in the log, which is told as it stands.
        Outcome::Answered(_) | Outcome::NotTaken { .. } | Outcome::Unanswered { .. } => None,
        Outcome::ContextNotFound => Some(Tidings::new(
            Kind::Warning,
            "the server has lost the session; what was used is charged as one-time events",
        )),
        Outcome::Rejected { status, cause } => {
            Some(Tidings::new(Kind::Problem, format!("the server has refused a message ({status} {cause})")))
        }
    }
}

/// What a command that is carried out means to the link.
pub(super) fn of_command(command: &Command) -> Option<Tidings> {
    match command {
        Command::Record(record) => of_record(record),
        Command::Send { .. } | Command::SetGate(_) | Command::DrawName | Command::Read => None,
    }
}

/// The end of a package as people were told of it last: the words, and the ceiling at which it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ToldEnd(Option<(String, Octets)>);

impl ToldEnd {
    /// Whether what a command means is news. For a used-up package the server is asked again and again, and grants what was left of it
    /// each time: that is told once, and again only when more has come.
    pub(super) fn is_news(&mut self, command: &Command, tidings: &Tidings) -> bool {
        let Command::Record(record) = command else { return true };
        if let Record::SessionOpened(_) = record {
            self.0 = None;
        }
        let Record::MessageAcknowledged { grant: Some(grant), .. } = record else { return true };
        if tidings.kind != Kind::Exhausted {
            self.0 = None;
            return true;
        }
        let told = self.0.replace((tidings.words.clone(), grant.ceiling));
        told.is_none_or(|(words, ceiling)| words != tidings.words || grant.ceiling > ceiling)
    }
}

fn of_record(record: &Record) -> Option<Tidings> {
    match record {
        Record::SessionOpened(_) => Some(Tidings::new(Kind::Notice, "a session is opened")),
        Record::SessionClosed { .. } => {
            Some(Tidings::new(Kind::Notice, "the session is closed, everything acknowledged"))
        }
        Record::MessageAcknowledged { key, grant, .. } => Some(match grant {
            Some(grant) => of_grant(grant),
            None => Tidings::new(Kind::Acknowledged, format!("report {} acknowledged", key.number)),
        }),
        Record::MessageSetAside { cause, .. } => Some(Tidings::new(
            Kind::Problem,
            format!("a message is set aside, refused by the server for good: {cause}"),
        )),
        Record::MessageInDoubt { reason, .. } => {
            Some(Tidings::new(Kind::Problem, format!("a message is in doubt and not sent again: {reason}")))
        }
        Record::GraceOpened { .. } => {
            Some(Tidings::new(Kind::Warning, "the server is away: going on under the offline grace"))
        }
        Record::SessionClosing { .. } => {
            Some(Tidings::new(Kind::Notice, "the session takes no more; its units are returned"))
        }
        // The rest that is uncertain is a warning in the log, which is told as it stands.
        Record::RestUncertain { .. }
        | Record::ContainerClosed { .. }
        | Record::MessageSealed { .. }
        | Record::MessageNotTaken { .. }
        | Record::MessageAttempted { .. }
        | Record::Orphaned { .. }
        | Record::SessionSettled { .. }
        | Record::Aborted { .. }
        | Record::Reauthorised { .. }
        | Record::Checkpoint { .. }
        | Record::SliceSet { .. } => None,
    }
}

fn of_grant(grant: &Grant) -> Tidings {
    let octets = grant.octets.get();
    match grant.result {
        ResultCode::Success if grant.final_unit.is_some() => {
            Tidings::new(Kind::Exhausted, "the last units of the package are granted").about(octets)
        }
        ResultCode::Success => Tidings::new(Kind::Grant, "units granted").about(octets),
        ResultCode::QuotaLimitReached => Tidings::new(Kind::Exhausted, "nothing granted: the package is used up"),
        ResultCode::Denied => Tidings::new(Kind::Exhausted, "nothing granted: the server refuses"),
    }
}

/// What it means that the session has come from one state to another, where no record tells it.
pub(super) fn of_state(before: State, after: State) -> Option<Tidings> {
    match after {
        _ if before == after => None,
        // What was refused to a request is told as such.
        State::Exhausted if before != State::Requesting => {
            Some(Tidings::new(Kind::Exhausted, "used up: nothing passes under the ceiling until a top-up"))
        }
        State::Offline => Some(Tidings::new(Kind::Warning, "the server does not answer")),
        State::Exhausted
        | State::Idle
        | State::Requesting
        | State::Active
        | State::Renewing
        | State::Final
        | State::Returning
        | State::Draining => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::{Exceptions, FinalUnitAction, MessageKey};
    use crate::units::{ChargingId, InvocationSequenceNumber};

    fn grant(result: ResultCode, octets: u64, final_unit: Option<FinalUnitAction>) -> Grant {
        let octets = Octets::new(octets);
        Grant {
            ceiling: octets,
            octets,
            threshold: Octets::ZERO,
            valid_until: None,
            holding: None,
            final_unit,
            exceptions: Exceptions::default(),
            result,
        }
    }

    #[test]
    fn a_grant_is_told_with_its_octets_and_the_last_one_as_the_last() {
        let told = |grant: &Grant| (of_grant(grant).kind, of_grant(grant).octets);
        assert_eq!(told(&grant(ResultCode::Success, 7, None)), (Kind::Grant, Some(7)));
        let last = grant(ResultCode::Success, 7, Some(FinalUnitAction::Terminate));
        assert_eq!(told(&last), (Kind::Exhausted, Some(7)));
        assert_eq!(told(&grant(ResultCode::QuotaLimitReached, 0, None)), (Kind::Exhausted, None));
    }

    fn acknowledged(grant: Grant) -> Command {
        Command::Record(Record::MessageAcknowledged {
            key: MessageKey { session: ChargingId::new(7), number: InvocationSequenceNumber::new(1) },
            session_ref: None,
            grant: Some(grant),
            failure_handling: None,
        })
    }

    #[test]
    fn what_is_left_of_a_package_is_told_once_however_often_it_is_granted_and_again_when_more_has_come() {
        let mut told = ToldEnd::default();
        let mut is_news = |result, ceiling, octets, last: Option<FinalUnitAction>| {
            let command = acknowledged(Grant { ceiling: Octets::new(ceiling), ..grant(result, octets, last) });
            told.is_news(&command, &of_command(&command).expect("tidings"))
        };
        let last = Some(FinalUnitAction::Terminate);
        assert!(is_news(ResultCode::Success, 500_000, 500_000, None), "units");
        assert!(is_news(ResultCode::Success, 1_000_000, 500_000, last), "the last units");
        for _ in 0..3 {
            assert!(
                !is_news(ResultCode::Success, 1_000_000, 304, last),
                "a packet was too large for what is left of them"
            );
        }
        assert!(is_news(ResultCode::Denied, 999_696, 0, None), "the server refuses: that was not so before");
        assert!(!is_news(ResultCode::Denied, 999_696, 0, None));
        assert!(is_news(ResultCode::Success, 1_000_304, 304, last), "a top-up, small as it is");
        assert!(is_news(ResultCode::Success, 9_000_000, 1_000_000, None));
        assert!(is_news(ResultCode::Success, 9_000_000, 304, last), "the end of another package");
    }

    #[test]
    fn a_state_is_told_when_it_is_reached_and_not_while_it_lasts() {
        assert_eq!(of_state(State::Final, State::Exhausted).map(|tidings| tidings.kind), Some(Kind::Exhausted));
        assert_eq!(of_state(State::Exhausted, State::Exhausted), None);
        assert_eq!(of_state(State::Exhausted, State::Active), None, "its grant is told");
    }
}
