//! Merging blocks: sources in slices → merge → one or more new blocks → one commit.
//!
//! Owns: the steps, the counts that must agree, who is to blame when a block cannot be read. Does not own: which blocks
//! (`policy`), the merge of facts (`scan::merge`), the encoding (`table::writer`).
//!
//! Memory: of each source a slice of about [`SLICE_BYTES`] and a batch of about [`BATCH_BYTES`], as many sources as the
//! policy allows, one block being written, and of tables sorted by identity the order of the day's identities: some
//! 30 bytes each. What is decoded is counted in the share that the context carries.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::stream::{self, StreamExt, TryStreamExt};
use parking_lot::Mutex;

use super::keyed;
use crate::budget::Reservation;
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::model::identity::IdentityId;
use crate::model::time::{Day, TimeRange};
use crate::paths::block_object;
use crate::scan::merge::{batch_bytes, merge};
use crate::scan::open::{Opened, guarded, open_block};
use crate::scan::{BatchStream, ScanRequest};
use crate::signal::{SortBy, Table};
use crate::table::{Block, BlockStream, NewBlock, Replaced, Replacement, Replacing, TenantTables};

/// Bytes of a file at which the next one begins.
const FILE_BYTES: u64 = 256 << 20;
/// Bytes of a block that are fetched at once, as they lie in the file.
const SLICE_BYTES: u64 = 2 << 20;
/// Bytes of a batch before it is merged, by the rows before it.
const BATCH_BYTES: u64 = 512 << 10;
/// Rows of a block's first slice: what a row takes when it is decoded is not known before.
const FIRST_ROWS: u64 = 256;
/// Rows of a batch: enough that the work per batch does not count, few enough for any merge.
const BATCH_ROWS: Range<u64> = 64..8_192;
/// Tries of a commit whose outcome is unknown.
const COMMITS_MAX: usize = 3;
/// What is kept of an identity: its id in the order and its rank by id.
const IDENTITY_BYTES: usize = 32;

/// Neighbours in the order of arrival of one day.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) table: Table,
    pub(crate) day: Day,
    pub(crate) blocks: Vec<Arc<Block>>,
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    /// Blocks merged.
    pub(crate) blocks: u64,
    /// Their bytes.
    pub(crate) bytes_read: u64,
    /// Bytes of the new blocks.
    pub(crate) bytes_written: u64,
    /// Rows that repeated another.
    pub(crate) repeats: u64,
    /// Whether somebody else replaced a block meanwhile, so that nothing changed.
    pub(crate) conflict: bool,
}

/// Why a compaction failed, and which block of which table cannot be read.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    pub(crate) unreadable: Option<(Table, String)>,
}

/// Called between steps and batches: waits for what is more urgent, or ends the compaction.
#[async_trait::async_trait]
pub(crate) trait Pace: Send + Sync {
    /// Before each batch.
    async fn give_way(&self);
    /// All blocks are written, none is visible.
    fn written(&self, table: Table) -> Result<()>;
    /// They are visible.
    fn replaced(&self, table: Table) -> Result<()>;
}

/// Merges the blocks of `task` and commits the result.
pub(crate) async fn run(
    tables: &Arc<TenantTables>,
    task: &Task,
    context: &Context,
    pace: &dyn Pace,
) -> std::result::Result<Done, Failed> {
    let run = Run { tables, context, repeats: Arc::default(), unreadable: Arc::default() };
    let result = run.merge(task, pace).await;
    result.map_err(|error| Failed { error, unreadable: run.unreadable.lock().take() })
}

struct Run<'a> {
    tables: &'a Arc<TenantTables>,
    context: &'a Context,
    repeats: Arc<AtomicU64>,
    unreadable: Arc<Mutex<Option<(Table, String)>>>,
}

