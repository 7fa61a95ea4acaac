//! What has happened lately, in words for people: a bounded list in memory, and a feed for whoever watches.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::clock::Clock;

/// So many of the latest happenings are kept.
const KEPT: usize = 200;

/// One that lags behind by more than so many is told that it has missed some, and goes on with the latest.
const FEED: usize = 64;

/// What kind of thing happened.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Units were granted.
    Grant,
    /// The last units of the package were granted, or it is used up.
    Exhausted,
    /// The server asks for a new authorisation: a top-up, say.
    TopUp,
    /// A link came, or came into use.
    LinkUp,
    /// A link went, or is not in use any more.
    LinkDown,
    /// A report was acknowledged.
    Acknowledged,
    /// A session began or ended, onboarding went on.
    Notice,
    /// Something is not as it should be, and goes on.
    Warning,
    /// Something is wrong.
    Problem,
}

/// One thing that happened.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Happening {
    /// Its number in this life of the agent, from 1.
    pub id: u64,
    /// When, RFC 3339.
    pub at: String,
    /// Its kind.
    pub kind: Kind,
    /// The link it was about, if any.
    pub link: Option<String>,
    /// What happened, in plain words.
    pub words: String,
    /// The octets it was about, if any.
    pub octets: Option<u64>,
}

/// A happening before it has a number and a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tidings {
    /// Its kind.
    pub kind: Kind,
    /// What happened, in plain words.
    pub words: String,
    /// The octets it was about, if any.
    pub octets: Option<u64>,
}

impl Tidings {
    /// Tidings about nothing that can be counted.
    #[must_use]
    pub fn new(kind: Kind, words: impl Into<String>) -> Self {
        Self { kind, words: words.into(), octets: None }
    }

    /// The same, about so many octets.
    #[must_use]
    pub fn about(self, octets: u64) -> Self {
        Self { octets: Some(octets), ..self }
    }
}

/// How often something of one kind has happened to one link, or to the whole agent, in this life of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) kind: Kind,
    pub(super) link: Option<String>,
    pub(super) times: u64,
}

/// The latest happenings. Every clone is the same list.
#[derive(Clone, Debug)]
pub struct Timeline {
    clock: Clock,
    /// Drawn anew for each life of the agent: numbers of one mean nothing in another.
    life: u32,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Debug)]
struct Kept {
    latest: VecDeque<Happening>,
    tallies: BTreeMap<(Kind, Option<String>), u64>,
    next: u64,
    feed: broadcast::Sender<Happening>,
}

impl Timeline {
    /// An empty one, whose times are those of `clock`.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let kept =
            Kept { latest: VecDeque::new(), tallies: BTreeMap::new(), next: 1, feed: broadcast::Sender::new(FEED) };
        Self { clock, life: fastrand::u32(..), kept: Arc::new(Mutex::new(kept)) }
    }

    /// Names this life of the agent.
    #[must_use]
    pub(super) const fn life(&self) -> u32 {
        self.life
    }

    /// The clock of its times.
    #[must_use]
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Takes note of what happened, to a link or to the whole agent.
    pub fn note(&self, link: Option<&str>, news: Tidings) {
        let at = self.clock.now().map(|moment| moment.label.wall.to_string()).unwrap_or_default();
        let mut kept = self.kept();
        let Tidings { kind, words, octets } = news;
        let happening = Happening { id: kept.next, at, kind, link: link.map(str::to_owned), words, octets };
        kept.next += 1;
        *kept.tallies.entry((kind, happening.link.clone())).or_default() += 1;
        if kept.latest.len() == KEPT {
            kept.latest.pop_front();
        }
        kept.latest.push_back(happening.clone());
        // Nobody may be watching.
        let _ = kept.feed.send(happening);
    }

    /// Counts something that happened as it did before, and that needs no telling.
    pub fn count(&self, link: Option<&str>, kind: Kind) {
        *self.kept().tallies.entry((kind, link.map(str::to_owned))).or_default() += 1;
    }

    /// What is kept with a number above `after`, oldest first, and everything that comes from now on: none twice, none left out.
    pub(super) fn watch(&self, after: u64) -> (Vec<Happening>, broadcast::Receiver<Happening>) {
        let kept = self.kept();
        let latest = kept.latest.iter().filter(|happening| happening.id > after).cloned().collect();
        (latest, kept.feed.subscribe())
    }

    /// How often each kind of thing has happened.
    pub(super) fn tallies(&self) -> Vec<Tally> {
        let kept = self.kept();
        let tallies = kept.tallies.iter();
        tallies.map(|((kind, link), times)| Tally { kind: *kind, link: link.clone(), times: *times }).collect()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(happenings: &[Happening]) -> Vec<u64> {
        happenings.iter().map(|happening| happening.id).collect()
    }

    #[test]
    fn the_list_is_bounded_and_keeps_the_latest() {
        let timeline = Timeline::new(Clock::default());
        for number in 0..KEPT + 3 {
            timeline.note(Some("wan0"), Tidings::new(Kind::Notice, format!("number {number}")));
        }
        let (kept, _) = timeline.watch(0);
        assert_eq!((kept.len(), kept[0].id), (KEPT, 4));
        assert_eq!(kept[KEPT - 1].words, format!("number {}", KEPT + 2));
    }

    #[test]
    fn what_is_counted_is_in_the_tally_and_not_in_the_list() {
        let timeline = Timeline::new(Clock::default());
        timeline.note(Some("wan0"), Tidings::new(Kind::Exhausted, "used up"));
        timeline.count(Some("wan0"), Kind::Exhausted);
        let tally = Tally { kind: Kind::Exhausted, link: Some("wan0".to_owned()), times: 2 };
        assert_eq!((ids(&timeline.watch(0).0), timeline.tallies()), (vec![1], vec![tally]));
    }

    #[test]
    fn whoever_comes_back_gets_what_was_missed_and_nothing_twice() {
        let timeline = Timeline::new(Clock::default());
        let note = || timeline.note(None, Tidings::new(Kind::Notice, "something"));
        for _ in 0..3 {
            note();
        }
        let (missed, mut feed) = timeline.watch(2);
        assert_eq!(ids(&missed), [3]);
        note();
        assert_eq!(feed.try_recv().map(|happening| happening.id), Ok(4));
    }
}
