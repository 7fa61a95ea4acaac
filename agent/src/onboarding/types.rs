//! What onboarding answers with, typed; kept in the ledger in the same JSON that the wire has.

use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{self, Link};
use crate::quota::{FailureHandling, FinalUnitAction, OfflineGrace, WhenUsedUp};
use crate::reporter::{clipped, failure_handling, final_unit_action};
use crate::units::{OctetRate, Octets, RatingGroup, SubscriberIdentifier};

/// A modem, as it is told at registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Modem {
    /// Its slot.
    pub slot: String,
    /// Its IMEI, when known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub imei: Option<String>,
    /// The ICCID of the SIM in it, when known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iccid: Option<String>,
}

impl From<&Link> for Modem {
    fn from(link: &Link) -> Self {
        Self { slot: link.slot.clone(), imei: link.imei.clone(), iccid: link.iccid.clone() }
    }
}

/// The SIM that was bound to a slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WireBinding", into = "WireBinding")]
pub struct Binding {
    /// The server's name for it.
    pub id: String,
    /// The slot.
    pub slot: String,
    /// Who pays.
    pub subscriber: SubscriberIdentifier,
    /// The SIM.
    pub iccid: Option<String>,
    /// The access point name to dial.
    pub apn: String,
    /// What can be charged for.
    pub rating_groups: Vec<RatingGroup>,
}

impl Binding {
    /// Why this cannot be the binding of that slot, if so: what is charged and dialled hangs on it.
    pub(super) fn what_is_wrong(&self, slot: &str) -> Option<String> {
        let wrong = |what: &str, is: &str| Some(format!("the binding of slot {slot} has {what} {:?}", clipped(is)));
        if self.slot != slot {
            return wrong("the slot", &self.slot);
        }
        if !self.subscriber.is_imsi() {
            return wrong("the subscriber", self.subscriber.as_str());
        }
        let fits = (1..=100).contains(&self.apn.chars().count()) && !self.apn.chars().any(char::is_control);
        if fits { None } else { wrong("the access point name", &self.apn) }
    }
}

/// The packages that were bought for the device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// One for each bound SIM and rating group that has one.
    pub packages: Vec<Package>,
}

impl Plan {
    /// The package of a subscriber and rating group.
    #[must_use]
    pub fn package(&self, subscriber: &SubscriberIdentifier, rating_group: RatingGroup) -> Option<&Package> {
        self.packages.iter().find(|p| p.subscriber == *subscriber && p.rating_group == rating_group)
    }
}

/// A data package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "WirePackage", into = "WirePackage")]
pub struct Package {
    /// Who pays.
    pub subscriber: SubscriberIdentifier,
    /// What for.
    pub rating_group: RatingGroup,
    /// The server's name for it.
    pub id: String,
    /// Octets bought.
    pub total: Octets,
    /// Octets debited.
    pub used: Octets,
    /// Octets that open sessions hold.
    pub reserved: Octets,
    /// Octets bought and not debited.
    pub remaining: Octets,
    /// When it ends; `None` = never.
    pub valid_until: Option<Timestamp>,
    /// How often to report; `None` = the agent's choice.
    pub report_interval: Option<Duration>,
    /// Octets to ask for at a time; `None` = the agent's choice.
    pub chunk: Option<Octets>,
    /// What comes with the last units.
    pub final_unit_action: Option<FinalUnitAction>,
    /// What happens when it is used up (`block` is what the last units come with, and they may come with filters or a portal).
    pub when_used_up: WhenUsedUp,
    /// What to do without an answer; `None` = the agent's choice.
    pub failure_handling: Option<FailureHandling>,
    /// How far to go on without the server.
    pub offline_grace: OfflineGrace,
}

/// Numbers the commands of the server to one device, rising.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CommandNumber(pub(super) u64);

impl CommandNumber {
    /// Wraps a plain number; 0 = before the first.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// What the server wants done.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ServerCommand {
    /// Its number; polling for what comes after it acknowledges it.
    pub number: CommandNumber,
    /// What to do.
    #[serde(rename = "command")]
    pub kind: CommandKind,
    /// Whose link it is about, when it is about one.
    #[serde(rename = "subscriberIdentifier", default, with = "subscriber")]
    pub subscriber: Option<SubscriberIdentifier>,
}

/// The commands there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum CommandKind {
    /// Report and ask again (a top-up came).
    #[serde(rename = "REAUTHORISE")]
    Reauthorise,
    /// Settle and shut the gate.
    #[serde(rename = "ABORT")]
    Abort,
    /// The slot has another SIM: settle, ask for the binding again.
    #[serde(rename = "SWITCH")]
    Switch,
    /// Fetch the plan again.
    #[serde(rename = "PLAN_CHANGED")]
    PlanChanged,
    /// A command of a later server: to be acknowledged and passed over.
    #[serde(other)]
    Unknown,
}

mod subscriber {
    use serde::{Deserialize, Deserializer};

    use crate::units::SubscriberIdentifier;

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SubscriberIdentifier>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(SubscriberIdentifier::new))
    }
}

// What is on the wire, member by member; unknown members are passed over.

#[derive(Clone, Serialize, Deserialize)]
struct WireBinding {
    #[serde(rename = "bindingId")]
    binding_id: String,
    slot: String,
    #[serde(rename = "subscriberIdentifier")]
    subscriber_identifier: String,
    iccid: Option<String>,
    apn: String,
    #[serde(rename = "ratingGroups")]
    rating_groups: Vec<u32>,
}

