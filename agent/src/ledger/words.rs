//! How the field's words are written into SQLite and read back.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, Value, ValueRef};
use rusqlite::{Result, Row};

use crate::clock::Label;
use crate::quota::{Exceptions, FailureHandling, FinalUnitAction, Operation, QuotaManagement, ResultCode, Trigger};
use crate::units::{
    BootId, BootInstant, ChargingId, Generation, InvocationSequenceNumber, LocalSequenceNumber, Octets, SessionRef,
    SubscriberIdentifier, UsedUnit,
};

/// 64-bit counts: `SQLite` holds signed integers, so the same 64 bits are stored (never compared in SQL).
macro_rules! bits {
    ($($name:ident: $new:ident, $get:ident;)+) => {$(
        impl ToSql for $name {
            fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
                Ok(self.$get().cast_signed().into())
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                i64::column_result(value).map(|bits| Self::$new(bits.cast_unsigned()))
            }
        }
    )+};
}

bits! {
    Octets: new, get;
    BootInstant: from_nanos, as_nanos;
}

macro_rules! numbers {
    ($($name:ident),+) => {$(
        impl ToSql for $name {
            fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
                Ok(i64::from(self.get()).into())
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                u32::column_result(value).map(Self::new)
            }
        }
    )+};
}

numbers!(ChargingId, Generation, InvocationSequenceNumber, LocalSequenceNumber);

macro_rules! texts {
    ($($name:ident),+) => {$(
        impl ToSql for $name {
            fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
                Ok(self.as_str().into())
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                value.as_str().map(Self::new)
            }
        }
    )+};
}

texts!(BootId, SessionRef, SubscriberIdentifier);

/// One text for each variant; the compiler shows a variant that has none.
macro_rules! words {
    ($name:ident: $($variant:ident = $text:literal),+ $(,)?) => {
        impl ToSql for $name {
            fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
                Ok(match self { $(Self::$variant => $text),+ }.into())
            }
        }

        impl FromSql for $name {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                match value.as_str()? {
                    $($text => Ok(Self::$variant),)+
                    other => Err(unknown(stringify!($name), other)),
                }
            }
        }
    };
}

words! { Trigger:
    QuotaThreshold = "quota threshold",
    Qht = "qht",
    Final = "final",
    QuotaExhausted = "quota exhausted",
    ValidityTime = "validity time",
    ForcedReauthorisation = "forced reauthorisation",
    TimeLimit = "time limit",
    VolumeLimit = "volume limit",
    AbnormalRelease = "abnormal release",
}
words! { QuotaManagement: Online = "online", Offline = "offline" }
words! { Operation: Create = "create", Update = "update", Release = "release", Event = "event" }
words! { FinalUnitAction: Terminate = "terminate", Redirect = "redirect", RestrictAccess = "restrict access" }
impl ToSql for Exceptions {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        if *self == Self::default() {
            return Ok(ToSqlOutput::Owned(Value::Null));
        }
        let text =
            serde_json::to_string(self).map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
        Ok(text.into())
    }
}

impl FromSql for Exceptions {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let Some(text) = value.as_str_or_null()? else { return Ok(Self::default()) };
        serde_json::from_str(text).map_err(|error| FromSqlError::Other(error.into()))
    }
}

words! { FailureHandling:
    Terminate = "terminate",
    Continue = "continue",
    RetryAndTerminate = "retry and terminate",
}
words! { ResultCode: Success = "success", QuotaLimitReached = "quota limit reached", Denied = "denied" }

fn unknown(kind: &str, text: &str) -> FromSqlError {
    FromSqlError::Other(format!("`{text}` is no {kind} this version knows").into())
}

/// A wall-clock label as it is stored: microseconds since 1970 UTC.
#[derive(Clone, Copy)]
pub(super) struct Wall(pub(super) Timestamp);

impl ToSql for Wall {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(self.0.as_microsecond().into())
    }
}

impl FromSql for Wall {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let micros = i64::column_result(value)?;
        Timestamp::from_microsecond(micros).map(Self).map_err(|error| FromSqlError::Other(error.into()))
    }
}

/// A span as it is stored: nanoseconds, held at 584 years.
pub(super) fn nanos(duration: Duration) -> i64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).cast_signed()
}

/// The span that [`nanos`] stored.
pub(super) fn span(nanos: i64) -> Duration {
    Duration::from_nanos(nanos.cast_unsigned())
}

/// The label in the columns `at` (wall) and `at + 1` (synced).
pub(super) fn label(row: &Row<'_>, at: usize) -> Result<Label> {
    Ok(Label { wall: row.get::<_, Wall>(at)?.0, synced: row.get(at + 1)? })
}

/// The used unit in the columns `at` (uplink) and `at + 1` (downlink).
pub(super) fn used(row: &Row<'_>, at: usize) -> Result<UsedUnit> {
    Ok(UsedUnit { uplink: row.get(at)?, downlink: row.get(at + 1)? })
}
