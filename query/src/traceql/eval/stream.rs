//! Scans → traces, one after the other.
//!
//! Owns: cutting batches into traces, deciding which traces lie in a range, and fetching what lies outside of it.
//! Does not own: what is done with a trace.
//!
//! A trace is in range when its earliest start and latest end enclose some time of the range, and then all its spans
//! take part. The first scan therefore reaches [`LOOK_BACK_NS`] and [`LOOK_AHEAD_NS`] beyond the range. A trace that
//! may go on outside of that window (it comes near its borders, or lacks a root or a parent) is read again from a
//! window of [`TRACE_SPAN_MAX_NS`] around the range.
//!
//! Where a query proves something about a span of each trace that it finds (`eval::proof`), the first scan reads just
//! that, and whole traces are read of those that have such a span, the latest first. A trace whose only such span lies
//! beyond the window, and that has no span close to its borders either, is not found.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arrow::array::RecordBatch;
use futures::StreamExt;
use storage::model::columns::SpanColumns;
use storage::model::padding::Padding;
use storage::model::span::TraceId;
use storage::model::time::{NS_PER_S, TimeRange};
use storage::scan::merge::batch_bytes;
use storage::scan::{BatchStream, Conjunct};
use storage::{Context, Scan, ScanRequest, Signal, Table};

use super::super::plan::Plan;
use super::proof::Prover;
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
/// Traces fetched at first of those that may match; then more each time.
const CANDIDATES_MIN: usize = 2_048;
const CANDIDATES_GROWTH: usize = 8;

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
    /// A trace that starts before matters no more; whoever visits moves it on.
    pub earliest: Arc<AtomicI64>,
}

impl Window {
    /// Spans that start in a range, or all.
    pub fn spans(range: Option<TimeRange>, reads: Reads) -> Self {
        Self { range, whole: false, traces: None, reads, earliest: Arc::new(AtomicI64::new(i64::MIN)) }
    }
}

