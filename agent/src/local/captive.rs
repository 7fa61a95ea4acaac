//! The captive portal API (RFC 8908): tells hosts behind the gateway whether what they send passes, and where more is sold.
//!
//! It is a public document, the same for whoever asks: it names no SIM and no host, and nothing can be done with it. So neither `Host`
//! nor `Origin` is looked at: a page of a stranger that gets at it by a name of its own reads what every host behind the gateway is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use super::ask::{Asker, NotNow, Question};
use super::tcp::{accept, bounded, opened};
use crate::clock::boot_now;
use crate::units::{BootInstant, Octets};

/// Where it answers; the whole address is what DHCP option 114 tells (RFC 8910).
pub(super) const PATH: &str = "/captive-portal/api";

/// What it answers with (RFC 8908 section 8.1).
const CAPTIVE_JSON: &str = "application/captive+json";

/// An answer stands for so long: who asks again and again asks the agent once a second.
const STANDS: Duration = Duration::from_secs(1);

/// What a metered link in use has to say to those who send over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// Whose units it uses; `None` without a SIM.
    pub subscriber: Option<String>,
    /// What becomes of what is sent.
    pub passage: Passage,
    /// Octets that may pass until nothing does; `None` = not known, or for ever (a link that is throttled then).
    pub left: Option<Octets>,
    /// Where more is sold, from the last units on.
    pub portal: Option<String>,
}

/// What becomes of what is sent over a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// It passes, throttled or not, or will in a moment.
    Open,
    /// Nothing passes but what a used-up link lets through, until there are more units.
    Shut,
}

/// RFC 8908 section 5.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Captive {
    captive: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_portal_url: Option<String>,
    /// Whether more is sold there.
    #[serde(skip_serializing_if = "Option::is_none")]
    can_extend_session: Option<bool>,
    /// Layer-3 octets of all hosts together until captivity.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes_remaining: Option<u64>,
}

impl Captive {
    /// Links in use are ways out of which any will do: hosts are captive when none of them is open.
    fn of(outlooks: &[Outlook]) -> Self {
        let captive = !outlooks.is_empty() && outlooks.iter().all(|outlook| outlook.passage == Passage::Shut);
        let mut portals = outlooks.iter().filter_map(|outlook| outlook.portal.as_deref());
        // The portal has to be reached over TLS; another one is let through all the same, and has to be told otherwise.
        let portal = portals.find(|url| is_over_tls(url));
        Self {
            captive,
            user_portal_url: portal.map(str::to_owned),
            can_extend_session: portal.map(|_| true),
            bytes_remaining: if captive { None } else { left(outlooks).map(Octets::get) },
        }
    }
}

fn is_over_tls(url: &str) -> bool {
    url.split_once("://").is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("https"))
}

/// What all links together have left: links of one SIM have the same package. `None` where that of one is not known, or has no end.
fn left(outlooks: &[Outlook]) -> Option<Octets> {
    let mut packages = BTreeMap::new();
    for outlook in outlooks {
        let left = packages.entry(&outlook.subscriber).or_insert(Octets::ZERO);
        *left = (*left).max(outlook.left?);
    }
    let sum = packages.into_values().fold(Octets::ZERO, Octets::saturating_add);
    (!outlooks.is_empty()).then_some(sum)
}

/// Answers whoever asks on this address, until the runtime ends. One that is not there yet is told and tried again: nothing of it
/// keeps links from being metered.
pub fn tell_captives(listen: SocketAddr, asker: Asker) {
    tokio::spawn(async move {
        let listener = opened("the captive portal API is", || begin(listen)).await;
        tracing::info!(%listen, "the captive portal API is served");
        accept(&listener, &router(asker)).await;
    });
}

async fn begin(listen: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(listen).await.with_context(|| format!("listening on {listen} (captive_portal.listen)"))
}

pub(super) fn router(asker: Asker) -> Router {
    bounded(Router::new().route(PATH, get(answer)).with_state(Teller { asker, last: Arc::default() }))
}

/// Asks the agent, and remembers the answer for a moment.
#[derive(Clone)]
struct Teller {
    asker: Asker,
    last: Arc<Mutex<Option<(Captive, BootInstant)>>>,
}

impl Teller {
    /// Whoever comes while the agent is being asked waits for the same answer.
    async fn tell(&self) -> Result<Captive, NotNow> {
        let mut last = self.last.lock().await;
        let now = boot_now().map_err(|_| NotNow)?;
        if let Some((captive, at)) = &*last
            && now < at.plus(STANDS)
        {
            return Ok(captive.clone());
        }
        let captive = Captive::of(&self.asker.ask(Question::Outlooks).await?);
        *last = Some((captive.clone(), now));
        Ok(captive)
    }
}

async fn answer(State(teller): State<Teller>) -> Result<impl IntoResponse, NotNow> {
    let captive = teller.tell().await?;
    Ok(([(CONTENT_TYPE, CAPTIVE_JSON), (CACHE_CONTROL, "private, no-store")], Json(captive)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHOP: &str = "https://shop.example/";

    fn link(sim: &str, passage: Passage, left: Option<u64>, portal: Option<&str>) -> Outlook {
        Outlook {
            subscriber: Some(sim.to_owned()),
            passage,
            left: left.map(Octets::new),
            portal: portal.map(str::to_owned),
        }
    }

    fn json(outlooks: &[Outlook]) -> String {
        serde_json::to_string(&Captive::of(outlooks)).expect("JSON")
    }

    #[test]
    fn hosts_are_captive_while_no_link_in_use_is_open() {
        let shut = || link("a", Passage::Shut, Some(0), None);
        let open = || link("b", Passage::Open, None, None);
        for (links, captive) in [
            (vec![], false),
            (vec![open()], false),
            (vec![shut()], true),
            (vec![shut(), shut()], true),
            (vec![shut(), open()], false),
        ] {
            assert_eq!(json(&links), format!("{{\"captive\":{captive}}}"), "{links:?}");
        }
    }

    #[test]
    fn a_portal_is_told_where_it_is_reached_over_tls_and_from_the_last_units_on() {
        let led = |portal: &str| json(&[link("a", Passage::Shut, Some(0), Some(portal))]);
        assert_eq!(led(SHOP), format!(r#"{{"captive":true,"user-portal-url":"{SHOP}","can-extend-session":true}}"#));
        assert!(led("HTTPS://shop.example").contains(r#""user-portal-url":"HTTPS://shop.example""#));
        assert_eq!(led("http://shop.example/"), r#"{"captive":true}"#);
        let last = json(&[link("a", Passage::Open, Some(700), Some(SHOP))]);
        let expected = r#"{"captive":false,"user-portal-url":"https://shop.example/","can-extend-session":true,"bytes-remaining":700}"#;
        assert_eq!(last, expected);
    }

    #[test]
    fn what_is_left_is_what_all_links_have_together_and_each_package_counts_once() {
        let open = |sim: &str, left: Option<u64>| link(sim, Passage::Open, left, None);
        let shut = || link("c", Passage::Shut, Some(0), None);
        for (links, left) in [
            (vec![open("a", Some(700))], Some(700)),
            (vec![open("a", Some(700)), open("b", Some(50))], Some(750)),
            (vec![open("a", Some(700)), open("a", Some(700))], Some(700)),
            (vec![open("a", Some(700)), shut()], Some(700)),
            (vec![open("a", Some(700)), open("b", None)], None),
            (vec![open("a", Some(u64::MAX)), open("b", Some(1))], Some(u64::MAX)),
        ] {
            assert_eq!(Captive::of(&links).bytes_remaining, left, "{links:?}");
        }
    }
}
