//! Commands that wait for a device to ask.

use rusqlite::{Transaction, params};
use serde::{Deserialize, Serialize};

use super::bindings;

/// What a device is told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum CommandKind {
    Reauthorise,
    Abort,
    Switch,
    PlanChanged,
}

/// A command with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Command {
    number: i64,
    command: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subscriber_identifier: Option<String>,
}

impl CommandKind {
    fn name(self) -> &'static str {
        match self {
            Self::Reauthorise => "REAUTHORISE",
            Self::Abort => "ABORT",
            Self::Switch => "SWITCH",
            Self::PlanChanged => "PLAN_CHANGED",
        }
    }
}

/// Leaves a command for a device.
pub(crate) fn send(
    tx: &Transaction<'_>,
    device: &str,
    command: CommandKind,
    subscriber: Option<&str>,
) -> rusqlite::Result<Command> {
    tx.execute(
        "INSERT INTO commands (device_id, command, subscriber) VALUES (?1, ?2, ?3)",
        params![device, command.name(), subscriber],
    )?;
    Ok(Command {
        number: tx.last_insert_rowid(),
        command: command.name().to_owned(),
        subscriber_identifier: subscriber.map(ToOwned::to_owned),
    })
}

/// Leaves a command for the device that has a subscriber's SIM, if one has.
pub(crate) fn send_to_holder(tx: &Transaction<'_>, subscriber: &str, command: CommandKind) -> rusqlite::Result<()> {
    if let Some(device) = bindings::device_of(tx, subscriber)? {
        send(tx, &device, command, Some(subscriber))?;
    }
    Ok(())
}

/// Forgets what the device has acknowledged and answers with the rest.
pub(crate) fn after(tx: &Transaction<'_>, device: &str, number: i64) -> rusqlite::Result<Vec<Command>> {
    tx.prepare_cached("DELETE FROM commands WHERE device_id = ?1 AND number <= ?2")?
        .execute(params![device, number])?;
    tx.prepare_cached("SELECT number, command, subscriber FROM commands WHERE device_id = ?1 ORDER BY number")?
        .query_map([device], |row| {
            Ok(Command { number: row.get(0)?, command: row.get(1)?, subscriber_identifier: row.get(2)? })
        })?
        .collect()
}
