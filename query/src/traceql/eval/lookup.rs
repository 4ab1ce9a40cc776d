//! A trace by its id: whole, or what of it passes a filter.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt;
use storage::model::columns::SpanColumns;
use storage::model::identity::IdentityId;
use storage::model::labels::Labels;
use storage::model::span::{Span, TraceId};
use storage::model::time::{NS_PER_DAY, TimeRange};
use storage::{Context, Scan, ScanRequest, Signal, Table};

use super::super::ast::{Intrinsic, Reference, Root, Spansets, Stage};
use super::super::plan::Plan;
use super::super::{FilteredTrace, Trace, TraceFilter};
use super::pipeline::spanset;
use super::reads::Reads;
use super::stream::{Window, each_trace};
use crate::error::{Error, Kind, Result};

/// Roughly what one span takes in memory besides its Arrow row.
const SPAN_BYTES: usize = 1024;

/// The days around a hint in which a trace is looked for.
fn around(range: Option<TimeRange>) -> TimeRange {
    range.map_or(TimeRange::ALL, |range| {
        TimeRange::new(range.start.saturating_sub(NS_PER_DAY), range.end.saturating_add(NS_PER_DAY))
    })
}

/// The trace, or `None`. With a range, a trace that touches it is found whole if none of its spans lies more than a
/// day outside.
pub async fn trace_by_id(
    scan: &dyn Scan,
    id: TraceId,
    range: Option<TimeRange>,
    context: &Context,
) -> Result<Option<Trace>> {
    let request = ScanRequest { traces: Some(Arc::new(vec![id])), ..ScanRequest::all(Table::Spans, around(range)) };
    let mut stream = scan.scan(request, context).await?;
    let mut by_resource: BTreeMap<i64, Vec<Span>> = BTreeMap::new();
    let mut held = context.reserve(0)?;
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        context.check()?;
        held.grow(batch.num_rows() * SPAN_BYTES)?;
        let columns = SpanColumns::new(&batch)?;
        for row in 0..batch.num_rows() {
            let start = columns.start_ns.value(row);
            (first, last) = (first.min(start), last.max(start));
            by_resource.entry(columns.resource_id.value(row)).or_default().push(columns.span(row)?);
        }
    }
    if by_resource.is_empty() {
        return Ok(None);
    }
    let lived = TimeRange::new(first, last.saturating_add(1));
    let identities = scan.identities(Signal::Traces, &[], lived, context).await?;
    let mut labels: BTreeMap<IdentityId, Labels> =
        identities.into_iter().map(|identity| (identity.id, identity.labels)).collect();
    let resources = by_resource
        .into_iter()
        .map(|(id, spans)| (labels.remove(&IdentityId::from_column(id)).unwrap_or_else(Labels::empty), spans));
    Ok(Some(Trace { trace_id: id, resources: resources.collect() }))
}

/// The filter of a text that must be one `{…}` over single spans.
fn single_filter(text: &str) -> Result<Spansets> {
    let refused = |what: &str| Error::new(Kind::Parse, format!("invalid TraceQL filter: {what}"));
    let only = |got: &str| refused(&format!("only a single TraceQL filter is supported: got {got}"));
    let query = super::super::parse(text)
        .map_err(|error| refused(&format!("failed to parse TraceQL spanset filter: {}", error.message)))?;
    let Root::Spansets(pipeline) = query.root else { return Err(only("a metrics query")) };
    match <[Stage; 1]>::try_from(pipeline.stages) {
        Ok([Stage::Spansets(filter @ Spansets::Filter(_))]) => Ok(filter),
        _ => Err(only("a structural or aggregate query")),
    }
}

/// What of a trace passes a filter, with what is around it.
pub async fn filtered_trace(
    scan: &dyn Scan,
    id: TraceId,
    range: Option<TimeRange>,
    filter: &TraceFilter,
    context: &Context,
) -> Result<Option<FilteredTrace>> {
    let mut plan = Plan::default();
    let spansets = plan.compile_spansets(&single_filter(&filter.query)?)?;
    let of_trace = plan.mentions.iter().find(|mention| {
        matches!(
            mention.reference,
            Reference::Intrinsic(
                Intrinsic::TraceDuration | Intrinsic::RootName | Intrinsic::RootServiceName | Intrinsic::TraceId
            )
        )
    });
    if let Some(mention) = of_trace {
        let message = format!("invalid TraceQL filter: {} belongs to a trace, not to a span", mention.reference);
        return Err(Error::new(Kind::Parse, message));
    }
    let window = Window { traces: Some(vec![id]), ..Window::spans(Some(around(range)), Reads::All) };
    let mut found = None;
    each_trace(scan, &window, &plan, context, &mut |trace| {
        let all: Vec<u32> = (0..trace.len()).map(|span| u32::try_from(span).unwrap_or(u32::MAX)).collect();
        let mut marks = vec![false; trace.len()];
        for span in spanset(&spansets, trace, &all)? {
            marks[span as usize] = true;
        }
        let near = trace.tree().near(&marks, filter.ancestors, filter.descendants);
        let mut resources: BTreeMap<i64, (Labels, Vec<Span>)> = BTreeMap::new();
        let held = context.reserve(near.iter().filter(|kept| **kept).count() * SPAN_BYTES)?;
        for span in (0..trace.len()).filter(|span| near[*span]) {
            let (columns, row) = trace.row(span);
            let labels = || trace.resource(span).map_or_else(Labels::empty, |resource| resource.labels.clone());
            let entry = resources.entry(columns.resource_id.value(row)).or_insert_with(|| (labels(), Vec::new()));
            entry.1.push(columns.span(row)?);
        }
        drop(held);
        let trace = Trace { trace_id: id, resources: resources.into_values().collect() };
        found = Some(FilteredTrace { trace, dropped: near.contains(&false) });
        Ok(())
    })
    .await?;
    Ok(found)
}
