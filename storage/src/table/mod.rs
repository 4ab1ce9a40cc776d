//! The tables of one tenant: blocks, their atomic commit, and what is visible.
//!
//! Owns: [`TenantTables`] and [`Mark`]. Does not own: the rows' order (the caller sorts), when to flush
//! (`engine`), reading (`scan`).
//!
//! Invariants
//! 1. A block is never changed after its commit.
//! 2. A commit is seen whole or not at all, and each writer's marks only rise.

mod cache;
pub(crate) mod decimal;
mod identities;
mod log;
mod replace;
mod snapshot;
mod stream;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use hashbrown::HashMap;
use parking_lot::Mutex;

use crate::clock::{Clock, unique_id};
use crate::delete::DeleteLog;
use crate::error::{Error, Result};
use crate::index::Sidecar;
use crate::model::tenant::Tenant;
use crate::model::time::Day;
use crate::paths;
use crate::signal::Table;
use crate::store::{Cause, Store, instead};

pub use cache::Caches;
pub use identities::{identity_rows, read_identities};
pub(crate) use log::TOKEN;
pub use replace::{Replaced, Replacement, Replacing};
pub use snapshot::{Block, NewBlock, Order, Snapshot};
pub(crate) use stream::BlockStream;
pub(crate) use writer::{BlockWriter, Encoded, file_schema, times_ns};

/// Where a block that is being written is to lie.
struct Place {
    path: String,
    day: Day,
    level: u32,
}

/// How far a writer's WAL is contained in a table.
#[derive(Clone, Copy, Debug)]
pub struct Mark<'a> {
    /// Stable name of the writer: the application id in Delta's terms.
    pub writer: &'a str,
    /// Last WAL sequence number in the flush.
    pub sequence: u64,
}

/// The tables of one tenant. Each table is loaded when first asked for.
#[derive(Debug)]
pub struct TenantTables {
    store: Arc<Store>,
    tenant: Tenant,
    caches: Arc<Caches>,
    clock: Arc<dyn Clock>,
    logs: Mutex<HashMap<Table, Arc<log::Log>, ahash::RandomState>>,
    deletes: DeleteLog,
}

impl TenantTables {
    /// The tables of `tenant` in `store`; touches nothing yet.
    pub fn open(store: Arc<Store>, tenant: Tenant, caches: Arc<Caches>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let deletes = DeleteLog::new(Arc::clone(&store), tenant.clone(), Arc::clone(&clock));
        Arc::new(Self { store, tenant, caches, clock, logs: Mutex::default(), deletes })
    }

    /// Whose tables.
    pub fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The tenant's delete requests.
    pub(crate) fn deletes(&self) -> &DeleteLog {
        &self.deletes
    }

    pub(crate) fn caches(&self) -> &Arc<Caches> {
        &self.caches
    }

    fn log(&self, table: Table) -> Result<Arc<log::Log>> {
        let mut logs = self.logs.lock();
        if let Some(log) = logs.get(&table) {
            return Ok(Arc::clone(log));
        }
        let log = Arc::new(log::Log::new(&self.store, &self.tenant, table, Arc::clone(&self.clock))?);
        logs.insert(table, Arc::clone(&log));
        Ok(log)
    }

    /// Writes `rows` (in the in-memory schema, all of `day`, sorted as [`crate::signal::SortBy`] says, identities
    /// in label order, without duplicates) as one block with its sidecars. Nothing is visible until
    /// [`TenantTables::commit`]; a block that is never committed only takes space.
    pub async fn write_block(&self, table: Table, day: Day, rows: Vec<RecordBatch>) -> Result<NewBlock> {
        let encoded = tokio::task::spawn_blocking(move || writer::encode(table, &rows)).await;
        let encoded = encoded.map_err(|source| Error::bug("encoding a block stopped").with_source(source))??;
        self.put_block(table, day, encoded).await
    }

    /// Stores a file that is encoded as a block of `day`, as [`TenantTables::write_block`] does.
    pub(crate) async fn put_block(&self, table: Table, day: Day, encoded: Encoded<Vec<u8>>) -> Result<NewBlock> {
        let path = paths::block(day, unique_id());
        let (bytes, checksum) = (encoded.sink.len() as u64, crc32c::crc32c(&encoded.sink));
        let (encoded, file) = encoded.without_sink();
        self.store.put_block(&paths::block_object(&self.tenant, table, &path), file.into()).await?;
        self.finish_block(table, Place { path, day, level: 0 }, (bytes, checksum), encoded).await
    }

