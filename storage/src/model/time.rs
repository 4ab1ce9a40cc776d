//! Times and time ranges.
//!
//! Owns: the two units and their conversions. Invariant: every range in this crate is half-open,
//! `start` included, `end` excluded; [`TimeRange::closed_ms`] and [`TimeRange::closed_ns`] are the places
//! that turn an API's closed range into ours.

/// Nanoseconds in a millisecond.
pub const NS_PER_MS: i64 = 1_000_000;
/// Nanoseconds in a second.
pub const NS_PER_S: i64 = 1_000_000_000;
/// Nanoseconds in a day, the unit of partitions.
pub const NS_PER_DAY: i64 = 86_400 * NS_PER_S;

/// Milliseconds since the Unix epoch: the time of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TimestampMs(pub i64);

/// Nanoseconds since the Unix epoch: the time of an entry or a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TimestampNs(pub i64);

impl TimestampMs {
    /// The same time in nanoseconds, clamped to what 64 bits hold (years 1677 to 2262).
    pub fn to_ns(self) -> TimestampNs {
        TimestampNs(self.0.saturating_mul(NS_PER_MS))
    }
}

impl TimestampNs {
    /// The millisecond this time lies in (rounded down).
    pub fn to_ms(self) -> TimestampMs {
        TimestampMs(self.0.div_euclid(NS_PER_MS))
    }

    /// The UTC day this time lies in, counted from the epoch: the partition.
    pub fn day(self) -> Day {
        Day(i32::try_from(self.0.div_euclid(NS_PER_DAY)).unwrap_or(i32::MAX))
    }
}

/// A UTC day, counted from 1970-01-01. Prints as `YYYY-MM-DD`, the value of the `date` partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i32);

impl Day {
    /// The nanoseconds of this day.
    pub fn range(self) -> TimeRange {
        let start = i64::from(self.0).saturating_mul(NS_PER_DAY);
        TimeRange { start, end: start.saturating_add(NS_PER_DAY) }
    }

    /// Reads `YYYY-MM-DD`.
    pub fn parse(text: &str) -> Option<Self> {
        let date = chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
        let epoch = chrono::NaiveDate::from_ymd_opt(1970, 1, 1)?;
        i32::try_from(date.signed_duration_since(epoch).num_days()).ok().map(Day)
    }
}

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let date = chrono::NaiveDate::from_ymd_opt(1970, 1, 1)
            .and_then(|epoch| epoch.checked_add_signed(chrono::TimeDelta::days(i64::from(self.0))));
        match date {
            Some(date) => write!(f, "{}", date.format("%Y-%m-%d")),
            None => write!(f, "day{}", self.0),
        }
    }
}

/// Nanoseconds from `start` (included) to `end` (excluded).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimeRange {
    /// First nanosecond inside.
    pub start: i64,
    /// First nanosecond outside.
    pub end: i64,
}

impl TimeRange {
    /// All of time.
    pub const ALL: Self = Self { start: i64::MIN, end: i64::MAX };

    /// `start ≤ t < end`.
    pub fn new(start: i64, end: i64) -> Self {
        Self { start, end }
    }

    /// `start ≤ t ≤ end` in milliseconds.
    pub fn closed_ms(start: TimestampMs, end: TimestampMs) -> Self {
        Self { start: start.to_ns().0, end: TimestampMs(end.0.saturating_add(1)).to_ns().0 }
    }

    /// `start ≤ t ≤ end` in nanoseconds.
    pub fn closed_ns(start: TimestampNs, end: TimestampNs) -> Self {
        Self { start: start.0, end: end.0.saturating_add(1) }
    }

    /// Whether no time is inside.
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// Whether `ns` is inside. The last representable nanosecond counts as inside [`TimeRange::ALL`].
    pub fn contains(&self, ns: i64) -> bool {
        self.start <= ns && (ns < self.end || self.end == i64::MAX)
    }

    /// Whether a closed interval `first ≤ t ≤ last` has a time inside.
    pub fn overlaps(&self, first: i64, last: i64) -> bool {
        first <= last && last >= self.start && (first < self.end || self.end == i64::MAX)
    }

    /// The days that have a time inside, first and last included; `None` when empty.
    pub fn days(&self) -> Option<(Day, Day)> {
        (!self.is_empty()).then(|| (TimestampNs(self.start).day(), TimestampNs(self.end - 1).day()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_print_and_parse_as_dates() {
        assert_eq!(TimestampNs(1_767_571_200 * NS_PER_S).day().to_string(), "2026-01-05");
        assert_eq!(Day::parse("2026-01-05"), Some(TimestampNs(1_767_571_200 * NS_PER_S).day()));
        assert_eq!(TimestampNs(-1).day(), Day(-1));
        assert_eq!(Day(-1).to_string(), "1969-12-31");
    }

    #[test]
    fn absurd_times_are_clamped_not_wrapped() {
        let range = TimeRange::closed_ms(TimestampMs(i64::MIN), TimestampMs(i64::MAX));
        assert_eq!(range, TimeRange::ALL);
        assert!(range.contains(i64::MAX));
    }
}