/// Calls `visit` for each trace of `window`, in no order that means anything. Traces, and in windows that are not whole
/// spans, of which `plan` keeps nothing may be left out.
pub async fn each_trace(
    scan: &dyn Scan,
    window: &Window,
    plan: &Plan,
    context: &Context,
    visit: &mut (dyn FnMut(&Trace<'_>) -> Result<()> + Send),
) -> Result<()> {
    let reads = if window.whole { window.reads.clone().and_summary() } else { window.reads.clone() };
    let from = From { scan, columns: reads.columns(), context };
    match (window.range, window.whole, &window.traces) {
        (Some(range), true, None) => each_in_range(&from, range, window, plan, visit).await,
        (Some(range), true, Some(_)) => {
            let far = widened(range, TRACE_SPAN_MAX_NS, TRACE_SPAN_MAX_NS);
            let wanted = &mut |trace: &Trace<'_>| if overlaps(range, trace) { visit(trace) } else { Ok(()) };
            let resources = from.resources(far, plan).await?;
            from.read(far, window.traces.clone().map(Arc::new), Vec::new(), &resources, wanted).await
        }
        (range, whole, traces) => {
            let range = range.unwrap_or(TimeRange::ALL);
            let resources = from.resources(range, plan).await?;
            let narrow = if whole { Vec::new() } else { Prover::new(plan, &resources).of_each_span() };
            from.read(range, traces.clone().map(Arc::new), narrow, &resources, visit).await
        }
    }
}

/// Whole traces that lie in `range`.
async fn each_in_range(
    from: &From<'_>,
    range: TimeRange,
    window: &Window,
    plan: &Plan,
    visit: &mut (dyn FnMut(&Trace<'_>) -> Result<()> + Send),
) -> Result<()> {
    let near = widened(range, LOOK_BACK_NS, LOOK_AHEAD_NS);
    let resources = from.resources(near, plan).await?;
    let proof = Prover::new(plan, &resources).of_some_span();
    if proof.is_empty() {
        return each_near(from, range, None, &resources, plan, visit).await;
    }
    let (candidates, _held) = candidates(from, near, &proof).await?;
    let (mut rest, mut some) = (candidates.as_slice(), CANDIDATES_MIN);
    while let Some((_, latest)) = rest.first() {
        // The latest come first, and no trace starts after one of its spans.
        if *latest < window.earliest.load(Ordering::Relaxed) {
            break;
        }
        let (now, later) = rest.split_at(some.min(rest.len()));
        let traces = now.iter().map(|(id, _)| *id).collect();
        each_near(from, range, Some(Arc::new(traces)), &resources, plan, visit).await?;
        (rest, some) = (later, some.saturating_mul(CANDIDATES_GROWTH));
    }
    Ok(())
}

/// The traces with a span in `near` that passes `proof`, or with one close to its borders: they may go on beyond and have
/// such a span there. Each with a time that it does not start after; the latest first.
async fn candidates(
    from: &From<'_>,
    near: TimeRange,
    proof: &[Conjunct],
) -> Result<(Vec<(TraceId, i64)>, storage::budget::Reservation)> {
    let mut held = from.context.reserve(0)?;
    let mut found: Vec<(TraceId, i64)> = Vec::new();
    let begin = TimeRange::new(near.start, near.start.saturating_add(BORDER_NS).min(near.end));
    let end = TimeRange::new(near.end.saturating_sub(BORDER_NS).max(near.start), near.end);
    for (range, narrow) in [(near, proof), (begin, &[]), (end, &[])] {
        let columns = narrow.iter().flat_map(Conjunct::columns).collect();
        let request =
            ScanRequest { columns: Some(columns), narrow: narrow.to_vec(), ..ScanRequest::all(Table::Spans, range) };
        let mut stream = from.scan.scan(request, from.context).await?;
        let mut padding = Padding::new(Table::Spans);
        while let Some(batch) = stream.next().await {
            from.context.check()?;
            let batch = padding.pad(&batch?)?;
            let passed = narrow.iter().map(|test| test.test(&batch)).reduce(|all, one| &all & &one);
            let columns = SpanColumns::new(&batch)?;
            let before = found.len();
            for row in (0..batch.num_rows()).filter(|row| passed.as_ref().is_none_or(|passed| passed.value(*row))) {
                let (id, start) = (trace_id(columns.trace_id.value(row)), columns.start_ns.value(row));
                match found.last_mut() {
                    Some((last, earliest)) if *last == id => *earliest = start.min(*earliest),
                    _ => found.push((id, start)),
                }
            }
            held.grow((found.len() - before) * size_of::<(TraceId, i64)>())?;
        }
    }
    found.sort_unstable();
    found.dedup_by_key(|(id, _)| *id);
    found.sort_unstable_by_key(|(_, start)| Reverse(*start));
    Ok((found, held))
}

/// Traces that lie in `range`, all or some of them; those that may go on beyond what was read are read again.
async fn each_near(
    from: &From<'_>,
    range: TimeRange,
    traces: Option<Arc<Vec<TraceId>>>,
    resources: &Resources,
    plan: &Plan,
    visit: &mut (dyn FnMut(&Trace<'_>) -> Result<()> + Send),
) -> Result<()> {
    let near = widened(range, LOOK_BACK_NS, LOOK_AHEAD_NS);
    let mut again: Vec<TraceId> = Vec::new();
    let mut held = from.context.reserve(0)?;
    let first = &mut |trace: &Trace<'_>| {
        if !overlaps(range, trace) {
            return Ok(());
        }
        if may_go_on(near, trace) {
            held.grow(size_of::<TraceId>())?;
            again.push(trace.id);
            return Ok(());
        }
        visit(trace)
    };
    from.read(near, traces, Vec::new(), resources, first).await?;
    if again.is_empty() {
        return Ok(());
    }
    let far = widened(range, TRACE_SPAN_MAX_NS, TRACE_SPAN_MAX_NS);
    let resources = from.resources(far, plan).await?;
    for some in again.chunks(AGAIN_MAX) {
        from.read(far, Some(Arc::new(some.to_vec())), Vec::new(), &resources, visit).await?;
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

/// Where spans come from, and what of them.
struct From<'q> {
    scan: &'q dyn Scan,
    columns: Option<Arc<[&'static str]>>,
    context: &'q Context,
}

impl From<'_> {
    async fn resources(&self, range: TimeRange, plan: &Plan) -> Result<Resources> {
        let identities = self.scan.identities(Signal::Traces, &[], range, self.context).await?;
        Ok(Resources::new(identities, &plan.resource_keys))
    }

    async fn read(
        &self,
        range: TimeRange,
        traces: Option<Arc<Vec<TraceId>>>,
        narrow: Vec<Conjunct>,
        resources: &Resources,
        visit: &mut (dyn FnMut(&Trace<'_>) -> Result<()> + Send),
    ) -> Result<()> {
        let request =
            ScanRequest { traces, columns: self.columns.clone(), narrow, ..ScanRequest::all(Table::Spans, range) };
        let mut stream: BatchStream = self.scan.scan(request, self.context).await?;
        let mut padding = Padding::new(Table::Spans);
        let mut cutter = Cutter { open: Vec::new(), held: self.context.reserve(0)?, resources, context: self.context };
        while let Some(batch) = stream.next().await {
            let batch = batch?;
            cutter.batch(&padding.pad(&batch)?, batch_bytes(&batch), visit)?;
        }
        cutter.close(visit)
    }
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
