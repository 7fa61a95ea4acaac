//! Agents to be asked: one that holds what it is given, and one that is older than what it is asked for.

use std::path::Path;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use agent::clock::Clock;
use agent::local::{
    Asker, Desk, KernelStatus, LinkStatus, PackageStatus, Question, RENEWED_SCHEMA, Renewed, RenewedLink, Status,
    Timeline, Untold,
};
use agent::usage::{Refusal, UsageDocument};
use axum::Router;
use axum::routing::get;
use tokio::net::UnixListener;
use tokio::runtime::Builder;
use tokio::sync::oneshot;

/// An agent at a socket, for as long as it is held.
pub(crate) struct Agent {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it ended well");
        }
    }
}

/// Serves on a thread of its own, until the end.
fn begin<T>(serve: impl FnOnce() -> T + Send + 'static) -> Agent {
    let (end, ended) = oneshot::channel();
    let (tell, is_ready) = mpsc::channel();
    let thread = thread::spawn(move || {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async move {
            let _held = serve();
            tell.send(()).expect("somebody waits");
            // The sender is dropped.
            let _ = ended.await;
        });
    });
    is_ready.recv().expect("it serves");
    Agent { end: Some(end), thread: Some(thread) }
}

/// Two links: one with much left, and one that is used up.
fn status() -> Status {
    let link = |link: &str, state: &str, left| LinkStatus {
        link: link.to_owned(),
        exists: true,
        metered: true,
        in_use: true,
        state: state.to_owned(),
        explanation: format!(
            "{link} is {state}, which is said here at such length that no terminal under test has a line for all of it"
        ),
        subscriber: Some("imsi-001010000000001".to_owned()),
        package: PackageStatus { bought_octets: Some(1 << 30), left_octets: Some(left), ..PackageStatus::default() },
        kernel: KernelStatus { passed_downlink_octets: 123_456, ..KernelStatus::default() },
        ..LinkStatus::default()
    };
    Status {
        schema: 1,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        device: "van-17".to_owned(),
        server: "https://charging.example/".to_owned(),
        onboarding: "done".to_owned(),
        at: "2026-11-28T19:40:02Z".to_owned(),
        clock_synced: true,
        ledger_persistent: true,
        links: vec![link("wan0", "active", 1 << 29), link("wwan1", "exhausted", 0)],
        ..Status::default()
    }
}

impl Agent {
    /// One that answers what it is asked. It knows the usage of no link by itself, and its account is out of reach.
    pub(crate) fn at(socket: &Path) -> Self {
        let socket = socket.to_owned();
        begin(move || {
            let desk = Desk::new(Asker::new(answer), Timeline::new(Clock::default()));
            agent::local::serve(&socket, desk).expect("served")
        })
    }

    /// One that knows the status and nothing else, and says of itself what this version does not understand.
    pub(crate) fn of_another_version_at(socket: &Path) -> Self {
        let socket = socket.to_owned();
        begin(move || {
            let listener = UnixListener::bind(&socket).expect("bound");
            let router = Router::new().route("/api/v1/status", get(|| async { "{\"schema\": 9, \"links\": {}}" }));
            tokio::spawn(async move { axum::serve(listener, router).await })
        })
    }
}

fn answer(question: Question) {
    match question {
        // Whoever asked may have gone.
        Question::Status(reply) => drop(reply.send(status())),
        Question::Renew(link, reply) => drop(reply.send(renewed(link.as_deref()))),
        Question::Usage(wish, reply) => {
            let refusal = |link| Refusal(format!("link: nothing is recorded of {link:?}; known are: wan0, wwan1"));
            drop(reply.send(wish.link.map_or_else(|| Ok(usage()), |link| Err(Untold::Refused(refusal(link))))));
        }
        // Dropped, and so answered with "not now".
        Question::Account(_) | Question::Outlooks(_) => {}
    }
}

/// What `weir usage` is shown by, too.
fn usage() -> UsageDocument {
    serde_json::from_str(include_str!("../../src/cli/golden/usage.json")).expect("usage")
}

/// The first link was asked for a moment ago; the other has an answer already.
fn renewed(asked: Option<&str>) -> Renewed {
    let link = |link: &str, asked, why: &str| RenewedLink {
        link: link.to_owned(),
        asked,
        why: why.to_owned(),
        again_at: (!asked).then(|| "2026-11-28T19:40:09Z".to_owned()),
        ..RenewedLink::default()
    };
    let all = [link("wan0", false, "too-soon"), link("wwan1", true, "asks")];
    let links = all.into_iter().filter(|link| asked.is_none_or(|asked| asked == link.link)).collect();
    Renewed { schema: RENEWED_SCHEMA, links }
}
