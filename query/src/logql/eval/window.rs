//! The arithmetic on the values of one window.
//!
//! Owns: one function for each aggregation of unwrapped values.

use super::series::Grid;
use crate::logql::ast::RangeOp;
use crate::logql::plan::RangePlan;

/// The value at each step whose window holds a sample.
pub fn points(plan: &RangePlan, grid: &Grid, mut samples: Vec<(i64, f64)>) -> Vec<(u32, f64)> {
    samples.sort_by_key(|(ts_ns, _)| *ts_ns);
    let mut points = Vec::new();
    let (mut from, mut to) = (0, 0);
    let mut scratch = Vec::new();
    for step in 0..grid.steps {
        let end = grid.time(step).saturating_sub(plan.offset_ns);
        let start = end.saturating_sub(plan.range_ns);
        to += samples[to..].partition_point(|(ts_ns, _)| *ts_ns <= end);
        from += samples[from..].partition_point(|(ts_ns, _)| *ts_ns <= start);
        let window = &samples[from.min(to)..to];
        if !window.is_empty() {
            points.push((step, value(plan, window, (start, end), &mut scratch)));
        }
    }
    points
}

fn value(plan: &RangePlan, window: &[(i64, f64)], bounds: (i64, i64), scratch: &mut Vec<f64>) -> f64 {
    let seconds = plan.range_ns as f64 / 1e9;
    let values = window.iter().map(|(_, value)| *value);
    match plan.op {
        RangeOp::Sum => values.sum(),
        RangeOp::Rate => values.sum::<f64>() / seconds,
        RangeOp::RateCounter => counter_rate(window, bounds, seconds),
        RangeOp::Avg => values.sum::<f64>() / window.len() as f64,
        RangeOp::Min => extreme(values, |new, held| new < held),
        RangeOp::Max => extreme(values, |new, held| new > held),
        RangeOp::Stddev => variance(window).sqrt(),
        RangeOp::Stdvar => variance(window),
        RangeOp::Quantile => {
            scratch.clear();
            scratch.extend(values);
            quantile(plan.parameter, scratch)
        }
        RangeOp::First => window.first().map_or(f64::NAN, |(_, value)| *value),
        RangeOp::Last => window.last().map_or(f64::NAN, |(_, value)| *value),
        RangeOp::Count | RangeOp::Bytes | RangeOp::BytesRate | RangeOp::Absent => window.len() as f64,
    }
}

/// The value that `better` prefers; NaN only if all are.
fn extreme(mut values: impl Iterator<Item = f64>, better: impl Fn(f64, f64) -> bool) -> f64 {
    let first = values.next().unwrap_or(f64::NAN);
    values.fold(first, |held, value| if held.is_nan() || better(value, held) { value } else { held })
}

/// The population's variance, by running means.
fn variance(window: &[(i64, f64)]) -> f64 {
    let (mut count, mut mean, mut sum) = (0.0, 0.0, 0.0);
    for (_, value) in window {
        count += 1.0;
        let delta = value - mean;
        mean += delta / count;
        sum += delta * (value - mean);
    }
    sum / count
}

/// The φ-quantile with linear interpolation; sorts `values`.
pub fn quantile(phi: f64, values: &mut [f64]) -> f64 {
    if values.is_empty() || phi.is_nan() {
        return f64::NAN;
    }
    if phi < 0.0 {
        return f64::NEG_INFINITY;
    }
    if phi > 1.0 {
        return f64::INFINITY;
    }
    values.sort_by(f64::total_cmp);
    let rank = phi * (values.len() - 1) as f64;
    let low = (rank.floor() as usize).min(values.len() - 1);
    let high = (low + 1).min(values.len() - 1);
    let weight = rank - rank.floor();
    values[low] * (1.0 - weight) + values[high] * weight
}

/// Growth of a counter by second: resets are added up, and the ends are extrapolated to the window's borders where
/// they are near enough.
fn counter_rate(window: &[(i64, f64)], (start, end): (i64, i64), seconds: f64) -> f64 {
    let [(first_ns, first), .., (last_ns, last)] = window else { return 0.0 };
    let mut growth = last - first;
    for pair in window.windows(2) {
        if pair[1].1 < pair[0].1 {
            growth += pair[0].1;
        }
    }
    let span = |from: i64, to: i64| to.saturating_sub(from) as f64 / 1e9;
    let sampled = span(*first_ns, *last_ns);
    if sampled <= 0.0 {
        return 0.0;
    }
    let average = sampled / (window.len() - 1) as f64;
    let reach = |gap: f64| if gap < average * 1.1 { gap } else { average / 2.0 };
    let mut to_start = reach(span(start, *first_ns));
    let to_end = reach(span(*last_ns, end));
    // A counter never was below zero.
    if growth > 0.0 && *first >= 0.0 {
        to_start = to_start.min(sampled * (first / growth));
    }
    growth * (sampled + to_start + to_end) / sampled / seconds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        for (phi, expected) in
            [(0.0, 1.0), (0.5, 2.5), (0.9, 3.7), (1.0, 4.0), (-0.1, f64::NEG_INFINITY), (1.1, f64::INFINITY)]
        {
            let got = quantile(phi, &mut [4.0, 1.0, 3.0, 2.0]);
            assert!(got == expected || (got - expected).abs() < 1e-12, "{phi}: {got}");
        }
    }

    #[test]
    fn variances_are_of_the_population() {
        let window: Vec<(i64, f64)> = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0].iter().map(|v| (0, *v)).collect();
        assert!((variance(&window) - 4.0).abs() < 1e-12);
    }

    #[test]
    fn counters_survive_resets() {
        let s = 1_000_000_000_i64;
        let window = [(10 * s, 5.0), (20 * s, 15.0), (30 * s, 5.0), (40 * s, 15.0)];
        // 10 + 5 + 10 over 30 s; the start reaches back 6 s where the counter was 0, the end 10 s.
        let rate = counter_rate(&window, (0, 50 * s), 50.0);
        let expected = 25.0 * (30.0 + 6.0 + 10.0) / 30.0 / 50.0;
        assert!((rate - expected).abs() < 1e-12, "{rate}");
        assert!(counter_rate(&window[..1], (0, s), 1.0) == 0.0);
    }
}
