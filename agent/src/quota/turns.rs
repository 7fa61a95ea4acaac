//! Whose turn it is to drain: a few past sessions at once, the oldest first, so that the one in use is never kept waiting.

use super::Quota;
use super::session::Session;
use crate::units::SubscriberIdentifier;

/// Past sessions that send at once.
const AT_ONCE: usize = 4;

impl Quota {
    /// Calls up past sessions for as long as there is a free place; false when there is none, or nobody waits.
    pub(super) fn call_up(&mut self) -> bool {
        let called = self.free_places();
        self.sessions.extend(self.waiting.drain(..called));
        called > 0
    }

    /// How many of those that wait could be called up.
    pub(super) fn free_places(&self) -> usize {
        let draining = self.sessions.iter().filter(|session| !session.is_live()).count();
        AT_ONCE.saturating_sub(draining).min(self.waiting.len())
    }

    /// Has past sessions wait that are more than may drain at once: the youngest first, and those last for which the next session
    /// of their SIM waits.
    pub(super) fn send_back(&mut self) {
        let past = |session: &Session| !session.is_live();
        let mut excess = self.sessions.iter().filter(|session| past(session)).count().saturating_sub(AT_ONCE);
        while excess > 0 {
            let unhindering = |session: &Session| past(session) && !session.is_awaited();
            let youngest = self.sessions.iter().rposition(unhindering);
            let Some(index) = youngest.or_else(|| self.sessions.iter().rposition(past)) else { return };
            let session = self.sessions.remove(index);
            if session.is_awaited() {
                self.waiting.push_front(session);
            } else {
                self.waiting.push_back(session);
            }
            excess -= 1;
        }
    }

    /// The server answers: a past session that it does not answer makes room for one that waits. One for which the next session of
    /// its SIM waits does so last of all.
    pub(super) fn make_room(&mut self) {
        let stuck = |session: &Session| !session.is_live() && session.is_stuck();
        let unhindering = self.sessions.iter().position(|session| stuck(session) && !session.is_awaited());
        let stuck = unhindering.or_else(|| self.sessions.iter().position(stuck));
        if let Some(index) = stuck.filter(|_| !self.waiting.is_empty()) {
            let session = self.sessions.remove(index);
            self.waiting.push_back(session);
        }
    }

    /// A session that was sent back while its message was out is called up by the answer.
    pub(super) fn call_up_answered(&mut self, is_answered: impl Fn(&Session) -> bool) {
        if let Some(index) = self.waiting.iter().position(is_answered) {
            self.sessions.extend(self.waiting.remove(index));
        }
    }

    /// True while something is still to be reported of a session of this subscriber that the server has lost. What that session has used
    /// is not yet debited: units that were granted to another one before that could be octets that are used already.
    #[must_use]
    pub fn owes(&self, subscriber: &SubscriberIdentifier) -> bool {
        let all = self.sessions.iter().chain(&self.waiting);
        all.filter(|session| session.opening.subscriber == *subscriber).any(Session::is_orphan)
    }

    /// Containers that the server has not acknowledged, over all sessions.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.sessions.iter().chain(&self.waiting).map(Session::backlog).sum()
    }
}
