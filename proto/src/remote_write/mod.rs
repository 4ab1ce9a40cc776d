//! Prometheus remote write 1.0 and 2.0: protobuf bodies to batches.
//!
//! Owns: what both versions share: what becomes of a request, and the sink their series go into. Does not own:
//! snappy (`compress`), order in time, duplicates and age of samples (the server's ingest).
//!
//! Invariants
//! 1. A body that is not protobuf is an error as a whole; a bad series, histogram or exemplar is left out alone.
//! 2. Text is borrowed from the body until it stands in the batch.

mod histogram;
mod v1;
mod v2;

#[cfg(test)]
mod messages;
#[cfg(test)]
mod tests;

use storage::Batch;
use storage::model::batch::MetricsBuilder;
use storage::model::identity::IdentityId;
use storage::model::time::TimestampMs;

use crate::error::{Error, Result};
use crate::limits::{BUCKETS_PER_SAMPLE, Limits, Rejections, Usage};
use crate::series::{self, Pair};

pub use v1::decode as decode_v1;
pub use v2::decode as decode_v2;

/// Characters of all names and values of an exemplar's labels together.
pub(crate) const EXEMPLAR_CHARS_MAX: usize = 128;

/// How many items of a request are in its batch; remote write 2.0 answers with these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Float samples.
    pub samples: usize,
    /// Native-histogram samples.
    pub histograms: usize,
    /// Exemplars.
    pub exemplars: usize,
}

/// What became of a request.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// What to keep.
    pub batch: Batch,
    /// How much that is.
    pub written: Written,
    /// What was refused and must be told the sender with a 400, after the batch is kept.
    pub rejected: Rejections,
    /// What was left out without telling the sender (bad series of 1.0, oversized exemplars): worth a log line
    /// and a counter.
    pub skipped: Rejections,
}

/// Where the series of a request go.
struct Sink<'l> {
    limits: &'l Limits,
    builder: MetricsBuilder,
    usage: Usage,
    written: Written,
    rejected: Rejections,
    skipped: Rejections,
}

impl<'l> Sink<'l> {
    fn new(limits: &'l Limits) -> Self {
        Self {
            limits,
            builder: MetricsBuilder::new(),
            usage: Usage::default(),
            written: Written::default(),
            rejected: Rejections::default(),
            skipped: Rejections::default(),
        }
    }

    /// Names a series whose labels passed [`series::check`], which told `label_bytes`.
    fn series(&mut self, labels: &[Pair<'_>], label_bytes: usize) -> Result<IdentityId> {
        self.usage.series(label_bytes, self.limits)?;
        Ok(self.builder.series_from_sorted(labels))
    }

    /// Whether `ts` is too far ahead; then a line says so.
    fn is_too_far_ahead(&mut self, labels: &[Pair<'_>], ts: TimestampMs) -> bool {
        let future = self.limits.future_max.is_some_and(|max| ts > max);
        if future {
            self.rejected
                .push(|| format!("sample at {} ms is too far in the future: {}", ts.0, series::describe(labels)));
        }
        future
    }

    fn sample(
        &mut self,
        id: IdentityId,
        labels: &[Pair<'_>],
        ts: TimestampMs,
        value: f64,
        start: Option<TimestampMs>,
    ) -> Result<()> {
        if self.is_too_far_ahead(labels, ts) {
            return Ok(());
        }
        self.usage.samples(1, self.limits)?;
        self.builder.sample(id, ts, value, start);
        self.written.samples += 1;
        Ok(())
    }

    /// Decodes and adds one histogram message; one that breaks a rule is told the sender.
    fn histogram(&mut self, id: IdentityId, labels: &[Pair<'_>], message: &[u8]) -> Result<()> {
        let sample = match histogram::decode(message, self.limits)? {
            Ok(sample) => sample,
            Err(reason) => {
                self.rejected.push(|| format!("histogram refused, {reason}: {}", series::describe(labels)));
                return Ok(());
            }
        };
        if self.is_too_far_ahead(labels, sample.ts) {
            return Ok(());
        }
        let buckets = sample.value.positive_buckets.len() + sample.value.negative_buckets.len();
        self.usage.samples(1 + buckets / BUCKETS_PER_SAMPLE, self.limits)?;
        self.builder.histogram(id, sample.ts, sample.value, sample.start);
        self.written.histograms += 1;
        Ok(())
    }

    fn exemplar(
        &mut self,
        id: IdentityId,
        labels: &[Pair<'_>],
        ts: TimestampMs,
        value: f64,
        own: &[Pair<'_>],
    ) -> Result<()> {
        let chars: usize = own.iter().map(|(name, value)| name.chars().count() + value.chars().count()).sum();
        if chars > EXEMPLAR_CHARS_MAX {
            self.skipped.push(|| {
                format!(
                    "exemplar with {chars} characters of labels, {EXEMPLAR_CHARS_MAX} are allowed: {}",
                    series::describe(labels)
                )
            });
            return Ok(());
        }
        self.usage.samples(1, self.limits)?;
        self.builder.exemplar(id, ts, value, own.iter().copied())?;
        self.written.exemplars += 1;
        Ok(())
    }

    /// Adds what is known of a family. A family without a name says nothing.
    fn metadata(&mut self, family: &str, kind: u32, unit: &str, help: &str) {
        if !family.is_empty() {
            self.builder.metadata(family, metric_type(kind), unit, series::cut(help, self.limits.help_bytes_max));
        }
    }

    fn finish(self) -> Result<Decoded> {
        let batch = self.builder.finish()?;
        Ok(Decoded { batch, written: self.written, rejected: self.rejected, skipped: self.skipped })
    }
}

/// Prometheus' word for a metric type; both versions number them alike.
fn metric_type(number: u32) -> &'static str {
    match number {
        1 => "counter",
        2 => "gauge",
        3 => "histogram",
        4 => "gaugehistogram",
        5 => "summary",
        6 => "info",
        7 => "stateset",
        _ => "unknown",
    }
}

/// Names the place of a fault in the body.
fn in_series(index: usize) -> impl Fn(Error) -> Error {
    move |error| error.at(format_args!("series {index}"))
}
