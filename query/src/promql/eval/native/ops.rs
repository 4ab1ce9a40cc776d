//! Arithmetic of native histograms: sums and differences of two, factors, comparison, counter resets.
//!
//! Invariants
//! 1. A result never claims a finer resolution than its coarsest operand.
//! 2. After zero buckets were brought together, the common threshold lies within no populated bucket.

use std::sync::Arc;

use storage::model::histogram::{Histogram, ResetHint, is_stale};

use super::super::super::load::Samples;
use super::{Sparse, exponential_bound, is_custom, negative, positive, spans};

/// Exponential and custom buckets do not combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::promql) struct Incompatible;

/// The sum or difference of two histograms.
#[derive(Clone, Debug)]
pub(in crate::promql) struct Combined {
    /// The result.
    pub histogram: Histogram,
    /// Custom bounds differed and were intersected.
    pub reconciled: bool,
    /// One operand was known to follow a reset, the other not to.
    pub collision: bool,
}

/// `a + b`
pub(in crate::promql) fn add(a: &Histogram, b: &Histogram) -> Result<Combined, Incompatible> {
    combine(a, b, 1.0)
}

/// `a − b`; the result is a gauge.
pub(in crate::promql) fn sub(a: &Histogram, b: &Histogram) -> Result<Combined, Incompatible> {
    let mut combined = combine(a, b, -1.0)?;
    combined.histogram.reset_hint = ResetHint::Gauge;
    Ok(combined)
}

fn combine(a: &Histogram, b: &Histogram, sign: f64) -> Result<Combined, Incompatible> {
    if is_custom(a) != is_custom(b) {
        return Err(Incompatible);
    }
    let (hint, collision) = hints(a.reset_hint, b.reset_hint);
    let mut out = Histogram {
        schema: a.schema.min(b.schema),
        count: a.count + sign * b.count,
        sum: a.sum + sign * b.sum,
        reset_hint: hint,
        float: true,
        ..Histogram::default()
    };
    let mut reconciled = false;
    let (positive_sum, negative_sum) = if is_custom(a) {
        reconciled = a.custom_values != b.custom_values;
        out.custom_values = intersection(&a.custom_values, &b.custom_values);
        let (x, y) = (rebound(a, &out.custom_values), rebound(b, &out.custom_values));
        (merge(&x, &y, sign), Vec::new())
    } else {
        let (threshold, zero_a, zero_b) = common_zero(a, b);
        out.zero_threshold = threshold;
        out.zero_count = zero_a + sign * zero_b;
        let side = |h: &Histogram, list: Sparse| reduced(&outside(list, h.schema, threshold), h.schema, out.schema);
        (
            merge(&side(a, positive(a)), &side(b, positive(b)), sign),
            merge(&side(a, negative(a)), &side(b, negative(b)), sign),
        )
    };
    (out.positive_spans, out.positive_buckets) = spans(&positive_sum);
    (out.negative_spans, out.negative_buckets) = spans(&negative_sum);
    Ok(Combined { histogram: out, reconciled, collision })
}

/// What is known of resets of the sum, and whether the operands contradict each other.
fn hints(a: ResetHint, b: ResetHint) -> (ResetHint, bool) {
    match (a, b) {
        (a, b) if a == b => (a, false),
        (ResetHint::Gauge, _) | (_, ResetHint::Gauge) => (ResetHint::Gauge, false),
        (ResetHint::Unknown, _) | (_, ResetHint::Unknown) => (ResetHint::Unknown, false),
        _ => (ResetHint::Unknown, true),
    }
}

/// `a + sign·b` of two ascending lists.
fn merge(a: &[(i32, f64)], b: &[(i32, f64)], sign: f64) -> Sparse {
    let mut out = Vec::with_capacity(a.len().max(b.len()));
    let (mut i, mut j) = (0, 0);
    loop {
        match (a.get(i), b.get(j)) {
            (Some(x), Some(y)) if x.0 == y.0 => {
                out.push((x.0, x.1 + sign * y.1));
                (i, j) = (i + 1, j + 1);
            }
            (Some(x), Some(y)) if x.0 < y.0 => {
                out.push(*x);
                i += 1;
            }
            (Some(x), None) => {
                out.push(*x);
                i += 1;
            }
            (_, Some(y)) => {
                out.push((y.0, sign * y.1));
                j += 1;
            }
            (None, None) => return out,
        }
    }
}

/// Indices of a finer schema brought to a coarser one.
pub(super) fn reduced(list: &[(i32, f64)], from: i32, to: i32) -> Sparse {
    if from <= to {
        return list.to_vec();
    }
    let shift = u32::try_from(from - to).unwrap_or(31).min(31);
    let mut out: Sparse = Vec::with_capacity(list.len());
    for (index, count) in list {
        let index = (index.saturating_sub(1) >> shift) + 1;
        match out.last_mut() {
            Some(last) if last.0 == index => last.1 += count,
            _ => out.push((index, *count)),
        }
    }
    out
}

