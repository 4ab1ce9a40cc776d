//! Histograms: explicit bounds as classic series or as one native histogram, exponential ones as native.

use opentelemetry_proto::tonic::metrics::v1::{
    ExponentialHistogramDataPoint, HistogramDataPoint, exponential_histogram_data_point::Buckets,
};
use storage::model::histogram::{BucketSpan, Histogram, SCHEMA_CUSTOM, stale_nan};

use super::labels::{LabelSet, Names};
use super::{Fault, MetricHead, Times, Writer, bound_text, exemplars, is_stale_point};
use crate::limits::Limits;
use crate::native;

/// The zero bucket's width when the sender gives none.
const ZERO_THRESHOLD_DEFAULT: f64 = 1e-128;

impl Writer<'_> {
    /// `_bucket` with cumulative counts, `_count`, and `_sum` when there is one. A stale marker goes to all of
    /// them: whether the series had a sum is not known then.
    pub(super) fn classic_histogram<'r>(
        &mut self,
        point: &'r HistogramDataPoint,
        head: &MetricHead<'_>,
        names: &mut Names<'r>,
    ) -> Result<(), Fault> {
        let times = Times::new(point.time_unix_nano, point.start_time_unix_nano);
        self.check_time(times)?;
        let stale = is_stale_point(point.flags).then(stale_nan);
        check_classic(point, stale.is_some(), self.limits)?;
        let labels = LabelSet::new(&point.attributes, head.base, self.limits, names)?;
        if let Some(sum) = stale.or(point.sum) {
            let id = self.series(&labels, head, &format!("{}_sum", head.name), None)?;
            self.sample(id, times, sum)?;
        }
        let count = point.count as f64;
        let id = self.series(&labels, head, &format!("{}_count", head.name), None)?;
        self.sample(id, times, stale.unwrap_or(count))?;

        let name = format!("{}_bucket", head.name);
        let mut cumulative = 0u64;
        let mut buckets = Vec::with_capacity(point.explicit_bounds.len() + 1);
        for (i, bound) in point.explicit_bounds.iter().enumerate() {
            cumulative = cumulative.saturating_add(point.bucket_counts.get(i).copied().unwrap_or(0));
            let id = self.series(&labels, head, &name, Some(("le", &bound_text(*bound))))?;
            self.sample(id, times, stale.unwrap_or(cumulative as f64))?;
            buckets.push(id);
        }
        let id = self.series(&labels, head, &name, Some(("le", "+Inf")))?;
        self.sample(id, times, stale.unwrap_or(count))?;
        buckets.push(id);
        for exemplar in &point.exemplars {
            let value = exemplars::value(exemplar).unwrap_or(0.0);
            let at = point.explicit_bounds.partition_point(|bound| *bound < value);
            self.exemplar(buckets[at.min(buckets.len() - 1)], exemplar)?;
        }
        Ok(())
    }

    /// One native histogram with the same bounds.
    pub(super) fn custom_histogram<'r>(
        &mut self,
        point: &'r HistogramDataPoint,
        head: &MetricHead<'_>,
        names: &mut Names<'r>,
    ) -> Result<(), Fault> {
        let times = Times::new(point.time_unix_nano, point.start_time_unix_nano);
        self.check_time(times)?;
        let stale = is_stale_point(point.flags);
        check_classic(point, stale, self.limits)?;
        let mut histogram = Histogram {
            schema: SCHEMA_CUSTOM,
            custom_values: point.explicit_bounds.clone(),
            sum: if stale { stale_nan() } else { point.sum.unwrap_or(0.0) },
            ..Histogram::default()
        };
        if !stale {
            let counts = (0i64..).zip(point.bucket_counts.iter().map(|count| *count as f64));
            (histogram.positive_spans, histogram.positive_buckets) = native::merge(counts, 0)?;
            histogram.count = point.count as f64;
            native::check_total(total(&point.bucket_counts), point.count, histogram.sum)?;
        }
        native::check(&histogram)?;
        let labels = LabelSet::new(&point.attributes, head.base, self.limits, names)?;
        let id = self.series(&labels, head, &head.name, None)?;
        self.native(id, times, histogram)?;
        for exemplar in &point.exemplars {
            self.exemplar(id, exemplar)?;
        }
        Ok(())
    }

    pub(super) fn exponential<'r>(
        &mut self,
        point: &'r ExponentialHistogramDataPoint,
        head: &MetricHead<'_>,
        names: &mut Names<'r>,
    ) -> Result<(), Fault> {
        let times = Times::new(point.time_unix_nano, point.start_time_unix_nano);
        self.check_time(times)?;
        let histogram = exponential(point, self.limits)?;
        let labels = LabelSet::new(&point.attributes, head.base, self.limits, names)?;
        let id = self.series(&labels, head, &head.name, None)?;
        self.native(id, times, histogram)?;
        for exemplar in &point.exemplars {
            self.exemplar(id, exemplar)?;
        }
        Ok(())
    }
}

