//! How far a throttled link may be behind with what it has let through.

use std::time::Duration;

use crate::units::OctetRate;

/// What a flow that has slowed down may catch up: a little more than the slow start of a TCP flow to 100 Mbit/s takes at a distance of
/// 200 ms, and longer than it waits for a packet that was lost.
const TO_CATCH_UP: Duration = Duration::from_secs(2);

/// The longest super-packet the kernel makes, in octets at layer 3: it has to pass in one piece.
const SUPER_PACKET: u64 = 65_536;

/// The tolerance that suits a rate (above 0), in nanoseconds of sending at that rate: the `throttle_tolerance_ns` of a gate.
#[must_use]
pub fn throttle_tolerance(rate: OctetRate) -> u64 {
    let catch_up = u64::try_from(TO_CATCH_UP.as_nanos()).unwrap_or(u64::MAX);
    let super_packet = SUPER_PACKET.saturating_mul(1_000_000_000) / rate.get().max(1);
    catch_up.max(super_packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_seconds_are_tolerated_and_at_low_rates_as_long_as_a_super_packet_takes() {
        let tolerance = |kilobits: u64| throttle_tolerance(OctetRate::from_bits_per_second(kilobits * 1000));
        assert_eq!(tolerance(8), 65_536_000_000);
        assert_eq!(tolerance(64), 8_192_000_000);
        assert_eq!(tolerance(1000), 2_000_000_000);
        assert_eq!(tolerance(10_000_000), 2_000_000_000);
    }
}
