//! Scans → traces, one after the other.
//!
//! Owns: cutting batches into traces, deciding which traces lie in a range, and fetching what lies outside of it.
//! Does not own: what is done with a trace.
//!
//! A trace is in range when its earliest start and latest end enclose some time of the range, and then all its spans
//! take part. The first scan therefore reaches [`LOOK_BACK_NS`] and [`LOOK_AHEAD_NS`] beyond the range. A trace that
//! may go on outside of that window (it comes near its borders, or lacks a root or a parent) is read again from a
//! window of [`TRACE_SPAN_MAX_NS`] around the range.

use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::StreamExt;
use storage::model::columns::SpanColumns;
use storage::model::padding::Padding;
use storage::model::span::TraceId;
use storage::model::time::{NS_PER_S, TimeRange};
use storage::scan::BatchStream;
use storage::scan::merge::batch_bytes;
use storage::{Context, Scan, ScanRequest, Signal, Table};

use super::reads::Reads;
use super::trace::{Piece, Resources, Trace};
use crate::error::Result;

/// How long before the range a trace may begin whose spans in the range are all children.
const LOOK_BACK_NS: i64 = 30 * 60 * NS_PER_S;
/// How far after the range spans of its traces are looked for at first.
const LOOK_AHEAD_NS: i64 = 10 * 60 * NS_PER_S;
/// A trace whose spans come this close to the border of the first scan may go on beyond it.
const BORDER_NS: i64 = 5 * 60 * NS_PER_S;
/// No trace is followed further than this beyond the range.
const TRACE_SPAN_MAX_NS: i64 = 24 * 3600 * NS_PER_S;
/// Traces fetched again at once.
const AGAIN_MAX: usize = 10_000;

/// Which traces are wanted, and how much of each.
#[derive(Clone, Debug)]
pub struct Window {
    /// `None`: all times.
    pub range: Option<TimeRange>,
    /// Whole traces that lie in the range, instead of just the spans that start in it.
    pub whole: bool,
    /// Only these.
    pub traces: Option<Vec<TraceId>>,
    /// Columns of their spans.
    pub reads: Reads,
}

