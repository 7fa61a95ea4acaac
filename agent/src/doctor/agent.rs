//! The agent and what it leaves in the kernel: whether it runs and answers, its pins, and what it complains of itself.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::finding::{Check, Finding};
use super::{AS_ROOT, is_forbidden};
use crate::cli::words::octets;
use crate::clock::boot_now;
use crate::config::Config;
use crate::datapath::{Datapath, Pins, claimant, pinned_links, refuse_newer_layout, require_bpffs, sits_on};
use crate::link::Links;
use crate::local::{self, LinkStatus, Status};

/// An agent that takes longer to answer is stuck.
const PATIENCE: Duration = Duration::from_secs(5);
/// What starts it.
const START: &str = "systemctl start weir, or weir run; its log says why it ended: journalctl -u weir";

/// Whether an agent is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It answers, or holds the pins.
    Running,
    /// Nobody looks after what is in the kernel.
    Away,
}

/// What there is to know of the agent.
#[derive(Debug)]
pub(super) struct Presence {
    /// What it answers.
    pub(super) status: Result<Status>,
    /// The process that has claimed the pins.
    pub(super) claimant: Option<u32>,
    /// The meters that are pinned, with the octets that their gates still let through.
    pub(super) meters: Vec<(String, u64)>,
}

impl Presence {
    /// Asks the agent, and the kernel about what an agent has left.
    pub(super) async fn look(config: &Config) -> Self {
        let asked = tokio::time::timeout(PATIENCE, local::fetch(&config.agent.socket)).await;
        let status = asked.context("the agent does not answer").flatten();
        let claimant = claimant(&config.pin_root);
        let open = |name: String| Some((name.clone(), room(&config.pin_root, &name).ok()?));
        let meters = Pins::names(&config.pin_root).into_iter().filter_map(open).collect();
        Self { status, claimant, meters }
    }

    /// Whether an agent is there.
    pub(super) const fn life(&self) -> Life {
        if self.status.is_ok() || self.claimant.is_some() { Life::Running } else { Life::Away }
    }
}

/// Octets that still pass the gate of a pinned meter.
fn room(pin_root: &Path, link: &str) -> Result<u64> {
    let datapath = Datapath::open(pin_root, link)?;
    let (gate, word) = (datapath.gate()?, datapath.word()?);
    let over = gate.deadline_boot_ns != 0 && gate.deadline_boot_ns <= boot_now()?.as_nanos();
    Ok(if over { 0 } else { gate.ceiling.saturating_sub(word.gate) })
}

pub(super) fn running(presence: &Presence, socket: &Path) -> Finding {
    let check = Check::AgentRunning;
    let ours = env!("CARGO_PKG_VERSION");
    match (&presence.status, presence.claimant) {
        (Ok(status), _) if status.version != ours => Finding::warning(
            check,
            format!("the agent that runs is of version {}, this is {ours}", status.version),
            "have this version take its place without a stop: kill -USR1 its process, and once it has ended: systemctl start weir (OpenWrt: /etc/init.d/weir upgrade)",
        ),
        (Ok(status), _) => Finding::ok(check, format!("the agent runs and answers (version {})", status.version)),
        (Err(error), _) if is_forbidden(error) => Finding::not_checked(
            check,
            format!("{} may not be opened by this user", socket.display()),
            format!("run it as root, or join the group that the socket belongs to (ls -l {})", socket.display()),
        ),
        (Err(error), Some(pid)) => Finding::problem(
            check,
            format!("an agent runs as process {pid} and does not answer: {error:#}"),
            "compare agent.socket with the configuration that it runs with; if it hangs, its log says at what",
        ),
        (Err(_), None) => {
            let told: Vec<String> = presence.meters.iter().map(left_behind).collect();
            let meters = if told.is_empty() { "nothing is metered".to_owned() } else { told.join(", ") };
            Finding::problem(check, format!("no agent runs: {meters}"), START)
        }
    }
}

fn left_behind((link, room): &(String, u64)) -> String {
    match room {
        0 => format!("the gate of {link} is shut"),
        room => format!("the gate of {link} is open for another {}", octets(*room)),
    }
}

