//! Selections: rows picked from a head under its lock, turned into sorted batches without it.
//!
//! Owns: the form between the two. Does not own: what is picked (the groups), the sorting itself (`scan::merge`).
//!
//! Invariant: the batches of a selection together are in the table's order and without duplicates.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use hashbrown::HashMap;

use super::rows::Rows;
use crate::error::Result;
use crate::model::identity::IdentityId;
use crate::scan::merge::sort_hashed;
use crate::scan::prune::Bounds;
use crate::scan::repeats::{Extent, Overlap, unique_places, with_hashes};
use crate::scan::rows::RowHasher;
use crate::signal::Table;

/// Rows of one batch that leaves.
const BATCH_ROWS_MAX: usize = 8192;
/// Rows and bytes sorted at once, cut between groups or between two times of a large one: bounds what a scan of a large
/// head copies at a time, and keeps the texts of a batch below the 2 GiB where their offsets end.
const PART_ROWS_MAX: usize = 32 << 10;
const PART_BYTES_MAX: usize = 8 << 20;
/// Bytes of one picked place.
const PICK_BYTES: usize = 16;

type Ranks = HashMap<i64, u64, ahash::RandomState>;

/// Batch and row in it.
type Place = (usize, usize);

/// Takes bytes from the share of whoever asks, before they are used.
pub type Reserve<'a> = &'a mut dyn FnMut(usize) -> Result<()>;

/// Rows of a head that were asked for.
#[derive(Debug)]
pub struct Selection {
    parts: Parts,
}

#[derive(Debug)]
enum Parts {
    Built(Vec<RecordBatch>),
    Picked(Picked),
}

#[derive(Debug)]
struct Picked {
    table: Table,
    batches: Vec<RecordBatch>,
    ranks: Ranks,
    parts: Vec<Vec<Place>>,
    extent: Extent,
}

impl Selection {
    /// No rows.
    pub fn empty() -> Self {
        Self::built(Vec::new())
    }

    /// Rows that are batches already, sorted and without duplicates.
    pub(super) fn built(batches: Vec<RecordBatch>) -> Self {
        Self { parts: Parts::Built(batches) }
    }

    /// Begins to pick from `rows`; `identities` in the order of the answer.
    pub(super) fn picking(table: Table, rows: &Rows, identities: impl Iterator<Item = IdentityId>) -> Picking {
        let ranks = identities.zip(0..).map(|(id, rank)| (id.to_column(), rank)).collect();
        let batches = rows.batches();
        let picked = Picked { table, batches, ranks, parts: Vec::new(), extent: Extent::default() };
        Picking { picked, row_bytes: rows.row_bytes(), open_bytes: 0 }
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        match &self.parts {
            Parts::Built(batches) => batches.is_empty(),
            Parts::Picked(picked) => picked.parts.is_empty(),
        }
    }

    /// The groups of rows with their times; of rows that are batches already, nothing: there the group and the time
    /// tell rows apart.
    pub fn extent(&self) -> Extent {
        match &self.parts {
            Parts::Built(_) => Extent::default(),
            Parts::Picked(picked) => picked.extent.clone(),
        }
    }

    /// The rows, part by part.
    pub fn into_batches(self) -> Box<dyn Iterator<Item = Result<RecordBatch>> + Send> {
        self.into_columns(None, Overlap::default())
    }

    /// The rows, part by part, in the columns at `places` (`None`: in all); those in `overlap` with their hash, if these
    /// columns do not tell them apart.
    pub fn into_columns(
        self,
        places: Option<Vec<usize>>,
        overlap: Overlap,
    ) -> Box<dyn Iterator<Item = Result<RecordBatch>> + Send> {
        match self.parts {
            Parts::Built(batches) => Box::new(batches.into_iter().flat_map(sliced).map(move |rows| match &places {
                Some(places) => Ok(rows.project(places)?),
                None => Ok(rows),
            })),
            Parts::Picked(mut picked) => {
                let parts = std::mem::take(&mut picked.parts);
                let building = match Building::new(picked, places.as_deref(), overlap) {
                    Ok(building) => Arc::new(building),
                    Err(error) => return Box::new(std::iter::once(Err(error))),
                };
                Box::new(parts.into_iter().flat_map(move |part| match building.build(&part) {
                    Ok(rows) => sliced(rows).into_iter().map(Ok).collect(),
                    Err(error) => vec![Err(error)],
                }))
            }
        }
    }
}

/// What it takes to make batches of parts.
struct Building {
    picked: Picked,
    /// The batches of `picked` in the columns that leave.
    leaving: Vec<RecordBatch>,
    /// The rows that need a hash.
    hashed: Option<Overlap>,
}

impl Building {
    fn new(picked: Picked, places: Option<&[usize]>, overlap: Overlap) -> Result<Self> {
        let Some(places) = places else { return Ok(Self { leaving: picked.batches.clone(), picked, hashed: None }) };
        let leaving = picked.batches.iter().map(|rows| rows.project(places)).collect::<Result<_, _>>()?;
        let told_apart = unique_places(picked.table).iter().all(|place| places.contains(place));
        let hashed = (!told_apart && !overlap.is_empty()).then_some(overlap);
        Ok(Self { picked, leaving, hashed })
    }

