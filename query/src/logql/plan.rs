//! Syntax tree → compiled plan: what to scan, what runs on each entry, which labels are needed, what is grouped early.
//!
//! Owns: compiling, and pushing a grouping of sums down to the scan. Does not own: running the plan (`eval`).

use regex::Regex;
use storage::model::matcher::Matcher;

use super::ast::{
    self, BinaryOp, Conversion, Expr, Grouping, LabelTest, LogExpr, Matching, MetricExpr, RangeAggregation, RangeOp,
    VectorOp,
};
use super::eval::hints::Hints;
use super::eval::label_filter::LabelFilter;
use super::eval::labels::{ERROR, Needs};
use super::eval::pipeline::Pipeline;
use super::lexer::semantic_error;
use super::{check, parser};
use crate::error::{Result, SourceSpan};

/// A compiled query.
#[derive(Debug)]
pub enum Plan {
    /// Gives entries.
    Log(LogPlan),
    /// Gives samples.
    Metric(MetricPlan),
}

/// Which streams, and what happens to their entries.
#[derive(Debug)]
pub struct LogPlan {
    /// ANDed.
    pub matchers: Vec<Matcher>,
    /// The stages.
    pub pipeline: Pipeline,
    /// Which labels anything reads.
    pub needs: Needs,
    /// What it proves about stored rows.
    pub hints: Hints,
    /// Whether anything reads lines.
    pub reads_line: bool,
}

/// A compiled metric expression.
#[derive(Debug)]
pub enum MetricPlan {
    /// An aggregation over time.
    Range(Box<RangePlan>),
    /// An aggregation over series.
    Vector(Box<VectorPlan>),
    /// An operator.
    Binary(Box<BinaryPlan>),
    /// `label_replace`
    LabelReplace(Box<LabelReplacePlan>),
    /// A number.
    Literal(f64),
    /// `vector(…)`
    Constant(f64),
}

/// A compiled aggregation over time.
#[derive(Debug)]
pub struct RangePlan {
    /// Where entries come from.
    pub log: LogPlan,
    /// Which aggregation.
    pub op: RangeOp,
    /// φ of a quantile.
    pub parameter: f64,
    /// Where values come from, if not from counting.
    pub unwrap: Option<UnwrapPlan>,
    /// Length of the window.
    pub range_ns: i64,
    /// How far it lies in the past.
    pub offset_ns: i64,
    /// Labels of the series: `None` for all.
    pub grouping: Option<Grouping>,
    /// Whether failed entries count; else one is an error of the query.
    pub counts_errors: bool,
    /// Labels of the series that `absent_over_time` gives.
    pub absent_labels: Vec<(String, String)>,
}

/// A compiled `unwrap`.
#[derive(Debug)]
pub struct UnwrapPlan {
    /// The label that holds the value.
    pub label: String,
    /// How its text is read.
    pub conversion: Conversion,
    /// Filters behind it.
    pub filters: Vec<LabelFilter>,
}

/// A compiled aggregation over series.
#[derive(Debug)]
pub struct VectorPlan {
    /// Which.
    pub op: VectorOp,
    /// k of `topk`.
    pub k: usize,
    /// Of what.
    pub operand: MetricPlan,
    /// Groups.
    pub grouping: Option<Grouping>,
}

/// A compiled operator.
#[derive(Debug)]
pub struct BinaryPlan {
    /// Operator.
    pub op: BinaryOp,
    /// 0 or 1 instead of filtering.
    pub returns_bool: bool,
    /// How series find each other.
    pub matching: Option<Matching>,
    /// Left operand.
    pub left: MetricPlan,
    /// Right operand.
    pub right: MetricPlan,
}

/// A compiled `label_replace`.
#[derive(Debug)]
pub struct LabelReplacePlan {
    /// Of what.
    pub operand: MetricPlan,
    /// The label to set.
    pub destination: String,
    /// To what.
    pub replacement: String,
    /// The label to read.
    pub source: String,
    /// Anchored at both ends.
    pub regex: Regex,
}

/// Parses, checks and compiles a query.
pub fn prepare(text: &str) -> Result<(Expr, Plan)> {
    let expr = check::check(parser::parse(text)?)?;
    let plan = plan(&expr)?;
    Ok((expr, plan))
}

/// Compiles a checked query.
pub fn plan(expr: &Expr) -> Result<Plan> {
    Ok(match expr {
        Expr::Log(log) => Plan::Log(log_plan(log)?),
        Expr::Metric(metric) => Plan::Metric(metric_plan(metric, None)?),
    })
}

/// Compiles one test on a label.
pub fn matcher(test: &LabelTest) -> Result<Matcher> {
    Matcher::new(&test.name, test.op, &test.value).map_err(|error| semantic_error(test.span, error.message()))
}

fn log_plan(log: &LogExpr) -> Result<LogPlan> {
    let matchers: Vec<Matcher> = log.matchers.iter().map(matcher).collect::<Result<_>>()?;
    if matchers.iter().all(Matcher::matches_empty) {
        return Err(semantic_error(
            log.span,
            "queries require at least one regexp or equality matcher that does not have an empty-compatible value. \
             For instance, app=~\".*\" does not meet this requirement, but app=~\".+\" will",
        ));
    }
    Ok(LogPlan {
        matchers,
        pipeline: Pipeline::new(&log.stages)?,
        needs: Needs::All,
        hints: Hints::of(&log.stages),
        reads_line: true,
    })
}

