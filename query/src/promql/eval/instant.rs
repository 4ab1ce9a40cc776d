//! Functions of instant vectors with more than one argument, and those that ask for presence or sample times.

use storage::model::labels::{Labels, METRIC_NAME};
use storage::model::matcher::MatchOp;

use super::super::ast::{Expr, NodeId, Selector};
use super::super::load::START_UNKNOWN;
use super::scalar::take_scalar;
use super::select::Found;
use super::value::{Evaluated, Point, Series, Vector};
use super::{Call, Column, Evaluator, missing, take_vector};
use crate::error::Result;

type Args = Vec<Evaluated>;

/// Changes every float with the scalars of its step; `None` takes it away. Histograms go away.
fn map_steps(e: &Evaluator<'_>, mut vector: Vector, f: impl Fn(usize, f64) -> Option<f64>) -> Result<Evaluated> {
    for series in &mut vector.series {
        for i in 0..series.column.len() {
            match series.column.float(i).and_then(|value| f(i, value)) {
                Some(value) => series.column.set_float(i, value),
                None => series.column.clear(i),
            }
        }
    }
    e.renamed(vector).map(Evaluated::Vector)
}

fn at_least(value: f64, min: f64) -> f64 {
    if value.is_nan() || min.is_nan() { f64::NAN } else { value.max(min) }
}

fn at_most(value: f64, max: f64) -> f64 {
    if value.is_nan() || max.is_nan() { f64::NAN } else { value.min(max) }
}

/// `clamp(v, min, max)`
pub(in crate::promql) fn clamp(e: &mut Evaluator<'_>, _: &Call<'_>, mut args: Args) -> Result<Evaluated> {
    let (max, min) = (take_scalar(&mut args)?, take_scalar(&mut args)?);
    let vector = take_vector(&mut args)?;
    map_steps(e, vector, |i, value| {
        (max[i].is_nan() || min[i].is_nan() || max[i] >= min[i]).then(|| at_least(at_most(value, max[i]), min[i]))
    })
}

/// `clamp_min(v, min)`
pub(in crate::promql) fn clamp_min(e: &mut Evaluator<'_>, _: &Call<'_>, mut args: Args) -> Result<Evaluated> {
    let min = take_scalar(&mut args)?;
    let vector = take_vector(&mut args)?;
    map_steps(e, vector, |i, value| Some(at_least(value, min[i])))
}

/// `clamp_max(v, max)`
pub(in crate::promql) fn clamp_max(e: &mut Evaluator<'_>, _: &Call<'_>, mut args: Args) -> Result<Evaluated> {
    let max = take_scalar(&mut args)?;
    let vector = take_vector(&mut args)?;
    map_steps(e, vector, |i, value| Some(at_most(value, max[i])))
}

/// `round(v, to = 1)`
pub(in crate::promql) fn round(e: &mut Evaluator<'_>, call: &Call<'_>, mut args: Args) -> Result<Evaluated> {
    let to = if args.len() > 1 { take_scalar(&mut args)? } else { vec![1.0; call.steps.count] };
    let vector = take_vector(&mut args)?;
    map_steps(e, vector, |i, value| {
        let inverse = 1.0 / to[i];
        Some((value * inverse + 0.5).floor() / inverse)
    })
}

/// `timestamp(v)`: of a plain selector the times of its samples, else the times of the steps.
pub(in crate::promql) fn timestamp(e: &mut Evaluator<'_>, call: &Call<'_>, mut args: Args) -> Result<Evaluated> {
    let vector = match e.plain_selector(call.args) {
        Some(selector) => e.select_with(selector, call.steps, |samples, found| {
            let ts = match found {
                Found::Float(i) => samples.ts[i],
                Found::Histogram(i) => samples.hist_ts[i],
            };
            Some(Point::Float(ts as f64 / 1000.0))
        })?,
        None => {
            let mut vector = take_vector(&mut args)?;
            for series in &mut vector.series {
                for i in 0..series.column.len() {
                    if series.column.has(i) {
                        series.column.set_float(i, call.steps.at(i) as f64 / 1000.0);
                    }
                }
            }
            vector
        }
    };
    e.renamed(vector).map(Evaluated::Vector)
}

