//! What sits at the hooks of a metered link: one meter, and nobody before it.

use anyhow::Result;

use super::agent::Life;
use super::finding::{Check, Finding};
use super::links::Metered;
use super::{AS_ROOT, is_forbidden};
use crate::config::Config;
use crate::datapath::{Datapath, meters_on};
use crate::link::Glance;

/// A meter at the hooks of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// Whether it is the one that is pinned for this link.
    ours: bool,
    /// Programs at the hooks for what is sent and what is received.
    programs: (usize, usize),
}

/// Looks at one link.
pub(super) fn findings(config: &Config, link: &Metered, life: Life) -> Vec<Finding> {
    let datapath = Datapath::open(&config.pin_root, &link.name);
    let epoch = datapath.as_ref().ok().map(Datapath::epoch_id);
    let seen = meters_on(&link.name).map(|meters| {
        let of =
            |meter: &crate::datapath::Meter| Seen { ours: Some(meter.epoch_id) == epoch, programs: meter.programs() };
        meters.iter().map(of).collect::<Vec<_>>()
    });
    let mut told = vec![meter(&seen, config, life)];
    if let Ok(datapath) = &datapath {
        told.push(ahead(&datapath.ahead(link.index)));
    }
    told.into_iter().map(|finding| finding.of(&link.name)).collect()
}

fn meter(seen: &Result<Vec<Seen>>, config: &Config, life: Life) -> Finding {
    let check = Check::LinkMeter;
    let seen = match seen {
        Ok(seen) => seen,
        Err(error) if is_forbidden(error) => {
            return Finding::not_checked(check, "who is at its hooks may not be asked by this user", AS_ROOT);
        }
        Err(error) => return Finding::not_checked(check, format!("{error:#}"), "see kernel.hooks"),
    };
    let others = "let the agent that made it settle, or take it off: bpftool net shows it, bpftool link detach and tc filter del take it off";
    match seen[..] {
        [] => {
            let fix = match life {
                Life::Running => "its log says why: journalctl -u weir",
                Life::Away => "start the agent: systemctl start weir",
            };
            Finding::problem(check, "has no meter: its traffic is neither counted nor stopped", fix)
        }
        [Seen { ours: true, programs: (1, 1) }] => Finding::ok(check, "one meter sits at both hooks"),
        [Seen { ours: true, programs: (uplink, downlink) }] => Finding::problem(
            check,
            format!(
                "the meter sits {uplink} times where packets are sent and {downlink} times where they come in, not once each"
            ),
            "restart the agent, which puts it right: systemctl restart weir",
        ),
        [Seen { ours: false, .. }] => {
            let what =
                format!("the meter at its hooks is not the one that is pinned under {}", config.pin_root.display());
            Finding::problem(check, what, others)
        }
        _ => Finding::problem(
            check,
            format!("{} meters sit at its hooks, and count every packet as often", seen.len()),
            others,
        ),
    }
}

fn ahead(programs: &Result<Vec<String>>) -> Finding {
    let check = Check::LinkAhead;
    match programs {
        Ok(programs) if programs.is_empty() => Finding::ok(check, "nobody runs before the meter"),
        Ok(programs) => Finding::warning(
            check,
            format!("somebody else runs before the meter: {}", programs.join(", ")),
            "have them run behind it: a filter with a higher pref, a TCX program after the others (bpftool net shows whose they are)",
        ),
        Err(error) if is_forbidden(error) => {
            Finding::not_checked(check, "who runs before the meter may not be asked by this user", AS_ROOT)
        }
        Err(error) => Finding::not_checked(check, format!("{error:#}"), "see link.meter"),
    }
}

/// XDP programs, by what the link says of itself.
pub(super) fn xdp(link: &str, glance: &Result<Glance>) -> Finding {
    let check = Check::LinkXdp;
    let finding = match glance.as_ref().map(|glance| glance.xdp.as_slice()) {
        Ok([]) => Finding::ok(check, "no XDP program takes packets before the meter"),
        Ok(programs) => {
            let programs: Vec<String> = programs.iter().map(ToString::to_string).collect();
            Finding::warning(
                check,
                format!("an XDP program runs before the meter (number {})", programs.join(", ")),
                format!(
                    "see what it is: bpftool prog show id N; if it redirects or answers, take it off: ip link set {link} xdp off"
                ),
            )
        }
        Err(error) => Finding::not_checked(check, format!("{error:#}"), "see link.present"),
    };
    finding.of(link)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;

    use anyhow::anyhow;

    use super::*;
    use crate::doctor::finding::Verdict;

    fn judged(seen: &[(bool, (usize, usize))]) -> Finding {
        let text = "[device]\nid = \"a\"\n[server]\nurl = \"https://a.example\"\n[[link]]\nname = \"wan0\"\n";
        let config = Config::parse(text, Path::new("/etc/weir/weir.toml")).unwrap();
        let seen = seen.iter().map(|(ours, programs)| Seen { ours: *ours, programs: *programs }).collect();
        meter(&Ok(seen), &config, Life::Running)
    }

    #[test]
    fn exactly_one_meter_at_both_hooks_is_right() {
        assert_eq!(judged(&[(true, (1, 1))]).verdict, Verdict::Ok);
        for (seen, words) in [
            (&[][..], "no meter"),
            (&[(true, (1, 0))], "1 times where packets are sent and 0 times"),
            (&[(true, (2, 1))], "2 times"),
            (&[(false, (1, 1))], "not the one that is pinned under /sys/fs/bpf/weir"),
            (&[(true, (1, 1)), (false, (0, 1))], "2 meters"),
        ] {
            let told = judged(seen);
            assert!(told.verdict == Verdict::Problem && told.what.contains(words), "{told:?}");
        }
    }

    #[test]
    fn whoever_runs_before_the_meter_is_named_and_a_missing_right_is_said() {
        assert_eq!(ahead(&Ok(vec![])).verdict, Verdict::Ok);
        let told = ahead(&Ok(vec!["downlink: pref 1 u32".to_owned()]));
        assert!(told.verdict == Verdict::Warning && told.what.ends_with("downlink: pref 1 u32"), "{told:?}");
        let denied = || anyhow!(io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(ahead(&Err(denied())).verdict, Verdict::NotChecked);
        let xdp = |programs: &[u32]| xdp("wan0", &Ok(Glance { xdp: programs.to_vec(), ..Glance::default() }));
        assert_eq!(xdp(&[]).verdict, Verdict::Ok);
        assert!(xdp(&[7, 9]).what.ends_with("(number 7, 9)"));
    }
}
