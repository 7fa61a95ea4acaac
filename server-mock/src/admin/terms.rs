//! The terms of a plan: how much, in what portions, and what happens when it is used up.

use serde::{Deserialize, Serialize};

use crate::charging::wire::RedirectServer;
use crate::problem::{InvalidParam, Problem};
use crate::units::{Octets, RatingGroup, Seconds};

const FINAL_UNIT_ACTIONS: [&str; 3] = ["TERMINATE", "REDIRECT", "RESTRICT_ACCESS"];
const ADDRESS_TYPES: [&str; 3] = ["IPV4", "IPV6", "URL"];
const FAILURE_HANDLINGS: [&str; 3] = ["TERMINATE", "CONTINUE", "RETRY_AND_TERMINATE"];
const USED_UP: [&str; 3] = ["block", "restrict", "throttle"];

/// The terms of a plan. A member that is left out has its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Terms {
    pub(crate) rating_group: RatingGroup,
    /// The whole package, 1 to 2^62 octets.
    pub(crate) total_volume: Octets,
    /// What is granted where the agent names no volume.
    pub(crate) chunk: Octets,
    pub(crate) report_interval: Seconds,
    /// 0 stands for the server's own until the plan is stored.
    pub(crate) validity_time: Seconds,
    /// 0 = never.
    pub(crate) quota_holding_time: Seconds,
    /// Of a grant, 0 to 99; 0 leaves it to the agent.
    pub(crate) threshold_percent: u8,
    /// From the purchase on; none = no end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) valid_for: Option<Seconds>,
    pub(crate) final_unit_action: String,
    /// `IPFilterRule`s, in their order, of what still passes under `RESTRICT_ACCESS`. What they say is the agent's to judge.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) restriction_filter_rules: Vec<String>,
    /// Filters that the gateway has, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) filter_ids: Vec<String>,
    /// Where people are led under `REDIRECT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) redirect_server: Option<RedirectServer>,
    pub(crate) when_used_up: String,
    /// Bit/s, 0 = none.
    pub(crate) throttle_rate: u64,
    pub(crate) failure_handling: String,
    pub(crate) offline_grace: OfflineGrace,
}

/// What may pass without the server under `CONTINUE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct OfflineGrace {
    octets: Octets,
    seconds: Seconds,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            rating_group: RatingGroup(10),
            total_volume: Octets(0),
            chunk: Octets(10 * 1024 * 1024),
            report_interval: Seconds(60),
            validity_time: Seconds(0),
            quota_holding_time: Seconds(0),
            threshold_percent: 20,
            valid_for: None,
            final_unit_action: "TERMINATE".to_owned(),
            restriction_filter_rules: Vec::new(),
            filter_ids: Vec::new(),
            redirect_server: None,
            when_used_up: "block".to_owned(),
            throttle_rate: 0,
            failure_handling: "RETRY_AND_TERMINATE".to_owned(),
            offline_grace: OfflineGrace::default(),
        }
    }
}

impl Terms {
    /// Fills in the server's validity and refuses what cannot be.
    pub(crate) fn checked(mut self, validity: Seconds) -> Result<Self, Problem> {
        if self.validity_time.0 == 0 {
            self.validity_time = validity;
        }
        let mut wrong = Vec::new();
        let mut must = |holds: bool, member: &str, reason: &str| {
            if !holds {
                wrong.push(InvalidParam::new(member, reason));
            }
        };
        must((1..=1 << 62).contains(&self.total_volume.0), "totalVolume", "must be 1 to 2^62 octets");
        must((1..=1 << 62).contains(&self.chunk.0), "chunk", "must be 1 to 2^62 octets");
        must((1..=86_400).contains(&self.report_interval.0), "reportInterval", "must be 1 to 86400 s");
        must(self.validity_time.0 <= 86_400, "validityTime", "must be 1 to 86400 s");
        must(self.quota_holding_time.0 <= 86_400, "quotaHoldingTime", "must be 0 to 86400 s");
        must(self.threshold_percent < 100, "thresholdPercent", "must be 0 to 99");
        must(self.valid_for.is_none_or(|time| time.0 > 0), "validFor", "must be at least 1 s");
        let (action, used_up) = (self.final_unit_action.as_str(), self.when_used_up.as_str());
        must(FINAL_UNIT_ACTIONS.contains(&action), "finalUnitAction", &one_of(&FINAL_UNIT_ACTIONS));
        must(action != "REDIRECT" || self.redirect_server.is_some(), "redirectServer", "must be there to redirect");
        let address_type = self.redirect_server.as_ref().map(|server| server.redirect_address_type.as_str());
        must(
            address_type.is_none_or(|word| ADDRESS_TYPES.contains(&word)),
            "redirectServer.redirectAddressType",
            &one_of(&ADDRESS_TYPES),
        );
        must(USED_UP.contains(&used_up), "whenUsedUp", &one_of(&USED_UP));
        must(used_up != "throttle" || self.throttle_rate > 0, "throttleRate", "must be above 0 bit/s to throttle");
        let handling = self.failure_handling.as_str();
        must(FAILURE_HANDLINGS.contains(&handling), "failureHandling", &one_of(&FAILURE_HANDLINGS));
        if wrong.is_empty() { Ok(self) } else { Err(Problem::incorrect(wrong)) }
    }
}

fn one_of(words: &[&str]) -> String {
    format!("must be one of {}", words.join(", "))
}