/// `start_timestamp(v)`: nothing where it is not known.
pub(in crate::promql) fn start_timestamp(e: &mut Evaluator<'_>, call: &Call<'_>, _: Args) -> Result<Evaluated> {
    let vector = match e.plain_selector(call.args) {
        Some(selector) => e.select_with(selector, call.steps, |samples, found| {
            let start = match found {
                Found::Float(i) => samples.starts.get(i),
                Found::Histogram(i) => samples.hist_starts.get(i),
            };
            // Beside known ones an unknown start is zero, as senders write it.
            let seconds = |start: i64| if start == START_UNKNOWN { 0.0 } else { start as f64 / 1000.0 };
            start.map(|start| Point::Float(seconds(*start)))
        })?,
        None => Vector { series: Vec::new(), held: None },
    };
    e.renamed(vector).map(Evaluated::Vector)
}

/// `absent(v)`
pub(in crate::promql) fn absent(e: &mut Evaluator<'_>, call: &Call<'_>, mut args: Args) -> Result<Evaluated> {
    let vector = take_vector(&mut args)?;
    let mut column = Column::full(vec![1.0; call.steps.count]);
    for series in &vector.series {
        for i in 0..call.steps.count {
            if series.column.has(i) {
                column.clear(i);
            }
        }
    }
    Ok(absent_vector(e, call, column))
}

/// `absent_over_time(x[d])`
pub(in crate::promql) fn absent_over_time(e: &mut Evaluator<'_>, call: &Call<'_>, mut args: Args) -> Result<Evaluated> {
    let Some(Evaluated::Range(range)) = args.pop() else { return Err(missing()) };
    let mut column = Column::full(vec![1.0; call.steps.count]);
    for series in &range.series {
        super::window::each_window(&range, &series.samples, call, &[], |i, _| column.clear(i));
    }
    Ok(absent_vector(e, call, column))
}

fn absent_vector(e: &Evaluator<'_>, call: &Call<'_>, column: Column) -> Evaluated {
    let labels = call.args.first().map_or_else(Labels::empty, |arg| absent_labels(e, *arg));
    let mut series = Vec::new();
    if column.present() > 0 {
        series.push(Series { labels, drop_name: false, column });
    }
    Evaluated::Vector(Vector { series, held: None })
}

/// The labels that a missing series would have: those that exactly one matcher, an `=`, names.
fn absent_labels(e: &Evaluator<'_>, arg: NodeId) -> Labels {
    let selector: &Selector = match e.ast().expr(arg) {
        Expr::Vector(selector) | Expr::Matrix { selector, .. } => selector,
        _ => return Labels::empty(),
    };
    let only = |name: &str| selector.matchers.iter().filter(|matcher| matcher.name == name).count() == 1;
    let known = selector
        .matchers
        .iter()
        .filter(|matcher| matcher.op == MatchOp::Equal && matcher.name != METRIC_NAME && only(&matcher.name));
    Labels::from_pairs(known.map(|matcher| (&matcher.name, &matcher.value)))
}

/// `double_exponential_smoothing(x[d], sf, tf)`
pub(in crate::promql) fn smoothing(e: &mut Evaluator<'_>, call: &Call<'_>, args: Args) -> Result<Evaluated> {
    let inside = |value: &f64| *value > 0.0 && *value < 1.0;
    for (i, name) in [(1, "smoothing factor. Expected: 0 < sf"), (2, "trend factor. Expected: 0 < tf")] {
        if let Some(Evaluated::Scalar(values)) = args.get(i)
            && let Some(bad) = values.iter().find(|value| !inside(value))
            && !matches!(&args[0], Evaluated::Range(range) if range.series.is_empty())
        {
            let message = format!("invalid {name} < 1, got: {}", fixed(*bad));
            return Err(crate::error::Error::new(crate::error::Kind::Execution, message));
        }
    }
    e.windows(call, args, super::over_time::smoothing, false)
}

/// `%f`
fn fixed(value: f64) -> String {
    if value.is_finite() { format!("{value:.6}") } else { super::notice::short(value) }
}
