//! Log queries: the newest or oldest entries that a plan keeps, as streams.
//!
//! Owns: the order of time slices, the limit, the interval, grouping into streams.
//!
//! Invariants
//! 1. Memory is bounded by the limit: what cannot be in the answer is dropped, most of it before any stage runs.
//! 2. Slices go from the end that the direction begins with, and reading stops when the limit is reached.

use hashbrown::HashMap;
use storage::model::time::{NS_PER_S, TimeRange};
use storage::{Context, Scan};

use super::labels::Category;
use super::pipeline::Row;
use super::read::{Cost, Source, Visitor};
use crate::error::{Error, Result};
use crate::logql::plan::LogPlan;
use crate::logql::{Direction, Entry, Params, Stream};

/// The first slice is this part of the range.
const FIRST_SLICE: i64 = 64;
/// Each slice is this much longer than the one before.
const SLICE_GROWTH: i64 = 4;
/// No slice is shorter.
const SLICE_MIN_NS: i64 = NS_PER_S;
/// How many entries beyond the limit are held before the worst are dropped.
const SLACK_MIN: usize = 256;

struct Found {
    ts_ns: i64,
    /// Order of arrival, for ties.
    number: usize,
    line: String,
    labels: Vec<(String, String, Category)>,
}

/// Runs a log query.
pub async fn run(
    scan: &dyn Scan,
    plan: &LogPlan,
    params: &Params,
    context: &Context,
    cost: &mut Cost,
) -> Result<Vec<Stream>> {
    let range = TimeRange::new(params.start_ns, params.end_ns);
    let source = Source::open(scan, plan, range, context).await?;
    let mut answer: Vec<Found> = Vec::new();
    let mut last = None;
    for slice in slices(range, params.direction) {
        let mut collector = Collector::new(params, params.limit.saturating_sub(answer.len()), context)?;
        source.visit(slice, &mut collector, cost).await?;
        for found in collector.finish() {
            if answer.len() < params.limit && far_enough(last, found.ts_ns, params.interval_ns) {
                last = Some(found.ts_ns);
                answer.push(found);
            }
        }
        if answer.len() >= params.limit {
            break;
        }
    }
    Ok(streams(answer))
}

fn far_enough(last: Option<i64>, ts_ns: i64, interval_ns: i64) -> bool {
    interval_ns <= 0 || last.is_none_or(|last| ts_ns.abs_diff(last) >= interval_ns.unsigned_abs())
}

/// The parts of `range` in the order in which they are read.
fn slices(range: TimeRange, direction: Direction) -> impl Iterator<Item = TimeRange> {
    let total = range.end.saturating_sub(range.start);
    let mut length = (total / FIRST_SLICE).max(SLICE_MIN_NS);
    let mut rest = range;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let slice = match direction {
            Direction::Backward => {
                TimeRange::new(rest.end.checked_sub(length).map_or(rest.start, |cut| cut.max(rest.start)), rest.end)
            }
            Direction::Forward => {
                TimeRange::new(rest.start, rest.start.checked_add(length).map_or(rest.end, |cut| cut.min(rest.end)))
            }
        };
        match direction {
            Direction::Backward => rest.end = slice.start,
            Direction::Forward => rest.start = slice.end,
        }
        length = length.saturating_mul(SLICE_GROWTH);
        Some(slice)
    })
}

struct Collector {
    direction: Direction,
    /// `usize::MAX` when the interval decides which entries count.
    limit: usize,
    found: Vec<Found>,
    /// Entries that do not come before this time are out of reach.
    worst: Option<i64>,
    number: usize,
    held_bytes: usize,
    memory: storage::budget::Reservation,
}

impl Collector {
    fn new(params: &Params, limit: usize, context: &Context) -> Result<Self> {
        Ok(Self {
            direction: params.direction,
            limit: if params.interval_ns > 0 { usize::MAX } else { limit },
            found: Vec::new(),
            worst: None,
            number: 0,
            held_bytes: 0,
            memory: context.reserve(0)?,
        })
    }

