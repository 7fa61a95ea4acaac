//! The proof at the end: five counts of the same octets, by five hands, that must be equal.

use std::fmt::Write as _;
use std::ops::AddAssign;

use agent_common::{Counters, DirectionCounters};
use anyhow::{Result, ensure};
use serde::Serialize;

use crate::Direction::{Downlink, Uplink};
use crate::capture::Totals;
use crate::words::exactly;

/// Octets by direction. (The package knows the sum only.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Octets {
    pub(crate) uplink: u64,
    pub(crate) downlink: u64,
}

impl Octets {
    pub(crate) const fn total(self) -> u64 {
        self.uplink + self.downlink
    }
}

impl AddAssign for Octets {
    fn add_assign(&mut self, other: Self) {
        self.uplink += other.uplink;
        self.downlink += other.downlink;
    }
}

/// What the two parties have booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Booked {
    /// The containers that the agent has closed, each counted once.
    pub(crate) sealed: Octets,
    /// The debits in the server's ledger.
    pub(crate) debited: Octets,
    /// Bought and topped up, less what is left.
    pub(crate) package: i128,
}

/// What each of the five says, and what lies between the wire and the bill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub(crate) struct Reconciliation {
    /// All IP octets that crossed the link, by the capture at the far end.
    wire: Octets,
    /// Of these, to or from the charging server, by the capture.
    wire_control: Octets,
    /// Of these, passed a shut gate by the allow-list, by the kernel: never billed.
    control: Octets,
    /// Of these, met a shut gate in the gateway after they had crossed, by the kernel: not used, but on the air. Downlink only.
    refused_downlink: u64,
    /// Octets the gate refused before they were sent, by the kernel: never on the wire, told for completeness.
    refused_uplink: u64,
    /// Passed outside the package, throttled after it was used up, by the kernel: on the air, told, and never debited.
    throttled: Octets,
    passed: Octets,
    sealed: Octets,
    debited: Octets,
    /// Bought and topped up, less what is left.
    package: i128,
}

impl AddAssign for Reconciliation {
    /// The figures of several links together.
    fn add_assign(&mut self, other: Self) {
        self.wire += other.wire;
        self.wire_control += other.wire_control;
        self.control += other.control;
        self.refused_downlink += other.refused_downlink;
        self.refused_uplink += other.refused_uplink;
        self.throttled += other.throttled;
        self.passed += other.passed;
        self.sealed += other.sealed;
        self.debited += other.debited;
        self.package += other.package;
    }
}

/// One line of the five.
struct Figure {
    number: usize,
    who: &'static str,
    by_direction: Option<[i128; 2]>,
    total: i128,
}

impl Reconciliation {
    /// Puts the five side by side.
    pub(crate) fn new(capture: &Totals, kernel: &Counters, booked: &Booked) -> Self {
        let kernel_says = |figure: fn(&DirectionCounters) -> u64| Octets {
            uplink: figure(&kernel.uplink),
            downlink: figure(&kernel.downlink),
        };
        let refused = kernel_says(|counters| counters.refused.octets + counters.policed.octets);
        Self {
            wire: Octets { uplink: capture.ip(Uplink).octets, downlink: capture.ip(Downlink).octets },
            wire_control: Octets { uplink: capture.control(Uplink).octets, downlink: capture.control(Downlink).octets },
            control: kernel_says(|counters| counters.control.octets),
            refused_downlink: refused.downlink,
            refused_uplink: refused.uplink,
            passed: kernel_says(|counters| counters.passed.octets),
            throttled: kernel_says(|counters| counters.throttled.octets),
            sealed: booked.sealed,
            debited: booked.debited,
            package: booked.package,
        }
    }

    /// What the capture says was used: all that crossed, less what the gate did not let pass as usage. May be nonsense (negative)
    /// where a count is wrong, and then shows so.
    fn captured(&self) -> [i128; 2] {
        let signed = |octets: Octets| [i128::from(octets.uplink), i128::from(octets.downlink)];
        let ([up, down], control, throttled) = (signed(self.wire), signed(self.control), signed(self.throttled));
        [up - control[0] - throttled[0], down - control[1] - throttled[1] - i128::from(self.refused_downlink)]
    }

    fn figures(&self) -> [Figure; 5] {
        let [up, down] = self.captured();
        let both = |number, who, octets: Octets| Figure {
            number,
            who,
            by_direction: Some([octets.uplink.into(), octets.downlink.into()]),
            total: octets.total().into(),
        };
        [
            Figure { number: 1, who: "capture at the far end", by_direction: Some([up, down]), total: up + down },
            both(2, "kernel: passed", self.passed),
            both(3, "sealed containers", self.sealed),
            both(4, "server's debit", self.debited),
            Figure { number: 5, who: "package: bought - left", by_direction: None, total: self.package },
        ]
    }

    /// What the bill says.
    pub(crate) const fn billed(&self) -> u64 {
        self.debited.total()
    }