    fn build(&self, part: &[Place]) -> Result<RecordBatch> {
        let Picked { table, batches, ranks, .. } = &self.picked;
        let mut rows = interleave_record_batch(&self.leaving.iter().collect::<Vec<_>>(), part)?;
        let mut hasher = RowHasher::new(*table, &(table.spec().schema)())?;
        let mut hash = |row: usize| {
            let (batch, row) = part[row];
            hasher.hash(&batches[batch], row)
        };
        if let Some(overlap) = &self.hashed {
            let may_repeat = overlap.of_rows(*table, &rows)?;
            let hashes = may_repeat.iter().enumerate().map(|(row, may)| may.then(|| hash(row)).transpose());
            rows = with_hashes(&rows, hashes.collect::<Result<_>>()?)?;
        }
        let rank = |id: i64| ranks.get(&id).copied().unwrap_or(u64::MAX);
        sort_hashed(*table, &rows, &rank, &mut hash)
    }
}

fn sliced(rows: RecordBatch) -> Vec<RecordBatch> {
    let starts = (0..rows.num_rows()).step_by(BATCH_ROWS_MAX);
    starts.map(|start| rows.slice(start, BATCH_ROWS_MAX.min(rows.num_rows() - start))).collect()
}

/// A selection that grows group by group, groups in the order of the answer.
pub(super) struct Picking {
    picked: Picked,
    /// By batch.
    row_bytes: Vec<usize>,
    /// Bytes of the rows in the last part.
    open_bytes: usize,
}

impl Picking {
    /// Adds the rows of one identity (its column value) or trace (`None`) with their times, in arrival order.
    pub(super) fn push_group(
        &mut self,
        identity: Option<i64>,
        rows: impl Iterator<Item = (i64, Place)>,
        reserve: Reserve<'_>,
    ) -> Result<()> {
        let mut rows: Vec<(i64, Place)> = rows.collect();
        let times = rows.iter().map(|(time, _)| *time);
        let Some((first, last)) = times.clone().min().zip(times.max()) else { return Ok(()) };
        match identity {
            Some(identity) => self.picked.extent.push(identity, Bounds { first, last }),
            None => self.picked.extent.widen(Bounds { first, last }),
        }
        reserve(rows.len() * PICK_BYTES)?;
        let size = |place: &Place| self.row_bytes.get(place.0).copied().unwrap_or(0);
        let large =
            rows.len() > PART_ROWS_MAX || rows.iter().map(|(_, place)| size(place)).sum::<usize>() > PART_BYTES_MAX;
        if large {
            // Rows that repeat each other have one time, so they stay in one part.
            rows.sort_by_key(|(time, _)| *time);
        }
        let mut before = None;
        for (time, place) in rows {
            let between = before.is_none_or(|before| large && before != time);
            let full = self.open_bytes >= PART_BYTES_MAX
                || self.picked.parts.last().is_none_or(|part| part.len() >= PART_ROWS_MAX);
            if between && full {
                self.picked.parts.push(Vec::new());
                self.open_bytes = 0;
            }
            if let Some(part) = self.picked.parts.last_mut() {
                part.push(place);
            }
            self.open_bytes += self.row_bytes.get(place.0).copied().unwrap_or(0);
            before = Some(time);
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Selection {
        Selection { parts: Parts::Picked(self.picked) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::TenantHead;
    use crate::model::batch::{Batch, LogsBuilder};
    use crate::model::columns::longs;
    use crate::model::labels::Labels;
    use crate::model::time::TimestampNs;
    use crate::signal::Signal;

    fn entries(times: impl Iterator<Item = i64>, line: &str) -> Batch {
        let mut builder = LogsBuilder::new();
        let stream = builder.stream(Labels::from_pairs([("app", "a")]));
        for ns in times {
            builder.entry(stream, TimestampNs(ns), line, std::iter::empty()).expect("fits");
        }
        builder.finish().expect("builds")
    }

    fn parts(head: &TenantHead) -> Vec<Vec<i64>> {
        let parts = head.all(Table::Logs, crate::model::time::TimeRange::ALL).expect("selects");
        parts.map(|rows| longs(&rows.expect("builds"), "ts_ns").expect("has times").values().to_vec()).collect()
    }

    #[test]
    fn a_large_stream_is_cut_between_two_times() {
        let mut head = TenantHead::new(Signal::Logs);
        let line = "x".repeat(1 << 20);
        // Backwards, each time twice: the same entry counts once, wherever the cut falls.
        for _ in 0..2 {
            for ns in (0..50).rev() {
                head.insert(&entries([ns].into_iter(), &line), None).expect("fits");
            }
        }
        let parts = parts(&head);
        assert!(parts.len() > 2, "{parts:?}");
        assert!(parts.iter().all(|part| part.len() <= 9), "{parts:?}");
        assert_eq!(parts.concat(), (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn what_a_selection_takes_is_reserved_before() {
        let mut head = TenantHead::new(Signal::Logs);
        head.insert(&entries(0..100, "x"), None).expect("fits");
        let request = crate::scan::ScanRequest {
            identities: Some(Arc::new(vec![Labels::from_pairs([("app", "a")]).id()])),
            ..crate::scan::ScanRequest::all(Table::Logs, crate::model::time::TimeRange::ALL)
        };
        let mut taken = 0;
        head.select(&request, &mut |bytes| {
            taken += bytes;
            Ok(())
        })
        .expect("selects");
        assert_eq!(taken, 100 * PICK_BYTES);
        let refused = head.select(&request, &mut |_| Err(crate::Error::limit("no memory"))).expect_err("is refused");
        assert_eq!(refused.kind(), crate::Kind::Limit);
    }
}
