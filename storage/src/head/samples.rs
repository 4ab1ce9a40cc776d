//! Float samples grouped by series: sorted columns, each time once.
//!
//! Owns: order, repeats and conflicts. Does not own: labels (`identities`).
//!
//! Invariants
//! 1. The times of a series ascend strictly, within a chunk and across its chunks.
//! 2. Values are compared and kept by their bits: a staleness marker is no other NaN.
//! 3. No chunk is empty or longer than [`CHUNK_ROWS_MAX`]: an insertion in the middle moves at most that many rows.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch};
use arrow::buffer::NullBuffer;

use super::{Conflict, Group, Incoming, Outcome, Reserve, Selection, Wanted, days_of};
use crate::error::Result;
use crate::model::columns::SampleColumns;
use crate::model::identity::IdentityId;
use crate::model::time::{Day, NS_PER_MS, TimestampMs};
use crate::signal::Table;

/// Rows of one chunk; a full one is cut in two when a row falls into its middle.
const CHUNK_ROWS_MAX: usize = 1024;
/// Rows of one batch that leaves.
const BATCH_ROWS: usize = 8192;
/// Bytes of one of its rows.
const ROW_BYTES: usize = 32;
/// Stands for an unknown start time.
const NO_START: i64 = i64::MIN;

/// Samples by series.
#[derive(Default)]
pub(super) struct Samples {
    /// By ordinal.
    series: Vec<Series>,
    rows: usize,
    bytes: usize,
    /// The latest time of all, so that later ones need no comparison with a frozen head.
    last_ts: Option<i64>,
}

#[derive(Default)]
struct Series {
    chunks: Vec<Chunk>,
}

#[derive(Default)]
struct Chunk {
    ts: Vec<i64>,
    value: Vec<f64>,
    /// Empty while no row has a start time.
    start: Vec<i64>,
}

/// What became of a sample.
enum Put {
    Kept,
    Repeat,
    Conflict,
}

impl Chunk {
    fn bytes(&self) -> usize {
        (self.ts.capacity() + self.value.capacity() + self.start.capacity()) * 8 + std::mem::size_of::<Self>()
    }

    fn insert(&mut self, at: usize, ts: i64, value: f64, start: i64) {
        if start != NO_START && self.start.is_empty() {
            self.start.resize(self.ts.len(), NO_START);
        }
        if start != NO_START || !self.start.is_empty() {
            self.start.insert(at, start);
        }
        self.ts.insert(at, ts);
        self.value.insert(at, value);
    }

    fn split(&mut self) -> Self {
        let half = self.ts.len() / 2;
        let start = if self.start.is_empty() { Vec::new() } else { self.start.split_off(half) };
        Self { ts: self.ts.split_off(half), value: self.value.split_off(half), start }
    }
}

impl Series {
    /// The chunk that holds `ts` or would take it.
    fn chunk_of(&self, ts: i64) -> usize {
        self.chunks.partition_point(|chunk| chunk.ts.first().is_some_and(|first| *first <= ts)).saturating_sub(1)
    }

    fn held(&self, ts: i64) -> Option<u64> {
        let chunk = self.chunks.get(self.chunk_of(ts))?;
        let at = chunk.ts.binary_search(&ts).ok()?;
        chunk.value.get(at).map(|value| value.to_bits())
    }

    /// Puts a sample in its place; the bytes by which the series grew are added to `bytes`.
    fn put(&mut self, ts: i64, value: f64, start: i64, bytes: &mut usize) -> Put {
        let at = self.chunk_of(ts);
        let last = self.chunks.len().saturating_sub(1);
        let Some(chunk) = self.chunks.get_mut(at) else {
            let mut chunk = Chunk::default();
            chunk.insert(0, ts, value, start);
            *bytes += chunk.bytes();
            self.chunks.push(chunk);
            return Put::Kept;
        };
        let before = chunk.bytes();
        if chunk.ts.last().is_none_or(|last| *last < ts) {
            if at == last && chunk.ts.len() >= CHUNK_ROWS_MAX {
                let mut next = Chunk::default();
                next.insert(0, ts, value, start);
                *bytes += next.bytes();
                self.chunks.push(next);
                return Put::Kept;
            }
            let end = chunk.ts.len();
            chunk.insert(end, ts, value, start);
        } else {
            match chunk.ts.binary_search(&ts) {
                Ok(same) if chunk.value[same].to_bits() == value.to_bits() => return Put::Repeat,
                Ok(_) => return Put::Conflict,
                Err(place) => chunk.insert(place, ts, value, start),
            }
        }
        let mut after = chunk.bytes();
        if chunk.ts.len() > CHUNK_ROWS_MAX {
            let half = chunk.split();
            after = chunk.bytes() + half.bytes();
            self.chunks.insert(at + 1, half);
        }
        *bytes = (*bytes + after).saturating_sub(before);
        Put::Kept
    }
}

