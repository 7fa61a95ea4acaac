//! The interface's own counters against the meter's, over a second: what has passed the one and not the other.

use std::time::Duration;

use agent_common::{Counters, DirectionCounters};
use anyhow::Result;

use super::finding::{Check, Finding};
use super::links::Metered;
use super::{AS_ROOT, is_forbidden};
use crate::cli::words::octets;
use crate::config::Config;
use crate::datapath::Datapath;
use crate::link::Glance;

/// How long is looked.
const SPAN: Duration = Duration::from_secs(1);
/// A difference of fewer octets says nothing: drivers put their counters up to date in steps.
const NOISE: u64 = 64 << 10;
/// Octets of link-layer header and trailer of a frame at the most: Ethernet, two VLAN tags, and the checksum that some drivers count.
const FRAMING: u64 = 14 + 2 * 4 + 4;

/// Both counts of one direction over the same span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Both {
    /// Octets, by the interface: frames.
    interface: u64,
    /// Octets, by the meter: IP packets as they are on the air, and what is not IP.
    meter: u64,
    /// The packets they are in, by the meter.
    packets: u64,
}

/// What was seen over the span, each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Span {
    sent: Both,
    received: Both,
}

/// Looks at all links during the same second.
pub(super) async fn findings(config: &Config, links: &[Metered]) -> Vec<Finding> {
    let looking = links.iter().map(|link| async move {
        let seen = match Datapath::open(&config.pin_root, &link.name) {
            // Told by link.meter.
            Err(error) if !is_forbidden(&error) => return None,
            Err(error) => Err(error),
            Ok(datapath) => span(&datapath, &link.name).await,
        };
        Some(judge(&seen).of(&link.name))
    });
    futures::future::join_all(looking).await.into_iter().flatten().collect()
}

/// The meter is read first and last: whatever the interface counted in between, a meter that misses nothing has counted as well.
async fn span(datapath: &Datapath, link: &str) -> Result<Span> {
    let (first, before) = (datapath.read()?, Glance::at(link).await?);
    tokio::time::sleep(SPAN).await;
    let (after, last) = (Glance::at(link).await?, datapath.read()?);
    let sent = |counters: &Counters| tally(&counters.uplink, Dropped::NeverSent);
    let received = |counters: &Counters| tally(&counters.downlink, Dropped::OnceReceived);
    Ok(Span {
        sent: both(after.sent_octets.saturating_sub(before.sent_octets), sent(&first), sent(&last)),
        received: both(after.received_octets.saturating_sub(before.received_octets), received(&first), received(&last)),
    })
}

/// What became of packets that were dropped at a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dropped {
    /// The interface has not seen them.
    NeverSent,
    /// The interface has counted them.
    OnceReceived,
}

/// Octets and packets that the interface counts as well.
fn tally(way: &DirectionCounters, dropped: Dropped) -> (u64, u64) {
    let DirectionCounters { passed, refused, control, throttled, policed, non_ip } = way;
    let kept = [passed, control, throttled, non_ip];
    let dropped: &[_] = match dropped {
        Dropped::NeverSent => &[],
        Dropped::OnceReceived => &[refused, policed],
    };
    let all = || kept.iter().chain(dropped);
    (all().map(|tally| tally.octets).sum(), all().map(|tally| tally.packets).sum())
}

const fn both(interface: u64, first: (u64, u64), last: (u64, u64)) -> Both {
    Both { interface, meter: last.0.saturating_sub(first.0), packets: last.1.saturating_sub(first.1) }
}

impl Both {
    /// Octets that the interface has carried and the meter has not seen, beyond doubt.
    const fn unseen(self) -> u64 {
        let explained = self.meter + self.packets * FRAMING;
        let unseen = self.interface.saturating_sub(explained);
        if unseen > NOISE && unseen > explained / 4 { unseen } else { 0 }
    }

    /// Octets that the meter has counted and the interface has not sent. Where the interface cuts super-packets itself it counts
    /// their headers once, which is some percent.
    const fn unsent(self) -> u64 {
        let unsent = self.meter.saturating_sub(self.interface);
        if unsent > NOISE && unsent > self.interface / 4 { unsent } else { 0 }
    }
}

