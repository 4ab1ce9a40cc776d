//! Durations and sizes as people write them: `10m`, `1h30m`, `64MiB`.
//!
//! Owns: their grammar and how they print. Durations are Prometheus' (`y w d h m s ms`, descending, each unit once).

use std::fmt;
use std::time::Duration;

/// Units of a duration in descending order, in milliseconds.
const DURATION_UNITS: [(&str, u64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// Units of a size; the binary ones first, since they are the ones we print.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1000),
    ("B", 1),
];

/// Reads `1h30m`, `250ms` or a bare `0`, in milliseconds; `None` if it is none or too large.
pub fn parse_duration_ms(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut units = DURATION_UNITS.as_slice();
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let at = units.iter().position(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(units[at].1)?)?;
        units = &units[at + 1..];
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

/// A length of time that prints as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Span {
    /// Whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Whole days.
    pub const fn days(days: u64) -> Self {
        Self::seconds(days * 86_400)
    }

    /// Whether it is zero, which settings use for "off" or "for ever".
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// In nanoseconds, clamped to what 64 bits hold.
    pub fn as_ns(self) -> i64 {
        i64::try_from(self.0.as_nanos()).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return f.write_str("0");
        }
        // Years and weeks are read, but 30d says more than 4w2d.
        for (name, length) in &DURATION_UNITS[2..] {
            let count = rest / length;
            if count > 0 {
                write!(f, "{count}{name}")?;
                rest %= length;
            }
        }
        Ok(())
    }
}

/// A number of bytes that prints as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// Mebibytes.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// Reads `64MiB`, `10MB` or a bare number of bytes.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = unit.trim_start();
        let factor =
            if unit.is_empty() { 1 } else { SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1 };
        number.parse::<u64>().ok()?.checked_mul(factor).map(Self)
    }

    /// In the machine's word.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZE_UNITS.iter().take(4).find(|(_, length)| self.0 >= *length && self.0.is_multiple_of(*length));
        match unit {
            Some((name, length)) => write!(f, "{}{name}", self.0 / length),
            None => write!(f, "{}B", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_prometheus() {
        let cases = [
            ("0", 0),
            ("10m", 600_000),
            ("1h30m", 5_400_000),
            ("1m0s", 60_000),
            ("250ms", 250),
            ("1y", 31_536_000_000),
        ];
        for (text, ms) in cases {
            assert_eq!(parse_duration_ms(text), Some(ms), "{text}");
        }
        for text in ["", "5", "1m1h", "1m1m", "-1m", "1.5h", "m", "1x", "99999999999999999999d"] {
            assert_eq!(parse_duration_ms(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        for text in ["0", "30d", "1h30m", "1m", "250ms", "7d"] {
            let ms = parse_duration_ms(text).expect("reads");
            assert_eq!(Span(Duration::from_millis(ms)).to_string(), text);
        }
        for (text, bytes) in [("64MiB", 64 << 20), ("1GiB", 1 << 30), ("1000B", 1000), ("1KiB", 1024)] {
            assert_eq!(Size::parse(text), Some(Size(bytes)));
            assert_eq!(Size(bytes).to_string(), text);
        }
        assert_eq!(Size::parse("10mb"), Some(Size(10_000_000)));
        assert_eq!(Size::parse("77"), Some(Size(77)));
        for text in ["", "MiB", "1XB", "-1B", "99999999999GiB"] {
            assert_eq!(Size::parse(text), None, "{text}");
        }
    }
}