/// What the agent's own status has to tell.
pub(super) fn books(status: &Status) -> Vec<Finding> {
    let check = Check::AgentBooks;
    let mut told = Vec::new();
    if let Some(trouble) = &status.ledger_trouble {
        told.push(Finding::problem(
            check,
            trouble.clone(),
            "make room, remount, or end what holds the lock; weir goes on by itself",
        ));
    }
    if status.ledger_drift_octets > 0 {
        let what = format!("the books do not close by {}", octets(status.ledger_drift_octets));
        told.push(Finding::problem(check, what, "keep the ledger file and report it"));
    }
    for damage in &status.ledger_damage {
        let fix = "settle by hand what is named, then move the file away; suspect the flash";
        told.push(Finding::problem(check, damage.clone(), fix));
    }
    let sums = [
        (
            status.set_aside_octets,
            "refused by the server and kept aside",
            "mend it at the server: the log has its cause",
        ),
        (status.in_doubt_octets, "sent once, not answered, and perhaps charged", "compare with the server's books"),
        (
            status.uncertain_octets,
            "may have passed after the last record before the power went; not billed",
            "stop without --keep before a reboot, or set agent.max_unrecorded to bound it",
        ),
    ];
    for (sum, words, fix) in sums.into_iter().filter(|(sum, ..)| *sum > 0) {
        told.push(Finding::warning(check, format!("{} {words}", octets(sum)), fix));
    }
    told.extend(status.links.iter().filter_map(|link| shut_for_good(link, status)));
    told.extend(status.links.iter().flat_map(link_books));
    if told.is_empty() {
        told.push(Finding::ok(check, "the books close, and nothing is in doubt, refused or lost"));
    }
    told
}

/// Why nothing passes although the link is metered, where time alone does not mend it.
fn shut_for_good(link: &LinkStatus, status: &Status) -> Option<Finding> {
    let problem = |what, fix| Some(Finding::problem(Check::AgentBooks, what, fix).of(&link.link));
    match (&status.onboarding_trouble, &link.subscriber) {
        _ if !link.metered => None,
        (Some(trouble), None) => problem(
            format!("{}; onboarding: {trouble}", link.explanation),
            "is the device registered there, the claim code right (device.claim_code_file), a SIM free for the slot?",
        ),
        _ if link.aborted => problem(link.explanation.clone(), "have the server send REAUTHORISE"),
        _ if link.refused => problem(
            link.explanation.clone(),
            "is the SIM known at the server, has it a package for this rating group? The log has its cause; then: weir renew",
        ),
        (_, _) => None,
    }
}

fn link_books(link: &LinkStatus) -> Vec<Finding> {
    let warning = |what: String, fix: &str| Finding::warning(Check::AgentBooks, what, fix).of(&link.link);
    let mut told = Vec::new();
    if link.meter_gaps > 0 {
        let what = format!("somebody else took the meter off {} times", link.meter_gaps);
        told.push(warning(
            what,
            "find what detaches TC programs or deletes filters on this link (bpftool net, tc filter)",
        ));
    }
    if link.unmetered_prefix_octets > 0 {
        let what = format!("{} passed before its meter was there, not billed", octets(link.unmetered_prefix_octets));
        told.push(warning(what, "start weir before the link comes up"));
    }
    if link.kernel.guessed_packets > 0 {
        let what = format!("{} packets were counted by what is known of them", link.kernel.guessed_packets);
        told.push(warning(what, "a handful is nothing; if it grows: ethtool -K LINK gro off"));
    }
    if link.kernel.policed_downlink_octets > 0 {
        let policed = octets(link.kernel.policed_downlink_octets);
        told.push(warning(
            format!("{policed} came too fast for the throttled link: paid for nothing"),
            "sysctl net.ipv4.tcp_ecn=1 on the clients, or when_used_up = \"block\"",
        ));
    }
    told
}

/// A BPF file system at the place of the pins.
pub(super) fn bpffs(tried: &Result<()>, pin_root: &Path) -> Finding {
    let check = Check::PinsBpffs;
    let shown = pin_root.display();
    match tried {
        Ok(()) => Finding::ok(check, format!("{shown} is on a BPF file system")),
        Err(error) if is_forbidden(error) => {
            Finding::not_checked(check, format!("{shown} may not be looked at by this user"), AS_ROOT)
        }
        Err(error) => Finding::problem(
            check,
            format!("{error:#}"),
            "mount it as told, and at every boot (/etc/fstab: bpf /sys/fs/bpf bpf defaults 0 0)",
        ),
    }
}

