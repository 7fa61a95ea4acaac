//! Records into rows: one batch inside one transaction.

use anyhow::{Context, Result, bail, ensure};
use rusqlite::{Connection, Params, params};

use super::history;
use super::rows::{self, Account, MessageRow, MessageState, SessionRow};
use super::types::{Committed, LabelledContainer, SealRequest, Usage, Verdict};
use super::words::{Wall, nanos};
use crate::clock::{Label, Moment};
use crate::quota::{Container, FailureHandling, Grant, MAX_CONTAINERS, Message, MessageKey, Record, SessionOpening};
use crate::units::{BootId, BootInstant, ChargingId, LocalSequenceNumber, Octets, SessionRef, UsedUnit};

/// Makes the exact bytes of a message.
pub(super) type Seal<'a> = dyn FnMut(&SealRequest) -> Result<Vec<u8>> + 'a;

/// A batch that is being written: nothing of it holds until its transaction is committed.
pub(super) struct Batch<'a> {
    pub(super) db: &'a Connection,
    /// The boot we live in: instants of another one cannot be turned into labels.
    pub(super) boot: &'a BootId,
    pub(super) moment: &'a Moment,
    pub(super) committed: Committed,
    /// Messages sealed by this batch.
    pub(super) sealed: Vec<MessageKey>,
}

