//! `target_info`: the resource as a series, to be joined with the others by job and instance.

use opentelemetry_proto::tonic::metrics::v1::{Metric, metric::Data};
use storage::model::time::TimestampMs;

use super::labels::{IDENTIFYING, LabelSet, Names, Origin};
use super::{Fault, MetricHead, Times, Writer, to_ms};
use crate::error::Result;

const NAME: &str = "target_info";
const HELP: &str = "Target metadata";

/// Samples of one resource in one request: five times a day's worth at the default lookback. A point with a time
/// far off must not fill the store; only the latest are written then.
const SAMPLES_MAX: i64 = 2880;

/// The earliest and the latest time of the points of a resource.
#[derive(Clone, Copy, Default)]
pub(super) struct Span(Option<(TimestampMs, TimestampMs)>);

impl Span {
    pub(super) fn widen(&mut self, metric: &Metric) {
        match &metric.data {
            None => {}
            Some(Data::Gauge(data)) => self.add(data.data_points.iter().map(|p| p.time_unix_nano)),
            Some(Data::Sum(data)) => self.add(data.data_points.iter().map(|p| p.time_unix_nano)),
            Some(Data::Histogram(data)) => self.add(data.data_points.iter().map(|p| p.time_unix_nano)),
            Some(Data::ExponentialHistogram(data)) => self.add(data.data_points.iter().map(|p| p.time_unix_nano)),
            Some(Data::Summary(data)) => self.add(data.data_points.iter().map(|p| p.time_unix_nano)),
        }
    }

    fn add(&mut self, times: impl Iterator<Item = u64>) {
        for ts in times.map(to_ms) {
            let (first, last) = self.0.unwrap_or((ts, ts));
            self.0 = Some((first.min(ts), last.max(ts)));
        }
    }
}

impl Writer<'_> {
    /// Writes it for a resource that has more than its identity, and one to join by.
    pub(super) fn target_info<'r>(&mut self, origin: &Origin<'r>, span: Span, names: &mut Names<'r>) -> Result<()> {
        let Some((first, last)) = span.0 else { return Ok(()) };
        let identifies = |key: &str| IDENTIFYING.contains(&key);
        let tells_more = origin.attributes.iter().any(|pair| !identifies(&pair.key));
        if !tells_more || !origin.is_identified() {
            return Ok(());
        }
        match self.write_target_info(origin, first, last, names) {
            Ok(()) => Ok(()),
            Err(Fault::Point(reason)) => {
                self.refused.push(|| format!("{NAME} left out, {reason}"));
                Ok(())
            }
            Err(Fault::Request(error)) => Err(error),
        }
    }

    fn write_target_info<'r>(
        &mut self,
        origin: &Origin<'r>,
        first: TimestampMs,
        last: TimestampMs,
        names: &mut Names<'r>,
    ) -> Result<(), Fault> {
        let keep = self.settings.keep_identifying_resource_attributes;
        let attributes = origin.attributes.iter().filter(|pair| keep || !IDENTIFYING.contains(&pair.key.as_str()));
        let labels = LabelSet::of_resource(attributes, names)?;
        let base = origin.identity_base();
        let head = MetricHead { name: NAME.to_owned(), kind: "gauge", unit: String::new(), base: &base };
        let last = self.limits.future_max.map_or(last, |max| last.min(max));
        let id = self.series(&labels, &head, NAME, None)?;
        let interval = i64::try_from(self.settings.lookback.as_millis() / 2).unwrap_or(i64::MAX).max(1);
        let mut ts = first.0.max(last.0.saturating_sub(interval.saturating_mul(SAMPLES_MAX)));
        while ts < last.0 {
            self.sample(id, Times { ts: TimestampMs(ts), start: None }, 1.0)?;
            ts = ts.saturating_add(interval);
        }
        self.sample(id, Times { ts: last, start: None }, 1.0)?;
        self.builder.metadata(NAME, "gauge", "", HELP);
        Ok(())
    }
}