fn judge(seen: &Result<Span>) -> Finding {
    let check = Check::LinkCounters;
    let again = "run it again while the link is in use";
    let Span { sent, received } = match seen {
        Ok(seen) => *seen,
        Err(error) if is_forbidden(error) => {
            return Finding::not_checked(check, "the meter's counters may not be read by this user", AS_ROOT);
        }
        Err(error) => return Finding::not_checked(check, format!("{error:#}"), again),
    };
    let unseen = sent.unseen() + received.unseen();
    if unseen > 0 {
        let what = format!(
            "within a second it has carried {} (up {}, down {}) that the meter has not seen",
            octets(unseen),
            octets(sent.unseen()),
            octets(received.unseen())
        );
        let fix = "look for hardware or programs that pass packets by: link.offload, kernel.modules, link.xdp, link.ahead; \
                   also raw sockets (AF_XDP, PACKET_QDISC_BYPASS)";
        return Finding::problem(check, what, fix);
    }
    if sent.unsent() > 0 {
        let what = format!(
            "within a second {} were counted and then dropped by a queue behind the meter",
            octets(sent.unsent())
        );
        return Finding::warning(
            check,
            what,
            "give the link's queueing discipline more room, or shape before the meter",
        );
    }
    if sent.interface + received.interface <= NOISE {
        return Finding::not_checked(check, "was nearly idle for a second: nothing to compare", again);
    }
    let what = format!("interface and meter agree on {} of the last second", octets(sent.meter + received.meter));
    Finding::ok(check, what)
}

#[cfg(test)]
mod tests {
    use agent_common::Tally;

    use super::*;
    use crate::doctor::finding::Verdict;

    const MTU: u64 = 1500;

    /// So many full packets seen by both, and so many octets more at the interface.
    fn of(packets: u64, frame: u64, more: u64) -> Both {
        Both { interface: packets * (MTU + frame) + more, meter: packets * MTU, packets }
    }

    fn judged(sent: Both, received: Both) -> Verdict {
        judge(&Ok(Span { sent, received })).verdict
    }

    #[test]
    fn headers_of_the_link_are_no_difference() {
        for frame in [0, 14, 18, 22, 26] {
            assert_eq!(judged(of(10_000, frame, 0), of(10_000, frame, 0)), Verdict::Ok, "{frame}");
        }
        // The smallest datagrams, padded on Ethernet to twice their length.
        let padded = Both { interface: 10_000 * 64, meter: 10_000 * 28, packets: 10_000 };
        assert_eq!(judged(padded, padded), Verdict::Ok);
    }

    #[test]
    fn what_the_meter_has_not_seen_is_a_problem_whichever_way_it_went() {
        assert_eq!(judged(of(100, 14, 1 << 20), of(100, 14, 0)), Verdict::Problem);
        assert_eq!(judged(of(100, 14, 0), of(0, 14, 1 << 20)), Verdict::Problem);
        // A step of the driver, and a tenth on top of a fast link.
        assert_eq!(judged(of(100, 14, 60_000), of(100, 14, 0)), Verdict::Ok);
        assert_eq!(judged(of(10_000, 14, 1 << 20), of(100, 14, 0)), Verdict::Ok);
    }

    #[test]
    fn what_was_counted_and_not_sent_is_told_and_super_packets_are_not_taken_for_it() {
        let dropped = Both { interface: 1 << 20, meter: 2 << 20, packets: 1400 };
        assert_eq!(judged(dropped, Both::default()), Verdict::Warning);
        // 44 packets of 1500 octets in each super-packet of 64 KiB, of which the headers are counted once.
        let merged = Both { interface: 100 * (44 * 1448 + 66), meter: 100 * 44 * MTU, packets: 4400 };
        assert_eq!(judged(merged, merged), Verdict::Ok);
        assert_eq!(judged(Both::default(), Both::default()), Verdict::NotChecked, "idle");
    }

    #[test]
    fn what_is_dropped_was_received_and_not_sent() {
        let way = |octets| Tally { octets, packets: 1 };
        let counters = DirectionCounters {
            passed: way(1),
            refused: way(10),
            control: way(100),
            throttled: way(1000),
            policed: way(10_000),
            non_ip: way(100_000),
        };
        assert_eq!(tally(&counters, Dropped::NeverSent), (101_101, 4));
        assert_eq!(tally(&counters, Dropped::OnceReceived), (111_111, 6));
    }
}
