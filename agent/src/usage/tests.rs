//! The calendar on days that are not of 24 hours, estimates, and sums that stay exact through all of it.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::estimate::estimate;
use super::*;
use crate::clock::{Label, Moment};
use crate::ledger::Ledger;
use crate::quota::{Container, Message, MessageKey, Operation, QuotaManagement, Record, SessionOpening, Trigger};
use crate::units::{
    BootId, BootInstant, ChargingId, Epoch, Generation, InvocationSequenceNumber, LocalSequenceNumber, Octets,
    SubscriberIdentifier, UsedUnit,
};

const HOUR: i64 = 3600;
const RULE: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn berlin(billing_day: i8) -> Calendar {
    Calendar::of(Some("Europe/Berlin"), BillingDay::new(billing_day).expect("a day"))
}

fn hours(span: Span) -> i64 {
    span.end.duration_since(span.begin).as_secs() / HOUR
}

#[test]
fn a_day_has_as_many_hours_as_the_clocks_give_it() {
    // Europe/Berlin by name, and by the rule that a box without a database of time zones has.
    for calendar in [berlin(1), Calendar::of(Some(RULE), BillingDay::FIRST)] {
        for (noon, length, begin) in [
            ("2026-03-29T10:00:00Z", 23, "2026-03-28T23:00:00Z"),
            ("2026-06-15T10:00:00Z", 24, "2026-06-14T22:00:00Z"),
            ("2026-10-25T11:00:00Z", 25, "2026-10-24T22:00:00Z"),
        ] {
            let day = By::Day.span_of(&calendar, time(noon));
            assert_eq!((hours(day), day.begin), (length, time(begin)), "{}", calendar.name());
            let mut at = day.begin;
            let mut count = 0;
            while day.holds(at) {
                let hour = By::Hour.span_of(&calendar, at);
                assert_eq!((hour.begin, hours(hour)), (at, 1));
                (at, count) = (hour.end, count + 1);
            }
            assert_eq!((count, at), (length, day.end), "hours fill the day");
        }
    }
}

#[test]
fn spans_hold_what_they_begin_with_and_follow_each_other_everywhere() {
    for zone in ["UTC", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Santiago", "Pacific/Apia"] {
        let calendar = Calendar::of(Some(zone), BillingDay::new(31).expect("a day"));
        assert_eq!(calendar.note(), None, "{zone}");
        for by in [By::FiveMinutes, By::Hour, By::Day, By::Month, By::Period] {
            // Two years in steps that meet every hour of the day.
            for step in 0..700 {
                let at = Timestamp::from_second(1_750_000_000 + step * 90_061).expect("a time");
                let span = by.span_of(&calendar, at);
                assert!(span.holds(at) && by.span_of(&calendar, span.begin) == span, "{zone} {by:?} {at}: {span:?}");
                let next = by.span_of(&calendar, span.end);
                assert_eq!(next.begin, span.end, "{zone} {by:?} {at}");
            }
        }
    }
}

#[test]
fn a_period_begins_on_the_billing_day_or_the_last_of_a_shorter_month() {
    for (day, at, begin, end) in [
        (1, "2026-11-28T12:00:00Z", "2026-11-01", "2026-12-01"),
        (15, "2026-11-14T22:59:59Z", "2026-10-15", "2026-11-15"),
        (15, "2026-11-14T23:00:00Z", "2026-11-15", "2026-12-15"),
        (31, "2026-02-27T12:00:00Z", "2026-01-31", "2026-02-28"),
        (31, "2026-02-28T12:00:00Z", "2026-02-28", "2026-03-31"),
        (30, "2028-02-29T12:00:00Z", "2028-02-29", "2028-03-30"),
        (29, "2026-03-01T12:00:00Z", "2026-02-28", "2026-03-29"),
    ] {
        let calendar = berlin(day);
        let span = By::Period.span_of(&calendar, time(at));
        let dates = (calendar.date(span.begin).to_string(), calendar.date(span.end).to_string());
        assert_eq!(dates, (begin.to_owned(), end.to_owned()), "billing day {day}, {at}");
    }
    assert_eq!((BillingDay::new(0), BillingDay::new(32), BillingDay::new(-1)), (None, None, None));
}

