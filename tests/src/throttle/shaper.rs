//! The kernel's own shapers, for comparison: `tbf` at the link's egress, and behind an `ifb` for what comes in.

use anyhow::{Context as _, Result, ensure};

use super::Cell;
use crate::Direction::{Downlink, Uplink};
use crate::netns::Namespace;

/// Two frames of full size: less, and `tbf` would let none of them pass.
const LEAST_BURST: u64 = 2 * 1514;

/// Has the kernel hold `link` at the rate of the cell in its direction.
pub(super) fn add(gateway: &Namespace, link: &str, cell: Cell) -> Result<()> {
    // Ten milliseconds of burst, 400 ms of queue, and never less than ten packets.
    let burst = (cell.octets_per_second() / 100).max(LEAST_BURST);
    let queue = (cell.octets_per_second() * 2 / 5).max(10 * 1514);
    let tbf =
        |device| format!("qdisc add dev {device} root tbf rate {}bit burst {burst} limit {}", cell.rate, queue + burst);
    match cell.direction {
        Uplink => tc(gateway, &tbf(link)).map(drop),
        Downlink => {
            gateway.ip("link add ifb0 type ifb")?;
            gateway.ip("link set ifb0 up")?;
            tc(gateway, &tbf("ifb0"))?;
            tc(gateway, &format!("qdisc add dev {link} handle ffff: ingress"))?;
            let redirect = "match u32 0 0 action mirred egress redirect dev ifb0";
            tc(gateway, &format!("filter add dev {link} parent ffff: protocol all u32 {redirect}")).map(drop)
        }
    }
}

/// How much of what came to the shaper it has dropped, by packets, from 0 to 1.
pub(super) fn dropped(gateway: &Namespace, link: &str, cell: Cell) -> Result<f64> {
    let device = if cell.direction == Uplink { link } else { "ifb0" };
    let text = tc(gateway, &format!("-statistics -json qdisc show dev {device} root"))?;
    let queues: serde_json::Value = serde_json::from_str(&text).with_context(|| text.clone())?;
    let figure = |name: &str| queues[0][name].as_f64().with_context(|| format!("no {name} in {text}"));
    let (through, dropped) = (figure("packets")?, figure("drops")?);
    Ok(dropped / (through + dropped).max(1.0))
}

fn tc(namespace: &Namespace, arguments: &str) -> Result<String> {
    let output =
        namespace.command("tc").args(arguments.split(' ')).output().context("cannot run `tc` (package iproute2)")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "tc {arguments}: {}", said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
