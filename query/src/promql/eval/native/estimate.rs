//! What a native histogram tells of its observations: quantiles, fractions, variance.

use storage::model::histogram::Histogram;

use super::super::math::Sum;
use super::{Bucket, all_buckets, is_custom};

/// An estimate, and whether observations of NaN spoil it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::promql) struct Estimated {
    /// The estimate.
    pub value: f64,
    /// Observations of NaN are counted, but in no bucket.
    pub nan: bool,
}

fn has_nan(h: &Histogram, buckets: &[Bucket]) -> bool {
    let total: f64 = buckets.iter().map(|bucket| bucket.count).sum();
    h.sum.is_nan() && total < h.count
}

/// The zero bucket reaches to 0 only, if there is nothing on its other side.
pub(super) fn narrowed(h: &Histogram, mut bucket: Bucket) -> Bucket {
    if !is_custom(h) && bucket.lower <= 0.0 && bucket.upper >= 0.0 {
        if h.negative_buckets.is_empty() && !h.positive_buckets.is_empty() {
            bucket.lower = 0.0;
        } else if h.positive_buckets.is_empty() && !h.negative_buckets.is_empty() {
            bucket.upper = 0.0;
        }
    }
    bucket
}

/// The quantile `q`.
pub(in crate::promql) fn quantile(q: f64, h: &Histogram) -> Estimated {
    let plain = |value| Estimated { value, nan: false };
    if q < 0.0 {
        return plain(f64::NEG_INFINITY);
    }
    if q > 1.0 {
        return plain(f64::INFINITY);
    }
    if h.count == 0.0 || q.is_nan() {
        return plain(f64::NAN);
    }
    let mut buckets = all_buckets(h);
    let nan = has_nan(h, &buckets);
    // Counting from the nearer end loses less precision; observations of NaN count beyond the highest bucket.
    let forward = h.sum.is_nan() || q < 0.5;
    let rank = if forward { q * h.count } else { (1.0 - q) * h.count };
    if !forward {
        buckets.reverse();
    }
    let mut count = 0.0;
    let mut found = None;
    for bucket in &buckets {
        count += bucket.count;
        found = Some(*bucket);
        if count >= rank {
            break;
        }
    }
    let Some(bucket) = found else { return Estimated { value: f64::NAN, nan } };
    let mut bucket = narrowed(h, bucket);
    if is_custom(h) {
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper <= 0.0 {
                return Estimated { value: bucket.upper, nan };
            }
            bucket.lower = 0.0;
        } else if bucket.upper == f64::INFINITY {
            return Estimated { value: bucket.lower, nan };
        }
    }
    let count = count.min(h.count);
    if count < rank {
        let value = if h.sum.is_nan() { f64::NAN } else { bucket.upper };
        return Estimated { value, nan };
    }
    let inside = if forward { rank - (count - bucket.count) } else { count - rank };
    // With a sum of NaN the original looks through all buckets for missing observations and then interpolates in the
    // highest one; its answers are the reference.
    if h.sum.is_nan()
        && let Some(last) = buckets.last()
    {
        bucket = *last;
    }
    let fraction = inside / bucket.count;
    Estimated { value: at_fraction(h, &bucket, fraction), nan }
}

/// The value up to which `fraction` of the bucket's observations lie.
fn at_fraction(h: &Histogram, bucket: &Bucket, fraction: f64) -> f64 {
    let (lower, upper) = (bucket.lower, bucket.upper);
    if is_custom(h) || (lower <= 0.0 && upper >= 0.0) {
        return lower + (upper - lower) * fraction;
    }
    let (low, high) = (lower.abs().log2(), upper.abs().log2());
    if lower > 0.0 { (low + (high - low) * fraction).exp2() } else { -(high + (low - high) * (1.0 - fraction)).exp2() }
}

/// The share of a bucket's observations at or below `value`, which lies inside.
pub(super) fn share(h: &Histogram, bucket: &Bucket, value: f64) -> f64 {
    let (lower, upper) = (bucket.lower, bucket.upper);
    if is_custom(h) || (lower <= 0.0 && upper >= 0.0) {
        return (value - lower) / (upper - lower);
    }
    let (low, high, at) = (lower.abs().log2(), upper.abs().log2(), value.abs().log2());
    if value > 0.0 { (at - low) / (high - low) } else { 1.0 - (at - high) / (low - high) }
}

/// The share of observations in `(lower, upper]`.
pub(in crate::promql) fn fraction(lower: f64, upper: f64, h: &Histogram) -> Estimated {
    if h.count == 0.0 || lower.is_nan() || upper.is_nan() {
        return Estimated { value: f64::NAN, nan: false };
    }
    if lower >= upper {
        return Estimated { value: 0.0, nan: false };
    }
    let buckets = all_buckets(h);
    let nan = has_nan(h, &buckets);
    let buckets: Vec<Bucket> = buckets.into_iter().map(|bucket| narrowed(h, bucket)).collect();
    let rank = |value: f64| rank_of(h, &buckets, value).min(h.count);
    Estimated { value: (rank(upper) - rank(lower)) / h.count, nan }
}

fn rank_of(h: &Histogram, buckets: &[Bucket], value: f64) -> f64 {
    let mut rank = 0.0;
    for bucket in buckets {
        let mut bucket = *bucket;
        if bucket.lower == f64::NEG_INFINITY && bucket.upper > 0.0 {
            bucket.lower = 0.0;
        }
        if bucket.lower >= value {
            return rank;
        }
        if bucket.upper > value {
            // Of a bucket without end no part is taken.
            if bucket.lower == f64::NEG_INFINITY {
                return rank + bucket.count;
            }
            if bucket.upper == f64::INFINITY {
                return rank;
            }
            return rank + bucket.count * share(h, &bucket, value);
        }
        rank += bucket.count;
    }
    // Nothing lies beyond the highest bucket but observations of NaN; without those this is all there is.
    if h.sum.is_nan() { rank } else { h.count }
}

/// The population variance; observations count as the middle of their bucket.
pub(in crate::promql) fn variance(h: &Histogram) -> f64 {
    let mean = h.sum / h.count;
    let mut squares = Sum::default();
    for bucket in all_buckets(h) {
        let (lower, upper) = (bucket.lower, bucket.upper);
        let middle = if is_custom(h) {
            (lower + upper) / 2.0
        } else if lower <= 0.0 && upper >= 0.0 {
            0.0
        } else if upper < 0.0 {
            -(lower * upper).sqrt()
        } else {
            (lower * upper).sqrt()
        };
        let delta = middle - mean;
        squares.add(bucket.count * delta * delta);
    }
    (squares.sum + squares.lost) / h.count
}