#[test]
fn a_zone_that_is_not_known_here_is_said_and_days_are_those_of_utc() {
    let calendar = Calendar::of(Some("Middle-earth/Shire"), BillingDay::FIRST);
    assert_eq!(calendar.name(), "UTC");
    let note = calendar.note().expect("a note");
    assert!(note.contains("Middle-earth/Shire") && note.contains("tzdata"), "{note}");
}

#[test]
fn nothing_is_guessed_before_enough_has_passed() {
    let begin = time("2026-11-01T00:00:00Z");
    let month = Span { begin, end: time("2026-12-01T00:00:00Z") };
    let day = Span { begin, end: time("2026-11-02T00:00:00Z") };
    let after = |hours: i64| Timestamp::from_second(begin.as_second() + hours * HOUR).expect("a time");
    let long_ago = time("2026-01-01T00:00:00Z");
    assert_eq!(estimate(By::Month, 1000, month, long_ago, after(47)), None);
    assert_eq!(estimate(By::Month, 1000, month, long_ago, after(48)), Some(15_000));
    assert_eq!(estimate(By::Period, 1000, month, long_ago, after(360)), Some(2000));
    assert_eq!(estimate(By::Day, 1000, day, long_ago, after(2)), None);
    assert_eq!(estimate(By::Day, 1000, day, long_ago, after(6)), Some(4000));
    assert_eq!(estimate(By::Day, 1000, day, long_ago, after(24)), None, "it is over");
    assert_eq!(estimate(By::Hour, 1000, day, long_ago, after(6)), None);
    // Metered since the 16th only: what was before is not nothing, it is not known.
    assert_eq!(estimate(By::Month, 1000, month, after(15 * 24), after(16 * 24)), None);
    assert_eq!(estimate(By::Month, 1000, month, after(15 * 24), after(20 * 24)), Some(3000));
    assert_eq!(estimate(By::Month, u64::MAX, month, long_ago, after(48)), Some(u64::MAX));
    assert_eq!(estimate(By::Month, 0, month, long_ago, after(480)), Some(0));
}

/// A ledger with a session for each of two SIMs, in a directory of its own.
struct Books {
    _directory: tempfile::TempDir,
    path: PathBuf,
    ledger: Ledger,
    next: [u32; 2],
    reported: [u64; 2],
}

const SIMS: [&str; 2] = ["imsi-001010000000001", "imsi-001010000000002"];
const NOW: &str = "2026-11-28T18:00:00Z";

fn session(sim: usize) -> ChargingId {
    ChargingId::new(u32::try_from(sim).expect("small") + 7)
}

impl Books {
    fn new(zone: &Calendar) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ledger.db");
        let mut ledger = Ledger::open(&path, BootId::new("boot")).expect("opens");
        ledger.keep_days_in(zone.zone().clone());
        let mut books = Self { _directory: directory, path, ledger, next: [1; 2], reported: [0; 2] };
        for (sim, name) in SIMS.iter().enumerate() {
            let opening = SessionOpening {
                session: session(sim),
                subscriber: SubscriberIdentifier::new(*name),
                epoch: Epoch { boot: BootId::new("boot"), generation: Generation::new(7) },
                base: UsedUnit::ZERO,
                base_throttled: UsedUnit::ZERO,
                opened_at: BootInstant::from_nanos(1),
            };
            let create = books.message(sim, 0, 0);
            let key = MessageKey { session: session(sim), number: create.number };
            books.write(
                "2026-01-01T00:00:00Z",
                &[
                    Record::SessionOpened(opening),
                    Record::MessageSealed { session: session(sim), message: create },
                    acknowledged(key),
                ],
            );
        }
        books
    }

    fn message(&self, sim: usize, number: u32, reported: u64) -> Message {
        Message {
            number: InvocationSequenceNumber::new(number),
            operation: if number == 0 { Operation::Create } else { Operation::Update },
            requested: None,
            containers: if number == 0 { Vec::new() } else { vec![LocalSequenceNumber::new(self.next[sim])] },
            trigger: None,
            reported: Octets::new(reported),
            sealed_at: BootInstant::from_nanos(1),
        }
    }

    fn write(&mut self, wall: &str, batch: &[Record]) {
        let moment = Moment { boot: BootInstant::from_nanos(1), label: Label { wall: time(wall), synced: true } };
        self.ledger.commit(batch, &moment, &mut |_| Ok(b"{}".to_vec())).expect("commits");
    }

    /// A container that the SIM has used, closed at that time.
    fn closed(&self, sim: usize, used: UsedUnit, quota_management: QuotaManagement) -> Record {
        let at = BootInstant::from_nanos(1);
        let container = Container {
            number: LocalSequenceNumber::new(self.next[sim]),
            used,
            quota_management,
            trigger: Trigger::TimeLimit,
            first_usage: at,
            last_usage: at,
            closed_at: at,
        };
        Record::ContainerClosed { session: session(sim), container }
    }

    /// Usage that the server has acknowledged.
    fn used(&mut self, sim: usize, wall: &str, uplink: u64, downlink: u64) {
        let closed = self.closed(sim, UsedUnit::new(uplink, downlink), QuotaManagement::Online);
        self.reported[sim] += uplink + downlink;
        let message = self.message(sim, self.next[sim], self.reported[sim]);
        let key = MessageKey { session: session(sim), number: message.number };
        self.next[sim] += 1;
        let sealed = Record::MessageSealed { session: session(sim), message };
        self.write(wall, &[closed, sealed, acknowledged(key)]);
    }

    fn asked(&self, calendar: &Calendar, wish: &Wish) -> anyhow::Result<UsageDocument> {
        read(&self.path, calendar, wish, (Source::Agent, Label { wall: time(NOW), synced: true }))
    }
}

