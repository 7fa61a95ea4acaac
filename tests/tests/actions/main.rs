//! What becomes of a used-up link: what the server and the configuration permit passes, told apart and never debited, whoever sends the rest
//! hears of it, and each action can be changed and ended at any moment.

mod probes;
mod revoked;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::Result;
use e2e::scenario::{Plot, SOON, World};
use e2e::topology::{HOST_V4, HOST_V6, LAN};
use serde_json::json;

use self::probes::{
    FAR, PATIENCE, RATE, SILENCE, TOTAL, captives_hear, captives_hear_what_is_left, ending, explains, is_carried,
    is_reached_at, is_refused, is_refused_to_ask, now_says, order, settles, to_and_from,
};

/// Where the gateway answers hosts behind it: an address that it has not from the start.
const CAPTIVE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 64, 0, 9)), 8908);

/// The gateway, as the client reaches it.
const GATEWAY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 64, 0, 1));

#[test]
fn a_restricted_link_carries_what_the_server_permits_and_its_word_counts_at_any_moment() -> Result<()> {
    let [v4, v6] = FAR;
    let rules: Vec<String> = [v4, v6].into_iter().flat_map(to_and_from).collect();
    let plot = Plot::of(ending(&json!({ "finalUnitAction": "RESTRICT_ACCESS", "restrictionFilterRules": rules })));
    let world = World::online(&plot)?;
    let (books, flow) = world.under_traffic(RATE, 1000)?;
    world.reaches(0, &["exhausted"])?;
    explains(&world, "only what the filters permit")?;
    flow.stalls(SILENCE, SOON)?;
    for far in [v4, v6] {
        is_carried(&world, far, 100_000)?;
    }
    // It takes all of it back, then permits some of it, then says what nobody can follow, then what it said at first.
    now_says(&world, &json!({ "finalUnitAction": "TERMINATE" }))?;
    explains(&world, "traffic is blocked")?;
    is_refused(&world, v6)?;
    now_says(&world, &json!({ "restrictionFilterRuleList": to_and_from(v6) }))?;
    explains(&world, "only what the filters permit")?;
    is_refused(&world, v4)?;
    is_carried(&world, v6, 10_000)?;
    now_says(&world, &json!({ "restrictionFilterRule": "permit in 6 from any to any established" }))?;
    explains(&world, "\"established\" is not supported")?;
    is_refused(&world, v6)?;
    world.admin.delete("/admin/v1/faults")?;
    order(&world, "REAUTHORISE")?;
    explains(&world, "only what the filters permit")?;
    is_carried(&world, v4, 10_000)?;

    world.top_up(0, TOTAL)?;
    flow.carries(TOTAL / 4, PATIENCE)?;
    world.reaches(0, &["exhausted"])?;
    is_carried(&world, v4, 10_000)?;
    flow.stop()?;
    settles(world, books, 2 * TOTAL)
}

#[test]
fn hosts_behind_a_used_up_link_hear_of_it_at_once_and_connect_after_a_top_up() -> Result<()> {
    let listen = SocketAddr::new(GATEWAY, 8908);
    let plot = Plot::of(ending(&json!({})));
    let world = World::online(&plot.section(&format!("[captive_portal]\nlisten = \"{listen}\"")))?;
    let (books, flow) = world.under_traffic(RATE, 1000)?;
    world.reaches(0, &["exhausted"])?;
    // Whoever goes on sending takes nothing from those who ask once.
    for far in [HOST_V4, HOST_V6] {
        is_refused(&world, far)?;
    }
    flow.stop()?;
    for far in [HOST_V4, HOST_V6] {
        is_refused_to_ask(&world, far)?;
    }
    captives_hear(&world, listen, &json!({ "captive": true }))?;
    world.top_up(0, TOTAL)?;
    world.reaches(0, &["active", "renewing", "final"])?;
    captives_hear_what_is_left(&world, listen, TOTAL)?;
    for far in [HOST_V4, HOST_V6] {
        is_carried(&world, far, 10_000)?;
    }
    // The answers went out where the packets came in: the books know of none.
    settles(world, books, 2 * TOTAL)
}

#[test]
fn a_used_up_link_leads_to_the_portal_until_the_server_or_a_top_up_ends_it() -> Result<()> {
    let [v4, v6] = FAR;
    let portal = |address: &str| json!({ "redirectAddressType": "URL", "redirectServerAddress": address });
    let first = portal(&format!("http://{v4}:8080/buy"));
    let plot = Plot::of(ending(&json!({ "finalUnitAction": "REDIRECT", "redirectServer": first })));
    let world = World::online(&plot.section(&format!("[captive_portal]\nlisten = \"{CAPTIVE}\"")))?;
    // The link is metered although nobody could listen there.
    world.topology.gateway.ip(&format!("address add {}/32 dev {LAN}", CAPTIVE.ip()))?;
    captives_hear_what_is_left(&world, CAPTIVE, TOTAL)?;
    let (books, flow) = world.under_traffic(RATE, 1000)?;
    world.reaches(0, &["exhausted"])?;
    explains(&world, "only the portal")?;
    // This portal is not reached over TLS: it passes, and may not be told (RFC 8908 section 5).
    captives_hear(&world, CAPTIVE, &json!({ "captive": true }))?;
    flow.stalls(SILENCE, SOON)?;
    is_reached_at(&world, v4, 8080)?;
    is_reached_at(&world, v4, 443)?;
    is_refused(&world, v6)?;
    // Another portal, then none, then the first one again.
    now_says(&world, &json!({ "finalUnitAction": "REDIRECT", "redirectServer": portal(&format!("https://[{v6}]/")) }))?;
    let led = json!({ "captive": true, "user-portal-url": format!("https://[{v6}]/"), "can-extend-session": true });
    explains(&world, &format!("only the portal https://[{v6}]/"))?;
    captives_hear(&world, CAPTIVE, &led)?;
    is_reached_at(&world, v6, 443)?;
    is_refused(&world, v4)?;
    now_says(&world, &json!({ "finalUnitAction": "TERMINATE" }))?;
    explains(&world, "traffic is blocked")?;
    captives_hear(&world, CAPTIVE, &json!({ "captive": true }))?;
    is_refused(&world, v6)?;
    world.admin.delete("/admin/v1/faults")?;
    order(&world, "REAUTHORISE")?;
    explains(&world, "only the portal")?;
    is_reached_at(&world, v4, 8080)?;

    world.top_up(0, TOTAL)?;
    flow.carries(TOTAL / 4, PATIENCE)?;
    world.reaches(0, &["exhausted"])?;
    is_reached_at(&world, v4, 8080)?;
    flow.stop()?;
    settles(world, books, 2 * TOTAL)
}
