//! The only reader of clocks: boot time for every interval, wall time as a label.

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

use crate::drill;
use crate::units::{BootId, BootInstant};

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
