//! The steps of the walk through a package's life, each with what has to hold after it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::machine::Machine;
use crate::clock::now;
use crate::eventually::eventually;
use crate::process::keep_logs_silent;
use crate::scenario::{Books, SOON, World};

/// Octets in the package that the SIM has.
pub(super) const PLENTY: u64 = 200 << 20;
/// From the first start to traffic in every view.
pub(super) const PATIENCE: Duration = Duration::from_mins(2);
/// `CAP_NET_ADMIN`, `CAP_NET_RAW`, `CAP_PERFMON`, `CAP_BPF`.
const CAPABILITIES: u64 = 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39;
/// What its confinement may be weighed at by systemd, in tenths: what is left is what the work consists of.
const EXPOSURE: u32 = 20;
/// Octets a second of the traffic.
pub(super) const RATE: u64 = 400_000;

/// What runs a command as a user of group `weir`.
pub(super) const OPERATOR: [&str; 6] = ["setpriv", "--reuid", "tess", "--regid", "tess", "--init-groups"];

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
        self.install()?;
        self.has_pages_and_completions()?;
        let started = self.configure_and_start()?;
        let books = Books::open(self.world, 0)?;
        let flow = self.world.stream(RATE)?;
        flow.carries(2 * RATE, SOON)?;
        self.looks()?;
        flow.stop()?;
        let _browser = self.sees_everything(started)?;
        self.is_confined()?;
        let flow = self.world.stream(RATE)?;
        flow.carries(RATE, SOON)?;
        self.upgrade(&books, || flow.carries(2 * RATE, SOON))?;
        self.machine.run("systemctl stop weir")?;
        flow.stalls(Duration::from_millis(1500), SOON)?;
        flow.stop()?;
        self.is_settled(books)?;
        self.remove()?;
        let flow = self.world.stream(RATE)?;
        flow.carries(RATE, SOON).context("traffic after the removal, which leaves the link as it was")?;
        flow.stop()?;
        self.purge()?;
        self.never_started()?;
        // Nothing went wrong: nobody wants to read them.
        keep_logs_silent();
        Ok(())
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

    /// What is read and typed before there is a service: man pages without a fault, and names that the shell completes.
    fn has_pages_and_completions(&self) -> Result<()> {
        let pages = "for page in /usr/share/man/man1/weir*.1.gz; do man --warnings -E UTF-8 -l -Tutf8 -Z $page; done";
        let complaints = self.machine.run(&format!("{{ {pages}; }} 2>&1 >/dev/null"))?;
        ensure!(complaints.is_empty(), "the man pages: {complaints}");
        ensure!(self.machine.run("man weir-usage")?.contains("weir-usage - Show"), "there is no man page");
        let typed = "COMP_WORDS=(weir sta) COMP_CWORD=1; _weir weir sta weir; echo ${COMPREPLY[*]}";
        let script = "/usr/share/bash-completion/completions/weir";
        let completed = self.machine.run(&format!("bash -c 'source {script}; {typed}'"))?;
        ensure!(completed.trim() == "status", "`weir sta` is completed to {completed:?}");
        let theirs = self.machine.run("zcat /usr/share/doc/weir/third-party.txt.gz")?;
        for known in ["\nring 0.", "\ntokio 1.", "\nrusqlite 0.", "\naya-ebpf 0."] {
            ensure!(theirs.contains(known), "the notices of others tell nothing of {}", known.trim());
        }
        say("man pages, completions and notices are there");
        Ok(())
    }

    /// Answers when `systemctl start` was typed.
    fn configure_and_start(&self) -> Result<Instant> {
        let url = &self.world.server.as_ref().context("a server")?.url;
        let lines = format!("[device]\nid = \"van-17\"\n[server]\nurl = \"{url}\"\n[[link]]\nname = \"wan0\"\n");
        self.machine.write("/etc/weir/weir.toml", &lines)?;
        self.machine.run("weir config check")?;
        let started = now();
        // Comes back when the agent says that it is ready: the link that is there is metered then.
        self.machine.run("systemctl start weir")?;
        ensure!(self.link()?["metered"] == true, "ready, and not metered: {}", self.link()?);
        let said = self.machine.run("systemctl show --property=StatusText --value weir")?;
        ensure!(said.starts_with("wan0: "), "systemctl status says {said:?}");
        self.is_active()?;
        say("configured with five lines, and started");
        Ok(started)
    }

    pub(super) fn is_active(&self) -> Result<()> {
        eventually("units", SOON, || {
            let link = self.link()?;
            ensure!(link["state"] == "active", "{link}");
            Ok(())
        })
    }

    /// As a user of group `weir`, not as root.
    fn looks(&self) -> Result<()> {
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
        let complaints = self.machine.run("systemd-analyze verify weir.service 2>&1")?;
        ensure!(complaints.is_empty(), "systemd complains of the unit: {complaints}");
        self.machine.run(&format!("systemd-analyze security --no-pager --threshold={EXPOSURE} weir.service"))?;
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
        let refused = || -> Result<_> {
            let counted = books.counted(self.world)?;
            Ok((counted.uplink.refused.packets, counted.downlink.refused.packets))
        };
        // At the restart after the first configuration the gate was shut, as it has to be.
        let refused_before = refused()?;
        let install = format!("dpkg --install {}", self.newer);
        let policy = "/usr/sbin/policy-rc.d";
        self.machine.run(&format!("printf '#!/bin/sh\\nexit 101\\n' > {policy} && chmod +x {policy} && {install}"))?;
        ensure!(self.pid()? == before, "the agent was replaced where policy-rc.d forbids it");
        self.machine.run(&format!("rm {policy} && {install}"))?;
        ensure!(self.pid()? != before, "the agent was not replaced");
        goes_on()?;
        eventually("the session to go on", SOON, || {
            let link = self.link()?;
            ensure!(link["metered"] == true && link["charging_id"] == session, "{link}");
            Ok(())
        })?;
        let refused_since = refused()?;
        ensure!(refused_since == refused_before, "packets were refused over the upgrade: {refused_since:?}");
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
        self.is_purged()?;
        say("purged: nothing is left");
        Ok(())
    }

    /// With a configuration that is wrong, and before anything was metered or recorded.
    fn never_started(&self) -> Result<()> {
        self.machine.run(&format!("dpkg --install {}", self.package))?;
        self.machine.write("/etc/weir/weir.toml", "[device]\nname = \"van-17\"\n")?;
        self.machine.run("dpkg --remove weir")?;
        let said = self.machine.run(&format!("dpkg --install {} 2>&1", self.package))?;
        ensure!(said.contains("the service does not start"), "that it does not start is not told: {said}");
        self.is_purged()?;
        say("installed and configured wrongly: removed, installed again and purged just as well");
        Ok(())
    }

    fn is_purged(&self) -> Result<()> {
        self.machine.run("dpkg --purge weir")?;
        let left = self.machine.run(
            "find / -xdev -name '*weir*' -not -path '/proc/*' -not -path '/packages/*'; getent passwd weir || true",
        )?;
        // What the log and man(1) keep for themselves.
        let others = ["/var/log/journal", "/var/cache/man/"];
        let left: Vec<_> = left.lines().filter(|line| !others.iter().any(|other| line.starts_with(other))).collect();
        ensure!(left.is_empty(), "left after the purge: {left:?}");
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
        self.machine.run(&format!("{} {command}", OPERATOR.join(" ")))
    }
}

#[expect(clippy::print_stdout, reason = "the walk is there to be watched")]
pub(super) fn say(words: &str) {
    println!("newcomer: {words}");
}
