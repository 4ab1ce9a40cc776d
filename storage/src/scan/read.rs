//! Opens blocks and streams their rows.
//!
//! Owns: the way from a snapshot to sorted streams, and the exact filter at its end. Does not own: proofs that rows
//! need not be read (`prune`), the order across streams (`merge`).

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter_record_batch;
use arrow::datatypes::Int64Type;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::narrow::Narrowing;
use super::open::{Opened, guarded, guarded_opening, open_block};
use super::prune::{self, Bounds, Ranks};
use super::repeats::{Asked, Extent, Overlap, overlaps, unique_places, with_hashes};
use super::rows::RowHasher;
use super::{BatchStream, ScanRequest};
use crate::context::{Context, Stats};
use crate::error::{Error, Result};
use crate::index::tokens::Probe;
use crate::model::span::TraceId;
use crate::paths::block_object;
use crate::signal::{SortBy, Table};
use crate::table::{Block, Snapshot, TenantTables};

/// More traces than this are not looked up in bloom filters: one of them is in any file.
const BLOOM_LOOKUPS_MAX: usize = 64;
/// Fewer rows than this are read at once rather than looked up in a token filter first.
const FILTERED_ROWS_MIN: u64 = 1024;

/// Blocks that are opened at the same time.
const OPENINGS_MAX: usize = 16;

/// One stream for each block of `snapshot` that holds rows of `request`, oldest block first: the rows the request asks
/// for, exactly, in its schema (all columns, for tables sorted by text) and order. Rows that another block may repeat
/// say so (`repeats`).
/// `request.identities` must be given for tables that are sorted by identity: the caller resolves "all" first.
pub async fn block_streams(
    tables: &Arc<TenantTables>,
    snapshot: &Snapshot,
    request: &ScanRequest,
    context: &Context,
) -> Result<Vec<BatchStream>> {
    let blocks = open_blocks(tables, snapshot, request, context).await?;
    let extents: Vec<Extent> = blocks.iter().map(BlockSource::extent).collect();
    let overlaps = overlaps(request, extents, context)?;
    Ok(blocks.into_iter().zip(overlaps).map(|(block, overlap)| block.into_stream(overlap, context)).collect())
}

/// Opens the blocks of `snapshot` that hold rows of `request`, oldest first, and finds out which of their rows.
pub(crate) async fn open_blocks(
    tables: &Arc<TenantTables>,
    snapshot: &Snapshot,
    request: &ScanRequest,
    context: &Context,
) -> Result<Vec<BlockSource>> {
    context.check()?;
    let Some(wanted) = Wanted::new(request)? else { return Ok(Vec::new()) };
    let wanted = Arc::new(wanted);
    let openings: Vec<BoxFuture<'static, Result<Option<BlockSource>>>> = prune::blocks(snapshot, request)
        .into_iter()
        .map(|block| {
            let (tables, wanted, context) = (Arc::clone(tables), Arc::clone(&wanted), context.clone());
            async move {
                let object = block_object(tables.tenant(), wanted.table, &block.path);
                guarded_opening(&object, open(&tables, &block, &wanted, &context)).await
            }
            .boxed()
        })
        .collect();
    let opened = stream::iter(openings).buffered(OPENINGS_MAX);
    opened.try_filter_map(|block| std::future::ready(Ok(block))).try_collect().await
}

/// The request in the terms of columns.
struct Wanted {
    table: Table,
    bounds: Bounds,
    ranks: Ranks,
    traces: Option<Arc<Vec<TraceId>>>,
    /// Places in the table's schema; `None`: all.
    columns: Option<Vec<usize>>,
    asked: Asked,
    /// What token filters can say of the request's tests.
    probe: Option<Probe>,
    narrowing: Narrowing,
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
                Some(Arc::new(traces))
            }
            _ => None,
        };
        let columns = if table.spec().sort_by == SortBy::Text { None } else { request.projection() };
        Ok(Some(Self {
            table,
            bounds,
            ranks,
            traces,
            columns,
            asked: Asked::of(request),
            probe: Probe::new(table, &request.narrow),
            narrowing: Narrowing::new(request),
        }))
    }
}

