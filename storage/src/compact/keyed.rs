//! The merge of tables that have no time: identities by their labels, metadata by its texts.
//!
//! Owns: the order across blocks of these tables and the removal of duplicates. Does not own: tables of facts, whose
//! keys are numbers (`scan::merge`).
//!
//! Invariant: of each source one batch is held with its keys, and of the answer one batch.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::interleave_record_batch;
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use futures::stream::{StreamExt, TryStreamExt, try_unfold};

use crate::budget::Reservation;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::scan::BatchStream;
use crate::scan::merge::batch_bytes;
use crate::signal::{SortBy, Table};

/// Rows of a batch of the answer.
const BATCH_ROWS: usize = 4_096;

/// Merges `sources` of `table` (oldest first), each sorted; of rows with one key the first stays, the others count in
/// `repeats`.
pub(super) fn merge(
    table: Table,
    sources: Vec<BatchStream>,
    context: &Context,
    repeats: Arc<AtomicU64>,
) -> BatchStream {
    let context = context.clone();
    let start = async move {
        let merge = Merge::start(table, sources, context, repeats).await?;
        Ok::<_, Error>(try_unfold(merge, |mut merge| async move {
            let rows = merge.next().await?;
            Ok(rows.map(|rows| (rows, merge)))
        }))
    };
    futures::stream::once(start).try_flatten().boxed()
}

struct Cursor {
    stream: BatchStream,
    /// The batch's place in `Merge::batches` once a row of it was picked.
    picked: Option<usize>,
    rows: RecordBatch,
    keys: Rows,
    at: usize,
    held: Reservation,
}

struct Merge {
    /// Places of the columns that make the key.
    columns: Vec<usize>,
    converter: RowConverter,
    cursors: Vec<Cursor>,
    heap: BinaryHeap<Reverse<(OwnedRow, usize)>>,
    last: Option<OwnedRow>,
    batches: Vec<RecordBatch>,
    picked: Vec<(usize, usize)>,
    repeats: Arc<AtomicU64>,
    context: Context,
}

impl Merge {
    async fn start(table: Table, sources: Vec<BatchStream>, context: Context, repeats: Arc<AtomicU64>) -> Result<Self> {
        let schema = (table.spec().schema)();
        let columns: Vec<usize> = match table.spec().sort_by {
            SortBy::Text => {
                table.spec().unique_by.iter().map(|name| schema.index_of(name)).collect::<Result<_, _>>()?
            }
            // The labels, of which the id is a hash.
            _ => vec![schema.fields().len() - 1],
        };
        let fields = columns.iter().map(|at| SortField::new(schema.field(*at).data_type().clone())).collect();
        let converter = RowConverter::new(fields)?;
        let mut merge = Self {
            columns,
            converter,
            cursors: Vec::new(),
            heap: BinaryHeap::new(),
            last: None,
            batches: Vec::new(),
            picked: Vec::new(),
            repeats,
            context,
        };
        for stream in sources {
            let held = merge.context.reserve(0)?;
            let empty = RecordBatch::new_empty(Arc::clone(&schema));
            let keys = merge.converter.empty_rows(0, 0);
            merge.cursors.push(Cursor { stream, picked: None, rows: empty, keys, at: 0, held });
            let source = merge.cursors.len() - 1;
            merge.advance(source).await?;
        }
        Ok(merge)
    }

    /// Brings a source to its next row and into the heap, unless it has none.
    async fn advance(&mut self, source: usize) -> Result<()> {
        let Some(cursor) = self.cursors.get_mut(source) else { return Ok(()) };
        while cursor.at >= cursor.rows.num_rows() {
            self.context.check()?;
            let Some(rows) = cursor.stream.try_next().await? else { return Ok(()) };
            let columns: Vec<ArrayRef> = self.columns.iter().map(|at| Arc::clone(rows.column(*at))).collect();
            let keys = self.converter.convert_columns(&columns)?;
            let bytes = batch_bytes(&rows) + keys.size();
            cursor.held.shrink_to(bytes);
            cursor.held.grow(bytes - cursor.held.bytes())?;
            (cursor.rows, cursor.keys, cursor.at, cursor.picked) = (rows, keys, 0, None);
        }
        self.heap.push(Reverse((cursor.keys.row(cursor.at).owned(), source)));
        Ok(())
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        while self.picked.len() < BATCH_ROWS {
            let Some(Reverse((key, source))) = self.heap.pop() else { break };
            let Some(cursor) = self.cursors.get_mut(source) else { continue };
            if self.last.as_ref() == Some(&key) {
                self.repeats.fetch_add(1, Ordering::Relaxed);
            } else {
                let batch = *cursor.picked.get_or_insert_with(|| {
                    self.batches.push(cursor.rows.clone());
                    self.batches.len() - 1
                });
                self.picked.push((batch, cursor.at));
                self.last = Some(key);
            }
            cursor.at += 1;
            self.advance(source).await?;
        }
        if self.picked.is_empty() {
            return Ok(None);
        }
        let batches: Vec<&RecordBatch> = self.batches.iter().collect();
        let rows = interleave_record_batch(&batches, &self.picked)?;
        self.batches.clear();
        self.picked.clear();
        self.cursors.iter_mut().for_each(|cursor| cursor.picked = None);
        Ok(Some(rows))
    }
}

#[cfg(test)]
mod tests {
    use arrow::compute::concat_batches;
    use futures::stream;
    use proptest::prelude::*;

    use super::*;
    use crate::budget::Share;
    use crate::model::identity::Identity;
    use crate::model::labels::Labels;
    use crate::model::tenant::Tenant;
    use crate::signal::Signal;
    use crate::table::identity_rows;

    proptest! {
        /// Identities of several blocks come out in the order of `Labels`, each once.
        #[test]
        fn identities_come_in_the_order_of_labels(
            blocks in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::btree_map("[a-c\u{1}é]{1,2}", "[a\u{1}ü]{0,3}", 0..4), 0..8),
                1..5,
            ),
        ) {
            let identities: Vec<Vec<Identity>> = blocks
                .iter()
                .map(|block| {
                    let all: std::collections::BTreeSet<Labels> = block.iter().map(Labels::from_pairs).collect();
                    all.into_iter().map(Identity::from).collect()
                })
                .collect();
            let source = |identities: &Vec<Identity>| {
                let rows = identity_rows(Signal::Logs, identities).expect("builds");
                let halves = [rows.slice(0, rows.num_rows() / 2), rows.slice(rows.num_rows() / 2, rows.num_rows().div_ceil(2))];
                stream::iter(halves.map(Ok)).boxed()
            };
            let context = Context::new(Tenant::single(), Share::root("test", 1 << 30));
            let repeats = Arc::new(AtomicU64::new(0));
            let merged = merge(Table::Streams, identities.iter().map(source).collect(), &context, Arc::clone(&repeats));
            let merged: Vec<RecordBatch> = futures::executor::block_on(merged.try_collect()).expect("merges");
            let mut expected: Vec<Identity> = identities.iter().flatten().cloned().collect();
            let all = expected.len();
            expected.sort_by(|a, b| a.labels.cmp(&b.labels));
            expected.dedup_by(|a, b| a.id == b.id);
            let rows = concat_batches(&(Table::Streams.spec().schema)(), &merged).expect("fits");
            prop_assert_eq!(rows.num_rows() as u64 + repeats.load(Ordering::Relaxed), all as u64);
            prop_assert_eq!(rows, identity_rows(Signal::Logs, &expected).expect("builds"));
        }
    }
}
