//! Chance for back-off and polling, from a seed that is handed in: the same seed gives the same run.

use std::time::Duration;

/// A `SplitMix64` generator (Steele, Lea, Flood 2014): small, seedable, good enough to spread retries.
#[derive(Clone, Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A span between `low` and `high`, both included.
    pub(super) fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let width = high.saturating_sub(low).as_millis() + 1;
        let offset = u128::from(self.next()) % width;
        low + Duration::from_millis(u64::try_from(offset).unwrap_or(u64::MAX))
    }
}
