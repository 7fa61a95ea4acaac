//! What a charging message must be beyond its syntax; every member to blame is named.

use std::collections::BTreeSet;

use super::wire::{ChargingDataRequest, UsedUnitContainer};
use crate::problem::{InvalidParam, Problem};
use crate::units::Octets;

/// Some charging systems hold a container's volume in a signed 32-bit number.
const CONTAINER_BOUND: Octets = Octets(1 << 31);
/// The most containers of one rating group in a message.
const MOST_CONTAINERS: usize = 50;

/// Checks a message before any work is done.
pub(super) fn check(request: &ChargingDataRequest) -> Result<(), Problem> {
    let mut wrong = Vec::new();
    let name = &request.nf_consumer_identification.nf_name;
    if uuid::Uuid::try_parse(name).is_err() {
        wrong.push(InvalidParam::new("nfConsumerIdentification.nFName", "not a UUID"));
    }
    check_time(&mut wrong, "invocationTimeStamp", &request.invocation_time_stamp);
    if let Some(subscriber) = &request.subscriber_identifier
        && !is_imsi(subscriber)
    {
        wrong.push(InvalidParam::new("subscriberIdentifier", "not `imsi-` and 5 to 15 digits"));
    }
    let mut groups = BTreeSet::new();
    for (index, usage) in request.multiple_unit_usage.iter().enumerate() {
        let at = format!("multipleUnitUsage[{index}]");
        if !groups.insert(usage.rating_group) {
            wrong.push(InvalidParam::new(format!("{at}.ratingGroup"), "the message has this rating group already"));
        }
        if usage.used_unit_container.len() > MOST_CONTAINERS {
            let reason = format!("more than {MOST_CONTAINERS} containers");
            wrong.push(InvalidParam::new(format!("{at}.usedUnitContainer"), reason));
        }
        let mut numbers = BTreeSet::new();
        for (index, container) in usage.used_unit_container.iter().enumerate() {
            let at = format!("{at}.usedUnitContainer[{index}]");
            if !numbers.insert(container.local_sequence_number) {
                let reason = "the message has a container of this number already";
                wrong.push(InvalidParam::new(format!("{at}.localSequenceNumber"), reason));
            }
            check_container(&mut wrong, &at, container);
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Problem::incorrect(wrong)) }
}

/// `imsi-` and 5 to 15 digits (TS 29.571 `Supi`).
pub(crate) fn is_imsi(subscriber: &str) -> bool {
    subscriber
        .strip_prefix("imsi-")
        .is_some_and(|digits| (5..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn check_container(wrong: &mut Vec<InvalidParam>, at: &str, container: &UsedUnitContainer) {
    let volumes = [
        ("totalVolume", container.total_volume),
        ("uplinkVolume", container.uplink_volume),
        ("downlinkVolume", container.downlink_volume),
    ];
    for (member, volume) in volumes {
        if let Some(volume) = volume
            && volume >= CONTAINER_BOUND
        {
            let reason = format!("{volume} is not below {CONTAINER_BOUND}, the bound of one container");
            wrong.push(InvalidParam::new(format!("{at}.{member}"), reason));
        }
    }
    let (uplink, downlink) =
        (container.uplink_volume.unwrap_or_default(), container.downlink_volume.unwrap_or_default());
    let directions = uplink.plus(downlink);
    match container.total_volume {
        None if container.uplink_volume.is_none() && container.downlink_volume.is_none() => {
            wrong.push(InvalidParam::new(format!("{at}.totalVolume"), "a container must say how much was used"));
        }
        None if directions >= CONTAINER_BOUND => {
            wrong.push(InvalidParam::new(
                format!("{at}.downlinkVolume"),
                "both directions exceed the bound of one container",
            ));
        }
        Some(total)
            if container.uplink_volume.is_some() && container.downlink_volume.is_some() && total != directions =>
        {
            let reason = format!("{total} is not the sum of uplink {uplink} and downlink {downlink}");
            wrong.push(InvalidParam::new(format!("{at}.totalVolume"), reason));
        }
        None | Some(_) => {}
    }
    if let Some(timestamp) = &container.trigger_timestamp {
        check_time(wrong, &format!("{at}.triggerTimestamp"), timestamp);
    }
    if let Some(information) = &container.pdu_container_information {
        let times = [
            ("timeofFirstUsage", &information.time_of_first_usage),
            ("timeofLastUsage", &information.time_of_last_usage),
        ];
        for (member, time) in times {
            if let Some(time) = time {
                check_time(wrong, &format!("{at}.pDUContainerInformation.{member}"), time);
            }
        }
    }
}

fn check_time(wrong: &mut Vec<InvalidParam>, at: &str, time: &str) {
    if time.parse::<jiff::Timestamp>().is_err() {
        wrong.push(InvalidParam::new(at, "not an RFC 3339 time"));
    }
}
