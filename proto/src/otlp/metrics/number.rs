//! Gauges, sums and summaries.

use opentelemetry_proto::tonic::metrics::v1::{NumberDataPoint, SummaryDataPoint, number_data_point::Value};
use storage::model::histogram::stale_nan;

use super::labels::{LabelSet, Names};
use super::{Fault, MetricHead, Times, Writer, bound_text, is_stale_point};

impl Writer<'_> {
    pub(super) fn number<'r>(
        &mut self,
        point: &'r NumberDataPoint,
        head: &MetricHead<'_>,
        with_exemplars: bool,
        names: &mut Names<'r>,
    ) -> Result<(), Fault> {
        let times = Times::new(point.time_unix_nano, point.start_time_unix_nano);
        self.check_time(times)?;
        let value = match point.value {
            _ if is_stale_point(point.flags) => stale_nan(),
            Some(Value::AsDouble(value)) => value,
            Some(Value::AsInt(value)) => value as f64,
            None => return Err(Fault::Point("a point without a value".to_owned())),
        };
        let labels = LabelSet::new(&point.attributes, head.base, self.limits, names)?;
        let id = self.series(&labels, head, &head.name, None)?;
        self.sample(id, times, value)?;
        if with_exemplars {
            for exemplar in &point.exemplars {
                self.exemplar(id, exemplar)?;
            }
        }
        Ok(())
    }

    pub(super) fn summary<'r>(
        &mut self,
        point: &'r SummaryDataPoint,
        head: &MetricHead<'_>,
        names: &mut Names<'r>,
    ) -> Result<(), Fault> {
        let times = Times::new(point.time_unix_nano, point.start_time_unix_nano);
        self.check_time(times)?;
        let limit = self.limits.histogram_buckets_max;
        if point.quantile_values.len() > limit {
            return Err(Fault::Point(format!(
                "{} quantiles, over histogram_buckets_max {limit}",
                point.quantile_values.len()
            )));
        }
        let stale = is_stale_point(point.flags).then(stale_nan);
        let labels = LabelSet::new(&point.attributes, head.base, self.limits, names)?;
        let derived = [("_sum", point.sum), ("_count", point.count as f64)];
        for (suffix, value) in derived {
            let id = self.series(&labels, head, &format!("{}{suffix}", head.name), None)?;
            self.sample(id, times, stale.unwrap_or(value))?;
        }
        for quantile in &point.quantile_values {
            let text = bound_text(quantile.quantile);
            let id = self.series(&labels, head, &head.name, Some(("quantile", &text)))?;
            self.sample(id, times, stale.unwrap_or(quantile.value))?;
        }
        Ok(())
    }
}
