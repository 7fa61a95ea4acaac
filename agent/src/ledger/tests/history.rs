//! The history: in which span a container comes to lie, what is kept, and how it is read beside the agent.

use jiff::tz::TimeZone;

use super::opening::fresh;
use super::records::active;
use super::{SESSION, acknowledged, at, boot, bytes, closed, commit, container, label, opened, sealed, wall};
use crate::clock::Moment;
use crate::ledger::{Granularity, Ledger, Oldest, Reader, Scope, UsageBucket};
use crate::quota::{Container, Record};
use crate::units::{BootInstant, SubscriberIdentifier, UsedUnit};

/// Closes, seals and has acknowledged one container of so many octets, so many seconds after the first moment.
fn used(ledger: &mut Ledger, number: u32, octets: u64, at_wall: i64) {
    let moment = Moment { boot: at(21), label: label(at_wall) };
    let reported = (1..=u64::from(number)).map(|_| octets).sum();
    let batch = [closed(number, octets, 0), sealed(number, &[number], reported), acknowledged(number)];
    ledger.commit(&batch, &moment, &mut bytes).expect("commits");
}

fn starts(ledger: &Ledger, granularity: Granularity) -> Vec<String> {
    let buckets = ledger.usage_history(granularity, Scope::Acknowledged).expect("a history");
    buckets.into_iter().map(|bucket| bucket.start.to_string()).collect()
}

#[test]
fn history_is_rolled_up_by_the_time_of_closing() {
    let mut ledger = active();
    // 2026-10-25T12:00Z, then 13:00Z less a nanosecond, 13:00Z, the next day, and 1 November.
    let closings = [
        (1, 0),
        (2, 3600 * 1_000_000_000 - 1),
        (4, at(3600).as_nanos()),
        (8, at(86_400).as_nanos()),
        (16, at(604_800).as_nanos()),
    ];
    let mut batch: Vec<_> = (1..)
        .zip(closings)
        .map(|(number, (octets, nanos))| {
            let closed_at = BootInstant::from_nanos(nanos);
            Record::ContainerClosed {
                session: SESSION,
                container: Container { closed_at, ..container(number, octets, 0) },
            }
        })
        .collect();
    batch.push(sealed(1, &[1, 2, 3], 7));
    batch.push(acknowledged(1));
    commit(&mut ledger, &batch).expect("commits");
    let history = |granularity, scope| {
        let buckets = ledger.usage_history(granularity, scope).expect("a history");
        let told = |bucket: UsageBucket| (bucket.start.to_string(), bucket.usage.total().get());
        buckets.into_iter().map(told).collect::<Vec<_>>()
    };
    let spans =
        |spans: &[(&str, u64)]| spans.iter().map(|(start, octets)| ((*start).to_owned(), *octets)).collect::<Vec<_>>();
    assert_eq!(
        history(Granularity::Hour, Scope::Acknowledged),
        spans(&[("2026-10-25T12:00:00Z", 3), ("2026-10-25T13:00:00Z", 4)])
    );
    assert_eq!(history(Granularity::Day, Scope::Acknowledged), spans(&[("2026-10-25T00:00:00Z", 7)]));
    assert_eq!(
        history(Granularity::Day, Scope::Recorded),
        spans(&[("2026-10-25T00:00:00Z", 7), ("2026-10-26T00:00:00Z", 8), ("2026-11-01T00:00:00Z", 16)])
    );
    assert_eq!(
        history(Granularity::Month, Scope::Recorded),
        spans(&[("2026-10-01T00:00:00Z", 15), ("2026-11-01T00:00:00Z", 16)])
    );
}

/// Midnight is not that of UTC: 22:30Z is half past midnight in Berlin's summer, and the day after in Kolkata.
#[test]
fn days_are_those_of_the_time_zone_and_what_was_added_before_stays() {
    let mut ledger = active();
    let late = 10 * 3600 + 1800;
    used(&mut ledger, 1, 1, late);
    assert_eq!(starts(&ledger, Granularity::Day), ["2026-10-25T00:00:00Z"]);
    ledger.keep_days_in(TimeZone::get("Asia/Kolkata").expect("a zone"));
    used(&mut ledger, 2, 1, late);
    assert_eq!(starts(&ledger, Granularity::Day), ["2026-10-25T00:00:00Z", "2026-10-26T00:00:00Z"]);
    // Its hours begin at the half of those of UTC, its five minutes with them.
    assert_eq!(starts(&ledger, Granularity::Hour), ["2026-10-25T22:00:00Z", "2026-10-25T22:30:00Z"]);
    assert_eq!(starts(&ledger, Granularity::FiveMinutes), ["2026-10-25T22:30:00Z"]);
    assert_eq!(starts(&ledger, Granularity::Month), ["2026-10-01T00:00:00Z"]);
}

