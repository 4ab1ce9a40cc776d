//! Tables: their versions, blocks and marks.
//!
//! Owns: the reports. Does not own: reading the log (`table::log`).

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::TryStreamExt;
use serde::Serialize;
use serde_json::Value;

use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::model::tenant::Tenant;
use crate::paths;
use crate::signal::Table;
use crate::store::Store;
use crate::table::{Block, Caches, Snapshot, TenantTables};
use crate::verify::tenants;

/// One table in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableSummary {
    /// Whose.
    pub tenant: String,
    /// Its name.
    pub table: &'static str,
    /// Its version.
    pub version: u64,
    /// Visible blocks.
    pub blocks: usize,
    /// Their rows.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
    /// First time of any block, in nanoseconds.
    pub first_ns: Option<i64>,
    /// Last time of any block, in nanoseconds.
    pub last_ns: Option<i64>,
}

/// One table whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableReport {
    /// Its sums.
    pub summary: TableSummary,
    /// Versions whose log entries are kept, first and last.
    pub entries: Option<(u64, u64)>,
    /// Versions with a checkpoint.
    pub checkpoints: Vec<u64>,
    /// How far each writer's WAL is in the table, as the kept entries say.
    pub marks: Vec<MarkReport>,
    /// The blocks by day, oldest first.
    pub blocks: Vec<BlockReport>,
}

/// The mark of one writer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MarkReport {
    /// The writer's name.
    pub writer: String,
    /// The last sequence number of its WAL that is in the table.
    pub sequence: u64,
    /// The version that said so.
    pub version: u64,
}

/// One block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlockReport {
    /// Its path in the store.
    pub object: String,
    /// Its day.
    pub day: String,
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
    /// First time, in nanoseconds.
    pub first_ns: Option<i64>,
    /// Last time, in nanoseconds.
    pub last_ns: Option<i64>,
    /// How often its rows were rewritten.
    pub level: u32,
    /// When it was written, in milliseconds.
    pub written_ms: i64,
    /// CRC-32C in hex.
    pub checksum: Option<String>,
}

/// All tables that exist in `store`.
pub async fn tables(store: &Arc<Store>, clock: &Arc<dyn Clock>) -> Result<Vec<TableSummary>> {
    let mut found = Vec::new();
    for tenant in tenants(store).await? {
        for table in Table::ALL {
            let snapshot = open(store, clock, &tenant).refresh(table).await?;
            found.extend(summary(&tenant, &snapshot));
        }
    }
    Ok(found)
}

/// One table; [`crate::Kind::Invalid`] if it does not exist.
pub async fn table(store: &Arc<Store>, clock: &Arc<dyn Clock>, tenant: &Tenant, table: Table) -> Result<TableReport> {
    let snapshot = open(store, clock, tenant).refresh(table).await?;
    let summary = summary(tenant, &snapshot)
        .ok_or_else(|| Error::invalid(format!("there is no table `{tenant}/{}` in {}", table.name(), store.url())))?;
    let log = paths::table(tenant, table).join("_delta_log");
    let (mut entries, mut checkpoints) = (Vec::new(), Vec::new());
    let mut list = store.objects().list(Some(&log));
    while let Some(meta) = list.try_next().await? {
        let name = meta.location.filename().and_then(|name| name.split_once('.'));
        match name.and_then(|(version, ending)| Some((version.parse::<u64>().ok()?, ending))) {
            Some((version, "json")) => entries.push((version, meta.location)),
            Some((version, ending)) if ending.starts_with("checkpoint") => checkpoints.push(version),
            _ => {}
        }
    }
    entries.sort();
    checkpoints.sort_unstable();
    checkpoints.dedup();
    let mut marks: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (version, object) in &entries {
        let Some(bytes) = store.get(object).await? else { continue };
        let actions = std::str::from_utf8(&bytes).unwrap_or_default().lines();
        for txn in actions.filter_map(|line| serde_json::from_str::<Value>(line).ok()?.get("txn").cloned()) {
            if let (Some(writer), Some(sequence)) = (txn["appId"].as_str(), txn["version"].as_u64()) {
                marks.insert(writer.to_owned(), (sequence, *version));
            }
        }
    }
    let mut blocks: Vec<&Block> = snapshot.blocks.iter().map(Arc::as_ref).collect();
    blocks.sort_by_key(|block| (block.day, block.written_ms, &block.path));
    Ok(TableReport {
        summary,
        entries: entries.first().zip(entries.last()).map(|((first, _), (last, _))| (*first, *last)),
        checkpoints,
        marks: marks
            .into_iter()
            .map(|(writer, (sequence, version))| MarkReport { writer, sequence, version })
            .collect(),
        blocks: blocks.into_iter().map(|block| report(tenant, table, block)).collect(),
    })
}

fn open(store: &Arc<Store>, clock: &Arc<dyn Clock>, tenant: &Tenant) -> Arc<TenantTables> {
    TenantTables::open(Arc::clone(store), tenant.clone(), Caches::new(0), Arc::clone(clock))
}

fn summary(tenant: &Tenant, snapshot: &Snapshot) -> Option<TableSummary> {
    let times = || snapshot.blocks.iter().filter_map(|block| block.times);
    Some(TableSummary {
        tenant: tenant.as_str().to_owned(),
        table: snapshot.table.name(),
        version: snapshot.version?,
        blocks: snapshot.blocks.len(),
        rows: snapshot.rows(),
        bytes: snapshot.blocks.iter().map(|block| block.bytes).sum(),
        first_ns: times().map(|(first, _)| first).min(),
        last_ns: times().map(|(_, last)| last).max(),
    })
}

fn report(tenant: &Tenant, table: Table, block: &Block) -> BlockReport {
    BlockReport {
        object: paths::block_object(tenant, table, &block.path).to_string(),
        day: block.day.to_string(),
        rows: block.rows,
        bytes: block.bytes,
        first_ns: block.times.map(|(first, _)| first),
        last_ns: block.times.map(|(_, last)| last),
        level: block.level,
        written_ms: block.written_ms,
        checksum: block.checksum.map(|sum| format!("{sum:08x}")),
    }
}
