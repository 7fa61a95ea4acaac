//! Warnings and errors of the log go to the timeline as well: whatever part of the agent they come from.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::timeline::{Kind, Tidings, Timeline};

/// Longer ones are cut: the log has them whole.
const LONGEST: usize = 400;

/// A layer of the log that hands warnings and errors on.
#[derive(Debug)]
pub struct Problems(Timeline);

impl Problems {
    /// Hands them on to this timeline.
    #[must_use]
    pub const fn new(timeline: Timeline) -> Self {
        Self(timeline)
    }
}

impl<S: Subscriber> Layer<S> for Problems {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let kind = match *event.metadata().level() {
            Level::ERROR => Kind::Problem,
            Level::WARN => Kind::Warning,
            _ => return,
        };
        let mut words = Words::default();
        event.record(&mut words);
        let text: String = words.message.chars().take(LONGEST).collect();
        self.0.note(words.link.as_deref(), Tidings { kind, words: text, octets: words.octets });
    }
}

/// What of a line of the log is told on.
#[derive(Default)]
struct Words {
    message: String,
    link: Option<String>,
    octets: Option<u64>,
}

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a string cannot fail.
            let _ = write!(self.message, "{value:?}");
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "link" => self.link = Some(value.to_owned()),
            "message" => value.clone_into(&mut self.message),
            _ => {}
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "octets" {
            self.octets = Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::clock::Clock;

    #[test]
    fn warnings_and_errors_are_told_and_everyday_lines_are_not() {
        let timeline = Timeline::new(Clock::default());
        let log = tracing_subscriber::registry().with(Problems::new(timeline.clone()));
        tracing::subscriber::with_default(log, || {
            tracing::info!(link = "wan0", "metered");
            tracing::warn!(link = "wan0", octets = 7_u64, "so much had passed");
            tracing::error!("the ledger cannot be written: {}", "x".repeat(1000));
        });
        let (told, _) = timeline.watch(0);
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!((told[0].kind, told[0].link.as_deref(), told[0].octets), (Kind::Warning, Some("wan0"), Some(7)));
        assert_eq!(told[0].words, "so much had passed");
        assert_eq!((told[1].kind, told[1].words.len()), (Kind::Problem, LONGEST));
    }
}
