//! Tests of the tables against the generated types, and of the reading against OTLP's JSON rules.

use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value::Value as Any,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{
    self as metrics, Metric, ResourceMetrics, ScopeMetrics, exemplar, exponential_histogram_data_point::Buckets,
    metric::Data, number_data_point, summary_data_point::ValueAtQuantile,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use proptest::prelude::*;

use super::*;

fn any(value: Any) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn pair(key: &str, value: Any) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(any(value)), ..KeyValue::default() }
}

/// Attributes of every type.
fn attributes() -> Vec<KeyValue> {
    let list = ArrayValue { values: vec![any(Any::IntValue(i64::MIN)), any(Any::StringValue("é\"\n".into()))] };
    vec![
        pair("string", Any::StringValue(String::new())),
        pair("bool", Any::BoolValue(false)),
        pair("int", Any::IntValue(0)),
        pair("double", Any::DoubleValue(-1.5e300)),
        pair("bytes", Any::BytesValue(vec![0, 255, 62, 63])),
        pair("map", Any::KvlistValue(KeyValueList { values: vec![pair("list", Any::ArrayValue(list))] })),
    ]
}

fn resource() -> Option<Resource> {
    let entity = EntityRef {
        schema_url: "s".into(),
        r#type: "host".into(),
        id_keys: vec!["a".into(), "b".into()],
        description_keys: vec!["c".into()],
    };
    Some(Resource { attributes: attributes(), dropped_attributes_count: 1, entity_refs: vec![entity] })
}

fn scope() -> Option<InstrumentationScope> {
    let (name, version) = ("n".into(), "v".into());
    Some(InstrumentationScope { name, version, attributes: attributes(), dropped_attributes_count: 2 })
}

/// What the generated types write reads back as what was written: so names, numbers and kinds are right.
fn check<T: serde::Serialize + PartialEq + std::fmt::Debug>(message: &T, decode: fn(&[u8]) -> Result<T>) {
    let json = serde_json::to_string(message).unwrap();
    assert_eq!(&decode(json.as_bytes()).unwrap(), message, "{json}");
}

#[test]
fn every_field_of_traces_is_known() {
    let event = span::Event {
        time_unix_nano: u64::MAX,
        name: "e".into(),
        attributes: attributes(),
        dropped_attributes_count: u32::MAX,
    };
    let link = span::Link {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        trace_state: "t=1".into(),
        attributes: attributes(),
        dropped_attributes_count: 3,
        flags: 4,
    };
    let span = Span {
        trace_id: vec![3; 16],
        span_id: vec![4; 8],
        trace_state: "a=b".into(),
        parent_span_id: vec![5; 8],
        flags: 0x301,
        name: "name".into(),
        kind: 5,
        start_time_unix_nano: 1_780_315_200_000_000_001,
        end_time_unix_nano: 7,
        attributes: attributes(),
        dropped_attributes_count: 8,
        events: vec![event],
        dropped_events_count: 9,
        links: vec![link],
        dropped_links_count: 10,
        status: Some(Status { message: "m".into(), code: 2 }),
    };
    let scope_spans = vec![ScopeSpans { scope: scope(), spans: vec![span], schema_url: "u".into() }];
    let resource_spans = vec![ResourceSpans { resource: resource(), scope_spans, schema_url: "v".into() }];
    check(&ExportTraceServiceRequest { resource_spans }, decode_traces);
}

#[test]
fn every_field_of_logs_is_known() {
    let record = LogRecord {
        time_unix_nano: 1,
        observed_time_unix_nano: 2,
        severity_number: 24,
        severity_text: "T".into(),
        body: Some(any(Any::StringValue("b".into()))),
        attributes: attributes(),
        dropped_attributes_count: 3,
        flags: 4,
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        event_name: "e".into(),
    };
    let scope_logs = vec![ScopeLogs { scope: scope(), log_records: vec![record], schema_url: "u".into() }];
    let resource_logs = vec![ResourceLogs { resource: resource(), scope_logs, schema_url: "v".into() }];
    check(&ExportLogsServiceRequest { resource_logs }, decode_logs);
}

fn exemplars() -> Vec<metrics::Exemplar> {
    let one = |value: exemplar::Value| metrics::Exemplar {
        filtered_attributes: attributes(),
        time_unix_nano: 1,
        span_id: vec![1; 8],
        trace_id: vec![2; 16],
        value: Some(value),
    };
    vec![one(exemplar::Value::AsDouble(0.0)), one(exemplar::Value::AsInt(-3))]
}