    /// Writes the sidecars of a block that is stored, and says what its commit is to say.
    async fn finish_block(
        &self,
        table: Table,
        place: Place,
        (bytes, checksum): (u64, u32),
        encoded: Encoded<()>,
    ) -> Result<NewBlock> {
        let Place { path, day, level } = place;
        for (sidecar, bytes) in encoded.sidecars.objects {
            self.store.put_sidecar(&paths::sidecar_object(&self.tenant, table, &path, sidecar), bytes).await?;
        }
        if let Some(directory) = encoded.sidecars.directory {
            let object = paths::sidecar_object(&self.tenant, table, &path, Sidecar::Directory);
            let size = directory.heap_bytes();
            self.caches.directories.put(object.as_ref(), Arc::new(directory), size);
        }
        if let Some(dictionary) = encoded.sidecars.dictionary {
            let object = paths::sidecar_object(&self.tenant, table, &path, Sidecar::Dictionary);
            let size = dictionary.heap_bytes();
            self.caches.dictionaries.put(object.as_ref(), Arc::new(dictionary), size);
        }
        let block = Block {
            path,
            day,
            rows: encoded.rows,
            bytes,
            times: encoded.times.map(|times| writer::times_ns(table, times)),
            written_ms: self.clock.now().to_ms().0,
            checksum: Some(checksum),
            order: Order::default(),
            level,
        };
        Ok(NewBlock { block, times: encoded.times })
    }

    /// Makes `blocks` visible and moves the writer's mark, in one atomic step; creates the table on first use.
    /// No blocks is fine: then only the mark moves. A higher mark of an earlier process with this writer's name stays. Calling it again with the same arguments after
    /// [`crate::Kind::Unavailable`] is safe: a commit that had landed is recognised.
    /// [`crate::Kind::Fenced`]: someone else moved this writer's mark since this process last saw it.
    pub async fn commit(&self, table: Table, blocks: Vec<NewBlock>, mark: Mark<'_>) -> Result<()> {
        instead(Cause::Commit, self.log(table)?.commit(&blocks, mark)).await
    }

    /// Puts other blocks in the place of visible ones, all replacements in one atomic step, whoever else commits
    /// meanwhile. Calling it again with the same arguments after [`crate::Kind::Unavailable`] is safe: what had landed is
    /// recognised. The new blocks take the order of those that they replace.
    /// A new layout of blocks that delete requests cover is a conflict: their rows must be left out first.
    pub async fn replace(&self, table: Table, replacements: &[Replacement], replacing: Replacing) -> Result<Replaced> {
        let removed = replacements.iter().flat_map(|replacement| &replacement.removed).map(AsRef::as_ref);
        let _held = match replacing {
            Replacing::Rows => None,
            Replacing::Layout => match self.deletes.hold_uncovered(table, removed).await? {
                Ok(held) => Some(held),
                Err(covered) => return Ok(Replaced::Conflict(covered)),
            },
        };
        instead(Cause::Commit, self.log(table)?.replace(replacements, replacing)).await
    }

    /// The last committed mark of `writer`, from here on the one that the next commit must still find.
    pub async fn mark(&self, table: Table, writer: &str) -> Result<Option<u64>> {
        self.log(table)?.mark(writer).await
    }

    /// The paths of blocks that commits removed, as long as the log knows them, and when, in milliseconds.
    pub(crate) async fn removed(&self, table: Table) -> Result<HashMap<String, i64>> {
        self.log(table)?.removed().await
    }

    /// What is visible as far as this process knows: its own commits always, others' after a refresh.
    pub async fn snapshot(&self, table: Table) -> Result<Arc<Snapshot>> {
        self.log(table)?.snapshot().await
    }

    /// Sees what other processes committed, if that was last looked for longer than `age_max` ago. Costs one read where
    /// there is nothing new.
    pub async fn look(&self, table: Table, age_max: Duration) -> Result<()> {
        self.log(table)?.look(age_max).await
    }

    /// Reads the table's log again, now.
    pub async fn refresh(&self, table: Table) -> Result<Arc<Snapshot>> {
        self.log(table)?.refresh().await
    }
}

#[cfg(test)]
mod tests;
