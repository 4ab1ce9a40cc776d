//! Plan + data → value. Columnar: every node gives series × steps.
//!
//! Owns: the order of evaluation, limits while it runs, the final answer. Does not own: what single nodes compute
//! (the modules beneath).
//!
//! Invariants
//! 1. Nodes on one grid are evaluated in a loop, children first; only subqueries and parts that are the same at every
//!    step recurse.
//! 2. A node's value is dropped as soon as its parent has used it.

mod aggregate;
mod binary;
mod extended;
mod histogram;
mod info;
mod instant;
mod label;
mod matching;
mod math;
mod native;
mod notice;
mod over_time;
mod quantile;
mod rate;
mod scalar;
mod select;
mod sort;
mod time;
mod value;
mod window;

use hashbrown::HashMap;
use indexmap::IndexMap;
use storage::Context;
use storage::budget::Reservation;
use storage::model::histogram::ResetHint;
use storage::model::labels::Labels;
use storage::model::time::TimestampMs;

use super::ast::{Expr, NodeId, Type};
use super::functions::Function;
use super::load::{Data, Samples, too_many_samples};
use super::plan::{Plan, Steps};
use super::{Answer, MatrixSeries, Options, PointValue, Value, VectorSample};
use crate::error::{Error, Kind, Result};

pub(super) use native::buckets as histogram_buckets;
pub(super) use native::ops::hinted;
#[cfg(test)]
pub(super) use native::ops::{add as add_histograms, sub as sub_histograms};
use notice::Notices;
use value::{Column, Evaluated, Point, Range, RangeSeries, Series, Vector, without_name};
pub(super) use window::WindowFn;

/// What the table of functions names.
pub(super) mod functions {
    pub(in crate::promql) use super::histogram::{
        histogram_avg, histogram_count, histogram_stddev, histogram_stdvar, histogram_sum,
    };
    pub(in crate::promql) use super::info::info;
    pub(in crate::promql) use super::instant::*;
    pub(in crate::promql) use super::label::{label_join, label_replace};
    pub(in crate::promql) use super::math::{acosh, asinh, deg, rad, sgn};
    pub(in crate::promql) use super::over_time::{
        avg, count, deriv, first, last, mad, max, min, predict_linear, present, quantile_of, stddev, stdvar, sum,
        ts_of_first, ts_of_last, ts_of_max, ts_of_min,
    };
    pub(in crate::promql) use super::quantile::{histogram_fraction, histogram_quantile, histogram_quantiles};
    pub(in crate::promql) use super::rate::{changes, delta, idelta, increase, irate, rate, resets};
    pub(in crate::promql) use super::scalar::{end, max_of, min_of, pi, range, scalar, start, step, time, vector};
    pub(in crate::promql) use super::sort::{sort, sort_by_label, sort_by_label_desc, sort_desc};
    pub(in crate::promql) use super::time::{
        day_of_month, day_of_week, day_of_year, days_in_month, hour, minute, month, year,
    };
}

/// A function of one float.
pub(super) type FloatFn = fn(f64) -> f64;
/// A function that is computed in its own way.
pub(super) type EvalFn = fn(&mut Evaluator<'_>, &Call<'_>, Vec<Evaluated>) -> Result<Evaluated>;

/// Bytes of one step of a column: a kind and a float.
const BYTES_PER_STEP: usize = 9;

/// How a function is computed.
#[derive(Clone, Copy)]
pub(super) enum Eval {
    /// Float by float; the name goes.
    Map(FloatFn),
    /// Window by window; the name goes.
    Window(WindowFn),
    /// Window by window; the name stays.
    WindowNamed(WindowFn),
    /// In its own way.
    Special(EvalFn),
}

/// One call while it is evaluated.
pub(super) struct Call<'a> {
    /// Its node.
    pub id: NodeId,
    /// What is called.
    pub function: &'static Function,
    /// Its arguments.
    pub args: &'a [NodeId],
    /// Where it is evaluated.
    pub steps: Steps,
}

/// A query while it is evaluated.
pub(super) struct Evaluator<'a> {
    plan: &'a Plan,
    data: &'a Data,
    options: &'a Options,
    context: &'a Context,
    notices: Notices,
    peak: usize,
}

/// Evaluates `plan` over `data`.
pub(super) fn evaluate(plan: &Plan, data: &Data, options: &Options, context: &Context) -> Result<Answer> {
    let notices = Notices::new(&plan.ast.text);
    let mut evaluator = Evaluator { plan, data, options, context, notices, peak: 0 };
    let value = evaluator.eval(plan.ast.root, plan.steps)?;
    let value = evaluator.answer(value)?;
    let (warnings, infos) = evaluator.notices.finish();
    let samples_read = u64::try_from(data.samples).unwrap_or(u64::MAX);
    let peak_samples = u64::try_from(evaluator.peak.max(data.samples)).unwrap_or(u64::MAX);
    Ok(Answer { value, warnings, infos, samples_read, peak_samples })
}

