//! Answers of Tempo's API as messages, for JSON and protobuf alike.

use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use proto::tempo::{
    Exemplar, InstantSeries, KeyValue, PartialStatus, QueryInstantResponse, QueryRangeResponse, Sample, SearchMetrics,
    SearchResponse, ServiceStats, Span, SpanSet, TimeSeries, TraceSearchMetadata, key_value, query_instant_json,
    query_range_json, search_json,
};
use query::traceql::{
    FoundSpan, FoundTrace, MetricsAnswer, MetricsExemplar, MetricsSeries, SearchAnswer, TagScope, TagValue,
};
use query::{Error, Kind, Result};
use storage::model::span::TraceId;
use storage::model::value::Value;

use super::params::scope_name;
use crate::http::json::Json;
use crate::http::params::accepts_protobuf;
use crate::http::{PROTOBUF, json_response, protobuf_response};

/// An answer that is ready to be sent.
pub enum Encoded {
    /// `application/json`
    Json(String),
    /// `application/protobuf`
    Protobuf(Vec<u8>),
}

impl Encoded {
    /// With status 200.
    pub fn into_response(self) -> Response {
        match self {
            Self::Json(text) => {
                let mut json = Json::new();
                json.raw(&text);
                json_response(StatusCode::OK, json)
            }
            Self::Protobuf(bytes) => protobuf_response(StatusCode::OK, PROTOBUF, bytes),
        }
    }

    /// An error if it is larger than `bytes_max`.
    pub fn bounded(self, bytes_max: usize) -> Result<Self> {
        let bytes = match &self {
            Self::Json(text) => text.len(),
            Self::Protobuf(bytes) => bytes.len(),
        };
        if bytes > bytes_max {
            let message =
                format!("the answer is larger than `query.answer_bytes_max` ({bytes_max} bytes): ask for less");
            return Err(Error::new(Kind::Limit, message));
        }
        Ok(self)
    }
}

/// Whether an answer is asked for as protobuf.
pub fn wants_protobuf(headers: &HeaderMap) -> bool {
    accepts_protobuf(headers)
}

/// The answer of a search.
pub fn search(answer: &SearchAnswer, protobuf: bool) -> Encoded {
    let response = search_response(answer);
    if protobuf {
        Encoded::Protobuf(prost::Message::encode_to_vec(&response))
    } else {
        Encoded::Json(search_json(&response))
    }
}

/// The message of a search.
pub fn search_response(answer: &SearchAnswer) -> SearchResponse {
    let metrics = search_metrics(answer.inspected_traces, answer.inspected_spans);
    SearchResponse { traces: answer.traces.iter().map(found_trace).collect(), metrics: Some(metrics) }
}

fn search_metrics(inspected_traces: u64, inspected_spans: u64) -> SearchMetrics {
    SearchMetrics {
        inspected_traces: u32::try_from(inspected_traces).unwrap_or(u32::MAX),
        inspected_spans,
        // One job, done: Grafana's progress bar divides the two.
        completed_jobs: 1,
        total_jobs: 1,
        ..SearchMetrics::default()
    }
}

/// The answer of a metrics query over a range.
pub fn metrics_range(answer: &MetricsAnswer, protobuf: bool) -> Encoded {
    let response = query_range_response(answer);
    if protobuf {
        Encoded::Protobuf(prost::Message::encode_to_vec(&response))
    } else {
        Encoded::Json(query_range_json(&response))
    }
}

/// The answer of an instant metrics query.
pub fn metrics_instant(answer: &MetricsAnswer, protobuf: bool) -> Encoded {
    let response = query_instant_response(answer);
    if protobuf {
        Encoded::Protobuf(prost::Message::encode_to_vec(&response))
    } else {
        Encoded::Json(query_instant_json(&response))
    }
}

fn status_of(answer: &MetricsAnswer) -> i32 {
    let status = if answer.message.is_some() { PartialStatus::Partial } else { PartialStatus::Complete };
    status as i32
}

fn key_values(pairs: &[(String, Value)]) -> Vec<KeyValue> {
    pairs.iter().map(|(key, value)| key_value(key, value)).collect()
}

/// The message of a metrics query over a range.
pub fn query_range_response(answer: &MetricsAnswer) -> QueryRangeResponse {
    let exemplar = |exemplar: &MetricsExemplar| Exemplar {
        labels: key_values(&exemplar.labels),
        value: exemplar.value,
        timestamp_ms: exemplar.timestamp_ms,
    };
    let series = |series: &MetricsSeries| TimeSeries {
        labels: key_values(&series.labels),
        samples: series.samples.iter().map(|(t, value)| Sample { timestamp_ms: *t, value: *value }).collect(),
        exemplars: series.exemplars.iter().map(exemplar).collect(),
    };
    QueryRangeResponse {
        series: answer.series.iter().map(series).collect(),
        metrics: Some(search_metrics(answer.inspected_traces, answer.inspected_spans)),
        status: status_of(answer),
        message: answer.message.clone().unwrap_or_default(),
    }
}

/// The message of an instant metrics query.
pub fn query_instant_response(answer: &MetricsAnswer) -> QueryInstantResponse {
    let series = |series: &MetricsSeries| InstantSeries {
        labels: key_values(&series.labels),
        value: series.samples.first().map_or(0.0, |(_, value)| *value),
    };
    QueryInstantResponse {
        series: answer.series.iter().map(series).collect(),
        metrics: Some(search_metrics(answer.inspected_traces, answer.inspected_spans)),
        status: status_of(answer),
        message: answer.message.clone().unwrap_or_default(),
    }
}

