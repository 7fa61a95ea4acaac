//! Answers what was used: read beside the loop, over a connection of its own, so that a long history keeps nobody waiting.

use std::sync::Arc;

use anyhow::Result;
use tokio::sync::{Semaphore, oneshot};

use super::Agent;
use crate::config;
use crate::local::Untold;
use crate::usage::{Calendar, Refusal, Source, UsageDocument, Wish, read};

/// The operator's calendar, and whose turn it is to read.
#[derive(Debug)]
pub(super) struct History {
    calendar: Calendar,
    /// One at a time: each may go through a backlog of a million containers.
    turn: Arc<Semaphore>,
}

impl History {
    /// The calendar that the configuration asks for; says what is wrong with it.
    pub(super) fn of(usage: &config::Usage) -> Self {
        let calendar = Calendar::of(usage.time_zone.as_deref(), usage.billing_day);
        if let Some(note) = calendar.note() {
            tracing::warn!("{note}");
        }
        Self { calendar, turn: Arc::new(Semaphore::new(1)) }
    }

    pub(super) const fn calendar(&self) -> &Calendar {
        &self.calendar
    }
}

impl Agent {
    /// Has the history read, and the answer sent.
    pub(super) fn tell_usage(&self, wish: Wish, reply: oneshot::Sender<Result<UsageDocument, Untold>>) -> Result<()> {
        let now = self.clock.now()?.label;
        let (path, calendar) = (self.config.ledger.clone(), self.history.calendar.clone());
        let turn = Arc::clone(&self.history.turn);
        tokio::spawn(async move {
            let Ok(_turn) = turn.acquire().await else { return };
            let told = move || read(&path, &calendar, &wish, (Source::Agent, now));
            let told = match tokio::task::spawn_blocking(told).await {
                Ok(told) => told.map_err(|error| match error.downcast::<Refusal>() {
                    Ok(refusal) => Untold::Refused(refusal),
                    Err(error) => Untold::Failed(format!("{error:#}")),
                }),
                Err(error) => Err(Untold::Failed(error.to_string())),
            };
            // Whoever asked may have gone.
            let _ = reply.send(told);
        });
        Ok(())
    }
}