/// A link that has pins, and how they are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Left {
    link: String,
    exists: bool,
    attached: bool,
    newer: Option<String>,
}

/// Looks at what is pinned, and tells of it.
pub(super) fn pins(config: &Config, links: &Links, life: Life) -> Vec<Finding> {
    let check = Check::PinsLeft;
    let pin_root = &config.pin_root;
    let mounted = bpffs(&require_bpffs(pin_root), pin_root);
    if let Err(error) = pin_root.read_dir()
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        return vec![
            mounted,
            Finding::not_checked(check, format!("{} may not be looked at", pin_root.display()), AS_ROOT),
        ];
    }
    let look = |link: String| {
        let found = links.named(&link);
        let attached = found.is_some_and(|(index, _)| sits_on(&Pins::new(pin_root, &link), &link, index));
        let newer = refuse_newer_layout(pin_root, &link).err().map(|error| format!("{error:#}"));
        Left { exists: found.is_some(), attached, newer, link }
    };
    let left: Vec<Left> = pinned_links(pin_root).into_iter().map(look).collect();
    let mut told: Vec<Finding> = left.iter().filter_map(|left| left_over(left, life)).collect();
    if told.is_empty() {
        let count = left.len();
        let what = if count == 0 { "nothing is pinned".to_owned() } else { format!("{count} pinned, {count} at work") };
        told.push(Finding::ok(check, what));
    }
    told.insert(0, mounted);
    told
}

