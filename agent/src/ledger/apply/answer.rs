//! What became of a message: acknowledged, set aside, in doubt, void.

use anyhow::{Context as _, Result, ensure};
use rusqlite::params;

use super::Batch;
use crate::ledger::history;
use crate::ledger::rows::{self, Account, MessageRow, MessageState, SessionRow};
use crate::ledger::types::Verdict;
use crate::ledger::words::{Wall, nanos};
use crate::quota::{FailureHandling, Grant, MessageKey};
use crate::units::{ChargingId, SessionRef};

impl Batch<'_> {
    pub(super) fn acknowledge(
        &mut self,
        key: MessageKey,
        session_ref: Option<&SessionRef>,
        grant: Option<&Grant>,
        failure_handling: Option<FailureHandling>,
    ) -> Result<()> {
        let Some(message) = self.waiting(key)? else {
            self.committed.repeated.push(key);
            return Ok(());
        };
        let session = self.open_session(key.session)?;
        self.execute(
            "UPDATE message SET state = 'acknowledged' WHERE charging_id = ?1 AND number = ?2",
            params![key.session, key.number],
        )?;
        let containers = rows::containers(self.db, key.session, message.first_container, message.end_container)?;
        history::add(self.db, &session.opening.subscriber, &containers, self.zone)?;
        let usage = containers.iter().map(|labelled| &labelled.container).collect();
        self.add_total(key.session, Account::Acknowledged, usage)?;
        self.delete(key, &message)?;
        self.execute(
            "UPDATE session SET last_acknowledged = ?2, session_ref = coalesce(?3, session_ref), \
             failure_handling = coalesce(?4, failure_handling) WHERE charging_id = ?1",
            params![key.session, key.number, session_ref, failure_handling],
        )?;
        grant.map_or(Ok(()), |grant| self.put_grant(&session, grant))
    }

    /// The message, if it waits for its answer; `None` when it was acknowledged before.
    fn waiting(&self, key: MessageKey) -> Result<Option<MessageRow>> {
        let MessageKey { session, number } = key;
        if let Some(message) = rows::message(self.db, key)? {
            ensure!(
                message.state == MessageState::Outstanding,
                "message {number} of session {session} was set aside: it takes no answer"
            );
            return Ok(Some(message));
        }
        let last = rows::session(self.db, session)?.last_acknowledged;
        ensure!(last.is_some_and(|last| number <= last), "message {number} of session {session} is not in the ledger");
        Ok(None)
    }

    /// A grant takes the place of the one before, and of the grace that was opened on top of that.
    fn put_grant(&self, session: &SessionRow, grant: &Grant) -> Result<()> {
        self.execute(
            "INSERT OR REPLACE INTO grant_last (charging_id, ceiling, octets, threshold, valid_until, holding, final_unit, \
             result, exceptions) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            params![
                session.opening.session,
                grant.ceiling,
                grant.octets,
                grant.threshold,
                grant.valid_until,
                grant.holding.map(nanos),
                grant.final_unit,
                grant.result,
                grant.exceptions,
            ],
        )?;
        self.execute(
            "UPDATE session SET grants = ?2, granted = ?3, grace_ceiling = NULL, grace_until = NULL, highest_ceiling = ?4 \
             WHERE charging_id = ?1",
            params![
                session.opening.session,
                session.grants.saturating_add(1),
                session.granted.saturating_add(grant.octets),
                session.highest_ceiling.max(grant.ceiling),
            ],
        )
    }

    pub(super) fn set_aside(&self, key: MessageKey, cause: &str, verdict: Verdict) -> Result<()> {
        self.unanswered(key)?;
        self.execute(
            "UPDATE message SET state = 'set aside', cause = ?3, set_aside_wall = ?4, set_aside_synced = ?5, in_doubt = ?6 \
             WHERE charging_id = ?1 AND number = ?2",
            params![
                key.session,
                key.number,
                cause,
                Wall(self.moment.label.wall),
                self.moment.label.synced,
                verdict == Verdict::InDoubt
            ],
        )
    }

    /// Sets a message aside that may have been taken. One that reports no usage leaves nothing to be kept.
    pub(super) fn put_in_doubt(&self, key: MessageKey, reason: &str) -> Result<()> {
        let message = self.unanswered(key)?;
        if message.first_container == message.end_container {
            return self.void(key);
        }
        self.set_aside(key, reason, Verdict::InDoubt)
    }

    /// Notes whether a message was certainly not taken (1), or may have been (0).
    pub(super) fn note_taken(&self, key: MessageKey, not_taken: u8) -> Result<()> {
        self.unanswered(key)?;
        self.execute(
            "UPDATE message SET not_taken = ?3 WHERE charging_id = ?1 AND number = ?2",
            params![key.session, key.number, not_taken],
        )
    }

    /// The message, which must still wait for its answer.
    fn unanswered(&self, key: MessageKey) -> Result<MessageRow> {
        let message = self.waiting(key)?;
        message.with_context(|| format!("message {} of session {} was acknowledged", key.number, key.session))
    }

    /// Deletes a message that will never be answered; its containers stay.
    fn void(&self, MessageKey { session, number }: MessageKey) -> Result<()> {
        self.execute(
            "UPDATE message SET state = 'void' WHERE charging_id = ?1 AND number = ?2",
            params![session, number],
        )?;
        self.execute("DELETE FROM message WHERE charging_id = ?1 AND number = ?2", params![session, number])
    }

    /// The server lost the session: the message that waits is void, and its containers are unsealed again.
    pub(super) fn orphan(&self, session: ChargingId) -> Result<()> {
        let row = self.open_session(session)?;
        ensure!(!row.orphaned, "session {session} is lost already");
        let unsealed = match rows::outstanding(self.db, session)? {
            Some(message) => {
                self.void(MessageKey { session, number: message.message.number })?;
                message.first_container
            }
            None => row.next_unsealed,
        };
        self.execute(
            "UPDATE session SET orphaned = 1, next_unsealed = ?2 WHERE charging_id = ?1",
            params![session, unsealed],
        )
    }

    /// Deletes a message and its containers.
    fn delete(&self, key: MessageKey, message: &MessageRow) -> Result<()> {
        self.execute(
            "DELETE FROM container WHERE charging_id = ?1 AND number >= ?2 AND number < ?3",
            params![key.session, message.first_container, message.end_container],
        )?;
        self.execute("DELETE FROM message WHERE charging_id = ?1 AND number = ?2", params![key.session, key.number])
    }
}
