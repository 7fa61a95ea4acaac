//! Units that are taken back, by an order or with the package, after their use and in the middle of it; and given again: whatever
//! becomes of a used-up link, and not an octet over what was granted.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use e2e::eventually::eventually;
use e2e::scenario::{Plot, SOON, World};
use e2e::topology::HOST_V4;
use serde_json::{Value, json};

use super::probes::{
    FAR, PATIENCE, RATE, SILENCE, TOTAL, ending, explains, is_carried, is_reached_at, is_refused_at, now_withdraws,
    order, settles, to_and_from,
};

/// More than passes in the middle of use.
const PLENTY: u64 = 20 * TOTAL;

/// What becomes of a used-up link, as its package says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Block,
    Restrict,
    Redirect,
    Throttle,
}

/// The portal's port.
const PORTAL: u16 = 8080;

impl Action {
    fn package(self) -> Value {
        let portal = json!({
            "redirectAddressType": "URL",
            "redirectServerAddress": format!("http://{}:{PORTAL}/", FAR[0]),
        });
        ending(&match self {
            Self::Block => json!({ "finalUnitAction": "TERMINATE" }),
            Self::Restrict => {
                json!({ "finalUnitAction": "RESTRICT_ACCESS", "restrictionFilterRules": to_and_from(FAR[0]) })
            }
            Self::Redirect => json!({ "finalUnitAction": "REDIRECT", "redirectServer": portal }),
            Self::Throttle => json!({ "whenUsedUp": "throttle", "throttleRate": 400_000 }),
        })
    }

    /// Waits until the link is used up, and fails unless what passes then does, and nothing else.
    fn holds(self, world: &World) -> Result<()> {
        world.reaches(0, &["exhausted"])?;
        let elsewhere = SocketAddr::new(HOST_V4, PORTAL);
        match self {
            Self::Block => explains(world, "traffic is blocked")?,
            Self::Restrict => is_carried(world, FAR[0], 10_000)?,
            Self::Redirect => is_reached_at(world, FAR[0], PORTAL)?,
            Self::Throttle => return passes(world, beyond, 20_000),
        }
        is_refused_at(world, elsewhere)
    }
}

/// Octets that have passed within the quota.
fn within(world: &World) -> Result<u64> {
    world.passed(0)
}

/// Octets that have passed outside of it.
fn beyond(world: &World) -> Result<u64> {
    let kernel = world.kernel(0)?;
    Ok(kernel.uplink.throttled.octets + kernel.downlink.throttled.octets)
}

/// Waits until so many octets more have passed by this count.
fn passes(world: &World, count: impl Fn(&World) -> Result<u64>, octets: u64) -> Result<()> {
    let goal = count(world)? + octets;
    eventually(&format!("{octets} octets to pass"), PATIENCE, || {
        let passed = count(world)?;
        ensure!(passed >= goal, "{passed} of {goal}");
        Ok(())
    })
}

/// Fails unless nobody passes, not to where a used-up link leads either, and whoever tries hears of it.
fn nothing_passes(world: &World) -> Result<()> {
    for far in [FAR[0], HOST_V4] {
        is_refused_at(world, SocketAddr::new(far, PORTAL))?;
    }
    Ok(())
}

fn is_ended_by_order(world: &World) -> Result<()> {
    order(world, "ABORT")?;
    explains(world, "ended by order of the server")?;
    eventually("the session to be settled", SOON, || world.account(0)?.is_settled())?;
    nothing_passes(world)
}

/// One life of a link: used up, topped up, used up, ended by order, topped up, ended by order in the middle of use, allowed anew, and its
/// package withdrawn in the middle of use and given back.
fn is_taken_and_given(action: Action) -> Result<()> {
    let world = World::online(&Plot::of(action.package()))?;
    let (books, flow) = world.under_traffic(RATE, 1000)?;
    action.holds(&world)?;
    world.top_up(0, TOTAL)?;
    passes(&world, within, TOTAL / 2)?;
    action.holds(&world)?;

    is_ended_by_order(&world)?;
    flow.stalls(SILENCE, SOON)?;
    let given = 2 * TOTAL;
    ensure!(world.passed(0)? <= given, "{} of {given} passed", world.passed(0)?);
    world.top_up(0, PLENTY)?;
    passes(&world, within, TOTAL / 2)?;

    is_ended_by_order(&world)?;
    flow.stalls(SILENCE, SOON)?;
    order(&world, "REAUTHORISE")?;
    passes(&world, within, TOTAL / 2)?;

    now_withdraws(&world)?;
    world.reaches(0, &["exhausted"])?;
    if action == Action::Throttle {
        // That the plan says, whatever the server grants.
        action.holds(&world)?;
    } else {
        explains(&world, "traffic is blocked")?;
        nothing_passes(&world)?;
        flow.stalls(SILENCE, SOON)?;
    }
    world.admin.delete("/admin/v1/faults")?;
    order(&world, "REAUTHORISE")?;
    passes(&world, within, TOTAL / 2)?;
    flow.stop()?;
    settles(world, books, given + PLENTY)
}

#[test]
fn units_are_taken_from_a_link_that_blocks_and_given_again_at_any_moment() -> Result<()> {
    is_taken_and_given(Action::Block)
}

#[test]
fn units_are_taken_from_a_link_that_restricts_and_given_again_at_any_moment() -> Result<()> {
    is_taken_and_given(Action::Restrict)
}

#[test]
fn units_are_taken_from_a_link_that_redirects_and_given_again_at_any_moment() -> Result<()> {
    is_taken_and_given(Action::Redirect)
}

#[test]
fn units_are_taken_from_a_link_that_throttles_and_given_again_at_any_moment() -> Result<()> {
    is_taken_and_given(Action::Throttle)
}

#[test]
fn a_session_that_is_forbidden_in_the_middle_of_use_ends_with_a_shut_gate_and_a_top_up_begins_another() -> Result<()> {
    let package = json!({ "totalVolume": PLENTY, "chunk": PLENTY });
    let mut world = World::online(&Plot::of(package))?;
    let (books, flow) = world.under_traffic(RATE, TOTAL)?;
    eventually("the agent to know of some usage", PATIENCE, || {
        let link = world.link_status("wan0")?;
        ensure!(link["session_uplink_octets"].as_u64().is_some_and(|octets| octets > TOTAL / 2), "{link}");
        Ok(())
    })?;
    let no = json!({ "status": 403, "cause": "END_USER_REQUEST_DENIED" });
    let rule = json!({ "kind": "update", "fault": "answer", "status": 403, "body": no, "times": 1 });
    world.admin.put("/admin/v1/faults", &json!({ "rules": [rule] }))?;
    order(&world, "REAUTHORISE")?;
    world.reaches(0, &["exhausted"])?;
    flow.stalls(SILENCE, SOON)?;
    nothing_passes(&world)?;
    // What was in the message is not sent again, and told.
    let aside = world.status()?["set_aside_octets"].as_u64().unwrap_or_default();
    ensure!(aside > 0, "{}", world.status()?);
    world.top_up(0, PLENTY)?;
    passes(&world, within, TOTAL / 2)?;
    flow.stop()?;
    world.stop_agent()?;
    let (passed, account) = (world.passed(0)?, world.account(0)?);
    books.close(&world)?;
    account.is_consistent()?;
    ensure!(account.debited() + aside == passed, "{passed} passed, {aside} aside: {account:?}");
    ensure!(passed <= 2 * PLENTY, "{passed}");
    Ok(())
}
