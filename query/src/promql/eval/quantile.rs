//! Quantiles and fractions of histograms: classic ones, made of series with `le`, and native ones.

use indexmap::IndexMap;
use storage::model::labels::Labels;

use super::super::ast::NodeId;
use super::native::estimate::{fraction as native_fraction, quantile as native_quantile};
use super::notice::{Forced, Notes, for_metric};
use super::scalar::take_scalar;
use super::value::{Evaluated, Series, Vector};
use super::{Call, Column, Evaluator, take_vector};
use crate::error::Result;

type Args = Vec<Evaluated>;

/// The label of a classic bucket's upper bound.
const LE: &str = "le";

/// Relative differences of cumulative counts below this are rounding.
const TOLERANCE: f64 = 1e-12;

/// Classic buckets of one histogram, by series.
struct Classic {
    labels: Labels,
    metric: String,
    drop_name: bool,
    /// Upper bound and the series that counts up to it.
    buckets: Vec<(f64, usize)>,
}

/// One cumulative bucket at one step.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bucket {
    bound: f64,
    count: f64,
}

/// What had to be changed to make counts ascend.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Lifted {
    from: f64,
    to: f64,
    difference: f64,
}

/// All histograms of a vector, told apart by their labels.
struct Histograms {
    classic: Vec<Classic>,
    /// Series with native histograms.
    native: Vec<usize>,
    /// For each of `native`, the classic one with the same labels.
    same: Vec<Option<usize>>,
}

impl Evaluator<'_> {
    /// Sorts the series of `vector` into histograms; warns of bounds that cannot be read.
    fn histograms(&mut self, vector: &Vector, arg: NodeId) -> Histograms {
        let mut classic: IndexMap<Labels, Classic, ahash::RandomState> = IndexMap::default();
        let mut native = Vec::new();
        for (i, series) in vector.series.iter().enumerate() {
            let column = &series.column;
            let (mut floats, mut histograms) = (false, false);
            for step in 0..column.len() {
                floats |= column.float(step).is_some();
                histograms |= column.histogram(step).is_some();
            }
            if histograms {
                native.push(i);
            }
            if !floats {
                continue;
            }
            let le = series.labels.get(LE).unwrap_or("");
            let Ok(bound) = le.parse::<f64>() else {
                let metric = for_metric(self.late_metric(&series.labels));
                let le = super::super::lexer::quote(le);
                let message = format!("bucket label \"le\" is missing or has a malformed value of {le}{metric}");
                let at = self.at(arg);
                self.notices.warn(at, message);
                continue;
            };
            let labels = series.labels.without(|name| name == LE);
            let entry = classic.entry(labels.clone()).or_insert_with(|| Classic {
                metric: self.late_metric(&labels).to_owned(),
                labels,
                drop_name: series.drop_name,
                buckets: Vec::new(),
            });
            entry.buckets.push((bound, i));
        }
        let same = native.iter().map(|i| classic.get_index_of(&vector.series[*i].labels)).collect();
        let mut classic: Vec<Classic> = classic.into_values().collect();
        for one in &mut classic {
            one.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        Histograms { classic, native, same }
    }

    /// Computes `classic` of every classic histogram and `native` of every native one, at every step.
    fn estimate(
        &mut self,
        call: &Call<'_>,
        arg: NodeId,
        vector: &Vector,
        estimate: &mut dyn FnMut(&mut Self, usize, Estimate<'_>) -> Option<f64>,
    ) -> Result<Vec<Series>> {
        let found = self.histograms(vector, arg);
        let mut out = Vec::new();
        // Steps at which a classic histogram has a native twin.
        let mut twins: Vec<Vec<bool>> = vec![Vec::new(); found.classic.len()];
        for (i, twin) in found.native.iter().zip(&found.same) {
            self.context.check()?;
            let series = &vector.series[*i];
            let mut column = Column::new(call.steps.count);
            for step in 0..call.steps.count {
                let Some(histogram) = series.column.histogram(step) else { continue };
                if let Some(twin) = twin
                    && found.classic[*twin].buckets.iter().any(|(_, j)| vector.series[*j].column.float(step).is_some())
                {
                    twins[*twin].resize(call.steps.count, false);
                    twins[*twin][step] = true;
                    let metric = for_metric(self.late_metric(&series.labels));
                    let at = self.at(arg);
                    self.notices.warn(at, format!("vector contains a mix of classic and native histograms{metric}"));
                    continue;
                }
                let metric = self.late_metric(&series.labels).to_owned();
                if let Some(value) = estimate(self, step, Estimate::Native { histogram, metric: &metric }) {
                    column.set_float(step, value);
                }
            }
            out.push(Series { labels: series.labels.clone(), drop_name: series.drop_name, column });
        }
        for (i, classic) in found.classic.iter().enumerate() {
            self.context.check()?;
            let mut column = Column::new(call.steps.count);
            let mut buckets = Vec::with_capacity(classic.buckets.len());
            for step in 0..call.steps.count {
                if twins[i].get(step) == Some(&true) {
                    continue;
                }
                buckets.clear();
                for (bound, j) in &classic.buckets {
                    let Some(count) = vector.series[*j].column.float(step) else { continue };
                    buckets.push(Bucket { bound: *bound, count });
                }
                if buckets.is_empty() {
                    continue;
                }
                coalesce(&mut buckets);
                let metric = &classic.metric;
                let estimated = estimate(self, step, Estimate::Classic { buckets: &mut buckets, metric });
                if let Some(value) = estimated {
                    column.set_float(step, value);
                }
            }
            out.push(Series { labels: classic.labels.clone(), drop_name: classic.drop_name, column });
        }
        Ok(out)
    }
}

/// One histogram at one step.
enum Estimate<'a> {
    Classic { buckets: &'a mut Vec<Bucket>, metric: &'a str },
    Native { histogram: &'a storage::model::histogram::Histogram, metric: &'a str },
}

