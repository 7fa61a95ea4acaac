//! What people ask of the running agent beyond its status: the ledger's account, and that more is asked for now.

use anyhow::Result;
use tokio::sync::oneshot;

use super::Agent;
use crate::clock::boot_now;
use crate::ledger::{Accounts, account};
use crate::local::{RENEWED_SCHEMA, Renewed, RenewedLink};
use crate::quota::{Event, Renewal};

impl Agent {
    /// Reads the account beside the loop, over a connection of its own: with a long backlog that takes its time. What cannot be read is
    /// not answered, and said in the log.
    pub(super) fn send_account(&self, reply: oneshot::Sender<Accounts>) {
        let path = self.config.ledger.clone();
        tokio::task::spawn_blocking(move || match account(&path) {
            // Whoever asked may have gone.
            Ok(account) => drop(reply.send(account)),
            Err(error) => tracing::warn!("the ledger's account cannot be told: {error:#}"),
        });
    }

    /// Has more asked for on the link of that name, or on all. What comes of it the core says.
    pub(super) fn renew(&mut self, link: Option<&str>) -> Result<Renewed> {
        let mut renewed = Renewed { schema: RENEWED_SCHEMA, links: Vec::new() };
        for index in 0..self.stations.len() {
            let station = &self.stations[index];
            let Some(name) = station.name.clone().filter(|name| link.is_none_or(|link| link == name)) else { continue };
            let overview = station.quota.overview(boot_now()?);
            let grants = overview.session.and_then(|session| self.ledger.grants(session).ok()).unwrap_or(0);
            let (asked, why, again) = match station.quota.renewal(boot_now()?) {
                _ if self.trouble.is_some() => (false, "ledger-trouble", None),
                Renewal::Asks => (true, "asks", None),
                Renewal::AfterAnswer => (true, "after-answer", None),
                Renewal::TooSoon(soonest) => (false, "too-soon", Some(soonest)),
                Renewal::NotInUse => (false, "not-in-use", None),
                Renewal::Aborted => (false, "aborted", None),
                Renewal::NoSession => (false, "no-session", None),
            };
            let moment = self.clock.now()?;
            renewed.links.push(RenewedLink {
                link: name,
                asked,
                why: why.to_owned(),
                again_at: again.map(|at| moment.label(at).wall.to_string()),
                grants,
                had_octets: overview.remaining.get(),
            });
            if asked {
                self.tell(index, Event::Renew)?;
            }
        }
        Ok(renewed)
    }
}
