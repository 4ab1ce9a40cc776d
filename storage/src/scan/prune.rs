//! Pruning: date → file statistics → directory → pages. Each level only drops what it can prove empty.
//!
//! Owns: the proofs. Does not own: the last, exact filter on rows (`read`), whose answer does not change when any
//! level here keeps more than it must.

use std::ops::Range;
use std::sync::Arc;

use hashbrown::HashMap;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::page_index::column_index::ColumnIndexMetaData;

use super::repeats::Extent;
use super::{Conjunct, ScanRequest};
use crate::error::{Error, Result};
use crate::index::directory::Directory;
use crate::model::span::TraceId;
use crate::model::time::{NS_PER_MS, TimeRange};
use crate::signal::{Table, TimeUnit};
use crate::table::{Block, Snapshot};

/// Ranks of identities: their place in the request, by their column's value.
pub(crate) type Ranks = HashMap<i64, u32, ahash::RandomState>;

/// A time range in the unit of a table's time column, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) first: i64,
    pub(crate) last: i64,
}

impl Bounds {
    /// `range` for `table`; `None` when it is empty.
    pub(crate) fn new(table: Table, range: TimeRange) -> Option<Self> {
        if range.is_empty() {
            return None;
        }
        let open = range.end == i64::MAX;
        let (first, last) = match table.spec().time {
            Some((_, TimeUnit::Ms)) => {
                let up = |ns: i64| ns.div_euclid(NS_PER_MS) + i64::from(ns.rem_euclid(NS_PER_MS) > 0);
                let first = if range.start == i64::MIN { i64::MIN } else { up(range.start) };
                (first, if open { i64::MAX } else { up(range.end) - 1 })
            }
            _ => (range.start, if open { i64::MAX } else { range.end - 1 }),
        };
        (first <= last).then_some(Self { first, last })
    }

    pub(crate) fn contains(self, time: i64) -> bool {
        self.first <= time && time <= self.last
    }

    fn overlaps(self, first: i64, last: i64) -> bool {
        first <= self.last && self.first <= last
    }

    pub(crate) fn covers(self, first: i64, last: i64) -> bool {
        self.first <= first && last <= self.last
    }
}

/// The blocks that may hold rows of `request`, by date and by the statistics in the log.
pub(crate) fn blocks(snapshot: &Snapshot, request: &ScanRequest) -> Vec<Arc<Block>> {
    if snapshot.table.spec().time.is_none() {
        return snapshot.blocks.clone();
    }
    let Some((first_day, last_day)) = request.range.days() else { return Vec::new() };
    let kept = snapshot.blocks.iter().filter(|block| {
        first_day <= block.day
            && block.day <= last_day
            && block.times.is_none_or(|(first, last)| request.range.overlaps(first, last))
    });
    kept.cloned().collect()
}

/// Rows to read of a block, and whether they all lie inside the bounds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) ranges: Vec<Range<u64>>,
    pub(crate) all_inside: bool,
}

/// The runs of a directory that belong to the request's identities and overlap its times; `noted` learns their times.
pub(crate) fn runs(
    directory: &Directory,
    ranks: &Ranks,
    bounds: Bounds,
    mut noted: Option<&mut Extent>,
) -> Result<Rows> {
    let mut kept = Rows { ranges: Vec::new(), all_inside: true };
    let mut last_rank = None;
    for run in directory.runs() {
        let Some(&rank) = ranks.get(&run.identity) else { continue };
        if last_rank.is_some_and(|last| rank < last) {
            return Err(Error::corrupt("a block does not hold its identities in the order of their labels"));
        }
        last_rank = Some(rank);
        if bounds.overlaps(run.first, run.last) {
            kept.all_inside &= bounds.covers(run.first, run.last);
            push(&mut kept.ranges, run.first_row..run.first_row + u64::from(run.rows));
            if let Some(extent) = &mut noted {
                extent.push(run.identity, Bounds { first: run.first, last: run.last });
            }
        }
    }
    Ok(kept)
}

/// Adds a range behind the others, joined with its neighbour.
pub(super) fn push(ranges: &mut Vec<Range<u64>>, range: Range<u64>) {
    match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ if range.is_empty() => {}
        _ => ranges.push(range),
    }
}

/// Cuts `ranges` to the pages of the column `leaf` that `may_match` by their first and last value keeps. Row groups
/// without a page index stay whole.
fn cut_by_pages(
    footer: &ParquetMetaData,
    leaf: usize,
    ranges: &[Range<u64>],
    may_match: impl Fn(&ColumnIndexMetaData, usize) -> bool,
) -> Vec<Range<u64>> {
    let mut pages: Vec<Range<u64>> = Vec::new();
    let mut group_start = 0_u64;
    for group in 0..footer.num_row_groups() {
        let group_end = group_start + u64::try_from(footer.row_group(group).num_rows()).unwrap_or(0);
        let index = footer.column_index().and_then(|index| index.get(group)?.get(leaf));
        // A column without an index has no pages to count.
        let index = index.filter(|index| !matches!(index, ColumnIndexMetaData::NONE));
        let offsets = footer.offset_index().and_then(|index| index.get(group)?.get(leaf));
        match (index, offsets) {
            (Some(index), Some(offsets)) if index.num_pages() == offsets.page_locations().len() as u64 => {
                let starts: Vec<u64> = offsets
                    .page_locations()
                    .iter()
                    .map(|page| group_start + u64::try_from(page.first_row_index).unwrap_or(0))
                    .collect();
                for (page, start) in starts.iter().enumerate() {
                    let end = starts.get(page + 1).copied().unwrap_or(group_end);
                    if may_match(index, page) {
                        push(&mut pages, *start..end);
                    }
                }
            }
            _ => push(&mut pages, group_start..group_end),
        }
        group_start = group_end;
    }
    intersect(ranges, &pages)
}

