//! The static binary in a root that holds nothing else: no shell, no library, no `nsswitch.conf`, no directory that nobody asked for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::steps::{RATE, say};
use crate::eventually::eventually;
use crate::process::{Actor, keep_logs_silent};
use crate::scenario::{Books, SERVER_NAME, SOON, World};
use crate::topology::HOST_V4;

/// What every box gives besides: where the kernel tells of itself, devices, and the BPF file system; mounted for each program anew.
const MOUNTED: [&str; 3] = ["proc", "dev", "sys"];

/// The box.
struct Bare<'w> {
    world: &'w World,
    root: PathBuf,
}

/// From the archive to settled books.
pub(super) fn all(world: &World, archive: &Path) -> Result<()> {
    let bare = Bare { world, root: world.workdir.path().join("root") };
    bare.unpack(archive)?;
    bare.configure()?;
    let version = bare.weir(&["version"])?;
    ensure!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    bare.weir(&["config", "check"])?;
    say("the static binary runs in a root without anything else, and takes the configuration");
    bare.meters()?;
    keep_logs_silent();
    Ok(())
}

impl Bare<'_> {
    fn unpack(&self, archive: &Path) -> Result<()> {
        for made in MOUNTED.into_iter().chain(["usr/bin", "etc/weir"]) {
            fs::create_dir_all(self.root.join(made)).with_context(|| format!("make {made} of the root"))?;
        }
        for device in ["null", "random", "urandom"] {
            fs::write(self.root.join("dev").join(device), "")
                .with_context(|| format!("make a place for /dev/{device}"))?;
        }
        let mut tar = Command::new("tar");
        tar.arg("-xzf").arg(archive).args(["--wildcards", "--strip-components=1", "-C"]).arg(self.root.join("usr/bin"));
        let output = tar.arg("*/weir").output().context("run tar")?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// As on a box whose /var is memory; the server by a name that is in /etc/hosts alone.
    fn configure(&self) -> Result<()> {
        let server = self.world.server.as_ref().context("a server")?;
        let port = server.address.port();
        let text = format!(
            "[device]\nid = \"box-3\"\nkey_file = \"/etc/weir/device.pem\"\n\
             [server]\nurl = \"https://{SERVER_NAME}:{port}\"\ntls_ca = \"/etc/weir/ca.pem\"\n\
             [ledger]\npath = \"/etc/weir/ledger.db\"\n\
             [[link]]\nname = \"wan0\"\n"
        );
        let authority = fs::read_to_string(self.world.workdir.path().join("ca.pem"))?;
        let hosts = format!("{HOST_V4} {SERVER_NAME}\n");
        for (file, text) in [("etc/weir/weir.toml", text), ("etc/weir/ca.pem", authority), ("etc/hosts", hosts)] {
            fs::write(self.root.join(file), text).with_context(|| format!("write {file}"))?;
        }
        Ok(())
    }

    fn meters(&self) -> Result<()> {
        let mut agent = Actor::start("weir", self.command(&["run"]), &self.world.workdir)?;
        eventually("units", SOON, || {
            let link = self.link()?;
            ensure!(link["state"] == "active" && link["metered"] == true, "{link}");
            Ok(())
        })?;
        let books = Books::open(self.world, 0)?;
        let flow = self.world.stream(RATE)?;
        flow.carries(2 * RATE, SOON)?;
        self.is_well()?;
        let status = self.weir(&["status"])?;
        ensure!(status.contains("wan0") && status.contains("ACTIVE"), "{status}");
        let ended = agent.terminate(SOON)?;
        ensure!(ended.success(), "the agent ended with {ended}: {}", agent.stderr());
        flow.stop()?;
        let crossed = books.close(self.world)?;
        let account = self.world.account(0)?;
        account.is_settled()?;
        let passed = self.world.passed(0)?;
        ensure!(account.debited() == passed && passed >= 2 * RATE, "{passed} passed: {account:?}");
        say(&format!(
            "metered and settled: {} octets up, {} down, equal to the octet",
            crossed.uplink, crossed.downlink
        ));
        Ok(())
    }

    /// The doctor finds its way, and no problem; warnings are this machine's affair: its clock, for one.
    fn is_well(&self) -> Result<()> {
        let output = self.output(&["doctor", "--json"])?;
        let said = String::from_utf8_lossy(&output.stdout);
        let report: Value = serde_json::from_str(&said).with_context(|| format!("no report: {output:?}"))?;
        let findings = report["findings"].as_array().with_context(|| format!("findings in {said}"))?;
        ensure!(output.status.code().is_some_and(|code| code < 2), "{report:#}");
        say(&format!("its doctor looks at {} things, and finds no problem", findings.len()));
        Ok(())
    }

    fn link(&self) -> Result<Value> {
        let text = self.weir(&["status", "--json"])?;
        let status: Value = serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))?;
        Ok(status["links"][0].clone())
    }

    fn weir(&self, args: &[&str]) -> Result<String> {
        let output = self.output(args)?;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "weir {args:?} ended with {}: {out}{err}", output.status);
        Ok(out.into_owned())
    }

    fn output(&self, args: &[&str]) -> Result<Output> {
        self.command(args).output().with_context(|| format!("run weir {args:?}"))
    }

    /// The binary in its root, on the gateway, with mounts that go when it ends.
    fn command(&self, args: &[&str]) -> Command {
        const SCRIPT: &str = "root=$1 bpf=$2; shift 2
            mount -t proc proc \"$root/proc\" || exit
            for device in null random urandom; do mount --bind /dev/$device \"$root/dev/$device\" || exit; done
            mount -t sysfs sysfs \"$root/sys\" && mount --bind \"$bpf\" \"$root/sys/fs/bpf\" && exec chroot \"$root\" /usr/bin/weir \"$@\"";
        let mut command = self.world.topology.gateway.command("unshare");
        command.args(["--mount", "sh", "-c", SCRIPT, "sh"]).arg(&self.root).arg(self.world.workdir.bpf()).args(args);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }
}
