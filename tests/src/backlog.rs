//! A long backlog: past sessions in the ledger of an agent that does not run, and how the server says it arrived.

use std::time::Duration;

use agent::clock::Moment;
use agent::config::Config;
use agent::ledger::{Ledger, SealRequest};
use agent::quota::{
    Container, Exceptions, Grant, Message, MessageKey, Operation, QuotaManagement, Record, ResultCode, SessionOpening,
    Trigger,
};
use agent::reporter::{Identity, Interval, SealInput, encode};
use agent::units::{
    BootId, BootInstant, ChargingId, Epoch, Generation, InvocationSequenceNumber, LocalSequenceNumber, Octets,
    RatingGroup, SessionRef, SubscriberIdentifier, UsedUnit,
};
use anyhow::{Context as _, Result, ensure};
use rusqlite::Connection;
use serde_json::Value;

use crate::http::Client;
use crate::scenario::{Plot, World, chunked, subscriber};

/// The charging ids of the sessions begin here, in the order of their opening.
const FIRST_SESSION: u32 = 1000;

/// So many past sessions send at once (`agent/src/quota/turns.rs`).
const AT_ONCE: u32 = 4;

/// Containers in one commit.
const BATCH: u32 = 5000;

/// So many past sessions with so many containers each.
#[derive(Debug, Clone, Copy)]
pub struct Backlog {
    /// Past sessions.
    pub sessions: u32,
    /// Containers of each.
    pub containers: u32,
}

/// What the server has booked of a backlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Containers, each of them once.
    pub containers: u64,
    /// Octets debited.
    pub octets: u64,
    /// Containers that came once more, or out of turn within their session.
    pub faults: u64,
}

impl Backlog {
    /// A world for a backlog: a server that asks for no log-in, a link with a SIM and a package that lasts.
    #[must_use]
    pub fn plot(chunk: u64) -> Plot {
        let mut plot = Plot::of(chunked(1 << 50, chunk));
        plot.server = "onboarding = \"static\"\n".into();
        plot.server_args = vec!["--no-auth".into()];
        plot.links = vec![format!("name = \"wan0\"\nsubscriber = \"{}\"\nrating_group = 10", subscriber(0))];
        plot
    }

    /// Containers in all.
    #[must_use]
    pub const fn total(self) -> u64 {
        self.sessions as u64 * self.containers as u64
    }

    /// Octets in all.
    #[must_use]
    pub fn octets(self) -> u64 {
        let one: u64 = (1..=self.containers).map(|number| used(number).total().get()).sum();
        one * u64::from(self.sessions)
    }

    /// Fills the agent's ledger, as an agent would have that lost its server and then its links; the server knows the sessions.
    pub fn fill(self, world: &World) -> Result<()> {
        let config = Config::load(&world.config)?;
        let boot = BootId::new("an earlier boot");
        let mut ledger = Ledger::open(&config.ledger, boot.clone())?;
        let moment = Moment::now()?;
        for number in 0..self.sessions {
            let opening = SessionOpening {
                session: ChargingId::new(FIRST_SESSION + number),
                subscriber: SubscriberIdentifier::new(subscriber(0)),
                epoch: Epoch { boot: boot.clone(), generation: Generation::new(number) },
                base: UsedUnit::ZERO,
                base_throttled: UsedUnit::ZERO,
                opened_at: moment.boot,
            };
            self.fill_session(world, &mut ledger, &opening, (&moment, &config))
                .with_context(|| format!("filling session {}", opening.session))?;
        }
        Ok(())
    }

    fn fill_session(
        self,
        world: &World,
        ledger: &mut Ledger,
        opening: &SessionOpening,
        (moment, config): (&Moment, &Config),
    ) -> Result<()> {
        let session = opening.session;
        let mut body = Vec::new();
        let mut seal = |request: &SealRequest| {
            body = exact_bytes(request, config)?;
            Ok(body.clone())
        };
        let create = Record::MessageSealed { session, message: create(moment.boot) };
        ledger.commit(&[Record::SessionOpened(opening.clone()), create], moment, &mut seal)?;
        let document: Value = serde_json::from_slice(&body)?;
        let server = world.server.as_ref().context("a server")?;
        let client = Client::new(&world.topology.internet, &server.url, "");
        client.post("/nchf-convergedcharging/v3/chargingdata", &document)?;
        let granted = Record::MessageAcknowledged {
            key: MessageKey { session, number: InvocationSequenceNumber::new(0) },
            session_ref: Some(session_ref(world, session)?),
            grant: Some(grant()),
            failure_handling: None,
        };
        let mut none = |_: &SealRequest| -> Result<Vec<u8>> { anyhow::bail!("nothing more is sealed") };
        ledger.commit(&[granted], moment, &mut none)?;
        let mut next = 1;
        while next <= self.containers {
            let end = (next + BATCH).min(self.containers + 1);
            let batch: Vec<Record> = (next..end)
                .map(|number| Record::ContainerClosed { session, container: container(number, moment.boot) })
                .collect();
            ledger.commit(&batch, moment, &mut none)?;
            next = end;
        }
        let over =
            [Record::SessionClosing { session, trigger: Trigger::AbnormalRelease }, Record::SessionSettled { session }];
        ledger.commit(&over, moment, &mut none).map(drop)
    }

