//! Blocks written again without what is hidden of them.
//!
//! Owns: which blocks are worth it, the new blocks, their commit. Does not own: what is hidden (`visible`), the merging
//! of blocks (compaction).
//!
//! A block is written again if a delete request covers it, or if a retention rule has expired for its whole day: once
//! for each rule, not every day. A block in which nothing is hidden is only noted.
//!
//! Invariants
//! 1. Memory does not grow with the block: its rows are cut into parts.
//! 2. What was read before a delete request was made is not committed after it.

use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use hashbrown::{HashMap, HashSet};

use super::Engine;
use super::delete::deletable;
use super::upkeep::IDENTITIES_AGE_MIN_MS;
use super::visible::{Hiding, extents, is_hidden};
use crate::delete::State;
use crate::delete::hide::{Hide, visible_rows};
use crate::error::{Error, Result};
use crate::model::time::Day;
use crate::paths::block_object;
use crate::scan::BatchStream;
use crate::scan::merge::batch_bytes;
use crate::scan::open::{guarded, open_block};
use crate::signal::{Signal, Table};
use crate::table::{Block, NewBlock, Replaced, Replacement, Replacing, TenantTables};

/// Blocks that one round writes again, of each table.
const REWRITES_PER_ROUND: usize = 16;
/// Rows of this size in memory become one block.
const PART_BYTES_MAX: usize = 64 << 20;

/// Blocks that are remembered as looked at; forgetting costs a look.
const CHECKED_MAX: usize = 100_000;

/// How many retention rules had expired for a block's whole day when it was last looked at.
pub(super) type Checked = HashMap<String, usize>;

impl Engine {
    /// Writes blocks of facts and of identities again without what is hidden, a bounded number of them.
    pub(super) async fn rewrite_hidden(
        &self,
        tables: &Arc<TenantTables>,
        signal: Signal,
        hiding: &Hiding,
        checked: &mut Checked,
    ) -> Result<()> {
        let mut clean = Vec::new();
        for table in deletable(signal) {
            let snapshot = tables.snapshot(table).await?;
            let covered: HashSet<&str> = hiding.requests.covered(table).collect();
            let mut rewritten = 0;
            for block in &snapshot.blocks {
                let object = block_object(tables.tenant(), table, &block.path).to_string();
                let expired = hiding.cutoffs.expired(block.day);
                let is_covered = covered.contains(block.path.as_str());
                let is_new = expired > checked.get(&object).copied().unwrap_or(0);
                if rewritten >= REWRITES_PER_ROUND || !(is_covered || is_new) {
                    continue;
                }
                if self.rewrite_facts(tables, table, block, hiding).await? {
                    rewritten += 1;
                    continue;
                }
                if checked.len() >= CHECKED_MAX {
                    checked.clear();
                }
                checked.insert(object, expired);
                if is_covered {
                    clean.push((table, block.path.clone()));
                }
            }
        }
        self.note_clean(tables, &hiding.requests, clean).await?;
        self.rewrite_identities(tables, signal).await
    }

    /// Whether anything of the block was hidden; then other blocks have its place, unless somebody was faster.
    async fn rewrite_facts(
        &self,
        tables: &Arc<TenantTables>,
        table: Table,
        block: &Arc<Block>,
        hiding: &Hiding,
    ) -> Result<bool> {
        let hides = hiding.of_block(tables, table, block).await?;
        let extents = extents(tables, table, block).await?;
        if !extents.iter().any(|(id, (first, last))| is_touched(*id, *first, *last, &hides)) {
            return Ok(false);
        }
        let mut added = Vec::new();
        if !extents.iter().all(|(id, (first, last))| is_hidden(*id, *first, *last, &hides)) {
            let keep = |rows| visible_rows(table, rows, &hides);
            let Some(again) = write_again(tables, table, block, &keep).await? else { return Ok(false) };
            added = again;
        }
        self.put_in_place(tables, table, block, added, &hiding.requests).await?;
        Ok(true)
    }

    /// Commits `added` in the place of `block`, unless a request was made after `seen`.
    async fn put_in_place(
        &self,
        tables: &TenantTables,
        table: Table,
        block: &Arc<Block>,
        added: Vec<NewBlock>,
        seen: &State,
    ) -> Result<()> {
        let Some(_held) = tables.deletes().hold(seen).await? else { return Ok(()) };
        let left = added.iter().map(|new| new.block.rows).sum::<u64>();
        let replacement = Replacement { removed: vec![Arc::clone(block)], added };
        match tables.replace(table, std::slice::from_ref(&replacement), Replacing::Rows).await? {
            Replaced::Done if replacement.added.is_empty() => {
                self.upkeep.dropped_blocks.add(1);
                self.upkeep.dropped_bytes.add(block.bytes);
            }
            Replaced::Done => {
                self.upkeep.rewritten_blocks.add(1);
                self.upkeep.removed_rows.add(block.rows - left);
            }
            Replaced::Conflict(_) => {}
        }
        Ok(())
    }

