//! OTLP metrics to series.
//!
//! Owns: the walk over a request, settings, what is refused and counted. Does not own: names (`super::names`),
//! the label sets of points (`labels`), the kinds of points (`number`, `histogram`).
//!
//! Invariants
//! 1. A data point is taken as a whole or refused as a whole, with a line that says why.
//! 2. Of several samples of one series at one time the first stays.

mod exemplars;
mod histogram;
mod labels;
mod number;
mod target_info;

#[cfg(test)]
mod tests;

use std::time::Duration;

use hashbrown::HashSet;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric, ResourceMetrics, metric::Data};
use serde::Deserialize;
use storage::Batch;
use storage::model::batch::MetricsBuilder;
use storage::model::histogram::Histogram;
use storage::model::identity::IdentityId;
use storage::model::time::{NS_PER_MS, TimestampMs};

use super::names::{self, TypeSuffix};
use crate::error::{Error, Result};
use crate::limits::{BUCKETS_PER_SAMPLE, Limits, Rejections, Usage};
use crate::series;
use labels::{Base, LabelSet, Names};

pub use super::names::TranslationStrategy;

/// Settings of the translation.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OtlpMetricsSettings {
    /// How names are translated.
    pub translation_strategy: TranslationStrategy,
    /// Resource attributes that become labels of every series. Default: none.
    pub promote_resource_attributes: Vec<String>,
    /// Every resource attribute but those of `ignore_resource_attributes` becomes a label. Default: off.
    pub promote_all_resource_attributes: bool,
    /// What `promote_all_resource_attributes` leaves out.
    pub ignore_resource_attributes: Vec<String>,
    /// Scope name, version, schema URL and attributes become `otel_scope_*` labels. Default: off.
    pub promote_scope_metadata: bool,
    /// `service.name`, `service.namespace` and `service.instance.id` also stand on `target_info`. Default: off.
    pub keep_identifying_resource_attributes: bool,
    /// Runs of underscores in label names are kept. Default: on.
    pub label_name_preserve_multiple_underscores: bool,
    /// A label name that begins with one underscore gets `key` in front. Default: on.
    pub label_name_underscore_sanitization: bool,
    /// Classic histograms become native ones with custom bounds. Default: off.
    pub convert_histograms_to_nhcb: bool,
    /// Labels `__type__` and `__unit__` are set. Default: off.
    pub type_and_unit_labels: bool,
    /// The lookback of queries: `target_info` is repeated every half of it. Default: five minutes.
    #[serde(skip)]
    pub lookback: Duration,
}

impl Default for OtlpMetricsSettings {
    fn default() -> Self {
        Self {
            translation_strategy: TranslationStrategy::default(),
            promote_resource_attributes: Vec::new(),
            promote_all_resource_attributes: false,
            ignore_resource_attributes: Vec::new(),
            promote_scope_metadata: false,
            keep_identifying_resource_attributes: false,
            label_name_preserve_multiple_underscores: true,
            label_name_underscore_sanitization: true,
            convert_histograms_to_nhcb: false,
            type_and_unit_labels: false,
            lookback: Duration::from_secs(300),
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// What to keep.
    pub batch: Batch,
    /// Data points left out, for `partial_success`.
    pub rejected_points: i64,
    /// Why, for `partial_success`; empty when nothing was left out.
    pub message: String,
}

/// Turns an export request into series. Fails only when the request as a whole is over a limit.
pub fn decode(
    request: &ExportMetricsServiceRequest,
    settings: &OtlpMetricsSettings,
    limits: &Limits,
) -> Result<Decoded> {
    let mut writer = Writer {
        settings,
        limits,
        builder: MetricsBuilder::new(),
        usage: Usage::default(),
        taken: HashSet::default(),
        refused: Rejections::default(),
        refused_points: 0,
    };
    let mut names = Names::new(settings);
    for resource in &request.resource_metrics {
        writer.resource(resource, &mut names)?;
    }
    Ok(Decoded {
        batch: writer.builder.finish()?,
        rejected_points: i64::try_from(writer.refused_points).unwrap_or(i64::MAX),
        message: writer.refused.text(),
    })
}

/// Why a point is not written.
enum Fault {
    /// This point alone, with the reason.
    Point(String),
    /// The whole request.
    Request(Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Request(error)
    }
}

impl From<String> for Fault {
    fn from(reason: String) -> Self {
        Self::Point(reason)
    }
}

/// When a sample is, and since when it counts.
#[derive(Clone, Copy)]
struct Times {
    ts: TimestampMs,
    start: Option<TimestampMs>,
}

impl Times {
    fn new(time_unix_nano: u64, start_time_unix_nano: u64) -> Self {
        Self { ts: to_ms(time_unix_nano), start: (start_time_unix_nano != 0).then(|| to_ms(start_time_unix_nano)) }
    }
}

fn to_ms(unix_nano: u64) -> TimestampMs {
    TimestampMs(i64::try_from(unix_nano / NS_PER_MS.unsigned_abs()).unwrap_or(i64::MAX))
}

/// The text of a bucket's bound or of a quantile: the shortest decimal, never with an exponent.
fn bound_text(value: f64) -> String {
    match value {
        f64::INFINITY => "+Inf".to_owned(),
        f64::NEG_INFINITY => "-Inf".to_owned(),
        value => value.to_string(),
    }
}

/// The flag of a point that says the series ended.
const NO_RECORDED_VALUE: u32 = 1;

fn is_stale_point(flags: u32) -> bool {
    flags & NO_RECORDED_VALUE != 0
}

/// What the points of one metric share.
struct MetricHead<'a> {
    /// Translated.
    name: String,
    /// Prometheus' word for the type.
    kind: &'static str,
    /// Translated.
    unit: String,
    base: &'a Base<'a>,
}

struct Writer<'s> {
    settings: &'s OtlpMetricsSettings,
    limits: &'s Limits,
    builder: MetricsBuilder,
    usage: Usage,
    /// Series and times that have their sample.
    taken: HashSet<(IdentityId, TimestampMs), ahash::RandomState>,
    refused: Rejections,
    refused_points: usize,
}