/// The original's words for two series with one label set.
fn same_labelset() -> Error {
    Error::new(Kind::Execution, "vector cannot contain metrics with the same labelset")
}

impl<'a> Evaluator<'a> {
    fn ast(&self) -> &'a super::ast::Ast {
        &self.plan.ast
    }

    /// The first byte of a node.
    fn at(&self, id: NodeId) -> usize {
        self.ast().span(id).start
    }

    /// Memory for `series` columns of `steps` steps.
    fn room(&self, series: usize, steps: usize) -> Result<Reservation> {
        let points = series.saturating_mul(steps);
        Ok(self.context.reserve(points.saturating_mul(BYTES_PER_STEP))?)
    }

    fn eval(&mut self, root: NodeId, steps: Steps) -> Result<Evaluated> {
        if steps.count > self.options.samples_max {
            return Err(too_many_samples());
        }
        let mut done: HashMap<NodeId, Evaluated> = HashMap::new();
        let mut held = 0;
        for (id, once) in self.order(root, steps) {
            self.context.check()?;
            let value = if once {
                let value = self.eval(id, Steps::one(steps.start))?;
                self.repeated(value, steps.count)?
            } else {
                let args: Vec<Evaluated> =
                    self.ast().expr(id).children().iter().filter_map(|child| done.remove(child)).collect();
                let used: usize = args.iter().map(Evaluated::points).sum();
                let value = self.node(id, steps, args)?;
                held -= used;
                value
            };
            held += value.points();
            // Both operands are alive while the result is made, so this is a lower bound of the true peak.
            self.peak = self.peak.max(held);
            if held > self.options.samples_max {
                return Err(too_many_samples());
            }
            done.insert(id, value);
        }
        done.remove(&root).ok_or_else(|| Error::new(Kind::Storage, "an expression was not evaluated"))
    }

    /// The nodes to evaluate for `root`, children first; `true` for those evaluated once for all steps.
    fn order(&self, root: NodeId, steps: Steps) -> Vec<(NodeId, bool)> {
        let mut out = Vec::new();
        let mut open = vec![root];
        while let Some(id) = open.pop() {
            let expr = self.ast().expr(id);
            let literal = matches!(expr, Expr::Number { .. } | Expr::Text(_));
            let value = matches!(self.ast().kind(id), Type::Scalar | Type::Vector);
            let once = steps.count > 1 && value && !literal && self.plan.invariant[id.0];
            out.push((id, once));
            if once {
                continue;
            }
            match expr {
                // On another grid.
                Expr::Subquery { .. } => {}
                // Needs the times of samples, not their values.
                Expr::Call { function, args } if self.reads_selector(function, args) => {}
                Expr::Call { function, args } if function.name == "info" => open.extend(args.first()),
                expr => open.extend(expr.children()),
            }
        }
        out.sort_unstable();
        out
    }

    /// `timestamp(x)` and its like look at the samples of a plain selector themselves.
    fn reads_selector(&self, function: &Function, args: &[NodeId]) -> bool {
        matches!(function.name, "timestamp" | "start_timestamp") && self.plain_selector(args).is_some()
    }

    fn plain_selector(&self, args: &[NodeId]) -> Option<NodeId> {
        let inner = self.ast().unwrap_parens(*args.first()?);
        let plain = matches!(self.ast().expr(inner), Expr::Vector(s) if s.extent != super::ast::Extent::Smoothed);
        plain.then_some(inner)
    }

    fn repeated(&self, value: Evaluated, count: usize) -> Result<Evaluated> {
        Ok(match value {
            Evaluated::Scalar(values) => Evaluated::Scalar(vec![values.first().copied().unwrap_or(f64::NAN); count]),
            Evaluated::Vector(vector) => {
                let held = Some(self.room(vector.series.len(), count)?);
                let series = vector.series.into_iter();
                let series = series.map(|series| Series { column: series.column.repeated(count), ..series }).collect();
                Evaluated::Vector(Vector { series, held })
            }
            other => other,
        })
    }

    fn node(&mut self, id: NodeId, steps: Steps, mut args: Vec<Evaluated>) -> Result<Evaluated> {
        match self.ast().expr(id) {
            Expr::Number { value, .. } => Ok(Evaluated::Scalar(vec![*value; steps.count])),
            Expr::Text(text) => Ok(Evaluated::Text(text.clone())),
            Expr::Vector(selector) if selector.extent == super::ast::Extent::Smoothed => {
                Ok(Evaluated::Vector(self.select_smoothed(id, steps)?))
            }
            Expr::Vector(_) => Ok(Evaluated::Vector(self.select(id, steps)?)),
            Expr::Matrix { selector, .. } => Ok(Evaluated::Range(self.select_range(id, selector.extent)?)),
            Expr::Subquery { expr, .. } => Ok(Evaluated::Range(self.subquery(id, *expr, steps)?)),
            Expr::Paren(_) => args.pop().ok_or_else(missing),
            Expr::Unary { negative, .. } => {
                let value = args.pop().ok_or_else(missing)?;
                if *negative { self.negate(value) } else { Ok(value) }
            }
            Expr::Binary(binary) => {
                let rhs = args.pop().ok_or_else(missing)?;
                let lhs = args.pop().ok_or_else(missing)?;
                self.binary(id, binary, lhs, rhs, steps)
            }
            Expr::Aggregate(aggregate) => {
                let Some(Evaluated::Vector(vector)) = args.pop() else { return Err(missing()) };
                Ok(Evaluated::Vector(self.aggregate(id, aggregate, args.pop(), vector, steps)?))
            }
            Expr::Call { function, args: ids } => {
                let call = Call { id, function, args: ids, steps };
                match function.eval {
                    Eval::Map(f) => {
                        let vector = take_vector(&mut args)?;
                        self.map_floats(vector, f).map(Evaluated::Vector)
                    }
                    Eval::Window(f) => self.windows(&call, args, f, false),
                    Eval::WindowNamed(f) => self.windows(&call, args, f, true),
                    Eval::Special(f) => f(self, &call, args),
                }
            }
        }
    }

    /// The result of a function that changes values one by one.
    fn map_floats(&self, mut vector: Vector, f: fn(f64) -> f64) -> Result<Vector> {
        for series in &mut vector.series {
            series.column.map_floats(f);
        }
        self.renamed(vector)
    }

    /// `vector` without metric names, series without values left out, equal label sets brought together.
    fn renamed(&self, mut vector: Vector) -> Result<Vector> {
        vector.series.retain(|series| series.column.present() > 0);
        for series in &mut vector.series {
            self.drop_name(&mut series.labels, &mut series.drop_name);
        }
        vector.series = merged(vector.series)?;
        Ok(vector)
    }

    fn drop_name(&self, labels: &mut Labels, drop_name: &mut bool) {
        if self.options.delayed_name_removal {
            *drop_name = true;
        } else {
            *labels = without_name(labels);
        }
    }

    /// The metric name for notices of functions that see it only when names are removed late.
    fn late_metric<'l>(&self, labels: &'l Labels) -> &'l str {
        if self.options.delayed_name_removal { labels.metric() } else { "" }
    }

    fn subquery(&mut self, id: NodeId, expr: NodeId, steps: Steps) -> Result<Range> {
        let window = self.window(id)?;
        let (first, last) = (window.end(steps.start), window.end(steps.end()));
        // Multiples of the step inside the left-open window.
        let start = (first - window.range).div_euclid(window.step).saturating_add(1).saturating_mul(window.step);
        let inner = Steps::between(start, last, window.step);
        let mut series = Vec::new();
        let mut held = None;
        if inner.count > 0 {
            let Evaluated::Vector(vector) = self.eval(expr, inner)? else { return Err(missing()) };
            held = Some(self.context.reserve(vector.points().saturating_mul(2 * size_of::<i64>()))?);
            for one in vector.series {
                let samples = std::sync::Arc::new(samples_of(&one.column, inner));
                series.push(RangeSeries { labels: one.labels, drop_name: one.drop_name, samples });
            }
        }
        Ok(Range { series, window, extent: super::ast::Extent::Plain, _held: held })
    }

    fn answer(&mut self, value: Evaluated) -> Result<Value> {
        let at = TimestampMs(self.plan.steps.start);
        let is_range = self.plan.is_range;
        Ok(match value {
            Evaluated::Scalar(values) if is_range => {
                let floats = values.iter().enumerate().map(|(i, v)| (self.time(i), *v)).collect();
                Value::Matrix(vec![MatrixSeries { labels: Labels::empty(), floats, histograms: Vec::new() }])
            }
            Evaluated::Scalar(values) => Value::Scalar(at, values.first().copied().unwrap_or(f64::NAN)),
            Evaluated::Text(text) => Value::String(at, text),
            Evaluated::Vector(mut vector) => {
                for series in &mut vector.series {
                    if series.drop_name {
                        series.labels = without_name(&series.labels);
                    }
                }
                let series = merged(vector.series)?;
                if is_range { self.matrix(series) } else { self.vector(series) }
            }
            Evaluated::Range(range) => self.raw_matrix(range)?,
        })
    }

    fn time(&self, step: usize) -> TimestampMs {
        TimestampMs(self.plan.steps.at(step))
    }

    fn vector(&self, series: Vec<Series>) -> Value {
        let ts = self.time(0);
        let samples = series.into_iter().filter_map(|series| {
            let value = match series.column.get(0)? {
                Point::Float(value) => PointValue::Float(value),
                Point::Histogram(h) => PointValue::Histogram(Box::new((*h).clone())),
            };
            Some(VectorSample { labels: series.labels, ts, value })
        });
        Value::Vector(samples.collect())
    }

    fn matrix(&self, mut series: Vec<Series>) -> Value {
        series.sort_by(|a, b| a.labels.cmp(&b.labels));
        let rows = series.into_iter().filter(|series| series.column.present() > 0).map(|series| {
            let mut out = MatrixSeries { labels: series.labels, floats: Vec::new(), histograms: Vec::new() };
            for i in 0..series.column.len() {
                match series.column.get(i) {
                    Some(Point::Float(value)) => out.floats.push((self.time(i), value)),
                    Some(Point::Histogram(h)) => out.histograms.push((self.time(i), (*h).clone())),
                    None => {}
                }
            }
            out
        });
        Value::Matrix(rows.collect())
    }

    /// A range vector as the whole of an instant query: the samples with their own times.
    fn raw_matrix(&self, range: Range) -> Result<Value> {
        let end = range.window.end(self.plan.steps.start);
        let start = end - range.window.range;
        let inside = |ts: i64| start < ts && ts <= end;
        let mut rows: IndexMap<Labels, MatrixSeries, ahash::RandomState> = IndexMap::default();
        for series in range.series {
            let samples = &series.samples;
            let labels = if series.drop_name { without_name(&series.labels) } else { series.labels };
            let times = samples.ts.iter().zip(&samples.values).filter(|(ts, _)| inside(**ts));
            let floats: Vec<_> = times.map(|(ts, value)| (TimestampMs(*ts), *value)).collect();
            let times = samples.hist_ts.iter().zip(&samples.hists).filter(|(ts, _)| inside(**ts));
            let histograms: Vec<_> = times.map(|(ts, h)| (TimestampMs(*ts), (**h).clone())).collect();
            if floats.is_empty() && histograms.is_empty() {
                continue;
            }
            if rows.insert(labels.clone(), MatrixSeries { labels, floats, histograms }).is_some() {
                return Err(same_labelset());
            }
        }
        let mut rows: Vec<MatrixSeries> = rows.into_values().collect();
        rows.sort_by(|a, b| a.labels.cmp(&b.labels));
        Ok(Value::Matrix(rows))
    }
}