/// `histogram_quantile(φ, v)`
pub(in crate::promql) fn histogram_quantile(
    e: &mut Evaluator<'_>,
    call: &Call<'_>,
    mut args: Args,
) -> Result<Evaluated> {
    let vector = take_vector(&mut args)?;
    let q = take_scalar(&mut args)?;
    let [q_arg, arg] = call.args else { return Err(super::missing()) };
    let series = quantiles(e, call, (*q_arg, &q), *arg, &vector)?;
    e.renamed(Vector { series, held: vector.held }).map(Evaluated::Vector)
}

fn quantiles(
    e: &mut Evaluator<'_>,
    call: &Call<'_>,
    (q_arg, q): (NodeId, &[f64]),
    arg: NodeId,
    vector: &Vector,
) -> Result<Vec<Series>> {
    let at = e.at(q_arg);
    for bad in q.iter().filter(|q| !(0.0..=1.0).contains(*q)) {
        Notes { notices: &mut e.notices, at, metric: "" }.invalid_quantile(*bad);
    }
    e.estimate(call, arg, vector, &mut |e, step, histogram| match histogram {
        Estimate::Classic { buckets, metric } => {
            if let Some(lifted) = lift(buckets) {
                let at = e.at(arg);
                let time = call.steps.at(step);
                let Lifted { from, to, difference } = lifted;
                e.notices.forced(at, metric, Forced { from, to, difference, first: time, last: time, count: 1 });
            }
            Some(classic_quantile(q[step], buckets))
        }
        Estimate::Native { histogram, metric } => {
            let q = q[step];
            let estimated = native_quantile(q, histogram);
            if estimated.nan && (0.0..=1.0).contains(&q) {
                let outcome = if estimated.value.is_nan() { "result is NaN" } else { "result is skewed higher" };
                let metric = for_metric(metric);
                let message = format!("input to histogram_quantile has NaN observations, {outcome}{metric}");
                let at = e.at(arg);
                e.notices.info(at, message);
            }
            Some(estimated.value)
        }
    })
}