    /// What has arrived so far, by the server's own books.
    pub fn arrived(self, world: &World) -> Result<Arrived> {
        let books = Connection::open(world.workdir.path().join("server.db"))?;
        books.busy_timeout(Duration::from_secs(10))?;
        let sql = "SELECT count(*), coalesce(sum(total), 0), count(*) - count(DISTINCT charging_id || '/' || local_sequence_number) \
            FROM ledger WHERE kind = 'debit' AND charging_id >= ?1 AND charging_id < ?2";
        let ids = [FIRST_SESSION, FIRST_SESSION + self.sessions];
        let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?));
        let (containers, octets, twice) = books.query_row(sql, ids, read)?;
        let sql = "SELECT count(*) FROM (SELECT local_sequence_number - lag(local_sequence_number, 1, 0) \
            OVER (PARTITION BY charging_id ORDER BY id) AS step FROM ledger \
            WHERE kind IN ('debit', 'duplicate') AND charging_id >= ?1 AND charging_id < ?2) WHERE step <> 1";
        let out_of_turn: i64 = books.query_row(sql, ids, |row| row.get(0))?;
        Ok(Arrived {
            containers: containers.try_into()?,
            octets: octets.try_into()?,
            faults: (twice + out_of_turn).try_into()?,
        })
    }

    /// About how many containers have arrived (grants are among them, and the session in use): quick enough to be asked again and again.
    pub fn count(self, world: &World) -> Result<u64> {
        let books = Connection::open(world.workdir.path().join("server.db"))?;
        books.busy_timeout(Duration::from_secs(10))?;
        let sql = "SELECT coalesce(max(id), 0) FROM ledger";
        Ok(books.query_row(sql, [], |row| row.get::<_, i64>(0))?.try_into()?)
    }

    /// The sessions in the order in which the first of each arrived.
    pub fn order(self, world: &World) -> Result<Vec<u32>> {
        let books = Connection::open(world.workdir.path().join("server.db"))?;
        let sql = "SELECT charging_id FROM ledger WHERE kind = 'debit' AND charging_id >= ?1 AND charging_id < ?2 \
            GROUP BY charging_id ORDER BY min(id)";
        let ids = [FIRST_SESSION, FIRST_SESSION + self.sessions];
        Ok(books.prepare(sql)?.query_map(ids, |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
    }

    /// Every container was debited once, in turn, and the octets are those that were filled in.
    pub fn is_all_there(self, world: &World) -> Result<()> {
        let (arrived, octets) = (self.arrived(world)?, self.octets());
        let expected = Arrived { containers: self.total(), octets, faults: 0 };
        ensure!(arrived == expected, "{arrived:?}, expected {expected:?}");
        let order = self.order(world)?;
        // Those that are on their way together may overtake each other, and nobody else.
        let in_turn = (FIRST_SESSION..).zip(&order).all(|(place, session)| *session < place + AT_ONCE);
        ensure!(in_turn, "the oldest sessions go first: {order:?}");
        Ok(())
    }
}

/// No two neighbours alike, so that a container in another's place shows.
const fn used(number: u32) -> UsedUnit {
    UsedUnit::new(1000 + (number % 17) as u64, 3000 + (number % 13) as u64)
}

const fn container(number: u32, at: BootInstant) -> Container {
    Container {
        number: LocalSequenceNumber::new(number),
        used: used(number),
        quota_management: QuotaManagement::Online,
        trigger: Trigger::TimeLimit,
        first_usage: at,
        last_usage: at,
        closed_at: at,
    }
}

const fn create(at: BootInstant) -> Message {
    Message {
        number: InvocationSequenceNumber::new(0),
        operation: Operation::Create,
        requested: Some(Octets::new(1 << 20)),
        containers: Vec::new(),
        trigger: None,
        reported: Octets::ZERO,
        sealed_at: at,
    }
}

fn grant() -> Grant {
    Grant {
        ceiling: Octets::new(1 << 20),
        octets: Octets::new(1 << 20),
        threshold: Octets::new(1 << 18),
        valid_until: None,
        holding: None,
        final_unit: None,
        exceptions: Exceptions::default(),
        result: ResultCode::Success,
    }
}

fn exact_bytes(request: &SealRequest, config: &Config) -> Result<Vec<u8>> {
    let identity = Identity {
        nf_name: config.device.nf_instance_id,
        subscriber: request.opening.subscriber.clone(),
        session: request.opening.session,
        rating_group: RatingGroup::new(10),
        apn: "internet".into(),
    };
    let intervals = request.containers.iter().map(|labelled| Interval {
        container: &labelled.container,
        first_usage: labelled.first_usage.wall,
        last_usage: labelled.last_usage.wall,
        closed_at: labelled.closed_at.wall,
    });
    let intervals = intervals.collect();
    encode(&SealInput { identity: &identity, message: &request.message, intervals, sealed_at: request.sealed_at.wall })
}

/// The server's name for a session.
fn session_ref(world: &World, session: ChargingId) -> Result<SessionRef> {
    let answer = world.admin.get(&format!("/admin/v1/sessions?subscriber={}", subscriber(0)))?;
    let sessions = answer["sessions"].as_array().context("sessions")?;
    let found =
        sessions.iter().find(|found| found["chargingId"] == session.get()).and_then(|found| found["ref"].as_str());
    found.map(SessionRef::new).with_context(|| format!("no session {session} in {answer}"))
}
