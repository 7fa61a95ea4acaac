//! Where the charging server is: looked up now and then, remembered for the day when nobody answers, and let through every gate.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use url::Host;

use super::{Agent, Message};
use crate::datapath::AllowList;
use crate::reporter;

/// Setting of the ledger that holds the addresses last found, and of whom.
const ADDRESSES: &str = "server-addresses";
/// The name is looked up this often, and sooner when a message was not answered.
const LOOK_UP: Duration = Duration::from_mins(5);
/// Never more often than this.
const LOOK_UP_LEAST: Duration = Duration::from_secs(10);

/// What the ledger remembers of a lookup.
#[derive(Deserialize, Serialize)]
struct Remembered {
    host: String,
    addresses: Vec<SocketAddr>,
}

impl Agent {
    /// Takes the server's addresses of an earlier run: the resolver may be out of reach now. Where there are none, the resolvers pass
    /// every gate all the same, or nobody could ever look the server up.
    pub(super) fn recall_addresses(&mut self) -> Result<()> {
        let mut servers = Vec::new();
        if let Some(text) = self.ledger.setting(ADDRESSES)? {
            let remembered: Remembered = serde_json::from_str(&text).context("reading the server's last addresses")?;
            if Some(remembered.host.as_str()) == self.config.server.url.host_str() {
                servers = remembered.addresses;
            }
        }
        self.set_allow_list(AllowList { servers, resolvers: self.resolvers() })
    }

    fn resolvers(&self) -> Vec<IpAddr> {
        self.config.agent.resolvers.clone().unwrap_or_else(system_resolvers)
    }

    /// Looks up the server's addresses now and then.
    pub(super) fn watch_server_addresses(&self) {
        let inbox = self.inbox.clone();
        let url = self.config.server.url.clone();
        let resolvers = self.resolvers();
        let doubt = Arc::clone(&self.doubt);
        tokio::spawn(async move {
            loop {
                match server_addresses(&url).await {
                    Ok(servers) => {
                        if inbox.send(Message::Allow(AllowList { servers, resolvers: resolvers.clone() })).is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(
                            "the server's name cannot be looked up, the last known addresses stand: {error:#}"
                        );
                        doubt.notify_one();
                    }
                }
                wait_for_doubt(&doubt).await;
            }
        });
    }

    /// The server's addresses and the resolvers pass every gate, and then the addresses are remembered: a ledger in trouble keeps nobody
    /// from the server.
    pub(super) fn set_allow_list(&mut self, list: AllowList) -> Result<()> {
        // Which of them is tried first is the resolver's word of the moment; the gates know no order.
        self.http.addresses().learn(&list.servers);
        if self.allow.entries() == list.entries() {
            return Ok(());
        }
        tracing::info!(servers = ?list.servers, resolvers = ?list.resolvers, "control traffic allowed");
        let servers: Vec<IpAddr> = list.servers.iter().map(SocketAddr::ip).collect();
        self.servers.send_if_modified(|before| std::mem::replace(before, servers.clone()) != servers);
        self.allow = list;
        for station in &mut self.stations {
            if let Some(datapath) = &mut station.datapath {
                datapath.set_allow_list(&self.allow)?;
            }
        }
        self.remember_addresses()
    }

    /// Stores the addresses that were last found, for the next start.
    pub(super) fn remember_addresses(&mut self) -> Result<()> {
        let Some(Host::Domain(host)) = self.config.server.url.host() else { return Ok(()) };
        if self.allow.servers.is_empty() {
            return Ok(());
        }
        let remembered = Remembered { host: host.to_owned(), addresses: self.allow.servers.clone() };
        let text = serde_json::to_string(&remembered).context("writing the server's addresses")?;
        self.ledger.set_setting(ADDRESSES, &text)
    }

    /// The links that lead to the server, in the order in which they are tried when the kernel's own way has failed.
    pub(super) fn ways(&self, station: usize) -> Vec<reporter::Route> {
        let own = self.stations[station].name.as_deref().unwrap_or_default();
        let metered = |name: &str| self.stations.iter().any(|station| station.name.as_deref() == Some(name));
        let servers = self.servers.borrow();
        let preferred = |name: &str| self.config.server.ways.iter().position(|way| crate::config::fits(way, name));
        let links = self.links.borrow();
        let names = links.ways_out(own, &servers, metered, preferred);
        names.into_iter().map(|name| reporter::Route::Device(name.to_owned())).collect()
    }
}

/// Until it is time to look again: in five minutes, or as soon as somebody has got no answer.
async fn wait_for_doubt(doubt: &Notify) {
    tokio::time::sleep(LOOK_UP_LEAST).await;
    tokio::select! {
        () = doubt.notified() => {}
        () = tokio::time::sleep(LOOK_UP) => {}
    }
}

/// The addresses of the charging server, with its port.
async fn server_addresses(url: &Url) -> Result<Vec<SocketAddr>> {
    let port = url.port_or_known_default().context("the server's URL has no port")?;
    match url.host().context("the server's URL has no host")? {
        Host::Ipv4(address) => Ok(vec![(address, port).into()]),
        Host::Ipv6(address) => Ok(vec![(address, port).into()]),
        Host::Domain(name) => {
            let found = tokio::net::lookup_host((name, port)).await.with_context(|| format!("looking up {name}"))?;
            Ok(found.collect())
        }
    }
}

/// The resolvers of `/etc/resolv.conf`; none when it cannot be read.
fn system_resolvers() -> Vec<IpAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let addresses = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    addresses.filter_map(|address| address.trim().parse().ok()).collect()
}
