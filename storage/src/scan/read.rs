//! Opens blocks and streams their rows.
//!
//! Owns: the way from a snapshot to sorted streams, and the exact filter at its end. Does not own: proofs that rows
//! need not be read (`prune`), the order across streams (`merge`).

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::open::{Opened, guarded, open_block};
use super::prune::{self, Bounds, Ranks};
use super::{BatchStream, ScanRequest};
use crate::context::{Context, Stats};
use crate::error::{Error, Result};
use crate::model::span::TraceId;
use crate::paths::block_object;
use crate::signal::{SortBy, Table};
use crate::table::{Block, Snapshot, TenantTables};

/// More traces than this are not looked up in bloom filters: one of them is in any file.
const BLOOM_LOOKUPS_MAX: usize = 64;

/// One stream for each block of `snapshot` that may hold rows of `request`, oldest block first: the rows the
/// request asks for, exactly, in the table's in-memory schema and in the order of the request. Blocks are opened
/// when their stream is first polled.
/// `request.identities` must be given for tables that are sorted by identity: the caller resolves "all" first.
pub async fn block_streams(
    tables: &Arc<TenantTables>,
    snapshot: &Snapshot,
    request: &ScanRequest,
    context: &Context,
) -> Result<Vec<BatchStream>> {
    context.check()?;
    let Some(wanted) = Wanted::new(request)? else { return Ok(Vec::new()) };
    let wanted = Arc::new(wanted);
    let streams = prune::blocks(snapshot, request).into_iter().map(|block| {
        let (tables, wanted, context) = (Arc::clone(tables), Arc::clone(&wanted), context.clone());
        let object = block_object(tables.tenant(), wanted.table, &block.path);
        guarded(object, async move { open(&tables, &block, &wanted, &context).await })
    });
    Ok(streams.collect())
}

/// The request in the terms of columns.
struct Wanted {
    table: Table,
    bounds: Bounds,
    ranks: Ranks,
    traces: Option<Vec<TraceId>>,
}

impl Wanted {
    /// `None` when no row can be wanted.
    fn new(request: &ScanRequest) -> Result<Option<Self>> {
        let table = request.table;
        let all = Bounds { first: i64::MIN, last: i64::MAX };
        let bounds = match table.spec().time {
            None => all,
            Some(_) => match Bounds::new(table, request.range) {
                Some(bounds) => bounds,
                None => return Ok(None),
            },
        };
        let by_identity = crate::index::directory::columns(table).is_some();
        let ranks = match (&request.identities, by_identity) {
            (Some(list), true) if list.is_empty() => return Ok(None),
            (Some(list), true) => ranks(list),
            (None, true) => return Err(Error::bug("a scan of blocks sorted by identity needs the identities")),
            (_, false) => Ranks::default(),
        };
        let traces = match (&request.traces, table.spec().sort_by) {
            (Some(traces), SortBy::Trace) if traces.is_empty() => return Ok(None),
            (Some(traces), SortBy::Trace) => {
                let mut traces = traces.as_ref().clone();
                traces.sort_unstable();
                traces.dedup();
                Some(traces)
            }
            _ => None,
        };
        Ok(Some(Self { table, bounds, ranks, traces }))
    }
}

/// The places of `list` by column value.
pub(super) fn ranks(list: &[crate::model::identity::IdentityId]) -> Ranks {
    let places = list.iter().zip(0_u32..);
    places.map(|(identity, place)| (identity.to_column(), place)).collect()
}