impl Run<'_> {
    async fn merge(&self, task: &Task, pace: &dyn Pace) -> Result<Done> {
        let added = self.write(task, pace).await?;
        let repeats = self.repeats.load(Ordering::Relaxed) + Self::count(&self.context.stats.repeats);
        let rows_in: u64 = task.blocks.iter().map(|block| block.rows).sum();
        let rows_out: u64 = added.iter().map(|new| new.block.rows).sum();
        if rows_in != rows_out + repeats {
            let name = task.table.name();
            let text = format!(
                "compaction of `{name}` of {} read {rows_in} rows and would write {rows_out}, with {repeats} repeats",
                task.day
            );
            return Err(Error::bug(text));
        }
        pace.written(task.table)?;
        let done = Done {
            blocks: task.blocks.len() as u64,
            bytes_read: task.blocks.iter().map(|block| block.bytes).sum(),
            bytes_written: added.iter().map(|new| new.block.bytes).sum(),
            repeats,
            conflict: false,
        };
        let conflict = self.commit(task, added).await?;
        pace.replaced(task.table)?;
        Ok(Done { conflict, ..done })
    }

    fn count(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    async fn commit(&self, task: &Task, added: Vec<NewBlock>) -> Result<bool> {
        let replacement = [Replacement { removed: task.blocks.clone(), added }];
        let mut tries = 0;
        loop {
            tries += 1;
            match self.tables.replace(task.table, &replacement, Replacing::Layout).await {
                Ok(replaced) => return Ok(matches!(replaced, Replaced::Conflict(_))),
                Err(error) if error.kind() == Kind::Unavailable && tries < COMMITS_MAX => {
                    tracing::warn!(table = task.table.name(), %error, "the commit of a compaction is tried again");
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Streams the merged rows into new blocks.
    async fn write(&self, task: &Task, pace: &dyn Pace) -> Result<Vec<NewBlock>> {
        let (mut rows, _order) = self.merged(task).await?;
        let level = task.blocks.iter().map(|block| block.level).max().unwrap_or(0).saturating_add(1);
        let mut added = Vec::new();
        let mut open: Option<BlockStream> = None;
        while let Some(batch) = rows.try_next().await? {
            self.context.check()?;
            pace.give_way().await;
            let block = match &mut open {
                Some(block) => block,
                None => open.insert(BlockStream::start(self.tables, task.table, task.day, level)),
            };
            let going = block.push(batch).await;
            if (!going || block.bytes() >= FILE_BYTES)
                && let Some(block) = open.take()
            {
                added.push(block.finish().await?);
            }
        }
        if let Some(block) = open {
            added.push(block.finish().await?);
        }
        Ok(added)
    }

    /// The rows of all blocks in order, each once, and the memory of what the order needs.
    async fn merged(&self, task: &Task) -> Result<(BatchStream, Option<Reservation>)> {
        let spec = task.table.spec();
        let sources: Vec<BatchStream> = task.blocks.iter().map(|block| self.source(task.table, block)).collect();
        if spec.time.is_none() {
            return Ok((keyed::merge(task.table, sources, self.context, Arc::clone(&self.repeats)), None));
        }
        let mut request = ScanRequest::all(task.table, TimeRange::ALL);
        let mut held = None;
        if spec.sort_by == SortBy::Identity {
            let (order, memory) = self.order(spec.signal.spec().identities, task.day).await?;
            request.identities = Some(Arc::new(order));
            held = Some(memory);
        }
        Ok((merge(&request, sources, self.context), held))
    }

    /// The identities of a day in the order of their labels.
    async fn order(&self, table: Table, day: Day) -> Result<(Vec<IdentityId>, Reservation)> {
        // Facts of another writer may be seen before its identities, which it committed first.
        self.tables.look(table, Duration::ZERO).await?;
        let snapshot = self.tables.snapshot(table).await?;
        let of_day = snapshot.blocks.iter().filter(|block| block.day == day);
        let sources = of_day.map(|block| self.source(table, block)).collect();
        let mut rows = keyed::merge(table, sources, self.context, Arc::default());
        let mut held = self.context.reserve(0)?;
        let mut order = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            let ids = batch.column(0).as_primitive_opt::<Int64Type>();
            let ids = ids.ok_or_else(|| Error::corrupt(format!("rows of `{}` without ids", table.name())))?;
            held.grow(ids.values().len() * IDENTITY_BYTES)?;
            order.extend(ids.values().iter().map(|id| IdentityId::from_column(*id)));
        }
        Ok((order, held))
    }

    /// All rows of a block, a slice at a time; remembers the block if it cannot be read.
    fn source(&self, table: Table, block: &Arc<Block>) -> BatchStream {
        let (tables, block) = (Arc::clone(self.tables), Arc::clone(block));
        let (unreadable, path) = (Arc::clone(&self.unreadable), block.path.clone());
        let object = block_object(tables.tenant(), table, &block.path);
        let rows = guarded(object, async move {
            let opened = open_block(&tables, table, &block, None).await?;
            let total = opened.rows();
            if total != block.rows {
                let text = format!("the block `{}` has {total} rows instead of {}", opened.object(), block.rows);
                return Err(Error::corrupt(text));
            }
            Ok(Slices::new(opened, block.bytes).rows())
        });
        let blame = move |error: &Error| {
            if error.kind() == Kind::Corrupt {
                unreadable.lock().get_or_insert_with(|| (table, path.clone()));
            }
        };
        rows.inspect_err(blame).boxed()
    }
}

/// The rows of a block, a slice after the other, in batches of about [`BATCH_BYTES`].
struct Slices {
    opened: Opened,
    /// The first row of the next slice.
    next: u64,
    /// Rows of a slice.
    slice: u64,
    /// Bytes of a decoded row: at first what it takes in the file before compression, where a text that repeats counts
    /// once.
    row_bytes: u64,
    open: Option<BatchStream>,
}

impl Slices {
    fn new(opened: Opened, file_bytes: u64) -> Self {
        let total = opened.rows().max(1);
        let plain =
            opened.footer().row_groups().iter().map(|group| u64::try_from(group.total_byte_size()).unwrap_or(0));
        let row_bytes = (plain.sum::<u64>() / total).max(1);
        let slice = (SLICE_BYTES.saturating_mul(total) / file_bytes.max(1)).max(1);
        Self { opened, next: 0, slice, row_bytes, open: None }
    }

    fn rows(self) -> BatchStream {
        stream::try_unfold(self, |mut slices| async move {
            let rows = slices.next().await?;
            Ok(rows.map(|rows| (rows, slices)))
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(open) = &mut self.open
                && let Some(rows) = open.try_next().await?
            {
                let count = rows.num_rows().max(1) as u64;
                self.row_bytes = self.row_bytes.max(batch_bytes(&rows) as u64 / count);
                return Ok(Some(rows));
            }
            let (start, total) = (self.next, self.opened.rows());
            if start >= total {
                return Ok(None);
            }
            let batch = (BATCH_BYTES / self.row_bytes).clamp(BATCH_ROWS.start, BATCH_ROWS.end);
            let slice = if start == 0 { batch.min(FIRST_ROWS) } else { self.slice.max(batch) };
            self.next = start.saturating_add(slice).min(total);
            self.opened.set_batch_rows(usize::try_from(batch).unwrap_or(1));
            let range = start..self.next;
            self.open = Some(self.opened.selected_rows(std::slice::from_ref(&range), None)?);
        }
    }
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
