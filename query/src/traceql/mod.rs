//! TraceQL, as of Tempo 3.x, and the reads of Tempo's API that need no language.
//!
//! ```text
//! text → lexer → parser (AST with spans) → check (types) → plan (what to scan) → eval (spansets per trace)
//! ```

pub mod ast;
pub mod check;
pub mod eval;
pub mod lexer;
pub mod parser;
pub mod plan;
pub mod print;

use std::collections::BTreeMap;

use storage::model::labels::Labels;
use storage::model::span::{Span, TraceId};
use storage::model::time::TimeRange;
use storage::model::value::Value;
use storage::{Context, Scan};

use crate::error::{Error, Kind, Result};

/// What a search asks besides its query.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchParams {
    /// Traces that touch it; `None`: all times.
    pub range: Option<TimeRange>,
    /// Most traces of the answer; 20 by default.
    pub limit: usize,
    /// Most spans listed per spanset; 3 by default.
    pub spans_per_spanset: usize,
}

/// One span of a spanset.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundSpan {
    /// 8 bytes.
    pub span_id: [u8; 8],
    /// Filled only when the query mentions the name; else "".
    pub name: String,
    /// Nanoseconds since the epoch.
    pub start_ns: i64,
    /// Nanoseconds.
    pub duration_ns: i64,
    /// What the query mentions, keys bare.
    pub attributes: Vec<(String, Value)>,
}

/// The spans of a trace that match, or one group of them.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanSet {
    /// At most `spans_per_spanset`.
    pub spans: Vec<FoundSpan>,
    /// How many match.
    pub matched: usize,
    /// What pipeline stages computed: `by(…)`, `count()`, …
    pub attributes: Vec<(String, Value)>,
}

/// Counts of one service in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ServiceStats {
    /// All its spans.
    pub span_count: u32,
    /// Those with status error.
    pub error_count: u32,
}

/// A trace that matches.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundTrace {
    /// 16 bytes.
    pub trace_id: TraceId,
    /// Service of the root, or `<root span not yet received>`.
    pub root_service_name: String,
    /// Name of the root, or "".
    pub root_trace_name: String,
    /// Earliest start.
    pub start_ns: i64,
    /// Latest end − earliest start.
    pub duration_ns: i64,
    /// At least one, unless the search had no query.
    pub span_sets: Vec<SpanSet>,
    /// Over all spans of the trace.
    pub service_stats: BTreeMap<String, ServiceStats>,
}

/// What a search gives: newest trace first.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct SearchAnswer {
    /// At most `limit`.
    pub traces: Vec<FoundTrace>,
    /// Traces that were looked at.
    pub inspected_traces: u64,
    /// Spans that were looked at.
    pub inspected_spans: u64,
}

/// A trace with all its spans, grouped by resource; resource attributes are typed texts (`storage::model::value`).
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// 16 bytes.
    pub trace_id: TraceId,
    /// Each resource once.
    pub resources: Vec<(Labels, Vec<Span>)>,
}

/// Whose attribute it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TagScope {
    /// `resource`
    Resource,
    /// `span`
    Span,
    /// `event`
    Event,
    /// `link`
    Link,
    /// `instrumentation`
    Instrumentation,
    /// `intrinsic`: a constant list.
    Intrinsic,
}

/// A value of a tag with its type: `string`, `int`, `float`, `bool`, `keyword` or `duration`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TagValue {
    /// The type's word.
    pub kind: &'static str,
    /// The value as text.
    pub value: String,
}

/// What a metrics query asks besides its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsParams {
    /// Nanoseconds since the epoch.
    pub start_ns: i64,
    /// Nanoseconds since the epoch.
    pub end_ns: i64,
    /// Distance of samples; not read by instant queries. See [`default_step_ns`].
    pub step_ns: i64,
    /// Most exemplars of the answer.
    pub exemplars_max: usize,
    /// Most series; 0 is no limit. Beyond it the answer is partial.
    pub series_max: usize,
}

/// Settings that bound metrics queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsLimits {
    /// Longest range; 24 h. 0 is no limit.
    pub range_max_ns: i64,
    /// Most intervals; 10,000.
    pub intervals_max: usize,
}

impl Default for MetricsLimits {
    fn default() -> Self {
        Self { range_max_ns: 24 * 3600 * storage::model::time::NS_PER_S, intervals_max: 10_000 }
    }
}

/// A span that contributed to a series.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsExemplar {
    /// `trace:id`, `name` and the groups.
    pub labels: Vec<(String, Value)>,
    /// The measured value; for counts and rates that of the sample.
    pub value: f64,
    /// The span's start.
    pub timestamp_ms: i64,
}

/// One series.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricsSeries {
    /// Names and typed values.
    pub labels: Vec<(String, Value)>,
    /// Milliseconds and values, ascending; an instant query has one.
    pub samples: Vec<(i64, f64)>,
    /// Ascending by time.
    pub exemplars: Vec<MetricsExemplar>,
}

/// What a metrics query gives.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct MetricsAnswer {
    /// In order of their labels.
    pub series: Vec<MetricsSeries>,
    /// Why the answer is partial, if it is.
    pub message: Option<String>,
    /// Traces that were looked at.
    pub inspected_traces: u64,
    /// Spans that were looked at.
    pub inspected_spans: u64,
}

