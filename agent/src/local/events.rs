//! Live data: a status every second while somebody watches, and what happens when it happens (server-sent events).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::time::{MissedTickBehavior, interval};

use super::Desk;
use super::ask::{Asker, Question};
use super::timeline::{Happening, Timeline};

/// So many may watch at once.
pub(super) const WATCHERS: usize = 8;

/// Between two statuses.
const PERIOD: Duration = Duration::from_secs(1);

/// Statuses for all who watch: made once a second, for all of them together, and not at all for nobody.
#[derive(Clone, Debug)]
pub(super) struct Live {
    feed: Arc<Mutex<Feed>>,
    places: Arc<Semaphore>,
}

#[derive(Debug)]
struct Feed {
    statuses: broadcast::Sender<Arc<str>>,
    /// Somebody makes them.
    is_fed: bool,
}

impl Live {
    pub(super) fn new() -> Self {
        let feed = Feed { statuses: broadcast::Sender::new(4), is_fed: false };
        Self { feed: Arc::new(Mutex::new(feed)), places: Arc::new(Semaphore::new(WATCHERS)) }
    }

    /// Joins those who watch; the first one has the statuses begin.
    fn join(&self, asker: &Asker) -> broadcast::Receiver<Arc<str>> {
        let mut feed = self.feed.lock().unwrap_or_else(PoisonError::into_inner);
        let statuses = feed.statuses.subscribe();
        if !std::mem::replace(&mut feed.is_fed, true) {
            tokio::spawn(Self::feed(Arc::clone(&self.feed), asker.clone()));
        }
        statuses
    }

    async fn feed(feed: Arc<Mutex<Feed>>, asker: Asker) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            {
                let mut feed = feed.lock().unwrap_or_else(PoisonError::into_inner);
                if feed.statuses.receiver_count() == 0 {
                    feed.is_fed = false;
                    return;
                }
            }
            // One that is not answered is left out: the agent is about to end, or busy.
            let Ok(status) = asker.ask(Question::Status).await else { continue };
            let Ok(status) = serde_json::to_string(&status) else { continue };
            let feed = feed.lock().unwrap_or_else(PoisonError::into_inner);
            // All may have gone meanwhile.
            let _ = feed.statuses.send(status.into());
        }
    }
}

/// One who watches.
struct Watcher {
    life: u32,
    missed: VecDeque<Happening>,
    happenings: broadcast::Receiver<Happening>,
    statuses: broadcast::Receiver<Arc<str>>,
    _place: OwnedSemaphorePermit,
}

/// The route: `status` events, and a `happening` for each thing that happens, the latest ones first of all. Whoever comes again and says
/// which was the last (`Last-Event-ID`) gets those after it.
pub(super) async fn events(State(desk): State<Desk>, headers: HeaderMap) -> Response {
    let Ok(place) = Arc::clone(&desk.live.places).try_acquire_owned() else {
        let words = format!("{WATCHERS} are watching already: close one, or come again\n");
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "10")], words).into_response();
    };
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let (missed, happenings) = desk.timeline.watch(last_seen(last, &desk.timeline));
    let watcher = Watcher {
        life: desk.timeline.life(),
        missed: missed.into(),
        happenings,
        statuses: desk.live.join(&desk.asker),
        _place: place,
    };
    Sse::new(stream::unfold(watcher, |mut watcher| async move {
        let event = watcher.next().await?;
        Some((Ok::<_, Infallible>(event), watcher))
    }))
    .into_response()
}

/// The number of the last happening somebody has seen of this life; 0 for who has seen none of it.
fn last_seen(said: &str, timeline: &Timeline) -> u64 {
    let seen = said.split_once('-').filter(|(life, _)| life.parse() == Ok(timeline.life()));
    seen.and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
}

impl Watcher {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(happening) = self.missed.pop_front() {
                return self.told(&happening);
            }
            tokio::select! {
                biased;
                happening = self.happenings.recv() => match happening {
                    Ok(happening) => return self.told(&happening),
                    // The oldest are left out for who reads slowly.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
                status = self.statuses.recv() => match status {
                    Ok(status) => return Some(Event::default().event("status").data(status)),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }

    fn told(&self, happening: &Happening) -> Option<Event> {
        let event = Event::default().event("happening").id(format!("{}-{}", self.life, happening.id));
        event.json_data(happening).ok()
    }
}
