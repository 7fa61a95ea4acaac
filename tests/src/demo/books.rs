//! What has been booked: the messages as they went over the wire, and the server's ledger and packages.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::http::Client;
use crate::reconciliation::{Booked, Octets};

/// Both sides' books, read when everything is settled.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Books {
    /// The containers of the recorded requests, each counted once.
    pub(super) sealed: Octets,
    /// How many containers there are.
    pub(super) containers: usize,
    /// How many requests were recorded, and how many of these said that they repeat an earlier one.
    pub(super) requests: usize,
    /// Requests that said that they repeat an earlier one.
    pub(super) retransmissions: usize,
    /// The debits in the server's ledger.
    pub(super) debited: Octets,
    /// How many debits there are.
    pub(super) debits: usize,
    /// Octets bought, top-ups included.
    pub(super) bought: u64,
    /// What the package says is left; negative when overdrawn.
    pub(super) left: i64,
}

/// A package as the server shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Package {
    pub(super) total: u64,
    pub(super) used: u64,
    pub(super) reserved: u64,
    pub(super) balance: i64,
}

impl Books {
    /// Reads both sides' books. `bought` is what the demo itself has paid for.
    pub(super) fn read(recorded: &Path, server: &Client, subscriber: &str, bought: u64) -> Result<Self> {
        let exchanges = exchanges(recorded)?;
        let containers = sealed_containers(&exchanges)?;
        let entries = server.get(&format!("/admin/v1/ledger?subscriber={subscriber}&kind=debit&limit=10000"))?;
        let entries = entries["entries"].as_array().context("entries of the ledger")?.clone();
        let debits: Vec<Octets> = entries.iter().map(volumes).collect::<Result<_>>()?;
        Ok(Self {
            sealed: sum(containers.values()),
            containers: containers.len(),
            requests: exchanges.len(),
            retransmissions: exchanges.iter().filter(|one| one["request"]["retransmissionIndicator"] == true).count(),
            debited: sum(debits.iter()),
            debits: debits.len(),
            bought,
            left: package(server, subscriber)?.balance,
        })
    }

    /// The figures that are to be equal.
    pub(super) fn booked(&self) -> Booked {
        let package = i128::from(self.bought) - i128::from(self.left);
        Booked { sealed: self.sealed, debited: self.debited, package }
    }
}

/// The subscriber's only package.
pub(super) fn package(server: &Client, subscriber: &str) -> Result<Package> {
    let answer = server.get(&format!("/admin/v1/packages?subscriber={subscriber}"))?;
    let package = answer["packages"].get(0).with_context(|| format!("no package in {answer}"))?;
    Ok(Package {
        total: number(package, "totalVolume")?,
        used: number(package, "usedVolume")?,
        reserved: number(package, "reservedVolume")?,
        balance: package["balance"].as_i64().with_context(|| format!("no balance in {package}"))?,
    })
}

fn exchanges(recorded: &Path) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    let listed = fs::read_dir(recorded).with_context(|| format!("list {}", recorded.display()))?;
    for entry in listed {
        let path = entry?.path();
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        all.push(serde_json::from_str(&text).with_context(|| format!("{}: no JSON", path.display()))?);
    }
    Ok(all)
}

/// Which container: charging id, rating group, local sequence number.
type Key = (u64, u64, u64);

/// The containers inside the quota, each once however often it was sent.
fn sealed_containers(exchanges: &[Value]) -> Result<BTreeMap<Key, Octets>> {
    let mut found = BTreeMap::new();
    for exchange in exchanges {
        let request = &exchange["request"];
        for usage in request["multipleUnitUsage"].as_array().into_iter().flatten() {
            for container in usage["usedUnitContainer"].as_array().into_iter().flatten() {
                if container["quotaManagementIndicator"] != "ONLINE_CHARGING" {
                    continue;
                }
                let key = (
                    number(request, "chargingId")?,
                    number(usage, "ratingGroup")?,
                    number(container, "localSequenceNumber")?,
                );
                let octets = volumes(container)?;
                let before = found.insert(key, octets);
                ensure!(
                    before.is_none_or(|before| before == octets),
                    "container {key:?} was sent as {before:?} and as {octets:?}"
                );
            }
        }
    }
    Ok(found)
}

/// `totalVolume`, `uplinkVolume` and `downlinkVolume`, which must add up.
fn volumes(value: &Value) -> Result<Octets> {
    let octets = Octets { uplink: number(value, "uplinkVolume")?, downlink: number(value, "downlinkVolume")? };
    ensure!(number(value, "totalVolume")? == octets.total(), "uplink and downlink are not the total in {value}");
    Ok(octets)
}

fn number(value: &Value, member: &str) -> Result<u64> {
    value[member].as_u64().with_context(|| format!("no {member} in {value}"))
}

fn sum<'a>(all: impl Iterator<Item = &'a Octets>) -> Octets {
    all.fold(Octets::default(), |mut sum, one| {
        sum += *one;
        sum
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn exchange(local: u64, indicator: &str, uplink: u64) -> Value {
        json!({"kind": "update", "request": {"chargingId": 7, "multipleUnitUsage": [{"ratingGroup": 10, "usedUnitContainer": [{
            "quotaManagementIndicator": indicator, "localSequenceNumber": local,
            "totalVolume": uplink + 1, "uplinkVolume": uplink, "downlinkVolume": 1,
        }]}]}})
    }

    #[test]
    fn a_container_that_was_sent_twice_counts_once_and_one_outside_the_quota_not_at_all() {
        let sent = [
            exchange(1, "ONLINE_CHARGING", 10),
            exchange(1, "ONLINE_CHARGING", 10),
            exchange(2, "ONLINE_CHARGING", 20),
        ];
        let sent = [sent.as_slice(), &[exchange(3, "OFFLINE_CHARGING", 40)]].concat();
        let found = sealed_containers(&sent).unwrap();
        assert_eq!(sum(found.values()), Octets { uplink: 30, downlink: 2 });
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_container_that_changed_between_two_sendings_is_an_error() {
        let sent = [exchange(1, "ONLINE_CHARGING", 10), exchange(1, "ONLINE_CHARGING", 11)];
        assert!(sealed_containers(&sent).unwrap_err().to_string().contains("(7, 10, 1)"));
    }
}
