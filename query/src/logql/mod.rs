//! LogQL, as of Loki 3.x.
//!
//! ```text
//! text → lexer → parser (AST with spans) → check → plan (streams, time, line filters) → eval (columnar, lazy)
//! ```

pub mod ast;
mod check;
pub mod eval;
mod lexer;
pub use print::quote;
pub mod parser;
pub mod plan;
mod print;
pub mod units;

use storage::delete::{Needle, RowTest};
use storage::model::matcher::Matcher;
use storage::{Context, Scan};

use self::ast::{Expr, LineNeedle, LineOp, StageKind};
use self::plan::Plan;
use crate::error::{Error, Kind, Result};

pub use eval::fields::Field;
pub use units::format_float;

/// Which end of the range a log query begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Direction {
    /// Newest first.
    #[default]
    Backward,
    /// Oldest first.
    Forward,
}

/// Times and limits of one query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Log queries: first nanosecond inside. Metric queries: first step.
    pub start_ns: i64,
    /// Log queries: first nanosecond outside. Metric queries: last possible step. Instant: equal to `start_ns`.
    pub end_ns: i64,
    /// Distance of steps; 0 for an instant query.
    pub step_ns: i64,
    /// Log queries: entries closer than this to the one before are skipped; 0 is off.
    pub interval_ns: i64,
    /// Log queries: the most entries of the answer.
    pub limit: usize,
    /// Log queries: which end comes first.
    pub direction: Direction,
}

/// Settings that bound a query.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most series of a metric answer; 500.
    pub series_max: usize,
    /// Most entries of a log answer; 5000.
    pub entries_max: usize,
    /// Longest query text in bytes; 128 KiB.
    pub query_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { series_max: 500, entries_max: 5000, query_bytes_max: 128 << 10 }
    }
}

/// One entry of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Nanoseconds since the epoch.
    pub ts_ns: i64,
    /// The line after the pipeline.
    pub line: String,
    /// Labels of the category `structuredMetadata`, sorted by name.
    pub structured_metadata: Vec<(String, String)>,
    /// Labels of the category `parsed`, sorted by name; values may be empty.
    pub parsed: Vec<(String, String)>,
}

/// Entries that share all labels after the pipeline.
#[derive(Clone, Debug, PartialEq)]
pub struct Stream {
    /// All labels of whatever category, sorted by name; values may be empty.
    pub labels: Vec<(String, String)>,
    /// In the order of the query's direction.
    pub entries: Vec<Entry>,
}

/// One series of a metric answer: labels (values may be empty), then (nanoseconds, value) ascending by time.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Sorted by name.
    pub labels: Vec<(String, String)>,
    /// Points.
    pub points: Vec<(i64, f64)>,
}

/// What a query gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `streams`
    Streams(Vec<Stream>),
    /// `matrix`
    Matrix(Vec<Series>),
    /// `vector`: each series has one point; in the order of the answer.
    Vector(Vec<Series>),
    /// `scalar`
    Scalar(i64, f64),
}

/// A value with its notices and its cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The value.
    pub value: Value,
    /// Notices.
    pub warnings: Vec<String>,
    /// Lines that the query looked at.
    pub lines_read: u64,
    /// Their bytes.
    pub bytes_read: u64,
    /// Bytes of their structured metadata.
    pub metadata_bytes_read: u64,
    /// Lines that passed all filters.
    pub lines_passed: u64,
}

/// Whether `text` is a log query (and not a metric query); a parse error if it is neither.
pub fn is_log_query(text: &str) -> Result<bool> {
    Ok(matches!(plan::prepare(text)?.1, Plan::Log(_)))
}

/// Reads what a delete request asks for: which streams, and which of their lines. Only line filters for texts and
/// regular expressions may follow the selector.
pub fn delete_request(text: &str) -> Result<(Vec<Matcher>, Vec<RowTest>)> {
    let unsupported = || {
        let message = "a delete request takes a selector and the line filters |=, !=, |~ and !~ of texts, nothing else";
        Error::new(Kind::Invalid, message)
    };
    let (Expr::Log(expr), _) = plan::prepare(text)? else { return Err(unsupported()) };
    let matchers = expr.matchers.iter().map(plan::matcher).collect::<Result<_>>()?;
    let mut tests = Vec::with_capacity(expr.stages.len());
    for stage in &expr.stages {
        let StageKind::LineFilter(op, needles) = &stage.kind else { return Err(unsupported()) };
        let mut any = Vec::with_capacity(needles.len());
        for needle in needles {
            any.push(match (op, needle) {
                (LineOp::Contains | LineOp::NotContains, LineNeedle::Text(text)) => Needle::Text(text.clone()),
                (LineOp::Regex | LineOp::NotRegex, LineNeedle::Text(text)) => Needle::regex(text)?,
                _ => return Err(unsupported()),
            });
        }
        tests.push(RowTest { column: "line", negated: op.negated(), any });
    }
    Ok((matchers, tests))
}

/// The canonical text of a query.
pub fn format_query(text: &str) -> Result<String> {
    Ok(print::pretty(&plan::prepare(text)?.0))
}

fn prepare(text: &str, limits: &Limits) -> Result<Plan> {
    if text.len() > limits.query_bytes_max {
        let message = format!("parse error : the query is longer than {} bytes", limits.query_bytes_max);
        return Err(Error::new(Kind::Parse, message));
    }
    Ok(plan::prepare(text)?.1)
}

/// Evaluates `text` over a range.
pub async fn range(scan: &dyn Scan, text: &str, params: &Params, limits: &Limits, context: &Context) -> Result<Answer> {
    match prepare(text, limits)? {
        Plan::Metric(plan) => eval::metric_range(scan, &plan, params, limits, context).await,
        Plan::Log(_) if params.limit > limits.entries_max => Err(Error::new(
            Kind::Limit,
            format!(
                "max entries limit per query exceeded, limit > max_entries_limit_per_query ({} > {})",
                params.limit, limits.entries_max
            ),
        )),
        Plan::Log(plan) => eval::log(scan, &plan, params, context).await,
    }
}

/// Evaluates a metric query at one time (`params.start_ns`); a log query is an error.
pub async fn instant(
    scan: &dyn Scan,
    text: &str,
    params: &Params,
    limits: &Limits,
    context: &Context,
) -> Result<Answer> {
    match prepare(text, limits)? {
        Plan::Metric(plan) => eval::metric_instant(scan, &plan, params, limits, context).await,
        Plan::Log(_) => Err(Error::new(
            Kind::Invalid,
            "log queries are not supported as an instant query type, please change your query to a range query type",
        )),
    }
}

/// The fields of the newest `params.limit` entries of a log query, by name, at most `fields_max`.
pub async fn detected_fields(
    scan: &dyn Scan,
    text: &str,
    params: &Params,
    fields_max: usize,
    limits: &Limits,
    context: &Context,
) -> Result<Vec<Field>> {
    if !is_log_query(text)? {
        return Err(Error::new(Kind::Invalid, "only log queries have fields: metric queries have no lines"));
    }
    match range(scan, text, params, limits, context).await?.value {
        Value::Streams(streams) => Ok(eval::fields::detect(&streams, fields_max)),
        _ => Ok(Vec::new()),
    }
}

/// Parses a stream selector without pipeline, as `series` and `labels` take it. "" and `{}` give no matcher.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    parser::parse_matchers(text)?.iter().map(plan::matcher).collect()
}
