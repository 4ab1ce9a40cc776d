//! The directory of a block: where the rows of each identity stand.
//!
//! Owns: the form in memory and on disk (`docs/formats/directory.md`). Does not own: loading and rebuilding
//! (`scan::open`).
//!
//! Invariants
//! 1. Runs follow each other without gap or overlap and cover all rows of the block, in the block's order.
//! 2. `first` and `last` bound the times of a run, in the unit of the table's time column.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use bytes::Bytes;

use super::frame::{Form, seal, u32_of};
use crate::error::{Error, Result};
use crate::signal::Table;

const FORM: Form = Form { name: "the directory", magic: *b"TDIR", version: 1 };
/// Bytes of one run: identity, rows, first time, last time.
const RUN_BYTES: usize = 8 + 4 + 8 + 8;

/// The rows of one identity in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The identity, as its column holds it.
    pub identity: i64,
    /// Row of the block at which the run begins.
    pub first_row: u64,
    /// Rows.
    pub rows: u32,
    /// Earliest time.
    pub first: i64,
    /// Latest time.
    pub last: i64,
}

/// The runs of one block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directory {
    runs: Vec<Run>,
}

impl Directory {
    /// The runs in the order of the block.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Rows of the block.
    pub fn rows(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.first_row + u64::from(run.rows))
    }

    /// What it holds, in a line.
    pub fn summary(&self) -> String {
        let identities: hashbrown::HashSet<i64> = self.runs.iter().map(|run| run.identity).collect();
        let times = self.runs.iter().map(|run| run.first).min().zip(self.runs.iter().map(|run| run.last).max());
        let (first, last) = times.unwrap_or_default();
        let (identities, runs, rows) = (identities.len(), self.runs.len(), self.rows());
        format!("{identities} identities in {runs} runs, {rows} rows, times {first} to {last}")
    }

    /// Bytes in memory.
    pub fn heap_bytes(&self) -> usize {
        self.runs.capacity() * std::mem::size_of::<Run>()
    }

    /// Adds the rows of `identities` and `times`, which follow those added before.
    pub fn extend(&mut self, identities: &[i64], times: &[i64]) {
        for (at, (&identity, &time)) in (self.rows()..).zip(identities.iter().zip(times)) {
            match self.runs.last_mut() {
                Some(run) if run.identity == identity && run.rows < u32::MAX => {
                    run.rows += 1;
                    run.first = run.first.min(time);
                    run.last = run.last.max(time);
                }
                _ => self.runs.push(Run { identity, first_row: at, rows: 1, first: time, last: time }),
            }
        }
    }

    /// Adds the rows of a batch of `table`; tables without directory are left out.
    pub fn extend_from(&mut self, table: Table, rows: &RecordBatch) -> Result<()> {
        if let Some((identity, time)) = columns(table) {
            self.extend(longs(rows, identity)?, longs(rows, time)?);
        }
        Ok(())
    }

    /// The bytes of the sidecar.
    pub fn encode(&self) -> Bytes {
        let mut out = FORM.start(8 + self.runs.len() * RUN_BYTES);
        out.extend_from_slice(&(self.runs.len() as u64).to_le_bytes());
        self.runs.iter().for_each(|run| out.extend_from_slice(&run.identity.to_le_bytes()));
        self.runs.iter().for_each(|run| out.extend_from_slice(&run.rows.to_le_bytes()));
        self.runs.iter().for_each(|run| out.extend_from_slice(&run.first.to_le_bytes()));
        self.runs.iter().for_each(|run| out.extend_from_slice(&run.last.to_le_bytes()));
        seal(out)
    }

    /// Reads a sidecar; the error says what is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut fields = FORM.open(bytes)?;
        let count = fields.u64()?;
        let (identities, rows) = (fields.table(count, 8)?, fields.table(count, 4)?);
        let (first, last) = (fields.table(count, 8)?, fields.table(count, 8)?);
        fields.end()?;
        let mut runs = Vec::with_capacity(identities.len() / 8);
        let mut first_row = 0;
        let columns = identities.chunks_exact(8).zip(rows.chunks_exact(4));
        for ((identity, rows), (first, last)) in columns.zip(first.chunks_exact(8).zip(last.chunks_exact(8))) {
            let rows = u32_of(rows);
            runs.push(Run { identity: long(identity), first_row, rows, first: long(first), last: long(last) });
            first_row += u64::from(rows);
        }
        Ok(Self { runs })
    }
}

/// The identity and time columns of a table that has directories: those sorted by identity and time.
pub fn columns(table: Table) -> Option<(&'static str, &'static str)> {
    let spec = table.spec();
    match (spec.sort_by, spec.identity, spec.time) {
        (crate::signal::SortBy::Identity, Some(identity), Some((time, _))) => Some((identity, time)),
        _ => None,
    }
}

fn longs<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a [i64]> {
    let array = rows.column_by_name(name).and_then(|array| array.as_primitive_opt::<Int64Type>());
    let array = array.ok_or_else(|| Error::bug(format!("a batch lacks the column `{name}`")))?;
    debug_assert_eq!(array.null_count(), 0);
    Ok(array.values())
}

fn long(bytes: &[u8]) -> i64 {
    bytes.try_into().map(i64::from_le_bytes).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Directory {
        let mut directory = Directory::default();
        directory.extend(&[7, 7, -1], &[10, 20, 5]);
        directory.extend(&[-1, 3], &[1, 9]);
        directory
    }

    #[test]
    fn runs_join_across_batches() {
        let run = |identity, first_row, rows, first, last| Run { identity, first_row, rows, first, last };
        assert_eq!(sample().runs(), [run(7, 0, 2, 10, 20), run(-1, 2, 2, 1, 5), run(3, 4, 1, 9, 9)]);
        assert_eq!(sample().rows(), 5);
    }

    #[test]
    fn the_bytes_are_pinned() {
        // Written down from docs/formats/directory.md with Python's struct module; the checksum bit by bit.
        let mut directory = Directory::default();
        directory.extend(&[1, 1], &[2, 3]);
        let body = "54444952010000000100000000000000010000000000000002000000\
                    02000000000000000300000000000000";
        let encoded = hex::encode(directory.encode());
        assert_eq!(encoded[..encoded.len() - 8], *body);
        assert_eq!(encoded[encoded.len() - 8..], *PINNED_CHECKSUM);
    }

    const PINNED_CHECKSUM: &str = "df9de591";

    proptest! {
        #[test]
        fn what_is_encoded_reads_back(rows in proptest::collection::vec((0i64..5, any::<i64>()), 0..50)) {
            let (ids, times): (Vec<i64>, Vec<i64>) = rows.into_iter().unzip();
            let mut directory = Directory::default();
            directory.extend(&ids, &times);
            prop_assert_eq!(Directory::decode(&directory.encode()).expect("reads"), directory);
        }

        #[test]
        fn damage_is_found(at in 0usize..200, bit in 0u8..8, cut in 0usize..200) {
            let mut bytes = sample().encode().to_vec();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(Directory::decode(&bytes).is_err());
            bytes[at] ^= 1 << bit;
            bytes.truncate(cut % bytes.len());
            prop_assert!(Directory::decode(&bytes).is_err());
        }
    }
}
