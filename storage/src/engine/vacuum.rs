//! Vacuum: files that no snapshot within the grace needs leave the store, with their sidecars.
//!
//! Owns: which files those are, and when a table is listed. Does not own: the log of a table, whose library cleans it at
//! its checkpoints.
//!
//! A file is needed while the newest snapshot names it; for [`super::EngineConfig::vacuum_grace`] after a commit removed
//! it, since a query or a reader may still use an older snapshot; and, if no snapshot ever named it, for
//! [`super::EngineConfig::orphan_grace`] after it was written, since a flush or a compaction of whatever process may
//! still commit it. Blocks that a failed flush of this process holds back are needed for as long as it tries.
//!
//! Invariants
//! 1. The table is listed before its log is read: what is committed in between is needed.
//! 2. A table is listed once per interval at most.

use std::sync::Arc;

use futures::TryStreamExt;
use hashbrown::{HashMap, HashSet};
use object_store::ObjectMeta;
use object_store::path::Path;

use super::Engine;
use crate::error::Result;
use crate::model::tenant::Tenant;
use crate::paths::{self, Stored};
use crate::signal::Table;
use crate::table::TenantTables;

/// Objects that one round deletes at most, of each table.
const DELETIONS_PER_ROUND: usize = 1_000;

/// When each table was last listed, in nanoseconds.
#[derive(Default)]
pub(super) struct VacuumState {
    listed_ns: HashMap<(Tenant, Table), i64>,
    requests_listed_ns: HashMap<Tenant, i64>,
}

impl Engine {
    /// Deletes what nobody needs of the tables of one tenant that are due.
    pub(super) async fn vacuum(&self, tables: &Arc<TenantTables>, state: &mut VacuumState) -> Result<()> {
        let now = self.clock.now().0;
        let interval = i64::try_from(self.config.vacuum_interval.as_nanos()).unwrap_or(i64::MAX);
        let due = |listed: Option<&i64>| listed.is_none_or(|listed| now.saturating_sub(*listed) >= interval);
        for table in Table::ALL {
            let key = (tables.tenant().clone(), table);
            if !due(state.listed_ns.get(&key)) || tables.snapshot(table).await?.version.is_none() {
                continue;
            }
            if self.vacuum_table(tables, table).await? {
                state.listed_ns.insert(key, now);
            }
        }
        if due(state.requests_listed_ns.get(tables.tenant())) && !tables.deletes().state().await?.is_new() {
            self.upkeep.vacuumed_objects.add(tables.deletes().clean().await?);
            state.requests_listed_ns.insert(tables.tenant().clone(), now);
        }
        Ok(())
    }

    /// Whether the whole table was looked at.
    async fn vacuum_table(&self, tables: &Arc<TenantTables>, table: Table) -> Result<bool> {
        // A running flush ends before; one that failed says which blocks it will commit.
        let held: HashSet<String> = {
            let flush = self.lane(table.signal()).flush.lock().await;
            flush.held_back(tables.tenant(), table).collect()
        };
        let folder = paths::table(tables.tenant(), table);
        let listed: Vec<ObjectMeta> = self.store().objects().list(Some(&folder)).try_collect().await?;
        let snapshot = tables.refresh(table).await?;
        let removed = tables.removed(table).await?;
        let needed: HashSet<&str> = snapshot.blocks.iter().map(|block| block.path.as_str()).collect();
        let ages = Ages {
            now_ms: self.clock.now().to_ms().0,
            grace_ms: ms(self.config.vacuum_grace),
            orphan_ms: ms(self.config.orphan_grace),
        };
        let is_needed = |block: &str, written_ms: i64| {
            needed.contains(block) || held.contains(block) || !ages.is_over(removed.get(block).copied(), written_ms)
        };
        // Sidecars know their block by its name alone.
        let blocks_by_stem: HashMap<&str, &str> = snapshot
            .blocks
            .iter()
            .map(|block| block.path.as_str())
            .chain(removed.keys().map(String::as_str))
            .chain(held.iter().map(String::as_str))
            .map(|block| (paths::stem(block), block))
            .collect();
        let unneeded: Vec<(&Path, u64)> = listed
            .iter()
            .filter(|object| {
                let written_ms = object.last_modified.timestamp_millis();
                match paths::stored(&folder, &object.location) {
                    Stored::Block(block) => !is_needed(&block, written_ms),
                    Stored::Sidecar(stem) => match blocks_by_stem.get(stem.as_str()) {
                        Some(block) => !is_needed(block, written_ms),
                        None => ages.is_over(None, written_ms),
                    },
                    Stored::Other => false,
                }
            })
            .map(|object| (&object.location, object.size))
            .collect();
        for (path, bytes) in unneeded.iter().take(DELETIONS_PER_ROUND) {
            self.store().delete(path).await?;
            self.upkeep.vacuumed_objects.add(1);
            self.upkeep.vacuumed_bytes.add(*bytes);
        }
        Ok(unneeded.len() <= DELETIONS_PER_ROUND)
    }
}

/// From when on files are not needed.
struct Ages {
    now_ms: i64,
    grace_ms: i64,
    orphan_ms: i64,
}

impl Ages {
    /// Whether a file that no snapshot names has outlived its grace.
    fn is_over(&self, removed_ms: Option<i64>, written_ms: i64) -> bool {
        match removed_ms {
            Some(removed) => self.now_ms.saturating_sub(removed) >= self.grace_ms,
            None => self.now_ms.saturating_sub(written_ms) >= self.orphan_ms,
        }
    }
}

fn ms(span: std::time::Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}
