//! Chance from a seed: the same seed draws the same, on every machine and with any number of threads.

/// A `SplitMix64` generator (Steele, Lea, Flood 2014). The core has one of its own; this one is the world's.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    /// A generator that starts from `seed`.
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(super) const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub(super) const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.draw() % (high - low + 1)
    }

    /// True once in `n` draws; never when `n` is zero.
    pub(super) const fn one_in(&mut self, n: u64) -> bool {
        n > 0 && self.draw().is_multiple_of(n)
    }

    /// One of several.
    pub(super) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[index(self.draw(), of.len())]
    }
}

/// `number` folded into `0 .. length`; zero when there is nothing to point at.
pub(super) fn index(number: u64, length: usize) -> usize {
    let length = u64::try_from(length).unwrap_or(u64::MAX).max(1);
    usize::try_from(number % length).unwrap_or(0)
}

/// Two numbers as one, well mixed.
pub(super) const fn mix(one: u64, other: u64) -> u64 {
    Chance::new(one ^ other.wrapping_mul(0xD6E8_FEB8_6659_FD93)).draw()
}