fn found_trace(trace: &FoundTrace) -> TraceSearchMetadata {
    let span_sets: Vec<SpanSet> = trace.span_sets.iter().map(span_set).collect();
    let stats = |stats: &query::traceql::ServiceStats| ServiceStats {
        span_count: stats.span_count,
        error_count: stats.error_count,
    };
    TraceSearchMetadata {
        trace_id: short_trace_id(trace.trace_id),
        root_service_name: trace.root_service_name.clone(),
        root_trace_name: trace.root_trace_name.clone(),
        start_time_unix_nano: u64::try_from(trace.start_ns).unwrap_or(0),
        duration_ms: u32::try_from(trace.duration_ns / 1_000_000).unwrap_or(if trace.duration_ns < 0 {
            0
        } else {
            u32::MAX
        }),
        span_set: span_sets.first().cloned(),
        span_sets,
        service_stats: trace.service_stats.iter().map(|(name, counts)| (name.clone(), stats(counts))).collect(),
    }
}

fn span_set(set: &query::traceql::SpanSet) -> SpanSet {
    SpanSet {
        spans: set.spans.iter().map(span).collect(),
        matched: u32::try_from(set.matched).unwrap_or(u32::MAX),
        attributes: set.attributes.iter().map(|(key, value)| key_value(key, value)).collect(),
    }
}

fn span(span: &FoundSpan) -> Span {
    Span {
        span_id: format!("{:016x}", u64::from_be_bytes(span.span_id)),
        name: span.name.clone(),
        start_time_unix_nano: u64::try_from(span.start_ns).unwrap_or(0),
        duration_nanos: u64::try_from(span.duration_ns).unwrap_or(0),
        attributes: span.attributes.iter().map(|(key, value)| key_value(key, value)).collect(),
    }
}

/// Hex without leading zeros.
fn short_trace_id(id: TraceId) -> String {
    format!("{:x}", u128::from_be_bytes(id))
}

/// `search/tags` of version 1: names of all scopes together.
pub fn tag_names_v1(names: &[String]) -> Encoded {
    let mut json = Json::new();
    json.raw(r#"{"tagNames":"#).strings(names).raw(r#","metrics":{}}"#);
    Encoded::Json(json.finish())
}

/// `search/tags` of version 2: names by scope; a scope without names is left out.
pub fn tag_names_v2(scopes: &[(TagScope, Vec<String>)], limit: usize) -> Encoded {
    let filled = scopes.iter().filter(|(_, names)| !names.is_empty());
    let mut json = Json::new();
    json.raw(r#"{"scopes":"#).array(filled, |json, (scope, names)| {
        json.raw(r#"{"name":"#).string(scope_name(*scope)).raw(r#","tags":"#);
        json.strings(names.iter().take(limit)).raw("}");
    });
    json.raw(r#","metrics":{}}"#);
    Encoded::Json(json.finish())
}

/// Tag values of version 1: texts.
pub fn tag_values_v1(values: &[String], limit: usize) -> Encoded {
    let mut json = Json::new();
    json.raw(r#"{"tagValues":"#).strings(values.iter().take(limit)).raw(r#","metrics":{}}"#);
    Encoded::Json(json.finish())
}

/// Tag values of version 2: with types; an empty text has no `value`.
pub fn tag_values_v2(values: &[TagValue], limit: usize) -> Encoded {
    let mut json = Json::new();
    json.raw(r#"{"tagValues":"#).array(values.iter().take(limit), |json, tag| {
        json.raw(r#"{"type":"#).string(tag.kind);
        if !tag.value.is_empty() {
            json.raw(r#","value":"#).string(&tag.value);
        }
        json.raw("}");
    });
    json.raw(r#","metrics":{}}"#);
    Encoded::Json(json.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(encoded: Encoded) -> String {
        match encoded {
            Encoded::Json(text) => text,
            Encoded::Protobuf(_) => panic!("not JSON"),
        }
    }

    #[test]
    fn trace_ids_lose_leading_zeros_and_span_ids_do_not() {
        let found = FoundTrace {
            trace_id: 0x123_u128.to_be_bytes(),
            root_service_name: "a".into(),
            root_trace_name: String::new(),
            start_ns: 5,
            duration_ns: 1_999_999,
            span_sets: vec![query::traceql::SpanSet {
                spans: vec![FoundSpan {
                    span_id: [0, 0, 0, 0, 0, 0, 0, 9],
                    name: String::new(),
                    start_ns: 5,
                    duration_ns: 7,
                    attributes: vec![],
                }],
                matched: 1,
                attributes: vec![],
            }],
            service_stats: std::collections::BTreeMap::new(),
        };
        let answer = SearchAnswer { traces: vec![found], inspected_traces: 1, inspected_spans: 1 };
        let json = text(search(&answer, false));
        assert!(json.contains(r#""traceID":"123""#) && json.contains(r#""spanID":"0000000000000009""#), "{json}");
        assert!(json.contains(r#""durationMs":1,"#), "{json}");
    }

    #[test]
    fn tags_have_their_forms() {
        let names = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(text(tag_names_v1(&names)), r#"{"tagNames":["a","b"],"metrics":{}}"#);
        let scopes = vec![(TagScope::Span, names), (TagScope::Link, vec![])];
        assert_eq!(text(tag_names_v2(&scopes, 1)), r#"{"scopes":[{"name":"span","tags":["a"]}],"metrics":{}}"#);
        let values = [TagValue { kind: "int", value: "5".into() }, TagValue { kind: "string", value: String::new() }];
        let expected = r#"{"tagValues":[{"type":"int","value":"5"},{"type":"string"}],"metrics":{}}"#;
        assert_eq!(text(tag_values_v2(&values, 9)), expected);
    }
}
