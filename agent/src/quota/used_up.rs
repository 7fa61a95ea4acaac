//! What becomes of a link's traffic when its package is used up: block, throttle, restrict or redirect, decided from the server's
//! words and the terms.

use super::filter::{self, FilterRule};
use super::portal::Portal;
use super::terms::{GateMode, Terms, WhenUsedUp};
use super::{Exceptions, FinalUnitAction};

/// What becomes of traffic, and why it is not what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedUp {
    /// What the gate does beyond the ceiling.
    pub mode: GateMode,
    /// Why it blocks although something else was asked for, in words.
    pub not_followed: Option<String>,
}

impl UsedUp {
    /// What the terms and the server's last words come to. Whatever cannot be followed to the letter is block.
    pub(super) fn of(terms: &Terms, action: FinalUnitAction, exceptions: &Exceptions) -> Self {
        let mode = match (terms.when_used_up, action) {
            (WhenUsedUp::Throttle(rate), _) => Ok(GateMode::Throttle(rate)),
            (WhenUsedUp::Block, _) | (WhenUsedUp::AsTold, FinalUnitAction::Terminate) => Ok(GateMode::Block),
            (WhenUsedUp::Restrict, FinalUnitAction::Terminate)
            | (WhenUsedUp::Restrict | WhenUsedUp::AsTold, FinalUnitAction::RestrictAccess) => {
                restrict(terms, exceptions)
            }
            (WhenUsedUp::Restrict | WhenUsedUp::AsTold, FinalUnitAction::Redirect) => redirect(exceptions),
        };
        match mode {
            Ok(mode) => Self { mode, not_followed: None },
            Err(why) => Self { mode: GateMode::Block, not_followed: Some(why) },
        }
    }
}

/// The server's rules, then those of the filters it names; where it has neither, the link's own filter; where that is missing as
/// well, nothing but the allow-list.
fn restrict(terms: &Terms, exceptions: &Exceptions) -> Result<GateMode, String> {
    let mut texts: Vec<&str> = exceptions.rules.iter().map(String::as_str).collect();
    let mut names: Vec<&str> = exceptions.filters.iter().map(String::as_str).collect();
    if texts.is_empty() && names.is_empty() {
        names.extend(terms.filters.own.as_deref());
    }
    for name in names {
        let filter = terms.filters.named.get(name);
        let filter = filter.ok_or_else(|| format!("there is no [[filter]] {name:?} in the configuration"))?;
        texts.extend(filter.iter().map(String::as_str));
    }
    let rules: Vec<FilterRule> = filter::rules(texts).map_err(|error| error.to_string())?;
    Ok(if rules.is_empty() { GateMode::Block } else { GateMode::Restrict(rules) })
}

fn redirect(exceptions: &Exceptions) -> Result<GateMode, String> {
    let portal = exceptions.portal.as_deref().ok_or("the server names no portal to lead to")?;
    Portal::parse(portal).map(GateMode::Redirect)
}