pub use eval::metrics::default_step_ns;

/// Evaluates a metrics query at each step of a range. Errors of the text come without words before them.
pub async fn metrics_range(
    scan: &dyn Scan,
    text: &str,
    params: &MetricsParams,
    limits: &MetricsLimits,
    context: &Context,
) -> Result<MetricsAnswer> {
    let query = parse(text)?;
    let grid = eval::metrics::Grid::range(params, limits)?;
    eval::metrics::metrics(scan, &query, grid, params, context).await
}

/// Evaluates a metrics query once over `start < t ≤ end`.
pub async fn metrics_instant(
    scan: &dyn Scan,
    text: &str,
    params: &MetricsParams,
    limits: &MetricsLimits,
    context: &Context,
) -> Result<MetricsAnswer> {
    let query = parse(text).map_err(|error| refused("compiling query", error))?;
    let grid = eval::metrics::Grid::instant(params, limits)?;
    eval::metrics::metrics(scan, &query, grid, params, context).await
}

/// Reads and checks a query; errors are complete but for the words an API puts before them.
pub fn parse(text: &str) -> Result<ast::Query> {
    let query = parser::parse(text)?;
    check::check(&query)?;
    Ok(query)
}

/// Puts an API's words before the message of a refused query.
fn refused(before: &str, error: Error) -> Error {
    match error.kind {
        // The text is not the query's fault but its length.
        Kind::Parse if error.message.starts_with("TraceQL expression exceeds") => error,
        Kind::Parse => Error { message: format!("{before}: {}", error.message), ..error },
        _ => error,
    }
}

/// Searches by TraceQL; an empty text matches every trace.
pub async fn search(scan: &dyn Scan, text: &str, params: &SearchParams, context: &Context) -> Result<SearchAnswer> {
    if text.trim().is_empty() {
        return eval::search::search_all(scan, params, context).await;
    }
    let query = parse(text).map_err(|error| refused("invalid TraceQL query", error))?;
    match plan::plan(&query)? {
        Some(plan) => eval::search::search(scan, &plan, params, context).await,
        None => Err(Error::new(Kind::Invalid, "invalid TraceQL query: a metrics query gives series, not traces")),
    }
}

/// Searches by legacy tags: each pair must hold on some span of the trace, durations on the trace.
pub async fn search_tags(
    scan: &dyn Scan,
    tags: &[(String, String)],
    min_duration_ns: Option<i64>,
    max_duration_ns: Option<i64>,
    params: &SearchParams,
    context: &Context,
) -> Result<SearchAnswer> {
    eval::search::search_tags(scan, tags, (min_duration_ns, max_duration_ns), params, context).await
}

/// The whole trace, or `None`. `range` is a hint where to look.
pub async fn trace_by_id(
    scan: &dyn Scan,
    id: TraceId,
    range: Option<TimeRange>,
    context: &Context,
) -> Result<Option<Trace>> {
    eval::lookup::trace_by_id(scan, id, range, context).await
}

/// How often one service called another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The service of the parent.
    pub caller: String,
    /// The service of the child.
    pub called: String,
    /// Spans.
    pub count: u64,
}

/// The calls between different services that begin in `range`, in order of their names.
pub async fn calls(scan: &dyn Scan, range: TimeRange, context: &Context) -> Result<Vec<Call>> {
    eval::calls::calls(scan, range, context).await
}

/// Which spans of a trace are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceFilter {
    /// One `{…}`.
    pub query: String,
    /// Levels above matching spans; `None`: up to the root.
    pub ancestors: Option<u32>,
    /// Levels below matching spans; `None`: all.
    pub descendants: Option<u32>,
}

/// A part of a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct FilteredTrace {
    /// The spans that are wanted.
    pub trace: Trace,
    /// Whether there were others.
    pub dropped: bool,
}

/// What of a trace passes a filter, or `None` if there is no such trace.
pub async fn filtered_trace(
    scan: &dyn Scan,
    id: TraceId,
    range: Option<TimeRange>,
    filter: &TraceFilter,
    context: &Context,
) -> Result<Option<FilteredTrace>> {
    eval::lookup::filtered_trace(scan, id, range, filter, context).await
}

/// Names of attributes by scope (`None`: all scopes) on spans in `range` that match `filter` (a possibly unfinished
/// query; never an error).
pub async fn tag_names(
    scan: &dyn Scan,
    scope: Option<TagScope>,
    filter: &str,
    range: Option<TimeRange>,
    context: &Context,
) -> Result<Vec<(TagScope, Vec<String>)>> {
    eval::tags::tag_names(scan, scope, filter, range, context).await
}

/// Values of the attribute or intrinsic `identifier` (TraceQL's spelling) on spans in `range` that match `filter`.
pub async fn tag_values(
    scan: &dyn Scan,
    identifier: &str,
    filter: &str,
    range: Option<TimeRange>,
    context: &Context,
) -> Result<Vec<TagValue>> {
    eval::tags::tag_values(scan, identifier, filter, range, context).await
}

/// Values of an attribute by its name without scope, from spans and resources, as texts; `name` gives span names.
pub async fn legacy_tag_values(
    scan: &dyn Scan,
    name: &str,
    range: Option<TimeRange>,
    context: &Context,
) -> Result<Vec<String>> {
    eval::tags::legacy_tag_values(scan, name, range, context).await
}
