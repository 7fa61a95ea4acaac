//! `weir doctor`: looks at everything that metering stands on, and says what is wrong, why it matters and what to type.
//!
//! Each check gathers facts and has them judged by a function of its own, which is pure. Nothing is attached, loaded to stay, or changed:
//! all that is written is a probe file beside the ledger, removed at once. It works with or without the agent, and without root
//! as far as that goes: what may not be looked at is said.

mod agent;
mod counters;
mod finding;
mod hooks;
mod links;
mod machine;
mod offload;
mod server;
mod state;
mod text;
mod time;

use std::io;
use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::clock::{Label, Moment};
use crate::config::{Config, ConfigError};
use crate::link::{self, Glance, Links};
use crate::local::NoAgent;
use agent::Presence;

pub use finding::{Check, Finding, Report, SCHEMA, Verdict};
pub use text::{as_json, render};

/// What to do about a missing right.
const AS_ROOT: &str = "run it as root: sudo weir doctor";

/// Whether the server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It is, over every way: some thousand octets, metered like anything else.
    Server,
    /// Nothing leaves the machine.
    Offline,
}

/// Looks at everything, in some seconds. `path` is the configuration file.
pub async fn examine(path: &Path, reach: Reach) -> Result<Report> {
    let label = Moment::now()?.label;
    let mut findings = machine::findings();
    findings.push(time::synced(label));
    let device = match Config::load(path) {
        Ok(config) => {
            findings.push(Finding::ok(Check::ConfigValid, "is right").of(path.display().to_string()));
            findings.extend(configured(path, &config, reach).await);
            Some(config.device.id)
        }
        Err(error) => {
            findings.push(unusable(path, &error));
            None
        }
    };
    findings.sort_by_key(|finding| finding.check);
    Ok(Report { device, at: written(label), findings })
}

/// A configuration that this user may not read may be right.
fn unusable(path: &Path, error: &ConfigError) -> Finding {
    let check = Check::ConfigValid;
    if error.unread == Some(io::ErrorKind::PermissionDenied) {
        return Finding::not_checked(check, format!("{} may not be read by this user", path.display()), AS_ROOT);
    }
    let fix = format!("correct it, then: weir config check --config {}", path.display());
    Finding::problem(check, error.to_string(), fix)
}

/// In whole seconds.
fn written(label: Label) -> String {
    Timestamp::from_second(label.wall.as_second()).unwrap_or(label.wall).to_string()
}

/// What can be looked at once it is known what is wanted.
async fn configured(path: &Path, config: &Config, reach: Reach) -> Vec<Finding> {
    let mut findings = state::rights(path, config);
    findings.extend(state::storage(config));
    let presence = Presence::look(config).await;
    findings.push(agent::running(&presence, &config.agent.socket));
    if let Ok(status) = &presence.status {
        findings.extend(agent::books(status));
    }
    let life = presence.life();
    let links = match links_now().await {
        Ok(links) => links,
        Err(error) => {
            findings.push(Finding::not_checked(Check::LinkPresent, format!("{error:#}"), AS_ROOT));
            return findings;
        }
    };
    findings.extend(agent::pins(config, &links, life));
    let (told, metered) = links::findings(config, &links);
    findings.extend(told);
    for link in &metered {
        findings.extend(hooks::findings(config, link, life));
        findings.push(hooks::xdp(&link.name, &Glance::at(&link.name).await));
    }
    findings.extend(offload::findings(&metered));
    let counted = counters::findings(config, &metered);
    match reach {
        // At the same time: on an idle link the questions are something to compare.
        Reach::Server => {
            let (counted, asked) = tokio::join!(counted, server::findings(config, &metered));
            findings.extend(counted.into_iter().chain(asked));
        }
        Reach::Offline => findings.extend(counted.await),
    }
    findings
}

/// The links and default routes of this moment.
async fn links_now() -> Result<Links> {
    // No server's address: default routes are all that is wanted.
    let (_nobody, servers) = watch::channel(Vec::new());
    let links = link::watch(servers).await?;
    let now = links.borrow().clone();
    Ok(now)
}

/// Tells whether an error is a missing right.
fn is_forbidden(error: &anyhow::Error) -> bool {
    let forbids = |error: &io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    error.chain().any(|cause| {
        cause.downcast_ref::<NoAgent>().is_some_and(|nobody| nobody.kind == io::ErrorKind::PermissionDenied)
            || cause.downcast_ref::<io::Error>().is_some_and(forbids)
            || cause.downcast_ref::<nix::errno::Errno>().is_some_and(|errno| forbids(&io::Error::from(*errno)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_may_not_be_read_is_not_called_wrong() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir.toml");
        std::fs::write(&path, "[device]\n").unwrap();
        let mut wrong = Config::load(&path).unwrap_err();
        assert_eq!(unusable(&path, &wrong).verdict, Verdict::Problem);
        // As a user without rights has it: root may read everything.
        wrong.unread = Some(io::ErrorKind::PermissionDenied);
        let told = unusable(&path, &wrong);
        assert_eq!((told.verdict, told.fix.as_deref()), (Verdict::NotChecked, Some(AS_ROOT)));
        let missing = Config::load(&directory.path().join("none")).unwrap_err();
        assert_eq!(missing.unread, Some(io::ErrorKind::NotFound));
        assert_eq!(unusable(&path, &missing).verdict, Verdict::Problem);
    }
}
