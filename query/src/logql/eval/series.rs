//! Series while a metric query is evaluated: a grid of steps, and points where there is a value.
//!
//! Owns: [`Grid`], [`Frame`], keys of label sets. Invariant: points ascend by step, at most one for each.

use hashbrown::HashMap;

use crate::error::{Error, Kind, Result};
use crate::logql::ast::Grouping;

/// Sorted by name.
pub type LabelPairs = Vec<(String, String)>;

/// The most steps of one query.
pub const STEPS_MAX: i64 = 11_001;

/// The times at which a query is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// First step.
    pub start_ns: i64,
    /// Distance; 1 when there is one step.
    pub step_ns: i64,
    /// How many; at least one.
    pub steps: u32,
}

impl Grid {
    /// From `start_ns` by `step_ns` up to `end_ns`; one step if `step_ns` is 0.
    pub fn new(start_ns: i64, end_ns: i64, step_ns: i64) -> Result<Self> {
        if step_ns <= 0 {
            return Ok(Self { start_ns, step_ns: 1, steps: 1 });
        }
        let steps = end_ns.saturating_sub(start_ns).max(0) / step_ns + 1;
        match u32::try_from(steps) {
            Ok(count) if steps <= STEPS_MAX => Ok(Self { start_ns, step_ns, steps: count }),
            _ => Err(Error::new(
                Kind::Invalid,
                "exceeded maximum resolution of 11,000 points per time series. Try increasing the value of the step \
                 parameter",
            )),
        }
    }

    /// The time of a step.
    pub fn time(&self, step: u32) -> i64 {
        self.start_ns.saturating_add(self.step_ns.saturating_mul(i64::from(step)))
    }

    /// The last step's time.
    pub fn end_ns(&self) -> i64 {
        self.time(self.steps.saturating_sub(1))
    }

    /// The first and last step whose window `(t - range, t]`, moved back by `offset`, holds `ts_ns`.
    pub fn steps_of(&self, ts_ns: i64, range_ns: i64, offset_ns: i64) -> Option<(u32, u32)> {
        let shifted = i128::from(ts_ns) + i128::from(offset_ns) - i128::from(self.start_ns);
        let step = i128::from(self.step_ns);
        // The window is open on the left: the last step is the one before its border reaches the entry.
        let first = (shifted + step - 1).div_euclid(step).max(0);
        let last = (shifted + i128::from(range_ns) - 1).div_euclid(step).min(i128::from(self.steps) - 1);
        if first > last {
            return None;
        }
        Some((u32::try_from(first).ok()?, u32::try_from(last).ok()?))
    }
}

/// A series with its points: step and value.
#[derive(Clone, Debug, PartialEq)]
pub struct Points {
    /// Sorted by name.
    pub labels: LabelPairs,
    /// Ascending by step.
    pub points: Vec<(u32, f64)>,
}

/// All series of an expression; each label set once.
pub type Frame = Vec<Points>;

/// Numbers label sets as they appear.
#[derive(Debug, Default)]
pub struct LabelIndex {
    known: HashMap<Vec<u8>, usize, ahash::RandomState>,
    scratch: Vec<u8>,
}

impl LabelIndex {
    /// The number of a label set; `sorted` gives its pairs sorted by name. The flag is set when it is new.
    pub fn number<'p>(&mut self, sorted: impl Iterator<Item = (&'p str, &'p str)>) -> (usize, bool) {
        self.scratch.clear();
        for (name, value) in sorted {
            for text in [name, value] {
                self.scratch.extend_from_slice(&text.len().to_le_bytes());
                self.scratch.extend_from_slice(text.as_bytes());
            }
        }
        if let Some(number) = self.known.get(self.scratch.as_slice()) {
            return (*number, false);
        }
        let number = self.known.len();
        self.known.insert(self.scratch.clone(), number);
        (number, true)
    }

    /// Bytes of the last key, for accounting.
    pub fn last_key_bytes(&self) -> usize {
        self.scratch.len()
    }
}

/// The labels of a series that a grouping leaves; empty ones are none.
pub fn grouped<'p>(labels: &'p LabelPairs, grouping: Option<&Grouping>) -> Vec<(&'p str, &'p str)> {
    let listed = |name: &str| grouping.is_some_and(|grouping| grouping.labels.iter().any(|label| label == name));
    let keep_listed = !grouping.is_some_and(|grouping| grouping.without);
    let chosen = labels.iter().filter(|(name, value)| listed(name) == keep_listed && !value.is_empty());
    chosen.map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// Owned pairs.
pub fn owned(pairs: &[(&str, &str)]) -> LabelPairs {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The value of a label, "" when missing.
pub fn value_of<'p>(labels: &'p LabelPairs, name: &str) -> &'p str {
    labels.iter().find_map(|(n, value)| (n == name).then_some(value.as_str())).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_open_on_the_left_and_closed_on_the_right() {
        let grid = Grid::new(100, 130, 10).unwrap();
        assert_eq!(grid.steps, 4);
        for (ts, range, offset, expected) in [
            (100, 10, 0, Some((0, 0))),
            (90, 10, 0, None),
            (91, 10, 0, Some((0, 0))),
            (101, 10, 0, Some((1, 1))),
            (110, 10, 0, Some((1, 1))),
            (110, 20, 0, Some((1, 2))),
            (131, 10, 0, None),
            (95, 5, 0, None),
            (96, 5, 0, Some((0, 0))),
            (101, 5, 0, None),
            (90, 10, 10, Some((0, 0))),
            (110, 10, -10, Some((0, 0))),
            (50, 1000, 0, Some((0, 3))),
        ] {
            assert_eq!(grid.steps_of(ts, range, offset), expected, "{ts} {range} {offset}");
        }
        let instant = Grid::new(100, 100, 0).unwrap();
        assert_eq!(instant.steps_of(100, 5, 0), Some((0, 0)));
        assert_eq!(instant.steps_of(95, 5, 0), None);
        assert_eq!(instant.steps_of(101, 5, 0), None);
    }
}
