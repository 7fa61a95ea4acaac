//! Samples of usage, the names of spans, and the chart.

use super::{chart, render};
use crate::args::Units;
use crate::cli::tests::golden;
use crate::cli::words::Screen;
use crate::usage::{Running, SCHEMA, SimOfUsage, SimUsage, SpanUsage, Sums, UsageDocument};

const PLAIN: Screen = Screen { width: 100, colour: false, units: Units::Binary };

const fn sums(uplink_octets: u64, downlink_octets: u64) -> Sums {
    Sums { uplink_octets, downlink_octets, offline_octets: 0, unacknowledged_octets: 0, synced: true }
}

fn span(begin: &str, end: &str, sums: Sums) -> SpanUsage {
    let sim = SimUsage { subscriber: "imsi-001010000000001".to_owned(), sums, estimate_octets: None };
    SpanUsage {
        begin: format!("{begin}:00+01:00"),
        end: format!("{end}:00+01:00"),
        running: false,
        sums,
        estimate_octets: None,
        sims: vec![sim],
    }
}

fn running(mut span: SpanUsage, estimate: Option<u64>) -> SpanUsage {
    (span.running, span.estimate_octets) = (true, estimate);
    span.sims[0].estimate_octets = estimate;
    span
}

/// Some days of one SIM, of which the last is running.
pub(in crate::cli) fn days() -> UsageDocument {
    let day = |day: u32, sums| span(&format!("2026-11-{day}T00:00"), &format!("2026-11-{}T00:00", day + 1), sums);
    let throttled = Sums { offline_octets: 3 << 20, ..sums(40 << 20, 1 << 30) };
    let today = Sums { unacknowledged_octets: 123_456, ..sums(123_456, 700 << 20) };
    let spans = vec![
        day(25, sums(0, 0)),
        day(26, throttled),
        day(27, Sums { synced: false, ..sums(300 << 20, 1 << 20) }),
        running(day(28, today), Some(1 << 30)),
    ];
    let mut total = sums(0, 0);
    for span in &spans {
        total.add(span.sums);
    }
    let period = span("2026-11-15T00:00", "2026-12-15T00:00", sums(500 << 20, 2 << 30));
    UsageDocument {
        schema: SCHEMA,
        at: "2026-11-28T19:00:00+01:00".to_owned(),
        clock_synced: true,
        source: "agent".to_owned(),
        time_zone: "Europe/Berlin".to_owned(),
        time_zone_note: None,
        billing_day: 15,
        by: "day".to_owned(),
        sims: vec![SimOfUsage {
            subscriber: "imsi-001010000000001".to_owned(),
            links: vec!["wwan0".to_owned()],
            package_octets: Some(5 << 30),
            package_valid_until: Some("2026-12-15T00:00:00+01:00".to_owned()),
        }],
        running: Running {
            day: spans[3].clone(),
            month: running(span("2026-11-01T00:00", "2026-12-01T00:00", sums(1 << 30, 9 << 30)), None),
            period: running(period, Some(6 << 30)),
        },
        spans,
        total,
    }
}

/// Before anything was ever metered.
pub(in crate::cli) fn none() -> UsageDocument {
    let nothing = |span: SpanUsage| SpanUsage { sums: sums(0, 0), estimate_octets: None, sims: Vec::new(), ..span };
    let UsageDocument { running: Running { day, month, period }, .. } = days();
    UsageDocument {
        sims: Vec::new(),
        spans: vec![nothing(day.clone())],
        total: sums(0, 0),
        running: Running { day: nothing(day), month: nothing(month), period: nothing(period) },
        ..days()
    }
}

/// The same of two SIMs, one of which has been in two links, read without an agent on a box that does not know its time.
pub(in crate::cli) fn of_two() -> UsageDocument {
    let mut document = days();
    document.sims[0].links.push("usb0".to_owned());
    document.sims.push(SimOfUsage {
        subscriber: "imsi-001010000000002".to_owned(),
        links: Vec::new(),
        package_octets: None,
        package_valid_until: None,
    });
    document.source = "file".to_owned();
    document.clock_synced = false;
    document.time_zone = "UTC".to_owned();
    document.time_zone_note = Some("the system's time zone is not known: days are those of UTC".to_owned());
    document.billing_day = 1;
    document
}

#[test]
fn each_kind_of_span_has_its_name() {
    let named = |by: &str, begin: &str, end: &str| {
        let document = UsageDocument { by: by.to_owned(), spans: vec![span(begin, end, sums(1, 2))], ..days() };
        let page = render(&document, &PLAIN);
        page.lines().nth(3).expect("a row").split("  ").next().expect("a label").to_owned()
    };
    assert_eq!(named("5min", "2026-11-28T09:05", "2026-11-28T09:10"), "11-28 09:05");
    assert_eq!(named("hour", "2026-11-28T09:00", "2026-11-28T10:00"), "11-28 09:00");
    assert_eq!(named("day", "2026-11-28T00:00", "2026-11-29T00:00"), "Sat 2026-11-28");
    assert_eq!(named("top", "2026-11-28T00:00", "2026-11-29T00:00"), "Sat 2026-11-28");
    assert_eq!(named("month", "2026-11-01T00:00", "2026-12-01T00:00"), "2026-11");
    assert_eq!(named("period", "2026-11-15T00:00", "2026-12-15T00:00"), "2026-11-15 .. 12-14");
}

#[test]
fn the_chart_says_in_words_what_it_shows_and_believes_no_name() {
    golden("usage.svg", &chart(&days(), &PLAIN));
    let mut document = days();
    document.sims[0].links = vec!["<script>&".to_owned()];
    let drawn = chart(&document, &PLAIN);
    assert!(drawn.contains("&lt;script&gt;&amp;") && !drawn.contains("<script"), "{drawn}");
}

#[test]
fn a_chart_of_nothing_or_of_a_thousand_spans_is_a_chart() {
    for count in [0, 1, 1000] {
        let spans = std::iter::repeat_with(|| span("2026-11-28T00:00", "2026-11-29T00:00", sums(u64::MAX, u64::MAX)));
        let document = UsageDocument { spans: spans.take(count).collect(), ..days() };
        let drawn = chart(&document, &PLAIN);
        assert_eq!(drawn.matches("class=\"down\"").count(), count + 1, "{count}");
    }
}