/// Bounds ascend and there is one count more than bounds, or none of either. A stale point may leave counts out.
fn check_classic(point: &HistogramDataPoint, stale: bool, limits: &Limits) -> Result<(), String> {
    let (bounds, counts) = (point.explicit_bounds.len(), point.bucket_counts.len());
    if bounds.max(counts) > limits.histogram_buckets_max {
        return Err(format!("{counts} buckets, over histogram_buckets_max {}", limits.histogram_buckets_max));
    }
    let empty = counts == 0 && (bounds == 0 || stale);
    if counts != bounds + 1 && !empty {
        return Err(format!("{counts} bucket counts do not fit {bounds} bounds"));
    }
    // A bound of +Inf may close the list: its bucket is the one that always is.
    native::check_bounds(point.explicit_bounds.strip_suffix(&[f64::INFINITY]).unwrap_or(&point.explicit_bounds))
}

fn total(counts: &[u64]) -> u128 {
    counts.iter().map(|count| u128::from(*count)).sum()
}

fn exponential(point: &ExponentialHistogramDataPoint, limits: &Limits) -> Result<Histogram, String> {
    if point.scale < native::SCHEMA_MIN {
        return Err(format!("scale {} is below {}", point.scale, native::SCHEMA_MIN));
    }
    let schema = point.scale.min(native::SCHEMA_MAX);
    let zero_threshold = if point.zero_threshold > 0.0 { point.zero_threshold } else { ZERO_THRESHOLD_DEFAULT };
    if is_stale_point(point.flags) {
        return Ok(Histogram { schema, zero_threshold, sum: stale_nan(), ..Histogram::default() });
    }
    let shift = (point.scale - schema).unsigned_abs();
    let (positive_spans, positive_buckets) = side(point.positive.as_ref(), shift, limits)?;
    let (negative_spans, negative_buckets) = side(point.negative.as_ref(), shift, limits)?;
    let histogram = Histogram {
        schema,
        count: point.count as f64,
        sum: point.sum.unwrap_or(0.0),
        zero_threshold,
        zero_count: point.zero_count as f64,
        positive_spans,
        positive_buckets,
        negative_spans,
        negative_buckets,
        ..Histogram::default()
    };
    native::check(&histogram)?;
    let counts =
        [&point.positive, &point.negative].map(|side| side.as_ref().map_or(0, |side| total(&side.bucket_counts)));
    native::check_total(counts[0] + counts[1] + u128::from(point.zero_count), point.count, histogram.sum)?;
    Ok(histogram)
}

/// OTLP counts buckets by their lower bound, native histograms by their upper one: hence the one.
fn side(buckets: Option<&Buckets>, shift: u32, limits: &Limits) -> Result<(Vec<BucketSpan>, Vec<f64>), String> {
    let Some(buckets) = buckets else { return Ok(Default::default()) };
    if buckets.bucket_counts.len() > limits.histogram_buckets_max {
        let max = limits.histogram_buckets_max;
        return Err(format!("{} buckets, over histogram_buckets_max {max}", buckets.bucket_counts.len()));
    }
    let first = i64::from(buckets.offset) + 1;
    native::merge((first..).zip(buckets.bucket_counts.iter().map(|count| *count as f64)), shift)
}
