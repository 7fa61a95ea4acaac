//! The credit-control client: pure, no I/O, time is an argument. Events in, commands out, in the order of durability.

mod message;

pub use message::{
    Answer, Container, FailureHandling, FinalUnitAction, Grant, GrantedUnit, Message, MessageKey, Operation, Outcome,
    QuotaManagement, Record, ResultCode, SessionKind, SessionOpening, StoredSession, Trigger,
};

/// Containers in one message at most.
pub const MAX_CONTAINERS: usize = 50;