/// The day on which Berlin's clocks go back has 25 hours, of which two are called two.
#[test]
fn an_hour_that_comes_twice_is_two_hours_of_one_day() {
    let mut ledger = active();
    ledger.keep_days_in(TimeZone::get("Europe/Berlin").expect("a zone"));
    // 2026-10-25T00:30Z is 02:30 in summer time, 01:30Z is 02:30 in winter time, 22:59Z the last minute but one.
    for (number, at_wall) in [(1, -11 * 3600 - 1800), (2, -10 * 3600 - 1800), (3, 10 * 3600 + 59 * 60)] {
        used(&mut ledger, number, 5, at_wall);
    }
    assert_eq!(starts(&ledger, Granularity::Day), ["2026-10-25T00:00:00Z"]);
    assert_eq!(
        starts(&ledger, Granularity::Hour),
        ["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T22:00:00Z"]
    );
}

#[test]
fn of_short_spans_the_newest_are_kept_and_months_for_good() {
    let mut ledger = active();
    let count = 576 + 24;
    for number in 1..=count {
        used(&mut ledger, number, 1, i64::from(number) * 300);
    }
    let five = starts(&ledger, Granularity::FiveMinutes);
    assert_eq!(five.len(), 576);
    assert_eq!(five.first(), Some(&wall(25 * 300).to_string()));
    let sum = |granularity| -> u64 {
        let buckets = ledger.usage_history(granularity, Scope::Acknowledged).expect("a history");
        buckets.iter().map(|bucket| bucket.usage.total().get()).sum()
    };
    for granularity in [Granularity::Hour, Granularity::Day, Granularity::Month] {
        assert_eq!(sum(granularity), u64::from(count), "{granularity:?}");
    }
}

/// A clock that was a year ahead for a moment costs one span of those that are kept.
#[test]
fn a_clock_that_runs_ahead_does_not_cost_the_history() {
    let mut ledger = active();
    for number in 1..=10 {
        used(&mut ledger, number, 1, i64::from(number) * 300);
    }
    used(&mut ledger, 11, 1, 365 * 86_400);
    used(&mut ledger, 12, 1, 11 * 300);
    assert_eq!(starts(&ledger, Granularity::FiveMinutes).len(), 12);
}

#[test]
fn a_history_of_the_versions_before_is_kept_with_its_sums() {
    let (_directory, path) = fresh();
    let database = rusqlite::Connection::open(&path).expect("opens");
    database.execute_batch(include_str!("../schema-1.sql")).expect("a schema");
    database.execute_batch(include_str!("../schema-2.sql")).expect("a schema");
    database.pragma_update(None, "application_id", 0x7765_6972).expect("a mark");
    database.pragma_update(None, "user_version", 2).expect("a version");
    let rows = "INSERT INTO history VALUES ('hour', 'imsi-1', 1792929600000000, 1, 2, 3, 4, 1), \
        ('day', 'imsi-1', 1792886400000000, 1, 2, 3, 4, 1), ('month', 'imsi-1', 1790812800000000, 1, 2, 3, 4, 0)";
    database.execute(rows, []).expect("a history");
    drop(database);
    let ledger = Ledger::open(&path, boot()).expect("opens");
    for granularity in [Granularity::Hour, Granularity::Day, Granularity::Month] {
        let [bucket] = &ledger.usage_history(granularity, Scope::Recorded).expect("a history")[..] else {
            panic!("one {granularity:?}")
        };
        assert_eq!((bucket.usage.online, bucket.usage.offline), (UsedUnit::new(1, 2), UsedUnit::new(3, 4)));
        assert_eq!(bucket.synced, granularity != Granularity::Month);
    }
}

#[test]
fn a_link_tells_every_sim_that_it_has_carried() {
    let (_directory, path) = fresh();
    let mut ledger = Ledger::open(&path, boot()).expect("opens");
    let [one, two] = ["imsi-001010000000001", "imsi-001010000000002"].map(SubscriberIdentifier::new);
    for (link, sim) in [("wwan0", &one), ("wwan0", &one), ("wwan0", &two), ("eth0", &two)] {
        ledger.note_carried(link, sim).expect("noted");
    }
    let carried = Reader::open(&path).expect("opens").carried().expect("reads");
    let carried: Vec<_> = carried.iter().map(|(link, sim)| (link.as_str(), sim)).collect();
    assert_eq!(carried, [("eth0", &two), ("wwan0", &one), ("wwan0", &two)]);
}