impl Group for Samples {
    fn insert(&mut self, incoming: &Incoming<'_>, outcome: &mut Outcome) -> Result<()> {
        let columns = SampleColumns::new(incoming.rows)?;
        let (times, values) = (columns.ts_ms.values(), columns.value.values());
        let starts = columns.start_ts_ms.values();
        let start_nulls = columns.start_ts_ms.logical_nulls();
        for (row, ordinal) in incoming.ordinals.iter().enumerate() {
            let (ts, value) = (times[row], values[row]);
            let known = start_nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
            let start = if known { starts[row] } else { NO_START };
            let place = usize::try_from(*ordinal).unwrap_or(usize::MAX);
            if place >= self.series.len() {
                self.bytes += (place + 1 - self.series.len()) * std::mem::size_of::<Series>();
                self.series.resize_with(place + 1, Series::default);
            }
            let put = match incoming.earlier.and_then(|earlier| earlier(*ordinal, ts)) {
                Some(bits) if bits == value.to_bits() => Put::Repeat,
                Some(_) => Put::Conflict,
                None => self.series[place].put(ts, value, start, &mut self.bytes),
            };
            match put {
                Put::Kept => {
                    self.rows += 1;
                    self.last_ts = self.last_ts.max(Some(ts));
                }
                Put::Repeat => outcome.repeats += 1,
                Put::Conflict => outcome.conflicts.push(Conflict {
                    series: IdentityId::from_column(columns.series_id.value(row)),
                    ts: TimestampMs(ts),
                }),
            }
        }
        Ok(())
    }

    fn rows(&self) -> usize {
        self.rows
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn held(&self, ordinal: u32, time: i64) -> Option<u64> {
        if self.last_ts.is_none_or(|last| time > last) {
            return None;
        }
        self.series.get(usize::try_from(ordinal).ok()?)?.held(time)
    }

    fn days(&self) -> Result<BTreeSet<Day>> {
        let mut days = BTreeSet::new();
        for chunk in self.series.iter().flat_map(|series| &series.chunks) {
            let ends = [chunk.ts.first(), chunk.ts.last()].map(|ts| ts.map(|ts| TimestampMs(*ts).to_ns().day()));
            match ends {
                // Times ascend.
                [Some(first), Some(last)] if first == last => drop(days.insert(first)),
                _ => days_of(&chunk.ts, NS_PER_MS, &mut days),
            }
        }
        Ok(days)
    }

    fn select(&self, wanted: &Wanted<'_>, reserve: Reserve<'_>) -> Result<Selection> {
        let mut out = Columns::default();
        let mut batches = Vec::new();
        for (ordinal, id) in wanted.identities {
            let Some(series) = usize::try_from(*ordinal).ok().and_then(|place| self.series.get(place)) else {
                continue;
            };
            for chunk in &series.chunks {
                let inside = |ts: &i64| wanted.range.contains(ts.saturating_mul(NS_PER_MS));
                // Times ascend, so those inside are neighbours.
                let from = chunk.ts.partition_point(|ts| ts.saturating_mul(NS_PER_MS) < wanted.range.start);
                let to = from + chunk.ts[from..].partition_point(inside);
                reserve((to - from) * ROW_BYTES)?;
                out.extend(*id, chunk, from..to);
                if out.ts.len() >= BATCH_ROWS {
                    batches.push(std::mem::take(&mut out).finish()?);
                }
            }
        }
        if !out.ts.is_empty() {
            batches.push(out.finish()?);
        }
        Ok(Selection::built(batches))
    }
}

/// Columns of a batch that leaves.
#[derive(Default)]
struct Columns {
    id: Vec<i64>,
    ts: Vec<i64>,
    value: Vec<f64>,
    start: Vec<i64>,
}

impl Columns {
    fn extend(&mut self, id: IdentityId, chunk: &Chunk, rows: std::ops::Range<usize>) {
        let end = self.ts.len() + rows.len();
        self.id.resize(end, id.to_column());
        self.ts.extend_from_slice(&chunk.ts[rows.clone()]);
        self.value.extend_from_slice(&chunk.value[rows.clone()]);
        match chunk.start.get(rows) {
            Some(start) => self.start.extend_from_slice(start),
            None => self.start.resize(end, NO_START),
        }
    }

    fn finish(self) -> Result<RecordBatch> {
        let nulls = NullBuffer::from_iter(self.start.iter().map(|start| *start != NO_START));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(self.id)),
            Arc::new(Int64Array::from(self.ts)),
            Arc::new(Int64Array::new(self.start.into(), Some(nulls))),
            Arc::new(Float64Array::from(self.value)),
        ];
        Ok(RecordBatch::try_new((Table::Samples.spec().schema)(), columns)?)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::head::TenantHead;
    use crate::model::batch::{Batch, MetricsBuilder};
    use crate::model::labels::Labels;
    use crate::model::time::TimeRange;
    use crate::scan::ScanRequest;
    use crate::signal::Signal;

