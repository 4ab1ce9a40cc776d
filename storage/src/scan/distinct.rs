//! Distinct keys and values of columns, from the dictionaries of blocks and heads instead of their rows.
//!
//! Owns: the request, loading and rebuilding the dictionaries of blocks. Does not own: what is in one
//! (`index::dictionary`), the heads' (`head::words`).
//!
//! Invariant: a missing or damaged dictionary costs time, never an answer.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::open::{guarded, open_block};
use super::{ScanRequest, prune};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::index::Sidecar;
use crate::index::dictionary::{self, Dictionary, Found};
use crate::model::time::TimeRange;
use crate::paths;
use crate::signal::Table;
use crate::store::{Cause, because};
use crate::table::{Block, TenantTables};

/// Dictionaries loaded at the same time.
const LOADS_MAX: usize = 16;
/// A dictionary is of a whole block. Where blocks reach beyond the range and have together at most so many rows, these
/// are better read: then the answer is exact.
const FEW_ROWS: u64 = 1 << 15;

/// What of a column is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The keys of a map.
    Keys,
    /// The values of a key of a map.
    ValuesOf(Arc<str>),
    /// The values of a text column.
    Values,
}

/// Which texts are wanted.
#[derive(Clone, Debug)]
pub struct DistinctRequest {
    /// `Spans` or `Logs`.
    pub table: Table,
    /// Rows whose time is inside; of large blocks all rows count if some may be.
    pub range: TimeRange,
    /// Of spans: `resource_id` (in decimals), `name`, `status_message`, `scope_name`, `scope_version`, `attributes`, `scope_attributes`, and of what they
    /// hold `events` and `links` (keys of attributes) and `events.name`. Of entries: `severity`, `metadata`.
    pub column: &'static str,
    /// What of it.
    pub wanted: Wanted,
}

/// Texts, and whether these are all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distinct {
    /// Each once.
    pub texts: BTreeSet<String>,
    /// Whether no other is in the rows.
    pub complete: bool,
}

impl Distinct {
    /// Of no rows.
    pub fn none() -> Self {
        Self { texts: BTreeSet::new(), complete: true }
    }

    /// Of rows that must be read to know.
    pub fn unknown() -> Self {
        Self { texts: BTreeSet::new(), complete: false }
    }

    /// Adds what a dictionary says.
    pub(crate) fn add(&mut self, dictionary: &Dictionary, request: &DistinctRequest) {
        let Found { texts, complete } = match &request.wanted {
            Wanted::Keys => dictionary.keys(request.column),
            Wanted::ValuesOf(key) => dictionary.values(request.column, key),
            Wanted::Values => dictionary.values(request.column, ""),
        };
        self.complete &= complete;
        for text in texts.into_iter().filter(|_| self.complete) {
            if !self.texts.contains(text) {
                self.texts.insert(text.to_owned());
            }
        }
    }
}

/// Adds what the blocks of `tables` say that overlap the request's range; stops once something is cut.
pub(crate) async fn add_blocks(
    found: &mut Distinct,
    tables: &Arc<TenantTables>,
    request: &DistinctRequest,
    context: &Context,
) -> Result<()> {
    let snapshot = tables.snapshot(request.table).await?;
    let blocks = prune::blocks(&snapshot, &ScanRequest::all(request.table, request.range));
    let inside =
        |block: &Block| block.times.is_some_and(|times| request.range.start <= times.0 && times.1 < request.range.end);
    let rows: u64 = blocks.iter().map(|block| block.rows).sum();
    if rows <= FEW_ROWS && !blocks.iter().all(|block| inside(block)) {
        *found = Distinct::unknown();
        return Ok(());
    }
    let loads = blocks.into_iter().map(|block| {
        let tables = Arc::clone(tables);
        async move { dictionary_of(&tables, request.table, &block, context).await }
    });
    let mut loaded = stream::iter(loads).buffered(LOADS_MAX);
    while let Some(dictionary) = loaded.next().await {
        context.check()?;
        found.add(&*dictionary?, request);
        if !found.complete {
            break;
        }
    }
    Ok(())
}

/// The dictionary of a block: cached, or read, or rebuilt from its rows.
async fn dictionary_of(
    tables: &Arc<TenantTables>,
    table: Table,
    block: &Block,
    context: &Context,
) -> Result<Arc<Dictionary>> {
    let object = paths::sidecar_object(tables.tenant(), table, &block.path, Sidecar::Dictionary);
    if let Some(dictionary) = tables.caches().dictionaries.get(object.as_ref()) {
        return Ok(dictionary);
    }
    let read = match because(Cause::QuerySidecar, tables.store().get(&object)).await {
        Ok(Some(bytes)) => {
            Dictionary::decode(&bytes).and_then(|dictionary| match (dictionary.table(), dictionary.rows()) {
                (of, rows) if of == table && rows == block.rows => Ok(dictionary),
                _ => Err(Error::corrupt("the dictionary counts other rows than its block")),
            })
        }
        Ok(None) => Err(Error::corrupt("there is no dictionary")),
        Err(error) => Err(error),
    };
    let dictionary = match read {
        Ok(dictionary) => dictionary,
        Err(error) => {
            tracing::warn!(%object, %error, "a dictionary is rebuilt from its block");
            rebuilt(tables, table, block, context).await?
        }
    };
    let dictionary = Arc::new(dictionary);
    tables.caches().dictionaries.put(object.as_ref(), Arc::clone(&dictionary), dictionary.heap_bytes());
    Ok(dictionary)
}

async fn rebuilt(tables: &Arc<TenantTables>, table: Table, block: &Block, context: &Context) -> Result<Dictionary> {
    let schema = (table.spec().schema)();
    let mut places: Vec<usize> =
        dictionary::stored_columns(table).filter_map(|name| schema.index_of(name).ok()).collect();
    places.sort_unstable();
    places.dedup();
    let object = paths::block_object(tables.tenant(), table, &block.path);
    let (of, block, stats) = (Arc::clone(tables), block.clone(), Arc::clone(&context.stats));
    let mut rows = guarded(object, async move {
        let opened = open_block(&of, table, &block, Some(&stats)).await?;
        opened.selected_rows(&[opened.every_row()], Some(&places))
    });
    let mut dictionary = Dictionary::new(table);
    while let Some(rows) = rows.try_next().await? {
        context.check()?;
        dictionary.extend_from(&rows)?;
    }
    Ok(dictionary)
}

/// Refuses columns without dictionary.
pub(crate) fn check(request: &DistinctRequest) -> Result<()> {
    if dictionary::has(request.table, request.column) {
        return Ok(());
    }
    Err(Error::new(Kind::Bug, format!("`{}` has no dictionary of `{}`", request.table.name(), request.column)))
}