impl From<WireBinding> for Binding {
    fn from(wire: WireBinding) -> Self {
        Self {
            id: wire.binding_id,
            slot: wire.slot,
            subscriber: SubscriberIdentifier::new(wire.subscriber_identifier),
            iccid: wire.iccid,
            apn: wire.apn,
            rating_groups: wire.rating_groups.into_iter().map(RatingGroup::new).collect(),
        }
    }
}

impl From<Binding> for WireBinding {
    fn from(binding: Binding) -> Self {
        Self {
            binding_id: binding.id,
            slot: binding.slot,
            subscriber_identifier: binding.subscriber.to_string(),
            iccid: binding.iccid,
            apn: binding.apn,
            rating_groups: binding.rating_groups.into_iter().map(RatingGroup::get).collect(),
        }
    }
}

#[derive(Clone, Serialize, Deserialize)]
struct WirePackage {
    #[serde(rename = "subscriberIdentifier")]
    subscriber_identifier: String,
    #[serde(rename = "ratingGroup")]
    rating_group: u32,
    #[serde(rename = "packageId")]
    package_id: String,
    #[serde(rename = "totalVolume")]
    total_volume: u64,
    #[serde(rename = "usedVolume", default)]
    used_volume: u64,
    #[serde(rename = "reservedVolume", default)]
    reserved_volume: u64,
    #[serde(rename = "remainingVolume", default)]
    remaining_volume: u64,
    #[serde(rename = "validUntil", skip_serializing_if = "Option::is_none")]
    valid_until: Option<Timestamp>,
    #[serde(rename = "reportInterval", default)]
    report_interval: u64,
    #[serde(default)]
    chunk: u64,
    #[serde(rename = "finalUnitAction")]
    final_unit_action: Option<String>,
    #[serde(rename = "whenUsedUp")]
    when_used_up: Option<String>,
    #[serde(rename = "throttleRate", default)]
    throttle_rate: u64,
    #[serde(rename = "failureHandling")]
    failure_handling: Option<String>,
    #[serde(rename = "offlineGrace", default)]
    offline_grace: WireGrace,
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct WireGrace {
    #[serde(default)]
    octets: u64,
    #[serde(default)]
    seconds: u64,
}

impl From<WirePackage> for Package {
    fn from(wire: WirePackage) -> Self {
        let rate = OctetRate::from_bits_per_second(wire.throttle_rate);
        Self {
            subscriber: SubscriberIdentifier::new(wire.subscriber_identifier),
            rating_group: RatingGroup::new(wire.rating_group),
            id: wire.package_id,
            total: Octets::new(wire.total_volume),
            used: Octets::new(wire.used_volume),
            reserved: Octets::new(wire.reserved_volume),
            remaining: Octets::new(wire.remaining_volume),
            valid_until: wire.valid_until,
            report_interval: (wire.report_interval > 0)
                .then(|| held(Duration::from_secs(wire.report_interval), &config::REPORT)),
            chunk: (wire.chunk > 0).then(|| held(Octets::new(wire.chunk), &config::CHUNK)),
            final_unit_action: wire.final_unit_action.as_deref().and_then(final_unit_action),
            when_used_up: match wire.when_used_up.as_deref() {
                Some("throttle") if rate.get() > 0 => WhenUsedUp::Throttle(held(rate, &config::RATE)),
                Some("restrict") => WhenUsedUp::Restrict,
                _ => WhenUsedUp::AsTold,
            },
            failure_handling: wire.failure_handling.as_deref().and_then(failure_handling),
            offline_grace: OfflineGrace {
                octets: held(Octets::new(wire.offline_grace.octets), &config::GRACE_OCTETS),
                duration: held(Duration::from_secs(wire.offline_grace.seconds), &config::GRACE),
            },
        }
    }
}

/// A value of a plan, held to the range that the configuration file has for it: what no person may write, no server may either.
fn held<T: Ord + Copy>(value: T, range: &RangeInclusive<T>) -> T {
    value.clamp(*range.start(), *range.end())
}

impl From<Package> for WirePackage {
    fn from(package: Package) -> Self {
        let (when_used_up, throttle_rate) = match package.when_used_up {
            WhenUsedUp::AsTold | WhenUsedUp::Block => ("block", 0),
            WhenUsedUp::Restrict => ("restrict", 0),
            WhenUsedUp::Throttle(rate) => ("throttle", rate.get().saturating_mul(8)),
        };
        let action = package.final_unit_action.map(|action| match action {
            FinalUnitAction::Terminate => "TERMINATE",
            FinalUnitAction::Redirect => "REDIRECT",
            FinalUnitAction::RestrictAccess => "RESTRICT_ACCESS",
        });
        let handling = package.failure_handling.map(|handling| match handling {
            FailureHandling::Terminate => "TERMINATE",
            FailureHandling::Continue => "CONTINUE",
            FailureHandling::RetryAndTerminate => "RETRY_AND_TERMINATE",
        });
        Self {
            subscriber_identifier: package.subscriber.to_string(),
            rating_group: package.rating_group.get(),
            package_id: package.id,
            total_volume: package.total.get(),
            used_volume: package.used.get(),
            reserved_volume: package.reserved.get(),
            remaining_volume: package.remaining.get(),
            valid_until: package.valid_until,
            report_interval: package.report_interval.map_or(0, |interval| interval.as_secs()),
            chunk: package.chunk.map_or(0, Octets::get),
            final_unit_action: action.map(str::to_owned),
            when_used_up: Some(when_used_up.to_owned()),
            throttle_rate,
            failure_handling: handling.map(str::to_owned),
            offline_grace: WireGrace {
                octets: package.offline_grace.octets.get(),
                seconds: package.offline_grace.duration.as_secs(),
            },
        }
    }
}
