//! How the configuration writes octets, durations and rates: a number, or a number with a unit that has one meaning.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::units::{OctetRate, Octets};

const OCTET_UNITS: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("KB", 1000),
    ("B", 1),
];

const DURATION_UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const RATE_UNITS: [(&str, u64); 4] = [("Gbit/s", 1_000_000_000), ("Mbit/s", 1_000_000), ("kbit/s", 1000), ("bit/s", 1)];

/// Reads octets: `8 MiB` (2^23), `500 MB` (5 * 10^8), `65536 B` or plain digits.
pub(super) fn octets(text: &str) -> Result<Octets, String> {
    scaled(text, &OCTET_UNITS, 1, "octets, like 1048576, \"8 MiB\" (8 * 2^20) or \"500 MB\" (500 * 10^6)")
        .map(Octets::new)
}

/// Reads a duration: `500ms`, `30s`, `5min`, `1h`, `2d`. A unit is needed.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    scaled(text, &DURATION_UNITS, 0, "a duration with its unit, like \"30s\", \"5min\" or \"1h\"")
        .map(Duration::from_millis)
}

/// Reads a rate: `128 kbit/s`, `2 Mbit/s`, or plain digits for bit/s.
pub(super) fn rate(text: &str) -> Result<OctetRate, String> {
    scaled(text, &RATE_UNITS, 1, "a rate in bit/s, like 128000, \"128 kbit/s\" or \"2 Mbit/s\"")
        .map(OctetRate::from_bits_per_second)
}

/// A number times what its unit stands for; `bare` is the factor of a number without a unit (0: not allowed).
fn scaled(text: &str, units: &[(&str, u64)], bare: u64, wanted: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = (text[..digits].replace('_', ""), text[digits..].trim_start());
    let wrong = || format!("{text:?} is not {wanted}");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let factor = match units.iter().find(|(name, _)| *name == unit) {
        Some((_, factor)) => *factor,
        None if unit.is_empty() && bare > 0 => bare,
        None => return Err(wrong()),
    };
    number.checked_mul(factor).ok_or_else(|| format!("{text:?} is too large: it does not fit into 64 bits"))
}

/// Puts a value into words with the largest unit that leaves a whole number.
pub(super) struct Shown<T>(pub(super) T);

impl fmt::Display for Shown<Octets> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let octets = self.0.get();
        let binary = OCTET_UNITS.iter().filter(|(name, _)| name.contains('i'));
        match binary.into_iter().find(|(_, factor)| octets >= *factor && octets.is_multiple_of(*factor)) {
            Some((name, factor)) => write!(f, "{} {name}", octets / factor),
            None => write!(f, "{octets}"),
        }
    }
}

impl fmt::Display for Shown<Duration> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let units = [("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)];
        match units.into_iter().find(|(_, factor)| millis >= *factor && millis.is_multiple_of(*factor)) {
            Some((name, factor)) => write!(f, "{}{name}", millis / factor),
            None if millis == 0 => write!(f, "0s"),
            None => write!(f, "{millis}ms"),
        }
    }
}

impl fmt::Display for Shown<OctetRate> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0.get().saturating_mul(8);
        match RATE_UNITS.iter().find(|(_, factor)| bits >= *factor && bits.is_multiple_of(*factor)) {
            Some((name, factor)) => write!(f, "{} {name}", bits / factor),
            None => write!(f, "{bits} bit/s"),
        }
    }
}

impl fmt::Display for Shown<u32> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Lets a value pass that lies in its range, else says which way it is out and what the range is.
pub(super) fn within<T>(value: T, range: &RangeInclusive<T>) -> Result<T, String>
where
    T: Copy + PartialOrd,
    Shown<T>: fmt::Display,
{
    if range.contains(&value) {
        return Ok(value);
    }
    let side = if value < *range.start() { "below" } else { "above" };
    Err(format!("{} is {side} the range {} .. {}", Shown(value), Shown(*range.start()), Shown(*range.end())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_have_units_with_one_meaning() {
        for (text, expected) in
            [("8 MiB", 8 << 20), ("500 MB", 500_000_000), ("65536", 65536), ("1_000 kB", 1_000_000), ("7B", 7)]
        {
            assert_eq!(octets(text), Ok(Octets::new(expected)), "{text}");
        }
        for text in ["8M", "8 mb", "8 Mb", "", "MiB", "-1", "1.5 MiB", "8 MiB/s", "20000000 TiB"] {
            assert!(octets(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_needs_its_unit() {
        for (text, millis) in
            [("30s", 30_000), ("5min", 300_000), ("1h", 3_600_000), ("250 ms", 250), ("2d", 172_800_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["30", "", "s", "5m", "5 minutes", "-1s", "1h30min"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_in_bits_per_second() {
        assert_eq!(rate("128 kbit/s"), Ok(OctetRate::per_second(16_000)));
        assert_eq!(rate("128000"), Ok(OctetRate::per_second(16_000)));
        assert!(rate("1 MB/s").is_err());
    }

    #[test]
    fn values_are_shown_in_the_largest_whole_unit() {
        assert_eq!(Shown(Octets::new(64 << 10)).to_string(), "64 KiB");
        assert_eq!(Shown(Octets::new(10)).to_string(), "10");
        assert_eq!(Shown(Duration::from_secs(90)).to_string(), "90s");
        assert_eq!(Shown(Duration::from_hours(2)).to_string(), "2h");
        assert_eq!(Shown(OctetRate::per_second(1000)).to_string(), "8 kbit/s");
    }
}