    /// The table, one line a figure, then whether they are equal.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{:36}{:>13}{:>13}{:>13}\n", "octets", "uplink", "downlink", "total");
        let mut line = |what: &str, up: &str, down: &str, total: &str| {
            let _ = writeln!(text, "{what:36}{up:>13}{down:>13}{total:>13}");
        };
        let wire = self.wire;
        line(
            "on the link (capture at the far end)",
            &exactly(wire.uplink),
            &exactly(wire.downlink),
            &exactly(wire.total()),
        );
        let control = self.control;
        line(
            "- control through the shut gate",
            &exactly(control.uplink),
            &exactly(control.downlink),
            &exactly(control.total()),
        );
        line("- arrived at the shut gate", "", &exactly(self.refused_downlink), &exactly(self.refused_downlink));
        let throttled = self.throttled;
        if throttled.total() > 0 {
            line(
                "- passed throttled, not billed",
                &exactly(throttled.uplink),
                &exactly(throttled.downlink),
                &exactly(throttled.total()),
            );
        }
        for figure in self.figures() {
            let [up, down] = figure.by_direction.map_or_else(Default::default, |octets| octets.map(signed));
            line(&format!("{} {}", figure.number, figure.who), &up, &down, &signed(figure.total));
        }
        let _ = write!(text, "refused before it was sent, never on the wire: {}", exactly(self.refused_uplink));
        text
    }

    /// Fails, and says which two figures part and by how much, unless all five are equal and nothing else is wrong with them.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(self.passed.total() > 0, "nothing passed: five times zero would prove nothing");
        let mut parted = Vec::new();
        for pair in self.figures().windows(2) {
            if let [one, other] = pair {
                parted.extend(parting(one, other));
            }
        }
        for (way, wire, kernel) in [
            ("uplink", self.wire_control.uplink, self.control.uplink),
            ("downlink", self.wire_control.downlink, self.control.downlink),
        ] {
            // What passes as control goes to or comes from the server; what does so while the gate is open is usage like any other.
            if kernel > wire {
                parted.push(format!(
                    "the kernel passed {kernel} octets {way} as control, but only {wire} were of the server"
                ));
            }
        }
        ensure!(parted.is_empty(), "the figures part:\n  {}", parted.join("\n  "));
        Ok(())
    }
}

/// Where two neighbouring figures differ, if they do.
fn parting(one: &Figure, other: &Figure) -> Option<String> {
    let difference = other.total - one.total;
    let by_direction =
        one.by_direction.zip(other.by_direction).map(|(one, other)| [other[0] - one[0], other[1] - one[1]]);
    if difference == 0 && by_direction.is_none_or(|octets| octets == [0, 0]) {
        return None;
    }
    let ways = by_direction.map_or_else(String::new, |[up, down]| format!(" (uplink {up:+}, downlink {down:+})"));
    Some(format!("between {} {} and {} {}: {difference:+} octets{ways}", one.number, one.who, other.number, other.who))
}

fn signed(octets: i128) -> String {
    let sign = if octets < 0 { "-" } else { "" };
    format!("{sign}{}", exactly(u64::try_from(octets.unsigned_abs()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equal() -> Reconciliation {
        let used = Octets { uplink: 1000, downlink: 5000 };
        Reconciliation {
            wire: Octets { uplink: 1100, downlink: 5250 },
            wire_control: Octets { uplink: 130, downlink: 260 },
            control: Octets { uplink: 100, downlink: 200 },
            refused_downlink: 50,
            refused_uplink: 7,
            throttled: Octets { uplink: 0, downlink: 0 },
            passed: used,
            sealed: used,
            debited: used,
            package: 6000,
        }
    }

    fn complaint(change: impl FnOnce(&mut Reconciliation)) -> String {
        let mut figures = equal();
        change(&mut figures);
        format!("{:#}", figures.check().unwrap_err())
    }

    #[test]
    fn five_equal_figures_are_accepted_and_shown() {
        equal().check().unwrap();
        let table = equal().table();
        assert_eq!(table.matches("6,000").count(), 5, "{table}");
    }

    #[test]
    fn the_pair_that_parts_is_named_with_its_difference() {
        let text = complaint(|figures| figures.passed.uplink -= 40);
        assert!(
            text.contains(
                "between 1 capture at the far end and 2 kernel: passed: -40 octets (uplink -40, downlink +0)"
            ),
            "{text}"
        );
        assert!(text.contains("between 2 kernel: passed and 3 sealed containers: +40 octets"), "{text}");
        assert!(!text.contains("4 server's debit"), "{text}");
        let text = complaint(|figures| figures.package += 1);
        assert!(text.contains("between 4 server's debit and 5 package: bought - left: +1 octets"), "{text}");
    }

    #[test]
    fn octets_booked_under_the_wrong_direction_are_seen() {
        let text = complaint(|figures| figures.debited = Octets { uplink: 5000, downlink: 1000 });
        assert!(
            text.contains("3 sealed containers and 4 server's debit: +0 octets (uplink +4000, downlink -4000)"),
            "{text}"
        );
    }

    #[test]
    fn control_that_was_not_the_servers_is_seen() {
        let text = complaint(|figures| {
            figures.control.uplink += 31;
            figures.wire.uplink += 31;
        });
        assert!(text.contains("131 octets uplink as control, but only 130"), "{text}");
    }

    #[test]
    fn what_passed_throttled_was_on_the_air_and_is_not_billed() {
        let mut figures = equal();
        figures.wire.uplink += 70;
        figures.wire.downlink += 30;
        figures.throttled = Octets { uplink: 70, downlink: 30 };
        figures.check().unwrap();
        assert!(figures.table().contains("throttled, not billed"), "{}", figures.table());
        figures.throttled.uplink -= 1;
        figures.check().unwrap_err();
    }

    #[test]
    fn the_sum_of_two_links_parts_where_one_of_them_does() {
        let (mut sum, mut wrong) = (equal(), equal());
        wrong.sealed.downlink -= 3;
        sum += wrong;
        assert!(sum.table().contains("12,000"), "{}", sum.table());
        let text = format!("{:#}", sum.check().unwrap_err());
        assert!(text.contains("-3 octets (uplink +0, downlink -3)"), "{text}");
    }

    #[test]
    fn five_zeros_prove_nothing() {
        let text = complaint(|figures| *figures = Reconciliation::default());
        assert!(text.contains("nothing passed"), "{text}");
    }
}
