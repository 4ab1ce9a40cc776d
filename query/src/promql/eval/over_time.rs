//! What is computed of all samples of a window alike: `*_over_time`, `deriv`, `predict_linear`.

use super::math::{Mean, Sum, quantile, regression, variance};
use super::native::ops::Total;
use super::notice::Notes;
use super::value::Point;
use super::window::Window;

type Out = Option<Point>;

fn float(value: f64) -> Out {
    Some(Point::Float(value))
}

/// The floats of a window for functions that leave histograms out.
fn floats<'a>(window: &Window<'a>, notes: &mut Notes<'_>) -> Option<&'a [f64]> {
    if window.values.is_empty() {
        return None;
    }
    if !window.hist_ts.is_empty() {
        notes.ignored_histograms();
    }
    Some(window.values)
}

/// `count_over_time`
pub(in crate::promql) fn count(window: &Window<'_>, _: &mut Notes<'_>) -> Out {
    float((window.ts.len() + window.hist_ts.len()) as f64)
}

/// `present_over_time`
pub(in crate::promql) fn present(_: &Window<'_>, _: &mut Notes<'_>) -> Out {
    float(1.0)
}

/// `last_over_time`
pub(in crate::promql) fn last(window: &Window<'_>, _: &mut Notes<'_>) -> Out {
    match (window.ts.last(), window.hist_ts.last()) {
        (Some(f), Some(h)) if h > f => window.hists.last().map(|h| Point::Histogram(h.clone())),
        (Some(_), _) => window.values.last().map(|v| Point::Float(*v)),
        _ => window.hists.last().map(|h| Point::Histogram(h.clone())),
    }
}

/// `first_over_time`
pub(in crate::promql) fn first(window: &Window<'_>, _: &mut Notes<'_>) -> Out {
    match (window.ts.first(), window.hist_ts.first()) {
        (Some(f), Some(h)) if h < f => window.hists.first().map(|h| Point::Histogram(h.clone())),
        (Some(_), _) => window.values.first().map(|v| Point::Float(*v)),
        _ => window.hists.first().map(|h| Point::Histogram(h.clone())),
    }
}

/// `ts_of_last_over_time`
pub(in crate::promql) fn ts_of_last(window: &Window<'_>, _: &mut Notes<'_>) -> Out {
    let ts = window.ts.last().max(window.hist_ts.last())?;
    float(*ts as f64 / 1000.0)
}

/// `ts_of_first_over_time`
pub(in crate::promql) fn ts_of_first(window: &Window<'_>, _: &mut Notes<'_>) -> Out {
    let ts = window.ts.iter().chain(window.hist_ts).min_by(|a, b| a.cmp(b))?;
    float(*ts as f64 / 1000.0)
}

/// Sum or mean of the histograms of a window.
fn histograms(window: &Window<'_>, notes: &mut Notes<'_>, mean: bool) -> Out {
    let mut total = Total::default();
    window.hists.iter().for_each(|h| total.add(h));
    if total.incompatible {
        notes.mixed_schemas();
        return None;
    }
    if total.collision() {
        notes.collision("aggregation");
    }
    if total.reconciled {
        notes.reconciled("aggregation");
    }
    total.finish(mean).map(|h| Point::Histogram(std::sync::Arc::new(h)))
}

/// `sum_over_time`
pub(in crate::promql) fn sum(window: &Window<'_>, notes: &mut Notes<'_>) -> Out {
    if !window.values.is_empty() && !window.hists.is_empty() {
        notes.mixed();
        return None;
    }
    if !window.hists.is_empty() {
        return histograms(window, notes, false);
    }
    let mut sum = Sum::default();
    window.values.iter().for_each(|value| sum.add(*value));
    float(sum.total())
}

/// `avg_over_time`
pub(in crate::promql) fn avg(window: &Window<'_>, notes: &mut Notes<'_>) -> Out {
    if !window.values.is_empty() && !window.hists.is_empty() {
        notes.mixed();
        return None;
    }
    if !window.hists.is_empty() {
        return histograms(window, notes, true);
    }
    let mut mean = Mean::default();
    window.values.iter().for_each(|value| mean.add(*value));
    float(mean.mean())
}

