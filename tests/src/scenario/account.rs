//! What the charging server says of one SIM: its package, its sessions, and every entry of its ledger.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::http::Client;

/// Entries of the ledger in one answer, at most.
const PAGE: usize = 10_000;

/// The server's view of one subscriber at one moment.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// Octets debited from the package, uplink.
    pub uplink: u64,
    /// Octets debited from the package, downlink.
    pub downlink: u64,
    /// Octets that passed outside the package and were never debited.
    pub offline: u64,
    /// Octets of containers that came once more and were not debited again.
    pub duplicates: u64,
    /// The package's octets.
    pub total: u64,
    /// What the package says was used.
    pub used: u64,
    /// What open sessions hold of it.
    pub reserved: u64,
    /// Total less used; negative when overdrawn.
    pub balance: i64,
    /// The sessions, oldest first.
    pub sessions: Vec<Value>,
    /// The ledger, oldest entry first.
    pub entries: Vec<Value>,
}

impl Account {
    pub(super) fn of(admin: &Client, subscriber: &str) -> Result<Self> {
        let list = |path: &str, member: &str| -> Result<Vec<Value>> {
            let answer = admin.get(path)?;
            answer[member].as_array().cloned().with_context(|| format!("{member} in {answer}"))
        };
        let mut entries = Vec::new();
        loop {
            let after = entries.last().map_or(0, |entry: &Value| entry["id"].as_i64().unwrap_or(i64::MAX));
            let path = format!("/admin/v1/ledger?subscriber={subscriber}&after={after}&limit={PAGE}");
            let page = list(&path, "entries")?;
            let full = page.len() == PAGE;
            entries.extend(page);
            if !full {
                break;
            }
        }
        let packages = list(&format!("/admin/v1/packages?subscriber={subscriber}"), "packages")?;
        let package = packages.first().context("a package")?;
        let sum = |kind: &str, member: &str| -> u64 {
            let entries = entries.iter().filter(|entry| entry["kind"] == kind);
            entries.filter_map(|entry| entry[member].as_u64()).sum()
        };
        Ok(Self {
            uplink: sum("debit", "uplinkVolume"),
            downlink: sum("debit", "downlinkVolume"),
            offline: sum("offline", "totalVolume"),
            duplicates: sum("duplicate", "totalVolume"),
            total: number(package, "totalVolume")?,
            used: number(package, "usedVolume")?,
            reserved: number(package, "reservedVolume")?,
            balance: package["balance"].as_i64().with_context(|| format!("balance in {package}"))?,
            sessions: list(&format!("/admin/v1/sessions?subscriber={subscriber}"), "sessions")?,
            entries,
        })
    }

    /// Octets debited, both directions, container by container.
    #[must_use]
    pub const fn debited(&self) -> u64 {
        self.uplink + self.downlink
    }

    /// The entries of one kind.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.entries.iter().filter(move |entry| entry["kind"] == kind)
    }

    /// Fails unless the package, the sum of the containers and the sessions say the same, and no container was debited twice.
    pub fn is_consistent(&self) -> Result<()> {
        ensure!(self.used == self.debited(), "used {}, containers {}", self.used, self.debited());
        let balance = i64::try_from(self.total)? - i64::try_from(self.used)?;
        ensure!(self.balance == balance, "balance {}, total less used {balance}", self.balance);
        let by_session: u64 = self.sessions.iter().filter_map(|session| session["debitedVolume"].as_u64()).sum();
        // What a forgotten session had used comes as a one-time event, which belongs to no session.
        let one_time = self.of_kind("debit").filter(|entry| entry["ref"].is_null());
        let one_time: u64 = one_time.filter_map(|entry| entry["totalVolume"].as_u64()).sum();
        ensure!(by_session + one_time == self.used, "used {}, by sessions {by_session}, {one_time} besides", self.used);
        let mut names = BTreeSet::new();
        for entry in self.of_kind("debit") {
            let name = (entry["chargingId"].as_u64(), entry["localSequenceNumber"].as_u64());
            ensure!(names.insert(name), "container {name:?} was debited twice");
        }
        Ok(())
    }

    /// Fails unless nothing is open any more: every session released, nothing reserved.
    pub fn is_settled(&self) -> Result<()> {
        self.is_consistent()?;
        for session in &self.sessions {
            ensure!(session["state"] == "released", "{session}");
        }
        ensure!(self.reserved == 0, "{} octets still reserved", self.reserved);
        Ok(())
    }
}

fn number(value: &Value, member: &str) -> Result<u64> {
    value[member].as_u64().with_context(|| format!("{member} in {value}"))
}