/// The places of `list` by column value.
pub(super) fn ranks(list: &[crate::model::identity::IdentityId]) -> Ranks {
    let places = list.iter().zip(0_u32..);
    places.map(|(identity, place)| (identity.to_column(), place)).collect()
}

/// A block with the rows that are wanted of it.
pub(crate) struct BlockSource {
    /// The block's path inside its table.
    path: String,
    opened: Opened,
    wanted: Arc<Wanted>,
    /// Ascending, not empty.
    ranges: Vec<Range<u64>>,
    /// Whether the rows need no test.
    all_inside: bool,
    extent: Extent,
}

async fn open(
    tables: &TenantTables,
    block: &Block,
    wanted: &Arc<Wanted>,
    context: &Context,
) -> Result<Option<BlockSource>> {
    context.check()?;
    Stats::add(&context.stats.blocks, 1);
    let opened = open_block(tables, wanted.table, block, Some(&context.stats)).await?;
    let mut extent = Extent::default();
    let (ranges, all_inside) = match wanted.table.spec().sort_by {
        SortBy::Identity => {
            let directory = opened.directory(tables, block).await?;
            let noted = wanted.asked.anything().then_some(&mut extent);
            let rows = prune::runs(&directory, &wanted.ranks, wanted.bounds, noted)?;
            (rows.ranges, rows.all_inside)
        }
        SortBy::Trace => {
            let ranges = match &wanted.traces {
                Some(traces) => trace_ranges(&opened, traces).await?,
                None => vec![opened.every_row()],
            };
            let all = Bounds { first: i64::MIN, last: i64::MAX };
            if wanted.asked.anything() {
                extent = Extent::of_traces(block.times.map_or(all, |(first, last)| Bounds { first, last }));
            }
            let inside = block.times.is_some_and(|(first, last)| wanted.bounds.covers(first, last));
            (ranges, (inside || wanted.bounds == all) && wanted.traces.is_none())
        }
        SortBy::Text => (vec![opened.every_row()], true),
    };
    let time = wanted.table.spec().time;
    let ranges = match time.and_then(|(name, _)| opened.leaf(name)) {
        Some(leaf) if !all_inside => prune::pages_by_time(opened.footer(), leaf, &ranges, wanted.bounds),
        _ => ranges,
    };
    let ranges = match &wanted.probe {
        Some(probe) => by_tokens(&opened, tables, block, probe, ranges, context).await,
        None => ranges,
    };
    let some = !ranges.is_empty();
    Ok(some.then(|| BlockSource {
        path: block.path.clone(),
        opened,
        wanted: Arc::clone(wanted),
        ranges,
        all_inside,
        extent,
    }))
}

impl BlockSource {
    /// The block's path inside its table.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// What it holds, if the request makes that matter.
    pub(crate) fn extent(&self) -> Extent {
        self.extent.clone()
    }

    /// The rows; those in `overlap` with what makes them equal to others.
    pub(crate) fn into_stream(self, overlap: Overlap, context: &Context) -> BatchStream {
        let (object, context) = (self.opened.object().clone(), context.clone());
        guarded(object, std::future::ready(self.rows(overlap, context)))
    }

    fn rows(self, overlap: Overlap, context: Context) -> Result<BatchStream> {
        let Self { opened, wanted, mut ranges, all_inside, .. } = self;
        for conjunct in wanted.narrowing.provable(&overlap) {
            ranges = prune::pages_by_conjunct(opened.footer(), conjunct, ranges);
        }
        if ranges.is_empty() {
            return Ok(stream::empty().boxed());
        }
        let overlap = Arc::new(overlap);
        // A few traces lie in a few pages, which are read at once.
        let many = wanted.traces.as_ref().filter(|traces| traces.len() > BLOOM_LOOKUPS_MAX);
        let filter = wanted.narrowing.filter(opened.file_columns(), &overlap, many.map(Arc::clone));
        let hashed = wanted.asked.hashes && !overlap.is_empty();
        let rows = match hashed {
            true => opened.numbered_rows(&ranges, wanted.columns.as_deref(), filter)?,
            false => opened.filtered_rows(&ranges, wanted.columns.as_deref(), filter)?,
        };
        let exact = Arc::clone(&wanted);
        let filtered = rows.try_filter_map(move |rows| {
            let kept = context.check().and_then(|()| if all_inside { Ok(rows) } else { keep(rows, &exact) });
            std::future::ready(kept.map(|rows| (rows.num_rows() > 0).then_some(rows)))
        });
        if !hashed {
            return Ok(filtered.boxed());
        }
        let opened = Arc::new(opened);
        let hash = move |rows| hashed_rows(Arc::clone(&opened), wanted.table, Arc::clone(&overlap), rows);
        Ok(filtered.and_then(hash).boxed())
    }
}