impl Batch<'_> {
    /// Writes one record.
    pub(super) fn apply(&mut self, record: &Record, seal: &mut Seal<'_>) -> Result<()> {
        match record {
            Record::SessionOpened(opening) => self.open(opening),
            Record::ContainerClosed { session, container } => self.close_container(*session, container),
            Record::MessageSealed { session, message } => self.seal(*session, message, seal),
            Record::MessageAcknowledged { key, session_ref, grant, failure_handling } => {
                self.acknowledge(*key, session_ref.as_ref(), grant.as_ref(), *failure_handling)
            }
            Record::MessageSetAside { key, cause } => self.set_aside(*key, cause, Verdict::Refused),
            Record::MessageInDoubt { key, reason } => self.put_in_doubt(*key, reason),
            Record::MessageNotTaken { key } => self.note_taken(*key, 1),
            Record::MessageAttempted { key } => self.note_taken(*key, 0),
            Record::Orphaned { session } => self.orphan(*session),
            Record::GraceOpened { session, ceiling, until } => self.open_grace(*session, *ceiling, *until),
            Record::SessionClosing { session, trigger } => {
                let session = self.open_session(*session)?;
                self.execute(
                    "UPDATE session SET closing = ?2 WHERE charging_id = ?1",
                    params![session.opening.session, trigger],
                )
            }
            Record::SessionSettled { session } => {
                let session = self.open_session(*session)?.opening.session;
                self.execute("UPDATE session SET settled = 1 WHERE charging_id = ?1", params![session])
            }
            Record::Aborted { subscriber } => self.execute(
                "INSERT INTO aborted (subscriber, ordered_wall, ordered_synced) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                params![subscriber, Wall(self.moment.label.wall), self.moment.label.synced],
            ),
            Record::Reauthorised { subscriber } => {
                self.execute("DELETE FROM aborted WHERE subscriber = ?1", params![subscriber])
            }
            Record::SessionClosed { session } => self.close_session(*session),
            Record::Checkpoint { session, passed, throttled, at } => {
                self.checkpoint(*session, *passed, *throttled, *at)
            }
            Record::SliceSet { session, slice } => {
                let session = self.open_session(*session)?.opening.session;
                self.execute("UPDATE session SET slice = ?2 WHERE charging_id = ?1", params![session, slice])
            }
            Record::RestUncertain { session, octets } => self.note_uncertain(*session, *octets),
        }
    }

    fn open(&self, opening: &SessionOpening) -> Result<()> {
        let opened = self.moment.label(opening.opened_at);
        self.execute(
            "INSERT INTO session (charging_id, subscriber, boot, generation, base_uplink, base_downlink, \
             base_throttled_uplink, base_throttled_downlink, opened_at, opened_wall, opened_synced, accounted_wall, \
             accounted_synced) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?10, ?11)",
            params![
                opening.session,
                opening.subscriber,
                opening.epoch.boot,
                opening.epoch.generation,
                opening.base.uplink,
                opening.base.downlink,
                opening.base_throttled.uplink,
                opening.base_throttled.downlink,
                opening.opened_at,
                Wall(opened.wall),
                opened.synced,
            ],
        )
    }

    fn close_container(&self, session: ChargingId, container: &Container) -> Result<()> {
        let row = self.open_session(session)?;
        ensure!(
            container.number == row.next_container,
            "container {} of session {session} is out of turn: the next one is {}",
            container.number,
            row.next_container
        );
        self.insert_container(session, &self.labelled(&row, container)?)
    }

    /// Labels a container's instants. Those of an earlier boot mean nothing now: such an interval (what a power cut left) lies
    /// between the last container and the last checkpoint, and these two have labels.
    fn labelled(&self, session: &SessionRow, container: &Container) -> Result<LabelledContainer> {
        let container = container.clone();
        if session.opening.epoch.boot == *self.boot {
            let label = |instant| self.moment.label(instant);
            let (first_usage, last_usage) = (label(container.first_usage), label(container.last_usage));
            return Ok(LabelledContainer { first_usage, last_usage, closed_at: label(container.closed_at), container });
        }
        let from = session.accounted;
        let read = rows::checkpoint(self.db, session.opening.session)?.map_or(from, |checkpoint| checkpoint.read_at);
        // Of two clocks the one that was set is believed.
        let (from, to) = match (from.synced, read.synced) {
            (false, true) => (read, read),
            (true, false) => (from, from),
            _ if read.wall < from.wall => (from, from),
            _ => (from, read),
        };
        Ok(LabelledContainer { container, first_usage: from, last_usage: to, closed_at: to })
    }

    /// Adds a container to the end of a session and to its total.
    fn insert_container(&self, session: ChargingId, labelled: &LabelledContainer) -> Result<()> {
        let LabelledContainer { container, first_usage, last_usage, closed_at } = labelled;
        self.execute(
            "INSERT INTO container (charging_id, number, uplink, downlink, quota_management, trigger_type, first_usage, \
             last_usage, closed_at, first_wall, first_synced, last_wall, last_synced, closed_wall, closed_synced) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
            params![
                session,
                container.number,
                container.used.uplink,
                container.used.downlink,
                container.quota_management,
                container.trigger,
                container.first_usage,
                container.last_usage,
                container.closed_at,
                Wall(first_usage.wall),
                first_usage.synced,
                Wall(last_usage.wall),
                last_usage.synced,
                Wall(closed_at.wall),
                closed_at.synced,
            ],
        )?;
        let next = container.number.next().context("the session's container numbers are used up")?;
        self.execute(
            "UPDATE session SET next_container = ?2, accounted_wall = ?3, accounted_synced = ?4 WHERE charging_id = ?1",
            params![session, next, Wall(last_usage.wall), last_usage.synced],
        )?;
        self.add_total(session, Account::Closed, Usage::of(container))
    }

    fn seal(&mut self, session: ChargingId, message: &Message, seal: &mut Seal<'_>) -> Result<()> {
        let row = self.open_session(session)?;
        let containers = self.check_message(&row, message)?;
        let containers = containers.into_iter().map(|labelled| self.put_right(&row, labelled));
        let containers = containers.collect::<Result<Vec<_>>>()?;
        let (first_container, count) = (row.next_unsealed, u32::try_from(containers.len())?);
        let sealed_at = stored(self.moment.label(message.sealed_at));
        let request = SealRequest {
            opening: row.opening,
            session_ref: row.session_ref,
            message: message.clone(),
            containers,
            sealed_at,
        };
        let body = seal(&request).context("making the exact bytes")?;
        ensure!(!body.is_empty(), "a sealed message has no bytes");
        self.insert_message(&request, first_container, count, &body)?;
        self.sealed.push(MessageKey { session, number: message.number });
        Ok(())
    }

    /// Labels that a clock made which was not synchronised are made anew by the present one, which knows no less. Instants of another
    /// boot have no label now, and keep what they have.
    fn put_right(&self, row: &SessionRow, labelled: LabelledContainer) -> Result<LabelledContainer> {
        if labelled.closed_at.synced || row.opening.epoch.boot != *self.boot {
            return Ok(labelled);
        }
        let LabelledContainer { first_usage, last_usage, closed_at, container } =
            self.labelled(row, &labelled.container)?;
        let (first_usage, last_usage, closed_at) = (stored(first_usage), stored(last_usage), stored(closed_at));
        let (session, number) = (row.opening.session, container.number);
        self.execute(
            "UPDATE container SET first_wall = ?3, first_synced = ?4, last_wall = ?5, last_synced = ?6, closed_wall = ?7, \
             closed_synced = ?8 WHERE charging_id = ?1 AND number = ?2",
            params![
                session,
                number,
                Wall(first_usage.wall),
                first_usage.synced,
                Wall(last_usage.wall),
                last_usage.synced,
                Wall(closed_at.wall),
                closed_at.synced,
            ],
        )?;
        if number.next() == Some(row.next_container) {
            self.execute(
                "UPDATE session SET accounted_wall = ?2, accounted_synced = ?3 WHERE charging_id = ?1",
                params![session, Wall(last_usage.wall), last_usage.synced],
            )?;
        }
        Ok(LabelledContainer { container, first_usage, last_usage, closed_at })
    }

    /// The containers of a message that is to be sealed, and no more of those that are in no message: there may be a million. An
    /// error unless it carries on where the session's last message ended.
    fn check_message(&self, row: &SessionRow, message: &Message) -> Result<Vec<LabelledContainer>> {
        let session = row.opening.session;
        ensure!(
            message.number == row.next_message,
            "message {} of session {session} is out of turn: the next one is {}",
            message.number,
            row.next_message
        );
        if let Some(other) = rows::outstanding(self.db, session)? {
            bail!("message {} of session {session} still waits for its answer", other.message.number);
        }
        ensure!(
            message.containers.len() <= MAX_CONTAINERS,
            "{} containers in one message: {MAX_CONTAINERS} at most",
            message.containers.len()
        );
        let count = u32::try_from(message.containers.len())?;
        let end = row.next_unsealed.get().saturating_add(count).min(row.next_container.get());
        let unsealed = rows::containers(self.db, session, row.next_unsealed, LocalSequenceNumber::new(end))?;
        ensure!(
            unsealed.iter().map(|labelled| labelled.container.number).eq(message.containers.iter().copied()),
            "a message carries the oldest containers that are in no message, in their order, not {:?}",
            message.containers
        );
        if !row.orphaned {
            // An orphan draws on no grant, so nothing is counted from what it has reported.
            check_reported(row, message, &unsealed)?;
        }
        Ok(unsealed)
    }

    fn insert_message(
        &self,
        request: &SealRequest,
        first_container: LocalSequenceNumber,
        count: u32,
        body: &[u8],
    ) -> Result<()> {
        let (session, message) = (request.opening.session, &request.message);
        self.execute(
            "INSERT INTO message (charging_id, number, operation, requested, first_container, containers, trigger_type, \
             reported, sealed_at, sealed_wall, sealed_synced, body) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            params![
                session,
                message.number,
                message.operation,
                message.requested,
                first_container,
                count,
                message.trigger,
                message.reported,
                message.sealed_at,
                Wall(request.sealed_at.wall),
                request.sealed_at.synced,
                body,
            ],
        )?;
        let next = message.number.next().context("the session's message numbers are used up")?;
        self.execute(
            "UPDATE session SET next_message = ?2, next_unsealed = next_unsealed + ?3, reported = ?4 WHERE charging_id = ?1",
            params![session, next, count, message.reported],
        )
    }

    fn acknowledge(
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
        history::add(self.db, &session.opening.subscriber, &containers)?;
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
             result) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                session.opening.session,
                grant.ceiling,
                grant.octets,
                grant.threshold,
                grant.valid_until,
                grant.holding.map(nanos),
                grant.final_unit,
                grant.result,
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

    fn set_aside(&self, key: MessageKey, cause: &str, verdict: Verdict) -> Result<()> {
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
    fn put_in_doubt(&self, key: MessageKey, reason: &str) -> Result<()> {
        let message = self.unanswered(key)?;
        if message.first_container == message.end_container {
            return self.void(key);
        }
        self.set_aside(key, reason, Verdict::InDoubt)
    }

    /// Notes whether a message was certainly not taken (1), or may have been (0).
    fn note_taken(&self, key: MessageKey, not_taken: u8) -> Result<()> {
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
    fn orphan(&self, session: ChargingId) -> Result<()> {
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

    fn open_grace(&self, session: ChargingId, ceiling: Octets, until: BootInstant) -> Result<()> {
        let row = self.open_session(session)?;
        self.execute(
            "UPDATE session SET grace_ceiling = ?2, grace_until = ?3, highest_ceiling = ?4 WHERE charging_id = ?1",
            params![session, ceiling, until, row.highest_ceiling.max(ceiling)],
        )
    }

    fn note_uncertain(&self, session: ChargingId, octets: Octets) -> Result<()> {
        let row = self.open_session(session)?;
        ensure!(row.uncertain.is_none(), "what is uncertain of session {session} is noted already");
        self.execute("UPDATE session SET uncertain = ?2 WHERE charging_id = ?1", params![session, octets])
    }

    fn close_session(&self, session: ChargingId) -> Result<()> {
        let row = self.open_session(session)?;
        ensure!(row.next_unsealed == row.next_container, "session {session} has containers that are in no message");
        if let Some(message) = rows::outstanding(self.db, session)? {
            bail!("message {} of session {session} still waits for its answer", message.message.number);
        }
        self.execute(
            "UPDATE session SET closed_wall = ?2, closed_synced = ?3 WHERE charging_id = ?1",
            params![session, Wall(self.moment.label.wall), self.moment.label.synced],
        )
    }

    fn checkpoint(&self, session: ChargingId, passed: UsedUnit, throttled: UsedUnit, at: BootInstant) -> Result<()> {
        let row = self.open_session(session)?;
        let before = rows::checkpoint(self.db, session)?
            .map_or((row.opening.base, row.opening.base_throttled), |last| (last.passed, last.throttled));
        ensure!(
            passed.since(before.0).is_some() && throttled.since(before.1).is_some(),
            "the checkpoint of session {session} goes back from {before:?} to {:?}: a counter only goes up within its epoch",
            (passed, throttled)
        );
        let read = self.moment.label(at);
        self.execute(
            "INSERT OR REPLACE INTO checkpoint (charging_id, passed_uplink, passed_downlink, throttled_uplink, \
             throttled_downlink, read_at, read_wall, read_synced) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            params![
                session,
                passed.uplink,
                passed.downlink,
                throttled.uplink,
                throttled.downlink,
                at,
                Wall(read.wall),
                read.synced,
            ],
        )
    }

    /// The session of that name, which must be open.
    fn open_session(&self, session: ChargingId) -> Result<SessionRow> {
        let row = rows::session(self.db, session)?;
        ensure!(!row.is_closed, "session {session} is closed");
        Ok(row)
    }

    fn add_total(&self, session: ChargingId, account: Account, usage: Usage) -> Result<()> {
        let (online, offline) = (usage.online, usage.offline);
        self.execute(
            "INSERT INTO total (charging_id, account, uplink, downlink, offline_uplink, offline_downlink) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET \
             uplink = uplink + excluded.uplink, downlink = downlink + excluded.downlink, \
             offline_uplink = offline_uplink + excluded.offline_uplink, \
             offline_downlink = offline_downlink + excluded.offline_downlink",
            params![session, account.name(), online.uplink, online.downlink, offline.uplink, offline.downlink],
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

    fn execute(&self, sql: &str, params: impl Params) -> Result<()> {
        self.db.prepare_cached(sql)?.execute(params)?;
        Ok(())
    }
}

/// The zero point of the grant in a message's answer must be what its containers make it: the ceiling hangs on it.
fn check_reported(row: &SessionRow, message: &Message, containers: &[LabelledContainer]) -> Result<()> {
    let octets = containers.iter().map(|labelled| labelled.container.quota_octets());
    let reported = octets.fold(row.reported, Octets::saturating_add);
    ensure!(
        message.reported == reported,
        "message {} of session {} claims {} octets reported so far, its containers make it {reported}",
        message.number,
        row.opening.session,
        message.reported
    );
    Ok(())
}

/// A label as it will be read back: to the microsecond.
fn stored(label: Label) -> Label {
    let wall = jiff::Timestamp::from_microsecond(label.wall.as_microsecond()).unwrap_or(label.wall);
    Label { wall, ..label }
}