/// `histogram_quantiles(v, "label", φ…)`
pub(in crate::promql) fn histogram_quantiles(e: &mut Evaluator<'_>, call: &Call<'_>, args: Args) -> Result<Evaluated> {
    let mut args = args.into_iter();
    let (Some(Evaluated::Vector(vector)), Some(Evaluated::Text(label))) = (args.next(), args.next()) else {
        return Err(super::missing());
    };
    let [arg, _, q_args @ ..] = call.args else { return Err(super::missing()) };
    let mut out = Vec::new();
    for (q_arg, q) in q_args.iter().zip(args) {
        let Evaluated::Scalar(q) = q else { return Err(super::missing()) };
        for series in quantiles(e, call, (*q_arg, &q), *arg, &vector)? {
            // The quantile may differ from step to step: one series for each.
            let mut by_value: IndexMap<u64, Column, ahash::RandomState> = IndexMap::default();
            for (step, q) in q.iter().enumerate() {
                let Some(value) = series.column.float(step) else { continue };
                let column = by_value.entry(q.to_bits()).or_insert_with(|| Column::new(call.steps.count));
                column.set_float(step, value);
            }
            for (bits, column) in by_value {
                let mut value = super::super::number::format_literal(f64::from_bits(bits));
                // Numbers as OpenMetrics writes them: whole ones with a fraction of zero.
                if value.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
                    value.push_str(".0");
                }
                let labels = series.labels.with(&label, &value);
                out.push(Series { labels, drop_name: series.drop_name, column });
            }
        }
    }
    e.renamed(Vector { series: out, held: vector.held }).map(Evaluated::Vector)
}

/// `histogram_fraction(lower, upper, v)`
pub(in crate::promql) fn histogram_fraction(
    e: &mut Evaluator<'_>,
    call: &Call<'_>,
    mut args: Args,
) -> Result<Evaluated> {
    let vector = take_vector(&mut args)?;
    let (upper, lower) = (take_scalar(&mut args)?, take_scalar(&mut args)?);
    let Some(arg) = call.args.last().copied() else { return Err(super::missing()) };
    let series = e.estimate(call, arg, &vector, &mut |e, step, histogram| match histogram {
        Estimate::Classic { buckets, .. } => Some(classic_fraction(lower[step], upper[step], buckets)),
        Estimate::Native { histogram, metric } => {
            let estimated = native_fraction(lower[step], upper[step], histogram);
            if estimated.nan {
                let metric = for_metric(metric);
                let outcome = "which are excluded from all fractions";
                let message = format!("input to histogram_fraction has NaN observations, {outcome}{metric}");
                let at = e.at(arg);
                e.notices.info(at, message);
            }
            Some(estimated.value)
        }
    })?;
    e.renamed(Vector { series, held: vector.held }).map(Evaluated::Vector)
}

/// Merges equal bounds.
fn coalesce(buckets: &mut Vec<Bucket>) {
    buckets.dedup_by(|later, earlier| {
        let same = later.bound == earlier.bound;
        if same {
            earlier.count += later.count;
        }
        same
    });
}

/// Makes counts ascend; says what was lifted by more than rounding.
fn lift(buckets: &mut [Bucket]) -> Option<Lifted> {
    let mut lifted: Option<Lifted> = None;
    let mut previous = buckets.first()?.count;
    for bucket in buckets.iter_mut().skip(1) {
        if bucket.count == previous {
            continue;
        }
        if almost_equal(previous, bucket.count) {
            bucket.count = previous;
        } else if bucket.count < previous {
            let difference = previous - bucket.count;
            let old = lifted.unwrap_or(Lifted { from: bucket.bound, to: bucket.bound, difference });
            lifted = Some(Lifted {
                from: old.from.min(bucket.bound),
                to: old.to.max(bucket.bound),
                difference: old.difference.max(difference),
            });
            bucket.count = previous;
        } else {
            previous = bucket.count;
        }
    }
    lifted
}