/// The buckets beyond the zero bucket.
fn outside(mut list: Sparse, schema: i32, threshold: f64) -> Sparse {
    list.retain(|(index, _)| threshold == 0.0 || exponential_bound(*index, schema) > threshold);
    list
}

fn intersection(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().filter(|bound| b.contains(bound)).copied().collect()
}

/// Custom buckets counted by fewer bounds.
fn rebound(h: &Histogram, bounds: &[f64]) -> Sparse {
    if h.custom_values == bounds {
        return positive(h);
    }
    let mut out: Sparse = Vec::new();
    for (index, count) in positive(h) {
        let upper = usize::try_from(index).ok().and_then(|i| h.custom_values.get(i)).copied();
        let upper = upper.unwrap_or(f64::INFINITY);
        let index = bounds.iter().position(|bound| *bound >= upper).unwrap_or(bounds.len());
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        match out.last_mut() {
            Some(last) if last.0 == index => last.1 += count,
            _ => out.push((index, count)),
        }
    }
    out
}

/// The common threshold of both zero buckets, and what each then counts.
fn common_zero(a: &Histogram, b: &Histogram) -> (f64, f64, f64) {
    let (mut zero_a, mut width_a) = (a.zero_count, a.zero_threshold);
    let (mut zero_b, mut width_b) = (b.zero_count, b.zero_threshold);
    while width_a != width_b && !width_a.is_nan() && !width_b.is_nan() {
        if width_a > width_b {
            (zero_b, width_b) = widened(b, width_a);
        } else {
            (zero_a, width_a) = widened(a, width_b);
        }
    }
    (width_a, zero_a, zero_b)
}

/// The zero bucket widened to at least `threshold`, further if that lies in a populated bucket: count and width.
fn widened(h: &Histogram, mut threshold: f64) -> (f64, f64) {
    if threshold <= h.zero_threshold {
        return (h.zero_count, h.zero_threshold);
    }
    let sides = [positive(h), negative(h)];
    loop {
        let mut count = h.zero_count;
        let mut wider = threshold;
        for (index, n) in sides.iter().flatten() {
            if exponential_bound(index.saturating_sub(1), h.schema) >= threshold {
                continue;
            }
            count += n;
            if *n != 0.0 {
                wider = wider.max(exponential_bound(*index, h.schema));
            }
        }
        if wider == threshold {
            return (count, threshold);
        }
        threshold = wider;
    }
}

/// `h · factor`; a negative factor makes a gauge.
pub(in crate::promql) fn scale(h: &Histogram, factor: f64) -> Histogram {
    map(h, factor < 0.0, |value| value * factor)
}

/// `h / divisor`; by zero there are no buckets.
pub(in crate::promql) fn divide(h: &Histogram, divisor: f64) -> Histogram {
    let mut out = map(h, divisor < 0.0, |value| value / divisor);
    if divisor == 0.0 {
        out.positive_spans.clear();
        out.positive_buckets.clear();
        out.negative_spans.clear();
        out.negative_buckets.clear();
    }
    out
}

fn map(h: &Histogram, gauge: bool, f: impl Fn(f64) -> f64) -> Histogram {
    let mut out = h.clone();
    out.float = true;
    let single = [&mut out.count, &mut out.sum, &mut out.zero_count];
    for value in single.into_iter().chain(&mut out.positive_buckets).chain(&mut out.negative_buckets) {
        *value = f(*value);
    }
    if gauge {
        out.reset_hint = ResetHint::Gauge;
    }
    out
}

/// Whether both hold the same observations in the same layout.
pub(in crate::promql) fn equal(a: &Histogram, b: &Histogram) -> bool {
    let same = |x: f64, y: f64| x.to_bits() == y.to_bits() || x == y;
    let populated = |mut list: Sparse| {
        list.retain(|(_, count)| *count != 0.0);
        list
    };
    a.schema == b.schema
        && same(a.count, b.count)
        && same(a.sum, b.sum)
        && same(a.zero_threshold, b.zero_threshold)
        && same(a.zero_count, b.zero_count)
        && a.custom_values == b.custom_values
        && populated(positive(a)) == populated(positive(b))
        && populated(negative(a)) == populated(negative(b))
}

/// Whether a counter began anew between `previous` and `h`.
pub(in crate::promql) fn is_reset(h: &Histogram, previous: &Histogram) -> bool {
    match h.reset_hint {
        ResetHint::Reset => return true,
        ResetHint::NotReset => return false,
        ResetHint::Unknown | ResetHint::Gauge => {}
    }
    fell(h, previous)
}

fn fell(h: &Histogram, previous: &Histogram) -> bool {
    if h.count < previous.count || is_custom(h) != is_custom(previous) || h.custom_values != previous.custom_values {
        return true;
    }
    if is_custom(h) {
        return lost(&positive(h), &positive(previous));
    }
    if h.schema > previous.schema || h.zero_threshold < previous.zero_threshold {
        return true;
    }
    let (zero, width) = widened(previous, h.zero_threshold);
    if width != h.zero_threshold || h.zero_count < zero {
        return true;
    }
    let before = |list: Sparse| reduced(&outside(list, previous.schema, h.zero_threshold), previous.schema, h.schema);
    lost(&positive(h), &before(positive(previous))) || lost(&negative(h), &before(negative(previous)))
}