    type Row = (u8, i64, u64, Option<i64>);

    fn series(number: u8) -> Labels {
        Labels::from_pairs([("__name__", format!("m{number}"))])
    }

    fn batch(rows: &[Row]) -> Batch {
        let mut builder = MetricsBuilder::new();
        for (number, ts, bits, start) in rows {
            let id = builder.series(series(*number));
            builder.sample(id, TimestampMs(*ts), f64::from_bits(*bits), start.map(TimestampMs));
        }
        builder.finish().expect("builds")
    }

    fn read(head: &TenantHead, range: TimeRange) -> Vec<(i64, i64, u64, Option<i64>)> {
        let identities: Vec<_> = (0..9).map(|number| series(number).id()).collect();
        let request = ScanRequest { identities: Some(Arc::new(identities)), ..ScanRequest::all(Table::Samples, range) };
        let mut rows = Vec::new();
        for batch in head.select(&request, &mut |_| Ok(())).expect("selects").into_batches() {
            let batch = batch.expect("builds");
            let columns = SampleColumns::new(&batch).expect("views");
            for row in 0..batch.num_rows() {
                let start = columns.start_ts_ms.is_valid(row).then(|| columns.start_ts_ms.value(row));
                let value = columns.value.value(row).to_bits();
                rows.push((columns.series_id.value(row), columns.ts_ms.value(row), value, start));
            }
        }
        rows
    }

    #[test]
    fn repeats_are_counted_and_contradictions_are_refused() {
        let mut head = TenantHead::new(Signal::Metrics);
        let stale = 0x7ff0_0000_0000_0002;
        head.insert(&batch(&[(1, 10, 5, None), (1, 20, stale, None)]), None).expect("fits");
        let outcome =
            head.insert(&batch(&[(1, 10, 5, None), (1, 20, 7, None), (1, 20, stale, None)]), None).expect("fits");
        assert_eq!(outcome.repeats, 2);
        assert_eq!(outcome.conflicts, [Conflict { series: series(1).id(), ts: TimestampMs(20) }]);
        let later = batch(&[(1, 10, 6, None), (1, 10, 5, None), (1, 15, 1, None)]);
        let mut active = TenantHead::new(Signal::Metrics);
        let outcome = active.insert(&later, Some(&head)).expect("fits");
        assert_eq!((outcome.repeats, outcome.conflicts.len(), active.rows()), (1, 1, 1), "the frozen head counts too");
    }

    #[test]
    fn a_long_series_sent_backwards_stays_sorted() {
        let mut head = TenantHead::new(Signal::Metrics);
        let rows: Vec<Row> = (0..10_000).rev().map(|ts| (0, ts, 1, None)).collect();
        head.insert(&batch(&rows), None).expect("fits");
        let times: Vec<i64> = read(&head, TimeRange::ALL).iter().map(|row| row.1).collect();
        assert_eq!(times, (0..10_000).collect::<Vec<_>>());
        assert!(head.bytes() > 10_000 * 16);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn the_head_equals_a_sorted_map(
            rows in proptest::collection::vec((0..4u8, 0..3000i64, 0..3u64, proptest::option::of(0..9i64)), 0..4000),
            (from, to) in (0..3000i64, 0..3000i64),
        ) {
            let mut head = TenantHead::new(Signal::Metrics);
            let mut model: BTreeMap<(u8, i64), (u64, Option<i64>)> = BTreeMap::new();
            let (mut repeats, mut conflicts) = (0u64, 0usize);
            for part in rows.chunks(700) {
                let outcome = head.insert(&batch(part), None).expect("fits");
                for (number, ts, bits, start) in part {
                    match model.get(&(*number, *ts)) {
                        Some((held, _)) if held == bits => repeats += 1,
                        Some(_) => conflicts += 1,
                        None => drop(model.insert((*number, *ts), (*bits, *start))),
                    }
                }
                repeats -= outcome.repeats;
                conflicts -= outcome.conflicts.len();
            }
            prop_assert_eq!((repeats, conflicts, head.rows()), (0, 0, model.len()));
            let range = TimeRange::new(from * NS_PER_MS, to * NS_PER_MS);
            let inside = model.iter().filter(|((_, ts), _)| from <= *ts && *ts < to);
            let expected: Vec<_> =
                inside.map(|((n, ts), (bits, start))| (series(*n).id().to_column(), *ts, *bits, *start)).collect();
            prop_assert_eq!(read(&head, range), expected);
        }
    }
}