    fn sort(&mut self) {
        match self.direction {
            Direction::Backward => self.found.sort_unstable_by_key(|found| (-i128::from(found.ts_ns), found.number)),
            Direction::Forward => self.found.sort_unstable_by_key(|found| (i128::from(found.ts_ns), found.number)),
        }
    }

    fn prune(&mut self) {
        if self.found.len() > self.limit {
            self.sort();
            self.found.truncate(self.limit);
            self.worst = self.found.last().map(|found| found.ts_ns);
            self.held_bytes = self.found.iter().map(bytes_of).sum();
        }
    }

    fn finish(mut self) -> Vec<Found> {
        self.sort();
        self.found.truncate(self.limit);
        self.found
    }
}

fn bytes_of(found: &Found) -> usize {
    let labels: usize = found.labels.iter().map(|(name, value, _)| name.len() + value.len() + 64).sum();
    found.line.len() + labels + size_of::<Found>()
}

impl Visitor for Collector {
    fn wants(&self, ts_ns: i64) -> bool {
        self.worst.is_none_or(|worst| match self.direction {
            Direction::Backward => ts_ns > worst,
            Direction::Forward => ts_ns < worst,
        })
    }

    fn entry(&mut self, row: &mut Row<'_>) -> Result<()> {
        let owned = |(name, value, category): (&str, &str, Category)| (name.to_owned(), value.to_owned(), category);
        let found = Found {
            ts_ns: row.ts_ns,
            number: self.number,
            line: row.line.clone().into_owned(),
            labels: row.labels.sorted().into_iter().map(owned).collect(),
        };
        self.number += 1;
        self.held_bytes += bytes_of(&found);
        self.found.push(found);
        if self.found.len() >= self.limit.saturating_mul(2).max(SLACK_MIN) {
            self.prune();
        }
        Ok(())
    }

    fn batch_done(&mut self) -> Result<()> {
        match self.held_bytes.checked_sub(self.memory.bytes()) {
            Some(more) => self.memory.grow(more).map_err(Error::from),
            None => {
                self.memory.shrink_to(self.held_bytes);
                Ok(())
            }
        }
    }
}

/// Entries with equal labels become one stream, in order of their first entry.
fn streams(found: Vec<Found>) -> Vec<Stream> {
    let mut places: HashMap<Vec<(String, String)>, usize, ahash::RandomState> = HashMap::default();
    let mut list: Vec<Stream> = Vec::new();
    for Found { ts_ns, line, labels, .. } in found {
        let of = |wanted: Category| -> Vec<(String, String)> {
            let chosen = labels.iter().filter(|(_, _, category)| *category == wanted);
            chosen.map(|(name, value, _)| (name.clone(), value.clone())).collect()
        };
        let entry = Entry { ts_ns, line, structured_metadata: of(Category::Metadata), parsed: of(Category::Parsed) };
        let key: Vec<(String, String)> = labels.into_iter().map(|(name, value, _)| (name, value)).collect();
        let place = *places.entry(key).or_insert_with_key(|key| {
            list.push(Stream { labels: key.clone(), entries: Vec::new() });
            list.len() - 1
        });
        list[place].entries.push(entry);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_the_range_once_from_either_end() {
        for direction in [Direction::Backward, Direction::Forward] {
            for (start, end) in [(0, 3600 * NS_PER_S), (5, 6), (i64::MIN, i64::MAX), (0, 64 * NS_PER_S), (7, 7)] {
                let list: Vec<TimeRange> = slices(TimeRange::new(start, end), direction).collect();
                assert!(list.len() < 8, "{list:?}");
                let mut sorted = list.clone();
                sorted.sort_by_key(|slice| slice.start);
                let joined = sorted.windows(2).all(|pair| pair[0].end == pair[1].start);
                assert!(joined, "{sorted:?}");
                let ends = sorted.first().zip(sorted.last()).map(|(first, last)| (first.start, last.end));
                assert_eq!(ends, (start < end).then_some((start, end)));
                let first_is_newest = list.first().is_none_or(|slice| slice.end == end);
                assert!(direction == Direction::Forward || first_is_newest);
            }
        }
    }
}
