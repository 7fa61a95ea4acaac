//! Claims that keep a second agent away: one on the directory of the pins, one on each link. The kernel lets go of them with the process.

use std::{
    fs::{self, File},
    os::{fd::OwnedFd, unix::fs::MetadataExt as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    libc::{major, minor},
    sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, UnixCredentials, bind, connect, getsockopt, listen,
        socket, sockopt::PeerCredentials,
    },
    unistd::geteuid,
};

/// `CAP_NET_ADMIN` in a set of capabilities.
const CAP_NET_ADMIN: u64 = 1 << 12;

/// The directory of the pins, as this agent's alone.
#[derive(Debug)]
pub struct PinRootClaim(#[expect(dead_code, reason = "held for its lock")] Flock<File>);

impl PinRootClaim {
    /// Claims a directory that exists; an error names the process that has it.
    pub fn take(pin_root: &Path) -> Result<Self> {
        let directory = File::open(pin_root).with_context(|| format!("opening {}", pin_root.display()))?;
        match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(held) => Ok(Self(held)),
            Err((directory, Errno::EWOULDBLOCK)) => bail!(
                "another agent ({}) has its pins under {}: stop that agent, or choose another datapath.pin_root",
                holder(&directory).map_or_else(|| "unknown".to_owned(), |pid| format!("process {pid}")),
                pin_root.display()
            ),
            Err((_, errno)) => Err(errno).with_context(|| format!("locking {}", pin_root.display())),
        }
    }
}

/// The process of the agent that has its pins there; `None` when there is none, or it cannot be told.
#[must_use]
pub fn claimant(pin_root: &Path) -> Option<u32> {
    holder(&File::open(pin_root).ok()?)
}

/// Whoever holds the lock on an open file, by the kernel's list of locks.
fn holder(file: &File) -> Option<u32> {
    let meta = file.metadata().ok()?;
    let wanted = format!("{:02x}:{:02x}:{}", major(meta.dev()), minor(meta.dev()), meta.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, _, pid, place, ..] = words[..] else { return None };
        (place == wanted).then(|| pid.parse().ok()).flatten()
    })
}

/// A link, as this agent's alone: an abstract socket that bears the link's index. Such names belong to a network namespace, as links do,
/// and nothing of them is left when the process is gone.
#[derive(Debug)]
pub struct LinkClaim(#[expect(dead_code, reason = "held for its name")] Option<OwnedFd>);

impl LinkClaim {
    /// Claims a link of the namespace of this process; an error names the process that has it.
    pub fn take(link: &str, ifindex: u32) -> Result<Self> {
        let taken = || format!("claiming the link {link}");
        let address = UnixAddr::new_abstract(format!("weir/link/{ifindex}").as_bytes()).with_context(taken)?;
        let ours = stream().with_context(taken)?;
        match bind(std::os::fd::AsRawFd::as_raw_fd(&ours), &address) {
            Ok(()) => {
                // Whoever comes second connects, to learn who we are.
                listen(&ours, Backlog::MAXALLOWABLE).with_context(taken)?;
                Ok(Self(Some(ours)))
            }
            Err(Errno::EADDRINUSE) => {
                let owner = owner(&address);
                // Anybody may take a name; only who may attach programs can meter. A link must not go unmetered because of a stranger.
                if let Some(stranger) = owner.filter(|owner| !may_meter(owner)) {
                    tracing::warn!(
                        link,
                        "process {} of user {}, which is no agent, keeps this link from being claimed; it is metered all the same",
                        stranger.pid(),
                        stranger.uid()
                    );
                    return Ok(Self(None));
                }
                let owner = owner.map_or_else(|| "unknown".to_owned(), |owner| format!("process {}", owner.pid()));
                bail!(
                    "another agent ({owner}) meters the link {link}: stop that agent, or take the link out of one configuration"
                )
            }
            Err(errno) => Err(errno).with_context(taken),
        }
    }
}

fn stream() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

/// Whether a process may be an agent: it is of root or of our own user, or it may configure networks as agents with a user of their
/// own do.
fn may_meter(owner: &UnixCredentials) -> bool {
    owner.uid() == 0 || owner.uid() == geteuid().as_raw() || may_configure_networks(owner.pid())
}

/// Whether a process has the right over our own networks: in a user namespace of its own everybody has every right, and the network
/// namespace is the same as before (`user_namespaces(7)`).
fn may_configure_networks(pid: i32) -> bool {
    let namespace = |whose: &str| fs::read_link(format!("/proc/{whose}/ns/user")).ok();
    let is_ours = namespace(&pid.to_string()).is_some_and(|theirs| Some(theirs) == namespace("self"));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    is_ours && has_net_admin(&status) && !is_lent(&status)
}

/// Whether the process runs a program that lends its user the rights of another one (set-user-ID): whoever holds the name may start
/// such a program and leave it waiting. Reads it from `/proc/PID/status`.
fn is_lent(status: &str) -> bool {
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    let mut users = users.split_whitespace();
    let real = users.next();
    users.any(|other| Some(other) != real)
}

/// Reads it from `/proc/PID/status`.
fn has_net_admin(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & CAP_NET_ADMIN != 0)
}