impl Writer<'_> {
    fn resource<'r>(&mut self, resource: &'r ResourceMetrics, names: &mut Names<'r>) -> Result<()> {
        let origin = labels::Origin::new(resource.resource.as_ref(), self.settings, names);
        for reason in &origin.faults {
            self.refused.push(|| format!("resource attribute left out: {reason}"));
        }
        let mut span = target_info::Span::default();
        for scope in &resource.scope_metrics {
            let base = origin.base(scope, self.settings, names);
            for metric in &scope.metrics {
                span.widen(metric);
                self.metric(metric, &base, names)?;
            }
        }
        self.target_info(&origin, span, names)
    }

    fn metric<'r>(&mut self, metric: &'r Metric, base: &Base<'_>, names: &mut Names<'r>) -> Result<()> {
        let (points, kind, suffix) = match &metric.data {
            None => return Ok(()),
            Some(Data::Gauge(gauge)) => (gauge.data_points.len(), "gauge", TypeSuffix::Ratio),
            Some(Data::Sum(sum)) if sum.is_monotonic => (sum.data_points.len(), "counter", TypeSuffix::Total),
            Some(Data::Sum(sum)) => (sum.data_points.len(), "gauge", TypeSuffix::None),
            Some(Data::Histogram(histogram)) => (histogram.data_points.len(), "histogram", TypeSuffix::None),
            Some(Data::ExponentialHistogram(histogram)) => (histogram.data_points.len(), "histogram", TypeSuffix::None),
            Some(Data::Summary(summary)) => (summary.data_points.len(), "summary", TypeSuffix::None),
        };
        let name = match self.metric_name(metric, suffix) {
            Ok(name) => name,
            Err(reason) => {
                self.refuse(points, metric, &reason);
                return Ok(());
            }
        };
        let head = MetricHead { name, kind, unit: names::unit_name(&metric.unit), base };
        let before = self.refused_points;
        self.points(metric, &head, names)?;
        if self.refused_points - before < points {
            let help = series::cut(&metric.description, self.limits.help_bytes_max);
            self.builder.metadata(&head.name, head.kind, &head.unit, help);
        }
        Ok(())
    }

    fn metric_name(&self, metric: &Metric, suffix: TypeSuffix) -> Result<String, String> {
        check_temporality(metric)?;
        let name = names::metric_name(&metric.name, &metric.unit, suffix, self.settings.translation_strategy)?;
        // Room for the longest suffix of a derived series.
        if name.len() + "_bucket".len() > self.limits.label_value_bytes_max {
            return Err(format!("a metric name of {} bytes, over label_value_bytes_max", name.len()));
        }
        Ok(name)
    }

    fn points<'r>(&mut self, metric: &'r Metric, head: &MetricHead<'_>, names: &mut Names<'r>) -> Result<()> {
        match &metric.data {
            None => Ok(()),
            Some(Data::Gauge(gauge)) => {
                self.each(metric, &gauge.data_points, |writer, point| writer.number(point, head, false, names))
            }
            Some(Data::Sum(sum)) => {
                self.each(metric, &sum.data_points, |writer, point| writer.number(point, head, true, names))
            }
            Some(Data::Histogram(histogram)) => self.each(metric, &histogram.data_points, |writer, point| match writer
                .settings
                .convert_histograms_to_nhcb
            {
                true => writer.custom_histogram(point, head, names),
                false => writer.classic_histogram(point, head, names),
            }),
            Some(Data::ExponentialHistogram(histogram)) => {
                self.each(metric, &histogram.data_points, |writer, point| writer.exponential(point, head, names))
            }
            Some(Data::Summary(summary)) => {
                self.each(metric, &summary.data_points, |writer, point| writer.summary(point, head, names))
            }
        }
    }

    fn each<'r, P>(
        &mut self,
        metric: &Metric,
        points: &'r [P],
        mut write: impl FnMut(&mut Self, &'r P) -> Result<(), Fault>,
    ) -> Result<()> {
        for point in points {
            match write(self, point) {
                Ok(()) => {}
                Err(Fault::Point(reason)) => self.refuse(1, metric, &reason),
                Err(Fault::Request(error)) => return Err(error),
            }
        }
        Ok(())
    }

    fn refuse(&mut self, points: usize, metric: &Metric, reason: &str) {
        if points > 0 {
            self.refused_points += points;
            let name = series::cut(&metric.name, self.limits.label_name_bytes_max);
            self.refused.push(|| format!("metric {name:?}: {points} point(s) refused, {reason}"));
        }
    }

    fn check_time(&self, times: Times) -> Result<(), Fault> {
        match self.limits.future_max {
            Some(max) if times.ts > max => Err(Fault::Point(format!("{} ms is too far in the future", times.ts.0))),
            _ => Ok(()),
        }
    }

    /// Names the series of `labels` under `name` with at most one more label.
    fn series(
        &mut self,
        labels: &LabelSet<'_>,
        head: &MetricHead<'_>,
        name: &str,
        extra: Option<(&str, &str)>,
    ) -> Result<IdentityId, Fault> {
        let mut pairs = labels.pairs(head.base);
        let mut set = |name, value| match pairs.binary_search_by(|pair| pair.0.cmp(name)) {
            Ok(at) => pairs[at].1 = value,
            Err(at) => pairs.insert(at, (name, value)),
        };
        set(storage::model::labels::METRIC_NAME, name);
        if let Some((name, value)) = extra {
            set(name, value);
        }
        if self.settings.type_and_unit_labels {
            set("__type__", head.kind);
            set("__unit__", &head.unit);
        }
        let bytes = series::check(&mut pairs, self.limits)?;
        self.usage.series(bytes, self.limits)?;
        Ok(self.builder.series_from_sorted(&pairs))
    }

    fn sample(&mut self, id: IdentityId, times: Times, value: f64) -> Result<()> {
        if self.taken.insert((id, times.ts)) {
            self.usage.samples(1, self.limits)?;
            self.builder.sample(id, times.ts, value, times.start);
        }
        Ok(())
    }

    fn native(&mut self, id: IdentityId, times: Times, value: Histogram) -> Result<()> {
        if self.taken.insert((id, times.ts)) {
            let buckets = value.positive_buckets.len() + value.negative_buckets.len();
            self.usage.samples(1 + buckets / BUCKETS_PER_SAMPLE, self.limits)?;
            self.builder.histogram(id, times.ts, value, times.start);
        }
        Ok(())
    }
}

/// Only cumulative points add up across restarts and lost requests.
fn check_temporality(metric: &Metric) -> Result<(), String> {
    let temporality = match &metric.data {
        Some(Data::Sum(sum)) => sum.aggregation_temporality,
        Some(Data::Histogram(histogram)) => histogram.aggregation_temporality,
        Some(Data::ExponentialHistogram(histogram)) => histogram.aggregation_temporality,
        None | Some(Data::Gauge(_) | Data::Summary(_)) => return Ok(()),
    };
    match AggregationTemporality::try_from(temporality) {
        Ok(AggregationTemporality::Cumulative) => Ok(()),
        Ok(AggregationTemporality::Delta) => {
            Err("delta temporality: configure the sender, or a collector's deltatocumulative processor, for cumulative"
                .to_owned())
        }
        _ => Err(format!("aggregation temporality {temporality} is not known")),
    }
}