    /// Notes that no request that `seen` has hides anything of these blocks.
    async fn note_clean(&self, tables: &TenantTables, seen: &State, clean: Vec<(Table, String)>) -> Result<()> {
        if clean.is_empty() {
            return Ok(());
        }
        let (clean, now) = (&clean, self.clock.now().0);
        let noted =
            tables.deletes().step(|state| std::future::ready(Ok(state.settled(|_, _| true, clean, seen.next(), now))));
        noted.await.map(|_| ())
    }

    /// Writes covered blocks of identities again without those that have no facts on their day any more, once no covered
    /// block of facts of the day is left.
    async fn rewrite_identities(&self, tables: &Arc<TenantTables>, signal: Signal) -> Result<()> {
        let table = signal.spec().identities;
        if !tables.deletes().state().await?.covers(table) {
            return Ok(());
        }
        let mut flush = self.lane(signal).flush.lock().await;
        if flush.is_half_way(tables.tenant()) {
            return Ok(());
        }
        let seen = tables.deletes().state().await?;
        let covered: HashSet<&str> = seen.covered(table).collect();
        let now_ms = self.clock.now().to_ms().0;
        let mut clean = Vec::new();
        let mut present: HashMap<Day, Option<HashSet<i64>>> = HashMap::new();
        for block in &tables.snapshot(table).await?.blocks {
            let old_enough = now_ms - block.written_ms >= IDENTITIES_AGE_MIN_MS;
            if !covered.contains(block.path.as_str()) || !old_enough {
                continue;
            }
            if !present.contains_key(&block.day) {
                present.insert(block.day, identities_of_day(tables, signal, block.day, &seen).await?);
            }
            let Some(Some(ids)) = present.get(&block.day) else { continue };
            let keep = |rows| of_identities(table, rows, ids);
            let Some(added) = write_again(tables, table, block, &keep).await? else {
                clean.push((table, block.path.clone()));
                continue;
            };
            // What is gone from the table is written again when it comes back.
            flush.forget_written(tables.tenant());
            self.put_in_place(tables, table, block, added, &seen).await?;
        }
        self.note_clean(tables, &seen, clean).await
    }
}

/// The identities that have facts on `day`; `None` while a delete request still covers a block of them.
async fn identities_of_day(
    tables: &Arc<TenantTables>,
    signal: Signal,
    day: Day,
    seen: &State,
) -> Result<Option<HashSet<i64>>> {
    let mut ids = HashSet::new();
    for table in deletable(signal) {
        let covered: HashSet<&str> = seen.covered(table).collect();
        for block in tables.snapshot(table).await?.blocks.iter().filter(|block| block.day == day) {
            if covered.contains(block.path.as_str()) {
                return Ok(None);
            }
            ids.extend(extents(tables, table, block).await?.into_keys());
        }
    }
    Ok(Some(ids))
}

/// Whether some hide may hide a row of `id` between its two times.
fn is_touched(id: i64, first: i64, last: i64, hides: &[Hide]) -> bool {
    hides.iter().any(|hide| hide.ids.contains(id) && hide.range.overlaps(first, last))
}

fn of_identities(table: Table, rows: RecordBatch, ids: &HashSet<i64>) -> Result<RecordBatch> {
    let column = table.spec().identity.and_then(|name| rows.column_by_name(name));
    let column = column.and_then(|column| column.as_primitive_opt::<Int64Type>());
    let column = column.ok_or_else(|| Error::corrupt(format!("`{}` lacks its identities", table.name())))?;
    let keep: BooleanArray = column.values().iter().map(|id| Some(ids.contains(id))).collect();
    Ok(filter_record_batch(&rows, &keep)?)
}

/// What a rewrite leaves of a batch.
type Keep<'a> = &'a (dyn Fn(RecordBatch) -> Result<RecordBatch> + Send + Sync);

/// The rows of `block` that `keep` leaves, as blocks that are not committed; `None` if it leaves all, so that nothing is
/// written for nothing.
async fn write_again(
    tables: &Arc<TenantTables>,
    table: Table,
    block: &Arc<Block>,
    keep: Keep<'_>,
) -> Result<Option<Vec<NewBlock>>> {
    let mut looked_at = all_rows(tables, table, block);
    loop {
        let Some(batch) = looked_at.try_next().await? else { return Ok(None) };
        let rows = batch.num_rows();
        if keep(batch)?.num_rows() < rows {
            break;
        }
    }
    drop(looked_at);
    let mut added = Vec::new();
    let (mut part, mut bytes) = (Vec::new(), 0);
    let mut rows = all_rows(tables, table, block);
    while let Some(batch) = rows.try_next().await? {
        let batch = keep(batch)?;
        if batch.num_rows() == 0 {
            continue;
        }
        bytes += batch_bytes(&batch);
        part.push(batch);
        if bytes >= PART_BYTES_MAX {
            bytes = 0;
            added.push(tables.write_block(table, block.day, std::mem::take(&mut part)).await?);
        }
    }
    if !part.is_empty() {
        added.push(tables.write_block(table, block.day, part).await?);
    }
    Ok(Some(added))
}

fn all_rows(tables: &Arc<TenantTables>, table: Table, block: &Arc<Block>) -> BatchStream {
    let object = block_object(tables.tenant(), table, &block.path);
    let (tables, block) = (Arc::clone(tables), Arc::clone(block));
    guarded(object, async move { open_block(&tables, table, &block, None).await?.all_rows() })
}
