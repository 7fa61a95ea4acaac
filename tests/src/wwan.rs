//! WWAN links without a modem: raw-IP links of the kernel's own simulator (`wwan_hwsim`), and a way from each to where it can be captured.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::eventually::eventually;
use crate::modem::{hold_names, put};
use crate::netns::{Namespace, run};

/// Where the simulator takes orders (debugfs).
const SIMULATOR: &str = "/sys/kernel/debug/wwan_hwsim";

/// Where its modems are as devices.
const DEVICES: &str = "/sys/class/wwan_hwsim";

/// Time for the kernel to take a modem away.
const SOON: Duration = Duration::from_secs(10);

/// The priority of the way out: behind every meter, whether that is at the hook by TCX or by a filter.
const LAST: u16 = 60_000;

/// A simulated modem, on which links can be made. It is gone, with all its links wherever they are, when this is dropped.
#[derive(Debug)]
pub struct Parent {
    /// The simulator's name for it: `hwsim0`.
    device: String,
    /// The kernel's name for it: `wwan0`, which is no link but what links are made on.
    name: String,
}

impl Parent {
    /// Makes one that has no links yet.
    pub fn make() -> Result<Self> {
        ensure!(
            Path::new(SIMULATOR).is_dir(),
            "there is no simulator of WWAN modems in {SIMULATOR}: is wwan_hwsim loaded and debugfs mounted?"
        );
        let _names = hold_names();
        let before = devices()?;
        put(&Path::new(SIMULATOR).join("devcreate"), "1")?;
        let device = devices()?.difference(&before).next().cloned().context("the simulator has made no modem")?;
        // From here on it is taken away whatever fails.
        let mut parent = Self { device, name: String::new() };
        parent.name = parent.children("/sys/class/wwan")?.pop().context("the modem has no name")?;
        // A driver makes a first link by itself, where this process lives; here every link is somebody's.
        for link in parent.children("/sys/class/net")? {
            run("ip", &["link", "del", &link], "")?;
        }
        Ok(parent)
    }

    /// Makes the link with this number on it, called `near.1`, in `near.0`. It is down.
    pub fn add_link(&self, near: (&Namespace, &str), number: u8) -> Result<()> {
        near.0.ip(&format!("link add {} parentdev {} type wwan linkid {number}", near.1, self.name)).map(drop)
    }

    /// Takes it away, and waits until it is gone: its links went before.
    pub fn remove(self) -> Result<()> {
        self.destroy()
    }

    fn destroy(&self) -> Result<()> {
        let device = Path::new(DEVICES).join(&self.device);
        if !fs::exists(&device)? {
            return Ok(());
        }
        put(&Path::new(SIMULATOR).join(&self.device).join("destroy"), "1")?;
        eventually("the simulated modem to be gone", SOON, || {
            ensure!(!fs::exists(&device)?, "{} is still there", device.display());
            Ok(())
        })
    }

    /// The devices of a class that are its own, as this process's namespace shows them.
    fn children(&self, class: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(class).with_context(|| format!("list {class}"))? {
            let path = entry?.path();
            // What has gone in the meantime is nobody's.
            let Ok(device) = fs::canonicalize(&path) else { continue };
            if device.components().any(|part| part.as_os_str() == self.device.as_str()) {
                names.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
            }
        }
        Ok(names)
    }
}

impl Drop for Parent {
    fn drop(&mut self) {
        let _ = self.destroy();
    }
}

/// The simulated modems that there are.
fn devices() -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(DEVICES).with_context(|| format!("list {DEVICES}"))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Leads what leaves the gateway by a WWAN link to the Ethernet interface `air` there, and what arrives at that to the link: the simulator
/// itself swallows what is sent. `air` has the first address, whoever it is joined to the other.
pub fn lead(gateway: &Namespace, link: &str, air: &str, macs: [&str; 2]) -> Result<()> {
    let [own, other] = macs;
    // The agent may have been faster.
    gateway.tc(&format!("qdisc replace dev {link} clsact"))?;
    gateway.tc(&format!(
        "filter add dev {link} egress pref {LAST} matchall \
         action vlan push_eth dst_mac {other} src_mac {own} pipe action mirred egress redirect dev {air}"
    ))?;
    // What is there leads to a link that is gone. The first time there is nothing.
    let _ = gateway.tc(&format!("qdisc del dev {air} clsact"));
    gateway.tc(&format!("qdisc add dev {air} clsact"))?;
    for (priority, protocol) in [(1, "ip"), (2, "ipv6")] {
        gateway.tc(&format!(
            "filter add dev {air} ingress pref {priority} protocol {protocol} matchall \
             action vlan pop_eth pipe action mirred ingress redirect dev {link}"
        ))?;
    }
    Ok(())
}
