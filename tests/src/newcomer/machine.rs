//! A clean Debian with its own systemd, booted as a container in the gateway's network namespace; nothing that it writes is kept.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::steps::OPERATOR;
use super::terminal::Terminal;
use crate::bpffs::Workdir;
use crate::eventually::eventually;
use crate::netns::Namespace;
use crate::process::Actor;

/// How long booting and shutting down may take.
const BOOT: Duration = Duration::from_secs(90);

/// The machine. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Machine {
    actor: Actor,
    /// Process id of its systemd, seen from here.
    init: String,
}

impl Machine {
    /// Boots it from `root`, with the packages at `/packages` and the BPF file system of `workdir` at its place.
    pub(super) fn boot(root: &Path, packages: &Path, gateway: &Namespace, workdir: &Workdir) -> Result<Self> {
        let mut command = Command::new("systemd-nspawn");
        // Its filter of system calls forbids bpf(2); the one under test is the service's own.
        command.env("SYSTEMD_SECCOMP", "0");
        command.args(["--quiet", "--boot", "--volatile=overlay", "--register=no", "--keep-unit", "--capability=all"]);
        command.args(["--console=pipe", "--machine=gateway", "--resolv-conf=off", "--directory"]).arg(root);
        command.arg(format!("--network-namespace-path=/run/netns/{}", gateway.name()));
        command.arg(format!("--bind={}:/sys/fs/bpf", workdir.bpf().display()));
        command.arg(format!("--bind-ro={}:/packages", packages.display()));
        let actor = Actor::start("machine", command, workdir)?;
        let init = eventually("the machine to boot", BOOT, || {
            let children = format!("/proc/{0}/task/{0}/children", actor.pid());
            let init = fs::read_to_string(&children).with_context(|| format!("read {children}"))?.trim().to_owned();
            ensure!(!init.is_empty(), "there is no machine yet: {}", actor.stderr());
            let machine = enter(&init, &["systemctl", "is-active", "multi-user.target"]).output()?;
            ensure!(machine.status.success(), "{}", String::from_utf8_lossy(&machine.stdout));
            Ok(init)
        })?;
        Ok(Self { actor, init })
    }

    /// Runs a shell's line in it as root, and answers what it printed.
    pub(super) fn run(&self, line: &str) -> Result<String> {
        let output = enter(&self.init, &["sh", "-c", line]).stdin(Stdio::null()).output().context("run nsenter")?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "`{line}` ended with {}: {out}{err}", output.status);
        Ok(out.into_owned())
    }

    /// Runs a shell's line in it on a terminal, as the operator, who is there by then.
    pub(super) fn terminal(&self, line: &str) -> Result<Terminal> {
        Terminal::open(enter(&self.init, &OPERATOR), line)
    }

    /// Writes a file in it, as an editor would.
    pub(super) fn write(&self, path: &str, text: &str) -> Result<()> {
        let mut shell = enter(&self.init, &["sh", "-c", &format!("cat > {path}")]);
        let mut child = shell.stdin(Stdio::piped()).spawn().context("run nsenter")?;
        child.stdin.take().context("no standard input")?.write_all(text.as_bytes())?;
        let status = child.wait()?;
        ensure!(status.success(), "writing {path} ended with {status}");
        Ok(())
    }

    /// Shuts it down.
    pub(super) fn shut_down(mut self) -> Result<()> {
        // Its systemd is told to halt, which ends all services first.
        self.actor.terminate(BOOT).map(drop)
    }
}

fn enter(init: &str, command: &[&str]) -> Command {
    let mut nsenter = Command::new("nsenter");
    nsenter.args(["--target", init, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--"]).args(command);
    nsenter.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
    nsenter
}