/// The index of the extreme value; NaN only if there is nothing else. `later` takes the last of equal ones.
fn extreme(values: &[f64], better: fn(f64, f64) -> bool, later: bool) -> usize {
    let mut best = 0;
    for (i, value) in values.iter().enumerate().skip(1) {
        if better(*value, values[best]) || values[best].is_nan() || (later && *value == values[best]) {
            best = i;
        }
    }
    best
}

/// `min_over_time`
pub(in crate::promql) fn min(window: &Window<'_>, notes: &mut Notes<'_>) -> Out {
    let values = floats(window, notes)?;
    float(values[extreme(values, |a, b| a < b, false)])
}

/// `max_over_time`
pub(in crate::promql) fn max(window: &Window<'_>, notes: &mut Notes<'_>) -> Out {
    let values = floats(window, notes)?;
    float(values[extreme(values, |a, b| a > b, false)])
}

/// `ts_of_min_over_time`
pub(in crate::promql) fn ts_of_min(window: &Window<'_>, notes: &mut Notes<'_>) -> Out {
    let values = floats(window, notes)?;
    float(window.ts[extreme(values, |a, b| a < b, true)] as f64 / 1000.0)
}

/// `ts_of_max_over_time`
pub(in crate::promql) fn ts_of_max(window: &Window<'_>, notes: &mut Notes<'_>) -> Out {
    let values = floats(window, notes)?;
    float(window.ts[extreme(values, |a, b| a > b, true)] as f64 / 1000.0)
}

/// `stddev_over_time`
pub(in crate::promql) fn stddev(window: &Window<'_>, notes: &mut Notes<'_>) -> Out {
    float(variance(floats(window, notes)?.iter().copied()).sqrt())
}

/// `stdvar_over_time`
pub(in crate::promql) fn stdvar(window: &Window<'_>, notes: &mut Notes<'_>) -> Out {
    float(variance(floats(window, notes)?.iter().copied()))
}

/// `quantile_over_time`
pub(in crate::promql) fn quantile_of(window: &Window<'_>, notes: &mut Notes<'_>) -> Out {
    let q = window.params[0];
    let values = floats(window, notes)?;
    if !(0.0..=1.0).contains(&q) {
        notes.invalid_quantile(q);
    }
    float(quantile(q, &mut values.to_vec()))
}

/// `mad_over_time`
pub(in crate::promql) fn mad(window: &Window<'_>, notes: &mut Notes<'_>) -> Out {
    let mut values = floats(window, notes)?.to_vec();
    if values.iter().any(|value| value.is_nan()) {
        return float(f64::NAN);
    }
    let median = quantile(0.5, &mut values);
    let mut distances: Vec<f64> = values.iter().map(|value| (value - median).abs()).collect();
    float(quantile(0.5, &mut distances))
}

/// `deriv`
pub(in crate::promql) fn deriv(window: &Window<'_>, notes: &mut Notes<'_>) -> Out {
    let [_, _, ..] = window.values else {
        if !window.values.is_empty() && !window.hists.is_empty() {
            notes.ignored_histograms();
        }
        return None;
    };
    let values = floats(window, notes)?;
    float(regression(window.ts, values, window.ts[0]).0)
}

/// `predict_linear`
pub(in crate::promql) fn predict_linear(window: &Window<'_>, notes: &mut Notes<'_>) -> Out {
    let [_, _, ..] = window.values else {
        if !window.values.is_empty() && !window.hists.is_empty() {
            notes.ignored_histograms();
        }
        return None;
    };
    let values = floats(window, notes)?;
    let (slope, intercept) = regression(window.ts, values, window.step);
    float(slope * window.params[0] + intercept)
}

/// `double_exponential_smoothing`; its factors were checked before.
pub(in crate::promql) fn smoothing(window: &Window<'_>, notes: &mut Notes<'_>) -> Out {
    let [first, second, ..] = window.values else { return None };
    let values = floats(window, notes)?;
    let [level_factor, trend_factor] = window.params;
    let (mut previous, mut level, mut trend) = (0.0, *first, second - first);
    for (i, value) in values.iter().enumerate().skip(1) {
        // The first trend is the difference of the first two values.
        if i > 1 {
            trend = trend_factor * (level - previous) + (1.0 - trend_factor) * trend;
        }
        let next = level_factor * value + (1.0 - level_factor) * (level + trend);
        previous = level;
        level = next;
    }
    float(level)
}