fn number(value: number_data_point::Value) -> metrics::NumberDataPoint {
    metrics::NumberDataPoint {
        attributes: attributes(),
        start_time_unix_nano: 1,
        time_unix_nano: 2,
        exemplars: exemplars(),
        flags: 1,
        value: Some(value),
    }
}

fn histograms() -> (metrics::HistogramDataPoint, metrics::ExponentialHistogramDataPoint) {
    let classic = metrics::HistogramDataPoint {
        attributes: attributes(),
        start_time_unix_nano: 1,
        time_unix_nano: 2,
        count: 3,
        sum: Some(4.5),
        bucket_counts: vec![1, 0, u64::MAX],
        explicit_bounds: vec![0.1, 2.0],
        exemplars: exemplars(),
        flags: 1,
        min: Some(-1.0),
        max: Some(0.0),
    };
    let exponential = metrics::ExponentialHistogramDataPoint {
        attributes: attributes(),
        start_time_unix_nano: 1,
        time_unix_nano: 2,
        count: 3,
        sum: Some(0.0),
        scale: -10,
        zero_count: 4,
        positive: Some(Buckets { offset: i32::MIN, bucket_counts: vec![1, 2] }),
        negative: Some(Buckets { offset: 7, bucket_counts: vec![] }),
        flags: 1,
        exemplars: exemplars(),
        min: Some(1.0),
        max: Some(2.0),
        zero_threshold: 1e-9,
    };
    (classic, exponential)
}

#[test]
fn every_field_of_metrics_is_known() {
    let (classic, exponential) = histograms();
    let summary = metrics::SummaryDataPoint {
        attributes: attributes(),
        start_time_unix_nano: 1,
        time_unix_nano: 2,
        count: 3,
        sum: 4.0,
        quantile_values: vec![ValueAtQuantile { quantile: 0.5, value: 1.0 }],
        flags: 1,
    };
    let points = vec![number(number_data_point::Value::AsDouble(1.5)), number(number_data_point::Value::AsInt(0))];
    let all = [
        Data::Gauge(metrics::Gauge { data_points: points.clone() }),
        Data::Sum(metrics::Sum { data_points: points, aggregation_temporality: 2, is_monotonic: true }),
        Data::Histogram(metrics::Histogram { data_points: vec![classic], aggregation_temporality: 1 }),
        Data::ExponentialHistogram(metrics::ExponentialHistogram {
            data_points: vec![exponential],
            aggregation_temporality: 2,
        }),
        Data::Summary(metrics::Summary { data_points: vec![summary] }),
    ];
    let metric = |data: Data| Metric {
        name: "n".into(),
        description: "d".into(),
        unit: "s".into(),
        metadata: attributes(),
        data: Some(data),
    };
    let metrics = all.into_iter().map(metric).collect();
    let scope_metrics = vec![ScopeMetrics { scope: scope(), metrics, schema_url: "u".into() }];
    let resource_metrics = vec![ResourceMetrics { resource: resource(), scope_metrics, schema_url: "v".into() }];
    check(&ExportMetricsServiceRequest { resource_metrics }, decode_metrics);
}

/// The span of a request with these members.
fn span_of(members: &str) -> Result<Span> {
    let body = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{members}}}]}}]}}]}}"#);
    let request = decode_traces(body.as_bytes())?;
    Ok(request.resource_spans[0].scope_spans[0].spans[0].clone())
}

#[test]
fn scalars_may_be_spelt_in_several_ways() {
    let span = span_of(
        r#""traceId":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","spanId":"","parentSpanId":null,"kind":"SPAN_KIND_CLIENT",
           "startTimeUnixNano":"1780335200000000000","endTimeUnixNano":1780335201000000000,
           "droppedEventsCount":"3","droppedLinksCount":1e3,"flags":1.0,"status":{"code":"STATUS_CODE_ERROR"},
           "trace_id":"ignored","unknownField":{"x":[1,{"y":1e999}]},"attributes":[
             {"key":"i","value":{"intValue":5}},{"key":"d","value":{"doubleValue":"NaN"}},
             {"key":"e","value":{"doubleValue":7}},{"key":"n","value":null},{"key":"m","value":{}},
             {"key":"u","value":{"other":[]}},{"key":"b","value":{"bytesValue":"-_8"}},
             {"value":{"arrayValue":{}}}]"#,
    )
    .unwrap();
    assert_eq!((span.trace_id, span.span_id, span.kind), (vec![0xaa; 16], vec![], 3));
    assert_eq!(span.start_time_unix_nano, 1_780_335_200_000_000_000);
    assert_eq!(span.end_time_unix_nano, 1_780_335_201_000_000_000);
    assert_eq!((span.dropped_events_count, span.dropped_links_count, span.flags), (3, 1000, 1));
    assert_eq!(span.status.unwrap().code, 2);
    let values: Vec<Option<Any>> = span.attributes.into_iter().map(|a| a.value.and_then(|v| v.value)).collect();
    assert_eq!(values[0], Some(Any::IntValue(5)));
    assert!(matches!(values[1], Some(Any::DoubleValue(v)) if v.is_nan()));
    assert_eq!(values[2], Some(Any::DoubleValue(7.0)));
    assert_eq!(values[3..6], [None, None, None]);
    assert_eq!(values[6], Some(Any::BytesValue(vec![0xfb, 0xff])));
    assert_eq!(values[7], Some(Any::ArrayValue(ArrayValue::default())));
}