/// `pushed` is the grouping of an aggregation around this expression that gives the same when done at the leaf.
fn metric_plan(metric: &MetricExpr, pushed: Option<(VectorOp, Grouping)>) -> Result<MetricPlan> {
    Ok(match metric {
        MetricExpr::Range(node) => MetricPlan::Range(Box::new(range_plan(node, pushed)?)),
        MetricExpr::Vector(node) => {
            let everything = Grouping { without: false, labels: Vec::new() };
            let inner = (node.op, node.grouping.clone().unwrap_or(everything));
            MetricPlan::Vector(Box::new(VectorPlan {
                op: node.op,
                k: node.k.unwrap_or(0),
                operand: metric_plan(&node.operand, Some(inner))?,
                grouping: node.grouping.clone(),
            }))
        }
        MetricExpr::Binary(node) => MetricPlan::Binary(Box::new(BinaryPlan {
            op: node.op,
            returns_bool: node.returns_bool,
            matching: node.matching.clone(),
            left: metric_plan(&node.left, None)?,
            right: metric_plan(&node.right, None)?,
        })),
        MetricExpr::LabelReplace(node) => MetricPlan::LabelReplace(Box::new(LabelReplacePlan {
            operand: metric_plan(&node.operand, None)?,
            destination: node.destination.clone(),
            replacement: node.replacement.clone(),
            source: node.source.clone(),
            regex: anchored(&node.regex, node.span)?,
        })),
        MetricExpr::Literal(value, _) => MetricPlan::Literal(*value),
        MetricExpr::Constant(value, _) => MetricPlan::Constant(*value),
    })
}

fn anchored(regex: &str, span: SourceSpan) -> Result<Regex> {
    let compiled = storage::model::matcher::compile_unanchored(&format!("^(?s:{regex})$"));
    compiled.map_err(|error| semantic_error(span, error.message()))
}

/// Whether an aggregation over series gives the same when the aggregation over time already groups like it.
fn pushes_down(outer: VectorOp, inner: RangeOp) -> bool {
    match outer {
        VectorOp::Sum => {
            matches!(inner, RangeOp::Count | RangeOp::Rate | RangeOp::Bytes | RangeOp::BytesRate | RangeOp::Sum)
        }
        VectorOp::Min => inner == RangeOp::Min,
        VectorOp::Max => inner == RangeOp::Max,
        _ => false,
    }
}

fn range_plan(node: &RangeAggregation, pushed: Option<(VectorOp, Grouping)>) -> Result<RangePlan> {
    let mut log = log_plan(&node.log)?;
    log.reads_line = log.pipeline.reads_line() || matches!(node.op, RangeOp::Bytes | RangeOp::BytesRate);
    let unwrap = match &node.unwrap {
        None => None,
        Some(unwrap) => {
            let filters = unwrap.filters.iter().map(LabelFilter::new).collect::<Result<_, _>>();
            let filters = filters.map_err(|reason| semantic_error(unwrap.span, reason))?;
            Some(UnwrapPlan { label: unwrap.label.clone(), conversion: unwrap.conversion, filters })
        }
    };
    let pushed = pushed.filter(|(outer, _)| pushes_down(*outer, node.op)).map(|(_, grouping)| grouping);
    let grouping = match (&node.grouping, node.op) {
        (_, RangeOp::Absent) => Some(Grouping { without: false, labels: Vec::new() }),
        (Some(own), _) => Some(own.clone()),
        (None, _) => pushed,
    };
    if let Some(Grouping { without: false, labels }) = &grouping {
        let mut needs = Needs::Names(labels.iter().cloned().collect());
        labels.iter().for_each(|label| needs.add(label));
        log.pipeline.add_needs(&mut needs);
        if let Some(unwrap) = &unwrap {
            needs.add(&unwrap.label);
            unwrap.filters.iter().for_each(|filter| filter.add_needs(&mut needs));
        }
        log.needs = needs;
    }
    let named = grouping.as_ref().is_some_and(|grouping| grouping.labels.iter().any(|label| label == ERROR));
    let counts_errors = named || log.pipeline.asks_for_errors() || unwrap.as_ref().is_some_and(asks_for_errors);
    Ok(RangePlan {
        counts_errors,
        absent_labels: absent_labels(&node.log.matchers),
        log,
        op: node.op,
        parameter: node.parameter.unwrap_or(0.0),
        unwrap,
        range_ns: node.range_ns,
        offset_ns: node.offset_ns,
        grouping,
    })
}

fn asks_for_errors(unwrap: &UnwrapPlan) -> bool {
    let mut names = Needs::Names(std::collections::BTreeSet::new());
    unwrap.filters.iter().for_each(|filter| filter.add_needs(&mut names));
    names.wants(ERROR)
}

/// The labels that a selector fixes: tested by `=`, and named once.
fn absent_labels(matchers: &[ast::LabelTest]) -> Vec<(String, String)> {
    let once = |name: &str| matchers.iter().filter(|test| test.name == name).count() == 1;
    let mut labels: Vec<(String, String)> = matchers
        .iter()
        .filter(|test| test.op == storage::model::matcher::MatchOp::Equal && !test.value.is_empty() && once(&test.name))
        .map(|test| (test.name.clone(), test.value.clone()))
        .collect();
    labels.sort();
    labels
}
