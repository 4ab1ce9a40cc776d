//! Answers of metrics queries as JSON: proto3's mapping of [`QueryRangeResponse`] and [`QueryInstantResponse`].
//!
//! Owns: the form. Fields at their default are left out, except the list of series and `metrics`, which clients look
//! for.

use super::json::{Object, object};
use super::messages::{
    Exemplar, InstantSeries, PartialStatus, QueryInstantResponse, QueryRangeResponse, Sample, SearchMetrics, TimeSeries,
};
use super::search_json::metrics;

/// `{"series":[…],"metrics":{…}}`
pub fn query_range_json(response: &QueryRangeResponse) -> String {
    let mut out = String::new();
    object(&mut out, |o| {
        if response.series.is_empty() {
            o.name("series").push_str("[]");
        }
        o.list("series", &response.series, time_series);
        tail(response.metrics.as_ref(), response.status, &response.message, o);
    });
    out
}

/// `{"series":[…],"metrics":{…}}` with one value per series.
pub fn query_instant_json(response: &QueryInstantResponse) -> String {
    let mut out = String::new();
    object(&mut out, |o| {
        if response.series.is_empty() {
            o.name("series").push_str("[]");
        }
        o.list("series", &response.series, instant_series);
        tail(response.metrics.as_ref(), response.status, &response.message, o);
    });
    out
}

fn tail(of: Option<&SearchMetrics>, status: i32, message: &str, o: &mut Object<'_>) {
    o.sub("metrics", |o| {
        if let Some(of) = of {
            metrics(of, o);
        }
    });
    if status == PartialStatus::Partial as i32 {
        o.text("status", "PARTIAL");
    }
    o.text("message", message);
}

fn time_series(series: &TimeSeries, o: &mut Object<'_>) {
    o.pairs("labels", &series.labels);
    o.list("samples", &series.samples, sample);
    o.list("exemplars", &series.exemplars, exemplar);
}

fn instant_series(series: &InstantSeries, o: &mut Object<'_>) {
    o.pairs("labels", &series.labels);
    o.double("value", series.value);
}

fn sample(sample: &Sample, o: &mut Object<'_>) {
    o.text("timestampMs", &sample.timestamp_ms.to_string());
    o.double("value", sample.value);
}

fn exemplar(exemplar: &Exemplar, o: &mut Object<'_>) {
    o.pairs("labels", &exemplar.labels);
    o.double("value", exemplar.value);
    o.text("timestampMs", &exemplar.timestamp_ms.to_string());
}

#[cfg(test)]
mod tests {
    use storage::model::value::Value;

    use super::super::key_value;
    use super::*;

    #[test]
    fn the_form_is_the_one_of_the_contract() {
        let labels = vec![key_value("p", &Value::Double(0.9))];
        let exemplar =
            Exemplar { labels: vec![key_value("trace:id", &Value::String("ab".into()))], value: 1.5, timestamp_ms: 7 };
        let series = TimeSeries {
            labels: labels.clone(),
            samples: vec![Sample { timestamp_ms: 5, value: 0.0 }, Sample { timestamp_ms: 6, value: 2.0 }],
            exemplars: vec![exemplar],
        };
        let response = QueryRangeResponse {
            series: vec![series],
            status: PartialStatus::Partial as i32,
            message: "cut".into(),
            ..QueryRangeResponse::default()
        };
        let expected = concat!(
            r#"{"series":[{"labels":[{"key":"p","value":{"doubleValue":0.9}}],"#,
            r#""samples":[{"timestampMs":"5"},{"timestampMs":"6","value":2}],"#,
            r#""exemplars":[{"labels":[{"key":"trace:id","value":{"stringValue":"ab"}}],"value":1.5,"timestampMs":"7"}]}],"#,
            r#""metrics":{},"status":"PARTIAL","message":"cut"}"#
        );
        assert_eq!(query_range_json(&response), expected);
        let instant = QueryInstantResponse {
            series: vec![InstantSeries { labels, value: 3.0 }],
            ..QueryInstantResponse::default()
        };
        assert_eq!(
            query_instant_json(&instant),
            r#"{"series":[{"labels":[{"key":"p","value":{"doubleValue":0.9}}],"value":3}],"metrics":{}}"#
        );
        assert_eq!(query_range_json(&QueryRangeResponse::default()), r#"{"series":[],"metrics":{}}"#);
    }
}