#[test]
fn wrong_types_are_errors() {
    for members in [
        r#""traceId":"zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz""#,
        r#""traceId":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa""#,
        r#""traceId":5"#,
        r#""spanId":"aa""#,
        r#""name":5"#,
        r#""name":["a"]"#,
        r#""kind":"SPAN_KIND_NOPE""#,
        r#""kind":1.5"#,
        r#""kind":99999999999"#,
        r#""startTimeUnixNano":-1"#,
        r#""startTimeUnixNano":"soon""#,
        r#""startTimeUnixNano":true"#,
        r#""startTimeUnixNano":"18446744073709551616""#,
        r#""droppedEventsCount":4294967296"#,
        r#""attributes":{}"#,
        r#""attributes":[null]"#,
        r#""attributes":[[]]"#,
        r#""attributes":[{"key":"a","value":"text"}]"#,
        r#""attributes":[{"key":"a","value":{"intValue":1.5}}]"#,
        r#""attributes":[{"key":"a","value":{"intValue":"9223372036854775808"}}]"#,
        r#""attributes":[{"key":"a","value":{"boolValue":"true"}}]"#,
        r#""attributes":[{"key":"a","value":{"bytesValue":"&&"}}]"#,
        r#""attributes":[{"key":"a","value":{"doubleValue":"inf"}}]"#,
        r#""status":[]"#,
        r#""links":[{"traceId":"abc"}]"#,
    ] {
        assert!(span_of(members).is_err(), "{members}");
    }
    for body in ["", "{", "[]", "null", "5", "\"x\"", "{}{}", r#"{"resourceSpans":{}}"#, r#"{"resourceSpans":[[]]}"#] {
        assert!(decode_traces(body.as_bytes()).is_err(), "{body}");
    }
    for body in ["{}", r#"{"resourceSpans":[]}"#, r#"{"resourceSpans":null}"#, r#" {"x":1} "#] {
        assert_eq!(decode_traces(body.as_bytes()).unwrap(), ExportTraceServiceRequest::default(), "{body}");
    }
}

/// An attribute nested `depth` lists deep.
fn nested(depth: usize) -> String {
    let open = r#"{"arrayValue":{"values":["#.repeat(depth);
    let close = "]}}".repeat(depth);
    format!(r#""attributes":[{{"key":"a","value":{open}{{"intValue":"1"}}{close}}}]"#)
}

#[test]
fn depth_is_bounded_with_an_error_that_says_so() {
    span_of(&nested(30)).unwrap();
    let message = span_of(&nested(10_000)).unwrap_err().message().to_owned();
    assert!(message.contains("recursion limit"), "{message}");
    let unknown = format!(r#"{{"other":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(decode_traces(unknown.as_bytes()).is_ok());
    let long = format!(r#""kind":"{}""#, "x".repeat(100_000));
    assert!(span_of(&long).unwrap_err().message().len() < 2000);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..60)) {
        let _ = decode_traces(&bytes);
    }

    #[test]
    fn no_mutation_panics(at in 0usize..500, byte in proptest::sample::select(b"{}[]\",:0-9eE.ntfx\\\xff".to_vec())) {
        let mut body = format!(
            r#"{{"resourceSpans":[{{"resource":{{}},"scopeSpans":[{{"spans":[{{"traceId":"","kind":2,{}}}]}}]}}]}}"#,
            nested(3)
        ).into_bytes();
        let at = at % body.len();
        body[at] = byte;
        let _ = decode_traces(&body);
        let _ = decode_logs(&body);
        let _ = decode_metrics(&body);
    }
}
