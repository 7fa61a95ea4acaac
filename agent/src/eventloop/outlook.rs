//! What each link in use has to say to the hosts that send over it: put together for the captive portal API.

use anyhow::Result;

use super::Agent;
use super::station::{Attachment, Station};
use crate::clock::boot_now;
use crate::local::{Outlook, Passage};
use crate::quota::{GateMode, Overview, State, WhenUsedUp};
use crate::units::Octets;

impl Agent {
    /// Of each metered link that is in use. A link that stands by is no way out, and none that is lost.
    pub(super) fn outlooks(&self) -> Result<Vec<Outlook>> {
        let now = boot_now()?;
        let in_use = |station: &&Station| station.in_use && matches!(station.attachment, Attachment::On(_));
        let outlook = |station: &Station| self.outlook(station, &station.quota.overview(now));
        Ok(self.stations.iter().filter(in_use).map(outlook).collect())
    }

    fn outlook(&self, station: &Station, overview: &Overview) -> Outlook {
        let at_the_end = overview.at_the_end.as_ref().map(|end| &end.mode);
        let is_throttled = matches!(at_the_end, Some(GateMode::Throttle(_)));
        // Also what is ended by order, or refused, is for people to mend and not for time.
        let is_shut = overview.aborted || (overview.state == State::Exhausted && !is_throttled);
        let portal = match at_the_end {
            Some(GateMode::Redirect(portal)) => Some(portal.url.clone()),
            Some(GateMode::Block | GateMode::Throttle(_) | GateMode::Restrict(_)) | None => None,
        };
        let terms = station.sim.as_ref().map(|sim| &sim.terms);
        let has_no_end = terms.is_some_and(|terms| matches!(terms.when_used_up, WhenUsedUp::Throttle(_)));
        let left = match (is_shut, has_no_end) {
            (true, _) => Some(Octets::ZERO),
            (false, true) => None,
            // While the ledger is out of reach it is not known.
            (false, false) => {
                self.package_status(station, overview).ok().and_then(|package| package.left_octets).map(Octets::new)
            }
        };
        Outlook {
            subscriber: station.sim.as_ref().map(|sim| sim.subscriber.to_string()),
            passage: if is_shut { Passage::Shut } else { Passage::Open },
            left,
            portal,
        }
    }
}
