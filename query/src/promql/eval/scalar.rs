//! Functions around scalars and the times of the query.

use storage::model::labels::Labels;

use super::value::{Evaluated, Series, Vector};
use super::{Call, Column, Evaluator, missing, take_vector};
use crate::error::Result;

type Args = Vec<Evaluated>;

/// The values of the scalar argument at the end of `args`.
pub(super) fn take_scalar(args: &mut Args) -> Result<Vec<f64>> {
    match args.pop() {
        Some(Evaluated::Scalar(values)) => Ok(values),
        _ => Err(missing()),
    }
}

/// `time()`
pub(in crate::promql) fn time(_: &mut Evaluator<'_>, call: &Call<'_>, _: Args) -> Result<Evaluated> {
    Ok(Evaluated::Scalar((0..call.steps.count).map(|i| call.steps.at(i) as f64 / 1000.0).collect()))
}

fn constant(call: &Call<'_>, value: f64) -> Result<Evaluated> {
    Ok(Evaluated::Scalar(vec![value; call.steps.count]))
}

/// `pi()`
pub(in crate::promql) fn pi(_: &mut Evaluator<'_>, call: &Call<'_>, _: Args) -> Result<Evaluated> {
    constant(call, std::f64::consts::PI)
}

/// `start()`
pub(in crate::promql) fn start(e: &mut Evaluator<'_>, call: &Call<'_>, _: Args) -> Result<Evaluated> {
    constant(call, e.plan.steps.start as f64 / 1000.0)
}

/// `end()`
pub(in crate::promql) fn end(e: &mut Evaluator<'_>, call: &Call<'_>, _: Args) -> Result<Evaluated> {
    constant(call, e.plan.end as f64 / 1000.0)
}

/// `range()`
pub(in crate::promql) fn range(e: &mut Evaluator<'_>, call: &Call<'_>, _: Args) -> Result<Evaluated> {
    constant(call, (e.plan.end - e.plan.steps.start) as f64 / 1000.0)
}

/// `step()`
pub(in crate::promql) fn step(e: &mut Evaluator<'_>, call: &Call<'_>, _: Args) -> Result<Evaluated> {
    constant(call, if e.plan.is_range { e.plan.steps.step as f64 / 1000.0 } else { 0.0 })
}

/// `min_of(a, b)`
pub(in crate::promql) fn min_of(_: &mut Evaluator<'_>, _: &Call<'_>, mut args: Args) -> Result<Evaluated> {
    let (b, a) = (take_scalar(&mut args)?, take_scalar(&mut args)?);
    let pick = |(a, b): (&f64, &f64)| if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(*b) };
    Ok(Evaluated::Scalar(a.iter().zip(&b).map(pick).collect()))
}

/// `max_of(a, b)`
pub(in crate::promql) fn max_of(_: &mut Evaluator<'_>, _: &Call<'_>, mut args: Args) -> Result<Evaluated> {
    let (b, a) = (take_scalar(&mut args)?, take_scalar(&mut args)?);
    let pick = |(a, b): (&f64, &f64)| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(*b) };
    Ok(Evaluated::Scalar(a.iter().zip(&b).map(pick).collect()))
}

/// `scalar(v)`: the only float of a step; with several elements, or without one, NaN.
pub(in crate::promql) fn scalar(_: &mut Evaluator<'_>, call: &Call<'_>, mut args: Args) -> Result<Evaluated> {
    let vector = take_vector(&mut args)?;
    let mut out = vec![f64::NAN; call.steps.count];
    let mut floats = vec![0usize; call.steps.count];
    for series in &vector.series {
        for i in 0..call.steps.count {
            if let Some(value) = series.column.float(i) {
                floats[i] += 1;
                out[i] = if floats[i] == 1 { value } else { f64::NAN };
            }
        }
    }
    Ok(Evaluated::Scalar(out))
}

/// `vector(s)`
pub(in crate::promql) fn vector(_: &mut Evaluator<'_>, _: &Call<'_>, mut args: Args) -> Result<Evaluated> {
    let column = Column::full(take_scalar(&mut args)?);
    let series = vec![Series { labels: Labels::empty(), drop_name: false, column }];
    Ok(Evaluated::Vector(Vector { series, held: None }))
}

/// Both results of a scalar operation: scalars are vectors of one value per step.
pub(super) fn zip(a: &[f64], b: &[f64], f: impl Fn(f64, f64) -> f64) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| f(*a, *b)).collect()
}
