//! Native histograms as values: buckets, bounds, and what is asked of one histogram.
//!
//! Owns: how spans and counts become buckets. Does not own: arithmetic of two (`ops`), estimates (`estimate`).

pub(super) mod estimate;
pub(super) mod ops;
pub(super) mod trim;

use storage::model::histogram::{BucketSpan, Histogram, SCHEMA_CUSTOM};

use super::notice::short;

/// Counts by bucket index, ascending, each index once.
pub(super) type Sparse = Vec<(i32, f64)>;

/// One bucket.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bucket {
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
    /// Whether the lower end belongs to it.
    pub lower_inclusive: bool,
    /// Whether the upper end belongs to it.
    pub upper_inclusive: bool,
    /// Observations.
    pub count: f64,
}

/// Whether the bounds are given, not computed.
pub(super) fn is_custom(h: &Histogram) -> bool {
    h.schema == SCHEMA_CUSTOM
}

/// Spans and counts as pairs of index and count.
pub(super) fn sparse(spans: &[BucketSpan], counts: &[f64]) -> Sparse {
    let mut out = Vec::with_capacity(counts.len());
    let mut counts = counts.iter();
    let mut index = 0i32;
    for span in spans {
        index = index.saturating_add(span.offset);
        for _ in 0..span.length {
            let Some(count) = counts.next() else { return out };
            out.push((index, *count));
            index = index.saturating_add(1);
        }
    }
    out
}

/// Pairs of index and count as spans and counts; empty buckets are left out.
pub(super) fn spans(pairs: &[(i32, f64)]) -> (Vec<BucketSpan>, Vec<f64>) {
    let mut spans: Vec<BucketSpan> = Vec::new();
    let mut counts = Vec::with_capacity(pairs.len());
    let mut next = 0i32;
    for (index, count) in pairs.iter().filter(|(_, count)| *count != 0.0) {
        let offset = index.saturating_sub(next);
        match spans.last_mut() {
            Some(span) if offset == 0 => span.length += 1,
            _ => spans.push(BucketSpan { offset, length: 1 }),
        }
        counts.push(*count);
        next = index.saturating_add(1);
    }
    (spans, counts)
}

/// The positive buckets by index.
pub(super) fn positive(h: &Histogram) -> Sparse {
    sparse(&h.positive_spans, &h.positive_buckets)
}

/// The negative buckets by index.
pub(super) fn negative(h: &Histogram) -> Sparse {
    sparse(&h.negative_spans, &h.negative_buckets)
}

/// The upper bound of bucket `index` of an exponential schema.
pub(super) fn exponential_bound(index: i32, schema: i32) -> f64 {
    let bound = if schema <= 0 {
        2f64.powf(f64::from(index) * 2f64.powi(-schema))
    } else {
        // Whole powers are exact this way.
        let per_power = 1i32 << schema.min(30);
        let (whole, part) = (index.div_euclid(per_power), index.rem_euclid(per_power));
        2f64.powi(whole) * 2f64.powf(f64::from(part) / f64::from(per_power))
    };
    // The last bucket ends with the largest number.
    if bound.is_infinite() { f64::MAX } else { bound }
}

/// The upper bound of custom bucket `index`; −Inf beneath the first, +Inf beyond the last.
fn custom_bound(index: i32, bounds: &[f64]) -> f64 {
    match usize::try_from(index) {
        Ok(i) => bounds.get(i).copied().unwrap_or(f64::INFINITY),
        Err(_) => f64::NEG_INFINITY,
    }
}

fn positive_bucket(h: &Histogram, (index, count): (i32, f64)) -> Bucket {
    let custom = is_custom(h);
    let bound = |index| {
        if custom { custom_bound(index, &h.custom_values) } else { exponential_bound(index, h.schema) }
    };
    let (lower, upper) = (bound(index.saturating_sub(1)), bound(index));
    Bucket { lower, upper, lower_inclusive: custom && index == 0, upper_inclusive: true, count }
}

fn negative_bucket(h: &Histogram, (index, count): (i32, f64)) -> Bucket {
    let lower = -exponential_bound(index, h.schema);
    let upper = -exponential_bound(index.saturating_sub(1), h.schema);
    Bucket { lower, upper, lower_inclusive: true, upper_inclusive: false, count }
}

fn zero_bucket(h: &Histogram) -> Bucket {
    let width = h.zero_threshold;
    Bucket { lower: -width, upper: width, lower_inclusive: true, upper_inclusive: true, count: h.zero_count }
}

/// All buckets that are not empty, from the lowest to the highest.
pub(super) fn all_buckets(h: &Histogram) -> Vec<Bucket> {
    let mut out: Vec<Bucket> = negative(h).into_iter().rev().map(|pair| negative_bucket(h, pair)).collect();
    // A zero bucket below zero, as differences may leave it, is not shown.
    if h.zero_count > 0.0 {
        out.push(zero_bucket(h));
    }
    out.extend(positive(h).into_iter().map(|pair| positive_bucket(h, pair)));
    out.retain(|bucket| bucket.count != 0.0);
    out
}

/// The buckets that are not empty, from the lowest to the highest: the rule of their ends (0: low end open, 1: high end
/// open, 2: both, 3: none), both ends and the count.
pub(in crate::promql) fn buckets(h: &Histogram) -> Vec<(u8, f64, f64, f64)> {
    let rule = |bucket: &Bucket| match (bucket.lower_inclusive, bucket.upper_inclusive) {
        (false, true) => 0,
        (true, false) => 1,
        (false, false) => 2,
        (true, true) => 3,
    };
    all_buckets(h).iter().map(|bucket| (rule(bucket), bucket.lower, bucket.upper, bucket.count)).collect()
}

/// A histogram as text: the values of `count_values`.
pub(super) fn text(h: &Histogram) -> String {
    let mut out = format!("{{count:{}, sum:{}", short(h.count), short(h.sum));
    for bucket in all_buckets(h) {
        out.push_str(if bucket.lower_inclusive { ", [" } else { ", (" });
        out.push_str(&format!("{},{}", short(bucket.lower), short(bucket.upper)));
        out.push(if bucket.upper_inclusive { ']' } else { ')' });
        out.push_str(&format!(":{}", short(bucket.count)));
    }
    out.push('}');
    out
}