fn acknowledged(key: MessageKey) -> Record {
    Record::MessageAcknowledged { key, session_ref: None, grant: None, failure_handling: None }
}

fn wish(by: &str) -> Wish {
    Wish { by: Some(by.to_owned()), ..Wish::default() }
}

fn all_of(document: &UsageDocument) -> Vec<(&str, u64)> {
    document.spans.iter().map(|span| (span.begin.as_str(), span.sums.total())).collect()
}

#[test]
fn whatever_the_spans_are_their_sums_are_the_same_to_the_octet() {
    for zone in ["Europe/Berlin", "Asia/Kathmandu", "America/St_Johns", "UTC"] {
        let calendar = Calendar::of(Some(zone), BillingDay::new(15).expect("a day"));
        let mut books = Books::new(&calendar);
        // Through both days on which Berlin's clocks are moved; by a generator of its own, so that a failure comes again.
        let mut draw = 12_345_u64;
        let mut sum = 0;
        let mut at = time("2026-10-24T00:07:00Z");
        let mut number = 0;
        while at < time(NOW) {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let octets = draw >> 40;
            books.used(number % 2, &at.to_string(), octets, octets / 3);
            sum += octets + octets / 3;
            number += 1;
            at = Timestamp::from_second(at.as_second() + 7_000 + i64::try_from(draw >> 50).expect("small"))
                .expect("a time");
        }
        let day = calendar.date(time("2026-10-24T00:07:00Z")).to_string();
        for by in ["hour", "day", "month", "period"] {
            let document = books.asked(&calendar, &Wish { begin: Some(day.clone()), ..wish(by) }).expect("an answer");
            assert_eq!(document.total.total(), sum, "{zone} {by}");
            assert!(document.spans.windows(2).all(|pair| pair[0].end == pair[1].begin), "{zone} {by}: without a gap");
            let by_sim: u64 = document.spans.iter().flat_map(|span| &span.sims).map(|sim| sim.sums.total()).sum();
            assert_eq!(by_sim, sum, "{zone} {by}: by SIM");
        }
        // Each day is its hours.
        let of = |by: &str, begin: &str, end: &str| {
            let asked = Wish { begin: Some(begin.to_owned()), end: Some(end.to_owned()), ..wish(by) };
            books.asked(&calendar, &asked).expect("an answer")
        };
        for day in of("day", "2026-10-24", "2026-10-26").spans {
            let last = calendar.told(Timestamp::from_second(time(&day.end).as_second() - 1).expect("a time"));
            assert_eq!(of("hour", &day.begin, &last).total, day.sums, "{zone} {}", day.begin);
        }
    }
}

