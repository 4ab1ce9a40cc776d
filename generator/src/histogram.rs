//! One latency: classic buckets, a native histogram, the newest exemplar of each bucket.
//!
//! Owns: counting and the samples made of it.

use std::collections::BTreeMap;

use storage::error::Result;
use storage::model::histogram::{BucketSpan, Histogram, stale_nan};
use storage::model::span::TraceId;

use crate::{Life, Output, labels_of, to_ms};

/// The resolution of native histograms: eight buckets for each doubling.
const SCHEMA: i32 = 3;
/// Observations up to this magnitude fall into the zero bucket, as Prometheus' clients have it.
const ZERO_THRESHOLD: f64 = 2.938_735_877_055_719e-39;

/// The upper bounds of a family's classic buckets, without +Inf, with their texts.
#[derive(Debug)]
pub(crate) struct Bounds {
    values: Vec<f64>,
    texts: Vec<String>,
}

impl Bounds {
    /// `count` bounds, each twice the one before.
    pub(crate) fn doubling(first: f64, count: i32) -> Self {
        let values: Vec<f64> = (0..count).map(|i| first * 2f64.powi(i)).collect();
        let texts = values.iter().map(f64::to_string).chain(["+Inf".to_owned()]).collect();
        Self { values, texts }
    }

    fn of(&self, seconds: f64) -> usize {
        self.values.partition_point(|bound| *bound < seconds)
    }
}

#[derive(Clone, Copy, Debug)]
struct Exemplar {
    trace: TraceId,
    seconds: f64,
    ts_ns: i64,
}

/// The state of one histogram.
#[derive(Debug)]
pub(crate) struct Latency {
    /// By bucket, +Inf last; not cumulative.
    counts: Vec<u64>,
    /// Since the last collection.
    exemplars: Vec<Option<Exemplar>>,
    sum: f64,
    zeros: u64,
    /// Native buckets by index.
    native: BTreeMap<i32, u64>,
}

impl Latency {
    pub(crate) fn new(bounds: &Bounds) -> Self {
        let buckets = bounds.texts.len();
        Self { counts: vec![0; buckets], exemplars: vec![None; buckets], sum: 0.0, zeros: 0, native: BTreeMap::new() }
    }

    pub(crate) fn observe(&mut self, bounds: &Bounds, native: bool, seconds: f64, trace: Option<TraceId>, ts_ns: i64) {
        let bucket = bounds.of(seconds);
        self.counts[bucket] += 1;
        self.sum += seconds;
        if let Some(trace) = trace {
            self.exemplars[bucket] = Some(Exemplar { trace, seconds, ts_ns });
        }
        if native {
            match seconds <= ZERO_THRESHOLD {
                true => self.zeros += 1,
                false => *self.native.entry(native_index(seconds)).or_default() += 1,
            }
        }
    }

    fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Writes the samples of the family `name`, and the exemplars once.
    pub(crate) fn collect(
        &mut self,
        out: &mut Output,
        bounds: &Bounds,
        name: &str,
        labels: &[(&str, &str)],
        life: Life,
        exemplar_label: &str,
    ) -> Result<()> {
        if out.histograms.classic() {
            let bucket_name = format!("{name}_bucket");
            let mut below = 0;
            for (bucket, le) in bounds.texts.iter().enumerate() {
                below += self.counts[bucket];
                let mut with_le: Vec<(&str, &str)> = labels.to_vec();
                with_le.push(("le", le));
                out.counter(&with_le, &bucket_name, below as f64, life);
                if let Some(exemplar) = self.exemplars[bucket] {
                    let id = out.builder.series(labels_of(&bucket_name, labels, Some(le)));
                    exemplar.write(out, id, exemplar_label)?;
                }
            }
            out.counter(labels, &format!("{name}_sum"), self.sum, life);
            out.counter(labels, &format!("{name}_count"), self.total() as f64, life);
        }
        if out.histograms.native() {
            let id = out.builder.series(labels_of(name, labels, None));
            let now = out.times.now;
            out.builder.histogram(id, now, self.to_native(life), None);
            if !out.histograms.classic() {
                for exemplar in self.exemplars.iter().flatten() {
                    exemplar.write(out, id, exemplar_label)?;
                }
            }
        }
        self.exemplars.fill(None);
        Ok(())
    }

    fn to_native(&self, life: Life) -> Histogram {
        if life == Life::Gone {
            return Histogram { sum: stale_nan(), ..Histogram::default() };
        }
        let mut spans: Vec<BucketSpan> = Vec::new();
        let mut last: Option<i32> = None;
        for index in self.native.keys() {
            match (last, spans.last_mut()) {
                (Some(before), Some(span)) if before + 1 == *index => span.length += 1,
                (before, _) => {
                    let offset = before.map_or(*index, |before| index - before - 1);
                    spans.push(BucketSpan { offset, length: 1 });
                }
            }
            last = Some(*index);
        }
        Histogram {
            schema: SCHEMA,
            count: self.total() as f64,
            sum: self.sum,
            zero_threshold: ZERO_THRESHOLD,
            zero_count: self.zeros as f64,
            positive_spans: spans,
            positive_buckets: self.native.values().map(|count| *count as f64).collect(),
            ..Histogram::default()
        }
    }
}

impl Exemplar {
    fn write(&self, out: &mut Output, id: storage::model::identity::IdentityId, label: &str) -> Result<()> {
        let hex: String = self.trace.iter().map(|byte| format!("{byte:02x}")).collect();
        out.builder.exemplar(id, to_ms(self.ts_ns), self.seconds, [(label, hex.as_str())].into_iter())
    }
}

/// The bucket (base^(i−1), base^i] that holds `seconds` > 0, with base = 2^(2^−schema).
fn native_index(seconds: f64) -> i32 {
    let exact = seconds.log2() * f64::from(1 << SCHEMA);
    exact.ceil() as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_inclusive_above() {
        let bounds = Bounds::doubling(0.002, 14);
        assert_eq!(bounds.texts.len(), 15);
        assert_eq!((bounds.texts[0].as_str(), bounds.texts[13].as_str()), ("0.002", "16.384"));
        assert_eq!((bounds.of(0.002), bounds.of(0.0021), bounds.of(100.0)), (0, 1, 14));
    }

    #[test]
    fn native_buckets_hold_their_upper_bound() {
        assert_eq!((native_index(1.0), native_index(2.0), native_index(0.5)), (0, 8, -8));
        assert_eq!((native_index(1.01), native_index(1.99)), (1, 8));
    }

    #[test]
    fn native_histograms_have_runs_of_neighbours() {
        let bounds = Bounds::doubling(0.1, 8);
        let mut latency = Latency::new(&bounds);
        for seconds in [0.0, 1.0, 1.01, 2.0] {
            latency.observe(&bounds, true, seconds, None, 0);
        }
        let native = latency.to_native(Life::Going);
        let spans: Vec<(i32, u32)> = native.positive_spans.iter().map(|span| (span.offset, span.length)).collect();
        assert_eq!(spans, [(0, 2), (6, 1)]);
        assert_eq!((native.count, native.zero_count, native.positive_buckets), (4.0, 1.0, vec![1.0, 1.0, 1.0]));
    }
}
