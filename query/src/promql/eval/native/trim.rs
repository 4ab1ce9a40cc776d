//! Observations cut off above or below a value: `h </ x` and `h >/ x`.

use storage::model::histogram::Histogram;

use super::estimate::{narrowed, share};
use super::{Bucket, Sparse, is_custom, negative, negative_bucket, positive, positive_bucket, spans, zero_bucket};

/// `h </ x` (`upper`) keeps what lies below `x`, `h >/ x` what lies above. The bucket of `x` is cut by interpolation;
/// if anything is cut, count and sum are estimated anew.
pub(in crate::promql) fn trim(h: &Histogram, x: f64, upper: bool) -> Histogram {
    let mut cut = Cut { h, x, upper, count: 0.0, sum: 0.0, changed: false };
    let keep = |cut: &mut Cut<'_>, list: Sparse, bucket: fn(&Histogram, (i32, f64)) -> Bucket| -> Sparse {
        list.into_iter().map(|pair| (pair.0, cut.keep(bucket(h, pair)))).collect()
    };
    let below = keep(&mut cut, negative(h), negative_bucket);
    let zero = if h.zero_count == 0.0 { 0.0 } else { cut.keep(narrowed(h, zero_bucket(h))) };
    let above = keep(&mut cut, positive(h), positive_bucket);
    if !cut.changed {
        return h.clone();
    }
    let (positive_spans, positive_buckets) = spans(&above);
    let (negative_spans, negative_buckets) = spans(&below);
    Histogram {
        count: cut.count,
        sum: cut.sum,
        zero_count: zero,
        positive_spans,
        positive_buckets,
        negative_spans,
        negative_buckets,
        float: true,
        ..h.clone()
    }
}

struct Cut<'a> {
    h: &'a Histogram,
    x: f64,
    upper: bool,
    count: f64,
    sum: f64,
    changed: bool,
}

impl Cut<'_> {
    /// What is left of a bucket.
    fn keep(&mut self, bucket: Bucket) -> f64 {
        let (count, middle) = if is_custom(self.h) { self.custom(bucket) } else { self.bounded(bucket) };
        self.changed |= count != bucket.count;
        if count != 0.0 {
            self.count += count;
            self.sum += count * middle;
        }
        count
    }

    /// A bucket with two finite ends: what is left and its middle.
    fn bounded(&self, bucket: Bucket) -> (f64, f64) {
        let inside = bucket.lower < self.x && self.x < bucket.upper;
        let (mut lower, mut upper) = (bucket.lower, bucket.upper);
        let mut part = 1.0;
        if inside {
            let below = share(self.h, &bucket, self.x);
            part = if self.upper { below } else { 1.0 - below };
            if self.upper {
                upper = self.x;
            } else {
                lower = self.x;
            }
        } else if (self.upper && self.x <= lower) || (!self.upper && self.x >= upper) {
            part = 0.0;
        }
        let middle = if is_custom(self.h) || (bucket.lower <= 0.0 && bucket.upper >= 0.0) {
            (lower + upper) / 2.0
        } else if upper <= 0.0 {
            -(lower * upper).sqrt()
        } else {
            (lower * upper).sqrt()
        };
        (if part == 1.0 { bucket.count } else { bucket.count * part }, middle)
    }

    /// A custom bucket; the first and the last may have no end, and then all observations lie at the end they have.
    fn custom(&self, mut bucket: Bucket) -> (f64, f64) {
        let (none, all) = ((0.0, 0.0), bucket.count);
        if bucket.upper == f64::INFINITY {
            // Nothing is known of how far it reaches: an upper cut takes it away.
            let endless = bucket.lower == f64::NEG_INFINITY;
            let kept = match self.upper {
                true => self.x == f64::INFINITY,
                false => self.x == f64::NEG_INFINITY || (!endless && self.x < f64::INFINITY),
            };
            return if kept { (all, bucket.lower.max(self.x.min(f64::MAX))) } else { none };
        }
        if bucket.lower == f64::NEG_INFINITY {
            if bucket.upper > 0.0 {
                // It counts as [0, upper], but nothing tells that it does not reach below a negative cut.
                if !self.upper && self.x < 0.0 && self.x > f64::NEG_INFINITY {
                    return none;
                }
                bucket.lower = 0.0;
            } else {
                let kept = match self.upper {
                    true => self.x > f64::NEG_INFINITY,
                    false => self.x == f64::NEG_INFINITY,
                };
                return if kept { (all, bucket.upper.min(self.x)) } else { none };
            }
        }
        self.bounded(bucket)
    }
}
