//! Records into rows: one batch inside one transaction.

mod answer;
mod seal;

use anyhow::{Result, bail, ensure};
use jiff::tz::TimeZone;
use rusqlite::{Connection, Params, params};

use super::rows::{self, Account, SessionRow};
use super::types::{Committed, SealRequest, Usage, Verdict};
use super::words::Wall;
use crate::clock::Moment;
use crate::quota::{MessageKey, Record, SessionOpening};
use crate::units::{BootId, BootInstant, ChargingId, Octets, UsedUnit};

/// Makes the exact bytes of a message.
pub(super) type Seal<'a> = dyn FnMut(&SealRequest) -> Result<Vec<u8>> + 'a;

/// A batch that is being written: nothing of it holds until its transaction is committed.
pub(super) struct Batch<'a> {
    pub(super) db: &'a Connection,
    /// The boot we live in: instants of another one cannot be turned into labels.
    pub(super) boot: &'a BootId,
    /// Where the days of the history are told.
    pub(super) zone: &'a TimeZone,
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

    fn execute(&self, sql: &str, params: impl Params) -> Result<()> {
        self.db.prepare_cached(sql)?.execute(params)?;
        Ok(())
    }
}
