//! SIMs and the modem slots they are bound to.

use rusqlite::{OptionalExtension as _, Row, Transaction, params};
use serde::Serialize;

use crate::problem::Problem;
use crate::units::RatingGroup;

/// A SIM bound to a slot of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Binding {
    pub(crate) binding_id: String,
    pub(crate) slot: String,
    pub(crate) subscriber_identifier: String,
    pub(crate) iccid: String,
    pub(crate) apn: String,
    pub(crate) rating_groups: Vec<RatingGroup>,
}

/// Whether there is such a subscriber.
pub(crate) fn is_subscriber(tx: &Transaction<'_>, subscriber: &str) -> rusqlite::Result<bool> {
    tx.prepare_cached("SELECT 1 FROM sims WHERE subscriber = ?1")?.exists([subscriber])
}

/// The device that has a subscriber's SIM.
pub(crate) fn device_of(tx: &Transaction<'_>, subscriber: &str) -> rusqlite::Result<Option<String>> {
    tx.prepare_cached("SELECT b.device_id FROM bindings b JOIN sims s USING (iccid) WHERE s.subscriber = ?1")?
        .query_row([subscriber], |row| row.get(0))
        .optional()
}

/// The bindings of a device, by slot.
pub(crate) fn of_device(tx: &Transaction<'_>, device: &str) -> Result<Vec<Binding>, Problem> {
    let found = tx
        .prepare_cached(
            "SELECT b.id, b.slot, s.subscriber, s.iccid, s.apn, s.rating_groups FROM bindings b JOIN sims s USING (iccid)
             WHERE b.device_id = ?1 ORDER BY b.slot",
        )?
        .query_map([device], raw)?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    found.into_iter().map(parse).collect()
}

/// The binding of a slot.
pub(crate) fn of_slot(tx: &Transaction<'_>, device: &str, slot: &str) -> Result<Option<Binding>, Problem> {
    let found = tx
        .prepare_cached(
            "SELECT b.id, b.slot, s.subscriber, s.iccid, s.apn, s.rating_groups FROM bindings b JOIN sims s USING (iccid)
             WHERE b.device_id = ?1 AND b.slot = ?2",
        )?
        .query_row([device, slot], raw)
        .optional()?;
    found.map(parse).transpose()
}

/// Binds the SIM that was asked for, or the first free one, to a free slot.
pub(crate) fn bind(tx: &Transaction<'_>, device: &str, slot: &str, iccid: Option<&str>) -> Result<Binding, Problem> {
    let iccid = match iccid {
        Some(iccid) => asked_for(tx, iccid)?,
        None => first_free(tx)?.ok_or_else(|| Problem::conflict("NO_SIM_FREE", "no SIM of the pool is free"))?,
    };
    let id = uuid::Uuid::new_v4().to_string();
    tx.execute(
        "INSERT INTO bindings (id, device_id, slot, iccid) VALUES (?1, ?2, ?3, ?4)",
        params![id, device, slot, iccid],
    )?;
    of_slot(tx, device, slot)?.ok_or_else(|| Problem::failure("a binding that was just made is not there"))
}

/// Gives a slot another SIM than it has; answers the old binding and the new one.
pub(crate) fn rebind(
    tx: &Transaction<'_>,
    device: &str,
    slot: &str,
    iccid: Option<&str>,
) -> Result<(Binding, Binding), Problem> {
    let Some(old) = of_slot(tx, device, slot)? else {
        return Err(Problem::not_found("BINDING_NOT_FOUND", format!("slot {slot} of {device} has no SIM")));
    };
    // Chosen before the old one is free: "the next free SIM" must not be the one that is being left.
    let iccid = match iccid {
        Some(iccid) => asked_for(tx, iccid)?,
        None => first_free(tx)?.ok_or_else(|| Problem::conflict("NO_SIM_FREE", "no SIM of the pool is free"))?,
    };
    tx.execute("DELETE FROM bindings WHERE id = ?1", [&old.binding_id])?;
    let new = bind(tx, device, slot, Some(&iccid))?;
    Ok((old, new))
}

fn asked_for(tx: &Transaction<'_>, iccid: &str) -> Result<String, Problem> {
    let is_free: Option<bool> = tx
        .prepare_cached(
            "SELECT NOT EXISTS (SELECT 1 FROM bindings b WHERE b.iccid = s.iccid) FROM sims s WHERE s.iccid = ?1",
        )?
        .query_row([iccid], |row| row.get(0))
        .optional()?;
    match is_free {
        Some(true) => Ok(iccid.to_owned()),
        Some(false) => Err(Problem::conflict("SIM_IN_USE", format!("SIM {iccid} is bound to another slot"))),
        None => Err(Problem::conflict("SIM_NOT_IN_POOL", format!("SIM {iccid} is not in the pool"))),
    }
}

fn first_free(tx: &Transaction<'_>) -> rusqlite::Result<Option<String>> {
    tx.prepare_cached(
        "SELECT iccid FROM sims s WHERE NOT EXISTS (SELECT 1 FROM bindings b WHERE b.iccid = s.iccid) ORDER BY s.rowid LIMIT 1",
    )?
    .query_row([], |row| row.get(0))
    .optional()
}

fn raw(row: &Row<'_>) -> rusqlite::Result<(Binding, String)> {
    let binding = Binding {
        binding_id: row.get(0)?,
        slot: row.get(1)?,
        subscriber_identifier: row.get(2)?,
        iccid: row.get(3)?,
        apn: row.get(4)?,
        rating_groups: Vec::new(),
    };
    Ok((binding, row.get(5)?))
}

fn parse((binding, rating_groups): (Binding, String)) -> Result<Binding, Problem> {
    Ok(Binding { rating_groups: serde_json::from_str(&rating_groups)?, ..binding })
}
