//! A flush: frozen heads → blocks → commits → the WAL cut.
//!
//! Owns: the order of these steps and what a failed one leaves for the next try. Does not own: files and commits
//! (`table`), the order of rows (`head`).
//!
//! Invariants
//! 1. Identities are committed before the facts that need them, the main table last; its mark, moved even without
//!    rows, says that the whole flush is in the tables.
//! 2. A frozen head stays queryable until its commits are visible. A scan takes heads first and snapshots then, so
//!    it may meet a row in both, which the merge counts once, but never in neither.
//! 3. The WAL is cut only after the main tables of all tenants have the mark. A tenant whose flush fails holds back
//!    the cut, not the flushes of others.
//! 4. A failed flush goes on where it stopped: a commit is repeated with the same blocks, so that one which had
//!    landed unnoticed is recognised.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use hashbrown::{HashMap, HashSet};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use xxhash_rust::xxh3::Xxh3;

use super::lane::{Frozen, Lane};
use crate::budget::Share;
use crate::error::{Error, Kind, Result};
use crate::head::{IDENTITIES_MAX, TenantHead, Written};
use crate::model::identity::{Identity, IdentityId};
use crate::model::tenant::Tenant;
use crate::model::time::{Day, TimeRange};
use crate::signal::{SignalSpec, Table};
use crate::store::{Cause, because};
use crate::table::{BlockWriter, Encoded, Mark, NewBlock, TenantTables, identity_rows};

/// A file that has reached this size is followed by another one: bounds what a flush holds.
const BLOCK_BYTES_MAX: usize = 8 << 20;
/// Files that a flush holds at once, and what one that is being made takes beside its size.
const FILES_HELD: usize = 4;

type Ids = HashSet<IdentityId, ahash::RandomState>;

/// What a lane remembers between flushes.
#[derive(Default)]
pub(super) struct FlushState {
    /// What is written of a tenant's frozen head.
    prepared: HashMap<Tenant, Prepared>,
    written: HashMap<Tenant, Written>,
    /// Failed tries in a row, and from when until when no further one is made.
    pub(super) failures: u32,
    pub(super) pause_ns: Range<i64>,
    /// The engine is closed: the data folder may belong to another process.
    pub(super) closed: bool,
}

impl FlushState {
    /// From here on a flush of `tenant` writes all its identities again.
    pub(super) fn forget_written(&mut self, tenant: &Tenant) {
        self.written.remove(tenant);
    }

    /// The blocks of `table` that a failed flush of `tenant` wrote and will commit.
    pub(super) fn held_back(&self, tenant: &Tenant, table: Table) -> impl Iterator<Item = String> {
        let commits = self.prepared.get(tenant).into_iter().flat_map(|prepared| &prepared.commits);
        let blocks = commits.filter(move |(of, _)| *of == table).flat_map(|(_, blocks)| blocks);
        blocks.map(|new| new.block.path.clone())
    }

    /// Whether a flush of `tenant` stopped half-way: identities may be committed whose facts are not.
    pub(super) fn is_half_way(&self, tenant: &Tenant) -> bool {
        self.prepared.contains_key(tenant)
    }
}

/// Blocks of one tenant's frozen head that wait for their commit.
struct Prepared {
    /// In the order of commit.
    commits: Vec<(Table, Vec<NewBlock>)>,
    /// How many of them are done.
    done: usize,
    /// What to remember as written once all is committed.
    identities: BTreeMap<Day, Ids>,
    texts: Vec<u128>,
    rows: u64,
}

/// Where a test may stop a flush or a compaction, as if the process died there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The heads are frozen.
    Frozen,
    /// All blocks of a tenant are written.
    Prepared,
    /// One table is committed.
    Committed(Table),
    /// All tables are committed, the WAL is not cut.
    Flushed,
    /// A compaction wrote its blocks, which are not committed.
    Merged(Table),
    /// A compaction's blocks are visible.
    Replaced(Table),
}

/// What a flush needs besides its lane.
pub(super) struct Flusher<'a> {
    pub(super) writer: &'a str,
    /// Rows without a time of their own lie under the day of their flush.
    pub(super) today: Day,
    pub(super) tables: &'a (dyn Fn(&Tenant) -> Arc<TenantTables> + Send + Sync),
    /// What all flushes together may take of memory.
    pub(super) memory: Arc<Share>,
    /// Called between the steps; an error ends the flush there.
    pub(super) at: &'a (dyn Fn(Step) -> Result<()> + Send + Sync),
}

