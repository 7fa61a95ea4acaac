//! The field's words as types: octets, seconds, and the numbers that messages are known by.

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Octets (TS 29.571 `Uint64`). What is stored stays below 2^63, the range of an SQLite integer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Octets(pub u64);

impl Octets {
    /// The sum, or the largest number there is.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, or nothing.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// So many per cent of it, rounded down.
    #[must_use]
    pub fn percent(self, percent: u8) -> Self {
        Self(self.0 / 100 * u64::from(percent) + self.0 % 100 * u64::from(percent) / 100)
    }
}

impl fmt::Display for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ToSql for Octets {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let integer = i64::try_from(self.0).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        Ok(integer.into())
    }
}

impl FromSql for Octets {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let integer = i64::column_result(value)?;
        u64::try_from(integer).map(Self).map_err(|_| FromSqlError::OutOfRange(integer))
    }
}

macro_rules! number32 {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                self.0.to_sql()
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                u32::column_result(value).map(Self)
            }
        }
    )*};
}

number32! {
    /// A duration in whole seconds (TS 29.571 `DurationSec`).
    Seconds;
    /// What is charged alike (TS 29.571 `RatingGroup`).
    RatingGroup;
    /// The agent's number of a session (TS 29.571 `ChargingId`).
    ChargingId;
    /// The number of a message within its session (`invocationSequenceNumber`), from 0.
    SequenceNumber;
    /// The number of a container within its charging id and rating group, from 1.
    LocalSequenceNumber;
}
