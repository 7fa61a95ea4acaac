//! What a debug build does about drills.

use std::io::ErrorKind;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::{SignedDuration, Timestamp};
use nix::sys::signal::{Signal, raise};

use super::Point;
use crate::clock::Label;
use crate::units::BootId;

const DIE_AT: &str = "WEIR_DRILL_DIE_AT";
const HALT_AT: &str = "WEIR_DRILL_HALT_AT";
const CLOCK: &str = "WEIR_DRILL_CLOCK";
const BOOT_ID: &str = "WEIR_DRILL_BOOT_ID";
const LAYOUT: &str = "WEIR_DRILL_LAYOUT";
const ATTACH: &str = "WEIR_DRILL_ATTACH";
const ATOMICS: &str = "WEIR_DRILL_ATOMICS";
const SLOW_SYNC: &str = "WEIR_DRILL_SLOW_SYNC";

const POINTS: [(&str, Point); 16] = [
    ("restored", Point::Restored),
    ("before-commit", Point::BeforeCommit),
    ("after-commit", Point::AfterCommit),
    ("before-send", Point::BeforeSend),
    ("replied", Point::Replied),
    ("answer-in", Point::AnswerIn),
    ("before-gate", Point::BeforeGate),
    ("after-gate", Point::AfterGate),
    ("settling", Point::Settling),
    ("attached", Point::Attached),
    ("maps-pinned", Point::MapsPinned),
    ("uplink-attached", Point::UplinkAttached),
    ("uplink-replaced", Point::UplinkReplaced),
    ("staged", Point::Staged),
    ("kept", Point::Kept),
    ("superseded", Point::Superseded),
];

static ORDERS: OnceLock<Vec<Order>> = OnceLock::new();

/// How long each sync of the ledger takes more.
static SLOWNESS: OnceLock<Duration> = OnceLock::new();

/// What is to happen to the process when it passes a point the nth time.
#[derive(Debug)]
struct Order {
    signal: Signal,
    point: Point,
    nth: u32,
    passed: AtomicU32,
}

/// Reads what the environment orders; an error when it names no point.
pub fn prepare() -> Result<()> {
    let mut orders = Vec::new();
    for (name, signal) in [(DIE_AT, Signal::SIGKILL), (HALT_AT, Signal::SIGSTOP)] {
        if let Some(text) = std::env::var_os(name) {
            orders.push(order(&text.to_string_lossy(), signal).with_context(|| format!("in {name}"))?);
        }
    }
    // A second call reads the same environment.
    let _ = ORDERS.set(orders);
    if let Some(text) = std::env::var_os(SLOW_SYNC) {
        let millis = text.to_string_lossy().parse().with_context(|| format!("in {SLOW_SYNC}"))?;
        let _ = SLOWNESS.set(Duration::from_millis(millis));
    }
    Ok(())
}

/// The process passes a point; it may not come back from it.
pub fn pass(point: Point) {
    let orders = ORDERS.get().into_iter().flatten();
    for order in orders.filter(|order| order.point == point) {
        if order.passed.fetch_add(1, Ordering::SeqCst) + 1 == order.nth {
            // A process can always signal itself.
            let _ = raise(order.signal);
        }
    }
}

/// The layout that the drill wants this agent to be of; its own without a drill, or when the drill names no number.
#[must_use]
pub fn layout(version: u32) -> u32 {
    let text = std::env::var(LAYOUT).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(version)
}

/// Whether the drill has the agent do without TCX.
#[must_use]
pub fn forbids_tcx() -> bool {
    std::env::var_os(ATTACH).is_some_and(|way| way == "clsact")
}

/// Whether the drill has the agent ask for what no kernel knows.
#[must_use]
pub fn knows_no_fetching_atomics() -> bool {
    std::env::var_os(ATOMICS).is_some_and(|which| which == "none")
}

/// The storage takes its time, and the process with it.
pub fn sync() {
    if let Some(slowness) = SLOWNESS.get() {
        std::thread::sleep(*slowness);
    }
}

/// The label as the drill wants the wall clock to be read; as it is without a drill.
pub fn wall(label: Label) -> Result<Label> {
    let Some(path) = std::env::var_os(CLOCK) else { return Ok(label) };
    let named = || format!("in {CLOCK}={}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(text) => shifted(label, &text).with_context(named),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(label),
        Err(error) => Err(error).with_context(named),
    }
}

/// The boot that the drill wants this to be; the one it is without a drill.
pub fn boot(id: BootId) -> BootId {
    std::env::var(BOOT_ID).map_or(id, BootId::new)
}

fn order(text: &str, signal: Signal) -> Result<Order> {
    let (name, nth) = text.split_once(':').unwrap_or((text, "1"));
    let Some((_, point)) = POINTS.into_iter().find(|(known, _)| *known == name) else {
        let known = POINTS.map(|(name, _)| name).join(", ");
        bail!("there is no point {name:?}; there are: {known}");
    };
    let nth = nth.parse().ok().filter(|nth| *nth > 0);
    let nth = nth.with_context(|| format!("{text:?}: behind the colon goes a number from 1"))?;
    Ok(Order { signal, point, nth, passed: AtomicU32::new(0) })
}

fn shifted(label: Label, text: &str) -> Result<Label> {
    let shift = || -> Option<(Timestamp, bool)> {
        let (seconds, word) = text.trim().split_once(' ')?;
        let wall = label.wall.checked_add(SignedDuration::from_secs(seconds.parse().ok()?)).ok()?;
        match word {
            "synced" => Some((wall, true)),
            "unsynced" => Some((wall, false)),
            _ => None,
        }
    };
    let (wall, synced) = shift().with_context(|| {
        format!("{text:?}: wanted are signed seconds to a year from -9999 to 9999, and synced or unsynced")
    })?;
    Ok(Label { wall, synced })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_and_its_number_are_understood() {
        for (text, point, nth) in [("before-gate", Point::BeforeGate, 1), ("settling:3", Point::Settling, 3)] {
            let order = order(text, Signal::SIGKILL).unwrap();
            assert_eq!((order.point, order.nth), (point, nth), "{text}");
        }
    }

    #[test]
    fn an_unknown_point_is_answered_with_those_that_there_are() {
        let error = order("between-gates", Signal::SIGKILL).unwrap_err().to_string();
        assert!(error.contains("between-gates") && error.contains("before-gate, after-gate"), "{error}");
        for text in ["before-gate:0", "before-gate:", "before-gate:-1", "before-gate:two"] {
            let error = order(text, Signal::SIGKILL).unwrap_err().to_string();
            assert!(error.contains("a number from 1"), "{error}");
        }
    }

    #[test]
    fn the_wall_is_shifted_as_the_file_says_and_its_word_decides() {
        let label = Label { wall: Timestamp::from_second(1000).unwrap(), synced: true };
        assert_eq!(
            shifted(label, "-3600 unsynced\n").unwrap(),
            Label { wall: Timestamp::from_second(-2600).unwrap(), synced: false }
        );
        assert_eq!(
            shifted(Label { synced: false, ..label }, "7 synced").unwrap(),
            Label { wall: Timestamp::from_second(1007).unwrap(), synced: true }
        );
        for text in ["", "7", "7 maybe", "synced", "9223372036854775807 synced"] {
            assert!(shifted(label, text).is_err(), "{text:?}");
        }
    }
}
