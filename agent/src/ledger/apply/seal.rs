//! Containers are closed, and sealed into messages.

use anyhow::{Context as _, Result, bail, ensure};
use rusqlite::params;

use super::{Batch, Seal};
use crate::clock::Label;
use crate::ledger::rows::{self, Account, SessionRow};
use crate::ledger::types::{LabelledContainer, SealRequest, Usage};
use crate::ledger::words::Wall;
use crate::quota::{Container, MAX_CONTAINERS, Message, MessageKey};
use crate::units::{ChargingId, LocalSequenceNumber, Octets};

impl Batch<'_> {
    pub(super) fn close_container(&self, session: ChargingId, container: &Container) -> Result<()> {
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

    pub(super) fn seal(&mut self, session: ChargingId, message: &Message, seal: &mut Seal<'_>) -> Result<()> {
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