/// An operand that the order of evaluation should have made.
fn missing() -> Error {
    Error::new(Kind::Storage, "an operand was not evaluated")
}

fn take_vector(args: &mut Vec<Evaluated>) -> Result<Vector> {
    match args.pop() {
        Some(Evaluated::Vector(vector)) => Ok(vector),
        _ => Err(missing()),
    }
}

/// The values of `column` with their times.
fn samples_of(column: &Column, steps: Steps) -> Samples {
    let mut samples = Samples::default();
    for i in 0..column.len() {
        match column.get(i) {
            Some(Point::Float(value)) => {
                samples.ts.push(steps.at(i));
                samples.values.push(value);
            }
            Some(Point::Histogram(mut histogram)) => {
                // What is known of resets holds between stored neighbours; a subquery may skip some of them.
                if !matches!(histogram.reset_hint, ResetHint::Gauge | ResetHint::Unknown) {
                    std::sync::Arc::make_mut(&mut histogram).reset_hint = ResetHint::Unknown;
                }
                samples.hist_ts.push(steps.at(i));
                samples.hists.push(histogram);
            }
            None => {}
        }
    }
    samples
}

/// Series with equal labels made one; an error if two have a value at the same step.
fn merged(series: Vec<Series>) -> Result<Vec<Series>> {
    let mut out: IndexMap<Labels, Series, ahash::RandomState> = IndexMap::default();
    for one in series {
        match out.entry(one.labels.clone()) {
            indexmap::map::Entry::Vacant(entry) => {
                entry.insert(one);
            }
            indexmap::map::Entry::Occupied(mut entry) => {
                let column = &mut entry.get_mut().column;
                for i in 0..one.column.len() {
                    let Some(point) = one.column.get(i) else { continue };
                    if column.has(i) {
                        return Err(same_labelset());
                    }
                    column.set(i, point);
                }
            }
        }
    }
    Ok(out.into_values().collect())
}
