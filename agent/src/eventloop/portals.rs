//! Portals that people are led to when a link is used up: looked up while they are wanted, and let through the gate.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;

use super::{Agent, Message};
use crate::clock::boot_now;
use crate::datapath::filters::portal_rules;
use crate::quota::{FilterRule, GateSetting, Portal, PortalHost};

/// A portal's name is looked up this often while people are led there; what was found last stands when nothing is found.
const LOOK_UP: Duration = Duration::from_mins(1);
/// After a look-up that found nothing, the next one follows after this long.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(5);

/// What is known of portals with names.
#[derive(Debug, Default)]
pub(super) struct Portals {
    /// Addresses by name; none for a name that was not found yet.
    found: BTreeMap<String, Vec<IpAddr>>,
}

impl Portals {
    /// The rules by which a portal is reached; none while its addresses are not known.
    pub(super) fn rules(&self, portal: &Portal) -> Vec<FilterRule> {
        match &portal.host {
            PortalHost::Address(address) => portal_rules(&[*address], portal.port),
            PortalHost::Name(name) => {
                portal_rules(self.found.get(name).map(Vec::as_slice).unwrap_or_default(), portal.port)
            }
        }
    }
}

impl Agent {
    /// Writes a station's gate. What cannot be followed is said once, when it comes up.
    pub(super) fn set_gate(&mut self, station: usize, setting: &GateSetting) -> Result<()> {
        self.stations[station].set_gate(setting, &self.portals)?;
        let label = self.stations[station].label();
        let used_up = self.stations[station].quota.overview(boot_now()?).used_up;
        if let Some(why) = used_up.and_then(|used_up| used_up.not_followed) {
            tracing::warn!(link = label, "used up, and blocked, because what was asked for cannot be followed: {why}");
        }
        if let Some(PortalHost::Name(name)) = self.stations[station].portal().map(|portal| portal.host.clone())
            && !self.portals.found.contains_key(&name)
        {
            self.portals.found.insert(name.clone(), Vec::new());
            self.watch_portal(name);
        }
        Ok(())
    }

    /// Looks a portal's name up, again and again for as long as the agent runs: the few portals that a server names in its life.
    fn watch_portal(&self, host: String) {
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            while !inbox.is_closed() {
                let found = tokio::net::lookup_host((host.as_str(), 0)).await;
                let pause = match found {
                    Ok(found) => {
                        let addresses = found.map(|address| address.ip().to_canonical()).collect();
                        if inbox.send(Message::Portal { host: host.clone(), addresses }).is_err() {
                            return;
                        }
                        LOOK_UP
                    }
                    Err(error) => {
                        tracing::warn!(
                            "the portal {host} cannot be looked up, the last known addresses stand: {error}"
                        );
                        LOOK_UP_AGAIN
                    }
                };
                tokio::time::sleep(pause).await;
            }
        });
    }

    /// A portal was looked up: gates that lead there are written anew where it has moved. What was found before stays beside it for
    /// this time: a name with many addresses tells others each time.
    pub(super) fn portal_found(&mut self, host: &str, mut addresses: Vec<IpAddr>) -> Result<()> {
        addresses.sort();
        addresses.dedup();
        if addresses.is_empty() || self.portals.found.get(host) == Some(&addresses) {
            return Ok(());
        }
        tracing::info!(portal = host, ?addresses, "the portal is let through");
        self.portals.found.insert(host.to_owned(), addresses);
        for station in &mut self.stations {
            let leads_there = |portal: &Portal| portal.host == PortalHost::Name(host.to_owned());
            if station.datapath.is_some() && station.portal().is_some_and(leads_there) {
                station.set_gate_again(&self.portals)?;
            }
        }
        Ok(())
    }
}
