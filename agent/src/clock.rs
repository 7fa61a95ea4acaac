//! The only reader of clocks: boot time for every interval, wall time as a label.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};

use crate::drill;
use crate::units::{BootId, BootInstant};

/// What the server says of the time is good for this much: `Date` has whole seconds, and the answer took its time.
const DATE_SLACK: SignedDuration = SignedDuration::from_secs(2);

/// A wall-clock label for an instant, and whether the kernel held the clock for synchronised when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// Wall time, UTC.
    pub wall: Timestamp,
    /// False when the clock was not synchronised: the label may be off by years.
    pub synced: bool,
}

/// Boot time and wall time read together: turns instants of this boot into labels.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Boot time.
    pub boot: BootInstant,
    /// The label of that instant.
    pub label: Label,
}

impl Moment {
    /// Reads both clocks.
    pub fn now() -> Result<Self> {
        let wall = clock_gettime(ClockId::CLOCK_REALTIME).context("reading CLOCK_REALTIME")?;
        let wall = Timestamp::new(wall.tv_sec(), i32::try_from(wall.tv_nsec()).context("CLOCK_REALTIME nanoseconds")?)
            .context("CLOCK_REALTIME is out of range")?;
        Ok(Self { boot: boot_now()?, label: drill::wall(Label { wall, synced: is_synced() })? })
    }

    /// The label of an instant of this boot, before or after this moment.
    #[must_use]
    pub fn label(&self, instant: BootInstant) -> Label {
        let wall = if instant >= self.boot {
            self.label.wall.checked_add(instant.since(self.boot))
        } else {
            self.label.wall.checked_sub(self.boot.since(instant))
        };
        Label { wall: wall.unwrap_or(self.label.wall), synced: self.label.synced }
    }
}

/// The wall clock, and what the server's answers say of the time: all there is on a machine that has not heard from NTP.
///
/// The kernel's clock counts when the kernel holds it for synchronised. When it does not, and the clock is more than two seconds off, the
/// server's `Date` counts, carried on by boot time; such a label is still marked as not synchronised.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// The server's time at an instant of this boot.
    heard: Arc<Mutex<Heard>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Heard(Option<(BootInstant, Timestamp)>);

impl Clock {
    /// Boot time, and its label.
    pub fn now(&self) -> Result<Moment> {
        let kernel = Moment::now()?;
        Ok(Moment { label: self.heard().label(kernel), ..kernel })
    }

    /// An answer of the server, which the configuration lets us talk to, was dated so.
    pub fn hear(&self, date: Timestamp) -> Result<()> {
        let now = boot_now()?;
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).hear(now, date);
        Ok(())
    }

    /// What the server would say at that instant; `None` before its first answer.
    #[must_use]
    pub fn at_the_server(&self, now: BootInstant) -> Option<Timestamp> {
        self.heard().at(now)
    }

    fn heard(&self) -> Heard {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Heard {
    fn label(self, kernel: Moment) -> Label {
        match self.at(kernel.boot) {
            Some(wall) if !kernel.label.synced && differ(wall, kernel.label.wall) => Label { wall, synced: false },
            Some(_) | None => kernel.label,
        }
    }

    /// A small difference is that of whole seconds: then what was heard before goes on, and labels do not jump.
    fn hear(&mut self, now: BootInstant, date: Timestamp) {
        if self.at(now).is_none_or(|expected| differ(date, expected)) {
            self.0 = Some((now, date));
        }
    }

    fn at(self, now: BootInstant) -> Option<Timestamp> {
        let (then, date) = self.0?;
        date.checked_add(now.since(then)).ok()
    }
}

fn differ(one: Timestamp, other: Timestamp) -> bool {
    one.duration_since(other).abs() > DATE_SLACK
}

/// Boot time now.
pub fn boot_now() -> Result<BootInstant> {
    let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).context("reading CLOCK_BOOTTIME")?;
    Ok(BootInstant::from_nanos(u64::try_from(Duration::from(boot).as_nanos()).unwrap_or(u64::MAX)))
}

/// The kernel's id of this boot.
pub fn boot_id() -> Result<BootId> {
    let path = "/proc/sys/kernel/random/boot_id";
    let id = std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    Ok(drill::boot(BootId::new(id.trim())))
}

