//! The words of the field as types: octets, used and granted units, numbers of the charging wire, instants since boot.
//!
//! Arithmetic is checked or says in its name that it saturates; nothing here wraps.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::time::Duration;

/// A count of octets (layer 3, as billed). Range 0 ..= 2^64 - 1.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Octets(u64);

impl Octets {
    /// No octets.
    pub const ZERO: Self = Self(0);
    /// The largest count; as a ceiling it means "no ceiling".
    pub const MAX: Self = Self(u64::MAX);

    /// Wraps a plain number of octets.
    #[must_use]
    pub const fn new(octets: u64) -> Self {
        Self(octets)
    }

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// True for no octets at all.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// Sum, or `None` past 2^64 - 1.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// Difference, or `None` when `other` is larger.
    #[must_use]
    pub const fn checked_sub(self, other: Self) -> Option<Self> {
        match self.0.checked_sub(other.0) {
            Some(difference) => Some(Self(difference)),
            None => None,
        }
    }

    /// Sum, held at 2^64 - 1: a ceiling that would pass the end of the range is no ceiling.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Difference, held at zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// `self * numerator / denominator`, rounded down, without overflow in between. A zero denominator counts as one.
    #[must_use]
    pub fn scaled(self, numerator: u32, denominator: u32) -> Self {
        let product = u128::from(self.0) * u128::from(numerator) / u128::from(denominator.max(1));
        Self(u64::try_from(product).unwrap_or(u64::MAX))
    }
}

/// As plain as for people: a log line of a command is full of them.
impl fmt::Debug for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Used units of one interval, or the cumulative figure of one epoch, by direction (TS 32.291 `UsedUnitContainer`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct UsedUnit {
    /// Octets that left through the link.
    pub uplink: Octets,
    /// Octets that came in through the link.
    pub downlink: Octets,
}

impl UsedUnit {
    /// Nothing used.
    pub const ZERO: Self = Self { uplink: Octets::ZERO, downlink: Octets::ZERO };

    /// Both directions from plain numbers.
    #[must_use]
    pub const fn new(uplink: u64, downlink: u64) -> Self {
        Self { uplink: Octets::new(uplink), downlink: Octets::new(downlink) }
    }

    /// Octets of both directions together, held at 2^64 - 1.
    #[must_use]
    pub const fn total(self) -> Octets {
        self.uplink.saturating_add(self.downlink)
    }

    /// True when neither direction carried an octet.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.uplink.is_zero() && self.downlink.is_zero()
    }

    /// Sum by direction, held at the end of the range.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self {
            uplink: self.uplink.saturating_add(other.uplink),
            downlink: self.downlink.saturating_add(other.downlink),
        }
    }

    /// What was used since `earlier`; `None` when either direction went back (a new epoch).
    #[must_use]
    pub fn since(self, earlier: Self) -> Option<Self> {
        Some(Self {
            uplink: self.uplink.checked_sub(earlier.uplink)?,
            downlink: self.downlink.checked_sub(earlier.downlink)?,
        })
    }
}

/// An instant on `CLOCK_BOOTTIME`: nanoseconds since boot, suspend included. Meaningful within one [`BootId`] only.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootInstant(u64);

impl fmt::Debug for BootInstant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

impl BootInstant {
    /// From nanoseconds since boot.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since boot.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The instant `duration` later, held at the end of the range (584 years).
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Time passed since `earlier`; zero when `earlier` lies in the future.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

macro_rules! number_newtype {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl $name {
            /// Wraps a plain number.
            #[must_use]
            pub const fn new(number: u32) -> Self {
                Self(number)
            }

            /// The plain number.
            #[must_use]
            pub const fn get(self) -> u32 {
                self.0
            }

            /// The number that follows; `None` at the end of the range.
            #[must_use]
            pub const fn next(self) -> Option<Self> {
                match self.0.checked_add(1) {
                    Some(next) => Some(Self(next)),
                    None => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

number_newtype! {
    /// What one price applies to (TS 29.571 `RatingGroup`).
    RatingGroup
}
number_newtype! {
    /// The agent's name for one credit session, random, borne once per device (TS 29.571 `ChargingId`).
    ChargingId
}
number_newtype! {
    /// Numbers the messages of one session from 0 (TS 32.291 `invocationSequenceNumber`).
    InvocationSequenceNumber
}
number_newtype! {
    /// Numbers the containers of one session and rating group from 1 (TS 32.291 `localSequenceNumber`).
    LocalSequenceNumber
}
number_newtype! {
    /// Identifies one load of a link's maps within a boot: the kernel's id of the counters map.
    Generation
}

macro_rules! text_newtype {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl $name {
            /// Wraps the text as it is.
            #[must_use]
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

text_newtype! {
    /// Who pays: `imsi-…` of the SIM (TS 29.571 `Supi`).
    SubscriberIdentifier
}
impl SubscriberIdentifier {
    /// Whether it is `imsi-` and 5 to 15 digits: the only form that a SIM's subscriber has here.
    #[must_use]
    pub fn is_imsi(&self) -> bool {
        let digits = self.as_str().strip_prefix("imsi-").unwrap_or_default();
        (5..=15).contains(&digits.len()) && digits.bytes().all(|c| c.is_ascii_digit())
    }
}

text_newtype! {
    /// The server's name for one credit session: the last segment of `Location` (TS 32.291 `ChargingDataRef`).
    SessionRef
}
text_newtype! {
    /// The kernel's random id of this boot (`/proc/sys/kernel/random/boot_id`).
    BootId
}

/// A span in which the kernel's counters only go up: one boot, one load of the maps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Epoch {
    /// The boot the counters live in.
    pub boot: BootId,
    /// The load of the maps within that boot.
    pub generation: Generation,
}

/// A rate in octets per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OctetRate(u64);

impl OctetRate {
    /// From octets per second.
    #[must_use]
    pub const fn per_second(octets: u64) -> Self {
        Self(octets)
    }

    /// From bits per second, rounded down.
    #[must_use]
    pub const fn from_bits_per_second(bits: u64) -> Self {
        Self(bits / 8)
    }

    /// Octets per second.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// What flows at this rate in `duration`.
    #[must_use]
    pub fn over(self, duration: Duration) -> Octets {
        let octets = u128::from(self.0) * duration.as_millis() / 1000;
        Octets::new(u64::try_from(octets).unwrap_or(u64::MAX))
    }
}
