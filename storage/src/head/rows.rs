//! Rows in arrival order, as the batches they came in, numbered through.
//!
//! Owns: the batches and the joining of small ones. Does not own: which row belongs to whom (`entries`, `spans`).
//!
//! Invariant: a row keeps its number when batches are joined.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;

use crate::error::{Error, Kind, Result};

/// Batches with fewer rows are joined with their neighbours: each batch has a cost of its own.
const JOIN_ROWS_MAX: usize = 4096;
/// Larger ones are not joined: the offsets of a batch's texts end at 2 GiB.
const JOIN_BYTES_MAX: usize = 32 << 20;

/// Numbered rows.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    batches: Vec<RecordBatch>,
    /// The number of the first row of each batch.
    starts: Vec<usize>,
    count: usize,
    bytes: usize,
}

impl Rows {
    /// Takes `rows` in; the number of the first.
    pub(super) fn push(&mut self, rows: &RecordBatch) -> Result<u32> {
        let end = u32::try_from(self.count + rows.num_rows());
        if end.is_err() {
            return Err(Error::new(Kind::Busy, "the head holds 2^32 rows: retry after the next flush"));
        }
        let first = self.count;
        self.batches.push(rows.clone());
        self.starts.push(first);
        self.count += rows.num_rows();
        self.bytes += size(rows);
        self.join();
        u32::try_from(first).map_err(|_| Error::bug("row numbers ran over"))
    }

    /// Joins the last two batches while both are small and the earlier is not much larger: each row is copied only
    /// a logarithmic number of times. Rows that cannot be joined stay apart: they are acknowledged already.
    fn join(&mut self) {
        while let [.., a, b] = self.batches.as_slice() {
            let many = a.num_rows() > JOIN_ROWS_MAX || b.num_rows() > JOIN_ROWS_MAX;
            if many || a.num_rows() > 2 * b.num_rows() || size(a) + size(b) > JOIN_BYTES_MAX {
                break;
            }
            let Ok(joined) = concat_batches(a.schema_ref(), [a, b]) else { break };
            self.bytes = self.bytes.saturating_sub(size(a) + size(b)) + size(&joined);
            self.batches.truncate(self.batches.len() - 2);
            self.starts.pop();
            self.batches.push(joined);
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The batches as they are now; later rows are not in them.
    pub(super) fn batches(&self) -> Vec<RecordBatch> {
        self.batches.clone()
    }

    /// The batches that hold rows from number `from` on, each with the number of its first.
    pub(super) fn from(&self, from: usize) -> Vec<(usize, RecordBatch)> {
        let first = self.starts.partition_point(|start| *start <= from).saturating_sub(1);
        let (starts, batches) = (self.starts.iter().skip(first), self.batches.iter().skip(first));
        starts.copied().zip(batches.cloned()).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &RecordBatch> {
        self.batches.iter()
    }

    /// Bytes that a row of each batch takes on average.
    pub(super) fn row_bytes(&self) -> Vec<usize> {
        self.batches.iter().map(|rows| size(rows).div_ceil(rows.num_rows().max(1))).collect()
    }

    /// Batch and row in it of a number.
    pub(super) fn locate(&self, number: u32) -> (usize, usize) {
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        let batch = self.starts.partition_point(|start| *start <= number).saturating_sub(1);
        (batch, number - self.starts.get(batch).copied().unwrap_or(0))
    }
}

/// Bytes of a batch with its columns' own structures.
fn size(rows: &RecordBatch) -> usize {
    rows.get_array_memory_size() + 256
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::columns::longs;
    use crate::wal::tests::logs;

    #[test]
    fn large_batches_stay_apart() {
        let mut rows = Rows::default();
        let line = "x".repeat(JOIN_BYTES_MAX / 3);
        for ns in 0..6 {
            let mut builder = crate::model::batch::LogsBuilder::new();
            let stream = builder.stream(crate::model::labels::Labels::empty());
            builder.entry(stream, crate::model::time::TimestampNs(ns), &line, std::iter::empty()).expect("fits");
            rows.push(&builder.finish().expect("builds").facts.remove(0).1).expect("fits");
        }
        assert_eq!(rows.count(), 6);
        assert!(rows.batches().len() > 1);
        assert!(rows.iter().all(|batch| size(batch) <= JOIN_BYTES_MAX));
    }

    #[test]
    fn joined_batches_keep_the_numbers_of_their_rows() {
        let mut rows = Rows::default();
        let mut expected = Vec::new();
        for n in [1, 1, 3, 5000, 2, 2, 2, 100, 1] {
            let batch = logs(n).facts.remove(0).1;
            let first = rows.push(&batch).expect("fits");
            assert_eq!(usize::try_from(first).expect("fits"), expected.len());
            expected.extend_from_slice(longs(&batch, "ts_ns").expect("has times").values());
        }
        assert!(rows.batches().len() < 6);
        assert_eq!(rows.count(), expected.len());
        let batches = rows.batches();
        for (number, time) in (0..).zip(&expected) {
            let (batch, row) = rows.locate(number);
            assert_eq!(longs(&batches[batch], "ts_ns").expect("has times").value(row), *time, "row {number}");
        }
    }
}