/// Whether a bucket of `previous` counts less now.
fn lost(now: &[(i32, f64)], previous: &[(i32, f64)]) -> bool {
    let mut now = now.iter().peekable();
    previous.iter().any(|(index, count)| {
        while now.peek().is_some_and(|(i, _)| i < index) {
            now.next();
        }
        let current = now.peek().filter(|(i, _)| i == index).map_or(0.0, |(_, count)| *count);
        current < *count
    })
}

/// Puts what the samples before tell about resets into each histogram of a series, as long as the layout stays the
/// same. A reset that was found is told only if `resets` is set: the original knows of it only where it reads no buckets,
/// and leaves it to a comparison elsewhere. The first one is taken as no reset, as its predecessors are not read.
pub(in crate::promql) fn hinted(mut samples: Samples, resets: bool) -> Samples {
    let mut previous: Option<Arc<Histogram>> = None;
    for i in 0..samples.hists.len() {
        let current = Arc::clone(&samples.hists[i]);
        if is_stale(current.sum) {
            previous = None;
            continue;
        }
        // A float in between breaks the sequence.
        let broken = i > 0 && {
            let (from, to) = (samples.hist_ts[i - 1], samples.hist_ts[i]);
            let next = samples.ts.partition_point(|ts| *ts <= from);
            samples.ts.get(next).is_some_and(|ts| *ts < to)
        };
        let hint = match (current.reset_hint, &previous) {
            (ResetHint::Gauge, _) => ResetHint::Gauge,
            (ResetHint::Reset, _) => ResetHint::Reset,
            (_, Some(previous)) if !broken && previous.reset_hint != ResetHint::Gauge => {
                let same_layout = current.schema == previous.schema
                    && current.zero_threshold == previous.zero_threshold
                    && current.custom_values == previous.custom_values;
                match (fell(&current, previous), same_layout) {
                    (_, false) => ResetHint::Unknown,
                    (true, true) if resets => ResetHint::Reset,
                    (true, true) => ResetHint::Unknown,
                    (false, true) => ResetHint::NotReset,
                }
            }
            (_, None) if i == 0 => ResetHint::NotReset,
            _ => ResetHint::Unknown,
        };
        if hint != current.reset_hint {
            Arc::make_mut(&mut samples.hists[i]).reset_hint = hint;
        }
        previous = Some(Arc::clone(&samples.hists[i]));
    }
    samples
}

fn is_finite(h: &Histogram) -> bool {
    let single = [h.count, h.sum, h.zero_count];
    single.iter().chain(&h.positive_buckets).chain(&h.negative_buckets).all(|value| value.is_finite())
}

/// Adds up histograms and remembers what must be told of it.
#[derive(Clone, Debug, Default)]
pub(in crate::promql) struct Total {
    /// The sum so far.
    pub sum: Option<Histogram>,
    /// How many.
    pub count: f64,
    /// Exponential and custom buckets met.
    pub incompatible: bool,
    /// Custom bounds were intersected.
    pub reconciled: bool,
    /// The mean so far, once the sum has grown beyond all numbers.
    mean: Option<Histogram>,
    reset: bool,
    not_reset: bool,
}

impl Total {
    /// Adds one.
    pub fn add(&mut self, h: &Histogram) {
        self.count += 1.0;
        self.reset |= h.reset_hint == ResetHint::Reset;
        self.not_reset |= h.reset_hint == ResetHint::NotReset;
        let Some(sum) = &self.sum else {
            self.sum = Some(h.clone());
            return;
        };
        match add(sum, h) {
            Ok(combined) => {
                if self.mean.is_some() || (is_finite(sum) && is_finite(h) && !is_finite(&combined.histogram)) {
                    let before = self.mean.take().unwrap_or_else(|| divide(sum, self.count - 1.0));
                    let weight = (self.count - 1.0) / self.count;
                    let mean = add(&scale(&before, weight), &divide(h, self.count));
                    self.mean = mean.ok().map(|mean| mean.histogram);
                }
                self.reconciled |= combined.reconciled;
                self.sum = Some(combined.histogram);
            }
            Err(Incompatible) => self.incompatible = true,
        }
    }

    /// Whether some were known to follow a reset and others not to.
    pub fn collision(&self) -> bool {
        self.reset && self.not_reset
    }

    /// The sum, or the mean.
    pub fn finish(&self, mean: bool) -> Option<Histogram> {
        let sum = self.sum.as_ref().filter(|_| !self.incompatible)?;
        if mean && self.mean.is_some() {
            return self.mean.clone();
        }
        Some(if mean { divide(sum, self.count) } else { sum.clone() })
    }
}