/// Who listens at an address.
fn owner(address: &UnixAddr) -> Option<UnixCredentials> {
    let asking = stream().ok()?;
    connect(std::os::fd::AsRawFd::as_raw_fd(&asking), address).ok()?;
    getsockopt(&asking, PeerCredentials).ok()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_directory_is_claimed_once_and_free_again_when_the_claim_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(claimant(directory.path()), None);
        let first = PinRootClaim::take(directory.path()).unwrap();
        assert_eq!(claimant(directory.path()), Some(std::process::id()));
        let error = PinRootClaim::take(directory.path()).unwrap_err().to_string();
        let us = format!("another agent (process {})", std::process::id());
        assert!(error.starts_with(&us) && error.contains("datapath.pin_root"), "{error}");
        drop(first);
        PinRootClaim::take(directory.path()).unwrap();
    }

    #[test]
    fn an_agent_with_a_user_of_its_own_is_told_from_a_stranger_by_its_capabilities() {
        assert!(has_net_admin("Name:\tweir\nCapEff:\t000000c000001000\n"));
        assert!(!has_net_admin("Name:\tnc\nCapEff:\t0000000000000400\nCapBnd:\t000001ffffffffff\n"));
        assert!(!has_net_admin(""));
        assert!(!is_lent("Uid:\t997\t997\t997\t997\n"));
        assert!(is_lent("Uid:\t1000\t0\t0\t0\n"), "passwd, which waits at its prompt");
    }

    #[test]
    fn rights_in_a_user_namespace_of_ones_own_make_no_agent() {
        let mut stranger = Command::new("unshare")
            .args(["--user", "--map-root-user", "sh", "-c", "echo begun; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut begun = String::new();
        BufReader::new(stranger.stdout.take().unwrap()).read_line(&mut begun).unwrap();
        assert_eq!(begun, "begun\n", "unshare --user is not possible here");
        let status_of = |whose: &str| fs::read_to_string(format!("/proc/{whose}/status")).unwrap();
        let pid = stranger.id().cast_signed();
        assert!(has_net_admin(&status_of(&pid.to_string())), "it has every right there");
        assert!(!may_configure_networks(pid), "and none here");
        let ourselves = std::process::id().cast_signed();
        assert_eq!(may_configure_networks(ourselves), has_net_admin(&status_of("self")));
        // Its input ends, and so does it.
        drop(stranger.stdin.take());
        assert!(stranger.wait().unwrap().success());
    }

    #[test]
    fn a_link_is_claimed_once_and_free_again_when_the_claim_is_dropped() {
        // No interface has such an index, and each run of the tests has its own.
        let ifindex = 0x8000_0000 | std::process::id();
        let first = LinkClaim::take("wan0", ifindex).unwrap();
        let error = LinkClaim::take("wan0", ifindex).unwrap_err().to_string();
        assert!(error.starts_with(&format!("another agent (process {})", std::process::id())), "{error}");
        drop(first);
        LinkClaim::take("wan0", ifindex).unwrap();
    }
}