#[test]
fn what_waits_and_what_is_open_is_in_the_sums_and_told_apart() {
    let calendar = berlin(1);
    let mut books = Books::new(&calendar);
    books.used(0, "2026-11-27T10:00:00Z", 100, 200);
    let waiting = books.closed(0, UsedUnit::new(10, 20), QuotaManagement::Online);
    books.next[0] += 1;
    let throttled = books.closed(0, UsedUnit::new(1, 2), QuotaManagement::Offline);
    books.next[0] += 1;
    books.write("2026-11-28T09:00:00Z", &[waiting, throttled]);
    let at = BootInstant::from_nanos(2);
    let (passed, throttled) = (UsedUnit::new(117, 229), UsedUnit::new(1, 5));
    let checkpoint = Record::Checkpoint { session: session(0), passed, throttled, at };
    books.write("2026-11-28T17:59:59Z", &[checkpoint]);
    let document = books.asked(&calendar, &wish("day")).expect("an answer");
    let day = |uplink_octets, downlink_octets, offline_octets, unacknowledged_octets| Sums {
        uplink_octets,
        downlink_octets,
        offline_octets,
        unacknowledged_octets,
        synced: true,
    };
    let spans: Vec<_> = document.spans.iter().map(|span| (span.begin.as_str(), span.sums)).collect();
    let today = day(18, 34, 6, 52);
    assert_eq!(spans, [("2026-11-27T00:00:00+01:00", day(100, 200, 0, 0)), ("2026-11-28T00:00:00+01:00", today)]);
    assert_eq!((document.running.day.sums, document.running.month.sums.total()), (today, 352));
    // What is open belongs to the moment, what waits to when it was closed.
    let hours = books.asked(&calendar, &Wish { begin: Some("2026-11-28T10:00".to_owned()), ..wish("hour") });
    let hours = hours.expect("an answer");
    assert_eq!((hours.spans[0].sums.total(), hours.spans[9].sums.total()), (33, 19), "{hours:?}");
    assert!(hours.spans[9].running && !hours.spans[0].running);
}

#[test]
fn a_link_shows_the_sims_that_it_has_carried_and_a_sim_its_links() {
    let calendar = berlin(1);
    let mut books = Books::new(&calendar);
    books.used(0, "2026-11-27T10:00:00Z", 100, 0);
    books.used(1, "2026-11-28T10:00:00Z", 1, 0);
    for (link, sim) in [("wwan0", 0), ("wwan0", 1), ("usb0", 1)] {
        books.ledger.note_carried(link, &SubscriberIdentifier::new(SIMS[sim])).expect("noted");
    }
    let total = |asked: &Wish| books.asked(&calendar, asked).expect("an answer").total.total();
    let link = |name: &str| Wish { link: Some(name.to_owned()), ..wish("day") };
    let sim = |name: &str| Wish { sim: Some(name.to_owned()), ..wish("day") };
    assert_eq!((total(&wish("day")), total(&link("wwan0")), total(&link("usb0"))), (101, 101, 1));
    assert_eq!((total(&sim(SIMS[0])), total(&sim(SIMS[1]))), (100, 1));
    let document = books.asked(&calendar, &sim(SIMS[1])).expect("an answer");
    assert_eq!(document.sims.len(), 1);
    assert_eq!(document.sims[0].links, ["usb0", "wwan0"]);
    let told = |asked: &Wish| books.asked(&calendar, asked).expect_err("refused").to_string();
    let error = told(&link("eth7"));
    assert!(error.contains("eth7") && error.contains("known are: usb0, wwan0"), "{error}");
    let error = told(&sim("imsi-9"));
    assert!(error.contains("imsi-9") && error.contains(SIMS[0]), "{error}");
    let error = told(&Wish { sim: Some(SIMS[0].to_owned()), ..link("usb0") });
    assert!(error.contains("usb0 has not carried imsi-001010000000001"), "{error}");
}

#[test]
fn the_package_is_told_with_its_sim() {
    let calendar = berlin(1);
    let mut books = Books::new(&calendar);
    let package = r#"{"packages":[{"subscriberIdentifier":"imsi-001010000000002","ratingGroup":10,"packageId":"p","totalVolume":1000,
        "usedVolume":1,"reservedVolume":0,"remainingVolume":999,"validUntil":"2026-12-15T00:00:00Z"}]}"#;
    books.ledger.set_setting(PLAN, package).expect("stored");
    let document = books.asked(&calendar, &wish("period")).expect("an answer");
    let told: Vec<_> =
        document.sims.iter().map(|sim| (sim.package_octets, sim.package_valid_until.as_deref())).collect();
    assert_eq!(told, [(None, None), (Some(1000), Some("2026-12-15T01:00:00+01:00"))]);
}