/// Calls `visit` for each trace of `window`, in no order that means anything.
pub async fn each_trace(
    scan: &dyn Scan,
    window: &Window,
    resource_keys: &[String],
    context: &Context,
    visit: &mut (dyn FnMut(&Trace<'_>) -> Result<()> + Send),
) -> Result<()> {
    let traces = window.traces.clone().map(Arc::new);
    let reads = if window.whole { window.reads.clone().and_summary() } else { window.reads.clone() };
    let from = From { scan, columns: reads.columns(), context };
    let (Some(range), true, None) = (window.range, window.whole, &traces) else {
        let first = match window.range {
            Some(range) if window.whole => widened(range, TRACE_SPAN_MAX_NS, TRACE_SPAN_MAX_NS),
            Some(range) => range,
            None => TimeRange::ALL,
        };
        let resources = resources(scan, first, resource_keys, context).await?;
        let wanted = window.range.filter(|_| window.whole);
        return read(&from, first, traces, &resources, &mut |trace| match wanted {
            Some(range) if !overlaps(range, trace) => Ok(()),
            _ => visit(trace),
        })
        .await;
    };
    let near = widened(range, LOOK_BACK_NS, LOOK_AHEAD_NS);
    let near_resources = resources(scan, near, resource_keys, context).await?;
    let mut again: Vec<TraceId> = Vec::new();
    let mut held = context.reserve(0)?;
    read(&from, near, None, &near_resources, &mut |trace| {
        if !overlaps(range, trace) {
            return Ok(());
        }
        if may_go_on(near, trace) {
            held.grow(size_of::<TraceId>())?;
            again.push(trace.id);
            return Ok(());
        }
        visit(trace)
    })
    .await?;
    if again.is_empty() {
        return Ok(());
    }
    let far = widened(range, TRACE_SPAN_MAX_NS, TRACE_SPAN_MAX_NS);
    let far_resources = resources(scan, far, resource_keys, context).await?;
    for some in again.chunks(AGAIN_MAX) {
        read(&from, far, Some(Arc::new(some.to_vec())), &far_resources, visit).await?;
    }
    Ok(())
}

fn widened(range: TimeRange, before: i64, after: i64) -> TimeRange {
    TimeRange::new(range.start.saturating_sub(before), range.end.saturating_add(after))
}

fn overlaps(range: TimeRange, trace: &Trace<'_>) -> bool {
    let summary = trace.summary();
    range.overlaps(summary.start_ns, summary.end_ns.max(summary.start_ns))
}

fn may_go_on(seen: TimeRange, trace: &Trace<'_>) -> bool {
    let summary = trace.summary();
    summary.start_ns < seen.start.saturating_add(BORDER_NS)
        || summary.last_start_ns > seen.end.saturating_sub(BORDER_NS)
        || summary.root.is_none()
        || trace.has_orphans()
}

async fn resources(scan: &dyn Scan, range: TimeRange, keys: &[String], context: &Context) -> Result<Resources> {
    let identities = scan.identities(Signal::Traces, &[], range, context).await?;
    Ok(Resources::new(identities, keys))
}

/// Where spans come from, and what of them.
struct From<'q> {
    scan: &'q dyn Scan,
    columns: Option<Arc<[&'static str]>>,
    context: &'q Context,
}

async fn read(
    from: &From<'_>,
    range: TimeRange,
    traces: Option<Arc<Vec<TraceId>>>,
    resources: &Resources,
    visit: &mut (dyn FnMut(&Trace<'_>) -> Result<()> + Send),
) -> Result<()> {
    let From { scan, columns, context } = from;
    let request = ScanRequest { traces, columns: columns.clone(), ..ScanRequest::all(Table::Spans, range) };
    let mut stream: BatchStream = scan.scan(request, context).await?;
    let mut padding = Padding::new(Table::Spans);
    let mut cutter = Cutter { open: Vec::new(), held: context.reserve(0)?, resources, context };
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        cutter.batch(&padding.pad(&batch)?, batch_bytes(&batch), visit)?;
    }
    cutter.close(visit)
}

/// Cuts batches into traces; the last trace of a batch may go on in the next one.
struct Cutter<'r> {
    open: Vec<RecordBatch>,
    held: storage::budget::Reservation,
    resources: &'r Resources,
    context: &'r Context,
}

impl Cutter<'_> {
    /// `bytes` is what the batch takes.
    fn batch(
        &mut self,
        batch: &RecordBatch,
        bytes: usize,
        visit: &mut (dyn FnMut(&Trace<'_>) -> Result<()> + Send),
    ) -> Result<()> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(());
        }
        self.context.check()?;
        let columns = SpanColumns::new(batch)?;
        let ids = columns.trace_id;
        let run_end = |from: usize| (from..rows).find(|row| ids.value(*row) != ids.value(from)).unwrap_or(rows);
        let mut from = 0;
        if let Some(open_id) = self.open_id()? {
            if ids.value(0) == open_id {
                from = run_end(0);
                self.hold(batch.slice(0, from), bytes)?;
            }
            if from < rows {
                self.close(visit)?;
            }
        }
        while from < rows {
            let to = run_end(from);
            if to == rows {
                return self.hold(batch.slice(from, to - from), bytes);
            }
            self.context.check()?;
            let piece = Piece { columns: &columns, rows: from..to };
            visit(&Trace::new(trace_id(ids.value(from)), piece, Vec::new(), self.resources))?;
            from = to;
        }
        Ok(())
    }

    fn open_id(&self) -> Result<Option<Vec<u8>>> {
        match self.open.first() {
            Some(batch) => Ok(Some(SpanColumns::new(batch)?.trace_id.value(0).to_vec())),
            None => Ok(None),
        }
    }

    fn hold(&mut self, rows: RecordBatch, bytes: usize) -> Result<()> {
        // A slice keeps its whole batch alive.
        self.held.grow(bytes)?;
        self.open.push(rows);
        Ok(())
    }

    fn close(&mut self, visit: &mut (dyn FnMut(&Trace<'_>) -> Result<()> + Send)) -> Result<()> {
        let open = std::mem::take(&mut self.open);
        let views = open.iter().map(SpanColumns::new).collect::<storage::Result<Vec<_>>>()?;
        let mut pieces = views.iter().zip(&open).map(|(columns, rows)| Piece { columns, rows: 0..rows.num_rows() });
        if let Some(first) = pieces.next() {
            let id = trace_id(first.columns.trace_id.value(0));
            visit(&Trace::new(id, first, pieces.collect(), self.resources))?;
        }
        self.held.shrink_to(0);
        Ok(())
    }
}

fn trace_id(bytes: &[u8]) -> TraceId {
    // The storage keeps 16 bytes; anything else would be a damaged file and is padded.
    let mut id = [0; 16];
    let len = bytes.len().min(16);
    id[16 - len..].copy_from_slice(&bytes[..len]);
    id
}