fn almost_equal(a: f64, b: f64) -> bool {
    let sum = a.abs() + b.abs();
    let difference = (a - b).abs();
    if a == 0.0 || b == 0.0 || sum < f64::MIN_POSITIVE {
        return difference < TOLERANCE * f64::MIN_POSITIVE;
    }
    difference / sum.min(f64::MAX) < TOLERANCE
}

fn classic_quantile(q: f64, buckets: &[Bucket]) -> f64 {
    if q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    let [inner @ .., last] = buckets else { return f64::NAN };
    let (Some(second), true) = (inner.last(), last.bound == f64::INFINITY) else { return f64::NAN };
    if last.count == 0.0 {
        return f64::NAN;
    }
    let mut rank = q * last.count;
    let Some(i) = inner.iter().position(|bucket| bucket.count >= rank) else { return second.bound };
    let end = inner[i].bound;
    if i == 0 && end <= 0.0 {
        return end;
    }
    let (mut start, mut count) = (0.0, inner[i].count);
    if i > 0 {
        start = inner[i - 1].bound;
        count -= inner[i - 1].count;
        rank -= inner[i - 1].count;
    }
    start + (end - start) * (rank / count)
}

fn classic_fraction(lower: f64, upper: f64, buckets: &[Bucket]) -> f64 {
    let Some(last) = buckets.last() else { return f64::NAN };
    if last.bound != f64::INFINITY || last.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    (rank_of(upper, buckets) - rank_of(lower, buckets)) / last.count
}

/// How many observations are at or below `value`.
fn rank_of(value: f64, buckets: &[Bucket]) -> f64 {
    let mut rank = 0.0;
    let mut start = match buckets.first() {
        Some(first) if first.bound <= 0.0 => f64::NEG_INFINITY,
        _ => 0.0,
    };
    for bucket in buckets {
        if value <= start {
            return rank;
        }
        if value < bucket.bound {
            // Of a bucket without end no part is taken.
            return if start == f64::NEG_INFINITY {
                bucket.count
            } else if bucket.bound == f64::INFINITY {
                rank
            } else {
                rank + (bucket.count - rank) * (value - start) / (bucket.bound - start)
            };
        }
        rank = bucket.count;
        start = bucket.bound;
    }
    rank
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(list: &[(f64, f64)]) -> Vec<Bucket> {
        let mut buckets: Vec<Bucket> =
            list.iter().map(|(bound, count)| Bucket { bound: *bound, count: *count }).collect();
        coalesce(&mut buckets);
        lift(&mut buckets);
        buckets
    }

    #[test]
    fn quantiles_of_classic_buckets() {
        let inf = f64::INFINITY;
        let plain = buckets(&[(0.1, 1.0), (0.2, 3.0), (inf, 4.0)]);
        // rank 2: one of two observations into (0.1, 0.2].
        assert!((classic_quantile(0.5, &plain) - 0.15).abs() < 1e-12);
        assert_eq!(classic_quantile(1.0, &plain), 0.2);
        assert!(classic_quantile(0.5, &buckets(&[(0.1, 1.0), (0.2, 3.0)])).is_nan());
        assert_eq!(classic_quantile(0.5, &buckets(&[(-1.0, 4.0), (inf, 4.0)])), -1.0);
        let mut falling = vec![(1.0, 5.0), (2.0, 3.0), (inf, 6.0)];
        let mut raw: Vec<Bucket> = falling.drain(..).map(|(bound, count)| Bucket { bound, count }).collect();
        assert_eq!(lift(&mut raw), Some(Lifted { from: 2.0, to: 2.0, difference: 2.0 }));
    }

    #[test]
    fn fractions_of_classic_buckets() {
        let plain = buckets(&[(1.0, 1.0), (2.0, 3.0), (f64::INFINITY, 4.0)]);
        assert_eq!(classic_fraction(1.0, 2.0, &plain), 0.5);
        assert_eq!(classic_fraction(f64::NEG_INFINITY, f64::INFINITY, &plain), 1.0);
        assert_eq!(classic_fraction(0.0, 1.5, &plain), 0.5);
        assert_eq!(classic_fraction(2.0, 1.0, &plain), 0.0);
    }
}
