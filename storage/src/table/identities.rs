//! Identity tables: label sets as rows, and back.
//!
//! Owns: the rows of `series`, `streams` and `resources`. Does not own: which identities are new (`engine`).

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use futures::stream::{self, StreamExt, TryStreamExt};
use hashbrown::HashSet;

use super::{Block, Snapshot, TenantTables};
use crate::error::{Error, Result};
use crate::model::batch::{append_map, text_map_builder};
use crate::model::columns::TextMaps;
use crate::model::identity::Identity;
use crate::model::labels::Labels;
use crate::model::time::Day;
use crate::model::value::Value;
use crate::scan::open::{guarded, open_block};
use crate::signal::{Signal, Table};

/// Blocks of identities read at the same time.
const READS_MAX: usize = 8;
/// The attribute that names a service.
const SERVICE_NAME: &str = "service.name";

/// The rows of an identity table (`series`, `streams`, `resources`) for `identities`, sorted by labels.
pub fn identity_rows(signal: Signal, identities: &[Identity]) -> Result<RecordBatch> {
    let mut sorted: Vec<&Identity> = identities.iter().collect();
    sorted.sort_by(|a, b| a.labels.cmp(&b.labels));
    let table = signal.spec().identities;
    let schema = (table.spec().schema)();
    let ids = Int64Array::from_iter_values(sorted.iter().map(|identity| identity.id.to_column()));
    let mut maps = text_map_builder();
    for identity in &sorted {
        append_map(&mut maps, identity.labels.iter())?;
    }
    let mut columns: Vec<ArrayRef> = vec![Arc::new(ids)];
    let named = |text: fn(&Labels) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(sorted.iter().map(|identity| text(&identity.labels))))
    };
    match table {
        Table::Series => columns.push(named(|labels| labels.metric().to_owned())),
        Table::Resources => columns.push(named(service_name)),
        _ => {}
    }
    columns.push(Arc::new(maps.finish()));
    Ok(RecordBatch::try_new(schema, columns)?)
}

fn service_name(labels: &Labels) -> String {
    let text = labels.get(SERVICE_NAME).unwrap_or_default();
    match Value::parse(text) {
        Some(Value::String(name)) => name,
        _ => text.to_owned(),
    }
}

/// Reads rows of an identity table back.
pub fn read_identities(rows: &RecordBatch) -> Result<Vec<Identity>> {
    let maps = rows.columns().last().and_then(|column| column.as_map_opt());
    let maps = TextMaps::new(maps.ok_or_else(|| Error::corrupt("an identity table lacks its labels"))?);
    Ok((0..rows.num_rows()).map(|row| Identity::from(Labels::from_pairs(maps.pairs(row)))).collect())
}

impl TenantTables {
    /// The identities of `signal` in the committed blocks of `days` (first and last included), each once, sorted
    /// by labels. Cheap when called again.
    pub async fn identities(self: &Arc<Self>, signal: Signal, days: (Day, Day)) -> Result<Arc<Vec<Identity>>> {
        let snapshot = self.snapshot(signal.spec().identities).await?;
        self.identities_in(&snapshot, days).await
    }

    /// As [`TenantTables::identities`], of a snapshot taken before.
    pub async fn identities_in(self: &Arc<Self>, snapshot: &Snapshot, days: (Day, Day)) -> Result<Arc<Vec<Identity>>> {
        let blocks: Vec<Arc<Block>> =
            snapshot.blocks.iter().filter(|block| days.0 <= block.day && block.day <= days.1).cloned().collect();
        if blocks.is_empty() {
            return Ok(Arc::default());
        }
        let table = snapshot.table;
        let names: Vec<&str> = blocks.iter().map(|block| block.path.as_str()).collect();
        let names = xxhash_rust::xxh3::xxh3_128(names.join(",").as_bytes());
        let key = format!("{}/{}:{names:032x}", self.tenant(), table.name());
        if let Some(all) = self.caches().identities.get(&key) {
            return Ok(all);
        }
        let parts: Vec<Arc<Vec<Identity>>> = stream::iter(blocks)
            .map(|block| {
                let tables = Arc::clone(self);
                async move { tables.identities_of(table, &block).await }
            })
            .buffered(READS_MAX)
            .try_collect()
            .await?;
        let all = match parts.as_slice() {
            [one] => Arc::clone(one),
            _ => {
                let all = tokio::task::spawn_blocking(move || union(&parts)).await;
                Arc::new(all.map_err(|source| Error::bug("joining identities stopped").with_source(source))?)
            }
        };
        // The label sets are shared with the blocks' own entries: only the list is new.
        self.caches().identities.put(&key, Arc::clone(&all), all.len() * std::mem::size_of::<Identity>());
        Ok(all)
    }

    async fn identities_of(self: &Arc<Self>, table: Table, block: &Block) -> Result<Arc<Vec<Identity>>> {
        let object = crate::paths::block_object(self.tenant(), table, &block.path);
        let key = object.to_string();
        if let Some(known) = self.caches().identities.get(&key) {
            return Ok(known);
        }
        let mut identities = Vec::new();
        let (tables, opened) = (Arc::clone(self), block.clone());
        let mut rows = guarded(object, async move { open_block(&tables, table, &opened, None).await?.all_rows() });
        while let Some(rows) = rows.try_next().await? {
            identities.extend(read_identities(&rows)?);
        }
        let identities = tokio::task::spawn_blocking(move || union(&[Arc::new(identities)])).await;
        let identities =
            Arc::new(identities.map_err(|source| Error::bug("sorting identities stopped").with_source(source))?);
        let bytes = identities.iter().map(|i| i.labels.heap_bytes() + std::mem::size_of::<Identity>()).sum();
        self.caches().identities.put(&key, Arc::clone(&identities), bytes);
        Ok(identities)
    }
}

/// Each identity once, sorted by labels.
fn union(parts: &[Arc<Vec<Identity>>]) -> Vec<Identity> {
    let mut seen = HashSet::with_hasher(ahash::RandomState::new());
    let mut all: Vec<Identity> =
        parts.iter().flat_map(|part| part.iter()).filter(|identity| seen.insert(identity.id)).cloned().collect();
    all.sort_by(|a, b| a.labels.cmp(&b.labels));
    all
}