#[test]
fn spans_are_those_that_are_asked_for_and_what_was_never_metered_is_not_shown_as_nothing() {
    let calendar = berlin(1);
    let mut books = Books::new(&calendar);
    books.used(0, "2026-11-20T10:00:00Z", 7, 0);
    books.used(0, "2026-11-28T10:00:00Z", 9, 0);
    let asked = |by: &str, begin: Option<&str>, end: Option<&str>| {
        let own = |text: &str| text.to_owned();
        let asked = Wish { begin: begin.map(own), end: end.map(own), ..wish(by) };
        books.asked(&calendar, &asked).expect("an answer")
    };
    let days = asked("day", None, None);
    assert_eq!((days.spans.len(), days.spans[0].begin.as_str()), (9, "2026-11-20T00:00:00+01:00"), "since the first");
    assert_eq!(asked("hour", None, None).spans.len(), 24);
    assert_eq!(asked("5min", None, None).spans.len(), 24);
    assert_eq!(asked("month", None, None).spans.len(), 1);
    let some = asked("day", Some("2026-11-19"), Some("2026-11-20T23:59"));
    assert_eq!(all_of(&some), [("2026-11-19T00:00:00+01:00", 0), ("2026-11-20T00:00:00+01:00", 7)]);
    assert_eq!(asked("day", Some("2026-10"), Some("2027-01")).spans.len(), 31 + 28, "up to now");
    assert_eq!(asked("hour", Some("2026-11-28T10:59:59Z"), None).spans.len(), 9);
    let top = asked("top", None, None);
    assert_eq!(all_of(&top), [("2026-11-28T00:00:00+01:00", 9), ("2026-11-20T00:00:00+01:00", 7)]);
}

#[test]
fn of_the_days_with_the_most_there_are_ten() {
    let calendar = berlin(1);
    let mut books = Books::new(&calendar);
    for day in 1..=20_u64 {
        books.used(0, &format!("2026-11-{day:02}T10:00:00Z"), day * 10 % 77, 0);
    }
    let top = books.asked(&calendar, &wish("top")).expect("an answer");
    let octets: Vec<_> = top.spans.iter().map(|span| span.sums.total()).collect();
    assert_eq!(octets, [73, 70, 63, 60, 53, 50, 46, 43, 40, 36]);
}

#[test]
fn a_wrong_question_is_told_what_would_be_right() {
    let calendar = berlin(1);
    let books = Books::new(&calendar);
    let asked = |by: &str, begin: &str, end: &str| {
        let own = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let error = books.asked(&calendar, &Wish { by: own(by), begin: own(begin), end: own(end), ..Wish::default() });
        let error = error.expect_err("refused");
        assert!(error.is::<Refusal>(), "{error:#}");
        error.to_string()
    };
    for ((by, begin, end), words) in [
        (("week", "", ""), "by: \"week\" is not one of 5min, hour, day, month, period, top"),
        (("day", "yesterday", ""), "begin: \"yesterday\" is not a time: write 2026-11,"),
        (("day", "2026-02-30", ""), "begin: \"2026-02-30\" is not a time"),
        (("day", "", "2026-13"), "end: \"2026-13\" is not a time"),
        (("day", "2026-11-02", "2026-11-01"), "end: lies before begin"),
        (("day", "2026-12-24", ""), "begin: lies in the future; it is 2026-11-28T19:00:00+01:00"),
        (("5min", "2026-01-01", ""), "begin: more than 5000 spans until end"),
    ] {
        let error = asked(by, begin, end);
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_ledger_that_is_not_there_is_an_error_and_no_refusal() {
    let label = Label { wall: time(NOW), synced: true };
    let error = read(Path::new("/nowhere/ledger.db"), &Calendar::utc(), &wish("day"), (Source::File, label));
    let error = error.expect_err("nothing there");
    assert!(!error.is::<Refusal>() && error.to_string().contains("/nowhere/ledger.db"), "{error:#}");
}