/// `None` for pins that are at work.
fn left_over(left: &Left, life: Life) -> Option<Finding> {
    let check = Check::PinsLeft;
    let Left { link, exists, attached, newer } = left;
    let fix = match life {
        Life::Running => "restart the agent: it reads them for the last time and bills it",
        Life::Away => "start the agent: it reads them for the last time and bills it; do not delete them before",
    };
    let finding = match (newer, exists, attached) {
        (Some(reason), ..) => {
            Finding::problem(check, reason.clone(), "install the version that made it, or a later one")
        }
        (None, _, true) => return None,
        (None, true, false) => {
            Finding::problem(check, "what is pinned for it is not attached, and counts nothing", fix)
        }
        (None, false, false) => Finding::warning(check, "pins are left of it, and it does not exist any more", fix),
    };
    Some(finding.of(link))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::doctor::finding::Verdict;
    use crate::local::{KernelStatus, NoAgent};

    fn present(status: Result<Status>, claimant: Option<u32>, meters: &[(&str, u64)]) -> Finding {
        let meters = meters.iter().map(|(link, room)| ((*link).to_owned(), *room)).collect();
        running(&Presence { status, claimant, meters }, Path::new("/run/weir.sock"))
    }

    fn status() -> Status {
        Status { version: env!("CARGO_PKG_VERSION").to_owned(), ..Status::default() }
    }

    fn silent() -> Result<Status> {
        Err(NoAgent::new(Path::new("/run/weir.sock"), &io::Error::from(io::ErrorKind::ConnectionRefused)).into())
    }

    #[test]
    fn an_agent_that_is_away_is_a_problem_and_its_open_gates_are_named() {
        assert_eq!(present(Ok(status()), Some(1), &[]).verdict, Verdict::Ok);
        let other = present(Ok(Status::default()), Some(1), &[]);
        assert_eq!(other.verdict, Verdict::Warning, "another version");
        assert!(
            other.fix.is_some_and(|fix| fix.contains("USR1") && !fix.contains("restart")),
            "a restart stops traffic"
        );
        let nothing = present(silent(), None, &[]);
        assert_eq!((nothing.verdict, nothing.what.as_str()), (Verdict::Problem, "no agent runs: nothing is metered"));
        let open = present(silent(), None, &[("wan0", 2 << 20), ("wan1", 0)]);
        let expected = "no agent runs: the gate of wan0 is open for another 2.0 MiB, the gate of wan1 is shut";
        assert_eq!(open.what, expected);
        let stuck = present(silent(), Some(77), &[]);
        assert!(stuck.verdict == Verdict::Problem && stuck.what.contains("process 77"), "{stuck:?}");
        let forbidden = NoAgent::new(Path::new("/run/weir.sock"), &io::Error::from_raw_os_error(libc::EACCES));
        let forbidden = Err(forbidden.into());
        assert_eq!(present(forbidden, Some(77), &[]).verdict, Verdict::NotChecked);
    }

    #[test]
    fn what_is_wrong_in_the_books_is_told_each_by_itself() {
        assert_eq!(books(&status()).iter().map(|told| told.verdict).collect::<Vec<_>>(), [Verdict::Ok]);
        let link = LinkStatus {
            link: "wan0".to_owned(),
            meter_gaps: 2,
            unmetered_prefix_octets: 90,
            kernel: KernelStatus { guessed_packets: 1, policed_downlink_octets: 5, ..KernelStatus::default() },
            ..serde_json::from_value(bare_link()).unwrap()
        };
        let bad = Status {
            ledger_trouble: Some("the ledger cannot be written".to_owned()),
            ledger_drift_octets: 1,
            ledger_damage: vec!["damaged".to_owned()],
            set_aside_octets: 1,
            in_doubt_octets: 1,
            uncertain_octets: 1,
            links: vec![link],
            ..status()
        };
        let told = books(&bad);
        let count = |verdict| told.iter().filter(|told| told.verdict == verdict).count();
        assert_eq!((count(Verdict::Problem), count(Verdict::Warning), count(Verdict::Ok)), (3, 7, 0), "{told:?}");
        assert_eq!(told.iter().filter(|told| told.subject.as_deref() == Some("wan0")).count(), 4);
    }

    #[test]
    fn a_link_that_only_the_server_can_open_is_a_problem_and_one_that_begins_is_none() {
        let link = |subscriber: Option<&str>, aborted| LinkStatus {
            link: "wan0".to_owned(),
            exists: true,
            metered: true,
            state: "idle".to_owned(),
            explanation: "shut".to_owned(),
            subscriber: subscriber.map(str::to_owned),
            aborted,
            ..LinkStatus::default()
        };
        let told = |link: LinkStatus, trouble: Option<&str>| {
            let onboarding_trouble = trouble.map(str::to_owned);
            let told = books(&Status { onboarding_trouble, links: vec![link], ..status() });
            told.into_iter().map(|told| (told.verdict, told.what)).next().unwrap()
        };
        let refused = Some("no such claim code");
        assert_eq!(told(link(Some("imsi-1"), true), None), (Verdict::Problem, "shut".to_owned()));
        let words = "shut; onboarding: no such claim code".to_owned();
        assert_eq!(told(link(None, false), refused), (Verdict::Problem, words));
        assert_eq!(told(link(None, false), None).0, Verdict::Ok, "it begins");
        let denied = LinkStatus { refused: true, ..link(Some("imsi-1"), false) };
        assert_eq!(told(denied, None), (Verdict::Problem, "shut".to_owned()));
        assert_eq!(told(link(Some("imsi-1"), false), refused).0, Verdict::Ok, "it has its SIM from before");
        let absent = LinkStatus { metered: false, exists: false, ..link(None, false) };
        assert_eq!(told(absent, refused).0, Verdict::Ok, "it is not there: link.present tells that");
    }

    fn bare_link() -> serde_json::Value {
        serde_json::json!({
            "link": "", "metered": true, "in_use": true, "subscriber": null, "state": "active", "explanation": "",
            "charging_id": null, "session_uplink_octets": 0, "session_downlink_octets": 0, "ceiling_octets": 0,
            "remaining_octets": 0, "grants": 0, "rate_octets_per_second": 0, "unreported_octets": 0,
            "kernel": serde_json::to_value(KernelStatus::default()).unwrap(),
        })
    }

    #[test]
    fn pins_that_count_nothing_are_told_with_what_to_do_first() {
        let left = |exists, attached, newer: Option<&str>| {
            let newer = newer.map(str::to_owned);
            left_over(&Left { link: "wan0".to_owned(), exists, attached, newer }, Life::Away)
        };
        assert_eq!(left(true, true, None), None);
        let verdict = |finding: Option<Finding>| finding.map(|finding| finding.verdict);
        assert_eq!(verdict(left(true, false, None)), Some(Verdict::Problem));
        assert_eq!(verdict(left(true, true, Some("newer"))), Some(Verdict::Problem));
        let gone = left(false, false, None).unwrap();
        assert!(gone.verdict == Verdict::Warning && gone.fix.unwrap().contains("do not delete"));
    }
}
