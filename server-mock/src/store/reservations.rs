//! What open sessions hold of a package: replaced by a grant, eaten up by usage, ended by time or release.

use rusqlite::{OptionalExtension as _, Transaction, params};

use super::ledger::{self, Entry, EntryKind, Origin};
use crate::clock::Moment;
use crate::units::{ChargingId, Octets, RatingGroup};

/// Ends reservations that are over. What is unused goes back to the package by no longer being held; the session stays.
pub(crate) fn expire(tx: &Transaction<'_>, now: Moment) -> rusqlite::Result<()> {
    let over: Vec<(String, RatingGroup, String, Octets, String, ChargingId)> = tx
        .prepare_cached(
            "SELECT r.ref, r.rating_group, r.subscriber, r.octets, s.nf_name, s.charging_id
             FROM reservations r JOIN sessions s USING (ref) WHERE r.expires_at <= ?1 ORDER BY r.expires_at, r.ref",
        )?
        .query_map([now.millis()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    for (session, rating_group, subscriber, octets, nf_name, charging_id) in over {
        remove(tx, &session, rating_group)?;
        let origin = Origin { nf_name: &nf_name, charging_id, session: Some(&session) };
        give_back(tx, now, EntryKind::Expire, (&subscriber, rating_group), origin, octets)?;
    }
    Ok(())
}

/// Holds so many octets for a session in place of what it held before.
pub(crate) fn replace(
    tx: &Transaction<'_>,
    (session, subscriber): (&str, &str),
    rating_group: RatingGroup,
    octets: Octets,
    expires_at: Moment,
) -> rusqlite::Result<()> {
    remove(tx, session, rating_group)?;
    if octets > Octets(0) {
        tx.prepare_cached(
            "INSERT INTO reservations (ref, rating_group, subscriber, octets, expires_at) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![session, rating_group, subscriber, octets, expires_at.millis()])?;
    }
    Ok(())
}

/// Takes usage out of what a session holds, down to nothing.
pub(crate) fn use_up(
    tx: &Transaction<'_>,
    session: &str,
    rating_group: RatingGroup,
    used: Octets,
) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE reservations SET octets = max(0, octets - ?3) WHERE ref = ?1 AND rating_group = ?2")?
        .execute(params![session, rating_group, used])?;
    Ok(())
}

/// Ends all that a session holds.
pub(crate) fn release(
    tx: &Transaction<'_>,
    now: Moment,
    (session, subscriber): (&str, &str),
    origin: Origin<'_>,
) -> rusqlite::Result<()> {
    let held: Vec<(RatingGroup, Octets)> = tx
        .prepare_cached("SELECT rating_group, octets FROM reservations WHERE ref = ?1 ORDER BY rating_group")?
        .query_map([session], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (rating_group, octets) in held {
        remove(tx, session, rating_group)?;
        give_back(tx, now, EntryKind::Release, (subscriber, rating_group), origin, octets)?;
    }
    Ok(())
}

/// What sessions hold of a subscriber's package, one session left out.
pub(crate) fn held_by_others(
    tx: &Transaction<'_>,
    (subscriber, rating_group): (&str, RatingGroup),
    session: Option<&str>,
) -> rusqlite::Result<Octets> {
    tx.prepare_cached(
        "SELECT coalesce(sum(octets), 0) FROM reservations WHERE subscriber = ?1 AND rating_group = ?2 AND ref IS NOT ?3",
    )?
    .query_row(params![subscriber, rating_group, session], |row| row.get(0))
}

/// What one session holds, if anything, and until when.
pub(crate) fn of_session(tx: &Transaction<'_>, session: &str) -> rusqlite::Result<Vec<(RatingGroup, Octets, Moment)>> {
    tx.prepare_cached("SELECT rating_group, octets, expires_at FROM reservations WHERE ref = ?1 ORDER BY rating_group")?
        .query_map([session], |row| Ok((row.get(0)?, row.get(1)?, Moment::from_millis(row.get(2)?))))?
        .collect()
}

fn remove(tx: &Transaction<'_>, session: &str, rating_group: RatingGroup) -> rusqlite::Result<Option<Octets>> {
    tx.prepare_cached("DELETE FROM reservations WHERE ref = ?1 AND rating_group = ?2 RETURNING octets")?
        .query_row(params![session, rating_group], |row| row.get(0))
        .optional()
}

fn give_back(
    tx: &Transaction<'_>,
    now: Moment,
    kind: EntryKind,
    (subscriber, rating_group): (&str, RatingGroup),
    origin: Origin<'_>,
    octets: Octets,
) -> rusqlite::Result<()> {
    ledger::write(
        tx,
        now,
        &Entry {
            kind,
            subscriber,
            rating_group,
            origin: Some(origin),
            local_sequence_number: None,
            total: octets,
            uplink: None,
            downlink: None,
        },
    )
}