/// A reader sees the ledger as it was when it began, while the agent goes on writing; and it never keeps the agent waiting.
#[test]
fn a_reader_sees_one_moment_and_keeps_nobody_waiting() {
    let (_directory, path) = fresh();
    let mut ledger = Ledger::open(&path, boot()).expect("opens");
    commit(&mut ledger, &[opened(SESSION), sealed(0, &[], 0), acknowledged(0), closed(1, 300, 700)]).expect("commits");
    let reader = Reader::open(&path).expect("opens");
    let waiting = |reader: &Reader| {
        let mut sum = 0;
        reader.each_waiting(|bucket| sum += bucket.usage.total().get()).expect("reads");
        sum
    };
    let settled = |reader: &Reader| {
        let mut sum = 0;
        reader.each_acknowledged(Granularity::Day, |bucket| sum += bucket.usage.total().get()).expect("reads");
        sum
    };
    assert_eq!((waiting(&reader), settled(&reader)), (1000, 0));
    commit(&mut ledger, &[sealed(1, &[1], 1000), acknowledged(1), closed(2, 1, 1)]).expect("commits");
    assert_eq!((waiting(&reader), settled(&reader)), (1000, 0), "the moment that it began with");
    let later = Reader::open(&path).expect("opens");
    assert_eq!((waiting(&later), settled(&later)), (2, 1000));
    let oldest = later.oldest().expect("reads");
    let hour = Some("2026-10-25T12:00:00Z".parse().expect("a time"));
    let day = Some("2026-10-25T00:00:00Z".parse().expect("a time"));
    assert_eq!(oldest, Oldest { hour, day, waiting: Some(wall(10)) });
}

#[test]
fn what_was_counted_after_the_last_container_is_told_by_the_checkpoint() {
    let (_directory, path) = fresh();
    let mut ledger = Ledger::open(&path, boot()).expect("opens");
    // The meter stood at 1000 and 2000 when the session was opened, and at 10 and 20 throttled.
    let checkpoint = |passed, throttled| Record::Checkpoint { session: SESSION, passed, throttled, at: at(25) };
    let first = checkpoint(UsedUnit::new(1400, 2900), UsedUnit::new(10, 25));
    commit(&mut ledger, &[opened(SESSION), closed(1, 300, 700), first]).expect("commits");
    let open = Reader::open(&path).expect("opens").open_intervals().expect("reads");
    assert_eq!(open.len(), 1);
    assert_eq!((open[0].1.online, open[0].1.offline), (UsedUnit::new(100, 200), UsedUnit::new(0, 5)));
    commit(&mut ledger, &[closed(2, 100, 200)]).expect("commits");
    let open = Reader::open(&path).expect("opens").open_intervals().expect("reads");
    assert_eq!(open[0].1.online, UsedUnit::ZERO);
}

/// Whoever looks at the ledger of an agent that has ended leaves no file of his own beside it.
#[test]
fn a_ledger_at_rest_is_read_without_a_trace() {
    let (directory, path) = fresh();
    let mut ledger = Ledger::open(&path, boot()).expect("opens");
    commit(&mut ledger, &[opened(SESSION), closed(1, 1, 2)]).expect("commits");
    drop(ledger);
    let files = || {
        let names = std::fs::read_dir(directory.path()).expect("lists").map(|file| file.expect("a file").file_name());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let before = files();
    let reader = Reader::open_at_rest(&path).expect("opens");
    let mut sum = 0;
    reader.each_waiting(|bucket| sum += bucket.usage.total().get()).expect("reads");
    assert_eq!(sum, 3);
    assert_eq!(files(), before);
}

/// As after a crash: the last commits are in the log alone.
#[test]
fn a_ledger_that_was_left_in_the_middle_is_read_with_its_log() {
    let (directory, path) = fresh();
    let mut ledger = Ledger::open(&path, boot()).expect("opens");
    commit(&mut ledger, &[opened(SESSION), closed(1, 1, 2)]).expect("commits");
    let copy = directory.path().join("a copy?.db");
    for suffix in ["", "-wal"] {
        let from = format!("{}{suffix}", path.display());
        std::fs::copy(from, format!("{}{suffix}", copy.display())).expect("copied");
    }
    let reader = Reader::open_at_rest(&copy).expect("opens");
    let mut sum = 0;
    reader.each_waiting(|bucket| sum += bucket.usage.total().get()).expect("reads");
    assert_eq!(sum, 3);
}

#[test]
fn what_cannot_be_read_is_named_with_what_to_do() {
    let (directory, path) = fresh();
    let told = |opened: anyhow::Result<Reader>| format!("{:#}", opened.expect_err("refused"));
    let error = told(Reader::open_at_rest(&path));
    assert!(error.contains("ledger.db cannot be read") && error.contains("No such file"), "{error}");
    let older = directory.path().join("older.db");
    let database = rusqlite::Connection::open(&older).expect("opens");
    database.execute_batch(include_str!("../schema-1.sql")).expect("a schema");
    database.pragma_update(None, "application_id", 0x7765_6972).expect("a mark");
    database.pragma_update(None, "user_version", 1).expect("a version");
    drop(database);
    let error = told(Reader::open_at_rest(&older));
    assert!(error.contains("schema version 1") && error.contains("weir run"), "{error}");
    std::fs::write(&path, "not a database, but long enough to look like one, perhaps").expect("written");
    let error = told(Reader::open_at_rest(&path));
    assert!(error.contains("not a weir ledger"), "{error}");
}