/// How long to wait from `now` until `deadline`; zero when it has passed.
#[must_use]
pub fn until(deadline: BootInstant, now: BootInstant) -> Duration {
    deadline.since(now)
}

/// Whether the kernel holds the wall clock for synchronised (adjtimex `STA_UNSYNC` clear).
fn is_synced() -> bool {
    // SAFETY: an all-zero `timex` is valid and, with `modes` = 0, adjtimex only fills it in.
    let status = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        if libc::adjtimex(&raw mut timex) == -1 {
            return false;
        }
        timex.status
    };
    status & libc::STA_UNSYNC == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> BootInstant {
        BootInstant::from_nanos(seconds * 1_000_000_000)
    }

    fn moment(boot: u64, wall: i64, synced: bool) -> Moment {
        Moment { boot: at(boot), label: Label { wall: Timestamp::from_second(wall).unwrap(), synced } }
    }

    #[test]
    fn without_a_clock_of_its_own_the_server_tells_the_time_and_boot_time_carries_it_on() {
        let mut heard = Heard::default();
        assert_eq!(heard.label(moment(10, 7, false)).wall.as_second(), 7, "nothing was heard");
        heard.hear(at(10), Timestamp::from_second(1_790_000_000).unwrap());
        let label = heard.label(moment(15, 12, false));
        assert_eq!((label.wall.as_second(), label.synced), (1_790_000_005, false));
        // Whatever the kernel's clock is set to meanwhile, until it is synchronised.
        assert_eq!(heard.label(moment(16, 999_999, false)).wall.as_second(), 1_790_000_006);
        assert_eq!(heard.label(moment(17, 1_790_000_100, true)), moment(17, 1_790_000_100, true).label);
    }

    #[test]
    fn a_clock_that_is_right_but_not_synchronised_is_not_made_worse_by_whole_seconds() {
        let mut heard = Heard::default();
        heard.hear(at(10), Timestamp::from_second(1_790_000_000).unwrap());
        assert_eq!(heard.label(moment(11, 1_790_000_002, false)).wall.as_second(), 1_790_000_002);
        // Of answers that differ by a second the first goes on; one that differs by more is another time.
        heard.hear(at(12), Timestamp::from_second(1_790_000_001).unwrap());
        assert_eq!(heard.label(moment(12, 0, false)).wall.as_second(), 1_790_000_002);
        heard.hear(at(13), Timestamp::from_second(1_790_000_900).unwrap());
        assert_eq!(heard.label(moment(13, 0, false)).wall.as_second(), 1_790_000_900);
    }

    /// What the kernel says of the time since boot; in hundredths of a second, rounded down.
    fn uptime() -> BootInstant {
        let text = std::fs::read_to_string("/proc/uptime").unwrap();
        let (seconds, hundredths) = text.split(' ').next().unwrap().split_once('.').unwrap();
        let hundredths: u64 = format!("{seconds}{hundredths}").parse().unwrap();
        BootInstant::from_nanos(hundredths * 10_000_000)
    }

    #[test]
    fn now_is_counted_from_boot_and_not_by_the_wall() {
        let before = uptime();
        let (now, moment) = (boot_now().unwrap(), Moment::now().unwrap().boot);
        let after = uptime().plus(Duration::from_millis(10));
        assert!(before <= now && now <= moment && moment <= after, "{before:?} {now:?} {moment:?} {after:?}");
    }

    #[test]
    fn a_label_is_told_by_the_wall_clock_of_its_moment() {
        let boot = BootInstant::from_nanos(100_000_000_000);
        let at =
            |wall: i64| Moment { boot, label: Label { wall: Timestamp::from_second(wall).unwrap(), synced: true } };
        let earlier = BootInstant::from_nanos(97_000_000_000);
        for wall in [0, 1_700_000_000] {
            let moment = at(wall);
            assert_eq!(moment.label(earlier).wall.as_second(), wall - 3);
            assert_eq!(moment.label(boot.plus(Duration::from_secs(5))).wall.as_second(), wall + 5);
        }
    }
}
