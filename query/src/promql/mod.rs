//! PromQL, as of Prometheus 3.x.
//!
//! ```text
//! text → lexer → parser (AST with spans) → check (types) → plan (selectors and windows) → eval (columnar)
//! ```

pub mod ast;
mod check;
mod eval;
pub mod functions;
pub mod lexer;
mod load;
mod number;
mod parser;
mod plan;
mod print;
mod tree;

#[cfg(test)]
mod tests;

use std::time::Duration;

use storage::model::histogram::Histogram;
use storage::model::labels::Labels;
use storage::model::matcher::Matcher;
use storage::model::time::{TimeRange, TimestampMs};
use storage::{Context, Scan};

use crate::error::{Error, Kind, Result};

pub use number::{format_float, format_scalar};
pub use parser::{duration_ms, format_duration};
pub use print::{pretty, print};

/// The largest tree that is given out as JSON: such a value nests, and dropping it takes stack.
const TREE_NODES_MAX: usize = 2000;

/// Steps of a range query: `start`, `start + step`, … up to and including `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// First step.
    pub start: TimestampMs,
    /// Last possible step.
    pub end: TimestampMs,
    /// Distance in milliseconds, above zero.
    pub step_ms: i64,
}

/// Settings of one evaluation.
#[derive(Clone, Debug)]
pub struct Options {
    /// How far an instant selector looks back; 5 minutes by default.
    pub lookback: Duration,
    /// Step of subqueries that name none; 1 minute by default.
    pub default_step: Duration,
    /// The most samples a query may hold in memory; 50 million by default.
    pub samples_max: usize,
    /// Removes metric names at the end of a query instead of at once: labels can be made of them until then.
    pub delayed_name_removal: bool,
    /// Lets `rate` and its like use start timestamps where they are known.
    pub start_timestamps: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            lookback: Duration::from_secs(300),
            default_step: Duration::from_secs(60),
            samples_max: 50_000_000,
            delayed_name_removal: false,
            start_timestamps: false,
        }
    }
}

/// A value at a time: a float or a histogram.
#[derive(Clone, Debug, PartialEq)]
pub enum PointValue {
    /// An ordinary value.
    Float(f64),
    /// A native histogram.
    Histogram(Box<Histogram>),
}

/// One element of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorSample {
    /// Labels, `__name__` included where it was kept.
    pub labels: Labels,
    /// Its time in the answer.
    pub ts: TimestampMs,
    /// Its value.
    pub value: PointValue,
}

/// One series of a matrix; floats and histograms ascend by time, each.
#[derive(Clone, Debug, PartialEq)]
pub struct MatrixSeries {
    /// Labels, `__name__` included where it was kept.
    pub labels: Labels,
    /// Float points.
    pub floats: Vec<(TimestampMs, f64)>,
    /// Histogram points.
    pub histograms: Vec<(TimestampMs, Histogram)>,
}

/// What a query gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `scalar`
    Scalar(TimestampMs, f64),
    /// `string`
    String(TimestampMs, String),
    /// `vector`, in the order of the answer.
    Vector(Vec<VectorSample>),
    /// `matrix`, sorted by labels.
    Matrix(Vec<MatrixSeries>),
}

/// A value with its notices and its cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The value.
    pub value: Value,
    /// `PromQL warning: …`, complete texts.
    pub warnings: Vec<String>,
    /// `PromQL info: …`, complete texts.
    pub infos: Vec<String>,
    /// Samples that the query loaded.
    pub samples_read: u64,
    /// The most samples that it held at once.
    pub peak_samples: u64,
}

/// One exemplar with its own labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Exemplar {
    /// Its labels, sorted by name.
    pub labels: Vec<(String, String)>,
    /// Its value.
    pub value: f64,
    /// Its time.
    pub ts: TimestampMs,
}

/// Evaluates `text` at one time.
pub async fn instant(
    scan: &dyn Scan,
    text: &str,
    at: TimestampMs,
    options: &Options,
    context: &Context,
) -> Result<Answer> {
    let grid = Grid { start: at, end: at, step_ms: 1 };
    run(scan, parse(text)?, grid, false, options, context).await
}

/// Evaluates `text` at every step of `grid`; the answer is a matrix.
pub async fn range(scan: &dyn Scan, text: &str, grid: Grid, options: &Options, context: &Context) -> Result<Answer> {
    let ast = parse(text)?;
    let kind = ast.kind(ast.root);
    if !matches!(kind, ast::Type::Scalar | ast::Type::Vector) {
        let kind = kind.as_str();
        return Err(Error::new(
            Kind::Parse,
            format!("invalid expression type \"{kind}\" for range query, must be Scalar or instant Vector"),
        ));
    }
    run(scan, ast, grid, true, options, context).await
}

/// Reads all data first, then computes on a thread that may block.
async fn run(
    scan: &dyn Scan,
    ast: ast::Ast,
    grid: Grid,
    is_range: bool,
    options: &Options,
    context: &Context,
) -> Result<Answer> {
    let plan = plan::plan(ast, grid, is_range, options)?;
    let data = load::load(&plan, scan, options.samples_max, context).await?;
    let (options, context) = (options.clone(), context.clone());
    let work = tokio::task::spawn_blocking(move || eval::evaluate(&plan, &data, &options, &context));
    work.await.map_err(|e| Error::new(Kind::Storage, format!("the evaluation was interrupted: {e}")))?
}

/// The exemplars of every series that a selector in `text` names, series sorted by labels, exemplars by time.
/// `None` if `text` has no selector.
pub async fn exemplars(
    scan: &dyn Scan,
    text: &str,
    range: TimeRange,
    context: &Context,
) -> Result<Option<Vec<(Labels, Vec<Exemplar>)>>> {
    let ast = parse(text)?;
    let selectors: Vec<Vec<Matcher>> = ast
        .nodes
        .iter()
        .filter_map(|node| match &node.expr {
            ast::Expr::Vector(selector) | ast::Expr::Matrix { selector, .. } => Some(selector.matchers.clone()),
            _ => None,
        })
        .collect();
    if selectors.is_empty() {
        return Ok(None);
    }
    load::exemplars(&selectors, scan, range, context).await.map(Some)
}

/// The buckets of a native histogram that are not empty, from the lowest to the highest: the rule of their ends (0: the
/// low end is open, 1: the high end, 2: both, 3: none), the low end, the high end, the count.
pub fn histogram_buckets(histogram: &Histogram) -> Vec<(u8, f64, f64, f64)> {
    eval::histogram_buckets(histogram)
}

/// Reads and checks an expression.
pub fn parse(text: &str) -> Result<ast::Ast> {
    let ast = parser::parse(text)?;
    check::check(&ast)?;
    Ok(ast)
}

/// Parses a series selector, as `match[]` takes it; it must not match everything empty.
pub fn parse_selector(text: &str) -> Result<Vec<Matcher>> {
    parser::parse_selector(text)
}

/// `text` in the canonical spelling, long nodes broken over lines.
pub fn format_query(text: &str) -> Result<String> {
    Ok(print::pretty(&parse(text)?))
}

/// The syntax tree of `text` as `parse_query` answers it.
pub fn parse_tree(text: &str) -> Result<serde_json::Value> {
    let ast = parse(text)?;
    if ast.nodes.len() > TREE_NODES_MAX {
        let message = format!("the syntax tree has more than {TREE_NODES_MAX} nodes");
        return Err(Error::new(Kind::Limit, message));
    }
    Ok(tree::tree(&ast))
}
