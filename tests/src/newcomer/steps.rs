//! The steps of the walk, each with what has to hold after it.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::machine::Machine;
use crate::clock::Deadline;
use crate::eventually::eventually;
use crate::scenario::{Books, SOON, World};

/// Octets in the package that the SIM has.
pub(super) const PLENTY: u64 = 200 << 20;
/// From the installation to traffic in every view.
const PATIENCE: Duration = Duration::from_mins(2);
/// `CAP_NET_ADMIN`, `CAP_NET_RAW`, `CAP_PERFMON`, `CAP_BPF`.
const CAPABILITIES: u64 = 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;
/// Octets a second of the traffic.
const RATE: u64 = 400_000;

/// Who walks where.
pub(super) struct Walk<'w> {
    pub(super) world: &'w World,
    pub(super) machine: &'w Machine,
    /// Path of the package in the machine, and of the newer one.
    pub(super) package: String,
    pub(super) newer: String,
}

impl Walk<'_> {
    /// From an empty machine to an empty machine.
    pub(super) fn all(&self) -> Result<()> {
        let deadline = Deadline::after(PATIENCE);
        self.install()?;
        self.configure_and_start()?;
        let books = Books::open(self.world, 0)?;
        let flow = self.world.stream(RATE)?;
        flow.carries(2 * RATE, SOON)?;
        self.looks(&deadline)?;
        self.is_confined()?;
        self.upgrade(&books, || flow.carries(2 * RATE, SOON))?;
        self.machine.run("systemctl stop weir")?;
        flow.stalls(Duration::from_millis(1500), SOON)?;
        flow.stop()?;
        self.is_settled(books)?;
        self.remove()?;
        let flow = self.world.stream(RATE)?;
        flow.carries(RATE, SOON).context("traffic after the removal, which leaves the link as it was")?;
        flow.stop()?;
        self.purge()
    }

    fn install(&self) -> Result<()> {
        // The authority of this server, as an operator adds one of his own.
        let authority = std::fs::read_to_string(self.world.workdir.path().join("ca.pem"))?;
        self.machine.write("/usr/local/share/ca-certificates/scene.crt", &authority)?;
        self.machine.run("update-ca-certificates")?;
        let said = self.machine.run(&format!("dpkg --install {}", self.package))?;
        ensure!(said.contains("write /etc/weir/weir.toml"), "the next step is not told: {said}");
        ensure!(self.machine.run("systemctl is-active weir || true")?.trim() == "inactive", "it runs unconfigured");
        say("installed");
        Ok(())
    }

    fn configure_and_start(&self) -> Result<()> {
        let url = &self.world.server.as_ref().context("a server")?.url;
        let lines = format!("[device]\nid = \"van-17\"\n[server]\nurl = \"{url}\"\n[[link]]\nname = \"wan0\"\n");
        self.machine.write("/etc/weir/weir.toml", &lines)?;
        self.machine.run("weir config check")?;
        // Comes back when the agent says that it is ready: the link that is there is metered then.
        self.machine.run("systemctl start weir")?;
        ensure!(self.link()?["metered"] == true, "ready, and not metered: {}", self.link()?);
        let said = self.machine.run("systemctl show --property=StatusText --value weir")?;
        ensure!(said.starts_with("wan0: "), "systemctl status says {said:?}");
        eventually("units", SOON, || {
            let link = self.link()?;
            ensure!(link["state"] == "active", "{link}");
            Ok(())
        })?;
        say("configured and started");
        Ok(())
    }

    /// As a user of group `weir`, not as root.
    fn looks(&self, deadline: &Deadline) -> Result<()> {
        self.machine.run("useradd --groups weir tess")?;
        let status = self.as_operator("weir status")?;
        ensure!(status.contains("wan0") && status.contains("ACTIVE"), "{status}");
        let link = self.link()?;
        let used = |which: &str| link[which].as_u64().unwrap_or(0);
        ensure!(used("session_uplink_octets") + used("session_downlink_octets") >= RATE, "{link}");
        let refused = self
            .machine
            .run("setpriv --reuid nobody --clear-groups weir status --socket /run/weir/weir.sock 2>&1 || true")?;
        ensure!(refused.contains("you may not open its socket"), "a stranger asks the agent: {refused}");
        ensure!(!deadline.passed(), "that took more than {PATIENCE:?}");
        say("traffic is seen in `weir status`, by a user of group weir");
        Ok(())
    }

    /// What systemd has made of the unit's lines, by what the kernel says of the process.
    fn is_confined(&self) -> Result<()> {
        let pid = self.pid()?;
        let status = self.machine.run(&format!("cat /proc/{pid}/status"))?;
        let of =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default();
        let user = self.machine.run("id --user weir")?;
        ensure!(of("Uid:").split_whitespace().all(|uid| uid == user.trim()), "{status}");
        for set in ["CapEff:", "CapPrm:", "CapBnd:", "CapAmb:"] {
            ensure!(u64::from_str_radix(of(set), 16) == Ok(CAPABILITIES), "{set} {}", of(set));
        }
        ensure!((of("NoNewPrivs:"), of("Seccomp:")) == ("1", "2"), "{status}");
        let secrets = self
            .machine
            .run("stat --format='%a %U %n' /var/lib/weir /var/lib/weir/device.pem /etc/weir /etc/weir/weir.toml")?;
        let rights: Vec<_> = secrets.lines().map(|line| line.split(' ').next().unwrap_or_default()).collect();
        ensure!(rights == ["700", "600", "2750", "640"] || rights == ["700", "600", "2750", "644"], "{secrets}");
        let unreadable =
            self.machine.run("setpriv --reuid nobody --clear-groups cat /etc/weir/weir.toml 2>&1 || true")?;
        ensure!(unreadable.contains("Permission denied"), "anybody reads the configuration: {unreadable}");
        let log = self.machine.run("journalctl --unit=weir --no-pager")?;
        ensure!(!log.contains("Operation not permitted"), "a right is missing:\n{log}");
        for secret in ["Bearer ", "eyJ", "PRIVATE KEY"] {
            ensure!(!log.contains(secret), "the log tells a secret:\n{log}");
        }
        say("confined: its own user, four capabilities, system calls filtered");
        Ok(())
    }

    fn upgrade(&self, books: &Books, goes_on: impl Fn() -> Result<()>) -> Result<()> {
        let (before, session) = (self.pid()?, self.link()?["charging_id"].clone());
        self.machine.run(&format!("dpkg --install {}", self.newer))?;
        let after = self.pid()?;
        ensure!(before != after, "the agent was not replaced");
        goes_on()?;
        eventually("the session to go on", SOON, || {
            let link = self.link()?;
            ensure!(link["metered"] == true && link["charging_id"] == session, "{link}");
            Ok(())
        })?;
        let counted = books.counted(self.world)?;
        let refused = (counted.uplink.refused.packets, counted.downlink.refused.packets);
        ensure!(refused == (0, 0), "packets were refused over the upgrade: {counted:?}");
        say("upgraded under traffic: the same session, not a packet refused");
        Ok(())
    }

    /// The operator has stopped it: everything is reported and returned, and capture, kernel and debit are the same.
    fn is_settled(&self, books: Books) -> Result<()> {
        let crossed = books.close(self.world)?;
        let account = self.world.account(0)?;
        account.is_settled()?;
        let passed = self.world.passed(0)?;
        ensure!(account.debited() == passed && passed > 0, "{passed} passed: {account:?}");
        say(&format!("stopped: {} octets up, {} down, equal to the octet", crossed.uplink, crossed.downlink));
        Ok(())
    }

    fn remove(&self) -> Result<()> {
        self.machine.run("dpkg --remove weir")?;
        let pins = self.world.pin_root();
        ensure!(!pins.exists(), "{} is left in the kernel", pins.display());
        self.machine.run("test -s /var/lib/weir/ledger.db && test -e /etc/weir/weir.toml")?;
        say("removed: nothing is left in the kernel, the books are kept");
        Ok(())
    }

    fn purge(&self) -> Result<()> {
        self.machine.run("dpkg --purge weir")?;
        let left = self.machine.run(
            "find / -xdev -name '*weir*' -not -path '/proc/*' -not -path '/packages/*'; getent passwd weir || true",
        )?;
        let left: Vec<_> = left.lines().filter(|line| !line.starts_with("/var/log/journal")).collect();
        ensure!(left.is_empty(), "left after the purge: {left:?}");
        say("purged: nothing is left");
        Ok(())
    }

    fn pid(&self) -> Result<String> {
        Ok(self.machine.run("systemctl show --property=MainPID --value weir")?.trim().to_owned())
    }

    fn link(&self) -> Result<Value> {
        let text = self.machine.run("weir status --json")?;
        let status: Value = serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))?;
        Ok(status["links"][0].clone())
    }

    fn as_operator(&self, command: &str) -> Result<String> {
        self.machine.run(&format!("setpriv --reuid tess --regid tess --init-groups {command}"))
    }
}

#[expect(clippy::print_stdout, reason = "the walk is there to be watched")]
fn say(words: &str) {
    println!("newcomer: {words}");
}