/// What two ascending lists of ranges have in common.
pub(crate) fn intersect(a: &[Range<u64>], b: &[Range<u64>]) -> Vec<Range<u64>> {
    let (mut i, mut j) = (0, 0);
    let mut common = Vec::new();
    while let (Some(left), Some(right)) = (a.get(i), b.get(j)) {
        let both = left.start.max(right.start)..left.end.min(right.end);
        if !both.is_empty() {
            push(&mut common, both);
        }
        if left.end <= right.end { i += 1 } else { j += 1 }
    }
    common
}

/// Cuts `ranges` to pages whose times (or other integers of 64 bits) overlap `bounds`.
pub(crate) fn pages_by_time(
    footer: &ParquetMetaData,
    leaf: usize,
    ranges: &[Range<u64>],
    bounds: Bounds,
) -> Vec<Range<u64>> {
    cut_by_pages(footer, leaf, ranges, |index, page| match index {
        ColumnIndexMetaData::INT64(index) => match (index.min_values().get(page), index.max_values().get(page)) {
            (Some(min), Some(max)) => bounds.overlaps(*min, *max),
            _ => true,
        },
        _ => true,
    })
}

/// Cuts `ranges` to pages that may hold one of `traces`, which ascend.
pub(crate) fn pages_by_trace(
    footer: &ParquetMetaData,
    leaf: usize,
    ranges: &[Range<u64>],
    traces: &[TraceId],
) -> Vec<Range<u64>> {
    cut_by_pages(footer, leaf, ranges, |index, page| match index {
        ColumnIndexMetaData::BYTE_ARRAY(index) => match (index.min_value(page), index.max_value(page)) {
            (Some(min), Some(max)) => {
                let from = traces.partition_point(|trace| trace.as_slice() < min);
                traces.get(from).is_some_and(|trace| trace.as_slice() <= max)
            }
            _ => true,
        },
        _ => true,
    })
}

/// Cuts `ranges` to pages in which `conjunct` may hold, by the first and last values of its column.
pub(super) fn pages_by_conjunct(
    footer: &ParquetMetaData,
    conjunct: &Conjunct,
    ranges: Vec<Range<u64>>,
) -> Vec<Range<u64>> {
    let leaf = |name: &str| {
        let columns = footer.file_metadata().schema_descr().columns();
        columns.iter().position(|leaf| leaf.path().parts() == [name])
    };
    let between = |column: &str, may_hold: &dyn Fn(&[u8], &[u8]) -> bool| match leaf(column) {
        None => ranges.clone(),
        Some(leaf) => cut_by_pages(footer, leaf, &ranges, |index, page| match index {
            ColumnIndexMetaData::BYTE_ARRAY(index) => {
                index.min_value(page).zip(index.max_value(page)).is_none_or(|(min, max)| may_hold(min, max))
            }
            _ => true,
        }),
    };
    match conjunct {
        Conjunct::LongBetween { column, first, last } => match leaf(column) {
            None => ranges,
            Some(leaf) => pages_by_time(footer, leaf, &ranges, Bounds { first: *first, last: *last }),
        },
        Conjunct::TextIn { column, texts } => {
            between(column, &|min, max| texts.iter().any(|text| min <= text.as_bytes() && text.as_bytes() <= max))
        }
        Conjunct::BytesIn { column, values } => {
            between(column, &|min, max| values.iter().any(|value| min <= &**value && &**value <= max))
        }
        _ => ranges,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_round_to_the_columns_unit() {
        let of = |table, start, end| Bounds::new(table, TimeRange::new(start, end));
        let bounds = |first, last| Some(Bounds { first, last });
        assert_eq!(of(Table::Logs, 3, 7), bounds(3, 6));
        assert_eq!(of(Table::Samples, 1_000_000, 3_000_000), bounds(1, 2));
        assert_eq!(of(Table::Samples, 1_000_001, 3_000_001), bounds(2, 3));
        assert_eq!(of(Table::Samples, -1_500_000, 0), bounds(-1, -1));
        assert_eq!(of(Table::Samples, 1, 1_000_000), None);
        assert_eq!(Bounds::new(Table::Samples, TimeRange::ALL), bounds(i64::MIN, i64::MAX));
        assert_eq!(of(Table::Logs, 7, 7), None);
    }

    proptest! {
        #[test]
        fn bounds_agree_with_the_range(start in -5_000_000_i64..5_000_000, len in 0_i64..5_000_000, ts in -6_i64..6) {
            let range = TimeRange::new(start, start + len);
            let inside = Bounds::new(Table::Samples, range).is_some_and(|bounds| bounds.contains(ts));
            prop_assert_eq!(inside, range.contains(ts * NS_PER_MS));
        }

        #[test]
        fn intersections_hold_what_is_in_both(
            a in proptest::collection::vec(any::<bool>(), 0..40),
            b in proptest::collection::vec(any::<bool>(), 0..40),
        ) {
            let ranges = |bits: &[bool]| {
                let mut ranges = Vec::new();
                for (row, _) in bits.iter().enumerate().filter(|(_, on)| **on) {
                    push(&mut ranges, row as u64..row as u64 + 1);
                }
                ranges
            };
            let both: Vec<bool> = a.iter().zip(&b).map(|(a, b)| *a && *b).collect();
            let rows = |ranges: Vec<Range<u64>>| ranges.into_iter().flatten().collect::<Vec<u64>>();
            prop_assert_eq!(rows(intersect(&ranges(&a), &ranges(&b))), rows(ranges(&both)));
        }
    }
}
