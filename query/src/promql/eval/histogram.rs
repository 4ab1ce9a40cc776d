//! Functions of native histograms.

use super::native::estimate::variance;
use super::value::Evaluated;
use super::{Call, Evaluator, take_vector};
use crate::error::Result;
use storage::model::histogram::Histogram;

type Args = Vec<Evaluated>;

fn each(e: &mut Evaluator<'_>, mut args: Args, f: fn(&Histogram) -> f64) -> Result<Evaluated> {
    let mut vector = take_vector(&mut args)?;
    for series in &mut vector.series {
        for i in 0..series.column.len() {
            match series.column.histogram(i).map(|histogram| f(histogram)) {
                Some(value) => series.column.set_float(i, value),
                None => series.column.clear(i),
            }
        }
    }
    e.renamed(vector).map(Evaluated::Vector)
}

/// `histogram_count(v)`
pub(in crate::promql) fn histogram_count(e: &mut Evaluator<'_>, _: &Call<'_>, args: Args) -> Result<Evaluated> {
    each(e, args, |h| h.count)
}

/// `histogram_sum(v)`
pub(in crate::promql) fn histogram_sum(e: &mut Evaluator<'_>, _: &Call<'_>, args: Args) -> Result<Evaluated> {
    each(e, args, |h| h.sum)
}

/// `histogram_avg(v)`
pub(in crate::promql) fn histogram_avg(e: &mut Evaluator<'_>, _: &Call<'_>, args: Args) -> Result<Evaluated> {
    each(e, args, |h| h.sum / h.count)
}

/// `histogram_stdvar(v)`
pub(in crate::promql) fn histogram_stdvar(e: &mut Evaluator<'_>, _: &Call<'_>, args: Args) -> Result<Evaluated> {
    each(e, args, variance)
}

/// `histogram_stddev(v)`
pub(in crate::promql) fn histogram_stddev(e: &mut Evaluator<'_>, _: &Call<'_>, args: Args) -> Result<Evaluated> {
    each(e, args, |h| variance(h).sqrt())
}