impl Flusher<'_> {
    /// Brings the heads of `lane` into the tables: what an earlier try left frozen, then what is active now.
    pub(super) async fn run(&self, lane: &Lane, state: &mut FlushState) -> Result<()> {
        let unfinished = lane.shared.heads.read().uncut.is_some();
        let left = if unfinished { self.finish(lane, state).await } else { Ok(()) };
        if lane.shared.heads.read().can_freeze() {
            let shared = Arc::clone(&lane.shared);
            lane.wal()?.seal(move |last| shared.freeze(last)).await?;
            (self.at)(Step::Frozen)?;
            return self.finish(lane, state).await;
        }
        left
    }

    /// Brings all frozen heads into the tables and cuts the WAL. If one fails, the others are tried all the same.
    async fn finish(&self, lane: &Lane, state: &mut FlushState) -> Result<()> {
        let frozen: Vec<(Tenant, Frozen)> = {
            let heads = lane.shared.heads.read();
            heads.frozen.iter().map(|(tenant, frozen)| (tenant.clone(), frozen.clone())).collect()
        };
        let mut failed: Option<Error> = None;
        for (tenant, Frozen { head, last, .. }) in frozen {
            if let Err(error) = self.tenant(lane, state, &tenant, &head, last).await {
                tracing::warn!(signal = lane.shared.signal.name(), tenant = tenant.as_str(), %error, "not flushed");
                if failed.is_none() || error.kind() == Kind::Fenced {
                    failed = Some(error);
                }
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        (self.at)(Step::Flushed)?;
        if let Some(last) = lane.shared.heads.write().uncut.take() {
            lane.wal()?.truncate(last)?;
        }
        lane.shared.counters.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn tenant(
        &self,
        lane: &Lane,
        state: &mut FlushState,
        tenant: &Tenant,
        head: &Arc<TenantHead>,
        last: u64,
    ) -> Result<()> {
        let tables = (self.tables)(tenant);
        // Readers need the delete requests from the first block on: loaded here, no query has to list them.
        because(Cause::Open, tables.deletes().state()).await?;
        let spec = lane.shared.signal.spec();
        let written = state.written.entry_ref(tenant).or_default();
        let prepared = match state.prepared.get_mut(tenant) {
            Some(prepared) => prepared,
            None => {
                let _held = self.memory.wait(FILES_HELD * BLOCK_BYTES_MAX).await;
                let block_bytes_max = BLOCK_BYTES_MAX.min(self.memory.limit_bytes() / FILES_HELD);
                let prepared = prepare(spec, &tables, head, written, self.today, block_bytes_max).await?;
                (self.at)(Step::Prepared)?;
                state.prepared.entry_ref(tenant).or_insert(prepared)
            }
        };
        while let Some((table, blocks)) = prepared.commits.get(prepared.done) {
            let table = *table;
            tables.commit(table, blocks.clone(), Mark { writer: self.writer, sequence: last }).await?;
            prepared.done += 1;
            (self.at)(Step::Committed(table))?;
        }
        for (day, ids) in std::mem::take(&mut prepared.identities) {
            written.extend(day, ids.into_iter());
        }
        written.extend_texts(self.today, std::mem::take(&mut prepared.texts));
        lane.shared.counters.flushed_rows.fetch_add(prepared.rows, Ordering::Relaxed);
        lane.shared.release(tenant);
        state.prepared.remove(tenant);
        forget(&mut state.written, tenant, IDENTITIES_MAX);
        Ok(())
    }
}

/// Keeps what is remembered of all tenants together within the limit; `latest` is forgotten last.
fn forget(written: &mut HashMap<Tenant, Written>, latest: &Tenant, identities_max: usize) {
    while written.values().map(Written::identities).sum::<usize>() > identities_max {
        let others = written.iter().filter(|(tenant, _)| *tenant != latest);
        let Some(largest) = others.max_by_key(|(_, of)| of.identities()).map(|(tenant, _)| tenant.clone()) else {
            break;
        };
        written.remove(&largest);
    }
}

/// Writes all blocks of one tenant's frozen head; none is visible yet.
async fn prepare(
    spec: &SignalSpec,
    tables: &Arc<TenantTables>,
    head: &Arc<TenantHead>,
    written: &Written,
    today: Day,
    block_bytes_max: usize,
) -> Result<Prepared> {
    let mut facts = Vec::new();
    let mut days: BTreeMap<Day, Ids> = BTreeMap::new();
    let (mut rows, mut texts) = (0, Vec::new());
    for table in spec.facts {
        let mut blocks = Vec::new();
        if table.spec().identity.is_some() {
            let (encoding, mut files) = encoded(*table, Arc::clone(head), block_bytes_max);
            while let Some(File { day, ids, file }) = files.recv().await {
                rows += file.rows();
                days.entry(day).or_default().extend(ids);
                blocks.push(tables.put_block(*table, day, file).await?);
            }
            encoding.await.map_err(|cause| Error::bug("encoding a head failed").with_source(cause))??;
        } else {
            let mut part = head.all(*table, TimeRange::ALL)?.collect::<Result<Vec<_>>>()?;
            unwritten_texts(&mut part, written, today, &mut texts)?;
            if !part.is_empty() {
                rows += part.iter().map(|batch| u64::try_from(batch.num_rows()).unwrap_or(0)).sum::<u64>();
                blocks.push(tables.write_block(*table, today, part).await?);
            }
        }
        if !blocks.is_empty() || *table == spec.main() {
            facts.push((*table, blocks));
        }
    }
    let mut blocks = Vec::new();
    for (day, ids) in &mut days {
        ids.retain(|id| !written.contains(*day, *id));
        let mut identities: Vec<Identity> = ids.iter().filter_map(|id| head.identity(*id).cloned()).collect();
        if identities.is_empty() {
            continue;
        }
        identities.sort_by(|a, b| a.labels.cmp(&b.labels));
        let rows = identity_rows(spec.identities.signal(), &identities)?;
        blocks.push(tables.write_block(spec.identities, *day, vec![rows]).await?);
    }
    let mut commits = Vec::with_capacity(facts.len() + 1);
    if !blocks.is_empty() {
        commits.push((spec.identities, blocks));
    }
    commits.extend(facts);
    Ok(Prepared { commits, done: 0, identities: days, texts, rows })
}

/// A block that is encoded and not stored.
struct File {
    day: Day,
    /// What its rows belong to.
    ids: Ids,
    file: Encoded<Vec<u8>>,
}

/// All rows of `table` as files of one day and at most about `bytes_max` each. Made on a thread that may compute, which
/// waits until the file before was taken: at any time one is made and at most two wait to be stored.
fn encoded(table: Table, head: Arc<TenantHead>, bytes_max: usize) -> (JoinHandle<Result<()>>, mpsc::Receiver<File>) {
    let (sender, receiver) = mpsc::channel(1);
    let encode = move || {
        for day in head.days(table)? {
            let mut open: Option<(BlockWriter<Vec<u8>>, Ids)> = None;
            for rows in head.all(table, day.range())? {
                let rows = rows?;
                let (mut writer, mut ids) = match open.take() {
                    Some(open) => open,
                    None => (BlockWriter::new(table, Vec::new())?, Ids::default()),
                };
                collect_ids(table, &rows, &mut ids)?;
                writer.push(&rows)?;
                if writer.bytes() < bytes_max {
                    open = Some((writer, ids));
                } else if sender.blocking_send(File { day, ids, file: writer.finish()? }).is_err() {
                    // Whoever does not listen any more has failed and says so.
                    return Ok(());
                }
            }
            if let Some((writer, ids)) = open
                && sender.blocking_send(File { day, ids, file: writer.finish()? }).is_err()
            {
                return Ok(());
            }
        }
        Ok(())
    };
    (tokio::task::spawn_blocking(encode), receiver)
}

/// Leaves only rows of texts that the table does not have yet.
fn unwritten_texts(part: &mut Vec<RecordBatch>, written: &Written, today: Day, texts: &mut Vec<u128>) -> Result<()> {
    for batch in part.iter_mut() {
        let keys: Vec<u128> = (0..batch.num_rows()).map(|row| text_key(batch, row)).collect();
        let new: BooleanArray = keys.iter().map(|key| Some(!written.contains_text(today, *key))).collect();
        texts.extend(keys.iter().zip(new.values()).filter_map(|(key, new)| new.then_some(*key)));
        *batch = filter_record_batch(batch, &new)?;
    }
    part.retain(|batch| batch.num_rows() > 0);
    Ok(())
}

fn text_key(rows: &RecordBatch, row: usize) -> u128 {
    let mut hash = Xxh3::new();
    for column in rows.columns().iter().filter_map(|column| column.as_string_opt::<i32>()) {
        hash.update(&column.value(row).len().to_le_bytes());
        hash.update(column.value(row).as_bytes());
    }
    hash.digest128()
}

fn collect_ids(table: Table, rows: &RecordBatch, ids: &mut Ids) -> Result<()> {
    let Some(column) = table.spec().identity else { return Ok(()) };
    let values = rows.column_by_name(column).and_then(|column| column.as_primitive_opt::<Int64Type>());
    let values = values.ok_or_else(|| Error::bug(format!("rows of `{}` without identities", table.name())))?;
    debug_assert_eq!(values.null_count(), 0, "identities are never null");
    let mut before = None;
    for id in values.values() {
        if before != Some(*id) {
            ids.insert(IdentityId::from_column(*id));
            before = Some(*id);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_all_tenants_together_the_largest_others_are_forgotten_first() {
        let tenant = |name: &str| Tenant::new(name).expect("fits");
        let mut written: HashMap<Tenant, Written> = HashMap::default();
        for (name, identities) in [("small", 10), ("large", 50), ("latest", 60), ("larger", 55)] {
            let ids = (0..identities).map(IdentityId::from_column);
            written.entry(tenant(name)).or_default().extend(Day(1), ids);
        }
        let held = |written: &HashMap<Tenant, Written>| {
            let mut names: Vec<String> = written.keys().map(|tenant| tenant.as_str().to_owned()).collect();
            names.sort();
            names
        };
        forget(&mut written, &tenant("latest"), 175);
        assert_eq!(held(&written), ["large", "larger", "latest", "small"], "175 are within the limit");
        forget(&mut written, &tenant("latest"), 120);
        assert_eq!(held(&written), ["large", "latest", "small"]);
        forget(&mut written, &tenant("latest"), 5);
        assert_eq!(held(&written), ["latest"], "one tenant has a limit of its own");
    }
}