/// `numbered` with the hashes of rows in `overlap` instead of the rows' numbers. The columns that tell rows apart are
/// read of these rows only.
async fn hashed_rows(
    opened: Arc<Opened>,
    table: Table,
    overlap: Arc<Overlap>,
    numbered: RecordBatch,
) -> Result<RecordBatch> {
    let last = numbered.num_columns().saturating_sub(1);
    let numbers = numbered.column(last).as_primitive_opt::<Int64Type>();
    let numbers = numbers.ok_or_else(|| Error::bug("rows lack their numbers"))?.values();
    let rows = numbered.project(&(0..last).collect::<Vec<_>>())?;
    let may_repeat = overlap.of_rows(table, &rows)?;
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for (number, _) in numbers.iter().zip(&may_repeat).filter(|(_, may)| **may) {
        let number = u64::try_from(*number).map_err(|_| Error::corrupt("a row of a block has a negative number"))?;
        prune::push(&mut ranges, number..number + 1);
    }
    if ranges.is_empty() {
        return Ok(rows);
    }
    let mut hashes: VecDeque<u128> = VecDeque::new();
    let mut telling = opened.selected_rows(&ranges, Some(&unique_places(table)))?;
    while let Some(batch) = telling.try_next().await? {
        let mut hasher = RowHasher::new(table, batch.schema_ref())?;
        for row in 0..batch.num_rows() {
            hashes.push_back(hasher.hash(&batch, row)?);
        }
    }
    let of_rows = may_repeat.iter().map(|may| if *may { hashes.pop_front() } else { None }).collect();
    with_hashes(&rows, of_rows)
}

/// Cuts `ranges` to what the block's token filter says may pass `probe`.
async fn by_tokens(
    opened: &Opened,
    tables: &TenantTables,
    block: &Block,
    probe: &Probe,
    ranges: Vec<Range<u64>>,
    context: &Context,
) -> Vec<Range<u64>> {
    let rows = |ranges: &[Range<u64>]| ranges.iter().map(|range| range.end - range.start).sum::<u64>();
    let before = rows(&ranges);
    if before < FILTERED_ROWS_MIN {
        return ranges;
    }
    let Some(filter) = opened.tokens(tables, block).await else { return ranges };
    let kept = prune::intersect(&ranges, &filter.candidates(probe));
    Stats::add(&context.stats.rows_ruled_out, before - rows(&kept));
    kept
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

/// The rows that `wanted` names, exactly.
fn keep(rows: RecordBatch, wanted: &Wanted) -> Result<RecordBatch> {
    let Some((time, _)) = wanted.table.spec().time else { return Ok(rows) };
    let times = rows.column_by_name(time).and_then(|array| array.as_primitive_opt::<Int64Type>());
    let times = times.ok_or_else(|| Error::bug("rows lack their time column"))?.values();
    let mut mask = BooleanBuffer::collect_bool(times.len(), |row| wanted.bounds.contains(times[row]));
    if let Some(traces) = &wanted.traces {
        let ids = rows.column_by_name("trace_id").and_then(|array| array.as_binary_opt::<i32>());
        let ids = ids.ok_or_else(|| Error::bug("spans lack their trace ids"))?;
        let named = |row: usize| traces.binary_search_by(|trace| trace.as_slice().cmp(ids.value(row))).is_ok();
        mask = &mask & &BooleanBuffer::collect_bool(ids.len(), named);
    }
    match mask.count_set_bits() {
        n if n == rows.num_rows() => Ok(rows),
        _ => Ok(filter_record_batch(&rows, &BooleanArray::new(mask, None))?),
    }
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "sidecar_tests.rs"]
mod sidecar_tests;