async fn open(tables: &TenantTables, block: &Block, wanted: &Wanted, context: &Context) -> Result<BatchStream> {
    context.check()?;
    Stats::add(&context.stats.blocks, 1);
    let opened = open_block(tables, wanted.table, block, Some(&context.stats)).await?;
    let (ranges, all_inside) = match wanted.table.spec().sort_by {
        SortBy::Identity => {
            let directory = opened.directory(tables, block).await?;
            let rows = prune::runs(&directory, &wanted.ranks, wanted.bounds)?;
            (rows.ranges, rows.all_inside)
        }
        SortBy::Trace => {
            let ranges = match &wanted.traces {
                Some(traces) => trace_ranges(&opened, traces).await?,
                None => vec![opened.every_row()],
            };
            let inside = wanted.bounds == Bounds { first: i64::MIN, last: i64::MAX } && wanted.traces.is_none();
            (ranges, inside)
        }
        SortBy::Text => (vec![opened.every_row()], true),
    };
    let time = wanted.table.spec().time;
    let ranges = match time.and_then(|(name, _)| opened.leaf(name)) {
        Some(leaf) if !all_inside => prune::pages_by_time(opened.footer(), leaf, &ranges, wanted.bounds),
        _ => ranges,
    };
    if ranges.is_empty() {
        return Ok(stream::empty().boxed());
    }
    let rows = opened.selected_rows(&ranges)?;
    let (context, bounds, traces) = (context.clone(), wanted.bounds, wanted.traces.clone());
    let filtered = rows.try_filter_map(move |rows| {
        let kept = context.check().and_then(|()| match time {
            Some((name, _)) if !all_inside => keep(rows, name, bounds, traces.as_deref()),
            _ => Ok(rows),
        });
        std::future::ready(kept.map(|rows| (rows.num_rows() > 0).then_some(rows)))
    });
    Ok(filtered.boxed())
}

/// Rows that may belong to `traces`: row groups by statistics and bloom filter, then pages.
async fn trace_ranges(opened: &Opened, traces: &[TraceId]) -> Result<Vec<Range<u64>>> {
    let Some(leaf) = opened.leaf("trace_id") else { return Ok(vec![opened.every_row()]) };
    let mut ranges = Vec::new();
    let mut start = 0;
    for (at, group) in opened.footer().row_groups().iter().enumerate() {
        let end = start + u64::try_from(group.num_rows()).unwrap_or(0);
        let bounds = group.column(leaf).statistics().and_then(|s| s.min_bytes_opt().zip(s.max_bytes_opt()));
        let candidates: Vec<&[u8]> = traces
            .iter()
            .map(TraceId::as_slice)
            .filter(|trace| bounds.is_none_or(|(min, max)| min <= *trace && *trace <= max))
            .collect();
        let possible = match candidates.len() {
            0 => false,
            n if n > BLOOM_LOOKUPS_MAX => true,
            _ => opened.bloom_may_hold(at, leaf, &candidates).await?,
        };
        if possible {
            ranges.push(start..end);
        }
        start = end;
    }
    Ok(prune::pages_by_trace(opened.footer(), leaf, &ranges, traces))
}

/// The rows inside `bounds` and, for spans, of `traces`.
fn keep(rows: RecordBatch, time: &str, bounds: Bounds, traces: Option<&[TraceId]>) -> Result<RecordBatch> {
    let times = rows.column_by_name(time).and_then(|array| array.as_primitive_opt::<Int64Type>());
    let times = times.ok_or_else(|| Error::bug("rows lack their time column"))?.values();
    let mut mask = BooleanBuffer::collect_bool(times.len(), |row| bounds.contains(times[row]));
    if let Some(traces) = traces {
        let ids = rows.column_by_name("trace_id").and_then(|array| array.as_binary_opt::<i32>());
        let ids = ids.ok_or_else(|| Error::bug("spans lack their trace ids"))?;
        let wanted = |row: usize| traces.binary_search_by(|trace| trace.as_slice().cmp(ids.value(row))).is_ok();
        mask = &mask & &BooleanBuffer::collect_bool(ids.len(), wanted);
    }
    match mask.count_set_bits() {
        n if n == rows.num_rows() => Ok(rows),
        _ => Ok(filter_record_batch(&rows, &BooleanArray::new(mask, None))?),
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
